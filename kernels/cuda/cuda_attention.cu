// Attention by tiles with a running softmax (FlashAttention, arXiv 2205.14135), for every head size and dtype.
#include "kernels/cuda/attention_mma.h"
#include "kernels/cuda/attention_tiles.cuh"

namespace {

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;

// A block: a tile of queries of one image and head (blockIdx.y). Scores are kept times log2(e): exponentials are powers
// of two.
template <int CHUNKS>
__global__ void __launch_bounds__(BLOCK_LIMIT, CHUNKS <= 5 ? 2 : 1)
    attention(attention_shape s, const void *q_data, const void *k_data, const void *v_data, void *y, float *lse) {
    DYNAMIC_SHARED(float, staging);
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, rows = (int)blockDim.x / 32 * ROWS_PER_WARP;
    const int first = (int)blockIdx.x * rows, row = first + warp * ROWS_PER_WARP;  // of the block, of the warp
    float *weights = staging + s.staging + warp * COLUMNS * WEIGHT_STRIDE;
    const head_matrix q = head_of(s, q_data, s.queries), k = head_of(s, k_data, s.keys), v = head_of(s, v_data, s.keys);
    float result[ROWS_PER_WARP][CHUNKS], most[ROWS_PER_WARP], sum[ROWS_PER_WARP], scores[ROWS_PER_WARP][2];
#pragma unroll
    for (int i = 0; i < ROWS_PER_WARP; i++) {
        most[i] = -INFINITY;
        sum[i] = 0;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) result[i][c] = 0;
    }
    const int keys = s.causal ? min(s.keys, first + rows) : s.keys;  // that any row of the block sees
    for (int column = 0; column < keys; column += COLUMNS) {
        multiply_scores(q, k, first, column, staging, scores);
#pragma unroll
        for (int i = 0; i < ROWS_PER_WARP; i++) {
            const int seen = s.causal ? min(s.keys, row + i + 1) : s.keys;
#pragma unroll
            for (int j = 0; j < 2; j++)
                scores[i][j] = column + lane + 32 * j < seen ? scores[i][j] * (s.scale * LOG2_E) : -INFINITY;
            // Every row sees key 0, which is in the first tile: from there on `now` is finite.
            const float now = fmaxf(most[i], warp_most(fmaxf(scores[i][0], scores[i][1])));
            const float shrink = exp2f(most[i] - now);
            scores[i][0] = exp2f(scores[i][0] - now);
            scores[i][1] = exp2f(scores[i][1] - now);
            most[i] = now;
            sum[i] = sum[i] * shrink + warp_sum(scores[i][0] + scores[i][1]);
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) result[i][c] *= shrink;
        }
        put_weights(scores, weights);
        multiply_result<CHUNKS>(v, column, weights, staging, s.staging, result);
    }
#pragma unroll
    for (int i = 0; i < ROWS_PER_WARP; i++) {
        if (row + i >= s.queries) continue;
        const float inverse = 1.0f / sum[i];
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            if (lane + 32 * c < s.width)
                store_dtype(y, s.dtype, q.first + (int64_t)(row + i) * q.stride + lane + 32 * c,
                            result[i][c] * inverse);
        if (lse && lane == 0) lse[(int64_t)blockIdx.y * s.queries + row + i] = (most[i] + log2f(sum[i])) * LN_2;
    }
}

// delta[image, head, query] = dy . y, what the softmax's gradient subtracts. As many lanes share a query as have
// something to read, 8, 16 or 32.
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    attention_delta(attention_shape s, attention_gradient_in in, int lanes, float *delta) {
    const int query = (int)(blockIdx.x * blockDim.x + threadIdx.x) / lanes, lane = (int)threadIdx.x % lanes;
    const head_matrix dy = head_of(s, in.dy, s.queries), y = head_of(s, in.y, s.queries);
    const int64_t at = dy.first + (int64_t)query * dy.stride;
    float sum = 0;
    for (int c = lane * 8; query < s.queries && c < s.width; c += lanes * 8) {
        float a[8], b[8];
        load_eight(dy, at + c, s.width - c, a);
        load_eight(y, at + c, s.width - c, b);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += a[i] * b[i];
    }
    for (int step = lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
    if (lane == 0 && query < s.queries) delta[(int64_t)blockIdx.y * s.queries + query] = sum;
}

// One of the three gradients, by blockIdx.z. Rows are what the gradient is of, columns what it sums over:
//   dq: rows are queries. scores = q k^T, weights = P (dy v^T - delta) scale, result = weights k
//   dk: rows are keys.    scores = k q^T, weights = the transpose of those,   result = weights q
//   dv: rows are keys.    scores = k q^T, weights = P^T,                      result = weights dy
// The probabilities P come again from lse. Nothing is added atomically: the order of sums is that of the columns.
template <int CHUNKS>
__global__ void __launch_bounds__(BLOCK_LIMIT, CHUNKS <= 3 ? 2 : 1)
    attention_gradient(attention_shape s, attention_gradient_in in, const float *delta, void *dq, void *dk, void *dv) {
    DYNAMIC_SHARED(float, staging);
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, rows = (int)blockDim.x / 32 * ROWS_PER_WARP;
    const int first = (int)blockIdx.x * rows, row = first + warp * ROWS_PER_WARP;
    float *weights = staging + s.staging + warp * COLUMNS * WEIGHT_STRIDE;
    const bool of_query = blockIdx.z == 0, of_value = blockIdx.z == 2;
    const head_matrix q = head_of(s, in.q, s.queries), k = head_of(s, in.k, s.keys);
    const head_matrix dy = head_of(s, in.dy, s.queries), v = head_of(s, in.v, s.keys);
    const int row_count = of_query ? s.queries : s.keys, columns = of_query ? s.keys : s.queries;
    if (first >= row_count) return;
    // Causal: queries see keys up to their own index.
    const int begin = s.causal && !of_query ? first / COLUMNS * COLUMNS : 0;
    const int end = s.causal && of_query ? min(columns, first + rows) : columns;
    const float *lse = in.lse + (int64_t)blockIdx.y * s.queries;
    delta += (int64_t)blockIdx.y * s.queries;
    float result[ROWS_PER_WARP][CHUNKS], scores[ROWS_PER_WARP][2], slopes[ROWS_PER_WARP][2];
#pragma unroll
    for (int i = 0; i < ROWS_PER_WARP; i++)
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) result[i][c] = 0;
    for (int column = begin; column < end; column += COLUMNS) {
        multiply_scores(pick(of_query, q, k), pick(of_query, k, q), first, column, staging, scores);
        if (!of_value) multiply_scores(pick(of_query, dy, v), pick(of_query, v, dy), first, column, staging, slopes);
#pragma unroll
        for (int i = 0; i < ROWS_PER_WARP; i++) {
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int c = column + lane + 32 * j, query = of_query ? row + i : c, key = of_query ? c : row + i;
                float weight = 0;
                if (query < s.queries && key < s.keys && !(s.causal && key > query)) {
                    weight = exp2f(scores[i][j] * (s.scale * LOG2_E) - lse[query] * LOG2_E);
                    if (!of_value) weight *= (slopes[i][j] - delta[query]) * s.scale;
                }
                scores[i][j] = weight;
            }
        }
        put_weights(scores, weights);
        multiply_result<CHUNKS>(pick(of_value, dy, pick(of_query, k, q)), column, weights, staging, s.staging, result);
    }
    void *out = of_query ? dq : of_value ? dv : dk;
    const head_matrix like = pick(of_query, q, k);
#pragma unroll
    for (int i = 0; i < ROWS_PER_WARP; i++) {
        if (row + i >= row_count) continue;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            if (lane + 32 * c < s.width)
                store_dtype(out, s.dtype, like.first + (int64_t)(row + i) * like.stride + lane + 32 * c, result[i][c]);
    }
}

unsigned warps_of_attention() {
    const unsigned warps = pb_cuda_threads / 32;
    return warps < WARPS_FOR_ATTENTION ? warps : WARPS_FOR_ATTENTION;
}

}  // namespace

// in: q k v   out: y lse?
extern "C" pb_status pb_cuda_attention_own(const pb_kernel_args *args, void *stream) {
    const pb_tensor *in = args->in, *y = &args->out[0];
    return with_chunks("attention", args->attr, &in[0], [&](auto chunks) {
        constexpr int CHUNKS = decltype(chunks)::value;
        const unsigned warps = warps_of_attention();
        attention_shape s = attention_shape_of(args->attr, &in[0], &in[1], warps, CHUNKS);
        s.in_runs = s.in_runs && are_aligned(&in[0], &in[1], &in[2]);
        if (attention_mma_has(s) && is_aligned(y->data))
            return attention_mma_launch(s, in[0].data, in[1].data, in[2].data, y->data,
                                        static_cast<float *>(args->out[1].data), stream);
        const dim3 grid((unsigned)divide_up(s.queries, warps * ROWS_PER_WARP), (unsigned)(s.images * s.heads));
        return launch("attention", attention<CHUNKS>, grid, warps * 32, attention_shared(s, warps), stream, s,
                      static_cast<const void *>(in[0].data), static_cast<const void *>(in[1].data),
                      static_cast<const void *>(in[2].data), y->data, static_cast<float *>(args->out[1].data));
    });
}

// delta, and where parts of dk and dv begin.
static int64_t delta_floats(const pb_kernel_args *args) {
    return divide_up(pb_shape_count(args->in[5].shape), 64) * 64;
}

extern "C" uint64_t pb_cuda_attention_own_bwd_workspace(const pb_kernel_args *args) {
    const attention_shape s = attention_shape_of(args->attr, &args->in[1], &args->in[2], 1, 1);
    return (uint64_t)(delta_floats(args) + attention_part_floats(s)) * sizeof(float);
}

// in: dy q k v y lse   out: dq dk dv
extern "C" pb_status pb_cuda_attention_own_bwd(const pb_kernel_args *args, void *stream) {
    const pb_tensor *in = args->in, *out = args->out;
    return with_chunks("attention_bwd", args->attr, &in[1], [&](auto chunks) {
        constexpr int CHUNKS = decltype(chunks)::value;
        const unsigned warps = warps_of_attention(), rows = warps * ROWS_PER_WARP;
        attention_shape s = attention_shape_of(args->attr, &in[1], &in[2], warps, CHUNKS);
        s.in_runs = s.in_runs && are_aligned(&in[0], &in[1], &in[2]) && are_aligned(&in[3], &in[4], &in[4]);
        const attention_gradient_in from = {in[0].data, in[1].data, in[2].data,
                                            in[3].data, in[4].data, static_cast<const float *>(in[5].data)};
        float *delta = static_cast<float *>(args->workspace);
        const unsigned heads = (unsigned)(s.images * s.heads);
        const int lanes = s.width <= 64 ? 8 : s.width <= 128 ? 16 : 32;
        PB_RETURN_IF(launch("attention_bwd", attention_delta,
                            dim3((unsigned)divide_up((int64_t)s.queries * lanes, warps * 32), heads), warps * 32, 0,
                            stream, s, from, lanes, delta));
        if (attention_mma_has(s) && are_aligned(&out[0], &out[1], &out[2]))
            return attention_gradient_mma_launch(s, from, delta, delta + delta_floats(args), out[0].data, out[1].data,
                                                 out[2].data, stream);
        const int64_t most = s.queries > s.keys ? s.queries : s.keys;
        return launch("attention_bwd", attention_gradient<CHUNKS>, dim3((unsigned)divide_up(most, rows), heads, 3),
                      warps * 32, attention_shared(s, warps), stream, s, from, static_cast<const float *>(delta),
                      out[0].data, out[1].data, out[2].data);
    });
}
