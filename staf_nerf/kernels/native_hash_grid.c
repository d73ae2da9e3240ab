/* The multiresolution hash grid on a CPU, in float32: features of points, their gradients to table and points, and the
 * gradients of those.
 *
 * Points have `dims` (2 or 3) coordinates in [0, 1]. Level l has a cell of 1 / scales[l] and `rows[l]` rows of the table
 * from `offsets[l]`, which must lie within its `table_rows`; the first `dense` levels number their grid points, the others
 * hash them. multipliers is (dims, levels). The layout is instant-ngp's. Gradients to the table are formed level by level,
 * each by one thread, in the order of the points: there are no races, and results do not depend on the number of threads.
 */
#include <stdint.h>
#include <string.h>

#include "native_threads.h"

#define GROUP 16 /* points: the floats of the widest vector */
typedef float F __attribute__((vector_size(4 * GROUP)));
typedef int32_t I __attribute__((vector_size(4 * GROUP)));
typedef uint32_t U __attribute__((vector_size(4 * GROUP)));
typedef float QUAD __attribute__((vector_size(16)));
/* Where the number of rounds is a constant: at -O2, compilers unroll few loops by themselves. */
#define UNROLLED _Pragma("GCC unroll 8")
#define INLINE static inline __attribute__((always_inline))

/* Two pairs of floats; as doubles, compilers load them in one instruction each. */
INLINE QUAD two_pairs(const float *a, const float *b) {
    typedef double halves __attribute__((vector_size(16)));
    double low, high;
    memcpy(&low, a, sizeof low);
    memcpy(&high, b, sizeof high);
    return (QUAD)(halves){low, high};
}

typedef struct {
    const float *points, *table, *grad, *scales;
    const int32_t *multipliers, *rows, *offsets;
    const float *v_points, *v_table; /* second pass: of the loss by the first pass's results; either may be NULL */
    float *out, *to_grad, *to_table, *to_points;
    ptrdiff_t count, dims, levels, table_rows, features, dense;
} grid;

#define NAME(a) JOIN_NAMES(a, INSTRUCTIONS)
#define ARITHMETIC "native_hash_grid.h"
#include "native_instructions.h"

typedef struct {
    unit_function forward, table, points, second, second_table;
} kernels;

#define KERNELS(suffix)                                                                                    \
    {forward_group_unit_##suffix, table_level_unit_##suffix, points_group_unit_##suffix, second_group_unit_##suffix, \
     second_table_level_unit_##suffix}
static const kernels base = KERNELS(base);
#ifdef HAVE_X86
static const kernels avx2 = KERNELS(avx2), avx512 = KERNELS(avx512);
#endif

static const kernels *choose(int level) {
#ifdef HAVE_X86
    if (level == 2) return &avx512;
    if (level == 1) return &avx2;
#endif
    (void)level;
    return &base;
}

/* Whether every level has rows, and lies within the table. */
static int fits(const grid *g) {
    for (ptrdiff_t level = 0; level < g->levels; level++)
        if (g->rows[level] < 1 || g->offsets[level] < 0 || g->table_rows - g->offsets[level] < g->rows[level]) return 0;
    return 1;
}

static ptrdiff_t groups(ptrdiff_t count) { return (count + GROUP - 1) / GROUP; }

/* What all functions are given, once as parameters and once as the fields of a grid: in the order of `_grid` and
 * `grid_sizes` in signatures.py. */
#define SIZES \
    ptrdiff_t count, ptrdiff_t dims, ptrdiff_t levels, ptrdiff_t table_rows, ptrdiff_t features, ptrdiff_t dense
#define ARRAYS                                                                                                  \
    const float *points, const float *table, const float *scales, const int32_t *multipliers, const int32_t *rows, \
        const int32_t *offsets
#define GIVEN                                                                                                     \
    .count = count, .dims = dims, .levels = levels, .table_rows = table_rows, .features = features, .dense = dense, \
    .points = points, .table = table, .scales = scales, .multipliers = multipliers, .rows = rows, .offsets = offsets

EXPORT int hash_grid_forward(int level, int threads, SIZES, ARRAYS, float *out) {
    grid g = {GIVEN, .out = out};
    if (!fits(&g)) return BEYOND_TABLE;
    run_job((job){choose(level)->forward, &g, groups(count), threads});
    return DONE;
}

/* to_table arrives as zeros; it or to_points may be NULL where that gradient is not wanted. */
EXPORT int hash_grid_backward(int level, int threads, SIZES, const float *grad, ARRAYS, float *to_table, float *to_points) {
    grid g = {GIVEN, .grad = grad, .to_table = to_table, .to_points = to_points};
    if (!fits(&g)) return BEYOND_TABLE;
    if (to_table) run_job((job){choose(level)->table, &g, levels, threads});
    if (to_points) run_job((job){choose(level)->points, &g, groups(count), threads});
    return DONE;
}

/* to_table arrives as zeros. */
EXPORT int hash_grid_second(int level, int threads, SIZES, const float *v_points, const float *v_table, const float *grad,
                            ARRAYS, float *to_grad, float *to_points, float *to_table) {
    grid g = {GIVEN, .v_points = v_points, .v_table = v_table, .grad = grad, .to_grad = to_grad, .to_points = to_points,
              .to_table = to_table};
    if (!fits(&g)) return BEYOND_TABLE;
    run_job((job){choose(level)->second, &g, groups(count), threads});
    if (v_points) run_job((job){choose(level)->second_table, &g, levels, threads});
    return DONE;
}
