// Matrix products through cuBLASLt, for linear, its gradients and convolutions of one pixel.
#ifndef PB_KERNELS_CUDA_LINEAR_H
#define PB_KERNELS_CUDA_LINEAR_H

#include <stdbool.h>

#include "kernels/cuda/cuda_math.h"

// out[m,n] = a[m,k] b[k,n] + bias[n]? + addend[m,n]?, all row-major and of one dtype, bias fp32. Sums are fp32, with
// one rounding at the end; the bias is rounded to the dtype first. `addend` may be `out`. a_transposed: a is stored
// as [k,m]; b_transposed: b as [n,k].
typedef struct pb_cuda_gemm {
    pb_dtype dtype;
    int64_t m, n, k;
    bool a_transposed, b_transposed;
    const void *a, *b, *addend;
    const float *bias;
    void *out;
    void *workspace;  // pb_cuda_gemm_workspace bytes, a multiple of 256 as address
} pb_cuda_gemm;

// The products of the three linear ops, of a convolution's likewise where pb_cuda_is_pixelwise.
pb_cuda_gemm pb_cuda_gemm_of(pb_opcode op, const pb_kernel_args *args);
// Whether a convolution is a matrix product over pixels: one tap, stride 1, no padding, no resize.
bool pb_cuda_is_pixelwise(const pb_attr *attr);

uint64_t pb_cuda_gemm_workspace(const pb_cuda_gemm *gemm, int capability);
pb_status pb_cuda_gemm_prepare(pb_cuda_math *math, const pb_cuda_gemm *gemm);
pb_status pb_cuda_gemm_run(pb_cuda_math *math, const pb_cuda_gemm *gemm);

#endif
