// Sums over the rows of x[images, rows, channels], channel by channel, and the geometry that all kernels share that go
// over such tensors with their channels across the threads.
//
//   grid: (chunks of rows, slabs of channels, images)      block: columns (runs of V channels) x lanes (rows)
//
// A block adds up its chunk: each thread its rows, then the lanes in order through shared memory, which is laid out
// [sum][lane][k][column], so that neither side has bank conflicts. What the chunks leave in
// partials[image][chunk][sum][channel] is added in order by whoever needs it.
#ifndef PB_KERNELS_CUDA_COLUMNS_CUH
#define PB_KERNELS_CUDA_COLUMNS_CUH

#include "kernels/cuda/elements.cuh"

struct column_plan {
    int images, channels, slab, slabs, chunks;
    int64_t rows, rows_per_chunk;
};

constexpr int MOST_CHUNKS = 64, BLOCK_ELEMENTS = 16 * 1024, SLAB_CHANNELS = 512;

// `unit`: slabs are multiples of so many channels, which is then at most MOST_SLAB. The chunks do not depend on it.
static inline column_plan column_plan_of(int64_t images, int64_t rows, int64_t channels, int64_t unit) {
    const int64_t least = divide_up(BLOCK_ELEMENTS, channels < SLAB_CHANNELS ? channels : SLAB_CHANNELS);
    const int64_t even = divide_up(rows, MOST_CHUNKS), per_chunk = even > least ? even : least;
    const int64_t most = unit < SLAB_CHANNELS ? SLAB_CHANNELS / unit * unit : unit;
    const int64_t slab = divide_up(divide_up(channels, divide_up(channels, most)), unit) * unit;
    column_plan plan;
    plan.images = (int)images;
    plan.channels = (int)channels;
    plan.slab = (int)slab;
    plan.slabs = (int)divide_up(channels, slab);
    plan.chunks = (int)divide_up(rows, per_chunk);
    plan.rows = rows;
    plan.rows_per_chunk = per_chunk;
    return plan;
}

static inline dim3 column_grid(const column_plan &plan) {
    return dim3((unsigned)plan.chunks, (unsigned)plan.slabs, (unsigned)plan.images);
}

// What this block does, and where its threads stand in a tile of at most blockDim.x columns of it.
struct column_block {
    int image, channel, width;  // first channel and channels of the slab
    int64_t row, end;           // of the chunk, within the image
};

__device__ __forceinline__ column_block column_block_of(const column_plan &plan) {
    column_block b;
    b.image = (int)blockIdx.z;
    b.channel = (int)blockIdx.y * plan.slab;
    b.width = min(plan.slab, plan.channels - b.channel);
    b.row = blockIdx.x * plan.rows_per_chunk;
    b.end = min(b.row + plan.rows_per_chunk, plan.rows);
    return b;
}

struct column_tile {
    int columns, column, lane, lanes;  // a thread whose lane is not below lanes has nothing to do
};

template <int V> __device__ __forceinline__ column_tile column_tile_of(int width_left) {
    column_tile t;
    t.columns = min(width_left / V, (int)blockDim.x);
    t.lane = (int)threadIdx.x / t.columns;
    t.column = (int)threadIdx.x - t.lane * t.columns;
    t.lanes = (int)blockDim.x / t.columns;
    return t;
}

// Bytes of shared memory that sum_columns wants.
static inline size_t column_sums_shared(const column_plan &plan, unsigned threads, int v, int sums) {
    return (size_t)sums * (threads * (size_t)v + (size_t)plan.slab) * sizeof(float);
}

// totals[sum][width], in shared memory, of the block's chunk. body.begin(image, channel) prepares what a column of V
// channels needs; body.add(at, row of all images, sums) adds the V elements from index `at`. Returns totals, complete
// and visible to the whole block.
template <int V, class Body>
__device__ __forceinline__ const float *sum_columns(Body body, const column_plan &plan, const column_block &b,
                                                    float *shared) {
    constexpr int SUMS = Body::SUMS;
    float *totals = shared, *partial = shared + SUMS * b.width;
    for (int done = 0; done < b.width; done += (int)blockDim.x * V) {
        const column_tile t = column_tile_of<V>(b.width - done);
        const int tile_width = t.columns * V;
        if (t.lane < t.lanes) {
            float sums[SUMS][V];
#pragma unroll
            for (int s = 0; s < SUMS; s++)
#pragma unroll
                for (int k = 0; k < V; k++) sums[s][k] = 0;
            const int c = b.channel + done + t.column * V;
            const int64_t before = (int64_t)b.image * plan.rows;
            body.begin(b.image, c);
            for (int64_t row = b.row + t.lane; row < b.end; row += t.lanes)
                body.add((before + row) * plan.channels + c, before + row, sums);
#pragma unroll
            for (int s = 0; s < SUMS; s++)
#pragma unroll
                for (int k = 0; k < V; k++)
                    partial[(s * t.lanes + t.lane) * tile_width + k * t.columns + t.column] = sums[s][k];
        }
        __syncthreads();
        for (int i = (int)threadIdx.x; i < SUMS * tile_width; i += (int)blockDim.x) {
            const int s = i / tile_width, at = i - s * tile_width, k = at / t.columns, column = at - k * t.columns;
            float sum = 0;
            for (int lane = 0; lane < t.lanes; lane++) sum += partial[(s * t.lanes + lane) * tile_width + at];
            totals[s * b.width + done + column * V + k] = sum;
        }
        __syncthreads();
    }
    return totals;
}

// partials[image][chunk][sum][channel]; where there is one chunk, to first and second (of sums 0 and 1) instead, unless
// both are NULL.
template <int V, class Body, typename To>
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    column_partials(Body body, column_plan plan, float *partials, To *first, To *second) {
    DYNAMIC_SHARED(float, shared);
    const column_block b = column_block_of(plan);
    const float *totals = sum_columns<V>(body, plan, b, shared);
    const bool is_final = first || second;
    float *to = partials + ((int64_t)b.image * plan.chunks + blockIdx.x) * Body::SUMS * plan.channels + b.channel;
    for (int i = (int)threadIdx.x; i < Body::SUMS * b.width; i += (int)blockDim.x) {
        const int s = i / b.width, c = i - s * b.width;
        To *out = s == 0 ? first : second;
        if (!is_final)
            to[(int64_t)s * plan.channels + c] = totals[i];
        else if (out)
            store_one(out + (int64_t)b.image * plan.channels + b.channel + c, totals[i]);
    }
}

constexpr int ADDED_COLUMNS = 32;  // channels of a block of add_partials; its warps share the chunks

// out[sum][image, channel] = the sum of that image's partials, for each out that is not NULL: a warp takes every n-th
// chunk, and the warps' sums are added in order.
template <typename To>
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    add_partials(const float *partials, column_plan plan, int sums, To *first, To *second) {
    DYNAMIC_SHARED(float, of_warps);  // [sum][warp][column]
    const int column = (int)threadIdx.x % ADDED_COLUMNS, warp = (int)threadIdx.x / ADDED_COLUMNS;
    const int c = (int)blockIdx.x * ADDED_COLUMNS + column, image = (int)blockIdx.y;
    const int warps = (int)blockDim.x / ADDED_COLUMNS, step = sums * plan.channels;
    for (int s = 0; s < sums; s++) {
        const float *from = partials + ((int64_t)image * plan.chunks * sums + s) * plan.channels + c;
        float sum = 0;
        for (int chunk = warp; c < plan.channels && chunk < plan.chunks; chunk += warps)
            sum += from[(int64_t)chunk * step];
        of_warps[(s * warps + warp) * ADDED_COLUMNS + column] = sum;
    }
    __syncthreads();
    if (warp >= sums || c >= plan.channels) return;
    for (int s = warp; s < sums; s += warps) {
        To *out = s == 0 ? first : second;
        float sum = 0;
        for (int w = 0; w < warps; w++) sum += of_warps[(s * warps + w) * ADDED_COLUMNS + column];
        if (out) store_one(out + (int64_t)image * plan.channels + c, sum);
    }
}

// Both steps, or one where one chunk holds all rows; partials: images * chunks * SUMS * channels floats. BodyOf<V> is
// made from `parts`.
template <template <int> class Body, int WIDE, typename To, class Parts>
pb_status launch_column_sums(const char *op, const Parts &parts, const column_plan &wide, bool in_runs, float *partials,
                             To *first, To *second, void *stream) {
    constexpr int SUMS = Body<1>::SUMS;
    const unsigned threads = pb_cuda_threads;
    const bool at_once = wide.chunks == 1;
    To *const now = at_once ? first : NULL, *const too = at_once ? second : NULL;
    if (in_runs)
        PB_RETURN_IF(launch(op, column_partials<WIDE, Body<WIDE>, To>, column_grid(wide), threads,
                            column_sums_shared(wide, threads, WIDE, SUMS), stream, Body<WIDE>{parts}, wide, partials,
                            now, too));
    else
        PB_RETURN_IF(launch(op, column_partials<1, Body<1>, To>, column_grid(wide), threads,
                            column_sums_shared(wide, threads, 1, SUMS), stream, Body<1>{parts}, wide, partials, now,
                            too));
    if (at_once) return PB_OK;
    return launch(op, add_partials<To>, dim3((unsigned)divide_up(wide.channels, ADDED_COLUMNS), (unsigned)wide.images),
                  threads, SUMS * threads * sizeof(float), stream, static_cast<const float *>(partials), wide, SUMS,
                  first, second);
}

#endif
