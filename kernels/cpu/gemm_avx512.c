// The contractions' vector code with AVX-512.
#include "kernels/cpu/gemm_kernels.h"

#if defined(__AVX512F__)

#include <immintrin.h>

#define LANES 16
#define TILE_ROWS 14

typedef float vf __attribute__((vector_size(4 * LANES)));

static inline vf splat(float x) {
    return _mm512_set1_ps(x);
}

static inline vf fused(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}

static inline vf interleave_low(vf a, vf b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

static inline vf interleave_high(vf a, vf b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

static inline vf load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

static inline void store_f16(uint16_t *p, vf v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

#include "kernels/cpu/gemm_body.h"

const pb_gemm_kernels *pb_gemm_kernels_avx512(void) {
    return &kernels;
}

#else

const pb_gemm_kernels *pb_gemm_kernels_avx512(void) {
    return pb_gemm_kernels_scalar();
}

#endif
