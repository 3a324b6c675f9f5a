// The libraries' side of a device in use: handles, and what they settled per shape. Launchers know their stream alone,
// so the state is found by it.
#ifndef PB_KERNELS_CUDA_MATH_H
#define PB_KERNELS_CUDA_MATH_H

#include <cuda_runtime_api.h>

#include "base/op.h"
#include "kernels/cuda/cuda_libraries.h"
#include "kernels/cuda/plan_cache.h"

typedef struct pb_cuda_math {
    cudaStream_t stream;
    int capability;
    // Loaded at the first use; NULL before.
    const pb_cublas_api *blas;
    cublasLtHandle_t blas_handle;
    const pb_cudnn_api *dnn;
    cudnnHandle_t dnn_handle;
    pb_plan_cache gemms;            // by shape
    pb_plan_cache convolutions;     // by shape
    pb_plan_cache packs;            // by convolution and pointers
    pb_plan_cache attentions;       // by shape
    pb_plan_cache attention_calls;  // by plan and pointers
    struct pb_cuda_math *next;
} pb_cuda_math;

// For what is launched into `stream`, on the GPU that is current. PB_ERR_MEMORY.
pb_status pb_cuda_math_create(cudaStream_t stream, int capability, pb_cuda_math **math);
void pb_cuda_math_destroy(pb_cuda_math *math);  // NULL is allowed; nothing may be under way
pb_status pb_cuda_math_of(void *stream, pb_cuda_math **math);

// Load the library and make the handle where that has not been done.
pb_status pb_cuda_math_blas(pb_cuda_math *math);
pb_status pb_cuda_math_dnn(pb_cuda_math *math);

// Settles all that a launch of `op` on these arguments will need, so that the launch itself neither searches nor
// allocates. Ops that need nothing: PB_OK. Defined by cuda_linear.c, cuda_conv_plan.c and cuda_attention_op.c.
pb_status pb_cuda_prepare(pb_opcode op, const pb_kernel_args *args, void *stream);
pb_status pb_cuda_prepare_linear(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args);
pb_status pb_cuda_prepare_conv(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args);
pb_status pb_cuda_prepare_attention(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args);

// What the caches hold.
void pb_cuda_gemm_plan_destroy(void *plan);
void pb_cuda_conv_plan_destroy(void *plan);
void pb_cuda_pack_destroy(void *pack);
void pb_cuda_attention_plan_destroy(void *plan);
void pb_cuda_attention_call_destroy(void *call);

// Whether cuDNN has a plan for a convolution op; PB_OK as well where that cannot be known here (no cuDNN).
pb_status pb_cuda_conv_supported(pb_opcode op, const pb_kernel_args *args);

#endif
