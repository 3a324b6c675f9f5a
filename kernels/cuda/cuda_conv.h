// A convolution op as cuDNN sees it, and where things lie in its workspace: the resized input (or its gradient) first,
// then cuDNN's scratch, which the sums of a bias gradient reuse.
#ifndef PB_KERNELS_CUDA_CONV_H
#define PB_KERNELS_CUDA_CONV_H

#include "kernels/cuda/cuda_math.h"
#include "kernels/cuda/cudnn_conv.h"

// The most scratch that a convolution is given.
#define PB_CUDA_CONV_SCRATCH_MOST (INT64_C(32) << 20)

// The three tensors of a convolution, whichever op it is.
typedef struct pb_conv_tensors {
    pb_conv_kind kind;
    const pb_tensor *x, *w, *y;
    const pb_tensor *addend;  // of the result; rank 0 where absent, NULL where the op has none
} pb_conv_tensors;
pb_conv_tensors pb_conv_tensors_of(pb_opcode op, const pb_kernel_args *args);

pb_conv_shape pb_conv_shape_of(pb_opcode op, const pb_kernel_args *args);
bool pb_conv_resizes(const pb_attr *attr);
uint64_t pb_conv_resized_bytes(const pb_attr *attr, const pb_conv_shape *shape);
pb_plan_key pb_conv_key(const pb_conv_shape *shape);

// A plan with the pointers of one instruction.
typedef struct pb_conv_call {
    const pb_cudnn_plan *plan;
    cudnnBackendDescriptor_t pack;
} pb_conv_call;
// Found, or made at the first use: then it allocates. The workspace's size limits the plan's.
pb_status pb_conv_call_of(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args, const pb_conv_call **call);

#endif
