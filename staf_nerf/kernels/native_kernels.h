/* The arithmetic of native.c for one precision (KERNEL_FLOAT) and instruction set (SUFFIX). No include guard: it is
 * included several times.
 *
 * A line is what one vector of parameters serves: `count` vectors, `stride` values apart, of which the first `width`
 * lanes are in use.
 */
#if KERNEL_FLOAT
#define REAL float
#define BITS int32_t
#define SIGN_SHIFT 31
#define INTEGER_AT 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, which the low bits of the sum then hold */
#define INVERSE_PI 0.318309886183790671538f
/* pi in three parts, the first two of 9 bits: multiples up to 2^15 of these are exact without a fused multiply-add. */
#define PI_1 3.140625f
#define PI_2 9.670257568359375e-4f
#define PI_3 6.2783295730096264338e-7f
#define EXACT_SIN(x) ((float)sin((double)(x)))
#define EXACT_COS(x) ((float)cos((double)(x)))
#else
#define REAL double
#define BITS int64_t
#define SIGN_SHIFT 63
#define INTEGER_AT 6755399441055744.0 /* 1.5 * 2^52 */
#define INVERSE_PI 0.318309886183790671537767526745
#define PI_1 3.14159265346825122833251953125
#define PI_2 1.215420101260793195319109827323700301349e-10
#define PI_3 4.044532497591901464799369240189515432952e-21
#define EXACT_SIN(x) sin(x)
#define EXACT_COS(x) cos(x)
#endif
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(REAL)))
#define LARGEST 1e5 /* beyond it, and for what is not finite, the C library's sine is used */
#define INLINE static inline __attribute__((always_inline))
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
    double sum = 0.0;
    for (ptrdiff_t i = 0; i < LANES; i++) sum += (double)v[i];
    return sum;
}

/* Sine and cosine: x = k pi + r with r in [-pi/2, pi/2], then polynomials in r^2. */
INLINE void NAME(sincos)(V x, V *sine, V *cosine, int exact) {
    if (exact) {
        for (ptrdiff_t i = 0; i < LANES; i++) {
            if (sine) (*sine)[i] = EXACT_SIN(x[i]);
            if (cosine) (*cosine)[i] = EXACT_COS(x[i]);
        }
        return;
    }
    V shifted = x * INVERSE_PI + INTEGER_AT, k = shifted - INTEGER_AT;
    V r = x - k * PI_1;
    r = r - k * PI_2;
    r = r - k * PI_3;
    I sign = (I)shifted << SIGN_SHIFT; /* of (-1)^k */
    V q = r * r;
#if KERNEL_FLOAT
    if (sine) {
        V p = q * -2.3889859e-8f + 2.7525562e-6f;
        p = p * q - 1.9840874e-4f;
        p = p * q + 8.3333310e-3f;
        p = p * q - 1.6666667e-1f;
        *sine = (V)((I)(r + r * q * p) ^ sign);
    }
    if (cosine) {
        V p = q * -2.6051615e-7f + 2.4760495e-5f;
        p = p * q - 1.3888378e-3f;
        p = p * q + 4.1666638e-2f;
        p = p * q - 0.5f;
        *cosine = (V)((I)(p * q + 1.0f) ^ sign);
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
        *sine = (V)((I)(r + r * q * p) ^ sign);
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
        *cosine = (V)((I)(p * q + 1.0) ^ sign);
    }
#endif
}

/* The largest |z| of a line, lane by lane, as bits: their order is that of the numbers, and NaN is above infinity. */
INLINE V NAME(largest)(const REAL *z, ptrdiff_t count, ptrdiff_t stride, ptrdiff_t width) {
    I most = {0};
    for (ptrdiff_t i = 0; i < count; i++) {
        I bits = (I)NAME(load)(z + i * stride, width) & ~((I){0} + (BITS)((uint64_t)1 << SIGN_SHIFT));
        I larger = bits > most;
        most = (bits & larger) | (most & ~larger);
    }
    return (V)most;
}

/* Whether an argument w z + p of the line leaves what the fast reduction is accurate for. */
INLINE int NAME(beyond)(V most, V w, V p) {
    for (ptrdiff_t i = 0; i < LANES; i++)
        if (!(fabs((double)w[i]) * (double)most[i] + fabs((double)p[i]) <= LARGEST)) return 1;
    return 0;
}

INLINE void NAME(forward_line)(const REAL *z, REAL *out, ptrdiff_t count, ptrdiff_t stride, ptrdiff_t width, V c, V w, V p, int add,
                               int exact) {
    for (ptrdiff_t i = 0; i < count; i++) {
        V sine, y = add ? NAME(load)(out + i * stride, width) : (V){0};
        NAME(sincos)(NAME(load)(z + i * stride, width) * w + p, &sine, NULL, exact);
        NAME(store)(out + i * stride, c * sine + y, width);
    }
}

INLINE void NAME(backward_line)(const REAL *z, const REAL *grad, REAL *to_z, ptrdiff_t count, ptrdiff_t stride, ptrdiff_t width, V c,
                                V w, V p, int add, int exact, V sums[3]) {
    V to_c = {0}, to_w = {0}, to_p = {0}, slope = c * w;
    for (ptrdiff_t i = 0; i < count; i++) {
        V sine, cosine, x = NAME(load)(z + i * stride, width), g = NAME(load)(grad + i * stride, width);
        V y = add ? NAME(load)(to_z + i * stride, width) : (V){0};
        NAME(sincos)(x * w + p, &sine, &cosine, exact);
        V turned = g * cosine;
        to_c += g * sine;
        to_p += turned;
        to_w += turned * x;
        NAME(store)(to_z + i * stride, slope * turned + y, width);
    }
    sums[0] = to_c;
    sums[1] = c * to_w;
    sums[2] = c * to_p;
}

/* Along v the arguments turn at `turn`; <v, gradients of <g, sigma>> = <g, derivative of sigma along v>. */
INLINE void NAME(second_line)(const REAL *vz, const REAL *z, const REAL *grad, REAL *to_grad, REAL *to_z, ptrdiff_t count,
                              ptrdiff_t stride, ptrdiff_t width, V c, V w, V p, V vc, V vw, V vp, int add, int exact,
                              V sums[3]) {
    V to_c = {0}, to_w = {0}, to_p = {0};
    for (ptrdiff_t i = 0; i < count; i++) {
        ptrdiff_t at = i * stride;
        V sine, cosine, x = NAME(load)(z + at, width), g = NAME(load)(grad + at, width);
        V moved = NAME(load)(vz + at, width);
        V y = add ? NAME(load)(to_z + at, width) : (V){0}, h = add ? NAME(load)(to_grad + at, width) : (V){0};
        NAME(sincos)(x * w + p, &sine, &cosine, exact);
        V turn = w * moved + vw * x + vp, turned = g * cosine, along = vc * turned - c * turn * (g * sine);
        to_c += turn * turned;
        to_w += along * x + c * moved * turned;
        to_p += along;
        NAME(store)(to_grad + at, h + vc * sine + c * turn * cosine, width);
        NAME(store)(to_z + at, y + w * along + c * vw * turned, width);
    }
    sums[0] = to_c;
    sums[1] = to_w;
    sums[2] = to_p;
}

/* Lines are functions of their own, in a fast and an exact version: inlined into the loops around them they are slow. */
static __attribute__((noinline)) void NAME(run_forward)(const REAL *z, REAL *out, ptrdiff_t count, ptrdiff_t stride, ptrdiff_t width,
                                                        const V *s, int add, int exact) {
    if (exact)
        NAME(forward_line)(z, out, count, stride, width, s[0], s[1], s[2], add, 1);
    else if (width == LANES && add)
        NAME(forward_line)(z, out, count, stride, LANES, s[0], s[1], s[2], 1, 0);
    else if (width == LANES)
        NAME(forward_line)(z, out, count, stride, LANES, s[0], s[1], s[2], 0, 0);
    else
        NAME(forward_line)(z, out, count, stride, width, s[0], s[1], s[2], add, 0);
}

static __attribute__((noinline)) void NAME(run_backward)(const REAL *z, const REAL *grad, REAL *to_z, ptrdiff_t count,
                                                         ptrdiff_t stride, ptrdiff_t width, const V *s, int add, int exact,
                                                         V sums[3]) {
    if (exact)
        NAME(backward_line)(z, grad, to_z, count, stride, width, s[0], s[1], s[2], add, 1, sums);
    else if (width == LANES && add)
        NAME(backward_line)(z, grad, to_z, count, stride, LANES, s[0], s[1], s[2], 1, 0, sums);
    else if (width == LANES)
        NAME(backward_line)(z, grad, to_z, count, stride, LANES, s[0], s[1], s[2], 0, 0, sums);
    else
        NAME(backward_line)(z, grad, to_z, count, stride, width, s[0], s[1], s[2], add, 0, sums);
}

static __attribute__((noinline)) void NAME(run_second)(const REAL *vz, const REAL *z, const REAL *grad, REAL *to_grad,
                                                       REAL *to_z, ptrdiff_t count, ptrdiff_t stride, ptrdiff_t width, const V *s,
                                                       int add, int exact, V sums[3]) {
    if (exact)
        NAME(second_line)(vz, z, grad, to_grad, to_z, count, stride, width, s[0], s[1], s[2], s[3], s[4], s[5], add, 1,
                          sums);
    else if (width == LANES && add)
        NAME(second_line)(vz, z, grad, to_grad, to_z, count, stride, LANES, s[0], s[1], s[2], s[3], s[4], s[5], 1, 0,
                          sums);
    else if (width == LANES)
        NAME(second_line)(vz, z, grad, to_grad, to_z, count, stride, LANES, s[0], s[1], s[2], s[3], s[4], s[5], 0, 0,
                          sums);
    else
        NAME(second_line)(vz, z, grad, to_grad, to_z, count, stride, width, s[0], s[1], s[2], s[3], s[4], s[5], add, 0,
                          sums);
}

/* The parameters of sinusoid t for the lanes from `column`: a row's part, or one value in all lanes. */
INLINE V NAME(parameter)(const call *work, const void *values, ptrdiff_t t, ptrdiff_t column, ptrdiff_t width) {
    const REAL *from = values;
    if (work->per_feature) return NAME(load)(from + t * work->n + column, width);
    return (V){0} + from[t];
}

/* Visits the lines of a unit; `kind`: 0 forward, 1 backward, 2 second. */
INLINE void NAME(lines)(const call *work, ptrdiff_t unit, ptrdiff_t column, ptrdiff_t count, ptrdiff_t stride, ptrdiff_t width, ptrdiff_t at,
                        int kind) {
    const REAL *z = (const REAL *)work->z + at;
    V most = NAME(largest)(z, count, stride, width);
    ptrdiff_t columns = work->per_feature ? work->n : 1, gradients = work->terms * columns;
    for (ptrdiff_t t = 0; t < work->terms; t++) {
        V s[6], sums[3];
        s[0] = NAME(parameter)(work, work->amplitude, t, column, width);
        s[1] = NAME(parameter)(work, work->frequency, t, column, width);
        s[2] = NAME(parameter)(work, work->phase, t, column, width);
        int exact = NAME(beyond)(most, s[1], s[2]), add = t > 0;
        if (kind == 0) {
            NAME(run_forward)(z, (REAL *)work->out + at, count, stride, width, s, add, exact);
            continue;
        }
        const REAL *grad = (const REAL *)work->grad + at;
        REAL *to_z = (REAL *)work->to_z + at;
        if (kind == 1) {
            NAME(run_backward)(z, grad, to_z, count, stride, width, s, add, exact, sums);
        } else {
            s[3] = NAME(parameter)(work, work->vamplitude, t, column, width);
            s[4] = NAME(parameter)(work, work->vfrequency, t, column, width);
            s[5] = NAME(parameter)(work, work->vphase, t, column, width);
            NAME(run_second)((const REAL *)work->vz + at, z, grad, (REAL *)work->to_grad + at, to_z, count, stride,
                             width, s, add, exact, sums);
        }
        for (int sum = 0; sum < 3; sum++) {
            double *to = work->partial + (unit * 3 + sum) * gradients + t * columns + column;
            if (work->per_feature)
                for (ptrdiff_t i = 0; i < width; i++) to[i] = (double)sums[sum][i];
            else if (at == unit * work->block)
                to[0] = NAME(total)(sums[sum]);
            else
                to[0] += NAME(total)(sums[sum]); /* the tail of the last block */
        }
    }
}

INLINE void NAME(run_unit)(const call *work, ptrdiff_t unit, int kind) {
    if (work->per_feature) {
        ptrdiff_t first = unit * work->block, rows = work->rows - first;
        if (rows > work->block) rows = work->block;
        for (ptrdiff_t column = 0; column < work->n; column += LANES) {
            ptrdiff_t width = work->n - column < LANES ? work->n - column : LANES;
            NAME(lines)(work, unit, column, rows, work->n, width, first * work->n + column, kind);
        }
        return;
    }
    ptrdiff_t first = unit * work->block, values = work->n - first;
    if (values > work->block) values = work->block;
    ptrdiff_t whole = values / LANES, rest = values % LANES;
    if (whole) NAME(lines)(work, unit, 0, whole, LANES, LANES, first, kind);
    if (rest) NAME(lines)(work, unit, 0, 1, LANES, rest, first + whole * LANES, kind);
}

static void NAME(forward)(void *work, ptrdiff_t unit) { NAME(run_unit)(work, unit, 0); }
static void NAME(backward)(void *work, ptrdiff_t unit) { NAME(run_unit)(work, unit, 1); }
static void NAME(second)(void *work, ptrdiff_t unit) { NAME(run_unit)(work, unit, 2); }

#include "native_pointwise.h"

#undef REAL
#undef BITS
#undef SIGN_SHIFT
#undef INTEGER_AT
#undef INVERSE_PI
#undef PI_1
#undef PI_2
#undef PI_3
#undef EXACT_SIN
#undef EXACT_COS
#undef LANES
#undef LARGEST
#undef INLINE
#undef V
#undef I
