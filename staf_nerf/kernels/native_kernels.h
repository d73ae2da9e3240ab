/* The arithmetic of native.c for one instruction set and one precision: see native_precisions.h, which includes it.
 *
 * A line is what one vector of parameters serves: `count` vectors, `stride` values apart, of which the first `width`
 * lanes are in use.
 */
#if KERNEL_FLOAT
#define PRECISION f32
#define REAL float
#define BITS int32_t
#define SIGN_SHIFT 31
#define INTEGER_AT 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, which the low bits of the sum then hold */
#define INVERSE_PI 0.318309886183790671538f
#define PI_HIGH 3.14159274101257324f /* pi in two parts */
#define PI_LOW -8.74227765734758577e-8f
/* and in three, the first two of 9 bits: multiples up to 2^15 of these are exact without a fused multiply-add. */
#define PI_1 3.140625f
#define PI_2 9.670257568359375e-4f
#define PI_3 6.2783295730096264338e-7f
#define EXACT_SIN(x) ((float)sin((double)(x)))
#define EXACT_COS(x) ((float)cos((double)(x)))
#else
#define PRECISION f64
#define REAL double
#define BITS int64_t
#define SIGN_SHIFT 63
#define INTEGER_AT 6755399441055744.0 /* 1.5 * 2^52 */
#define INVERSE_PI 0.318309886183790671537767526745
#define PI_HIGH 3.141592653589793116
#define PI_LOW 1.2246467991473532072e-16
#define PI_1 3.14159265346825122833251953125
#define PI_2 1.215420101260793195319109827323700301349e-10
#define PI_3 4.044532497591901464799369240189515432952e-21
#define EXACT_SIN(x) sin(x)
#define EXACT_COS(x) cos(x)
#endif
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(REAL)))
#define LINE_VALUES ((ptrdiff_t)(BLOCK_BYTES / sizeof(REAL)))
#define SUMMED 32 /* vectors that one sum takes; then it is added to the line's, as rounding grows with a sum's length */
#define INLINE static inline __attribute__((always_inline))
#define NAME(a) JOIN_NAMES(a, JOIN_NAMES(PRECISION, INSTRUCTIONS))
#define V NAME(vector)
#define I NAME(bits)

typedef REAL V __attribute__((vector_size(VECTOR_BYTES)));
typedef BITS I __attribute__((vector_size(VECTOR_BYTES)));

INLINE V NAME(load)(const REAL *from, ptrdiff_t width) {
    V v = {0};
    if (width == LANES)
        memcpy(&v, from, VECTOR_BYTES);
    else
        memcpy(&v, from, (size_t)width * sizeof(REAL));
    return v;
}

INLINE void NAME(store)(REAL *to, V v, ptrdiff_t width) {
    if (width == LANES)
        memcpy(to, &v, VECTOR_BYTES);
    else
        memcpy(to, &v, (size_t)width * sizeof(REAL));
}

INLINE double NAME(total)(V v) {
    double lanes[VECTOR_BYTES / sizeof(REAL)], sum = 0.0;
    typedef double wide __attribute__((vector_size(sizeof lanes)));
    wide converted = __builtin_convertvector(v, wide);
    memcpy(lanes, &converted, sizeof lanes);
    for (ptrdiff_t i = 0; i < LANES; i++) sum += lanes[i];
    return sum;
}

INLINE V NAME(turn_sign)(V x, I sign) { return (V)((I)x ^ sign); }

/* Sine and cosine up to the sign, whose bit is returned: x = k pi + r with r in [-pi/2, pi/2], polynomials in r^2. */
INLINE I NAME(sincos)(V x, V *sine, V *cosine, int exact) {
    if (exact) {
        for (ptrdiff_t i = 0; i < LANES; i++) {
            if (sine) (*sine)[i] = EXACT_SIN(x[i]);
            if (cosine) (*cosine)[i] = EXACT_COS(x[i]);
        }
        return (I){0};
    }
    V shifted = x * INVERSE_PI + INTEGER_AT, k = shifted - INTEGER_AT;
#if FUSED
    V r = x - k * PI_HIGH;
    r = r - k * PI_LOW;
#else
    V r = x - k * PI_1;
    r = r - k * PI_2;
    r = r - k * PI_3;
#endif
    V q = r * r;
#if KERNEL_FLOAT /* minimax: errors below 5e-9 of the sine and 3e-10 */
    if (sine) {
        V p = q * 2.608933045e-6f - 1.981111295e-4f;
        p = p * q + 8.33308817e-3f;
        p = p * q - 1.666666046e-1f;
        *sine = r + r * q * p;
    }
    if (cosine) {
        V p = q * -2.607710944e-7f + 2.476188651e-5f;
        p = p * q - 1.388840351e-3f;
        p = p * q + 4.166664073e-2f;
        p = p * q - 4.999999955e-1f;
        *cosine = p * q + 1.0f;
    }
#else /* Taylor's series, to r^23 and r^24: below 1e-17 at pi/2 */
    if (sine) {
        V p = q * -1.0 / 25852016738884976640000.0 + 1.0 / 51090942171709440000.0;
        p = p * q - 1.0 / 121645100408832000.0;
        p = p * q + 1.0 / 355687428096000.0;
        p = p * q - 1.0 / 1307674368000.0;
        p = p * q + 1.0 / 6227020800.0;
        p = p * q - 1.0 / 39916800.0;
        p = p * q + 1.0 / 362880.0;
        p = p * q - 1.0 / 5040.0;
        p = p * q + 1.0 / 120.0;
        p = p * q - 1.0 / 6.0;
        *sine = r + r * q * p;
    }
    if (cosine) {
        V p = q * 1.0 / 620448401733239439360000.0 - 1.0 / 1124000727777607680000.0;
        p = p * q + 1.0 / 2432902008176640000.0;
        p = p * q - 1.0 / 6402373705728000.0;
        p = p * q + 1.0 / 20922789888000.0;
        p = p * q - 1.0 / 87178291200.0;
        p = p * q + 1.0 / 479001600.0;
        p = p * q - 1.0 / 3628800.0;
        p = p * q + 1.0 / 40320.0;
        p = p * q - 1.0 / 720.0;
        p = p * q + 1.0 / 24.0;
        p = p * q - 0.5;
        *cosine = p * q + 1.0;
    }
#endif
    return (I)shifted << SIGN_SHIFT; /* of (-1)^k */
}

/* Keeps the larger of |x| and `most`, lane by lane, as bits: their order is that of the numbers, and NaN is above all. */
INLINE void NAME(keep_largest)(V x, I *most) {
    I bits = (I)x & ~((I){0} + (BITS)((uint64_t)1 << SIGN_SHIFT)), larger = bits > *most;
    *most = (bits & larger) | (*most & ~larger);
}

/* Whether no bit is set. */
INLINE int NAME(none)(I bits) {
    int64_t words[VECTOR_BYTES / 8], any = 0;
    memcpy(words, &bits, sizeof words);
    for (ptrdiff_t i = 0; i < VECTOR_BYTES / 8; i++) any |= words[i];
    return !any;
}

/* Whether an argument w z + p of the line leaves what the fast reduction is accurate for. */
INLINE int NAME(beyond)(I most, V w, V p) {
    I unsigned_bits = ~((I){0} + (BITS)((uint64_t)1 << SIGN_SHIFT));
    I within = (V)((I)w & unsigned_bits) * (V)most + (V)((I)p & unsigned_bits) <= (REAL)LARGEST;
    return !NAME(none)(~within);
}

/* One sinusoid over a line. `s` holds its C, W, P, and in the second pass their directions; sums are the gradients of
 * those. The first sinusoid finds the largest |z| on its way; the others add to its results; the last can fetch what lies
 * `ahead` values on, the next line, into the cache.
 */
typedef struct {
    const REAL *z, *grad, *vz;
    REAL *out, *to_z, *to_grad;
    ptrdiff_t count, stride, width, ahead;
    V s[6], sums[3];
    I most;
} NAME(line);
#define LINE NAME(line)

INLINE void NAME(forward_line)(LINE *l, ptrdiff_t width, int first, int exact) {
    const REAL *z = l->z;
    REAL *out = l->out;
    ptrdiff_t count = l->count, stride = l->stride;
    V c = l->s[0], w = l->s[1], p = l->s[2];
    I most = {0};
    for (ptrdiff_t i = 0; i < count; i++, z += stride, out += stride) {
        V sine, x = NAME(load)(z, width), y = {0};
        if (first) NAME(keep_largest)(x, &most);
        if (!first) y = NAME(load)(out, width);
        I sign = NAME(sincos)(x * w + p, &sine, NULL, exact);
        NAME(store)(out, c * NAME(turn_sign)(sine, sign) + y, width);
    }
    if (first) l->most = most;
}

INLINE void NAME(backward_line)(LINE *l, ptrdiff_t width, int first, int exact) {
    const REAL *z = l->z, *grad = l->grad;
    REAL *to_z = l->to_z;
    ptrdiff_t count = l->count, stride = l->stride, ahead = l->ahead;
    V c = l->s[0], w = l->s[1], p = l->s[2], slope = c * w, line_c = {0}, line_w = {0}, line_p = {0};
    I most = {0};
    for (ptrdiff_t i = 0; i < count;) {
        V to_c = {0}, to_w = {0}, to_p = {0};
        ptrdiff_t end = count - i < SUMMED ? count : i + SUMMED;
        for (; i < end; i++, z += stride, grad += stride, to_z += stride) {
            V sine, cosine, x = NAME(load)(z, width), g = NAME(load)(grad, width), y = {0};
            if (first) NAME(keep_largest)(x, &most);
            if (!first) {
                y = NAME(load)(to_z, width);
                __builtin_prefetch(z + ahead), __builtin_prefetch(grad + ahead), __builtin_prefetch(to_z + ahead, 1);
            }
            g = NAME(turn_sign)(g, NAME(sincos)(x * w + p, &sine, &cosine, exact));
            V turned = g * cosine;
            to_c += g * sine;
            to_p += turned;
            to_w += turned * x;
            NAME(store)(to_z, slope * turned + y, width);
        }
        line_c += to_c, line_w += to_w, line_p += to_p;
    }
    if (first) l->most = most;
    l->sums[0] = line_c;
    l->sums[1] = c * line_w;
    l->sums[2] = c * line_p;
}

/* Along v the arguments turn at `turn`; <v, gradients of <g, sigma>> = <g, derivative of sigma along v>. */
INLINE void NAME(second_line)(LINE *l, ptrdiff_t width, int first, int exact) {
    const REAL *z = l->z, *grad = l->grad, *vz = l->vz;
    REAL *to_z = l->to_z, *to_grad = l->to_grad;
    ptrdiff_t count = l->count, stride = l->stride;
    V c = l->s[0], w = l->s[1], p = l->s[2], vc = l->s[3], vw = l->s[4], vp = l->s[5];
    V line_c = {0}, line_w = {0}, line_p = {0};
    I most = {0};
    for (ptrdiff_t i = 0, at = 0; i < count;) {
        V to_c = {0}, to_w = {0}, to_p = {0};
        ptrdiff_t end = count - i < SUMMED ? count : i + SUMMED;
        for (; i < end; i++, at += stride) {
            V sine, cosine, x = NAME(load)(z + at, width), g = NAME(load)(grad + at, width), y = {0}, h = {0};
            V moved = NAME(load)(vz + at, width);
            if (first) NAME(keep_largest)(x, &most);
            if (!first) y = NAME(load)(to_z + at, width), h = NAME(load)(to_grad + at, width);
            I sign = NAME(sincos)(x * w + p, &sine, &cosine, exact);
            g = NAME(turn_sign)(g, sign);
            V turn = w * moved + vw * x + vp, turned = g * cosine, along = vc * turned - c * turn * (g * sine);
            to_c += turn * turned;
            to_w += along * x + c * moved * turned;
            to_p += along;
            NAME(store)(to_grad + at, h + NAME(turn_sign)(vc * sine + c * turn * cosine, sign), width);
            NAME(store)(to_z + at, y + w * along + c * vw * turned, width);
        }
        line_c += to_c, line_w += to_w, line_p += to_p;
    }
    if (first) l->most = most;
    l->sums[0] = line_c;
    l->sums[1] = line_w;
    l->sums[2] = line_p;
}

/* Lines are functions of their own: inlined into the loops around them, or into one function, they are slow. */
#define SEPARATE static __attribute__((noinline)) void
#define VARIANTS(pass)                                                                                      \
    SEPARATE NAME(pass##_whole_first)(LINE * l) { NAME(pass##_line)(l, LANES, 1, 0); }                      \
    SEPARATE NAME(pass##_whole_next)(LINE * l) { NAME(pass##_line)(l, LANES, 0, 0); }                       \
    SEPARATE NAME(pass##_part)(LINE * l, int first) { NAME(pass##_line)(l, l->width, first, 0); }           \
    SEPARATE NAME(pass##_careful)(LINE * l, int first) { NAME(pass##_line)(l, l->width, first, 1); }        \
    INLINE void NAME(pass##_over_line)(LINE *l, int first, int exact) {                                     \
        if (exact)                                                                                          \
            NAME(pass##_careful)(l, first);                                                                 \
        else if (l->width < LANES)                                                                          \
            NAME(pass##_part)(l, first);                                                                    \
        else if (first)                                                                                     \
            NAME(pass##_whole_first)(l);                                                                    \
        else                                                                                                \
            NAME(pass##_whole_next)(l);                                                                     \
    }
VARIANTS(forward)
VARIANTS(backward)
VARIANTS(second)
#undef VARIANTS
#undef SEPARATE

/* The parameters of sinusoid t for the lanes from `column`: a row's part, or one value in all lanes. */
INLINE V NAME(parameter)(const call *work, const void *values, ptrdiff_t t, ptrdiff_t column, ptrdiff_t width) {
    const REAL *from = values;
    if (work->per_feature) return NAME(load)(from + t * work->n + column, width);
    return (V){0} + from[t];
}

/* The line that begins at value `at` of the tensors. */
INLINE LINE NAME(line_at)(const call *work, ptrdiff_t at, ptrdiff_t count, ptrdiff_t stride, ptrdiff_t width, int pass) {
    LINE l = {.z = (const REAL *)work->z + at, .count = count, .stride = stride, .width = width};
    if (pass == FORWARD) l.out = (REAL *)work->out + at;
    if (pass != FORWARD) l.grad = (const REAL *)work->grad + at, l.to_z = (REAL *)work->to_z + at;
    if (pass == SECOND) l.vz = (const REAL *)work->vz + at, l.to_grad = (REAL *)work->to_grad + at;
    return l;
}

/* The sinusoids over a line in column `column`; what they sum is added to the unit's. */
INLINE void NAME(sum_over_line)(const call *work, ptrdiff_t unit, ptrdiff_t column, LINE l, int pass) {
    const void *parameters[6] = {work->amplitude, work->frequency, work->phase, work->vamplitude, work->vfrequency, work->vphase};
    ptrdiff_t columns = work->per_feature ? work->n : 1, gradients = work->terms * columns;
    for (ptrdiff_t t = 0; t < work->terms; t++) {
        for (int i = 0; i < (pass == SECOND ? 6 : 3); i++) l.s[i] = NAME(parameter)(work, parameters[i], t, column, l.width);
        l.ahead = t == work->terms - 1 && !work->per_feature ? LINE_VALUES : 0;
        int exact = t > 0 && NAME(beyond)(l.most, l.s[1], l.s[2]), again = 0;
        do { /* the first sinusoid is tried fast: only then is the largest |z| known */
            if (pass == FORWARD) NAME(forward_over_line)(&l, t == 0, exact || again);
            if (pass == BACKWARD) NAME(backward_over_line)(&l, t == 0, exact || again);
            if (pass == SECOND) NAME(second_over_line)(&l, t == 0, exact || again);
        } while (t == 0 && !again && (again = NAME(beyond)(l.most, l.s[1], l.s[2])));
        if (pass == FORWARD) continue;
        for (int sum = 0; sum < 3; sum++) {
            double *to = work->partial + (unit * 3 + sum) * gradients + t * columns + column;
            if (work->per_feature)
                for (ptrdiff_t i = 0; i < l.width; i++) to[i] += (double)l.sums[sum][i];
            else
                to[0] += NAME(total)(l.sums[sum]);
        }
    }
}

#include "native_table.h"

/* to = values + row, where `values` begins in column `column` of rows of n. */
INLINE void NAME(add_row)(const REAL *values, const REAL *row, ptrdiff_t n, ptrdiff_t column, ptrdiff_t count, REAL *to) {
    for (ptrdiff_t i = 0; i < count; column = 0) {
        ptrdiff_t end = count - i < n - column ? count : i + n - column;
        for (; i < end; i += LANES, column += LANES) {
            ptrdiff_t width = end - i < LANES ? end - i : LANES;
            NAME(store)(to + i, NAME(load)(values + i, width) + NAME(load)(row + column, width), width);
        }
        i = end;
    }
}

/* row += the sum of `values` over rows. */
INLINE void NAME(add_to_row)(const REAL *values, REAL *row, ptrdiff_t n, ptrdiff_t column, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; column = 0) {
        ptrdiff_t end = count - i < n - column ? count : i + n - column;
        for (; i < end; i += LANES, column += LANES) {
            ptrdiff_t width = end - i < LANES ? end - i : LANES;
            NAME(store)(row + column, NAME(load)(row + column, width) + NAME(load)(values + i, width), width);
        }
        i = end;
    }
}

/* A part of the values that share their parameters, of at most LINE_VALUES; the bias is added to a copy of it. */
INLINE void NAME(values_pass)(const call *work, ptrdiff_t unit, ptrdiff_t at, ptrdiff_t values, int pass, REAL *moments) {
    REAL biased[LINE_VALUES], turned[LINE_VALUES];
    ptrdiff_t whole = values / LANES, rest = values % LANES, done = whole * LANES;
    ptrdiff_t column = work->bias ? at % work->width : 0;
    LINE l = NAME(line_at)(work, at, whole, LANES, LANES, pass), tail = NAME(line_at)(work, at + done, 1, LANES, rest, pass);
    if (work->bias) {
        if (!work->table.count) {
            NAME(add_row)(l.z, work->bias, work->width, column, done, biased);
            l.z = biased;
        }
        NAME(add_row)(tail.z, work->bias, work->width, (column + done) % work->width, rest, biased + done);
        tail.z = biased + done;
    }
    if (work->bias && pass == SECOND) {
        NAME(add_row)(l.vz, work->vbias, work->width, column, values, turned);
        l.vz = turned, tail.vz = turned + done;
    }
    if (whole) NAME(line_pass)(work, unit, column, l, pass, moments);
    if (rest) NAME(sum_over_line)(work, unit, 0, tail, pass);
    if (work->bias && pass != FORWARD)
        NAME(add_to_row)(l.to_z, (REAL *)work->to_bias + unit * work->width, work->width, column, values);
}

/* The rows of a unit with a set of parameters for each feature: some at a time, which stay in the first-level cache. */
INLINE void NAME(rows_pass)(const call *work, ptrdiff_t unit, int pass) {
    ptrdiff_t first = unit * work->block, last = work->rows - first < work->block ? work->rows : first + work->block;
    for (; first < last; first += ROWS)
        for (ptrdiff_t column = 0; column < work->n; column += LANES) {
            ptrdiff_t width = work->n - column < LANES ? work->n - column : LANES;
            ptrdiff_t count = last - first < ROWS ? last - first : ROWS;
            LINE l = NAME(line_at)(work, first * work->n + column, count, work->n, width, pass);
            NAME(sum_over_line)(work, unit, column, l, pass);
        }
}

INLINE void NAME(unit_pass)(call *work, ptrdiff_t unit, int pass) {
    if (work->per_feature) {
        NAME(rows_pass)(work, unit, pass);
        return;
    }
    ptrdiff_t first = unit * work->block, last = first + work->block < work->n ? first + work->block : work->n;
    ptrdiff_t kept = first;
    REAL *moments = work->table.moments ? calloc((size_t)work->table.count, 4 * sizeof(REAL)) : NULL;
    if (work->table.moments && !moments) {
        __atomic_store_n(&work->no_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    for (ptrdiff_t at = first; at < last; at += LINE_VALUES) {
        ptrdiff_t end = at + LINE_VALUES < last ? at + LINE_VALUES : last;
        NAME(values_pass)(work, unit, at, end - at, pass, moments);
        if (!moments || (end < last && end - kept < work->table.summed)) continue;
        NAME(keep_moments)(&work->table, unit, moments);
        kept = end;
    }
    free(moments);
}

static void NAME(forward)(void *work, ptrdiff_t unit) { NAME(unit_pass)(work, unit, FORWARD); }
static void NAME(backward)(void *work, ptrdiff_t unit) { NAME(unit_pass)(work, unit, BACKWARD); }
static void NAME(second)(void *work, ptrdiff_t unit) { NAME(unit_pass)(work, unit, SECOND); }

#include "native_pointwise.h"
#include "native_rays.h"

#undef LINE
#undef PRECISION
#undef NAME
#undef REAL
#undef BITS
#undef SIGN_SHIFT
#undef INTEGER_AT
#undef INVERSE_PI
#undef PI_HIGH
#undef PI_LOW
#undef PI_1
#undef PI_2
#undef PI_3
#undef EXACT_SIN
#undef EXACT_COS
#undef LANES
#undef LINE_VALUES
#undef SUMMED
#undef INLINE
#undef V
#undef I
