/* Samples of rays, for the precision and instruction set of native_kernels.h: a unit is a block of rays. */

/* Weights T(i-1) - T(i) of a ray's samples, with T the exponential of minus the sum of their optical depths. */
static void NAME(ray_weights)(void *context, ptrdiff_t unit) {
    const rays *work = context;
    ptrdiff_t n = work->samples, first = unit * RAYS, values = (end_of_unit(work, unit) - first) * n;
    const REAL *depth = (const REAL *)work->depth + first * n;
    REAL *through = (REAL *)work->through + first * n, *weights = (REAL *)work->out + first * n;
    for (ptrdiff_t ray = 0; ray < values; ray += n) {
        REAL sum = 0;
        for (ptrdiff_t i = ray; i < ray + n; i++) through[i] = -(sum += depth[i]);
    }
    for (ptrdiff_t i = 0; i < values; i += LANES) {
        ptrdiff_t width = values - i < LANES ? values - i : LANES;
        V x = NAME(load)(through + i, width);
        I number = x == x; /* the exponential of NaN is zero */
        NAME(store)(through + i, (V)(((I)NAME(exponential)(x, 0) & number) | ((I)x & ~number)), width);
    }
    for (ptrdiff_t ray = 0; ray < values; ray += n) {
        REAL before = 1;
        for (ptrdiff_t i = ray; i < ray + n; i++) weights[i] = before - through[i], before = through[i];
    }
}

/* The gradient of <grad, weights> by the optical depths. */
static void NAME(ray_weights_backward)(void *context, ptrdiff_t unit) {
    const rays *work = context;
    ptrdiff_t n = work->samples, end = end_of_unit(work, unit);
    for (ptrdiff_t ray = unit * RAYS; ray < end; ray++) {
        const REAL *grad = (const REAL *)work->grad + ray * n, *through = (const REAL *)work->through + ray * n;
        REAL *out = (REAL *)work->out + ray * n, sum = 0, after = 0;
        for (ptrdiff_t i = n - 1; i >= 0; i--) out[i] = sum += through[i] * (grad[i] - after), after = grad[i];
    }
}

/* Edges of new samples: where the distribution of the padded weights reaches (j + shift) / bins. Both ascend. */
static void NAME(ray_resample)(void *context, ptrdiff_t unit) {
    const rays *work = context;
    ptrdiff_t n = work->samples, bins = work->bins, end = end_of_unit(work, unit);
    REAL padding = (REAL)work->padding;
    for (ptrdiff_t ray = unit * RAYS; ray < end; ray++) {
        const REAL *edges = (const REAL *)work->edges + ray * (n + 1), *weights = (const REAL *)work->weights + ray * n;
        REAL *out = (REAL *)work->out + ray * bins, shift = ((const REAL *)work->shift)[ray] / (REAL)bins;
        double sum = 0.0, reached = 0.0;
        for (ptrdiff_t i = 0; i < n; i++) sum += (double)(weights[i] + padding);
        REAL low = 0, high = 0;
        ptrdiff_t at = -1; /* the interval from low to high */
        for (ptrdiff_t j = 0; j < bins; j++) {
            REAL wanted = (REAL)j / (REAL)bins + shift;
            while (at < n - 1 && (at < 0 || high <= wanted)) {
                at++, low = high;
                reached += (double)(weights[at] + padding) / sum;
                high = (REAL)(reached > 1.0 ? 1.0 : reached); /* NaN stays */
            }
            REAL part = wanted >= high ? 1 : (wanted - low) / (high - low); /* rounding may leave the last below 1 */
            out[j] = edges[at] + part * (edges[at + 1] - edges[at]);
        }
    }
}

/* How far a ray's weights are spread, and the gradient of that by them. */
static void NAME(ray_distortion)(void *context, ptrdiff_t unit) {
    const rays *work = context;
    ptrdiff_t n = work->samples, end = end_of_unit(work, unit);
    for (ptrdiff_t ray = unit * RAYS; ray < end; ray++) {
        const REAL *edges = (const REAL *)work->edges + ray * (n + 1), *weights = (const REAL *)work->weights + ray * n;
        REAL *gradient = (REAL *)work->gradient + ray * n;
        double before = 0.0, moment = 0.0, all = 0.0, moments = 0.0, sum = 0.0;
        for (ptrdiff_t i = 0; i < n; i++) {
            double w = (double)weights[i];
            all += w, moments += w * 0.5 * ((double)edges[i] + (double)edges[i + 1]);
        }
        for (ptrdiff_t i = 0; i < n; i++) {
            double w = (double)weights[i], middle = 0.5 * ((double)edges[i] + (double)edges[i + 1]);
            double within = w * ((double)edges[i + 1] - (double)edges[i]) / 3.0;
            double after = all - before - w, moment_after = moments - moment - w * middle;
            double distances = middle * (before - after) - moment + moment_after; /* to the others, times their weights */
            sum += w * (distances + within);
            gradient[i] = (REAL)(2.0 * (distances + within));
            before += w, moment += w * middle;
        }
        ((REAL *)work->out)[ray] = (REAL)sum;
    }
}

/* Middles of samples: origins + directions (starts + ends) / 2. */
static void NAME(ray_points)(void *context, ptrdiff_t unit) {
    const rays *work = context;
    ptrdiff_t n = work->samples, end = end_of_unit(work, unit);
    for (ptrdiff_t ray = unit * RAYS; ray < end; ray++) {
        const REAL *o = (const REAL *)work->origins + ray * 3, *d = (const REAL *)work->directions + ray * 3;
        const REAL *starts = (const REAL *)work->starts + ray * n, *ends = (const REAL *)work->ends + ray * n;
        REAL *out = (REAL *)work->out + ray * n * 3;
        for (ptrdiff_t i = 0; i < n; i++, out += 3) {
            REAL t = (REAL)0.5 * (starts[i] + ends[i]);
            out[0] = o[0] + d[0] * t, out[1] = o[1] + d[1] * t, out[2] = o[2] + d[2] * t;
        }
    }
}

/* Points into the cube of half side 2: x where its largest coordinate m is at most 1, else (2 - 1/m) x/m. */
static void NAME(cube_contraction)(void *context, ptrdiff_t unit) {
    const rays *work = context;
    ptrdiff_t end = end_of_unit(work, unit);
    for (ptrdiff_t point = unit * RAYS; point < end; point++) {
        const REAL *x = (const REAL *)work->origins + point * 3;
        REAL *out = (REAL *)work->out + point * 3, size = 1;
        for (ptrdiff_t axis = 0; axis < 3; axis++) {
            REAL far = x[axis] < 0 ? -x[axis] : x[axis];
            size = far > size || far != far ? far : size; /* NaN stays */
        }
        REAL factor = (2 - 1 / size) / size;
        for (ptrdiff_t axis = 0; axis < 3; axis++) out[axis] = x[axis] * factor;
    }
}
