// Products of tiles in shared memory, shared by attention and its gradient. In both, a block owns ROWS rows of one head
// (queries, or keys) and goes over all columns (keys, or queries) in tiles:
//
//   scores[row, column] = sum over the head's channels of a[row, :] b[column, :]    in steps of STEP channels
//   result[row, :]     += sum over columns of weights[row, column] b[column, :]
//
// A warp owns ROWS_PER_WARP rows: a lane has the columns lane, lane + 32 of the scores and the channels lane, lane +
// 32, .. of the result, so that a row's maximum and sum are shuffles, and its weights pass from the one product to the
// other within the warp. Memory is linear in the tokens. Arithmetic is in fp32, whatever the storage; this is the path
// for every card, dtype and head size, not the fastest one where matrix units could do it.
#ifndef PB_KERNELS_CUDA_ATTENTION_TILES_CUH
#define PB_KERNELS_CUDA_ATTENTION_TILES_CUH

#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/elements.cuh"

constexpr int ROWS_PER_WARP = 8, COLUMNS = 64, STEP = 32;
constexpr int STEP_STRIDE = STEP + 4;  // floats between tokens in a staged step: 16-byte reads without conflicts
constexpr int WEIGHT_STRIDE = ROWS_PER_WARP + 4;  // floats between columns in a warp's weights, likewise
constexpr int WARPS_FOR_ATTENTION = 8;

struct head_matrix {  // one head of x[N, tokens, heads * width]
    const void *data;
    pb_dtype dtype;
    int64_t first;  // index of token 0's first channel
    int stride;     // elements between tokens
    int tokens, width;
    bool in_runs;  // 8 channels at a time are aligned
};

// Elements from index `at`: 8, of which those from `count` on are zeros.
__device__ __forceinline__ void load_eight(const head_matrix &x, int64_t at, int count, float (&to)[8]) {
    if (x.in_runs && count >= 8) {
        if (x.dtype == PB_F16)
            load<8>(static_cast<const pb_f16 *>(x.data) + at, to);
        else if (x.dtype == PB_BF16)
            load<8>(static_cast<const pb_bf16 *>(x.data) + at, to);
        else
            load<8>(static_cast<const float *>(x.data) + at, to);
        return;
    }
#pragma unroll
    for (int k = 0; k < 8; k++) {
        to[k] = 0;
        if (k >= count) continue;
        if (x.dtype == PB_F16)
            to[k] = load_one(static_cast<const pb_f16 *>(x.data) + at + k);
        else if (x.dtype == PB_BF16)
            to[k] = load_one(static_cast<const pb_bf16 *>(x.data) + at + k);
        else
            to[k] = load_one(static_cast<const float *>(x.data) + at + k);
    }
}

// to[token - begin][STEP_STRIDE] = STEP channels from `channel` of `count` tokens; zeros beyond the matrix.
__device__ __forceinline__ void stage_step(const head_matrix &x, int begin, int count, int channel, float *to) {
    for (int i = (int)threadIdx.x; i < count * (STEP / 8); i += (int)blockDim.x) {
        const int token = i / (STEP / 8), c = i % (STEP / 8) * 8;
        float value[8];
        const int left = begin + token < x.tokens ? x.width - channel - c : 0;
        load_eight(x, x.first + (int64_t)(begin + token) * x.stride + channel + c, left, value);
        float4 *at = reinterpret_cast<float4 *>(to + token * STEP_STRIDE + c);
        at[0] = make_float4(value[0], value[1], value[2], value[3]);
        at[1] = make_float4(value[4], value[5], value[6], value[7]);
    }
}

// to[token - begin][32 CHUNKS]: all channels of `count` tokens.
template <int CHUNKS>
__device__ __forceinline__ void stage_rows(const head_matrix &x, int begin, int count, float *to) {
    for (int i = (int)threadIdx.x; i < count * (CHUNKS * 4); i += (int)blockDim.x) {
        const int token = i / (CHUNKS * 4), c = i % (CHUNKS * 4) * 8;
        float value[8];
        const int left = begin + token < x.tokens ? x.width - c : 0;
        load_eight(x, x.first + (int64_t)(begin + token) * x.stride + c, left, value);
        float4 *at = reinterpret_cast<float4 *>(to + token * (CHUNKS * 32) + c);
        at[0] = make_float4(value[0], value[1], value[2], value[3]);
        at[1] = make_float4(value[4], value[5], value[6], value[7]);
    }
}

// Floats of the buffer for staged operands: two steps, or rows of the second product.
static inline int staging_floats(unsigned warps, int chunks) {
    const int steps = ((int)warps * ROWS_PER_WARP + COLUMNS) * STEP_STRIDE, rows = 8 * 32 * chunks;
    return steps > rows ? steps : rows;
}

// scores[i][j] of this lane: row i of its warp, column lane + 32 j of the tile that begins at `column`.
__device__ __forceinline__ void multiply_scores(const head_matrix &a, const head_matrix &b, int row, int column,
                                                float *staging, float (&scores)[ROWS_PER_WARP][2]) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, rows = (int)blockDim.x / 32 * ROWS_PER_WARP;
    float *rows_step = staging, *columns_step = staging + rows * STEP_STRIDE;
#pragma unroll
    for (int i = 0; i < ROWS_PER_WARP; i++) scores[i][0] = scores[i][1] = 0;
    for (int channel = 0; channel < a.width; channel += STEP) {
        stage_step(a, row, rows, channel, rows_step);
        stage_step(b, column, COLUMNS, channel, columns_step);
        __syncthreads();
        const int end = min(STEP, (a.width - channel + 3) / 4 * 4);
        for (int c = 0; c < end; c += 4) {
            const float4 first = *reinterpret_cast<const float4 *>(columns_step + lane * STEP_STRIDE + c);
            const float4 second = *reinterpret_cast<const float4 *>(columns_step + (lane + 32) * STEP_STRIDE + c);
#pragma unroll
            for (int i = 0; i < ROWS_PER_WARP; i++) {
                const float4 x =
                    *reinterpret_cast<const float4 *>(rows_step + (warp * ROWS_PER_WARP + i) * STEP_STRIDE + c);
                scores[i][0] += x.x * first.x + x.y * first.y + x.z * first.z + x.w * first.w;
                scores[i][1] += x.x * second.x + x.y * second.y + x.z * second.z + x.w * second.w;
            }
        }
        __syncthreads();
    }
}

// The warp's weights to its part of shared memory, weights[column][row], for multiply_result, whose barriers also keep
// them apart from the weights before and after.
__device__ __forceinline__ void put_weights(const float (&weight)[ROWS_PER_WARP][2], float *weights) {
    static_assert(ROWS_PER_WARP == 8, "two accesses per column");
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        float4 *to = reinterpret_cast<float4 *>(weights + (lane + 32 * j) * WEIGHT_STRIDE);
        to[0] = make_float4(weight[0][j], weight[1][j], weight[2][j], weight[3][j]);
        to[1] = make_float4(weight[4][j], weight[5][j], weight[6][j], weight[7][j]);
    }
}

// result[i][k] += over the tile's columns, for row i of this warp and channel lane + 32 k.
template <int CHUNKS>
__device__ __forceinline__ void multiply_result(const head_matrix &b, int column, const float *weights, float *staging,
                                                int staging_size, float (&result)[ROWS_PER_WARP][CHUNKS]) {
    const int lane = (int)threadIdx.x % 32, at_once = min(COLUMNS, staging_size / (32 * CHUNKS));
    const int columns = min(COLUMNS, b.tokens - column);
    for (int done = 0; done < columns; done += at_once) {
        const int count = min(at_once, columns - done);
        stage_rows<CHUNKS>(b, column + done, count, staging);
        __syncthreads();
        for (int j = 0; j < count; j++) {
            const float4 *from = reinterpret_cast<const float4 *>(weights + (done + j) * WEIGHT_STRIDE);
            const float4 low = from[0], high = from[1];
#pragma unroll
            for (int k = 0; k < CHUNKS; k++) {
                const float value = staging[j * (32 * CHUNKS) + lane + 32 * k];
                result[0][k] += low.x * value;
                result[1][k] += low.y * value;
                result[2][k] += low.z * value;
                result[3][k] += low.w * value;
                result[4][k] += high.x * value;
                result[5][k] += high.y * value;
                result[6][k] += high.z * value;
                result[7][k] += high.w * value;
            }
        }
        __syncthreads();
    }
}

__device__ __forceinline__ void store_dtype(void *data, pb_dtype dtype, int64_t at, float x) {
    if (dtype == PB_F16)
        store_one(static_cast<pb_f16 *>(data) + at, x);
    else if (dtype == PB_BF16)
        store_one(static_cast<pb_bf16 *>(data) + at, x);
    else
        store_one(static_cast<float *>(data) + at, x);
}

struct attention_shape {
    pb_dtype dtype;
    int images, heads, width, queries, keys;
    bool causal, in_runs;
    float scale;
    int staging;  // floats of shared memory before the weights
};

__device__ __forceinline__ head_matrix head_of(const attention_shape &s, const void *data, int tokens) {
    const int64_t image = blockIdx.y / s.heads, head = blockIdx.y % s.heads;
    head_matrix x;
    x.data = data;
    x.dtype = s.dtype;
    x.stride = s.heads * s.width;
    x.first = image * tokens * x.stride + head * s.width;
    x.tokens = tokens;
    x.width = s.width;
    x.in_runs = s.in_runs;
    return x;
}

static inline attention_shape attention_shape_of(const pb_attr *attr, const pb_tensor *q, const pb_tensor *k,
                                                 unsigned warps, int chunks) {
    attention_shape s;
    s.dtype = q->dtype;
    s.images = (int)q->shape.dim[0];
    s.heads = attr->attention.heads;
    s.width = (int)pb_shape_last(q->shape) / s.heads;
    s.queries = (int)(pb_shape_rows(q->shape) / s.images);
    s.keys = (int)(pb_shape_rows(k->shape) / s.images);
    s.causal = attr->attention.causal;
    s.scale = attr->attention.scale;
    s.in_runs = s.width % 8 == 0;
    s.staging = staging_floats(warps, chunks);
    return s;
}

static inline size_t attention_shared(const attention_shape &s, unsigned warps) {
    return ((size_t)s.staging + (size_t)warps * COLUMNS * WEIGHT_STRIDE) * sizeof(float);
}

// Runs f with the smallest number of 32-channel chunks that holds a head: heads of 40, 64, 80, 160 and 512 channels.
template <class F> pb_status with_chunks(const char *op, const pb_attr *attr, const pb_tensor *q, F f) {
    const int64_t width = pb_shape_last(q->shape) / attr->attention.heads;
    if (width <= 64) return f(std::integral_constant<int, 2>());
    if (width <= 96) return f(std::integral_constant<int, 3>());
    if (width <= 160) return f(std::integral_constant<int, 5>());
    if (width <= 512) return f(std::integral_constant<int, 16>());
    return pb_error(PB_ERR_UNSUPPORTED, "the CUDA kernel of %s has no path for heads of %lld channels, at most 512", op,
                    (long long)width);
}

#endif
