// The contractions' vector code with the compiler's baseline.
#include "kernels/cpu/gemm_kernels.h"

#include "kernels/cpu/gemm_body.h"

const pb_gemm_kernels *pb_gemm_kernels_scalar(void) {
    return &kernels;
}
