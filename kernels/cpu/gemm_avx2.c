// The contractions' vector code with AVX2, FMA and F16C.
#include "kernels/cpu/gemm_kernels.h"

#if defined(__AVX2__)

#include <immintrin.h>

#define LANES 8
#define TILE_ROWS 6

typedef float vf __attribute__((vector_size(4 * LANES)));

static inline vf splat(float x) {
    return _mm256_set1_ps(x);
}

static inline vf fused(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}

static inline vf interleave_low(vf a, vf b) {
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}

static inline vf interleave_high(vf a, vf b) {
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

static inline vf load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

static inline void store_f16(uint16_t *p, vf v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

#include "kernels/cpu/gemm_body.h"

const pb_gemm_kernels *pb_gemm_kernels_avx2(void) {
    return &kernels;
}

#else

const pb_gemm_kernels *pb_gemm_kernels_avx2(void) {
    return pb_gemm_kernels_scalar();
}

#endif
