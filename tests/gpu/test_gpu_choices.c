// test: links=cuda,cpu,base timeout=600
// Where there are two kernels for one op, both on the same arguments: cuDNN's attention and ours, on the shapes of SD
// 1.4, 2.1 and SDXL. They must agree, each with itself to the bit; the seconds are printed, and which of the two is
// chosen (kernels/cuda/cuda_attention_op.c). Skipped without a GPU.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "kernels/cuda/cuda_attention_op.h"
#include "kernels/cuda/cuda_target.h"
#include "support_gpu.h"

enum { LAUNCHES = 8, RUNS = 3, ALIGNMENT = 256 };

typedef struct geometry {
    const char *model;
    int images, heads, width, queries, keys;
} geometry;

static const geometry geometries[] = {
#ifdef PB_REHEARSAL
    {"tiny", 1, 2, 16, 20, 7},
    {"tiny", 2, 1, 8, 9, 9},
#else
    {"sd14", 1, 8, 40, 4096, 4096},  {"sd14", 4, 8, 40, 4096, 4096},  {"sd14", 1, 8, 40, 4096, 77},
    {"sd14", 4, 8, 40, 4096, 77},    {"sd14", 1, 8, 80, 1024, 1024},  {"sd14", 4, 8, 80, 1024, 1024},
    {"sd14", 4, 8, 80, 1024, 77},    {"sd14", 4, 8, 160, 256, 256},   {"sd14", 4, 8, 160, 64, 64},
    {"sd21", 1, 5, 64, 9216, 9216},  {"sd21", 1, 10, 64, 2304, 2304}, {"sdxl", 1, 10, 64, 4096, 4096},
    {"sdxl", 1, 20, 64, 1024, 1024}, {"vae", 1, 1, 512, 4096, 4096},
#endif
};

static gpu card;

// A device tensor at the slab's next free place. False where there is none left.
static bool place(uint64_t *used, pb_tensor *t) {
    const uint64_t bytes = (uint64_t)pb_shape_count(t->shape) * pb_dtype_size(t->dtype);
    t->data = card.slab + *used;
    *used = (*used + bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return *used <= card.bytes;
}

// Numbers of a normal distribution's size, the same in every run.
static void fill(const pb_tensor *t, uint32_t seed) {
    const int64_t count = pb_shape_count(t->shape);
    uint16_t *x = malloc((size_t)count * sizeof *x);
    if (!x) abort();
    for (int64_t i = 0; i < count; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++) {
            seed = seed * 1664525u + 1013904223u;
            sum += (float)(seed >> 8) / 0x1p24f - 0.5f;
        }
        x[i] = pb_f16_from_f32(1.7f * sum);
    }
    CHECK_OK(card.backend->device->write(card.device, t->data, x, (uint64_t)count * sizeof *x));
    free(x);
}

static unsigned char *read_back(const pb_tensor *t) {
    const uint64_t bytes = (uint64_t)pb_shape_count(t->shape) * pb_dtype_size(t->dtype);
    unsigned char *x = malloc(bytes);
    if (!x) abort();
    CHECK_OK(card.backend->device->read(card.device, x, t->data, bytes));
    return x;
}

// Seconds of one launch, the least of some runs.
static double time_op(pb_opcode op, const pb_kernel_args *args) {
    const pb_device_calls *calls = card.backend->device;
    pb_opcode ops[LAUNCHES];
    const pb_kernel_args *list[LAUNCHES];
    pb_captured *captured = NULL;
    double least = INFINITY;
    for (int i = 0; i < LAUNCHES; i++) {
        ops[i] = op;
        list[i] = args;
    }
    CHECK_OK(calls->capture(card.device, LAUNCHES, ops, list, &captured));
    for (int run = 0; captured && run < RUNS + 1; run++) {
        double begin = 0, end = 0;
        CHECK_OK(calls->time(card.device, PB_LANE_COMPUTE, &begin, &end));
        CHECK_OK(calls->replay(card.device, captured));
        CHECK_OK(calls->synchronize(card.device));
        if (run > 0 && end - begin < least) least = end - begin;
    }
    calls->captured_release(card.device, captured);
    return least / LAUNCHES;
}

// Results by one of the two, twice: the same bits. `out`: copies of the outputs. Whether there was room.
static bool run_by(pb_cuda_attention_choice choice, pb_opcode op, pb_kernel_args *args, uint64_t used, int outputs,
                   unsigned char *out[3], double *seconds) {
    const pb_device_calls *calls = card.backend->device;
    pb_cuda_attention_choose(choice);
    const pb_kernel_workspace query = card.backend->workspaces[op];
    args->workspace_bytes = query ? query(args) : 0;
    args->workspace = args->workspace_bytes ? card.slab + used : NULL;
    if (used + args->workspace_bytes > card.bytes) return false;
    CHECK_OK(calls->prepare(card.device, PB_LANE_COMPUTE, op, args));
    for (int run = 0; run < 2; run++) {
        CHECK_OK(calls->run(card.device, PB_LANE_COMPUTE, op, args));
        CHECK_OK(calls->synchronize(card.device));
        for (int i = 0; i < outputs; i++) {
            unsigned char *now = read_back(&args->out[i]);
            if (run == 0) {
                out[i] = now;
                continue;
            }
            const uint64_t bytes = (uint64_t)pb_shape_count(args->out[i].shape) * pb_dtype_size(args->out[i].dtype);
            CHECK_THAT(memcmp(now, out[i], bytes) == 0, "%s, %s: other bits in a second run", pb_op_name(op),
                       choice == PB_CUDA_ATTENTION_OURS ? "ours" : "cuDNN's");
            free(now);
        }
    }
    *seconds = time_op(op, args);
    return true;
}

// Mean square of the difference, over that of `expected`.
static double difference(const pb_tensor *t, const unsigned char *got, const unsigned char *expected) {
    double squares = 0, all = 1e-30;
    for (int64_t i = 0; i < pb_shape_count(t->shape); i++) {
        const double x =
            t->dtype == PB_F32 ? (double)((const float *)got)[i] : (double)pb_f16_to_f32(((const uint16_t *)got)[i]);
        const double y = t->dtype == PB_F32 ? (double)((const float *)expected)[i]
                                            : (double)pb_f16_to_f32(((const uint16_t *)expected)[i]);
        squares += (x - y) * (x - y);
        all += y * y;
    }
    return squares / all;
}

static void compare(const geometry *g, pb_opcode op, pb_kernel_args *args, uint64_t used, int outputs) {
    unsigned char *ours[3] = {NULL}, *theirs[3] = {NULL};
    double our_seconds = 0, their_seconds = 0;
    char what[96];
    snprintf(what, sizeof what, "%s %s batch %d, %d heads of %d, %d x %d", pb_op_name(op), g->model, g->images,
             g->heads, g->width, g->queries, g->keys);
    if (!run_by(PB_CUDA_ATTENTION_OURS, op, args, used, outputs, ours, &our_seconds) ||
        !run_by(PB_CUDA_ATTENTION_CUDNNS, op, args, used, outputs, theirs, &their_seconds)) {
        printf("choice: %s: no room for the matrix that cuDNN's keeps\n", what);
    } else {
        for (int i = 0; i < outputs; i++) {
            const double off = difference(&args->out[i], theirs[i], ours[i]);
            CHECK_THAT(off < 1e-4, "%s: output %d is off by %g", what, i, off);
        }
        pb_cuda_attention_choose(PB_CUDA_ATTENTION_AUTO);
        const bool chosen = pb_cuda_attention_is_cudnns(op, args, pb_cuda_target_get()->capability);
        printf("choice: %s: ours %.1f us, cuDNN's %.1f us, ratio %.2f, chosen: %s\n", what, our_seconds * 1e6,
               their_seconds * 1e6, our_seconds / their_seconds, chosen ? "cuDNN's" : "ours");
        fflush(stdout);
    }
    for (int i = 0; i < 3; i++) {
        free(ours[i]);
        free(theirs[i]);
    }
}

static void check(const geometry *g) {
    const pb_shape q = PB_SHAPE3(g->images, g->queries, g->heads * g->width),
                   k = PB_SHAPE3(g->images, g->keys, g->heads * g->width);
    const pb_attr attr = {.attention = {g->heads, false, 1 / sqrtf((float)g->width)}};
    static pb_kernel_args forward, backward;  // stay valid, as the device wants them
    forward = (pb_kernel_args){.attr = &attr,
                               .in = {{NULL, PB_F16, q}, {NULL, PB_F16, k}, {NULL, PB_F16, k}},
                               .out = {{NULL, PB_F16, q}, {NULL, PB_F32, PB_SHAPE3(g->images, g->heads, g->queries)}}};
    pb_tensor dy = {NULL, PB_F16, q}, dq = {NULL, PB_F16, q}, dk = {NULL, PB_F16, k}, dv = {NULL, PB_F16, k};
    uint64_t used = 0;
    bool fits = place(&used, &dy) && place(&used, &dq) && place(&used, &dk) && place(&used, &dv);
    for (int i = 0; i < 3; i++) fits = fits && place(&used, &forward.in[i]);
    for (int i = 0; i < 2; i++) fits = fits && place(&used, &forward.out[i]);
    CHECK(fits);
    if (!fits) return;
    fill(&dy, 1);
    for (int i = 0; i < 3; i++) fill(&forward.in[i], (uint32_t)(2 + i));
    compare(g, PB_OP_ATTENTION, &forward, used, 2);
    // Behind either forward op, whose y and lse are what the other's would be.
    backward = (pb_kernel_args){.attr = &attr,
                                .in = {dy, forward.in[0], forward.in[1], forward.in[2], forward.out[0], forward.out[1]},
                                .out = {dq, dk, dv}};
    compare(g, PB_OP_ATTENTION_BWD, &backward, used, 3);
}

int main(void) {
#ifdef PB_REHEARSAL
    const uint64_t bytes = UINT64_C(4) << 20;
#else
    const uint64_t bytes = UINT64_C(1536) << 20;
#endif
    if (!gpu_open(&card, bytes)) return 77;
    for (size_t i = 0; i < sizeof geometries / sizeof *geometries; i++) check(&geometries[i]);
    gpu_close(&card);
    return CHECK_DONE();
}
