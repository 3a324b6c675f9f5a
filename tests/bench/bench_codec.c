// bench: links=quant,base
// Each codec beside a plain copy of as many bytes, in turns: how near encoding and decoding are to the memory's speed.
// Usage: bench_codec [MILLIONS OF ELEMENTS [REPEATS [INSTRUCTION SET: 0 scalar, 1 AVX2, 2 AVX-512]]]
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/parallel.h"
#include "quant/codecs.h"

static int64_t count;
static float *x, *decoded;
static uint8_t *codes;
static float *scales;
static uint16_t *work;
static void *residual;

// With one thread (taskset -c 0) the processor's time is taken: other processes disturb it less.
static double seconds_now(void) {
    struct timespec t;
    clock_gettime(pb_threads() > 1 ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *buffer(int64_t bytes) {
    void *data = aligned_alloc(4096, ((size_t)bytes + 4095) / 4096 * 4096);
    if (!data) exit(1);
    memset(data, 1, (size_t)bytes);
    return data;
}

static void encode_m(void) {
    pb_encode8(true, x, count, codes, scales);
}
static void encode_v(void) {
    pb_encode8(false, x, count, codes, scales);
}
static void decode_m(void) {
    pb_decode8(true, codes, scales, count, decoded);
}
static void split16(void) {
    pb_split_weights(PB_F16, PB_I16, x, count, work, residual);
}
static void join16(void) {
    pb_join_weights(PB_F16, PB_I16, work, residual, count, decoded);
}
static void split16b(void) {
    pb_split_weights(PB_BF16, PB_I16, x, count, work, residual);
}
static void join16b(void) {
    pb_join_weights(PB_BF16, PB_I16, work, residual, count, decoded);
}
static void split8(void) {
    pb_split_weights(PB_F16, PB_I8, x, count, work, residual);
}
static void join8(void) {
    pb_join_weights(PB_F16, PB_I8, work, residual, count, decoded);
}
static void split8b(void) {
    pb_split_weights(PB_BF16, PB_I8, x, count, work, residual);
}
static void join8b(void) {
    pb_join_weights(PB_BF16, PB_I8, work, residual, count, decoded);
}

static void stochastic_range(void *context, int64_t begin, int64_t end, int piece) {
    (void)context, (void)piece;
    pb_codecs_here()->round_stochastic(&(pb_random_key){1, 2, 3}, begin, x + begin, end - begin, work + begin);
}
static void stochastic(void) {
    pb_parallel_for(count, 32 * 1024, stochastic_range, NULL);
}

// memcpy by all threads; reads and writes `bytes` in all.
static int64_t copied;
static void copy_range(void *context, int64_t begin, int64_t end, int piece) {
    (void)context, (void)piece;
    memcpy((char *)decoded + begin, (char *)x + begin, (size_t)(end - begin));
}
static void copy(void) {
    pb_parallel_for(copied / 2, 128 * 1024, copy_range, NULL);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
        double bytes;  // read and written per element
    } cases[] = {
        {"encode 8-bit, signed", encode_m, 5 + 1.0 / 64},
        {"encode 8-bit, unsigned", encode_v, 5 + 1.0 / 64},
        {"decode 8-bit", decode_m, 5 + 1.0 / 64},
        {"split 16, fp16", split16, 8},
        {"join 16, fp16", join16, 8},
        {"split 16, bf16", split16b, 8},
        {"join 16, bf16", join16b, 8},
        {"split 8, fp16", split8, 7},
        {"join 8, fp16", join8, 7},
        {"split 8, bf16", split8b, 7},
        {"join 8, bf16", join8b, 7},
        {"stochastic bf16", stochastic, 6},
    };
    count = (argc > 1 ? atoi(argv[1]) : 64) * (int64_t)(1 << 20);
    const int repeats = argc > 2 ? atoi(argv[2]) : 5;
    if (argc > 3) pb_cpu_isa_set((pb_isa){(pb_isa_level)atoi(argv[3]), false});
    x = buffer(count * 4), decoded = buffer(count * 4), codes = buffer(count);
    scales = buffer(pb_block8_scales(count) * 4), work = buffer(count * 2), residual = buffer(count * 2);
    uint64_t state = 1;
    for (int64_t i = 0; i < count; i++) {  // eight decades, as moments have them
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(int32_t)(state >> 32) * 0x1p-31f * exp2f(-(float)(state >> 20 & 31));
    }
    printf("%d threads, %.0fM elements, instruction set %d\n", pb_threads(), (double)count / 1e6, pb_cpu_isa().level);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const double bytes = cases[i].bytes * (double)count;
        copied = (int64_t)(bytes / 64) * 64;
        double best = 1e9, best_copy = 1e9;
        for (int r = 0; r < repeats; r++) {
            const double start = seconds_now();
            cases[i].run();
            const double middle = seconds_now();
            copy();
            const double end = seconds_now();
            best = middle - start < best ? middle - start : best;
            best_copy = end - middle < best_copy ? end - middle : best_copy;
        }
        printf("%-24s %6.1f GB/s   copy %6.1f GB/s   %.2f of it\n", cases[i].name, 1e-9 * bytes / best,
               1e-9 * bytes / best_copy, best_copy / best);
    }
    return 0;
}
