/* Activations on a CPU. The trainable Fourier sum, sigma(z) = sum_i C_i sin(W_i z + P_i), its gradients, and the gradients
 * of those; activations without parameters (native_pointwise.h), to their third derivatives; and what is done with the
 * samples of rays (native_rays.h).
 *
 * z has `rows` rows of `n` values. With shared parameters (`per_feature` 0) C, W and P have `terms` values, one for each
 * sinusoid; with `per_feature` 1 they have terms rows of n values, a set for each feature. Where they are shared, a bias of
 * n values can be added to each row of z: the linear layer before then need not, nor sum the rows of its gradient.
 *
 * Many values that share their parameters are evaluated by an interpolation table (native_table.h) instead of sinusoid by
 * sinusoid: in single precision only, and where a sample of them says that it pays.
 *
 * native_kernels.h holds the arithmetic, in the compiler's vector types, for each precision and instruction set; the
 * functions at the end of this file choose among them at run time. Nothing here allocates what it
 * returns, knows Python or keeps state, so the library serves any interpreter. Results do not depend on the number of
 * threads: sums are formed over fixed blocks, then over blocks in order.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#include "native_threads.h"

#define BLOCK_BYTES 8192 /* of z, beside as much of each other tensor: what the first-level cache holds */

#define ROWS 64 /* at a time, where each feature has its own parameters */
#define MOST_UNITS 64 /* with partial sums, or as many as take so many bytes, if that is more */
#define PARTIAL_BYTES (16 << 20)

#define LARGEST 1e5 /* an argument beyond it, and for what is not finite, the C library's sine is used */
#define INTERVALS 256 /* to a unit of work on the table itself */
#define MOST_INTERVALS 16384
#define AT_ONCE 512 /* values whose intervals are found before they are used */

/* --- arithmetic, for each precision and instruction set ------------------------------------------------------------ */

enum { FORWARD, BACKWARD, SECOND };

/* The interpolation table that stands for the sinusoids (native_table.h); no intervals where those are quicker. */
typedef struct {
    ptrdiff_t first, count, units;  /* intervals, number 0 being centred at 0; units of values, each with its moments */
    float scale;                    /* intervals in a unit of z */
    double length;                  /* 1 / scale */
    float *polynomials[2];          /* (count, 4): of the sum's derivatives of successive orders */
    double *moments;                /* (units, count, 4) */
    float *bias;                    /* if there is one: repeated, so that AT_ONCE values follow each of a row's */
    ptrdiff_t summed;               /* values whose moments are summed in single precision; then sums are added in double */
    int derivatives, pass;          /* derivatives: how many have polynomials */
} interpolation;

/* What a call works on. A unit is a block of values where parameters are shared, else of whole rows. */
typedef struct {
    const void *z, *amplitude, *frequency, *phase, *grad;        /* grad: of the loss by sigma(z) */
    const void *vz, *vamplitude, *vfrequency, *vphase;           /* second pass: of the loss by the first pass's results */
    const void *bias, *vbias;                                    /* NULL, or as long as a row of z */
    void *out, *to_grad, *to_z;                                  /* the shape of z */
    void *to_bias;                                               /* (units, width) */
    double *partial;                                             /* (units, 3, terms * width of the parameters) */
    ptrdiff_t rows, n, terms, block, width;                      /* width: of a row of z */
    int per_feature, no_memory;
    interpolation table;
    double scale; /* kind, order and scale are a pointwise activation's; its factor is grad */
    int kind, order;
} call;

/* What a call about `count` rays works on; a unit is RAYS of them. Tensors are (count, samples), edges a sample longer. */
typedef struct {
    const void *depth, *grad, *edges, *weights, *starts, *ends;
    const void *shift, *origins, *directions; /* (count,), and (count, 3) */
    void *through, *gradient, *out;
    ptrdiff_t count, samples, bins;
    double padding;
} rays;

#define RAYS 16

/* The ray after a unit's last one. */
static ptrdiff_t end_of_unit(const rays *work, ptrdiff_t unit) {
    ptrdiff_t end = (unit + 1) * RAYS;
    return end < work->count ? end : work->count;
}

enum { SINE, FINER, GAUSSIAN };

#define ARITHMETIC "native_precisions.h"
#include "native_instructions.h"

/* --- entry points -------------------------------------------------------------------------------------------------- */

typedef struct {
    unit_function forward, backward, second, pointwise;
    unit_function ray_weights, ray_weights_backward, ray_resample, ray_distortion, ray_points, cube_contraction;
} kernels;

#define KERNELS(suffix)                                                                                     \
    {forward_##suffix,     backward_##suffix,             second_##suffix,       pointwise_##suffix,        \
     ray_weights_##suffix, ray_weights_backward_##suffix, ray_resample_##suffix, ray_distortion_##suffix,   \
     ray_points_##suffix,  cube_contraction_##suffix}
static const kernels base[2] = {KERNELS(f32_base), KERNELS(f64_base)};
#ifdef HAVE_X86
static const kernels avx2[2] = {KERNELS(f32_avx2), KERNELS(f64_avx2)};
static const kernels avx512[2] = {KERNELS(f32_avx512), KERNELS(f64_avx512)};
#endif

/* On the interpolation table: in double precision for each instruction set. */
typedef struct {
    unit_function make, gradients;
} table_kernels;
static const table_kernels on_table[] = {
    {make_table_f64_base, gradients_from_moments_f64_base},
#ifdef HAVE_X86
    {make_table_f64_avx2, gradients_from_moments_f64_avx2},
    {make_table_f64_avx512, gradients_from_moments_f64_avx512},
#endif
};

/* What the interpreter would call if the library were imported as a module, and what linkers on Windows ask for. It has
 * none: the import ends with SystemError. `staf_nerf.kernels.library` loads the library through ctypes.
 */
EXPORT void *PyInit__native(void) { return NULL; }

/* Raised whenever a signature of this library changes, together with VERSION in signatures.py. */
EXPORT int staf_version(void) { return 6; }

/* The best instruction set of this processor: 0 the compiler's default, 1 AVX2, 2 AVX-512. */
EXPORT int staf_level(void) {
#ifdef HAVE_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

static const kernels *choose(int level, int is_double) {
#ifdef HAVE_X86
    if (level == 2) return &avx512[is_double];
    if (level == 1) return &avx2[is_double];
#endif
    (void)level;
    return &base[is_double];
}

/* Units of work of a tensor, and the rows or values in each. Partial sums of the gradients bound the number of units. */
static ptrdiff_t plan(call *work, int is_double, int pass) {
    ptrdiff_t size = is_double ? 8 : 4, total = work->rows * work->n, count = work->rows, sums = work->n;
    work->width = work->n;
    work->block = ROWS;
    if (!work->per_feature) { /* one line of values, whatever its rows; several blocks to a sum of rows */
        work->rows = 1;
        work->n = count = total;
        work->block = (work->bias ? 8 : 1) * BLOCK_BYTES / size;
        sums = 1;
    }
    ptrdiff_t units = (count + work->block - 1) / work->block;
    if (pass == FORWARD) return units;
    ptrdiff_t bytes = 3 * work->terms * sums * 8 + (work->bias ? work->width * size : 0), most = PARTIAL_BYTES / (bytes + 1);
    if (most < MOST_UNITS) most = MOST_UNITS;
    if (units > most) work->block *= (units + most - 1) / most;
    return (count + work->block - 1) / work->block;
}

/* The least and largest value of z, as parts of some of its rows show. */
static void sample_range(const call *work, double *low, double *high) {
    enum { VALUES = 4096, LONG = 256, SIDE = 8 };
    float least[SIDE], most[SIDE], none[LONG] = {0};
    ptrdiff_t width = work->bias ? work->width : work->n, rows = work->n / width;
    ptrdiff_t length = width < LONG ? width : LONG, parts = VALUES / length;
    for (int i = 0; i < SIDE; i++) least[i] = INFINITY, most[i] = -INFINITY;
    for (ptrdiff_t part = 0; part < parts; part++) {
        ptrdiff_t at = work->bias ? rows * part / parts * width + part * length % (width - length + 1) : (width - length) / parts * part;
        const float *z = (const float *)work->z + at, *bias = work->bias ? (const float *)work->bias + at % width : none;
        for (ptrdiff_t i = 0; i < length; i += SIDE)
            for (int j = 0; j < SIDE && i + j < length; j++) {
                float x = z[i + j] + bias[i + j];
                least[j] = x < least[j] ? x : least[j], most[j] = x > most[j] ? x : most[j];
            }
    }
    *low = least[0], *high = most[0];
    for (int i = 1; i < SIDE; i++) *low = fmin(*low, least[i]), *high = fmax(*high, most[i]);
}

/* The largest magnitude; not a number, if one is none. */
static double largest(const float *values, ptrdiff_t count) {
    double most = 0.0;
    for (ptrdiff_t i = 0; i < count; i++)
        if (!(fabs((double)values[i]) <= most)) most = fabs((double)values[i]);
    return most;
}

/* Cuts the range of z into intervals, or leaves none where sinusoids are quicker; units of values. */
static ptrdiff_t plan_table(call *work, ptrdiff_t units, int pass) {
    const double longest = 0.074; /* radians of the quickest sinusoid */
    const ptrdiff_t fewest = 512, terms = work->terms, spared = terms - 3, few = 8 * BLOCK_BYTES / 4;
    if (work->per_feature || spared <= 0 || work->n * spared < 1 << 19) return units;
    if (pass == SECOND && largest(work->vamplitude, terms) + largest(work->vfrequency, terms) + largest(work->vphase, terms) != 0.0)
        return units; /* along directions of parameters the sum is another one */
    double quickest = largest(work->frequency, terms), low, high;
    sample_range(work, &low, &high);
    double span = high - low, farthest = fmax(fabs(low), fabs(high)) + span;
    if (!(span > 0.0 && quickest * farthest + largest(work->phase, terms) <= LARGEST)) return units; /* nor for any NaN */
    interpolation table = {.scale = (float)fmax(quickest / longest, (double)fewest / span), .derivatives = pass == SECOND ? 2 : 1, .pass = pass};
    double margin = 0.15 * span * table.scale + 1.0, first = floor(low * table.scale - margin), last = ceil(high * table.scale + margin);
    double most = fmin(fmin(MOST_INTERVALS, 1024.0 * (double)spared), (double)work->n / 16.0);
    if (!(last - first < most && fmax(fabs(first), fabs(last)) < 1 << 22)) return units;
    table.first = (ptrdiff_t)first, table.count = (ptrdiff_t)(last - first) + 1, table.length = 1.0 / (double)table.scale;
    /* A sum of k equal values may be wrong by k/4 roundings: at worst 3e-4 where most values lie in one interval. Sums in
     * double precision take 6 to 37 % more time for the whole pass, and shorter ones 0 to 29 %. */
    table.summed = few > 8 * table.count ? few : 8 * table.count;
    for (table.units = 64; table.units > 1 && work->n < 32 * table.units * table.count;) table.units /= 2;
    ptrdiff_t block = (work->n + table.units - 1) / table.units;
    table.units = (work->n + block - 1) / block;
    work->table = table, work->block = block;
    return table.units;
}

/* Memory for the table and, after the forward pass, its moments; whether there was enough. */
static int allocate_table(call *work) {
    interpolation *table = &work->table;
    ptrdiff_t coefficients = 4 * table->count, repeated = work->bias ? work->width + AT_ONCE : 0;
    if (!table->count) return 1;
    table->polynomials[0] = malloc((size_t)(table->derivatives * coefficients + repeated) * sizeof(float));
    if (table->pass != FORWARD) table->moments = calloc((size_t)(table->units * coefficients), sizeof(double));
    if (!table->polynomials[0] || (table->pass != FORWARD && !table->moments)) return 0;
    table->polynomials[1] = table->polynomials[0] + coefficients;
    table->bias = table->polynomials[0] + table->derivatives * coefficients;
    for (ptrdiff_t i = 0; i < repeated; i++)
        table->bias[i] = i < work->width ? ((const float *)work->bias)[i] : table->bias[i - work->width];
    return 1;
}

/* The parameters' gradients (3, terms * width) from the units' partial sums, in the order of the units. */
static void reduce(const call *work, ptrdiff_t units, ptrdiff_t width, int is_double, void *gradients[3]) {
    ptrdiff_t count = work->terms * width;
    for (int kind = 0; kind < 3; kind++) {
        for (ptrdiff_t i = 0; i < count; i++) {
            double sum = 0.0;
            for (ptrdiff_t unit = 0; unit < units; unit++) sum += work->partial[(unit * 3 + kind) * count + i];
            if (is_double)
                ((double *)gradients[kind])[i] = sum;
            else
                ((float *)gradients[kind])[i] = (float)sum;
        }
    }
}

/* The bias's gradient: the sum of the units' rows, in the order of the units. */
static void reduce_rows(const call *work, ptrdiff_t units, int is_double, void *to_bias) {
    for (ptrdiff_t i = 0; i < work->width; i++) {
        double sum = 0.0;
        for (ptrdiff_t unit = 0; unit < units; unit++) {
            ptrdiff_t at = unit * work->width + i;
            sum += is_double ? ((double *)work->to_bias)[at] : (double)((float *)work->to_bias)[at];
        }
        if (is_double)
            ((double *)to_bias)[i] = sum;
        else
            ((float *)to_bias)[i] = (float)sum;
    }
}

/* A pass over z; but in the forward pass with the sums of what each unit of it gives the parameters. */
static int run_pass(call *work, int level, int is_double, int threads, int pass, void *gradients[3], void *to_bias) {
    const kernels *of = choose(level, is_double);
    ptrdiff_t width = work->per_feature ? work->n : 1, units = plan(work, is_double, pass);
    if (!is_double) units = plan_table(work, units, pass);
    ptrdiff_t table_units = (work->table.count + INTERVALS - 1) / INTERVALS;
    int failed = !allocate_table(work);
    if (pass != FORWARD) {
        work->partial = calloc((size_t)(units + table_units + 1), 3 * (size_t)(work->terms * width) * sizeof(double));
        work->to_bias = work->bias ? calloc((size_t)(units + 1), (size_t)work->width * (is_double ? 8 : 4)) : NULL;
        failed |= !work->partial || (work->bias && !work->to_bias);
    }
    if (!failed) {
        if (table_units) run_job((job){on_table[level].make, work, table_units, threads});
        run_job((job){pass == FORWARD ? of->forward : pass == BACKWARD ? of->backward : of->second, work, units, threads});
        if (table_units && pass != FORWARD) run_job((job){on_table[level].gradients, work, table_units, threads});
        if (pass != FORWARD) reduce(work, units + table_units, width, is_double, gradients);
        if (pass != FORWARD && work->bias) reduce_rows(work, units, is_double, to_bias);
    }
    failed |= work->no_memory;
    free(work->partial);
    free(work->to_bias);
    free(work->table.polynomials[0]);
    free(work->table.moments);
    return failed ? NO_MEMORY : DONE;
}

EXPORT int staf_forward(int level, int is_double, int threads, int per_feature, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t terms,
                        const void *z, const void *amplitude, const void *frequency, const void *phase, const void *bias,
                        void *out) {
    call work = {.z = z, .amplitude = amplitude, .frequency = frequency, .phase = phase, .bias = bias, .out = out,
                 .rows = rows, .n = n, .terms = terms, .per_feature = per_feature};
    return run_pass(&work, level, is_double, threads, FORWARD, NULL, NULL);
}

EXPORT int staf_backward(int level, int is_double, int threads, int per_feature, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t terms,
                         const void *grad, const void *z, const void *amplitude, const void *frequency,
                         const void *phase, const void *bias, void *to_z, void *to_amplitude, void *to_frequency,
                         void *to_phase, void *to_bias) {
    call work = {.grad = grad, .z = z, .amplitude = amplitude, .frequency = frequency, .phase = phase, .bias = bias,
                 .to_z = to_z, .rows = rows, .n = n, .terms = terms, .per_feature = per_feature};
    void *gradients[3] = {to_amplitude, to_frequency, to_phase};
    return run_pass(&work, level, is_double, threads, BACKWARD, gradients, to_bias);
}

EXPORT int staf_second(int level, int is_double, int threads, int per_feature, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t terms,
                       const void *vz, const void *vamplitude, const void *vfrequency, const void *vphase,
                       const void *vbias, const void *grad, const void *z, const void *amplitude, const void *frequency,
                       const void *phase, const void *bias, void *to_grad, void *to_z, void *to_amplitude,
                       void *to_frequency, void *to_phase, void *to_bias) {
    call work = {.vz = vz, .vamplitude = vamplitude, .vfrequency = vfrequency, .vphase = vphase, .vbias = vbias,
                 .grad = grad, .z = z, .amplitude = amplitude, .frequency = frequency, .phase = phase, .bias = bias,
                 .to_grad = to_grad, .to_z = to_z, .rows = rows, .n = n, .terms = terms, .per_feature = per_feature};
    void *gradients[3] = {to_amplitude, to_frequency, to_phase};
    return run_pass(&work, level, is_double, threads, SECOND, gradients, to_bias);
}

/* out = the derivative of that order at each z, times factor (which order 0 does not read). */
EXPORT int staf_pointwise(int level, int is_double, int threads, int kind, int order, double scale, ptrdiff_t count,
                          const void *z, const void *factor, void *out) {
    call work = {.z = z, .grad = factor, .out = out, .rows = 1, .n = count, .kind = kind, .order = order, .scale = scale};
    ptrdiff_t units = plan(&work, is_double, FORWARD);
    run_job((job){choose(level, is_double)->pointwise, &work, units, threads});
    return DONE;
}

static int run_rays(rays work, unit_function run, int threads) {
    run_job((job){run, &work, (work.count + RAYS - 1) / RAYS, threads});
    return DONE;
}

/* weights, and in `through` what passes each sample, from optical depths. */
EXPORT int ray_weights(int level, int is_double, int threads, ptrdiff_t count, ptrdiff_t samples, const void *depth,
                        void *through, void *out) {
    rays work = {.depth = depth, .through = through, .out = out, .count = count, .samples = samples};
    return run_rays(work, choose(level, is_double)->ray_weights, threads);
}

EXPORT int ray_weights_backward(int level, int is_double, int threads, ptrdiff_t count, ptrdiff_t samples,
                                 const void *grad, const void *through, void *out) {
    rays work = {.grad = grad, .through = (void *)through, .out = out, .count = count, .samples = samples};
    return run_rays(work, choose(level, is_double)->ray_weights_backward, threads);
}

/* out: (count, bins). */
EXPORT int ray_resample(int level, int is_double, int threads, ptrdiff_t count, ptrdiff_t samples, ptrdiff_t bins,
                         double padding, const void *edges, const void *weights, const void *shift, void *out) {
    rays work = {.edges = edges, .weights = weights, .shift = shift, .out = out, .count = count, .samples = samples,
                 .bins = bins, .padding = padding};
    return run_rays(work, choose(level, is_double)->ray_resample, threads);
}

/* out: (count,); gradient: by the weights. */
EXPORT int ray_distortion(int level, int is_double, int threads, ptrdiff_t count, ptrdiff_t samples, const void *edges,
                           const void *weights, void *gradient, void *out) {
    rays work = {.edges = edges, .weights = weights, .gradient = gradient, .out = out, .count = count, .samples = samples};
    return run_rays(work, choose(level, is_double)->ray_distortion, threads);
}

/* out: (count, samples, 3). */
EXPORT int ray_points(int level, int is_double, int threads, ptrdiff_t count, ptrdiff_t samples, const void *origins,
                       const void *directions, const void *starts, const void *ends, void *out) {
    rays work = {.origins = origins, .directions = directions, .starts = starts, .ends = ends, .out = out,
                 .count = count, .samples = samples};
    return run_rays(work, choose(level, is_double)->ray_points, threads);
}

/* points and out: (count, 3). */
EXPORT int cube_contraction(int level, int is_double, int threads, ptrdiff_t count, const void *points, void *out) {
    rays work = {.origins = points, .out = out, .count = count};
    return run_rays(work, choose(level, is_double)->cube_contraction, threads);
}
