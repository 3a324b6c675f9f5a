// The launchers by opcode: an op without one does not link.
#include "kernels/cuda/cuda_kernels.h"

const pb_cuda_launcher pb_cuda_launchers[PB_OP_COUNT] = {
#define PB_OP(name, NAME, gradient, kind, inplace) pb_cuda_##name,
#include "base/ops.def"
#undef PB_OP
};

const pb_kernel_workspace pb_cuda_workspaces[PB_OP_COUNT] = {
    [PB_OP_LINEAR] = pb_cuda_linear_workspace,
    [PB_OP_LINEAR_BWD_DATA] = pb_cuda_linear_bwd_data_workspace,
    [PB_OP_LINEAR_BWD_WEIGHT] = pb_cuda_linear_bwd_weight_workspace,
    [PB_OP_CONV2D] = pb_cuda_conv2d_workspace,
    [PB_OP_CONV2D_BWD_DATA] = pb_cuda_conv2d_bwd_data_workspace,
    [PB_OP_CONV2D_BWD_WEIGHT] = pb_cuda_conv2d_bwd_weight_workspace,
    [PB_OP_GROUP_NORM] = pb_cuda_group_norm_workspace,
    [PB_OP_GROUP_NORM_BWD] = pb_cuda_group_norm_bwd_workspace,
    [PB_OP_LAYER_NORM_BWD] = pb_cuda_layer_norm_bwd_workspace,
    [PB_OP_ATTENTION] = pb_cuda_attention_workspace,
    [PB_OP_ATTENTION_BWD] = pb_cuda_attention_bwd_workspace,
    [PB_OP_SUM_PIXELS] = pb_cuda_sum_pixels_workspace,
    [PB_OP_GRAD_NORM] = pb_cuda_grad_norm_workspace,
};
