// bench: links=quant,base
// Each codec beside a plain copy of as many bytes, and beside a loop that reads and writes where the codec does but
// computes next to nothing, in turns: how near encoding and decoding are to the memory's speed. A copy reads and
// writes by halves; what reads four bytes and writes one is another load on the memory, so it takes both.
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

// At whole multiples of 2 MiB: bench_adamw.c says why.
static void *buffer(int64_t bytes) {
    const size_t page = 2 << 20;
    void *data = aligned_alloc(page, ((size_t)bytes + page - 1) / page * page);
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

// Reads and writes, per 32 elements, as many vectors as elements have bytes.
typedef uint32_t vector __attribute__((vector_size(32), may_alias));
typedef struct stream {
    const vector *in[2];
    vector *out[2];
    int bytes[3];  // as in the cases below
} stream;

static inline __attribute__((always_inline)) void move(const stream *s, int64_t i, int r0, int r1, int w0, int w1) {
    vector sum = {0};
    for (int b = 0; b < r0; b++) sum ^= s->in[0][i * r0 + b];
    for (int b = 0; b < r1; b++) sum ^= s->in[1][i * r1 + b];
    for (int b = 0; b < w0; b++) s->out[0][i * w0 + b] = sum;
    for (int b = 0; b < w1; b++) s->out[1][i * w1 + b] = sum;
}

__attribute__((target_clones("avx2", "default"))) static void stream_range(void *context, int64_t begin, int64_t end,
                                                                           int piece) {
    (void)piece;
    const stream s = *(const stream *)context;
    const int second = s.bytes[2];
#define EACH(r0, r1, w0, w1) \
    for (int64_t i = begin; i < end; i++) move(&s, i, r0, r1, w0, w1)
    if (s.bytes[0] > 0 && s.bytes[1] == 1)
        EACH(4, 0, 1, 0);
    else if (s.bytes[0] > 0 && second == 2)
        EACH(4, 0, 2, 2);
    else if (s.bytes[0] > 0 && second == 1)
        EACH(4, 0, 2, 1);
    else if (s.bytes[0] > 0)
        EACH(4, 0, 2, 0);
    else if (s.bytes[1] == 1)
        EACH(1, 0, 4, 0);
    else if (second == 2)
        EACH(2, 2, 4, 0);
    else
        EACH(2, 1, 4, 0);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
        double bytes;     // read and written per element
        int of_parts[3];  // 4 if floats are read, else -4; bytes of an element in the one or two other arrays
    } cases[] = {
        {"encode 8-bit, signed", encode_m, 5 + 1.0 / 64, {4, 1, 0}},
        {"encode 8-bit, unsigned", encode_v, 5 + 1.0 / 64, {4, 1, 0}},
        {"decode 8-bit", decode_m, 5 + 1.0 / 64, {-4, 1, 0}},
        {"split 16, fp16", split16, 8, {4, 2, 2}},
        {"join 16, fp16", join16, 8, {-4, 2, 2}},
        {"split 16, bf16", split16b, 8, {4, 2, 2}},
        {"join 16, bf16", join16b, 8, {-4, 2, 2}},
        {"split 8, fp16", split8, 7, {4, 2, 1}},
        {"join 8, fp16", join8, 7, {-4, 2, 1}},
        {"split 8, bf16", split8b, 7, {4, 2, 1}},
        {"join 8, bf16", join8b, 7, {-4, 2, 1}},
        {"stochastic bf16", stochastic, 6, {4, 2, 0}},
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
        const int *of_parts = cases[i].of_parts;
        void *const parts[2] = {of_parts[1] == 1 ? (void *)codes : (void *)work, residual};
        stream s = {.in = {of_parts[0] > 0 ? (void *)x : parts[0], parts[1]},
                    .out = {of_parts[0] > 0 ? parts[0] : (void *)decoded, parts[1]},
                    .bytes = {of_parts[0], of_parts[1], of_parts[2]}};
        double best = 1e9, best_copy = 1e9, best_stream = 1e9;
        for (int r = 0; r < repeats; r++) {
            const double start = seconds_now();
            cases[i].run();
            const double middle = seconds_now();
            copy();
            const double end = seconds_now();
            pb_parallel_for(count / 32, 1024, stream_range, &s);
            const double last = seconds_now();
            best_stream = last - end < best_stream ? last - end : best_stream;
            best = middle - start < best ? middle - start : best;
            best_copy = end - middle < best_copy ? end - middle : best_copy;
        }
        printf("%-24s %6.1f GB/s   copy %6.1f GB/s   %.2f of it   same places %6.1f GB/s   %.2f of it\n", cases[i].name,
               1e-9 * bytes / best, 1e-9 * bytes / best_copy, best_copy / best, 1e-9 * bytes / best_stream,
               best_stream / best);
    }
    return 0;
}
