// Tiles over pairs of bf16 with AVX512_BF16: a unit holds two elements along K, and one instruction adds both products.
#include "kernels/cpu/gemm_kernels.h"

#if defined(__AVX512BF16__)

#include <immintrin.h>

#define LANES 16
#define TILE_ROWS 14

typedef float vf __attribute__((vector_size(4 * LANES)));

static inline vf splat(float x) {
    return _mm512_set1_ps(x);
}

static inline vf fused(vf a, vf b, vf c) {
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}

#include "kernels/cpu/gemm_tile.h"

static const pb_tile_kernel tiles[2][PB_TILE_ROWS_MAX] = {TILES(1), TILES(2)};

const pb_tile_kernel (*pb_gemm_tiles_avx512bf16(void))[PB_TILE_ROWS_MAX] {
    return tiles;
}

#else

const pb_tile_kernel (*pb_gemm_tiles_avx512bf16(void))[PB_TILE_ROWS_MAX] {
    return pb_gemm_kernels_scalar()->tile;
}

#endif
