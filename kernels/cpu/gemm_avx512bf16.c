// Tiles over pairs of bf16 with AVX512_BF16: a unit holds two elements along K, and one instruction adds both products.
#include "kernels/cpu/gemm_kernels.h"

#include <immintrin.h>

#define fused(a, b, c) ((vf)_mm512_dpbf16_ps((__m512)(c), (__m512bh)(a), (__m512bh)(b)))
#include "kernels/cpu/gemm_tile.h"

static const pb_tile_kernels tiles = TILES;

const pb_tile_kernels *pb_gemm_tiles_avx512bf16(void) {
    return &tiles;
}
