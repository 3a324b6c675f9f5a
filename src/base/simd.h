// Vectors of floats as wide as the instruction set that the including file is compiled for (see isa.h): 16, 8, or 4
// lanes. The arithmetic is the compilers' vector extension, + - * / and comparisons lane by lane; what that lacks is
// here. Included by files that are compiled for one instruction set (*_avx2.c and their like), through the headers that
// they share. PB_SIMD_512 stands for AVX-512; a test defines it together with stand-ins for the instructions, so that
// their code is tried on machines that lack them.
#ifndef PB_BASE_SIMD_H
#define PB_BASE_SIMD_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/dtype.h"

#if defined(__AVX512F__) && !defined(PB_SIMD_512)
#define PB_SIMD_512
#endif

#if defined(PB_SIMD_512)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));
// Half as many doubles.
typedef double vd __attribute__((vector_size(4 * LANES)));

// The same in memory, at any address.
typedef float vf_memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef double vd_memory __attribute__((vector_size(4 * LANES), aligned(8), may_alias));
typedef uint16_t vh_memory __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

#define SIMD static inline __attribute__((always_inline))

// Loops over an array of vectors, which then stay in registers.
#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

SIMD vf simd_set(float x) {
    return x - (vf){0};
}

SIMD vf simd_load(const float *p) {
    return *(const vf_memory *)p;
}

SIMD void simd_store(float *p, vf x) {
    *(vf_memory *)p = x;
}

#if defined(__AVX2__) && !defined(PB_SIMD_512)
SIMD __m256i simd_mask(int64_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// The first `count` lanes, 1 or more; zeros, or nothing written, beyond them. Whole vectors take the fast path, so one
// loop body serves the tail as well. (Loops over lanes would become calls of memcpy, and all registers be saved.)
SIMD vf simd_load_some(const float *p, int64_t count) {
    if (count >= LANES) return simd_load(p);
#if defined(PB_SIMD_512)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
#elif defined(__AVX2__)
    return (vf)_mm256_maskload_ps(p, simd_mask(count));
#else
    return (vf){p[0], count > 1 ? p[1] : 0, count > 2 ? p[2] : 0, 0};
#endif
}

// The first `count` lanes, zeros beyond them.
SIMD vf simd_keep_some(vf x, int64_t count) {
    if (count >= LANES) return x;
#if defined(PB_SIMD_512)
    return (vf)_mm512_maskz_mov_ps((__mmask16)((1u << count) - 1), (__m512)x);
#elif defined(__AVX2__)
    return (vf)_mm256_and_ps((__m256)x, _mm256_castsi256_ps(simd_mask(count)));
#else
    return (vf){x[0], count > 1 ? x[1] : 0, count > 2 ? x[2] : 0, 0};
#endif
}

SIMD void simd_store_some(float *p, vf x, int64_t count) {
    if (count >= LANES) {
        simd_store(p, x);
        return;
    }
#if defined(PB_SIMD_512)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)x);
#elif defined(__AVX2__)
    _mm256_maskstore_ps(p, simd_mask(count), (__m256)x);
#else
    p[0] = x[0];
    if (count > 1) p[1] = x[1];
    if (count > 2) p[2] = x[2];
#endif
}

SIMD vf simd_from_bits(vu x) {
    return (vf)x;
}

SIMD vu simd_bits(vf x) {
    return (vu)x;
}

// Lanes of `a` where the mask of a comparison is all ones, of `b` elsewhere.
SIMD vf simd_select(vu mask, vf a, vf b) {
    return simd_from_bits((simd_bits(a) & mask) | (simd_bits(b) & ~mask));
}

// x cut to [low, high]; NaN stays (the instructions return their second operand where one is NaN).
SIMD vf simd_clamp(vf x, float low, float high) {
#if defined(PB_SIMD_512)
    return (vf)_mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), (__m512)x));
#elif defined(__AVX2__)
    return (vf)_mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), (__m256)x));
#else
    return (vf)_mm_min_ps(_mm_set1_ps(high), _mm_max_ps(_mm_set1_ps(low), (__m128)x));
#endif
}

// Lanes of `a` where the sign bit of x is set, of `b` elsewhere.
SIMD vf simd_where_negative(vf x, vf a, vf b) {
#if defined(PB_SIMD_512)
    return (vf)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)x), (__m512)b, (__m512)a);
#elif defined(__AVX2__)
    return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)x);
#else
    return simd_select(-(simd_bits(x) >> 31), a, b);
#endif
}

SIMD vf simd_abs(vf x) {
    return simd_from_bits(simd_bits(x) & 0x7fffffffu);
}

// a b + c; one rounding where the machine can.
SIMD vf simd_fma(vf a, vf b, vf c) {
#if defined(PB_SIMD_512)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

// a b + c, always with one rounding.
SIMD vf simd_fma_exact(vf a, vf b, vf c) {
#if defined(__AVX2__)
    return simd_fma(a, b, c);
#else
    vf r;
    for (int i = 0; i < LANES; i++) r[i] = fmaf(a[i], b[i], c[i]);
    return r;
#endif
}

SIMD vf simd_sqrt(vf x) {
#if defined(PB_SIMD_512)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    return (vf)_mm256_sqrt_ps((__m256)x);
#else
    vf r;
    for (int i = 0; i < LANES; i++) r[i] = sqrtf(x[i]);
    return r;
#endif
}

// Sums of all lanes: the upper half onto the lower, until one is left. (No loop over lanes: it would keep x in memory
// in the caller's loop as well.)
SIMD float simd_sum(vf x) {
#if defined(PB_SIMD_512)
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256((__m512)x), _mm512_extractf32x8_ps((__m512)x, 1));
#elif defined(__AVX2__)
    const __m256 half = (__m256)x;
#endif
#if defined(__AVX2__)
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#else
    __m128 sum = (__m128)x;
#endif
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1)));
}

SIMD double simd_sum_double(vd x) {
#if defined(PB_SIMD_512)
    const __m256d half = _mm256_add_pd(_mm512_castpd512_pd256((__m512d)x), _mm512_extractf64x4_pd((__m512d)x, 1));
#elif defined(__AVX2__)
    const __m256d half = (__m256d)x;
#endif
#if defined(__AVX2__)
    const __m128d sum = _mm_add_pd(_mm256_castpd256_pd128(half), _mm256_extractf128_pd(half, 1));
#else
    const __m128d sum = (__m128d)x;
#endif
    return _mm_cvtsd_f64(_mm_add_sd(sum, _mm_unpackhi_pd(sum, sum)));
}

// The lower and the upper half of the lanes in double, exactly.
typedef struct vd_pair {
    vd low, high;
} vd_pair;

SIMD vd_pair simd_widen(vf x) {
#if defined(PB_SIMD_512)
    const __m256 low = _mm512_castps512_ps256((__m512)x), high = _mm512_extractf32x8_ps((__m512)x, 1);
    return (vd_pair){(vd)_mm512_cvtps_pd(low), (vd)_mm512_cvtps_pd(high)};
#elif defined(__AVX2__)
    const __m128 low = _mm256_castps256_ps128((__m256)x), high = _mm256_extractf128_ps((__m256)x, 1);
    return (vd_pair){(vd)_mm256_cvtps_pd(low), (vd)_mm256_cvtps_pd(high)};
#else
    const __m128 low = (__m128)x, high = _mm_movehl_ps(low, low);
    return (vd_pair){(vd)_mm_cvtps_pd(low), (vd)_mm_cvtps_pd(high)};
#endif
}

SIMD vf simd_from_bf16(vh h) {
    return simd_from_bits(__builtin_convertvector(h, vu) << 16);
}

// As pb_bf16_from_f32.
SIMD vh simd_to_bf16(vf x) {
    const vu u = simd_bits(x);
#if defined(PB_SIMD_512)
    // A NaN is not rounded (which might carry it to infinity) but made quiet.
    const __mmask16 nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
    const vu rounded = u + 0x7fffu + ((u >> 16) & 1u);
    return (vh)_mm512_cvtepi32_epi16(
        _mm512_srli_epi32(_mm512_mask_or_epi32((__m512i)rounded, nan, (__m512i)u, _mm512_set1_epi32(0x400000)), 16));
#else
    const vu nan = (vu)(x != x), rounded = u + 0x7fffu + ((u >> 16) & 1u);
    return __builtin_convertvector((((u | 0x400000u) & nan) | (rounded & ~nan)) >> 16, vh);
#endif
}

SIMD vf simd_from_f16(vh h) {
#if defined(PB_SIMD_512)
    return (vf)_mm512_cvtph_ps((__m256i)h);
#elif defined(__AVX2__)
    return (vf)_mm256_cvtph_ps((__m128i)h);
#else
    vf r;
    for (int i = 0; i < LANES; i++) r[i] = pb_f16_to_f32(h[i]);
    return r;
#endif
}

SIMD vh simd_to_f16(vf x) {
#if defined(PB_SIMD_512)
    return (vh)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__AVX2__)
    return (vh)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
    vh r;
    for (int i = 0; i < LANES; i++) r[i] = pb_f16_from_f32(x[i]);
    return r;
#endif
}

// e^x within 2 units in the last place; x is cut to [-87, 88], where the result is a normal number.
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r = 1 + r + r^2 q(r), q fitted on Chebyshev nodes (relative error 1.1e-8).
SIMD vf simd_exp(vf x) {
    const vf magic = simd_set(0x1.8p23f);  // adding it leaves n, rounded, in the low bits
    x = simd_clamp(x, -87.0f, 88.0f);
    const vf t = simd_fma(x, simd_set(0x1.715476p+0f), magic), n = t - magic;
    vf r = simd_fma(n, simd_set(-0x1.63p-1f), x);  // ln 2 in two parts; the first times n is exact
    r = simd_fma(n, simd_set(0x1.bd0106p-13f), r);
    vf q = simd_set(0x1.6d43b4p-10f);
    q = simd_fma(q, r, simd_set(0x1.120be8p-7f));
    q = simd_fma(q, r, simd_set(0x1.5554e8p-5f));
    q = simd_fma(q, r, simd_set(0x1.5554dcp-3f));
    q = simd_fma(q, r, simd_set(0.5f));
    const vf fraction = simd_fma(q * r, r, r) + 1.0f;
    return fraction * simd_from_bits((simd_bits(t) - simd_bits(magic) + 127u) << 23);
}

SIMD vf simd_logistic(vf x) {
    return 1.0f / (1.0f + simd_exp(-x));
}

// The Gaussian distribution Phi(x) and its density, from one exponential: Phi(-t) = density(t) * ratio(t) for t >= 0.
// With u = (t - 4) / (t + 4), sqrt(2 pi) ratio is a polynomial of degree 9 on [0, 13], fitted on Chebyshev nodes;
// relative error of Phi 4e-7 down to Phi(-13) = 6e-39.
typedef struct simd_gaussian {
    vf distribution, density;
} simd_gaussian;

SIMD simd_gaussian simd_gauss(vf x) {
    const vf t = simd_clamp(simd_abs(x), 0.0f, 13.0f);
    const vf square = t * t, lost = simd_fma(t, t, -square);
    const vf e = simd_exp(-0.5f * square) * simd_fma(lost, simd_set(-0.5f), simd_set(1.0f));
    const vf u = (t - 4.0f) / (t + 4.0f);
    vf p = simd_set(-0x1.2361a6p-14f);
    p = simd_fma(p, u, simd_set(-0x1.6f0336p-13f));
    p = simd_fma(p, u, simd_set(0x1.58c7e0p-11f));
    p = simd_fma(p, u, simd_set(0x1.09cc42p-11f));
    p = simd_fma(p, u, simd_set(-0x1.166e94p-7f));
    p = simd_fma(p, u, simd_set(0x1.f9af68p-6f));
    p = simd_fma(p, u, simd_set(-0x1.25b620p-4f));
    p = simd_fma(p, u, simd_set(0x1.fd751ep-4f));
    p = simd_fma(p, u, simd_set(-0x1.5cf97ep-3f));
    p = simd_fma(p, u, simd_set(0x1.82b4bcp-4f));
    const vf tail = e * p;
    return (simd_gaussian){simd_where_negative(x, tail, 1.0f - tail), e * 0x1.988454p-2f};  // 1 / sqrt(2 pi)
}

#endif
