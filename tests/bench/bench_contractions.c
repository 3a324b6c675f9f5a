// bench: links=cpu,base
// GFLOP/s of the CPU contractions on the shapes of the SD 1.4 UNet (one image, a latent of SIZE x SIZE), beside
// oneDNN's where that was found when this was built. Usage: bench_contractions [SIZE [fp32|bf16|fp16 [REPEATS
// [FILTER]]]]
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/parallel.h"
#include "kernels/cpu/cpu_kernels.h"
#include "base/isa.h"
#include "rival_dnnl.h"

// With one thread the processor's time is taken: other processes disturb it less.
static double seconds_now(void) {
    struct timespec t;
    clock_gettime(pb_threads() > 1 ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static pb_dtype dtype = PB_F32;
static int repeats = 5;

// As the executor's slab is: on large pages where the system gives them.
static void *allocate(size_t bytes) {
    enum { PAGE = 2 << 20 };
    void *data = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    madvise(data, bytes, MADV_HUGEPAGE);
    return data;
}

// Every buffer is fresh memory with small values, and larger than any cache in sum: the operands of a training step
// come from memory, too.
static pb_tensor tensor(pb_dtype type, pb_shape shape) {
    const size_t count = (size_t)pb_shape_count(shape);
    void *data = allocate(count * pb_dtype_size(type));
    for (size_t i = 0; i < count; i++) pb_dtype_store(type, data, i, (double)(i * 2654435761u % 1000) / 1000 - 0.5);
    return (pb_tensor){data, type, shape};
}

static void sweep_caches(void) {
    static char *sweep;
    enum { BYTES = 48 << 20 };
    if (!sweep) sweep = malloc(BYTES);
    memset(sweep, 1, BYTES);
}

static double time_kernel(pb_kernel kernel, pb_kernel_workspace workspace, pb_kernel_args *args) {
    args->workspace_bytes = workspace(args);
    args->workspace = allocate(args->workspace_bytes + 1);
    memset(args->workspace, 0, args->workspace_bytes);
    double best = 1e9;
    for (int i = 0; i < repeats + 1; i++) {
        sweep_caches();
        const double start = seconds_now();
        kernel(args);
        const double taken = seconds_now() - start;
        if (i && taken < best) best = taken;
    }
    free(args->workspace);
    return best;
}

typedef struct totals {
    double flops[3], ours[3], theirs[3];
} totals;

static void print_row(totals *sum, const char *text, int count, double flops, const double *ours,
                      const double *theirs) {
    printf("%-34s x%-3d", text, count);
    for (int i = 0; i < 3; i++) {
        if (ours[i] <= 0) continue;
        printf("  %7.3f ms %6.1f", ours[i] * 1e3, flops / ours[i] * 1e-9);
        if (theirs[i] > 0) printf(" (%6.1f)", flops / theirs[i] * 1e-9);
        sum->flops[i] += flops * count;
        sum->ours[i] += ours[i] * count;
        sum->theirs[i] += theirs[i] * count;
    }
    printf("\n");
    fflush(stdout);
}

static const char *filter = "";

static void bench_conv(totals *sum, int count, int size, int in, int out, int stride) {
    char text[80];
    snprintf(text, sizeof text, "conv 3x3 %d -> %d at %dx%d%s", in, out, size, size, stride > 1 ? " stride 2" : "");
    if (!strstr(text, filter)) return;
    const int to = (size - 1) / stride + 1;
    const pb_attr attr = {.conv = {3, 3, stride, 1, 1, 1, 1, 0, 0, size, size}};
    const pb_tensor x = tensor(dtype, PB_SHAPE4(1, size, size, in)), w = tensor(dtype, PB_SHAPE4(out, 3, 3, in));
    const pb_tensor b = tensor(PB_F32, PB_SHAPE1(out)), y = tensor(dtype, PB_SHAPE4(1, to, to, out));
    const double flops = 2.0 * to * to * out * 9 * in;
    double ours[3], theirs[3] = {0};
    pb_kernel_args args = {.attr = &attr, .in = {x, w, b}, .out = {y}};
    ours[0] = time_kernel(pb_cpu_conv2d, pb_cpu_conv2d_workspace, &args);
    args = (pb_kernel_args){.attr = &attr, .in = {y, w}, .out = {x}};
    ours[1] = time_kernel(pb_cpu_conv2d_bwd_data, pb_cpu_conv2d_bwd_data_workspace, &args);
    args = (pb_kernel_args){.attr = &attr, .in = {y, x}, .out = {w, b}};
    ours[2] = time_kernel(pb_cpu_conv2d_bwd_weight, pb_cpu_conv2d_bwd_weight_workspace, &args);
    rival_dnnl_conv(dtype, size, in, out, stride, &(rival_run){repeats, sweep_caches, seconds_now}, theirs);
    print_row(sum, text, count, flops, ours, theirs);
    free(x.data), free(w.data), free(b.data), free(y.data);
}

static void bench_linear(totals *sum, int count, int rows, int in, int out) {
    char text[80];
    snprintf(text, sizeof text, "linear %d x %d -> %d", rows, in, out);
    if (!strstr(text, filter)) return;
    const pb_attr attr = {0};
    const pb_tensor x = tensor(dtype, PB_SHAPE2(rows, in)), w = tensor(dtype, PB_SHAPE2(out, in));
    const pb_tensor b = tensor(PB_F32, PB_SHAPE1(out)), y = tensor(dtype, PB_SHAPE2(rows, out));
    const double flops = 2.0 * rows * out * in;
    double ours[3], theirs[3] = {0};
    pb_kernel_args args = {.attr = &attr, .in = {x, w, b}, .out = {y}};
    ours[0] = time_kernel(pb_cpu_linear, pb_cpu_linear_workspace, &args);
    args = (pb_kernel_args){.attr = &attr, .in = {y, w}, .out = {x}};
    ours[1] = time_kernel(pb_cpu_linear_bwd_data, pb_cpu_linear_bwd_data_workspace, &args);
    args = (pb_kernel_args){.attr = &attr, .in = {y, x}, .out = {w, b}};
    ours[2] = time_kernel(pb_cpu_linear_bwd_weight, pb_cpu_linear_bwd_weight_workspace, &args);
    rival_dnnl_linear(dtype, rows, in, out, &(rival_run){repeats, sweep_caches, seconds_now}, theirs);
    print_row(sum, text, count, flops, ours, theirs);
    free(x.data), free(w.data), free(b.data), free(y.data);
}

static void bench_attention(totals *sum, int count, int queries, int keys, int heads, int head) {
    char text[80];
    snprintf(text, sizeof text, "attention %d x %d, %d x %d", queries, keys, heads, head);
    if (!strstr(text, filter)) return;
    const pb_attr attr = {.attention = {heads, false, 0.1f}};
    const pb_tensor q = tensor(dtype, PB_SHAPE3(1, queries, heads * head)),
                    k = tensor(dtype, PB_SHAPE3(1, keys, heads * head));
    const pb_tensor v = tensor(dtype, k.shape), y = tensor(dtype, q.shape),
                    lse = tensor(PB_F32, PB_SHAPE3(1, heads, queries));
    const pb_tensor dq = tensor(dtype, q.shape), dk = tensor(dtype, k.shape), dv = tensor(dtype, k.shape);
    const double flops = 4.0 * queries * keys * heads * head;
    double ours[3] = {0}, theirs[3] = {0};
    pb_kernel_args args = {.attr = &attr, .in = {q, k, v}, .out = {y, lse}};
    ours[0] = time_kernel(pb_cpu_attention, pb_cpu_attention_workspace, &args);
    args = (pb_kernel_args){.attr = &attr, .in = {y, q, k, v, y, lse}, .out = {dq, dk, dv}};
    ours[1] = time_kernel(pb_cpu_attention_bwd, pb_cpu_attention_bwd_workspace, &args) / 2.5;  // of the same FLOPs
    print_row(sum, text, count, flops, ours, theirs);
    free(q.data), free(k.data), free(v.data), free(y.data), free(lse.data), free(dq.data), free(dk.data), free(dv.data);
}

int main(int argc, char **argv) {
    const int s = argc > 1 ? atoi(argv[1]) : 32;
    if (argc > 2) dtype = !strcmp(argv[2], "bf16") ? PB_BF16 : !strcmp(argv[2], "fp16") ? PB_F16 : PB_F32;
    if (argc > 3) repeats = atoi(argv[3]);
    if (argc > 4) filter = argv[4];
    if (argc > 5) {
        static const char *const names[] = {"scalar", "avx2", "avx512"};
        int level = 0;
        while (level < PB_ISA_AVX512 && strcmp(argv[5], names[level])) level++;
        pb_cpu_isa_set((pb_isa){(pb_isa_level)level, false});
    }
    printf("latent %dx%d, %s, %d threads: forward, input gradient, weight gradient; ms, GFLOP/s (oneDNN %s)\n", s, s,
           pb_dtype_name(dtype), pb_threads(), *rival_dnnl_version ? rival_dnnl_version : "not found");
    // {times in the UNet, size divisor, in, out, stride}
    static const int convs[][5] = {
        {1, 1, 4, 320, 1},     {7, 1, 320, 320, 1},    {1, 1, 320, 320, 2},   {1, 2, 320, 640, 1},
        {6, 2, 640, 640, 1},   {1, 2, 640, 640, 2},    {1, 4, 640, 1280, 1},  {6, 4, 1280, 1280, 1},
        {1, 4, 1280, 1280, 2}, {11, 8, 1280, 1280, 1}, {3, 8, 2560, 1280, 1}, {1, 4, 1280, 1280, 1},
        {2, 4, 2560, 1280, 1}, {1, 4, 1920, 1280, 1},  {1, 2, 1280, 1280, 1}, {1, 2, 1920, 640, 1},
        {1, 2, 1280, 640, 1},  {1, 2, 960, 640, 1},    {1, 1, 640, 640, 1},   {1, 1, 960, 320, 1},
        {2, 1, 640, 320, 1},   {1, 1, 320, 4, 1},
    };
    totals conv = {0}, linear = {0}, attention = {0};
    for (size_t i = 0; i < sizeof convs / sizeof *convs; i++)
        bench_conv(&conv, convs[i][0], s / convs[i][1], convs[i][2], convs[i][3], convs[i][4]);
    // {transformer blocks, size divisor, channels}
    static const int blocks[][3] = {{5, 1, 320}, {5, 2, 640}, {5, 4, 1280}, {1, 8, 1280}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        const int n = blocks[i][0], tokens = s / blocks[i][1] * (s / blocks[i][1]), c = blocks[i][2];
        bench_linear(&linear, 8 * n, tokens, c, c);
        bench_linear(&linear, 2 * n, 77, 768, c);
        bench_linear(&linear, n, tokens, c, 8 * c);
        bench_linear(&linear, n, tokens, 4 * c, c);
        bench_attention(&attention, n, tokens, tokens, 8, c / 8);
        bench_attention(&attention, n, tokens, 77, 8, c / 8);
    }
    const totals *all[] = {&conv, &linear, &attention};
    for (int t = 0; t < 3; t++) {
        static const char *const names[] = {"convolutions", "linears", "attention (gradient by 2.5)"};
        printf("%s:", names[t]);
        for (int i = 0; i < 3; i++) {
            if (all[t]->ours[i] <= 0) continue;
            printf("  %.1f ms, %.1f GFLOP/s", all[t]->ours[i] * 1e3, all[t]->flops[i] / all[t]->ours[i] * 1e-9);
            if (all[t]->theirs[i] > 0) printf(" (oneDNN %.1f ms)", all[t]->theirs[i] * 1e3);
        }
        printf("\n");
    }
    return 0;
}
