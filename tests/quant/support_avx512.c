#include "support_avx512.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define EMULATED static inline __attribute__((always_inline))
#define LANE(n) for (int i = 0; i < (n); i++)

// In memory: a loop over the lanes of a register is left to the compiler.
typedef union lanes512 {
    __m512 f;
    __m512i v;
    float x[16];
    int32_t s[16];
    uint32_t u[16];
    uint64_t q[8];
} lanes512;

EMULATED __m512 set1_ps(float x) {
    lanes512 r;
    LANE(16) r.x[i] = x;
    return r.f;
}

EMULATED __m512i set1_epi32(int x) {
    lanes512 r;
    LANE(16) r.s[i] = x;
    return r.v;
}

EMULATED __m512i cvtps_epi32(__m512 x) {
    lanes512 a = {.f = x}, r;
    LANE(16) r.s[i] = fabsf(a.x[i]) < 0x1p31f ? (int32_t)nearbyintf(a.x[i]) : INT32_MIN;
    return r.v;
}

EMULATED __mmask16 cmp_ps_mask(__m512 x, __m512 y) {
    lanes512 a = {.f = x}, b = {.f = y};
    unsigned mask = 0;
    LANE(16) mask |= (unsigned)(a.x[i] > b.x[i]) << i;
    return (__mmask16)mask;
}

EMULATED __m512i mask_add_epi32(__m512i source, __mmask16 mask, __m512i x, __m512i y) {
    lanes512 s = {.v = source}, a = {.v = x}, b = {.v = y}, r;
    LANE(16) r.u[i] = mask >> i & 1 ? a.u[i] + b.u[i] : s.u[i];
    return r.v;
}

EMULATED __m512 permutexvar_ps(__m512i index, __m512 x) {
    lanes512 n = {.v = index}, a = {.f = x}, r;
    LANE(16) r.x[i] = a.x[n.u[i] & 15];
    return r.f;
}

EMULATED __m512 min_ps(__m512 x, __m512 y) {
    lanes512 a = {.f = x}, b = {.f = y}, r;
    LANE(16) r.x[i] = a.x[i] < b.x[i] ? a.x[i] : b.x[i];
    return r.f;
}

EMULATED __m512 max_ps(__m512 x, __m512 y) {
    lanes512 a = {.f = x}, b = {.f = y}, r;
    LANE(16) r.x[i] = a.x[i] > b.x[i] ? a.x[i] : b.x[i];
    return r.f;
}

EMULATED __m512 round_down_ps(__m512 x) {
    lanes512 a = {.f = x}, r;
    LANE(16) r.x[i] = floorf(a.x[i]);
    return r.f;
}

EMULATED __m512i max_epi32(__m512i x, __m512i y) {
    lanes512 a = {.v = x}, b = {.v = y}, r;
    LANE(16) r.s[i] = a.s[i] > b.s[i] ? a.s[i] : b.s[i];
    return r.v;
}

EMULATED __m128i cvtepi32_epi8(__m512i x) {
    lanes512 a = {.v = x};
    uint8_t bytes[16];
    LANE(16) bytes[i] = (uint8_t)a.u[i];
    return _mm_loadu_si128((const __m128i *)bytes);
}

EMULATED __m512i cvtepu8_epi32(__m128i x) {
    uint8_t bytes[16];
    lanes512 r;
    _mm_storeu_si128((__m128i *)bytes, x);
    LANE(16) r.u[i] = bytes[i];
    return r.v;
}

EMULATED __m512i cvtepi8_epi32(__m128i x) {
    int8_t bytes[16];
    lanes512 r;
    _mm_storeu_si128((__m128i *)bytes, x);
    LANE(16) r.s[i] = bytes[i];
    return r.v;
}

EMULATED __m512i mask_blend_epi32(__mmask16 mask, __m512i x, __m512i y) {
    lanes512 a = {.v = x}, b = {.v = y}, r;
    LANE(16) r.s[i] = mask >> i & 1 ? b.s[i] : a.s[i];
    return r.v;
}

EMULATED __m512 i32gather_ps(__m512i index, const float *base) {
    lanes512 n = {.v = index}, r;
    LANE(16) r.x[i] = base[n.s[i]];
    return r.f;
}

EMULATED __m512i mul_epu32(__m512i x, __m512i y) {
    lanes512 a = {.v = x}, b = {.v = y}, r;
    LANE(8) r.q[i] = (a.q[i] & 0xffffffffu) * (b.q[i] & 0xffffffffu);
    return r.v;
}

EMULATED __m512 fmadd_ps(__m512 x, __m512 y, __m512 z) {
    lanes512 a = {.f = x}, b = {.f = y}, c = {.f = z}, r;
    LANE(16) r.x[i] = fmaf(a.x[i], b.x[i], c.x[i]);
    return r.f;
}

EMULATED __m256i cvtps_ph(__m512 x) {
    lanes512 a = {.f = x};
    uint16_t halves[16];
    LANE(16) halves[i] = pb_f16_from_f32(a.x[i]);
    return _mm256_loadu_si256((const __m256i *)halves);
}

EMULATED __m512 cvtph_ps(__m256i x) {
    uint16_t halves[16];
    lanes512 r;
    _mm256_storeu_si256((__m256i *)halves, x);
    LANE(16) r.x[i] = pb_f16_to_f32(halves[i]);
    return r.f;
}

#define _mm512_set1_ps set1_ps
#define _mm512_set1_epi32 set1_epi32
#define _mm512_setzero_si512() set1_epi32(0)
#define _mm512_cvtps_epi32 cvtps_epi32
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask(a, b, greater) cmp_ps_mask(a, b)
#define _mm512_mask_add_epi32 mask_add_epi32
#define _mm512_permutexvar_ps permutexvar_ps
#define _mm512_min_ps min_ps
#define _mm512_max_ps max_ps
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps(x, mode) round_down_ps(x)
#define _mm512_max_epi32 max_epi32
#define _mm512_cvtepi32_epi8 cvtepi32_epi8
#define _mm512_cvtepu8_epi32 cvtepu8_epi32
#define _mm512_cvtepi8_epi32 cvtepi8_epi32
#define _mm512_mask_blend_epi32 mask_blend_epi32
#undef _mm512_i32gather_ps
#define _mm512_i32gather_ps(index, base, scale) i32gather_ps(index, base)
#define _mm512_mul_epu32 mul_epu32
#define _mm512_fmadd_ps fmadd_ps
#undef _mm512_cvtps_ph
#define _mm512_cvtps_ph(x, mode) cvtps_ph(x)
#define _mm512_cvtph_ps cvtph_ps

#define PB_SIMD_512
#define PB_CODECS_TABLE pb_codecs_emulated
#include "quant/codecs_simd.h"
