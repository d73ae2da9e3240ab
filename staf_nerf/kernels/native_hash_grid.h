/* The arithmetic of native_hash_grid.c for one instruction set: see native_instructions.h, which includes it.
 *
 * Points are worked on GROUP at a time, one in each lane of the compiler's vector types; what reads or writes rows of the
 * table goes point by point. Loops over corners and axes that gain by it are UNROLLED.
 */

typedef struct {
    I row[8]; /* of the level's table; axis 0 changes fastest */
    F fraction[3];
} NAME(cells);

#define CELLS NAME(cells)

/* The coordinates of the group's points, or of vectors beside them; beyond the end, the last point's. */
INLINE void NAME(gather)(const grid *g, const float *points, ptrdiff_t first, int dims, F *x) {
    ptrdiff_t last = g->count - 1;
    for (int axis = 0; axis < dims; axis++)
        if (first + GROUP <= g->count)
            for (int i = 0; i < GROUP; i++) x[axis][i] = points[(first + i) * dims + axis];
        else
            for (int i = 0; i < GROUP; i++) x[axis][i] = points[(first + i < last ? first + i : last) * dims + axis];
}

INLINE void NAME(find)(const grid *g, ptrdiff_t level, const F *points, int dims, CELLS *found) {
    U low[3], high[3];
    uint32_t rows = (uint32_t)g->rows[level];
    for (int axis = 0; axis < dims; axis++) {
        F position = points[axis] * g->scales[level] + 0.5f;
        F number = (F)((I)position & (position == position)); /* NaN has no cell: its fraction shows it */
        I corner = __builtin_convertvector(number, I);
        corner += __builtin_convertvector(corner, F) > number; /* down, not towards zero */
        found->fraction[axis] = position - __builtin_convertvector(corner, F);
        uint32_t factor = (uint32_t)g->multipliers[axis * g->levels + level];
        low[axis] = (U)corner * factor;
        high[axis] = low[axis] + factor;
    }
    int dense = level < g->dense;
    for (int c = 0; c < 1 << dims; c++) {
        U index = c & 1 ? high[0] : low[0];
        for (int axis = 1; axis < dims; axis++) {
            U part = c >> axis & 1 ? high[axis] : low[axis];
            index = dense ? index + part : index ^ part;
        }
        if (!dense) {
            index &= rows - 1;
        } else {
            I beyond = (I)(index >= rows);
            uint64_t words[GROUP / 2], any = 0;
            memcpy(words, &beyond, sizeof words);
            for (int i = 0; i < GROUP / 2; i++) any |= words[i];
            if (any) index %= rows;
        }
        found->row[c] = (I)index;
    }
}

/* A corner's weight. */
INLINE F NAME(weight)(const CELLS *at, int corner, int dims) {
    F product = corner & 1 ? at->fraction[0] : 1.0f - at->fraction[0];
    UNROLLED for (int axis = 1; axis < dims; axis++)
        product *= corner >> axis & 1 ? at->fraction[axis] : 1.0f - at->fraction[axis];
    return product;
}

/* Its derivative along one axis, in units of cells. */
INLINE F NAME(slope)(const CELLS *at, int corner, int dims, int along) {
    F product = (F){0} + (corner >> along & 1 ? 1.0f : -1.0f);
    UNROLLED for (int axis = 0; axis < dims; axis++)
        if (axis != along) product *= corner >> axis & 1 ? at->fraction[axis] : 1.0f - at->fraction[axis];
    return product;
}

/* Its derivative along two axes: zero along one twice, because weights are linear in each. */
INLINE F NAME(bend)(const CELLS *at, int corner, int dims, int along, int across) {
    if (along == across) return (F){0};
    F product = (F){0} + ((corner >> along & 1) == (corner >> across & 1) ? 1.0f : -1.0f);
    UNROLLED for (int axis = 0; axis < dims; axis++)
        if (axis != along && axis != across)
            product *= corner >> axis & 1 ? at->fraction[axis] : 1.0f - at->fraction[axis];
    return product;
}

/* How it moves when the point moves by v. */
INLINE F NAME(along)(const CELLS *at, int corner, int dims, const F *v, float scale) {
    F sum = {0};
    UNROLLED for (int axis = 0; axis < dims; axis++) sum += v[axis] * NAME(slope)(at, corner, dims, axis);
    return scale * sum;
}

INLINE ptrdiff_t NAME(end)(const grid *g, ptrdiff_t first) {
    return first + GROUP < g->count ? GROUP : g->count - first;
}

/* to += w * from, for a row's features. */
INLINE void NAME(add)(float *to, float w, const float *from, ptrdiff_t features) {
    if (features == 2) {
        QUAD sum = two_pairs(to, to) + w * two_pairs(from, from);
        memcpy(to, &sum, sizeof sum / 2);
    } else {
        for (ptrdiff_t f = 0; f < features; f++) to[f] += w * from[f];
    }
}

INLINE float NAME(dot)(const float *a, const float *b, ptrdiff_t features) {
    float sum = 0.0f;
    for (ptrdiff_t f = 0; f < features; f++) sum += a[f] * b[f];
    return sum;
}

INLINE void NAME(forward_group)(const grid *g, ptrdiff_t unit, int dims, ptrdiff_t features) {
    ptrdiff_t first = unit * GROUP, many = NAME(end)(g, first);
    F x[3];
    NAME(gather)(g, g->points, first, dims, x);
    for (ptrdiff_t level = 0; level < g->levels; level++) {
        CELLS at;
        F weights[8];
        const float *table = g->table + g->offsets[level] * features;
        NAME(find)(g, level, x, dims, &at);
        UNROLLED for (int c = 0; c < 1 << dims; c++) weights[c] = NAME(weight)(&at, c, dims);
        for (ptrdiff_t i = 0; i < many; i++) {
            float *out = g->out + ((first + i) * g->levels + level) * features;
            if (features == 2) { /* two corners at a time */
                QUAD sum = {0};
                UNROLLED for (int c = 0; c < 1 << dims; c += 2) {
                    float low = weights[c][i], high = weights[c + 1][i];
                    sum += (QUAD){low, low, high, high} * two_pairs(table + at.row[c][i] * 2, table + at.row[c + 1][i] * 2);
                }
                out[0] = sum[0] + sum[2], out[1] = sum[1] + sum[3];
                continue;
            }
            for (ptrdiff_t f = 0; f < features; f++) {
                float sum = 0.0f;
                UNROLLED for (int c = 0; c < 1 << dims; c++) sum += weights[c][i] * table[at.row[c][i] * features + f];
                out[f] = sum;
            }
        }
    }
}

INLINE void NAME(table_level)(const grid *g, ptrdiff_t level, int dims, ptrdiff_t features) {
    float *table = g->to_table + g->offsets[level] * features;
    for (ptrdiff_t first = 0; first < g->count; first += GROUP) {
        CELLS at;
        F x[3], weights[8];
        ptrdiff_t many = NAME(end)(g, first);
        NAME(gather)(g, g->points, first, dims, x);
        NAME(find)(g, level, x, dims, &at);
        UNROLLED for (int c = 0; c < 1 << dims; c++) weights[c] = NAME(weight)(&at, c, dims);
        for (ptrdiff_t i = 0; i < many; i++) {
            const float *grad = g->grad + ((first + i) * g->levels + level) * features;
            UNROLLED for (int c = 0; c < 1 << dims; c++)
                NAME(add)(table + at.row[c][i] * features, weights[c][i], grad, features);
        }
    }
}

/* For each corner and point: a row of the table times the gradient of the point's features. */
INLINE void NAME(agree)(const grid *g, const float *table, ptrdiff_t level, ptrdiff_t first, const CELLS *at, int dims,
                        ptrdiff_t features, F agreement[8]) {
    ptrdiff_t many = NAME(end)(g, first);
    table += g->offsets[level] * features;
    UNROLLED for (int c = 0; c < 1 << dims; c++) agreement[c] = (F){0};
    for (ptrdiff_t i = 0; i < many; i++) {
        const float *grad = g->grad + ((first + i) * g->levels + level) * features;
        UNROLLED for (int c = 0; c < 1 << dims; c++)
            agreement[c][i] = NAME(dot)(table + at->row[c][i] * features, grad, features);
    }
}

INLINE void NAME(store_points)(const grid *g, ptrdiff_t first, int dims, const F *sums) {
    ptrdiff_t many = NAME(end)(g, first);
    for (ptrdiff_t i = 0; i < many; i++)
        for (int axis = 0; axis < dims; axis++) g->to_points[(first + i) * dims + axis] = sums[axis][i];
}

INLINE void NAME(points_group)(const grid *g, ptrdiff_t unit, int dims, ptrdiff_t features) {
    ptrdiff_t first = unit * GROUP;
    F x[3], sums[3] = {{0}, {0}, {0}}, agreement[8];
    NAME(gather)(g, g->points, first, dims, x);
    for (ptrdiff_t level = 0; level < g->levels; level++) {
        CELLS at;
        NAME(find)(g, level, x, dims, &at);
        NAME(agree)(g, g->table, level, first, &at, dims, features, agreement);
        UNROLLED for (int axis = 0; axis < dims; axis++)
            UNROLLED for (int c = 0; c < 1 << dims; c++)
                sums[axis] += g->scales[level] * agreement[c] * NAME(slope)(&at, c, dims, axis);
    }
    NAME(store_points)(g, first, dims, sums);
}

/* With v = (v_points, v_table), the second pass differentiates
 * sum over levels and corners of (row . grad) (weight along v_points) + weight (row of v_table . grad). */
INLINE void NAME(second_group)(const grid *g, ptrdiff_t unit, int dims, ptrdiff_t features) {
    ptrdiff_t first = unit * GROUP, many = NAME(end)(g, first);
    F x[3], sums[3] = {{0}, {0}, {0}}, v[3] = {{0}, {0}, {0}}, agreement[8], moved[8], weights[8];
    NAME(gather)(g, g->points, first, dims, x);
    if (g->v_points) NAME(gather)(g, g->v_points, first, dims, v);
    for (ptrdiff_t level = 0; level < g->levels; level++) {
        CELLS at;
        float scale = g->scales[level];
        NAME(find)(g, level, x, dims, &at);
        NAME(agree)(g, g->table, level, first, &at, dims, features, agreement);
        UNROLLED for (int c = 0; c < 1 << dims; c++) {
            moved[c] = NAME(along)(&at, c, dims, v, scale);
            weights[c] = NAME(weight)(&at, c, dims);
            UNROLLED for (int axis = 0; axis < dims; axis++) {
                F bent = {0};
                UNROLLED for (int other = 0; other < dims; other++) bent += v[other] * NAME(bend)(&at, c, dims, axis, other);
                sums[axis] += scale * scale * agreement[c] * bent;
            }
        }
        for (ptrdiff_t i = 0; i < many; i++) {
            float *to_grad = g->to_grad + ((first + i) * g->levels + level) * features;
            for (ptrdiff_t f = 0; f < features; f++) to_grad[f] = 0.0f;
            UNROLLED for (int c = 0; c < 1 << dims; c++) {
                ptrdiff_t row = (g->offsets[level] + at.row[c][i]) * features;
                NAME(add)(to_grad, moved[c][i], g->table + row, features);
                if (g->v_table) NAME(add)(to_grad, weights[c][i], g->v_table + row, features);
            }
        }
        if (!g->v_table) continue;
        NAME(agree)(g, g->v_table, level, first, &at, dims, features, agreement);
        UNROLLED for (int axis = 0; axis < dims; axis++)
            UNROLLED for (int c = 0; c < 1 << dims; c++) sums[axis] += scale * agreement[c] * NAME(slope)(&at, c, dims, axis);
    }
    NAME(store_points)(g, first, dims, sums);
}

INLINE void NAME(second_table_level)(const grid *g, ptrdiff_t level, int dims, ptrdiff_t features) {
    float *table = g->to_table + g->offsets[level] * features;
    for (ptrdiff_t first = 0; first < g->count; first += GROUP) {
        CELLS at;
        F x[3], v[3], moved[8];
        ptrdiff_t many = NAME(end)(g, first);
        NAME(gather)(g, g->points, first, dims, x);
        NAME(gather)(g, g->v_points, first, dims, v);
        NAME(find)(g, level, x, dims, &at);
        UNROLLED for (int c = 0; c < 1 << dims; c++) moved[c] = NAME(along)(&at, c, dims, v, g->scales[level]);
        for (ptrdiff_t i = 0; i < many; i++) {
            const float *grad = g->grad + ((first + i) * g->levels + level) * features;
            UNROLLED for (int c = 0; c < 1 << dims; c++)
                NAME(add)(table + at.row[c][i] * features, moved[c][i], grad, features);
        }
    }
}

/* The common sizes are compiled with constants, which unrolls their loops. */
#define EACH_SIZE(function)                                                 \
    static void NAME(function##_unit)(void *context, ptrdiff_t unit) {      \
        const grid *g = context;                                            \
        if (g->dims == 3 && g->features == 2)                               \
            NAME(function)(g, unit, 3, 2);                                  \
        else if (g->dims == 3)                                              \
            NAME(function)(g, unit, 3, g->features);                        \
        else                                                                \
            NAME(function)(g, unit, 2, g->features);                        \
    }
EACH_SIZE(forward_group)
EACH_SIZE(table_level)
EACH_SIZE(points_group)
EACH_SIZE(second_group)
EACH_SIZE(second_table_level)

#undef EACH_SIZE
#undef CELLS
