/* Activations without parameters of their own, and their derivatives, for one precision and instruction set. Included at
 * the end of native_kernels.h, whose names it uses.
 */
#if KERNEL_FLOAT
#define LN2_1 0.693359375f /* ln 2 in two parts, the first of 10 bits */
#define LN2_2 -2.12194440e-4f
#define EXPONENT_BITS 23
#define EXPONENT_BIAS 127
#define SMALLEST -43.0f /* exp of less, 2e-19, is zero: products of two would be subnormal, a hundred times slower */
#define EXACT_EXP(x) ((float)exp((double)(x)))
#else
#define LN2_1 0.693145751953125
#define LN2_2 1.42860682030941723212e-6
#define EXPONENT_BITS 52
#define EXPONENT_BIAS 1023
#define SMALLEST -354.0
#define EXACT_EXP(x) exp(x)
#endif

/* exp(x) for x <= 0: x = k ln 2 + r, Taylor's series of exp(r), and k added to the exponent. */
INLINE V NAME(exponential)(V x, int exact) {
    if (exact) {
        V y = {0};
        for (ptrdiff_t i = 0; i < LANES; i++) y[i] = EXACT_EXP(x[i]);
        return y;
    }
    I kept = x > SMALLEST;
    x = (V)((I)x & kept);
    V shifted = x * (REAL)1.44269504088896340736 + INTEGER_AT, k = shifted - INTEGER_AT;
    V r = x - k * LN2_1;
    r = r - k * LN2_2;
#if KERNEL_FLOAT
    V p = r * (1.0f / 5040.0f) + 1.0f / 720.0f;
#else
    V p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
#endif
    p = p * r + (REAL)(1.0 / 120.0);
    p = p * r + (REAL)(1.0 / 24.0);
    p = p * r + (REAL)(1.0 / 6.0);
    p = p * r + (REAL)0.5;
    p = p * r + (REAL)1.0;
    p = p * r + (REAL)1.0;
    I power = ((I)shifted << EXPONENT_BITS) + ((BITS)EXPONENT_BIAS << EXPONENT_BITS); /* the bits of 2^k */
    return (V)((I)(p * (V)power) & kept);
}

/* The derivative of that order of SINE sin(w x), FINER sin(w (|x| + 1) x), GAUSSIAN exp(-(w x)^2 / 2). */
INLINE V NAME(derivative)(V x, REAL w, int kind, int order, int exact) {
    if (kind == GAUSSIAN) {
        V y = x * w, q = y * y, value = NAME(exponential)(q * (REAL)-0.5, exact);
        if (order == 0) return value;
        V slope = y * value * -w;
        if (order == 2) slope = (q - (REAL)1.0) * value * (w * w);
        if (order == 3) slope = (y * (REAL)3.0 - y * q) * value * (w * w * w);
        return (V)((I)slope & (value != 0)); /* far out a power of y may be infinite, and times zero no number */
    }
    V sine = {0}, cosine = {0};
    if (kind == SINE) {
        I sign = NAME(sincos)(x * w, order % 2 ? NULL : &sine, order % 2 ? &cosine : NULL, exact);
        V value = NAME(turn_sign)(order % 2 ? cosine : sine, sign);
        if (order == 0) return value;
        if (order == 1) return value * w;
        return order == 2 ? value * -(w * w) : value * -(w * w * w);
    }
    V one = (V){0} + (REAL)1.0, size = (V)((I)x & ~((I){0} + (BITS)((uint64_t)1 << SIGN_SHIFT)));
    V side = (V)((I)one & (x > 0)) - (V)((I)one & (x < 0));
    V slope = (size * (REAL)2.0 + (REAL)1.0) * w, bend = side * ((REAL)2.0 * w); /* of the argument */
    I sign = NAME(sincos)((size + (REAL)1.0) * x * w, &sine, &cosine, exact);
    V value = sine;
    if (order == 1) value = slope * cosine;
    if (order == 2) value = bend * cosine - slope * slope * sine;
    if (order == 3) value = slope * (bend * sine * (REAL)-3.0 - slope * slope * cosine);
    return NAME(turn_sign)(value, sign);
}

INLINE void NAME(pointwise_line)(const REAL *z, const REAL *factor, REAL *out, ptrdiff_t count, REAL w, int kind,
                                 int order, int exact, I *most) {
    for (ptrdiff_t i = 0; i < count; i++) {
        V x = NAME(load)(z + i * LANES, LANES), y = NAME(derivative)(x, w, kind, order, exact);
        NAME(keep_largest)(x, most);
        if (order > 0) y = y * NAME(load)(factor + i * LANES, LANES);
        NAME(store)(out + i * LANES, y, LANES);
    }
}

static __attribute__((noinline)) void NAME(run_pointwise)(const REAL *z, const REAL *factor, REAL *out, ptrdiff_t count,
                                                          const call *work) {
    REAL w = (REAL)work->scale;
    I found = {0};
    switch (work->kind * 4 + work->order) {
#define LINE_OF(kind, order)                                                       \
    case kind * 4 + order:                                                      \
        NAME(pointwise_line)(z, factor, out, count, w, kind, order, 0, &found); \
        break;
#define LINES(kind) LINE_OF(kind, 0) LINE_OF(kind, 1) LINE_OF(kind, 2) LINE_OF(kind, 3)
        LINES(SINE)
        LINES(FINER)
        LINES(GAUSSIAN)
#undef LINES
#undef LINE_OF
    }
    double most = 0.0, bound = fabs(work->scale);
    V largest = (V)found;
    for (ptrdiff_t i = 0; i < LANES; i++)
        if (most == most && !((double)largest[i] <= most)) most = (double)largest[i]; /* NaN stays */
    if (work->kind == SINE) bound *= most;
    if (work->kind == FINER) bound *= (most + 1.0) * most;
    if (work->kind == GAUSSIAN) bound = most <= 1e15 ? 0.0 : most;
    if (!(bound <= LARGEST)) NAME(pointwise_line)(z, factor, out, count, w, work->kind, work->order, 1, &found);
}

static void NAME(pointwise)(void *context, ptrdiff_t unit) {
    const call *work = context;
    ptrdiff_t first = unit * work->block, values = work->n - first;
    if (values > work->block) values = work->block;
    const REAL *z = (const REAL *)work->z + first, *factor = (const REAL *)work->grad;
    REAL *out = (REAL *)work->out + first;
    if (factor) factor += first;
    ptrdiff_t whole = values / LANES, rest = values % LANES;
    if (whole) NAME(run_pointwise)(z, factor, out, whole, work);
    if (rest) {
        REAL padded[3][VECTOR_BYTES / sizeof(REAL)] = {{0}};
        size_t size = (size_t)rest * sizeof(REAL);
        memcpy(padded[0], z + whole * LANES, size);
        if (factor) memcpy(padded[1], factor + whole * LANES, size);
        NAME(run_pointwise)(padded[0], padded[1], padded[2], 1, work);
        memcpy(out + whole * LANES, padded[2], size);
    }
}

#undef LN2_1
#undef LN2_2
#undef EXPONENT_BITS
#undef EXPONENT_BIAS
#undef SMALLEST
#undef EXACT_EXP
