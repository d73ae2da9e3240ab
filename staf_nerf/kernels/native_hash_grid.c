/* The multiresolution hash grid on a CPU, in float32: features of points, their gradients to table and points, and the
 * gradients of those.
 *
 * Points have `dims` (2 or 3) coordinates in [0, 1]. Level l has a cell of 1 / scales[l] and `rows[l]` rows of the table
 * from `offsets[l]`; the first `dense` levels number their grid points, the others hash them. multipliers is
 * (dims, levels). The layout is instant-ngp's. Gradients to the table are formed level by level, each by one thread, in
 * the order of the points: there are no races, and results do not depend on the number of threads.
 */
#include <math.h>
#include <stdint.h>

#include "native_threads.h"

#define BLOCK 256 /* points */
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    const float *points, *table, *grad, *scales;
    const int32_t *multipliers, *rows, *offsets;
    const float *v_points, *v_table; /* second pass: of the loss by the first pass's results; either may be NULL */
    float *out, *to_grad, *to_table, *to_points;
    ptrdiff_t count, dims, levels, features, dense;
} grid;

typedef struct {
    ptrdiff_t row[8]; /* of the table; axis 0 changes fastest */
    float fraction[3];
} cell;

INLINE cell find(const grid *g, ptrdiff_t level, const float *point, int dims) {
    cell found;
    uint32_t low[3], high[3];
    for (int axis = 0; axis < dims; axis++) {
        float position = point[axis] * g->scales[level] + 0.5f, corner = floorf(position);
        uint32_t factor = (uint32_t)g->multipliers[axis * g->levels + level];
        found.fraction[axis] = position - corner;
        int within = corner > -2147483648.0f && corner < 2147483648.0f; /* NaN is not: its fraction shows it */
        low[axis] = (uint32_t)(within ? (int32_t)corner : 0) * factor;
        high[axis] = low[axis] + factor;
    }
    uint32_t rows = (uint32_t)g->rows[level];
    int dense = level < g->dense;
    for (int c = 0; c < 1 << dims; c++) {
        uint32_t index = c & 1 ? high[0] : low[0];
        for (int axis = 1; axis < dims; axis++) {
            uint32_t part = c >> axis & 1 ? high[axis] : low[axis];
            index = dense ? index + part : index ^ part;
        }
        if (index >= rows) index = dense ? index % rows : index & (rows - 1);
        found.row[c] = (ptrdiff_t)g->offsets[level] + index;
    }
    return found;
}

INLINE float weight(const cell *at, int corner, int dims) {
    float product = 1.0f;
    for (int axis = 0; axis < dims; axis++)
        product *= corner >> axis & 1 ? at->fraction[axis] : 1.0f - at->fraction[axis];
    return product;
}

INLINE float weight_slope(const cell *at, int corner, int dims, int along) {
    float product = corner >> along & 1 ? 1.0f : -1.0f;
    for (int axis = 0; axis < dims; axis++)
        if (axis != along) product *= corner >> axis & 1 ? at->fraction[axis] : 1.0f - at->fraction[axis];
    return product;
}

/* Zero along one axis twice: weights are linear in each. */
INLINE float weight_bend(const cell *at, int corner, int dims, int along, int across) {
    if (along == across) return 0.0f;
    float product = (corner >> along & 1) == (corner >> across & 1) ? 1.0f : -1.0f;
    for (int axis = 0; axis < dims; axis++)
        if (axis != along && axis != across)
            product *= corner >> axis & 1 ? at->fraction[axis] : 1.0f - at->fraction[axis];
    return product;
}

/* How a weight moves when the point moves by `v`. */
INLINE float weight_along(const cell *at, int corner, int dims, const float *v, float scale) {
    float sum = 0.0f;
    for (int axis = 0; axis < dims; axis++) sum += v[axis] * weight_slope(at, corner, dims, axis);
    return scale * sum;
}

INLINE void forward_block(const grid *g, ptrdiff_t unit, int dims, ptrdiff_t features) {
    ptrdiff_t first = unit * BLOCK, last = first + BLOCK < g->count ? first + BLOCK : g->count;
    for (ptrdiff_t level = 0; level < g->levels; level++)
        for (ptrdiff_t i = first; i < last; i++) {
            cell at = find(g, level, g->points + i * dims, dims);
            float *out = g->out + (i * g->levels + level) * features;
            for (ptrdiff_t f = 0; f < features; f++) out[f] = 0.0f;
            for (int c = 0; c < 1 << dims; c++) {
                const float *row = g->table + at.row[c] * features;
                float w = weight(&at, c, dims);
                for (ptrdiff_t f = 0; f < features; f++) out[f] += w * row[f];
            }
        }
}

INLINE void table_level(const grid *g, ptrdiff_t level, int dims, ptrdiff_t features) {
    for (ptrdiff_t i = 0; i < g->count; i++) {
        cell at = find(g, level, g->points + i * dims, dims);
        const float *grad = g->grad + (i * g->levels + level) * features;
        for (int c = 0; c < 1 << dims; c++) {
            float *row = g->to_table + at.row[c] * features, w = weight(&at, c, dims);
            for (ptrdiff_t f = 0; f < features; f++) row[f] += w * grad[f];
        }
    }
}

INLINE void points_block(const grid *g, ptrdiff_t unit, int dims, ptrdiff_t features) {
    ptrdiff_t first = unit * BLOCK, last = first + BLOCK < g->count ? first + BLOCK : g->count;
    for (ptrdiff_t i = first; i < last; i++) {
        float sums[3] = {0.0f, 0.0f, 0.0f};
        for (ptrdiff_t level = 0; level < g->levels; level++) {
            cell at = find(g, level, g->points + i * dims, dims);
            const float *grad = g->grad + (i * g->levels + level) * features;
            float slopes[3] = {0.0f, 0.0f, 0.0f};
            for (int c = 0; c < 1 << dims; c++) {
                const float *row = g->table + at.row[c] * features;
                float agreement = 0.0f;
                for (ptrdiff_t f = 0; f < features; f++) agreement += row[f] * grad[f];
                for (int axis = 0; axis < dims; axis++) slopes[axis] += agreement * weight_slope(&at, c, dims, axis);
            }
            for (int axis = 0; axis < dims; axis++) sums[axis] += g->scales[level] * slopes[axis];
        }
        for (int axis = 0; axis < dims; axis++) g->to_points[i * dims + axis] = sums[axis];
    }
}

/* With v = (v_points, v_table), the second pass differentiates
 * sum over levels and corners of (row . grad) (weight along v_points) + weight (row of v_table . grad). */
INLINE void second_block(const grid *g, ptrdiff_t unit, int dims, ptrdiff_t features) {
    ptrdiff_t first = unit * BLOCK, last = first + BLOCK < g->count ? first + BLOCK : g->count;
    for (ptrdiff_t i = first; i < last; i++) {
        float sums[3] = {0.0f, 0.0f, 0.0f}, v[3] = {0.0f, 0.0f, 0.0f};
        for (int axis = 0; axis < dims && g->v_points; axis++) v[axis] = g->v_points[i * dims + axis];
        for (ptrdiff_t level = 0; level < g->levels; level++) {
            cell at = find(g, level, g->points + i * dims, dims);
            const float *grad = g->grad + (i * g->levels + level) * features;
            float *to_grad = g->to_grad + (i * g->levels + level) * features, scale = g->scales[level];
            for (ptrdiff_t f = 0; f < features; f++) to_grad[f] = 0.0f;
            for (int c = 0; c < 1 << dims; c++) {
                const float *row = g->table + at.row[c] * features;
                float moved = weight_along(&at, c, dims, v, scale), agreement = 0.0f;
                for (ptrdiff_t f = 0; f < features; f++) {
                    to_grad[f] += row[f] * moved;
                    agreement += row[f] * grad[f];
                }
                for (int axis = 0; axis < dims; axis++) {
                    float bend = 0.0f;
                    for (int other = 0; other < dims; other++)
                        bend += v[other] * weight_bend(&at, c, dims, axis, other);
                    sums[axis] += agreement * scale * scale * bend;
                }
                if (!g->v_table) continue;
                const float *v_row = g->v_table + at.row[c] * features;
                float w = weight(&at, c, dims), v_agreement = 0.0f;
                for (ptrdiff_t f = 0; f < features; f++) {
                    to_grad[f] += w * v_row[f];
                    v_agreement += v_row[f] * grad[f];
                }
                for (int axis = 0; axis < dims; axis++)
                    sums[axis] += v_agreement * scale * weight_slope(&at, c, dims, axis);
            }
        }
        for (int axis = 0; axis < dims; axis++) g->to_points[i * dims + axis] = sums[axis];
    }
}

INLINE void second_table_level(const grid *g, ptrdiff_t level, int dims, ptrdiff_t features) {
    for (ptrdiff_t i = 0; i < g->count; i++) {
        cell at = find(g, level, g->points + i * dims, dims);
        const float *grad = g->grad + (i * g->levels + level) * features;
        for (int c = 0; c < 1 << dims; c++) {
            float moved = weight_along(&at, c, dims, g->v_points + i * dims, g->scales[level]);
            float *row = g->to_table + at.row[c] * features;
            for (ptrdiff_t f = 0; f < features; f++) row[f] += moved * grad[f];
        }
    }
}

/* The common sizes are compiled with constants, which unrolls their loops. */
#define EACH_SIZE(function)                                                             \
    static void function##_unit(void *context, ptrdiff_t unit) {                        \
        const grid *g = context;                                                        \
        if (g->dims == 3 && g->features == 2)                                           \
            function(g, unit, 3, 2);                                                    \
        else if (g->dims == 3)                                                          \
            function(g, unit, 3, g->features);                                          \
        else                                                                            \
            function(g, unit, 2, g->features);                                          \
    }
EACH_SIZE(forward_block)
EACH_SIZE(table_level)
EACH_SIZE(points_block)
EACH_SIZE(second_block)
EACH_SIZE(second_table_level)

EXPORT void hash_grid_forward(int threads, ptrdiff_t count, ptrdiff_t dims, ptrdiff_t levels, ptrdiff_t features,
                              ptrdiff_t dense, const float *points, const float *table, const float *scales,
                              const int32_t *multipliers, const int32_t *rows, const int32_t *offsets, float *out) {
    grid g = {.points = points, .table = table, .scales = scales, .multipliers = multipliers, .rows = rows,
              .offsets = offsets, .out = out, .count = count, .dims = dims, .levels = levels, .features = features,
              .dense = dense};
    run_job((job){forward_block_unit, &g, (count + BLOCK - 1) / BLOCK, threads});
}

/* to_table arrives as zeros; it or to_points may be NULL where that gradient is not wanted. */
EXPORT void hash_grid_backward(int threads, ptrdiff_t count, ptrdiff_t dims, ptrdiff_t levels, ptrdiff_t features,
                               ptrdiff_t dense, const float *grad, const float *points, const float *table,
                               const float *scales, const int32_t *multipliers, const int32_t *rows,
                               const int32_t *offsets, float *to_table, float *to_points) {
    grid g = {.points = points, .table = table, .grad = grad, .scales = scales, .multipliers = multipliers,
              .rows = rows, .offsets = offsets, .to_table = to_table, .to_points = to_points, .count = count,
              .dims = dims, .levels = levels, .features = features, .dense = dense};
    if (to_table) run_job((job){table_level_unit, &g, levels, threads});
    if (to_points) run_job((job){points_block_unit, &g, (count + BLOCK - 1) / BLOCK, threads});
}

/* to_table arrives as zeros. */
EXPORT void hash_grid_second(int threads, ptrdiff_t count, ptrdiff_t dims, ptrdiff_t levels, ptrdiff_t features,
                             ptrdiff_t dense, const float *v_points, const float *v_table, const float *grad,
                             const float *points, const float *table, const float *scales, const int32_t *multipliers,
                             const int32_t *rows, const int32_t *offsets, float *to_grad, float *to_points,
                             float *to_table) {
    grid g = {.points = points, .table = table, .grad = grad, .scales = scales, .multipliers = multipliers,
              .rows = rows, .offsets = offsets, .v_points = v_points, .v_table = v_table, .to_grad = to_grad,
              .to_table = to_table, .to_points = to_points, .count = count, .dims = dims, .levels = levels,
              .features = features, .dense = dense};
    run_job((job){second_block_unit, &g, (count + BLOCK - 1) / BLOCK, threads});
    if (v_points) run_job((job){second_table_level_unit, &g, levels, threads});
}
