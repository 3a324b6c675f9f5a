// Attention in 16 bits on matrix units (from sm_80 on), after FlashAttention-2 (arXiv 2307.08691): scores stay in
// registers, probabilities are rounded to the storage dtype for the second product, sums are fp32. The gradient is one
// kernel for dq, dk and dv, nothing atomic.
#include "kernels/cuda/attention_mma.h"
#include "kernels/cuda/mma_tiles.cuh"

namespace {

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;

// A tile of keys travels while the tile of values before it is used, and the other way round: both are copied
// asynchronously, into one place each.
template <typename T, int EIGHTHS>
__global__ void __launch_bounds__(MMA_WARPS * 32, EIGHTHS <= 5    ? 4
                                                  : EIGHTHS <= 10 ? 3
                                                                  : 2)
    attention_mma(attention_shape s, const void *q_data, const void *k_data, const void *v_data, void *y, float *lse) {
    DYNAMIC_SHARED(uint16_t, k_tile);
    uint16_t *v_tile = k_tile + MMA_TILE * MMA_STRIDE<EIGHTHS>;
    const head_matrix q = head_of(s, q_data, s.queries), k = head_of(s, k_data, s.keys), v = head_of(s, v_data, s.keys);
    const int lane = (int)threadIdx.x % 32, first = (int)blockIdx.x * MMA_TILE;
    const int row = first + (int)threadIdx.x / 32 * MMA_ROWS + lane / 4;  // and row + 8
    const float power = s.scale * LOG2_E;                                 // of two, per unit of a score
    uint32_t left[MMA_STEPS<EIGHTHS>][4];
    float result[EIGHTHS][4], scores[MMA_TILE / 8][4], most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    stage_tile<EIGHTHS>(q, first, v_tile);
    commit_copies();
    stage_tile<EIGHTHS>(k, 0, k_tile);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    load_left<EIGHTHS>(v_tile, left);
#pragma unroll
    for (int n = 0; n < EIGHTHS; n++) result[n][0] = result[n][1] = result[n][2] = result[n][3] = 0;
    const int keys = s.causal ? min(s.keys, first + MMA_TILE) : s.keys;
    for (int column = 0; column < keys; column += MMA_TILE) {
        wait_copies<0>();  // the keys are there, and nobody looks at the values before
        __syncthreads();
        stage_tile<EIGHTHS>(v, column, v_tile);
        commit_copies();
        mma_scores<T, EIGHTHS>(left, k_tile, scores);
        wait_copies<0>();
        __syncthreads();
        if (column + MMA_TILE < keys) stage_tile<EIGHTHS>(k, column + MMA_TILE, k_tile);
        commit_copies();
        if (column + MMA_TILE > (s.causal ? min(s.keys, first + 1) : s.keys)) {  // some row does not see all of them
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int seen = (s.causal ? min(s.keys, row + 8 * h + 1) : s.keys) - column - lane % 4 * 2;
#pragma unroll
                for (int n = 0; n < MMA_TILE / 8; n++) {
                    if (n * 8 >= seen) scores[n][2 * h] = -INFINITY;
                    if (n * 8 + 1 >= seen) scores[n][2 * h + 1] = -INFINITY;
                }
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float now = most[h], total = 0;
#pragma unroll
            for (int n = 0; n < MMA_TILE / 8; n++) now = fmaxf(now, fmaxf(scores[n][2 * h], scores[n][2 * h + 1]));
            now = row_most(now);  // finite: every row sees key 0, which is in the first tile
            // Exponents are fused multiply-adds with one rounded offset, which sum and lse have too.
            const float offset = now * power, shrink = exp2_flushed(most[h] * power - offset);
            most[h] = now;
#pragma unroll
            for (int n = 0; n < MMA_TILE / 8; n++) {
#pragma unroll
                for (int j = 2 * h; j < 2 * h + 2; j++) {
                    scores[n][j] = exp2_flushed(fmaf(scores[n][j], power, -offset));
                    total += scores[n][j];
                }
            }
            sum[h] = sum[h] * shrink + total;  // this lane's share
#pragma unroll
            for (int n = 0; n < EIGHTHS; n++) {
                result[n][2 * h] *= shrink;
                result[n][2 * h + 1] *= shrink;
            }
        }
        mma_result<T, EIGHTHS>(scores, v_tile, result);
    }
    sum[0] = row_sum(sum[0]);
    sum[1] = row_sum(sum[1]);
    const float inverse[2] = {1.0f / sum[0], 1.0f / sum[1]};
    store_result<T, EIGHTHS>(result, inverse, q, row, y);
#pragma unroll
    for (int h = 0; h < 2; h++)
        if (lse && lane % 4 == 0 && row + 8 * h < s.queries)
            lse[(int64_t)blockIdx.y * s.queries + row + 8 * h] = (most[h] * power + log2f(sum[h])) * LN_2;
}

// A third of the blocks, or half, own queries and make dq; the others own keys. Where a head's registers allow it
// (SPLIT is false) these make dk and dv at once, else there are blocks for each. So the scores are formed two or three
// times, seven or eight products of tiles where five would do with atomics, and the sums are in the same order in every
// run. Blocks that own keys come first: in cross attention they are few and have all queries to go through. What the
// softmax left of a query is in registers where the block owns it, and else staged with the queries. COLUMNS are staged
// at a time, into one of two places, while the other one is used; the second holds the block's own rows first.
template <typename T, int EIGHTHS, int COLUMNS, bool SPLIT>
__global__ void __launch_bounds__(MMA_WARPS * 32, 2)
    attention_gradient_mma(attention_shape s, attention_gradient_in in, const float *delta, int key_tiles, int parts,
                           float *partial, void *dq, void *dk, void *dv) {
    constexpr int EIGHTS = COLUMNS / 8;
    constexpr int TILE = COLUMNS * MMA_STRIDE<EIGHTHS>, PLACE = 2 * TILE + 4 * COLUMNS;  // of two tiles, lse and delta
    DYNAMIC_SHARED(uint16_t, shared);
    const int of_keys = key_tiles * parts, block = (int)blockIdx.x;
    const bool of_query = block >= (SPLIT ? 2 : 1) * of_keys, of_value = SPLIT && !of_query && block >= of_keys;
    const int part = of_query ? 0 : block / key_tiles % parts;
    const head_matrix q = head_of(s, in.q, s.queries), k = head_of(s, in.k, s.keys);
    const head_matrix dy = head_of(s, in.dy, s.queries), v = head_of(s, in.v, s.keys);
    const head_matrix rows = pick(of_query, q, k), columns = pick(of_query, k, q);
    const head_matrix row_slopes = pick(of_query, dy, v), column_slopes = pick(of_query, v, dy);
    const int lane = (int)threadIdx.x % 32,
              first = (of_query ? block - (SPLIT ? 2 : 1) * of_keys : block % key_tiles) * MMA_TILE;
    const int row = first + (int)threadIdx.x / 32 * MMA_ROWS + lane / 4;  // and row + 8
    const int tiles = (columns.tokens + COLUMNS - 1) / COLUMNS, each = of_query ? tiles : (tiles + parts - 1) / parts;
    const int begin = s.causal && !of_query ? first : part * each * COLUMNS;
    const int seen = s.causal && of_query ? first + MMA_TILE : s.causal ? columns.tokens : begin + each * COLUMNS;
    const int end = min(columns.tokens, seen);
    const float power = s.scale * LOG2_E, *lse = in.lse + (int64_t)blockIdx.y * s.queries;
    delta += (int64_t)blockIdx.y * s.queries;
    uint32_t left[MMA_STEPS<EIGHTHS>][4], left_slopes[MMA_STEPS<EIGHTHS>][4];
    float result[EIGHTHS][4], values[SPLIT ? 1 : EIGHTHS][4];  // dq, dk or dv; dv beside dk
    float scores[EIGHTS][4], slopes[EIGHTS][4], row_lse[2] = {0, 0}, row_delta[2] = {0, 0};
    const auto stage = [&](int column, uint16_t *to) {
        stage_tile<EIGHTHS, COLUMNS>(columns, column, to);
        stage_tile<EIGHTHS, COLUMNS>(column_slopes, column, to + TILE);
        if (of_query) return;
        float *floats = reinterpret_cast<float *>(to + 2 * TILE);
        const int i = (int)threadIdx.x % COLUMNS, at = column + i;
        const bool is_there = at < s.queries;
        if ((int)threadIdx.x < COLUMNS)
            copy_async<4>(floats + i, lse + (is_there ? at : 0), is_there);
        else if ((int)threadIdx.x < 2 * COLUMNS)
            copy_async<4>(floats + COLUMNS + i, delta + (is_there ? at : 0), is_there);
    };
    uint16_t *const own = shared + PLACE;
    stage_tile<EIGHTHS>(rows, first, own);
    if (COLUMNS == MMA_TILE) stage_tile<EIGHTHS>(row_slopes, first, own + TILE);
    commit_copies();
    if (begin < end) stage(begin, shared);
    commit_copies();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (!of_query || row + 8 * h >= s.queries) continue;
        row_lse[h] = lse[row + 8 * h] * LOG2_E;
        row_delta[h] = delta[row + 8 * h];
    }
    wait_copies<1>();
    __syncthreads();
    load_left<EIGHTHS>(own, left);
    if (COLUMNS < MMA_TILE) {
        __syncthreads();
        stage_tile<EIGHTHS>(row_slopes, first, own);
        commit_copies();
        wait_copies<0>();
        __syncthreads();
    }
    load_left<EIGHTHS>(COLUMNS < MMA_TILE ? own : own + TILE, left_slopes);
#pragma unroll
    for (int n = 0; n < EIGHTHS; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) result[n][j] = 0;
    if constexpr (!SPLIT) {
#pragma unroll
        for (int n = 0; n < EIGHTHS; n++)
#pragma unroll
            for (int j = 0; j < 4; j++) values[n][j] = 0;
    }
    int place = 0;
    for (int column = begin; column < end; column += COLUMNS) {
        wait_copies<0>();  // these columns are there, and nobody looks at the other place any more
        __syncthreads();
        const uint16_t *tile = shared + place, *second_tile = tile + TILE;
        const float *lse_tile = reinterpret_cast<const float *>(second_tile + TILE), *delta_tile = lse_tile + COLUMNS;
        place = PLACE - place;
        if (column + COLUMNS < end) stage(column + COLUMNS, shared + place);
        commit_copies();
        mma_scores<T, EIGHTHS>(left, tile, scores);
        // Whether some score of the tile is of a key that its query does not see. Beyond the last query all is zero,
        // with its gradient, and adds nothing; beyond the last row what comes out is not stored.
        const bool has_unseen = of_query ? column + COLUMNS > (s.causal ? min(s.keys, first + 1) : s.keys)
                                         : s.causal && column < first + MMA_TILE;
        if (has_unseen) {
#pragma unroll
            for (int n = 0; n < EIGHTS; n++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const int r = row + j / 2 * 8, c = column + n * 8 + lane % 4 * 2 + j % 2;
                    const int query = of_query ? r : c, key = of_query ? c : r;
                    if (key >= s.keys || (s.causal && key > query)) scores[n][j] = -INFINITY;
                }
            }
        }
        if (of_query) {
#pragma unroll
            for (int n = 0; n < EIGHTS; n++)
#pragma unroll
                for (int j = 0; j < 4; j++) scores[n][j] = exp2_flushed(fmaf(scores[n][j], power, -row_lse[j / 2]));
        } else {
#pragma unroll
            for (int n = 0; n < EIGHTS; n++) {
                float its_lse[2];
                load<2>(lse_tile + n * 8 + lane % 4 * 2, its_lse);
#pragma unroll
                for (int j = 0; j < 4; j++)
                    scores[n][j] = exp2_flushed(fmaf(scores[n][j], power, -LOG2_E * its_lse[j % 2]));
            }
        }
        if constexpr (!SPLIT) {
            if (!of_query) mma_result<T, EIGHTHS>(scores, second_tile, values);
        }
        if (of_value) {
            mma_result<T, EIGHTHS>(scores, second_tile, result);
        } else {
            mma_scores<T, EIGHTHS>(left_slopes, second_tile, slopes);
            // Rounded to T by the product, before the scale, which may be small.
            if (of_query) {
#pragma unroll
                for (int n = 0; n < EIGHTS; n++)
#pragma unroll
                    for (int j = 0; j < 4; j++) scores[n][j] *= slopes[n][j] - row_delta[j / 2];
            } else {
#pragma unroll
                for (int n = 0; n < EIGHTS; n++) {
                    float its_delta[2];
                    load<2>(delta_tile + n * 8 + lane % 4 * 2, its_delta);
#pragma unroll
                    for (int j = 0; j < 4; j++) scores[n][j] *= slopes[n][j] - its_delta[j % 2];
                }
            }
            mma_result<T, EIGHTHS>(scores, tile, result);
        }
    }
    const float plain[2] = {1.0f, 1.0f}, factor[2] = {of_value ? 1.0f : s.scale, of_value ? 1.0f : s.scale};
    if (partial && !of_query) {
        const int64_t of_one = (int64_t)s.images * s.keys * rows.stride;
        partial += 2 * part * of_one;
        store_part<EIGHTHS>(result, factor, rows, row, partial + (of_value ? of_one : 0));
        if constexpr (!SPLIT) store_part<EIGHTHS>(values, plain, rows, row, partial + of_one);
        return;
    }
    store_result<T, EIGHTHS>(result, factor, rows, row, of_query ? dq : of_value ? dv : dk);
    if constexpr (!SPLIT) {
        if (!of_query) store_result<T, EIGHTHS>(values, plain, rows, row, dv);
    }
}

// dk and dv, one behind the other: the sums of their parts, in order.
template <typename T> struct add_parts_body {
    static constexpr int WIDTH = VECTOR<float>;
    const float *partial;
    T *dk, *dv;
    int64_t of_one;
    int parts;
    template <int N> __device__ void run(int64_t i) const {
        float sum[N], x[N];
        load<N>(partial + i, sum);
        for (int part = 1; part < parts; part++) {
            load<N>(partial + 2 * part * of_one + i, x);
#pragma unroll
            for (int k = 0; k < N; k++) sum[k] += x[k];
        }
        store<N>(i < of_one ? dk + i : dv + (i - of_one), sum);
    }
};

template <int EIGHTHS, int COLUMNS = MMA_TILE>
constexpr size_t SHARED_BYTES = 2 * COLUMNS *MMA_STRIDE<EIGHTHS> * sizeof(uint16_t);

// Runs f(T(), eighths) with the smallest number of eight channels that holds a head.
template <class F> pb_status with_eighths(pb_dtype dtype, int width, F f) {
    const auto typed = [&](auto eighths) { return dtype == PB_F16 ? f(pb_f16(), eighths) : f(pb_bf16(), eighths); };
    if (width <= 40) return typed(std::integral_constant<int, 5>());
    if (width <= 64) return typed(std::integral_constant<int, 8>());
    if (width <= 80) return typed(std::integral_constant<int, 10>());
    return typed(std::integral_constant<int, 20>());
}

}  // namespace

bool attention_mma_has(const attention_shape &s) {
    const int64_t tokens = s.queries > s.keys ? s.queries : s.keys;
    return s.dtype != PB_F32 && s.in_runs && s.width <= 160 && s.scale > 0 && has_matrix_units() &&
           (tokens + MMA_TILE) * s.heads * s.width <= INT32_MAX;  // stage_tile counts the elements of an image so
}

pb_status attention_mma_launch(const attention_shape &s, const void *q, const void *k, const void *v, void *y,
                               float *lse, void *stream) {
    const dim3 grid((unsigned)divide_up(s.queries, MMA_TILE), (unsigned)(s.images * s.heads));
    return with_eighths(s.dtype, s.width, [&](auto element, auto eighths) {
        using T = decltype(element);
        constexpr int EIGHTHS = decltype(eighths)::value;
        return launch("attention", attention_mma<T, EIGHTHS>, grid, MMA_WARPS * 32, SHARED_BYTES<EIGHTHS>, stream, s, q,
                      k, v, y, lse);
    });
}

pb_status attention_gradient_mma_launch(const attention_shape &s, const attention_gradient_in &in, const float *delta,
                                        float *partial, void *dq, void *dk, void *dv, void *stream) {
    const int parts = attention_parts(s), key_tiles = (int)divide_up(s.keys, MMA_TILE);
    const int query_tiles = (int)divide_up(s.queries, MMA_TILE);
    return with_eighths(s.dtype, s.width, [&](auto element, auto eighths) {
        using T = decltype(element);
        constexpr int EIGHTHS = decltype(eighths)::value;
        constexpr bool SPLIT = EIGHTHS > 10;
        constexpr int COLUMNS = SPLIT ? MMA_TILE / 2 : MMA_TILE;
        const dim3 grid((unsigned)((SPLIT ? 2 : 1) * parts * key_tiles + query_tiles), (unsigned)(s.images * s.heads));
        PB_RETURN_IF(launch("attention_bwd", attention_gradient_mma<T, EIGHTHS, COLUMNS, SPLIT>, grid, MMA_WARPS * 32,
                            2 * (SHARED_BYTES<EIGHTHS, COLUMNS> + 2 * COLUMNS * sizeof(float)), stream, s, in, delta,
                            key_tiles, parts, parts > 1 ? partial : NULL, dq, dk, dv));
        if (parts == 1) return PB_OK;
        const int64_t of_one = (int64_t)s.images * s.keys * s.heads * s.width;
        const add_parts_body<T> body = {partial, static_cast<T *>(dk), static_cast<T *>(dv), of_one, parts};
        return launch_over("attention_bwd", body, 2 * of_one, true, of_one, stream);
    });
}
