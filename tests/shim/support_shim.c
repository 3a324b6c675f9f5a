#include "support_shim.h"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/cuda_kernels.h"

// The contractions belong to cuBLASLt and cuDNN and are not linked here; every other op without a launcher does not
// link.
#pragma weak pb_cuda_linear
#pragma weak pb_cuda_linear_bwd_data
#pragma weak pb_cuda_linear_bwd_weight
#pragma weak pb_cuda_conv2d
#pragma weak pb_cuda_conv2d_bwd_data
#pragma weak pb_cuda_conv2d_bwd_weight

// Of attention, the part that is ours.
pb_status pb_cuda_attention(const pb_kernel_args *args, void *stream) {
    return pb_cuda_attention_own(args, stream);
}
pb_status pb_cuda_attention_bwd(const pb_kernel_args *args, void *stream) {
    return pb_cuda_attention_own_bwd(args, stream);
}

#define PB_OP(name, NAME, gradient, kind, inplace)              \
    static void run_##name(const pb_kernel_args *args) {        \
        if (pb_cuda_##name(args, NULL) == PB_OK) return;        \
        fprintf(stderr, "%s: %s\n", #name, pb_error_message()); \
        abort();                                                \
    }
#include "base/ops.def"
#undef PB_OP

static const pb_kernel kernels[PB_OP_COUNT] = {
#define PB_OP(name, NAME, gradient, kind, inplace) run_##name,
#include "base/ops.def"
#undef PB_OP
};

bool shim_has(pb_opcode op) {
    switch (op) {
    case PB_OP_LINEAR:
    case PB_OP_LINEAR_BWD_DATA:
    case PB_OP_LINEAR_BWD_WEIGHT:
    case PB_OP_CONV2D:
    case PB_OP_CONV2D_BWD_DATA:
    case PB_OP_CONV2D_BWD_WEIGHT: return false;
    default: return true;
    }
}

static const pb_kernel_workspace workspaces[PB_OP_COUNT] = {
    [PB_OP_GROUP_NORM] = pb_cuda_group_norm_workspace,
    [PB_OP_GROUP_NORM_BWD] = pb_cuda_group_norm_bwd_workspace,
    [PB_OP_LAYER_NORM_BWD] = pb_cuda_layer_norm_bwd_workspace,
    [PB_OP_ATTENTION_BWD] = pb_cuda_attention_own_bwd_workspace,
    [PB_OP_SUM_PIXELS] = pb_cuda_sum_pixels_workspace,
    [PB_OP_GRAD_NORM] = pb_cuda_grad_norm_workspace,
};

const pb_backend *shim_backend(void) {
    static const pb_backend backend = {"cuda under the shim", kernels, workspaces, NULL, NULL, 0};
    return &backend;
}
