// bench: links=cpu,base
// AdamW beside a kernel that moves the same reads and writes and computes next to nothing: how near the optimizer is to
// the memory's speed, with fp32 state and with state in fewer bytes. Usage: bench_adamw [MILLIONS OF PARAMETERS
// [REPEATS]]
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

// A format's arrays; `work` is F32 where there is none. The gradient is bf16, except beside a state without a 16-bit
// weight.
typedef struct format {
    const char *name;
    pb_dtype gradient, master, work, moments;
} format;

static const format formats[] = {
    {"8-bit moments, fp32 weight", PB_F32, PB_F32, PB_F32, PB_U8},
    {"8-bit moments, fp32 master, bf16", PB_BF16, PB_F32, PB_BF16, PB_U8},
    {"8-bit moments, split16, bf16", PB_BF16, PB_I16, PB_BF16, PB_U8},
    {"8-bit moments, split8, fp16", PB_BF16, PB_I8, PB_F16, PB_U8},
    {"8-bit moments, no master", PB_BF16, PB_BF16, PB_F32, PB_U8},
    {"16-bit moments, fp32 master, bf16", PB_BF16, PB_F32, PB_BF16, PB_BF16},
    {"16-bit moments, no master", PB_BF16, PB_BF16, PB_F32, PB_BF16},
};

// Reads and writes what a format's step does: what is written has been read, but for a working copy beside an fp32
// master.
typedef struct places {
    lanes *gradient, *master, *moments[2], *work;
    int bytes[3], work_bytes;  // per parameter: gradient, master, a moment; work
    bool work_is_read;
} places;

__attribute__((target_clones("avx512f", "avx2", "default"))) static void places_range(void *context, int64_t begin,
                                                                                      int64_t end, int thread) {
    (void)thread;
    const places p = *(const places *)context;  // an index is 64 parameters: as many lines as an element has bytes
    for (int64_t i = begin; i < end; i++) {
        lanes sum = p.gradient[i * p.bytes[0]];
        for (int b = 1; b < p.bytes[0]; b++) sum += p.gradient[i * p.bytes[0] + b];
        for (int b = 0; b < p.bytes[1]; b++) p.master[i * p.bytes[1] + b] += sum;
        for (int b = 0; b < p.bytes[2]; b++) p.moments[0][i * p.bytes[2] + b] += sum;
        for (int b = 0; b < p.bytes[2]; b++) p.moments[1][i * p.bytes[2] + b] += sum;
        for (int b = 0; b < p.work_bytes; b++)
            p.work[i * p.work_bytes + b] = p.work_is_read ? p.work[i * p.work_bytes + b] + sum : sum;
    }
}

static void bench_formats(int64_t count, int repeats, float *hyper, float *control, const lanes *gradient) {
    void *master = buffer(count * 4), *work = buffer(count * 2), *moments[2] = {buffer(count * 2), buffer(count * 2)};
    void *scales[2] = {buffer(count / 64), buffer(count / 64)};
    for (size_t k = 0; k < sizeof formats / sizeof *formats; k++) {
        const format *f = &formats[k];
        pb_attr attr = {.adamw = {.stream = 1}};
        pb_kernel_args args = {.attr = &attr,
                               .in = {{(void *)gradient, f->gradient, PB_SHAPE1(count)},
                                      {control, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT)},
                                      {hyper, PB_F32, PB_SHAPE1(PB_HYPER_COUNT)}}};
        const bool split = f->master == PB_I16 || f->master == PB_I8, has_work = f->work != PB_F32;
        args.in[PB_ADAMW_MASTER] = args.out[PB_ADAMW_NEW_MASTER] = (pb_tensor){master, f->master, PB_SHAPE1(count)};
        for (int m = 0; m < 2; m++) {
            args.in[PB_ADAMW_M + m] = args.out[PB_ADAMW_NEW_M + m] =
                (pb_tensor){moments[m], f->moments, PB_SHAPE1(count)};
            if (f->moments == PB_U8)
                args.in[PB_ADAMW_M_SCALES + m] = args.out[PB_ADAMW_NEW_M_SCALES + m] =
                    (pb_tensor){scales[m], PB_F32, PB_SHAPE1(count / 256)};
        }
        if (has_work) args.out[PB_ADAMW_NEW_WORK] = (pb_tensor){work, f->work, PB_SHAPE1(count)};
        if (split) args.in[PB_ADAMW_WORK] = args.out[PB_ADAMW_NEW_WORK];
        places p = {
            .gradient = (lanes *)gradient,
            .master = master,
            .moments = {moments[0], moments[1]},
            .work = work,
            .bytes = {(int)pb_dtype_size(f->gradient), (int)pb_dtype_size(f->master), (int)pb_dtype_size(f->moments)},
            .work_bytes = has_work ? 2 : 0,
            .work_is_read = split};
        const double bytes = p.bytes[0] + 2 * p.bytes[1] + 4 * p.bytes[2] + (split ? 2 : 1) * p.work_bytes;
        double stream = 1e9, adamw = 1e9;
        for (int i = 0; i < repeats; i++) {
            double start = seconds_now();
            pb_parallel_for(count / 64, 512, places_range, &p);
            stream = seconds_now() - start < stream ? seconds_now() - start : stream;
            // Numbers again, of usual sizes.
            memset(master, 0x3c, (size_t)(count * p.bytes[1]));
            for (int m = 0; m < 2; m++) {
                memset(moments[m], f->moments == PB_U8 ? 0xa5 : 0x3c, (size_t)(count * p.bytes[2]));
                for (int64_t j = 0; j < count / 256; j++) ((float *)scales[m])[j] = 1e-3f;
            }
            start = seconds_now();
            pb_backend_cpu()->kernels[PB_OP_ADAMW](&args);
            adamw = seconds_now() - start < adamw ? seconds_now() - start : adamw;
        }
        printf("%-36s %2.0f bytes: stream %5.1f GB/s, AdamW %5.1f GB/s, %.2f of the stream's speed, %.3f ns\n", f->name,
               bytes, 1e-9 * bytes * (double)count / stream, 1e-9 * bytes * (double)count / adamw, stream / adamw,
               1e9 * adamw / (double)count);
    }
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
    bench_formats(count, repeats, hyper, control, s.g);
    const double bytes = 28.0 * (double)count;
    printf("%d threads, %.0fM parameters: stream %.1f GB/s, AdamW %.1f GB/s, %.2f of the stream's speed\n",
           pb_threads(), (double)count / 1e6, 1e-9 * bytes / stream, 1e-9 * bytes / adamw, stream / adamw);
    return 0;
}
