// attention and its gradient: cuDNN's kernels where they are expected to be faster and give the same bits in every run,
// and ours else. Which of them it is follows from op, shape, dtype and GPU, is settled by `prepare`, and never changes
// afterwards. Both keep the same lse, so that one's gradient may follow the other's forward op.
//
// Expected, since nothing here has run on a GPU (tests/gpu/test_gpu_choices.c measures both):
//   forward   cuDNN's kernels load tiles while they multiply, ours do not; and ours have no matrix units for heads
//             beyond 160 channels. cuDNN wants next to no scratch. Below LEAST_WORK ours do: the launch costs as much
//             as the work, and cuDNN takes half a second to compile each shape.
//   gradient  With equal bits in every run, cuDNN's writes the matrix of scores' gradients to memory and reads it
//             again: 4 bytes per score, against 2 of 7 products that ours forms twice. By published figures of
//             bandwidth and of matrix units that pays on sm_90 alone; there where the matrix is within SCRATCH_MOST.
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda_attention_op.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_math.h"
#include "kernels/cuda/cuda_target.h"
#include "kernels/cuda/cudnn_attention.h"

enum { ALIGNMENT = 256 };
#define LEAST_WORK (INT64_C(1) << 30)      // FLOPs of the two products of the forward op
#define SCRATCH_MOST (UINT64_C(32) << 20)  // as for convolutions

static pb_cuda_attention_choice choice = PB_CUDA_ATTENTION_AUTO;

void pb_cuda_attention_choose(pb_cuda_attention_choice c) {
    choice = c;
}

pb_cudnn_attention_shape pb_cuda_attention_shape_of(pb_opcode op, const pb_kernel_args *args) {
    const bool gradient = op == PB_OP_ATTENTION_BWD;
    const pb_shape q = args->in[gradient ? 1 : 0].shape, k = args->in[gradient ? 2 : 1].shape;
    const int64_t images = q.dim[0], heads = args->attr->attention.heads;
    return (pb_cudnn_attention_shape){.gradient = gradient,
                                      .dtype = args->in[0].dtype,
                                      .lse = gradient || args->out[1].shape.rank > 0,
                                      .images = images,
                                      .heads = heads,
                                      .width = pb_shape_last(q) / heads,
                                      .queries = pb_shape_rows(q) / images,
                                      .keys = pb_shape_rows(k) / images};
}

bool pb_cuda_attention_is_cudnns(pb_opcode op, const pb_kernel_args *args, int capability) {
    enum { FIRST = 80, FIRST_GRADIENT = 90, WIDTH = 8 };
    const pb_cudnn_attention_shape s = pb_cuda_attention_shape_of(op, args);
    if (choice == PB_CUDA_ATTENTION_OURS || capability < FIRST || s.dtype == PB_F32 || args->attr->attention.causal ||
        s.width % WIDTH)
        return false;
    if (choice == PB_CUDA_ATTENTION_CUDNNS) return true;
    if (4 * s.images * s.heads * s.queries * s.keys * s.width < LEAST_WORK) return false;
    return !s.gradient || (capability / 10 == FIRST_GRADIENT / 10 && pb_cudnn_attention_scratch(&s) <= SCRATCH_MOST);
}

// --- Scratch: what our kernel wants, which cuDNN's takes for its sums, and then cuDNN's own ---

static uint64_t own_scratch(pb_opcode op, const pb_kernel_args *args) {
    if (op != PB_OP_ATTENTION_BWD) return 0;
    return (pb_cuda_attention_own_bwd_workspace(args) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static uint64_t workspace_of(pb_opcode op, const pb_kernel_args *args) {
    const pb_cudnn_attention_shape s = pb_cuda_attention_shape_of(op, args);
    const bool cudnns = pb_cuda_attention_is_cudnns(op, args, pb_cuda_target_get()->capability);
    return own_scratch(op, args) + (cudnns ? pb_cudnn_attention_scratch(&s) : 0);
}

uint64_t pb_cuda_attention_workspace(const pb_kernel_args *args) {
    return workspace_of(PB_OP_ATTENTION, args);
}

uint64_t pb_cuda_attention_bwd_workspace(const pb_kernel_args *args) {
    return workspace_of(PB_OP_ATTENTION_BWD, args);
}

// --- On a GPU ---

// Of a shape; plan.plan is NULL where cuDNN has none, and our kernels do it.
typedef struct attention_plan {
    pb_cudnn_plan plan;
} attention_plan;

typedef struct attention_call {
    const pb_cudnn_plan *plan;
    pb_cudnn_descriptor pack;
    float scale, one;
} attention_call;

void pb_cuda_attention_plan_destroy(void *value) {
    attention_plan *p = value;
    if (p) pb_cudnn_plan_destroy(&p->plan);
    free(p);
}

void pb_cuda_attention_call_destroy(void *value) {
    attention_call *call = value;
    if (call && call->pack) call->plan->api->destroy_descriptor(call->pack);
    free(call);
}

typedef struct wanted_plan {
    pb_cuda_math *math;
    const pb_cudnn_attention_shape *shape;
    uint64_t scratch;
} wanted_plan;

static pb_status make_plan(const void *context, void **value) {
    const wanted_plan *w = context;
    attention_plan *made = calloc(1, sizeof *made);
    if (!made) return pb_error(PB_ERR_MEMORY, "no memory for attention's plan");
    pb_status status = pb_cuda_math_dnn(w->math);
    const pb_cudnn_place place = {.handle = w->math->dnn_handle};
    if (status == PB_OK)
        status = pb_cudnn_attention_plan_create(w->math->dnn, place, w->shape, (int64_t)w->scratch, &made->plan);
    // Whatever cuDNN has against it, our kernels can do it.
    if (status != PB_OK) pb_error_clear();
    *value = made;
    return PB_OK;
}

typedef struct wanted_call {
    const pb_cudnn_plan *plan;
    const pb_cudnn_attention_shape *shape;
    const pb_kernel_args *args;
    void *scratch;
} wanted_call;

static pb_status make_call(const void *context, void **value) {
    const wanted_call *w = context;
    const pb_tensor *in = w->args->in, *out = w->args->out;
    const bool gradient = w->shape->gradient;
    pb_status status = PB_OK;
    attention_call *call = calloc(1, sizeof *call);
    if (!call) PB_FAIL(PB_ERR_MEMORY, "no memory for a call of attention");
    call->plan = w->plan;
    call->scale = w->args->attr->attention.scale;
    call->one = 1;
    pb_cudnn_attention_pointers p = {.q = in[gradient].data,
                                     .k = in[gradient + 1].data,
                                     .v = in[gradient + 2].data,
                                     .y = gradient ? in[4].data : out[0].data,
                                     .lse = gradient ? in[5].data : out[1].data,
                                     .scale = &call->scale,
                                     .one = &call->one};
    if (gradient) {
        p.dy = in[0].data;
        p.dq = out[0].data;
        p.dk = out[1].data;
        p.dv = out[2].data;
        p.sums = w->args->workspace;
    }
    PB_TRY(pb_cudnn_attention_pack_create(w->plan, w->shape, &p, w->scratch, &call->pack));
    *value = call;
    call = NULL;
fail:
    pb_cuda_attention_call_destroy(call);
    return status;
}

static bool is_whole(const pb_tensor *t, int count) {
    for (int i = 0; i < count; i++)
        if ((uintptr_t)t[i].data % 16) return false;
    return true;
}

// *result: NULL where it is our kernels' to do.
static pb_status find_call(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args, attention_call **result) {
    *result = NULL;
    if (!pb_cuda_attention_is_cudnns(op, args, math->capability)) return PB_OK;
    const pb_tensor *in = args->in, *out = args->out;
    const uint64_t own = own_scratch(op, args);
    if (args->workspace_bytes < own || !is_whole(in, PB_MAX_INPUTS) || !is_whole(out, PB_MAX_OUTPUTS)) return PB_OK;
    pb_cudnn_attention_shape s = pb_cuda_attention_shape_of(op, args);
    s.lse = s.gradient || out[1].data;
    const wanted_plan how = {math, &s, args->workspace_bytes - own};
    const pb_plan_key shape = {
        {s.gradient, s.dtype, s.lse, s.images, s.heads, s.width, s.queries, s.keys, (int64_t)how.scratch}};
    void *found, *call;
    PB_RETURN_IF(pb_plan_cache_get(&math->attentions, &shape, make_plan, &how, pb_cuda_attention_plan_destroy, &found));
    const attention_plan *plan = found;
    if (!plan->plan.plan) return PB_OK;
    const wanted_call w = {&plan->plan, &s, args, args->workspace ? (char *)args->workspace + own : NULL};
    pb_plan_key key = {{(int64_t)(intptr_t)plan, (int64_t)(intptr_t)args->workspace}};
    for (int i = 0; i < 6; i++) key.word[2 + i] = (int64_t)(intptr_t)in[i].data;
    for (int i = 0; i < 3; i++) key.word[8 + i] = (int64_t)(intptr_t)out[i].data;
    memcpy(&key.word[11], &args->attr->attention.scale, sizeof args->attr->attention.scale);
    PB_RETURN_IF(pb_plan_cache_get(&math->attention_calls, &key, make_call, &w, pb_cuda_attention_call_destroy, &call));
    *result = call;
    return PB_OK;
}

pb_status pb_cuda_prepare_attention(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args) {
    attention_call *unused;
    return find_call(math, op, args, &unused);
}

static pb_status run(pb_opcode op, const pb_kernel_args *args, void *stream, pb_cuda_launcher own) {
    pb_cuda_math *math;
    attention_call *call;
    PB_RETURN_IF(pb_cuda_math_of(stream, &math));
    PB_RETURN_IF(find_call(math, op, args, &call));
    return call ? pb_cudnn_plan_run(call->plan, math->dnn_handle, call->pack) : own(args, stream);
}

// in: q k v   out: y lse?
pb_status pb_cuda_attention(const pb_kernel_args *args, void *stream) {
    return run(PB_OP_ATTENTION, args, stream, pb_cuda_attention_own);
}

// in: dy q k v y lse   out: dq dk dv
pb_status pb_cuda_attention_bwd(const pb_kernel_args *args, void *stream) {
    return run(PB_OP_ATTENTION_BWD, args, stream, pb_cuda_attention_own_bwd);
}
