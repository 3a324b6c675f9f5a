// Token and timestep embeddings.
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/tiles.h"

// ids[N,T] table[V,C] positions[P,C] -> y[N,T,C]; the range counts tokens
static void embedding_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_tensor *table = &args->in[1], *positions = &args->in[2], *y = &args->out[0];
    const int32_t *ids = args->in[0].data;
    const int64_t tokens = args->in[0].shape.dim[1], channels = pb_shape_last(y->shape);
    const pb_row_kernels *rows = pb_rows();
    float word_tile[TILE], position_tile[TILE], y_tile[TILE];
    for (int64_t r = begin; r < end; r++) {
        for (int64_t c = 0; c < channels; c += TILE) {
            const int64_t n = tile_min(TILE, channels - c), to = r * channels + c;
            float *sum = tile_output(y, to, y_tile);
            rows->add(tile_load(rows, table, ids[r] * channels + c, n, word_tile),
                      tile_load(rows, positions, r % tokens * channels + c, n, position_tile), sum, n);
            tile_store(rows, y, to, n, sum);
        }
    }
}

void pb_cpu_embedding(const pb_kernel_args *args) {
    const pb_shape shape = args->out[0].shape;
    pb_parallel_for(pb_shape_rows(shape), tile_grain(pb_shape_last(shape)), embedding_range, (void *)args);
}

typedef struct gather {
    const pb_kernel_args *args;
    const pb_row_kernels *rows;
    const int32_t *ids;
    int64_t count, tokens, channels;
} gather;

static gather gather_of(const pb_kernel_args *args) {
    const pb_tensor *ids = &args->in[1];
    return (gather){
        args, pb_rows(), ids->data, pb_shape_count(ids->shape), ids->shape.dim[1], pb_shape_last(args->in[0].shape)};
}

// to[row] = the sum of dy's rows of `first` and of the later tokens that belong with it, in order. `by_id`: those with
// its id; otherwise those in its place in the other texts.
static void gather_rows(const gather *g, bool by_id, int64_t first, const pb_tensor *to, int64_t row) {
    float sum_tile[TILE], tile[TILE];
    for (int64_t c = 0; c < g->channels; c += TILE) {
        const int64_t n = tile_min(TILE, g->channels - c);
        memset(sum_tile, 0, (size_t)n * sizeof *sum_tile);
        for (int64_t r = first; r < g->count; r += by_id ? 1 : g->tokens) {
            if (by_id && g->ids[r] != g->ids[first]) continue;
            g->rows->add(sum_tile, tile_load(g->rows, &g->args->in[0], r * g->channels + c, n, tile), sum_tile, n);
        }
        g->rows->store(to->dtype, sum_tile, tile_address(to, row * g->channels + c), n);
    }
}

static bool seen_before(const gather *g, int64_t token) {
    for (int64_t r = 0; r < token; r++)
        if (g->ids[r] == g->ids[token]) return true;
    return false;
}

static void table_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const gather g = gather_of(context);
    for (int64_t r = begin; r < end; r++)
        if (!seen_before(&g, r)) gather_rows(&g, true, r, &g.args->out[0], g.ids[r]);
}

static void positions_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const gather g = gather_of(context);
    for (int64_t t = begin; t < end; t++) gather_rows(&g, false, t, &g.args->out[1], t);
}

static void clear_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_tensor *t = context;
    memset(tile_address(t, begin), 0, (size_t)(end - begin) * pb_dtype_size(t->dtype));
}

// in: dy[N,T,C] ids[N,T]   out: dtable[V,C]? dpositions[P,C]?
void pb_cpu_embedding_bwd(const pb_kernel_args *args) {
    const gather g = gather_of(args);
    for (int i = 0; i < 2; i++)
        if (args->out[i].data)
            pb_parallel_for(pb_shape_count(args->out[i].shape), GRAIN, clear_range, (void *)&args->out[i]);
    if (args->out[0].data) pb_parallel_for(g.count, tile_grain(g.channels), table_range, (void *)args);
    if (args->out[1].data) pb_parallel_for(g.tokens, tile_grain(g.channels), positions_range, (void *)args);
}

// diffusers, models/embeddings.py, get_timestep_embedding: exponents, frequencies and angles are rounded to float
// there, which a timestep of 999 makes visible, so they are here. Few elements, and exact: double libm functions.
void pb_cpu_timestep_embedding(const pb_kernel_args *args) {
    const pb_tensor *y = &args->out[0];
    const pb_attr *attr = args->attr;
    const float *t = args->in[0].data;
    const int64_t channels = pb_shape_last(y->shape), half = channels / 2;
    const int64_t sines = attr->timestep.flip_sin_to_cos ? half : 0, cosines = half - sines;
    const float rate = (float)-log((double)attr->timestep.max_period);
    for (int64_t n = 0; n < pb_shape_count(args->in[0].shape); n++) {
        for (int64_t i = 0; i < half; i++) {
            const float exponent = rate * (float)i / ((float)half - attr->timestep.freq_shift);
            const float angle = t[n] * (float)exp((double)exponent);
            pb_dtype_store(y->dtype, y->data, (size_t)(n * channels + sines + i), sin((double)angle));
            pb_dtype_store(y->dtype, y->data, (size_t)(n * channels + cosines + i), cos((double)angle));
        }
        if (channels % 2) pb_dtype_store(y->dtype, y->data, (size_t)((n + 1) * channels - 1), 0);
    }
}
