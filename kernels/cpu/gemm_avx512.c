// The contractions' vector code with AVX-512.
#include "kernels/cpu/gemm_kernels.h"

#include "kernels/cpu/gemm_body.h"

const pb_gemm_kernels *pb_gemm_kernels_avx512(void) {
    return &kernels;
}
