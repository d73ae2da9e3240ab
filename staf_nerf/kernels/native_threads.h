/* Work split over threads: units 0 … n-1 in contiguous parts, each by one thread. Included by each source file. */
#include <stddef.h>

enum { DONE, NO_MEMORY, BEYOND_TABLE }; /* what functions return, as in signatures.py */

typedef void (*unit_function)(void *context, ptrdiff_t unit);

typedef struct {
    unit_function run;
    void *context;
    ptrdiff_t units;
    int threads;
} job;

static void run_part(const job *work, int index) {
    ptrdiff_t first = work->units * index / work->threads, last = work->units * (index + 1) / work->threads;
    for (ptrdiff_t unit = first; unit < last; unit++) work->run(work->context, unit);
}

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#include <pthread.h>

/* torch's own threads, through the entry point that every OpenMP library on Linux exports: a second pool beside it would
 * compete with its waiting threads for the cores. */
typedef void (*gomp_parallel_function)(void (*)(void *), void *, unsigned, unsigned);
typedef int (*gomp_index_function)(void);
static gomp_parallel_function gomp_parallel;
static gomp_index_function gomp_index, gomp_count;
static int forked; /* OpenMP's threads are not there in the child of a fork */

static void after_fork(void) { forked = 1; }

__attribute__((constructor)) static void find_threads(void) {
    gomp_parallel = (gomp_parallel_function)dlsym(RTLD_DEFAULT, "GOMP_parallel");
    gomp_index = (gomp_index_function)dlsym(RTLD_DEFAULT, "omp_get_thread_num");
    gomp_count = (gomp_index_function)dlsym(RTLD_DEFAULT, "omp_get_num_threads");
    pthread_atfork(NULL, NULL, after_fork);
}

static void gomp_worker(void *argument) {
    job work = *(const job *)argument;
    work.threads = gomp_count(); /* it may be fewer than were asked for */
    run_part(&work, gomp_index());
}

typedef struct {
    const job *work;
    int index;
} part;

static void *part_worker(void *argument) {
    const part *mine = argument;
    run_part(mine->work, mine->index);
    return NULL;
}

static void run_job(job work) {
    if (work.threads > work.units) work.threads = (int)work.units;
    if (work.threads > 1 && gomp_parallel && gomp_index && gomp_count && !forked) {
        gomp_parallel(gomp_worker, &work, (unsigned)work.threads, 0);
        return;
    }
    enum { MOST = 256 };
    pthread_t threads[MOST];
    part parts[MOST];
    int started[MOST] = {0};
    if (work.threads > MOST) work.threads = MOST;
    for (int i = 1; i < work.threads; i++) {
        parts[i] = (part){&work, i};
        started[i] = pthread_create(&threads[i], NULL, part_worker, &parts[i]) == 0;
    }
    if (work.threads > 0) run_part(&work, 0);
    for (int i = 1; i < work.threads; i++) {
        if (started[i])
            pthread_join(threads[i], NULL);
        else
            run_part(&work, i);
    }
}
#else
static void run_job(job work) {
    work.threads = 1;
    run_part(&work, 0);
}
#endif

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
