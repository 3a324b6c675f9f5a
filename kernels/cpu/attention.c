// Attention in tiles, without the matrix of scores: for a block of queries the keys pass by block after block, and an
// online softmax keeps the maximum, the sum and the output so far. Everything is transposed, with queries in the lanes
// of vectors: the softmax then needs no sums across lanes, and its output already is a panel for the second product.
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_kernels.h"

enum { QUERIES = 256, KEYS = 128 };  // in a block; the results do not depend on the first

typedef struct forward {
    pb_attention a;
    const pb_kernel_args *args;
    int64_t query_blocks;
    // Floats of each thread's buffers.
    int64_t q_floats, k_floats, v_floats, scores_floats, y_floats, scratch_floats;
} forward;

// max, sum and factor of a block of queries
enum { STATE_FLOATS = 3 * QUERIES };

static forward forward_of(const pb_kernel_args *args) {
    forward f = {.a = pb_attention_of(args->attr, args->in[0], args->in[1]), .args = args};
    const int64_t units = f.a.head_units;
    f.query_blocks = (f.a.queries + QUERIES - 1) / QUERIES;
    f.q_floats = units * QUERIES;
    f.k_floats = units * KEYS;
    f.v_floats = f.a.head * KEYS;
    f.scores_floats = KEYS * f.a.columns;
    f.y_floats = f.a.head * QUERIES;
    f.scratch_floats = (f.a.head + 1) * f.a.columns;
    return f;
}

static int64_t thread_floats(const forward *f) {
    const int64_t floats =
        f->q_floats + f->k_floats + f->v_floats + f->scores_floats + f->y_floats + f->scratch_floats + STATE_FLOATS;
    return (floats + 15) / 16 * 16;
}

uint64_t pb_cpu_attention_workspace(const pb_kernel_args *args) {
    const forward f = forward_of(args);
    const int64_t items = f.a.images * f.a.heads * f.query_blocks, threads = pb_threads();
    return (uint64_t)(thread_floats(&f) * (items < threads ? items : threads)) * sizeof(float);
}

// Queries [first, first + count) of one head.
static void attend(const forward *f, int64_t item, int64_t first, int64_t count, float *workspace) {
    const pb_attention *a = &f->a;
    const pb_gemm_kernels *kernels = a->path.kernels;
    const pb_kernel_args *args = f->args;
    const int64_t tiles = (count + a->columns - 1) / a->columns, q_tile = a->head_units * a->columns;
    const int64_t y_tile = a->head * a->columns;
    float *q = workspace, *k = q + f->q_floats, *v = k + f->k_floats, *scores = v + f->v_floats;
    float *y = scores + f->scores_floats, *scratch = y + f->y_floats, *max = scratch + f->scratch_floats;
    float *sum = max + QUERIES, *factor = sum + QUERIES;
    memset(y, 0, (size_t)(tiles * y_tile) * sizeof(float));
    memset(sum, 0, QUERIES * sizeof(float));
    for (int64_t i = 0; i < QUERIES; i++) max[i] = -INFINITY;
    for (int64_t t = 0; t < tiles; t++) {
        const int64_t here = count - t * a->columns < a->columns ? count - t * a->columns : a->columns;
        pb_attention_pack_columns(a, pb_attention_token(a, args->in[0].data, a->queries, item, first + t * a->columns),
                                  here, q + t * q_tile);
    }
    const int64_t seen = a->causal && first + count < a->keys ? first + count : a->keys;
    for (int64_t key = 0; key < seen; key += KEYS) {
        const int64_t keys = seen - key < KEYS ? seen - key : KEYS;
        pb_attention_pack_along(a, pb_attention_token(a, args->in[1].data, a->keys, item, key), keys, kernels->rows, k);
        pb_attention_pack_across(a, pb_attention_token(a, args->in[2].data, a->keys, item, key), keys, v);
        for (int64_t t = 0; t < tiles; t++) {
            const int64_t query = first + t * a->columns;
            if (a->causal && key >= query + a->columns) continue;
            pb_attention_multiply(a, keys, a->head_units, k, q + t * q_tile, scores, a->columns, false);
            if (a->causal) pb_attention_mask(a, scores, key, keys, query);
            kernels->softmax(scores, keys, a->scale, max + t * a->columns, sum + t * a->columns, factor, a->dtype,
                             a->path.unit);
            if (key) kernels->scale_columns(y + t * y_tile, a->head, factor);
            pb_attention_multiply(a, a->head, (keys + a->path.step - 1) / a->path.step, v, scores, y + t * y_tile,
                                  a->columns, true);
        }
    }
    for (int64_t t = 0; t < tiles; t++) {
        const int64_t at = first + t * a->columns;
        const int64_t here = count - t * a->columns < a->columns ? count - t * a->columns : a->columns;
        for (int64_t i = 0; i < a->columns; i++) factor[i] = 1 / sum[t * a->columns + i];
        kernels->scale_columns(y + t * y_tile, a->head, factor);
        pb_attention_store(a, (char *)pb_attention_token(a, args->out[0].data, a->queries, item, at), y + t * y_tile,
                           a->columns, here, scratch);
        float *lse = args->out[1].data;
        if (!lse) continue;
        for (int64_t i = 0; i < here; i++)
            lse[item * a->queries + at + i] = max[t * a->columns + i] + logf(sum[t * a->columns + i]);
    }
}

typedef struct job {
    forward f;
    float *workspace;
} job;

static void attend_items(void *context, int64_t begin, int64_t end, int thread) {
    const job *j = context;
    float *workspace = j->workspace + thread * thread_floats(&j->f);
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i % j->f.query_blocks * QUERIES, left = j->f.a.queries - first;
        attend(&j->f, i / j->f.query_blocks, first, left < QUERIES ? left : QUERIES, workspace);
    }
}

void pb_cpu_attention(const pb_kernel_args *args) {
    job j = {forward_of(args), args->workspace};
    pb_parallel_for(j.f.a.images * j.f.a.heads * j.f.query_blocks, 1, attend_items, &j);
}
