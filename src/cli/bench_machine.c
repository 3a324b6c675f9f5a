#include "cli/bench_machine.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/parallel.h"
#include "kernels/backend.h"

enum { ROUNDS = 3, COPY_PART = 16 << 20, PAGE = 4096 };

static double least(double a, double b) {
    return a < b ? a : b;
}

// Memory of which every page is there.
static unsigned char *touched(size_t bytes) {
    unsigned char *memory = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    for (size_t i = 0; memory && i < bytes; i += 64) memory[i] = (unsigned char)(i * 2654435761u >> 13);
    return memory;
}

// --- Copies and memory ---

typedef struct copier {
    const unsigned char *from;
    unsigned char *to;
    size_t bytes;
} copier;

static void *copy_all(void *context) {
    const copier *c = context;
    for (size_t at = 0; at < c->bytes; at += COPY_PART)
        memcpy(c->to + at, c->from + at, c->bytes - at < COPY_PART ? c->bytes - at : COPY_PART);
    return NULL;
}

// Seconds for `count` copies beside one another, each on a thread of its own.
static pb_status time_copies(copier *copiers, int count, double *seconds) {
    pthread_t threads[2];
    *seconds = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        int started = 0;
        const double begin = pb_seconds_now();
        while (started < count && !pthread_create(&threads[started], NULL, copy_all, &copiers[started])) started++;
        for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
        *seconds = least(*seconds, pb_seconds_now() - begin);
        if (started < count) return pb_error(PB_ERR_MEMORY, "no thread could be started to copy with");
    }
    return PB_OK;
}

typedef struct triad {
    float *a;
    const float *b, *c;
} triad;

static void run_triad(void *context, int64_t begin, int64_t end, int piece) {
    const triad *t = context;
    (void)piece;
    for (int64_t i = begin; i < end; i++) t->a[i] = t->b[i] + 3 * t->c[i];
}

pb_status pb_bench_copies(size_t bytes, pb_machine *machine) {
    pb_status status = PB_OK;
    double up, down, both, stream = 1e9;
    unsigned char *buffer[4] = {NULL};
    for (int i = 0; i < 4; i++)
        if (!(buffer[i] = touched(bytes))) PB_FAIL(PB_ERR_MEMORY, "no memory to measure in; --quick needs less");
    copier copiers[2] = {{buffer[0], buffer[1], bytes}, {buffer[2], buffer[3], bytes}};
    PB_TRY(time_copies(&copiers[0], 1, &up));
    PB_TRY(time_copies(&copiers[1], 1, &down));
    PB_TRY(time_copies(copiers, 2, &both));
    machine->upload = (double)bytes / up;
    machine->download = (double)bytes / down;
    machine->copy_both = 2 * (double)bytes / both;
    triad t = {(float *)(void *)buffer[0], (const float *)(const void *)buffer[1],
               (const float *)(const void *)buffer[2]};
    memset(buffer[1], 0, bytes);  // numbers, not patterns that may be NaN
    memset(buffer[2], 0, bytes);
    for (int round = 0; round < ROUNDS; round++) {
        const double begin = pb_seconds_now();
        pb_parallel_for((int64_t)(bytes / sizeof(float)), 4096, run_triad, &t);
        stream = least(stream, pb_seconds_now() - begin);
    }
    machine->dram = 3 * (double)bytes / stream;
fail:
    for (int i = 0; i < 4; i++) free(buffer[i]);
    return status;
}

// --- AdamW ---

static void nothing(void *context, int64_t begin, int64_t end, int piece) {
    (void)context;
    (void)begin;
    (void)end;
    (void)piece;
}

pb_status pb_bench_adamw(size_t count, pb_machine *machine) {
    pb_status status = PB_OK;
    float control[PB_CONTROL_COUNT] = {[PB_CONTROL_SCALE] = 1}, hyper[PB_HYPER_COUNT] = {0};
    const pb_shape shape = PB_SHAPE1((int64_t)count);
    unsigned char *memory[4] = {NULL};  // gradient, master, moments
    double seconds = 1e9;
    for (int i = 0; i < 4; i++) {
        if (!(memory[i] = touched(count * 4))) PB_FAIL(PB_ERR_MEMORY, "no memory to measure in; --quick needs less");
        memset(memory[i], 0, count * 4);
    }
    hyper[PB_HYPER_BETA1] = 0.9f;
    hyper[PB_HYPER_BETA2] = 0.999f;
    hyper[PB_HYPER_ONE_MINUS_BETA1] = 0.1f;
    hyper[PB_HYPER_ONE_MINUS_BETA2] = 0.001f;
    hyper[PB_HYPER_EPS] = 1e-8f;
    hyper[PB_HYPER_DECAY] = hyper[PB_HYPER_SQRT_BIAS2] = 1;
    pb_kernel_args args = {.in = {{memory[0], PB_F32, shape},
                                  {control, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT)},
                                  {hyper, PB_F32, PB_SHAPE1(PB_HYPER_COUNT)},
                                  {memory[1], PB_F32, shape},
                                  {memory[2], PB_F32, shape},
                                  {memory[3], PB_F32, shape}},
                           .out = {{memory[1], PB_F32, shape}, {memory[2], PB_F32, shape}, {memory[3], PB_F32, shape}}};
    for (int round = 0; round < ROUNDS; round++) {
        const double begin = pb_seconds_now();
        pb_backend_cpu()->kernels[PB_OP_ADAMW](&args);
        seconds = least(seconds, pb_seconds_now() - begin);
    }
    machine->host_adamw = 28 * (double)count / seconds;
    const double begin = pb_seconds_now();
    for (int i = 0; i < 1000; i++) pb_parallel_for(pb_threads(), 1, nothing, NULL);
    machine->overhead = (pb_seconds_now() - begin) / 1000;
fail:
    for (int i = 0; i < 4; i++) free(memory[i]);
    return status;
}
