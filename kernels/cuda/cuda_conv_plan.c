// What is settled about convolutions before they run: scratch sizes for the planner, which needs no GPU, and on a GPU
// cuDNN's plans and the pointers of each call.
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda_conv.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_linear.h"
#include "kernels/cuda/cuda_target.h"

enum { ALIGNMENT = 256 };

bool pb_conv_resizes(const pb_attr *attr) {
    return attr->conv.up_h || attr->conv.up_w;
}

pb_conv_tensors pb_conv_tensors_of(pb_opcode op, const pb_kernel_args *args) {
    const pb_tensor *in = args->in, *out = args->out;
    switch (op) {
    case PB_OP_CONV2D: return (pb_conv_tensors){PB_CONV_FORWARD, &in[0], &in[1], &out[0], &in[4]};
    case PB_OP_CONV2D_BWD_DATA: return (pb_conv_tensors){PB_CONV_BACKWARD_DATA, &out[0], &in[1], &in[0], &in[2]};
    default: return (pb_conv_tensors){PB_CONV_BACKWARD_FILTER, &in[1], &out[0], &in[0], NULL};
    }
}

pb_conv_shape pb_conv_shape_of(pb_opcode op, const pb_kernel_args *args) {
    const pb_attr *attr = args->attr;
    const pb_conv_tensors t = pb_conv_tensors_of(op, args);
    const bool addend = t.addend && t.addend->shape.rank > 0;
    return (pb_conv_shape){
        .kind = t.kind,
        .dtype = t.y->dtype,
        .n = t.y->shape.dim[0],
        .h = pb_conv_resizes(attr) ? attr->conv.up_h : t.x->shape.dim[1],
        .w = pb_conv_resizes(attr) ? attr->conv.up_w : t.x->shape.dim[2],
        .c = t.x->shape.dim[3],
        .k = t.y->shape.dim[3],
        .kh = attr->conv.kh,
        .kw = attr->conv.kw,
        .oh = t.y->shape.dim[1],
        .ow = t.y->shape.dim[2],
        .stride = attr->conv.stride,
        .top = attr->conv.pad_top,
        .left = attr->conv.pad_left,
        .bottom = attr->conv.pad_bottom,
        .right = attr->conv.pad_right,
        // Where a gradient is summed over resized pixels, the addend joins that sum instead.
        .accumulate = addend && !(t.kind == PB_CONV_BACKWARD_DATA && pb_conv_resizes(attr)),
    };
}

uint64_t pb_conv_resized_bytes(const pb_attr *attr, const pb_conv_shape *s) {
    if (!pb_conv_resizes(attr)) return 0;
    const uint64_t bytes = (uint64_t)(s->n * s->h * s->w * s->c) * pb_dtype_size(s->dtype);
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

pb_plan_key pb_conv_key(const pb_conv_shape *s) {
    return (pb_plan_key){{s->kind, s->dtype, s->n, s->h, s->w, s->c, s->k, s->kh, s->kw, s->oh, s->ow, s->stride,
                          s->top, s->left, s->bottom, s->right, s->accumulate}};
}

// --- For the planner ---

static struct {
    pb_cuda_target target;  // that the rest is for
    bool begun;
    pb_status refused;  // by cuDNN, which is not asked again for this target
    const pb_cudnn_api *api;
    cudnnBackendDescriptor_t properties;
    pb_plan_cache facts;  // pb_cuda_conv_facts by shape
} planning;

// A GPU that is here cuDNN may look at by itself: what it wants to know of one differs from version to version.
static pb_status find_properties(const pb_cuda_target *target) {
    char json[1024];
    PB_RETURN_IF(pb_cudnn_load(&planning.api));
    if (target->ordinal >= 0) {
        if (pb_cudnn_properties_of(planning.api, target->ordinal, &planning.properties) == PB_OK) return PB_OK;
        pb_error_clear();
    }
    pb_cuda_target_json(target, json, sizeof json);
    return pb_cudnn_properties_create(planning.api, json, &planning.properties);
}

static pb_status begin_planning(void) {
    const pb_cuda_target *target = pb_cuda_target_get();
    if (planning.begun && memcmp(target, &planning.target, sizeof *target) == 0)
        return planning.refused ? pb_error(planning.refused, "cuDNN plans for no such GPU") : PB_OK;
    if (planning.properties) planning.api->destroy_descriptor(planning.properties);
    planning.properties = NULL;
    pb_plan_cache_deinit(&planning.facts, free);
    planning.target = *target;
    planning.begun = true;
    planning.refused = find_properties(target);
    return planning.refused;
}

// Makes the plan, keeps what it is like, and lets it go.
static pb_status learn(const void *shape, void **value) {
    pb_status status = PB_OK;
    pb_cudnn_plan plan = {0};
    pb_cuda_conv_facts *facts = calloc(1, sizeof *facts);
    if (!facts) PB_FAIL(PB_ERR_MEMORY, "no memory for the sizes of convolutions");
    const pb_cudnn_place place = {.properties = planning.properties};
    PB_TRY(pb_cudnn_conv_plan_create(planning.api, place, shape, PB_CUDA_CONV_SCRATCH_MOST, &plan));
    *facts = (pb_cuda_conv_facts){
        .scratch = (uint64_t)plan.workspace_bytes, .tensor_core = plan.tensor_core, .rank = plan.rank};
    *value = facts;
    facts = NULL;
fail:
    pb_cudnn_plan_destroy(&plan);
    free(facts);
    return status;
}

pb_status pb_cuda_conv_look_up(pb_opcode op, const pb_kernel_args *args, pb_cuda_conv_facts *facts, bool *asked) {
    *asked = false;
    if (pb_cuda_is_pixelwise(args->attr)) {
        const int capability = pb_cuda_target_get()->capability;
        *facts = (pb_cuda_conv_facts){.scratch = pb_cuda_gemm_scratch(capability), .product = true};
        return PB_OK;
    }
    PB_RETURN_IF(begin_planning());
    *asked = true;
    const pb_conv_shape shape = pb_conv_shape_of(op, args);
    const pb_plan_key key = pb_conv_key(&shape);
    void *found;
    PB_RETURN_IF(pb_plan_cache_get(&planning.facts, &key, learn, &shape, free, &found));
    memcpy(facts, found, sizeof *facts);
    return PB_OK;
}

static uint64_t workspace_of(pb_opcode op, const pb_kernel_args *args) {
    if (pb_cuda_is_pixelwise(args->attr)) {
        const pb_cuda_gemm g = pb_cuda_gemm_of(op, args);
        return pb_cuda_gemm_workspace(&g, pb_cuda_target_get()->capability);
    }
    const pb_conv_shape shape = pb_conv_shape_of(op, args);
    pb_cuda_conv_facts facts;
    bool asked;
    if (pb_cuda_conv_look_up(op, args, &facts, &asked) != PB_OK) {
        pb_error_clear();
        facts.scratch = pb_cuda_conv_scratch_unasked(pb_cuda_target_get()->capability, shape.dtype == PB_F32);
    }
    return pb_conv_resized_bytes(args->attr, &shape) + facts.scratch;
}

uint64_t pb_cuda_conv2d_workspace(const pb_kernel_args *args) {
    return workspace_of(PB_OP_CONV2D, args);
}

uint64_t pb_cuda_conv2d_bwd_data_workspace(const pb_kernel_args *args) {
    return workspace_of(PB_OP_CONV2D_BWD_DATA, args);
}

uint64_t pb_cuda_conv2d_bwd_weight_workspace(const pb_kernel_args *args) {
    const pb_shape dy = args->in[0].shape;
    const uint64_t product = workspace_of(PB_OP_CONV2D_BWD_WEIGHT, args);
    const uint64_t sums = pb_cuda_column_sums_workspace(1, pb_shape_rows(dy), pb_shape_last(dy));
    return product > sums ? product : sums;
}

pb_status pb_cuda_conv_supported(pb_opcode op, const pb_kernel_args *args) {
    pb_cuda_conv_facts facts;
    bool asked;
    const pb_status status = pb_cuda_conv_look_up(op, args, &facts, &asked);
    if (status == PB_OK || asked) return status;
    pb_error_clear();  // opening the GPU will say that cuDNN is missing
    return PB_OK;
}

// --- On a GPU ---

void pb_cuda_conv_plan_destroy(void *plan) {
    if (plan) pb_cudnn_plan_destroy(plan);
    free(plan);
}

void pb_cuda_pack_destroy(void *value) {
    pb_conv_call *call = value;
    if (call && call->pack) call->plan->api->destroy_descriptor(call->pack);
    free(call);
}

typedef struct wanted_plan {
    const pb_cuda_math *math;
    const pb_conv_shape *shape;
    uint64_t scratch;
} wanted_plan;

static pb_status make_plan(const void *context, void **value) {
    const wanted_plan *w = context;
    pb_status status = PB_OK;
    pb_cudnn_plan *plan = calloc(1, sizeof *plan);
    if (!plan) PB_FAIL(PB_ERR_MEMORY, "no memory for a convolution's plan");
    const pb_cudnn_place place = {.handle = w->math->dnn_handle};
    PB_TRY(pb_cudnn_conv_plan_create(w->math->dnn, place, w->shape, (int64_t)w->scratch, plan));
    *value = plan;
    plan = NULL;
fail:
    pb_cuda_conv_plan_destroy(plan);
    return status;
}

typedef struct wanted_call {
    const pb_cudnn_plan *plan;
    void *x, *w, *y, *scratch;
} wanted_call;

static pb_status make_call(const void *context, void **value) {
    const wanted_call *w = context;
    pb_status status = PB_OK;
    pb_conv_call *call = calloc(1, sizeof *call);
    if (!call) PB_FAIL(PB_ERR_MEMORY, "no memory for a convolution's call");
    call->plan = w->plan;
    PB_TRY(pb_cudnn_conv_pack_create(w->plan, w->x, w->w, w->y, w->scratch, &call->pack));
    *value = call;
    call = NULL;
fail:
    pb_cuda_pack_destroy(call);
    return status;
}

pb_status pb_conv_call_of(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args, const pb_conv_call **result) {
    const pb_conv_tensors t = pb_conv_tensors_of(op, args);
    const pb_conv_shape shape = pb_conv_shape_of(op, args);
    const uint64_t head = pb_conv_resized_bytes(args->attr, &shape);
    if (args->workspace_bytes < head) return pb_error(PB_ERR_INTERNAL, "a convolution's workspace is too small");
    PB_RETURN_IF(pb_cuda_math_dnn(math));
    const wanted_plan how = {math, &shape, args->workspace_bytes - head};
    pb_plan_key key = pb_conv_key(&shape);
    key.word[PB_PLAN_KEY_WORDS - 1] = (int64_t)how.scratch;
    void *plan, *call;
    PB_RETURN_IF(pb_plan_cache_get(&math->convolutions, &key, make_plan, &how, pb_cuda_conv_plan_destroy, &plan));
    const wanted_call w = {.plan = plan,
                           .x = head ? args->workspace : t.x->data,
                           .w = t.w->data,
                           .y = t.y->data,
                           .scratch = args->workspace ? (char *)args->workspace + head : NULL};
    const pb_plan_key pointers = {{(int64_t)(intptr_t)w.plan, (int64_t)(intptr_t)w.x, (int64_t)(intptr_t)w.w,
                                   (int64_t)(intptr_t)w.y, (int64_t)(intptr_t)w.scratch}};
    PB_RETURN_IF(pb_plan_cache_get(&math->packs, &pointers, make_call, &w, pb_cuda_pack_destroy, &call));
    *result = call;
    return PB_OK;
}

pb_status pb_cuda_prepare_conv(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args) {
    const bool wanted = args->out[0].data != NULL;
    if (!wanted) return PB_OK;
    if (pb_cuda_is_pixelwise(args->attr)) {
        const pb_cuda_gemm g = pb_cuda_gemm_of(op, args);
        return pb_cuda_gemm_prepare(math, &g);
    }
    const pb_conv_call *call;
    return pb_conv_call_of(math, op, args, &call);
}
