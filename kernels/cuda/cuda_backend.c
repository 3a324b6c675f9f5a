#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_math.h"

// The contract about dtypes is the CPU backend's; beyond it, a convolution has to have a plan on the target.
static pb_status supports(pb_opcode op, const pb_kernel_args *args) {
    const pb_status status = pb_backend_cpu()->supports(op, args);
    if (status != PB_OK) return pb_error_context(status, "neither the CUDA backend");
    switch (op) {
    case PB_OP_CONV2D:
    case PB_OP_CONV2D_BWD_DATA:
    case PB_OP_CONV2D_BWD_WEIGHT: return pb_cuda_conv_supported(op, args);
    default: return PB_OK;
    }
}

const pb_backend *pb_backend_cuda(void) {
    static const pb_backend backend = {
        .name = "cuda", .workspaces = pb_cuda_workspaces, .supports = supports, .device = &pb_cuda_device_calls};
    return &backend;
}
