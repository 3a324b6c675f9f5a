#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_math.h"
#include "kernels/cuda/cuda_target.h"

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

enum { MOST_GPUS = 16 };

static const pb_backend *backend_of(int ordinal) {
    static pb_backend backends[MOST_GPUS];
    backends[ordinal] = (pb_backend){.name = "cuda",
                                     .workspaces = pb_cuda_workspaces,
                                     .supports = supports,
                                     .device = &pb_cuda_device_calls,
                                     .ordinal = ordinal};
    return &backends[ordinal];
}

const pb_backend *pb_backend_cuda(void) {
    return backend_of(0);
}

pb_status pb_backend_cuda_at(int ordinal, const pb_backend **backend) {
    pb_cuda_target target;
    PB_RETURN_IF(pb_cuda_target_of(ordinal, &target));
    if (ordinal >= MOST_GPUS) return pb_error(PB_ERR_UNSUPPORTED, "GPUs above %d cannot be chosen", MOST_GPUS - 1);
    pb_cuda_target_set(&target);
    *backend = backend_of(ordinal);
    return PB_OK;
}

const pb_backend *pb_backend_cuda_for(const char *card) {
    const pb_cuda_target *target = pb_cuda_target_named(card);
    if (!target) target = pb_cuda_target_like(card);
    if (!target) return NULL;
    pb_cuda_target_set(target);
    return backend_of(0);
}
