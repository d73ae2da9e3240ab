/* The Fourier sum by an interpolation table: where parameters are shared, sigma is one function of one number. The range of
 * z is cut into equal intervals. On each, sigma and its derivatives are polynomials of degree 3, and a value costs the same
 * whatever the number of sinusoids. Sums over the values, sum_e g_e phi(z_e) for phi = sin, cos and z cos of a sinusoid's
 * argument, are formed the other way round: first each interval's moments sum g u^j, u being the place in the interval; phi
 * is a polynomial there too. (Interpolation and its adjoint, as in a non-uniform Fourier transform.)
 *
 * With x = W z + P at an interval's centre and a = W times its length, sin(x + a u) = sin x cos a u + cos x sin a u. For u
 * from -1/2 to 1/2 the four functions of `arc` are truncated Chebyshev series, with errors up to a^4 / 3072: 1e-8 in the
 * longest intervals.
 *
 * In double precision: polynomials from parameters, and gradients from moments. In single: what is done for each value.
 */
#if !KERNEL_FLOAT

typedef struct {
    double cos_0, cos_2, sin_1, sin_3;     /* of cos a u and sin a u */
    double ucos_1, ucos_3, usin_0, usin_2; /* of u cos a u and u sin a u */
} NAME(arc);

INLINE NAME(arc) NAME(arc_of)(double a) {
    double b = a * a, c = b * b;
    return (NAME(arc)){
        .cos_0 = 1.0 - c / 3072.0, .cos_2 = c / 96.0 - b / 2.0,
        .sin_1 = a - a * c / 6144.0, .sin_3 = a * c / 384.0 - a * b / 6.0,
        .ucos_1 = 1.0 - c * 5.0 / 6144.0, .ucos_3 = c * 5.0 / 384.0 - b / 2.0,
        .usin_0 = a * b / 768.0, .usin_2 = a - a * b / 24.0,
    };
}

INLINE void NAME(sine_and_cosine)(V x, V *sine, V *cosine) {
    I sign = NAME(sincos)(x, sine, cosine, 0);
    *sine = NAME(turn_sign)(*sine, sign), *cosine = NAME(turn_sign)(*cosine, sign);
}

/* Sine and cosine of a sinusoid's argument at the centres of LANES intervals, differentiated some times; and what turns them
 * on to those of the next. */
typedef struct {
    V sine, cosine, sine_on, cosine_on;
} NAME(turning);

INLINE NAME(turning) NAME(turning_at)(const call *work, ptrdiff_t t, V centre, int order) {
    double w = ((const float *)work->frequency)[t];
    NAME(turning) now;
    NAME(sine_and_cosine)(centre * w + ((const float *)work->phase)[t], &now.sine, &now.cosine);
    NAME(sine_and_cosine)((V){0} + w * work->table.length * (double)LANES, &now.sine_on, &now.cosine_on);
    for (; order > 0; order--) {
        V turned = -now.sine;
        now.sine = now.cosine, now.cosine = turned;
    }
    return now;
}

INLINE void NAME(turn_on)(NAME(turning) *now) {
    V sine = now->sine * now->cosine_on + now->cosine * now->sine_on;
    now->cosine = now->cosine * now->cosine_on - now->sine * now->sine_on;
    now->sine = sine;
}

/* The centres of the intervals from number `interval`. */
INLINE V NAME(centres)(const interpolation *table, ptrdiff_t interval) {
    V number = {0};
    for (ptrdiff_t i = 0; i < LANES; i++) number[i] = (double)(table->first + interval + i);
    return number * table->length;
}

static void NAME(make_table)(void *context, ptrdiff_t unit) {
    const call *work = context;
    const interpolation *table = &work->table;
    ptrdiff_t first = unit * INTERVALS, count = table->count - first < INTERVALS ? table->count - first : INTERVALS;
    for (int derivative = 0; derivative < table->derivatives; derivative++) {
        int order = derivative + (table->pass != FORWARD);
        V coefficients[4][INTERVALS / (VECTOR_BYTES / 8)] = {{{0}}};
        for (ptrdiff_t t = 0; t < work->terms; t++) {
            double w = ((const float *)work->frequency)[t], size = ((const float *)work->amplitude)[t];
            for (int i = 0; i < order; i++) size *= w;
            NAME(arc) arc = NAME(arc_of)(w * table->length);
            NAME(turning) at = NAME(turning_at)(work, t, NAME(centres)(table, first), order);
            for (ptrdiff_t i = 0; i * LANES < count; i++, NAME(turn_on)(&at)) {
                V sine = size * at.sine, cosine = size * at.cosine;
                coefficients[0][i] += arc.cos_0 * sine, coefficients[1][i] += arc.sin_1 * cosine;
                coefficients[2][i] += arc.cos_2 * sine, coefficients[3][i] += arc.sin_3 * cosine;
            }
        }
        for (ptrdiff_t i = 0; i < count; i++)
            for (int j = 0; j < 4; j++)
                table->polynomials[derivative][4 * (first + i) + j] = (float)coefficients[j][i / LANES][i % LANES];
    }
}

/* The parameters' gradients from the moments of a unit's intervals, into the partial sums after those of the values' units.
 * In the second pass the moments are those of g times z's direction, and phi are of the sinusoids' derivatives.
 */
static void NAME(gradients_from_moments)(void *context, ptrdiff_t unit) {
    const call *work = context;
    const interpolation *table = &work->table;
    ptrdiff_t first = unit * INTERVALS, count = table->count - first < INTERVALS ? table->count - first : INTERVALS;
    int second = table->pass == SECOND;
    double *to = work->partial + (table->units + unit) * 3 * work->terms, sums[4 * INTERVALS] = {0};
    for (ptrdiff_t from = 0; from < table->units; from++) {
        const double *moments = table->moments + 4 * (from * table->count + first);
        for (ptrdiff_t i = 0; i < 4 * count; i++) sums[i] += moments[i];
    }
    V m[4][INTERVALS / (VECTOR_BYTES / 8)];
    for (ptrdiff_t i = 0; i < INTERVALS; i++)
        for (int j = 0; j < 4; j++) m[j][i / LANES][i % LANES] = sums[4 * i + j];
    for (ptrdiff_t t = 0; t < work->terms; t++) {
        double w = ((const float *)work->frequency)[t], c = ((const float *)work->amplitude)[t];
        NAME(arc) arc = NAME(arc_of)(w * table->length);
        V centre = NAME(centres)(table, first), by_sin = {0}, by_cos = {0}, by_zcos = {0};
        NAME(turning) at = NAME(turning_at)(work, t, centre, second);
        for (ptrdiff_t i = 0; i * LANES < count; i++, NAME(turn_on)(&at), centre += LANES * table->length) {
            V even = arc.cos_0 * m[0][i] + arc.cos_2 * m[2][i], odd = arc.sin_1 * m[1][i] + arc.sin_3 * m[3][i];
            V moved_even = arc.usin_0 * m[0][i] + arc.usin_2 * m[2][i];
            V moved_odd = arc.ucos_1 * m[1][i] + arc.ucos_3 * m[3][i];
            V cosines = at.cosine * even - at.sine * odd;
            by_sin += at.sine * even + at.cosine * odd;
            by_cos += cosines;
            by_zcos += centre * cosines + table->length * (at.cosine * moved_odd - at.sine * moved_even);
        }
        double sum_sin = NAME(total)(by_sin), rate = second ? w : 1.0;
        to[t] = rate * sum_sin;
        to[work->terms + t] = c * (rate * NAME(total)(by_zcos) + (second ? sum_sin : 0.0));
        to[2 * work->terms + t] = c * rate * NAME(total)(by_cos);
    }
}

INLINE void NAME(line_pass)(const call *work, ptrdiff_t unit, ptrdiff_t column, LINE l, int pass, REAL *moments) {
    (void)column, (void)moments;
    NAME(sum_over_line)(work, unit, 0, l, pass);
}

#else

/* --- for each value ------------------------------------------------------------------------------------------------ */

#if VECTOR_BYTES == 64
#define QUADS(i, j, k, l) i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8, k + 8, l + 8, i + 12, j + 12, k + 12, l + 12
#elif VECTOR_BYTES == 32
#define QUADS(i, j, k, l) i, j, k, l, i + 4, j + 4, k + 4, l + 4
#else
#define QUADS(i, j, k, l) i, j, k, l
#endif
#define M ((int)LANES)
#if defined(__clang__)
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, QUADS(i, j, k, l))
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (I){QUADS(i, j, k, l)})
#endif

typedef REAL NAME(quad) __attribute__((vector_size(16), may_alias));
#define QUAD NAME(quad)

/* Transposes the 4 x 4 values in each quarter of a vector, half of one, or whole one. */
INLINE void NAME(transpose)(V v[4]) {
    V a = SHUFFLE(v[0], v[1], 0, M, 1, M + 1), b = SHUFFLE(v[0], v[1], 2, M + 2, 3, M + 3);
    V c = SHUFFLE(v[2], v[3], 0, M, 1, M + 1), d = SHUFFLE(v[2], v[3], 2, M + 2, 3, M + 3);
    v[0] = SHUFFLE(a, c, 0, 1, M, M + 1), v[1] = SHUFFLE(a, c, 2, 3, M + 2, M + 3);
    v[2] = SHUFFLE(b, d, 0, 1, M, M + 1), v[3] = SHUFFLE(b, d, 2, 3, M + 2, M + 3);
}

/* The polynomials of intervals 0, 4, 8 ... of a vector's, which are given by where those begin, in bytes. */
INLINE V NAME(load_quads)(const REAL *polynomials, const uint32_t *interval) {
#define AT(i) (*(const QUAD *)((const char *)polynomials + interval[i]))
#if VECTOR_BYTES == 64
    __m512 v = _mm512_castps128_ps512((__m128)AT(0));
    v = _mm512_mask_broadcast_f32x4(v, 0x00f0, (__m128)AT(4));
    v = _mm512_mask_broadcast_f32x4(v, 0x0f00, (__m128)AT(8));
    return (V)_mm512_mask_broadcast_f32x4(v, 0xf000, (__m128)AT(12));
#elif VECTOR_BYTES == 32
    return (V)_mm256_insertf128_ps(_mm256_castps128_ps256((__m128)AT(0)), (__m128)AT(4), 1);
#else
    return AT(0);
#endif
#undef AT
}

/* The polynomial of each value's interval, at its place in it. */
INLINE V NAME(evaluate)(const REAL *polynomials, const uint32_t *interval, V u) {
    V c[4];
    for (int i = 0; i < 4; i++) c[i] = NAME(load_quads)(polynomials, interval + i);
    NAME(transpose)(c);
    return ((c[3] * u + c[2]) * u + c[1]) * u + c[0];
}

INLINE void NAME(add_moments)(REAL *moments, const uint32_t *interval, V g, V u) {
    V m[4] = {g, g * u, g * u * u, g * u * u * u};
    QUAD parts[4][VECTOR_BYTES / 16];
    NAME(transpose)(m);
    memcpy(parts, m, sizeof parts);
    for (ptrdiff_t i = 0; i < LANES; i++) *(QUAD *)((char *)moments + interval[i]) += parts[i % 4][i / 4];
}

/* Where the polynomial of each value's interval begins, and the value's place in it, from -1/2 to 1/2, after `row` is
 * added, if there is one; whether all values lie in the table, as no NaN does.
 */
static __attribute__((noinline)) int NAME(find_intervals)(const interpolation *table, const LINE *l, const REAL *row,
                                                          uint32_t *interval, REAL *place) {
    typedef uint32_t U __attribute__((vector_size(VECTOR_BYTES)));
    REAL magic = INTEGER_AT;
    uint32_t first;
    memcpy(&first, &magic, sizeof first);
    first += (uint32_t)table->first;
    I outside = {0};
    for (ptrdiff_t i = 0; i < l->count * LANES; i += LANES) {
        V x = NAME(load)(l->z + i, LANES);
        if (row) x += NAME(load)(row + i, LANES);
        V shifted = x * table->scale + INTEGER_AT, k = shifted - INTEGER_AT;
        U number = (U)shifted - first;
        outside |= number >= (U){0} + (uint32_t)table->count;
        number *= 4 * sizeof(REAL);
        memcpy(interval + i, &number, VECTOR_BYTES);
        NAME(store)(place + i, x * table->scale - k, LANES);
    }
    return NAME(none)(outside);
}

/* While values are evaluated, the next ones come into the cache. */
#define NEXT(from) __builtin_prefetch((from) + i + AT_ONCE)
#define NEXT_TO(to) __builtin_prefetch((to) + i + AT_ONCE, 1)
#define SEPARATE static __attribute__((noinline)) void
SEPARATE NAME(forward_by_table)(const interpolation *table, const LINE *l, const uint32_t *interval, const REAL *place) {
    for (ptrdiff_t i = 0; i < l->count * LANES; i += LANES) {
        NEXT(l->z), NEXT_TO(l->out);
        NAME(store)(l->out + i, NAME(evaluate)(table->polynomials[0], interval + i, NAME(load)(place + i, LANES)), LANES);
    }
}

SEPARATE NAME(backward_by_table)(const interpolation *table, const LINE *l, const uint32_t *interval, const REAL *place, REAL *moments) {
    for (ptrdiff_t i = 0; i < l->count * LANES; i += LANES) {
        NEXT(l->z), NEXT(l->grad), NEXT_TO(l->to_z);
        V u = NAME(load)(place + i, LANES), g = NAME(load)(l->grad + i, LANES);
        NAME(store)(l->to_z + i, g * NAME(evaluate)(table->polynomials[0], interval + i, u), LANES);
        NAME(add_moments)(moments, interval + i, g, u);
    }
}

SEPARATE NAME(second_by_table)(const interpolation *table, const LINE *l, const uint32_t *interval, const REAL *place, REAL *moments) {
    for (ptrdiff_t i = 0; i < l->count * LANES; i += LANES) {
        NEXT(l->z), NEXT(l->grad), NEXT(l->vz), NEXT_TO(l->to_z), NEXT_TO(l->to_grad);
        V u = NAME(load)(place + i, LANES), moved = NAME(load)(l->vz + i, LANES), g = NAME(load)(l->grad + i, LANES) * moved;
        NAME(store)(l->to_grad + i, moved * NAME(evaluate)(table->polynomials[0], interval + i, u), LANES);
        NAME(store)(l->to_z + i, g * NAME(evaluate)(table->polynomials[1], interval + i, u), LANES);
        NAME(add_moments)(moments, interval + i, g, u);
    }
}
#undef SEPARATE
#undef NEXT
#undef NEXT_TO

/* A line of whole vectors; values that lie outside the table are done sinusoid by sinusoid, with those around them. */
INLINE void NAME(line_pass)(const call *work, ptrdiff_t unit, ptrdiff_t column, LINE l, int pass, REAL *moments) {
    if (!work->table.count) {
        NAME(sum_over_line)(work, unit, 0, l, pass);
        return;
    }
    uint32_t interval[AT_ONCE];
    REAL place[AT_ONCE];
    for (ptrdiff_t left = l.count; left > 0; left -= l.count) {
        l.count = left < AT_ONCE / LANES ? left : AT_ONCE / LANES;
        const REAL *row = work->bias ? work->table.bias + column : NULL;
        ptrdiff_t done = l.count * LANES;
        if (!NAME(find_intervals)(&work->table, &l, row, interval, place)) {
            LINE biased = l;
            for (ptrdiff_t i = 0; row && i < done; i++) place[i] = l.z[i] + row[i];
            if (row) biased.z = place;
            NAME(sum_over_line)(work, unit, 0, biased, pass);
        } else if (pass == FORWARD)
            NAME(forward_by_table)(&work->table, &l, interval, place);
        else if (pass == BACKWARD)
            NAME(backward_by_table)(&work->table, &l, interval, place, moments);
        else
            NAME(second_by_table)(&work->table, &l, interval, place, moments);
        if (row) column = (column + done) % work->width;
        l.z += done;
        if (pass == FORWARD) l.out += done;
        if (pass != FORWARD) l.grad += done, l.to_z += done;
        if (pass == SECOND) l.vz += done, l.to_grad += done;
    }
}

#undef QUADS
#undef M
#undef SHUFFLE
#undef QUAD
#endif

/* Sums of a few values, in the tensors' precision, are added in double. */
INLINE void NAME(keep_moments)(const interpolation *table, ptrdiff_t unit, REAL *moments) {
    double *to = table->moments + unit * 4 * table->count;
    for (ptrdiff_t i = 0; i < 4 * table->count; i++) to[i] += (double)moments[i], moments[i] = 0;
}
