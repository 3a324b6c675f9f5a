// bench: links=cpu,base
// AdamW beside a kernel that moves the same four reads and three writes and computes next to nothing: how near the
// optimizer is to the memory's speed. Usage: bench_adamw [MILLIONS OF PARAMETERS [REPEATS]]
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/parallel.h"
#include "kernels/backend.h"

typedef float lanes __attribute__((vector_size(64)));  // a cache line
typedef struct streams {
    const lanes *g;
    lanes *state[3];
} streams;

// With one thread the processor's time is taken: other processes disturb it less.
static double seconds_now(void) {
    struct timespec t;
    clock_gettime(pb_threads() > 1 ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

__attribute__((target_clones("avx512f", "avx2", "default"))) static void stream_range(void *context, int64_t begin,
                                                                                      int64_t end, int thread) {
    (void)thread;
    const streams s = *(const streams *)context;
    for (int64_t i = begin; i < end; i++) {
        const lanes g = s.g[i], p = s.state[0][i], m = s.state[1][i], v = s.state[2][i];
        s.state[0][i] = p + g;
        s.state[1][i] = m + g;
        s.state[2][i] = v + g;
    }
}

// At whole multiples of 2 MiB. Four blocks of malloc's lie 128 MiB and a page apart, and of such addresses Zen
// processors take one for the other when they guess the way of the first cache: everything is 2 to 6 times slower.
static void *buffer(int64_t bytes) {
    void *data = aligned_alloc(2 << 20, (size_t)bytes);
    if (!data) exit(1);
    memset(data, 0, (size_t)bytes);
    return data;
}

int main(int argc, char **argv) {
    const int64_t count = (argc > 1 ? atoi(argv[1]) : 64) * (int64_t)(1 << 20);
    const int repeats = argc > 2 ? atoi(argv[2]) : 7;
    const int64_t lane_count = (int64_t)(sizeof(lanes) / sizeof(float));
    float hyper[PB_HYPER_COUNT] = {
        [PB_HYPER_BETA2] = 0.999f,          [PB_HYPER_EPS] = 1e-8f,    [PB_HYPER_DECAY] = 1,
        [PB_HYPER_STEP_SIZE] = 1e-5f,       [PB_HYPER_SQRT_BIAS2] = 1, [PB_HYPER_ONE_MINUS_BETA1] = 0.1f,
        [PB_HYPER_ONE_MINUS_BETA2] = 0.001f};
    float control[PB_CONTROL_COUNT] = {[PB_CONTROL_SCALE] = 1};
    streams s = {.g = buffer(count * 4)};
    pb_kernel_args args = {.in = {{(void *)s.g, PB_F32, PB_SHAPE1(count)},
                                  {control, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT)},
                                  {hyper, PB_F32, PB_SHAPE1(PB_HYPER_COUNT)}}};
    for (int k = 0; k < 3; k++) {
        s.state[k] = buffer(count * 4);
        args.in[3 + k] = args.out[k] = (pb_tensor){s.state[k], PB_F32, PB_SHAPE1(count)};
    }
    double stream = 1e9, adamw = 1e9;
    for (int i = 0; i < repeats; i++) {
        double start = seconds_now();
        pb_parallel_for(count / lane_count, 4096, stream_range, &s);
        stream = seconds_now() - start < stream ? seconds_now() - start : stream;
        start = seconds_now();
        pb_backend_cpu()->kernels[PB_OP_ADAMW](&args);
        adamw = seconds_now() - start < adamw ? seconds_now() - start : adamw;
    }
    const double bytes = 28.0 * (double)count;
    printf("%d threads, %.0fM parameters: stream %.1f GB/s, AdamW %.1f GB/s, %.2f of the stream's speed\n",
           pb_threads(), (double)count / 1e6, 1e-9 * bytes / stream, 1e-9 * bytes / adamw, stream / adamw);
    return 0;
}
