// Tiles of 16-bit elements in shared memory and products of them on matrix units: mma.m16n8k16 with fp32 sums, whose
// operands' places in the lanes' registers are PTX's ("Matrix Fragments for mma.m16n8k16"). With g = lane / 4 and
// t = lane % 4:
//   sums      c[0], c[1]: row g, columns 2t and 2t + 1;  c[2], c[3]: row g + 8
//   left      a[0]: row g, k = 2t and 2t + 1;  a[1]: row g + 8;  a[2], a[3]: the same at k + 8
//   right     b[0]: k = 2t and 2t + 1 of column g;  b[1]: at k + 8
// So two neighbouring tiles of sums, rounded, are a left operand. The instructions themselves are in compat.h, and the
// shim has them too.
#ifndef PB_KERNELS_CUDA_MMA_TILES_CUH
#define PB_KERNELS_CUDA_MMA_TILES_CUH

#include "kernels/cuda/attention_tiles.cuh"

constexpr int MMA_ROWS = 16, MMA_WARPS = 4, MMA_TILE = 64;  // rows of a warp; rows of a block, and columns at a time
static_assert(MMA_ROWS * MMA_WARPS == MMA_TILE, "one tile shape");

// Heads are as wide as so many EIGHTHS, runs of 8 channels of 16 bytes. An odd one at the end is half a step of a
// product over the channels (mma.m16n8k8), and one tile of eight columns where the channels are the result's: a head of
// 40 costs 5/6 of one of 48. Elements between tokens in shared memory: 8 rows of 16 bytes then lie in different banks.
template <int EIGHTHS> constexpr int MMA_STRIDE = 8 * (EIGHTHS % 2 ? EIGHTHS : EIGHTHS + 1);
template <int EIGHTHS> constexpr int MMA_STEPS = (EIGHTHS + 1) / 2;

// to[TOKENS][MMA_STRIDE] = tokens from `begin`; zeros beyond the matrix and beyond its width. Asynchronous: part of the
// group of copies that is committed next. A thread has one column of eight channels and every so many tokens of it, so
// that places are one register and a stride (the few threads that make no whole row have nothing to do).
template <int EIGHTHS, int TOKENS = MMA_TILE>
__device__ __forceinline__ void stage_tile(const head_matrix &x, int begin, uint16_t *to) {
    constexpr int AT_ONCE = MMA_WARPS * 32 / EIGHTHS;
    const int first = (int)threadIdx.x / EIGHTHS, c = (int)threadIdx.x % EIGHTHS * 8;
    const uint16_t *from = static_cast<const uint16_t *>(x.data) + x.first;
    to += first * MMA_STRIDE<EIGHTHS> + c;
    const int left = c < x.width && first < AT_ONCE ? x.tokens - begin - first : 0;  // attention_mma_has: 32 bits do
    const int at = (begin + first) * x.stride + c, end = first < AT_ONCE ? TOKENS - first : 0;
#pragma unroll
    for (int k = 0; k < TOKENS; k += AT_ONCE)
        if (k < end) copy_async<16>(to + k * MMA_STRIDE<EIGHTHS>, from + (k < left ? at + k * x.stride : 0), k < left);
}

// This warp's 16 rows of a staged tile as left operands.
template <int EIGHTHS>
__device__ __forceinline__ void load_left(const uint16_t *tile, uint32_t (&left)[MMA_STEPS<EIGHTHS>][4]) {
    const int lane = (int)threadIdx.x % 32, row = (int)threadIdx.x / 32 * MMA_ROWS + lane % 16;
#pragma unroll
    for (int d = 0; d < MMA_STEPS<EIGHTHS>; d++)
        load_matrices(tile + row * MMA_STRIDE<EIGHTHS> + d * 16 + (2 * d + 1 < EIGHTHS ? lane / 16 * 8 : 0), left[d]);
}

// sums[n] = left times the transpose of the tile's tokens 8 n to 8 n + 7.
template <typename T, int EIGHTHS, int EIGHTS>
__device__ __forceinline__ void mma_scores(const uint32_t (&left)[MMA_STEPS<EIGHTHS>][4], const uint16_t *tile,
                                           float (&sums)[EIGHTS][4]) {
    const int lane = (int)threadIdx.x % 32;
    const uint16_t *from = tile + (lane / 16 * 8 + lane % 8) * MMA_STRIDE<EIGHTHS> + lane / 8 % 2 * 8;
    uint32_t right[4];
#pragma unroll
    for (int n = 0; n < EIGHTS; n++) sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0;
#pragma unroll
    for (int d = 0; d < EIGHTHS / 2; d++) {
#pragma unroll
        for (int n = 0; n < EIGHTS; n += 2) {
            load_matrices(from + n * 8 * MMA_STRIDE<EIGHTHS> + d * 16, right);
            multiply_matrices<T>(left[d], right[0], right[1], sums[n]);
            multiply_matrices<T>(left[d], right[2], right[3], sums[n + 1]);
        }
    }
    if constexpr (EIGHTHS % 2) {
        const uint16_t *last = tile + lane * MMA_STRIDE<EIGHTHS> + (EIGHTHS - 1) * 8;
#pragma unroll
        for (int n = 0; n < EIGHTS; n += 4) {
            load_matrices(last + n * 8 * MMA_STRIDE<EIGHTHS>, right);
#pragma unroll
            for (int k = 0; k < 4; k++)
                multiply_half_matrices<T>(left[EIGHTHS / 2][0], left[EIGHTHS / 2][1], right[k], sums[n + k]);
        }
    }
}

// result[n], channels 8 n to 8 n + 7, += weights (a tile of sums, rounded to T) times the tile.
template <typename T, int EIGHTHS, int EIGHTS>
__device__ __forceinline__ void mma_result(const float (&weights)[EIGHTS][4], const uint16_t *tile,
                                           float (&result)[EIGHTHS][4]) {
    const int lane = (int)threadIdx.x % 32;
    const uint16_t *from = tile + lane % 16 * MMA_STRIDE<EIGHTHS> + lane / 16 * 8;
    const uint16_t *last = tile + lane * MMA_STRIDE<EIGHTHS> + (EIGHTHS - 1) * 8;
    uint32_t of_last[4];  // an odd eighth's, for 32 tokens
#pragma unroll
    for (int n = 0; n < EIGHTS; n += 2) {
        const uint32_t left[4] = {pack<T>(weights[n][0], weights[n][1]), pack<T>(weights[n][2], weights[n][3]),
                                  pack<T>(weights[n + 1][0], weights[n + 1][1]),
                                  pack<T>(weights[n + 1][2], weights[n + 1][3])};
#pragma unroll
        for (int d = 0; d < EIGHTHS / 2; d++) {
            uint32_t right[4];
            load_matrices_transposed(from + n * 8 * MMA_STRIDE<EIGHTHS> + d * 16, right);
            multiply_matrices<T>(left, right[0], right[1], result[2 * d]);
            multiply_matrices<T>(left, right[2], right[3], result[2 * d + 1]);
        }
        if constexpr (EIGHTHS % 2) {
            if (n % 4 == 0) load_matrices_transposed(last + n * 8 * MMA_STRIDE<EIGHTHS>, of_last);
            multiply_matrices<T>(left, of_last[n % 4], of_last[n % 4 + 1], result[EIGHTHS - 1]);
        }
    }
}

// The four lanes that share a row.
__device__ __forceinline__ float row_most(float x) {
    x = fmaxf(x, __shfl_xor_sync(WHOLE_WARP, x, 1));
    return fmaxf(x, __shfl_xor_sync(WHOLE_WARP, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(WHOLE_WARP, x, 1);
    return x + __shfl_xor_sync(WHOLE_WARP, x, 2);
}

// Rows `row` and row + 8 of result, times factor[0] and factor[1], to one head of a matrix like `like`. Two lanes that
// are neighbours swap halves of two tiles: each then has four channels of one, and a row's 32 bytes are written at
// once.
template <typename T, int EIGHTHS>
__device__ __forceinline__ void store_result(const float (&result)[EIGHTHS][4], const float (&factor)[2],
                                             const head_matrix &like, int row, void *data) {
    const int t = (int)threadIdx.x % 4;
    uint16_t *to = static_cast<uint16_t *>(data) + like.first;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t at = (int64_t)(row + 8 * h) * like.stride;
        const bool is_there = row + 8 * h < like.tokens;
#pragma unroll
        for (int n = 0; n < EIGHTHS; n += 2) {
            const uint32_t low = pack<T>(result[n][2 * h] * factor[h], result[n][2 * h + 1] * factor[h]);
            if (n + 1 == EIGHTHS) {
                if (is_there && n * 8 < like.width) *reinterpret_cast<uint32_t *>(to + at + n * 8 + t * 2) = low;
                continue;
            }
            const int second = n + 1 < EIGHTHS ? n + 1 : n;
            const uint32_t high = pack<T>(result[second][2 * h] * factor[h], result[second][2 * h + 1] * factor[h]);
            const uint32_t theirs = __shfl_xor_sync(WHOLE_WARP, t % 2 ? low : high, 1);
            const int c = (n + t % 2) * 8 + t / 2 * 4;
            uint2 four;
            four.x = t % 2 ? theirs : low;
            four.y = t % 2 ? high : theirs;
            if (is_there && c < like.width) *reinterpret_cast<uint2 *>(to + at + c) = four;
        }
    }
}

// The same, in fp32, to a part of it.
template <int EIGHTHS>
__device__ __forceinline__ void store_part(const float (&result)[EIGHTHS][4], const float (&factor)[2],
                                           const head_matrix &like, int row, float *to) {
    to += like.first + (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (row + 8 * h >= like.tokens) continue;
#pragma unroll
        for (int n = 0; n < EIGHTHS; n++) {
            const float pair[2] = {result[n][2 * h] * factor[h], result[n][2 * h + 1] * factor[h]};
            if (n * 8 < like.width) store<2>(to + (int64_t)(row + 8 * h) * like.stride + n * 8, pair);
        }
    }
}

#endif
