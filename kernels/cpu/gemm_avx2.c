// The contractions' vector code with AVX2, FMA and F16C.
#include "kernels/cpu/gemm_kernels.h"

#include "kernels/cpu/gemm_body.h"

const pb_gemm_kernels *pb_gemm_kernels_avx2(void) {
    return &kernels;
}
