/* Activations on a CPU. The trainable Fourier sum, sigma(z) = sum_i C_i sin(W_i z + P_i), its gradients, and the gradients
 * of those; activations without parameters (native_pointwise.h), to their third derivatives; and what is done with the
 * samples of rays (native_rays.h).
 *
 * z has `rows` rows of `n` values. With shared parameters (`per_feature` 0) C, W and P have `terms` values, one for each
 * sinusoid; with `per_feature` 1 they have terms rows of n values, a set for each feature. Where they are shared, a bias of
 * n values can be added to each row of z: the linear layer before then need not, nor sum the rows of its gradient.
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

#include "native_threads.h"

#define BLOCK_BYTES 8192 /* of z, beside as much of each other tensor: what the first-level cache holds */

/* --- arithmetic, for each precision and instruction set ------------------------------------------------------------ */

/* What a call works on. A unit is a block of values where parameters are shared, else a block of whole rows. */
typedef struct {
    const void *z, *amplitude, *frequency, *phase, *grad;        /* grad: of the loss by sigma(z) */
    const void *vz, *vamplitude, *vfrequency, *vphase;           /* second pass: of the loss by the first pass's results */
    const void *bias, *vbias;                                    /* NULL, or as long as a row of z */
    void *out, *to_grad, *to_z;                                  /* the shape of z */
    void *to_bias;                                               /* (units, width) */
    double *partial;                                             /* (units, 3, terms * width of the parameters) */
    ptrdiff_t rows, n, terms, block, width;                      /* width: of a row of z */
    int per_feature;
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

enum { FORWARD, BACKWARD, SECOND };
enum { SINE, FINER, GAUSSIAN };

#define ARITHMETIC "native_kernels.h"
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

/* Raised whenever a signature of this library changes, together with VERSION in library.py. */
EXPORT int staf_version(void) { return 5; }

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

/* Units of work of a tensor, and the rows or values in each. */
static ptrdiff_t plan(call *work, int is_double) {
    ptrdiff_t size = is_double ? 8 : 4, total = work->rows * work->n;
    work->width = work->n;
    if (!work->per_feature) { /* one line of values, whatever its rows; several blocks to a sum of rows */
        work->rows = 1;
        work->n = total;
        work->block = (work->bias ? 8 : 1) * BLOCK_BYTES / size;
        return (total + work->block - 1) / work->block;
    }
    work->block = 64;
    return (work->rows + work->block - 1) / work->block;
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

static int run_with_sums(call *work, unit_function run, int is_double, int threads, void *gradients[3], void *to_bias) {
    ptrdiff_t width = work->per_feature ? work->n : 1;
    ptrdiff_t units = plan(work, is_double);
    size_t room = (size_t)(units > 0 ? units : 1);
    work->partial = calloc(room, 3 * (size_t)(work->terms * width) * sizeof(double));
    work->to_bias = work->bias ? calloc(room, (size_t)work->width * (is_double ? 8 : 4)) : NULL;
    int failed = !work->partial || (work->bias && !work->to_bias);
    if (!failed) {
        run_job((job){run, work, units, threads});
        reduce(work, units, width, is_double, gradients);
        if (work->bias) reduce_rows(work, units, is_double, to_bias);
    }
    free(work->partial);
    free(work->to_bias);
    return failed;
}

EXPORT int staf_forward(int level, int is_double, int threads, int per_feature, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t terms,
                        const void *z, const void *amplitude, const void *frequency, const void *phase, const void *bias,
                        void *out) {
    call work = {.z = z, .amplitude = amplitude, .frequency = frequency, .phase = phase, .bias = bias, .out = out,
                 .rows = rows, .n = n, .terms = terms, .per_feature = per_feature};
    ptrdiff_t units = plan(&work, is_double);
    run_job((job){choose(level, is_double)->forward, &work, units, threads});
    return 0;
}

EXPORT int staf_backward(int level, int is_double, int threads, int per_feature, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t terms,
                         const void *grad, const void *z, const void *amplitude, const void *frequency,
                         const void *phase, const void *bias, void *to_z, void *to_amplitude, void *to_frequency,
                         void *to_phase, void *to_bias) {
    call work = {.grad = grad, .z = z, .amplitude = amplitude, .frequency = frequency, .phase = phase, .bias = bias,
                 .to_z = to_z, .rows = rows, .n = n, .terms = terms, .per_feature = per_feature};
    void *gradients[3] = {to_amplitude, to_frequency, to_phase};
    return run_with_sums(&work, choose(level, is_double)->backward, is_double, threads, gradients, to_bias);
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
    return run_with_sums(&work, choose(level, is_double)->second, is_double, threads, gradients, to_bias);
}

/* out = the derivative of that order at each z, times factor (which order 0 does not read). */
EXPORT int staf_pointwise(int level, int is_double, int threads, int kind, int order, double scale, ptrdiff_t count,
                          const void *z, const void *factor, void *out) {
    call work = {.z = z, .grad = factor, .out = out, .rows = 1, .n = count, .kind = kind, .order = order, .scale = scale};
    ptrdiff_t units = plan(&work, is_double);
    run_job((job){choose(level, is_double)->pointwise, &work, units, threads});
    return 0;
}

static void run_rays(rays work, unit_function run, int threads) {
    run_job((job){run, &work, (work.count + RAYS - 1) / RAYS, threads});
}

/* weights, and in `through` what passes each sample, from optical depths. */
EXPORT void ray_weights(int level, int is_double, int threads, ptrdiff_t count, ptrdiff_t samples, const void *depth,
                        void *through, void *out) {
    rays work = {.depth = depth, .through = through, .out = out, .count = count, .samples = samples};
    run_rays(work, choose(level, is_double)->ray_weights, threads);
}

EXPORT void ray_weights_backward(int level, int is_double, int threads, ptrdiff_t count, ptrdiff_t samples,
                                 const void *grad, const void *through, void *out) {
    rays work = {.grad = grad, .through = (void *)through, .out = out, .count = count, .samples = samples};
    run_rays(work, choose(level, is_double)->ray_weights_backward, threads);
}

/* out: (count, bins). */
EXPORT void ray_resample(int level, int is_double, int threads, ptrdiff_t count, ptrdiff_t samples, ptrdiff_t bins,
                         double padding, const void *edges, const void *weights, const void *shift, void *out) {
    rays work = {.edges = edges, .weights = weights, .shift = shift, .out = out, .count = count, .samples = samples,
                 .bins = bins, .padding = padding};
    run_rays(work, choose(level, is_double)->ray_resample, threads);
}

/* out: (count,); gradient: by the weights. */
EXPORT void ray_distortion(int level, int is_double, int threads, ptrdiff_t count, ptrdiff_t samples, const void *edges,
                           const void *weights, void *gradient, void *out) {
    rays work = {.edges = edges, .weights = weights, .gradient = gradient, .out = out, .count = count, .samples = samples};
    run_rays(work, choose(level, is_double)->ray_distortion, threads);
}

/* out: (count, samples, 3). */
EXPORT void ray_points(int level, int is_double, int threads, ptrdiff_t count, ptrdiff_t samples, const void *origins,
                       const void *directions, const void *starts, const void *ends, void *out) {
    rays work = {.origins = origins, .directions = directions, .starts = starts, .ends = ends, .out = out,
                 .count = count, .samples = samples};
    run_rays(work, choose(level, is_double)->ray_points, threads);
}

/* points and out: (count, 3). */
EXPORT void cube_contraction(int level, int is_double, int threads, ptrdiff_t count, const void *points, void *out) {
    rays work = {.origins = points, .out = out, .count = count};
    run_rays(work, choose(level, is_double)->cube_contraction, threads);
}
