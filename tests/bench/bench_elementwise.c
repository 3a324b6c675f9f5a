// bench: links=cpu,base
// Time and memory throughput of the kernels that are no contractions, on shapes of the SD 1.4 UNet at 512 x 512, beside
// a copy of as many bytes. Usage: bench_elementwise [fp32|bf16|fp16 [REPEATS [FILTER]]]
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/parallel.h"
#include "kernels/backend.h"

static pb_dtype storage = PB_F32;
static int repeats = 9;
static const char *filter = "";

// With one thread the processor's time is taken: other processes disturb it less.
static double seconds_now(void) {
    struct timespec t;
    clock_gettime(pb_threads() > 1 ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *buffer(size_t bytes) {
    void *data = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!data) exit(1);
    memset(data, 0, bytes);
    return data;
}

// What was in the caches is not there when a training step comes by again.
static void sweep_caches(void) {
    enum { BYTES = 96 << 20 };
    static char *sweep;
    if (!sweep) sweep = buffer(BYTES);
    memset(sweep, 1, BYTES);
}

static void copy_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    char **halves = context;
    memcpy(halves[0] + begin, halves[1] + begin, (size_t)(end - begin));
}

static double copy_seconds(size_t bytes) {
    char *halves[2] = {buffer(bytes / 2), buffer(bytes / 2)};
    double best = 1e9;
    for (int i = 0; i < repeats; i++) {
        sweep_caches();
        const double start = seconds_now();
        pb_parallel_for((int64_t)bytes / 2, 1 << 16, copy_range, halves);
        const double taken = seconds_now() - start;
        best = taken < best ? taken : best;
    }
    free(halves[0]);
    free(halves[1]);
    return best;
}

static pb_tensor tensor(pb_dtype dtype, pb_shape shape) {
    const size_t count = (size_t)pb_shape_count(shape);
    const pb_tensor t = {buffer(count * pb_dtype_size(dtype)), dtype, shape};
    for (size_t i = 0; i < count; i++) pb_dtype_store(dtype, t.data, i, (double)(i * 2654435761u % 1000) / 500 - 1);
    return t;
}

typedef struct bench {
    pb_opcode op;
    pb_attr attr;
    pb_shape in[PB_MAX_INPUTS], out[PB_MAX_OUTPUTS];
    unsigned fp32_in, fp32_out;  // bit i: argument i is fp32, whatever the storage dtype
} bench;

static void run(const bench *b) {
    const pb_backend *backend = pb_backend_cpu();
    pb_kernel_args args = {.attr = &b->attr};
    size_t bytes = 0;
    char text[64];
    snprintf(text, sizeof text, "%s", pb_op_name(b->op));
    if (!strstr(text, filter)) return;
    for (int i = 0; i < PB_MAX_INPUTS + PB_MAX_OUTPUTS; i++) {
        const bool output = i >= PB_MAX_INPUTS;
        const int k = output ? i - PB_MAX_INPUTS : i;
        const pb_shape shape = output ? b->out[k] : b->in[k];
        if (!shape.rank) continue;
        pb_tensor *t = output ? &args.out[k] : &args.in[k];
        *t = tensor((output ? b->fp32_out : b->fp32_in) >> k & 1 ? PB_F32 : storage, shape);
        bytes += (size_t)pb_shape_count(shape) * pb_dtype_size(t->dtype);
    }
    const pb_kernel_workspace workspace = backend->workspaces[b->op];
    args.workspace = buffer(workspace ? workspace(&args) : 0);
    double best = 1e9;
    for (int i = 0; i < repeats; i++) {
        sweep_caches();
        const double start = seconds_now();
        backend->kernels[b->op](&args);
        const double taken = seconds_now() - start;
        best = taken < best ? taken : best;
    }
    const double copy = copy_seconds(bytes);
    printf("%-16s %4lld x %4lld x %4lld  %8.3f ms  %6.1f GB/s  %.2f of a copy's speed\n", text,
           (long long)b->in[0].dim[0], (long long)(pb_shape_rows(b->in[0]) / b->in[0].dim[0]),
           (long long)pb_shape_last(b->in[0]), 1e3 * best, 1e-9 * (double)bytes / best, copy / best);
    for (int i = 0; i < PB_MAX_INPUTS; i++) free(args.in[i].data);
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) free(args.out[i].data);
    free(args.workspace);
}

static void run_norms(int64_t images, int64_t side, int64_t channels) {
    const pb_shape x = PB_SHAPE4(images, side, side, channels), c = PB_SHAPE1(channels);
    const pb_shape group_stats = PB_SHAPE3(images, 32, 2), rows = PB_SHAPE2(images * side * side, channels);
    const pb_shape row_stats = PB_SHAPE2(images * side * side, 2), wide = PB_SHAPE2(images * side * side, 8 * channels);
    const pb_shape half = PB_SHAPE2(images * side * side, 4 * channels);
    const pb_attr group = {.norm = {1e-5f, 32, true}}, layer = {.norm = {1e-5f, 0, false}};
    const bench table[] = {
        {PB_OP_GROUP_NORM, group, {x, c, c}, {x, group_stats}, 6, 2},
        {PB_OP_GROUP_NORM_BWD, group, {x, x, c, c, group_stats}, {x, c, c}, 28, 6},
        {PB_OP_LAYER_NORM, layer, {rows, c, c}, {rows, row_stats}, 6, 2},
        {PB_OP_LAYER_NORM_BWD, layer, {rows, rows, c, row_stats}, {rows, c, c}, 12, 6},
        {PB_OP_GEGLU, layer, {wide}, {half}, 0, 0},
        {PB_OP_GEGLU_BWD, layer, {half, wide}, {wide}, 0, 0},
        {PB_OP_ADD, layer, {x, x}, {x}, 0, 0},
        {PB_OP_CONCAT, layer, {x, x}, {PB_SHAPE4(images, side, side, 2 * channels)}, 0, 0},
        {PB_OP_SUM_PIXELS, layer, {x}, {PB_SHAPE2(images, channels)}, 0, 0},
        {PB_OP_CAST, layer, {x}, {x}, 0, 1},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) run(&table[i]);
}

int main(int argc, char **argv) {
    if (argc > 1) storage = !strcmp(argv[1], "bf16") ? PB_BF16 : !strcmp(argv[1], "fp16") ? PB_F16 : PB_F32;
    if (argc > 2) repeats = atoi(argv[2]);
    if (argc > 3) filter = argv[3];
    run_norms(1, 64, 320);
    run_norms(2, 32, 640);
    run_norms(1, 8, 1280);
    return 0;
}
