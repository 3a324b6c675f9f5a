// The gradient of attention. Scores are computed again from q, k and the logarithm of the softmax's denominator, in
// tiles of keys x queries:
//
//   p = exp(scale k q^T - lse)     ds = scale p (v dy^T - delta),  delta = sum over the head of dy y
//   dv = p dy                      dk = ds q                       dq = ds^T k
//
// One thread takes a head of an image (or, where those are too few, one of several parts of its keys): keys in blocks,
// for each all queries in blocks. dk and dv of a block are complete when its queries are through; dq gathers in fp32
// in the workspace, and parts' dq are added in order.
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_kernels.h"

enum { QUERIES = 128, KEYS = 128 };  // in a block

typedef struct backward {
    pb_attention a;
    const pb_kernel_args *args;
    float *workspace;
    int64_t items, parts, part_keys;  // heads of all images; parts of each one's keys
    int64_t query_tiles, dq_floats;   // of one item
    int64_t thread_floats, threads;
    // Offsets in a thread's floats.
    int64_t k_along, k_across, v_along, q_columns, dy_columns, q_across, dy_across, scores, dp, p, ds, panel, dk, dv,
        scratch, lse, delta, dq;
} backward;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t take(int64_t *at, int64_t floats) {
    const int64_t here = *at;
    *at += (floats + 15) / 16 * 16;
    return here;
}

static backward backward_of(const pb_kernel_args *args) {
    backward b = {
        .a = pb_attention_of(args->attr, args->in[1], args->in[2]), .args = args, .workspace = args->workspace};
    const pb_attention *a = &b.a;
    const int64_t head = a->head, units = a->head_units, threads = pb_threads();
    b.items = a->images * a->heads;
    const int64_t wanted = (threads + b.items - 1) / b.items, blocks = (a->keys + KEYS - 1) / KEYS;
    b.part_keys = (blocks + wanted - 1) / wanted * KEYS;
    b.parts = (a->keys + b.part_keys - 1) / b.part_keys;
    b.threads = least(threads, b.items * b.parts);
    b.query_tiles = (a->queries + a->columns - 1) / a->columns;
    b.dq_floats = b.query_tiles * head * a->columns;
    int64_t at = 0;
    b.k_along = take(&at, units * KEYS);
    b.k_across = take(&at, head * KEYS);
    b.v_along = take(&at, units * KEYS);
    b.q_columns = take(&at, units * QUERIES);
    b.dy_columns = take(&at, units * QUERIES);
    b.q_across = take(&at, head * QUERIES);
    b.dy_across = take(&at, head * QUERIES);
    b.scores = take(&at, KEYS * a->columns);
    b.dp = take(&at, KEYS * a->columns);
    b.p = take(&at, KEYS * QUERIES);
    b.ds = take(&at, KEYS * QUERIES);
    b.panel = take(&at, KEYS * QUERIES);
    b.dk = take(&at, head * KEYS);
    b.dv = take(&at, head * KEYS);
    b.scratch = take(&at, (head + 1) * a->columns);
    b.lse = take(&at, QUERIES);
    b.delta = take(&at, b.query_tiles * a->columns);
    b.dq = take(&at, b.parts > 1 ? 0 : b.dq_floats);
    b.thread_floats = at;
    return b;
}

uint64_t pb_cpu_attention_bwd_workspace(const pb_kernel_args *args) {
    const backward b = backward_of(args);
    const int64_t apart = b.parts > 1 ? b.items * b.parts * b.dq_floats : 0;
    return (uint64_t)(b.threads * b.thread_floats + apart) * sizeof(float);
}

// The dq of a part of an item, where there are several.
static float *part_dq(const backward *b, int64_t item, int64_t part) {
    return b->workspace + b->threads * b->thread_floats + (item * b->parts + part) * b->dq_floats;
}

// out^T[head, keys] += panels^T x, for x[keys, queries] in the storage dtype with rows QUERIES apart.
static void add_over_queries(const backward *b, const float *panels, const float *x, int64_t keys, int64_t queries,
                             float *panel, float *out) {
    const pb_attention *a = &b->a;
    const int64_t units = (queries + a->path.step - 1) / a->path.step;
    const char *rows[PB_TILE_COLUMNS_MAX];
    for (int64_t k = 0; k < keys; k += a->columns) {
        for (int64_t i = 0; i < a->columns; i++)
            rows[i] = k + i < keys ? (const char *)x + (k + i) * QUERIES * a->path.size : NULL;
        a->path.kernels->pack_along(panel, a->columns, rows, a->columns, 0, queries, a->path.unit);
        pb_attention_multiply(a, a->head, units, panels, panel, out + k, KEYS, true);
    }
}

// Keys [key, key + keys) against queries [query, query + queries).
static void run_block(const backward *b, int64_t item, int64_t key, int64_t keys, int64_t query, int64_t queries,
                      float *w, float *dq) {
    const pb_attention *a = &b->a;
    const pb_gemm_kernels *kernels = a->path.kernels;
    const pb_kernel_args *args = b->args;
    const char *q = pb_attention_token(a, args->in[1].data, a->queries, item, query);
    const char *dy = pb_attention_token(a, args->in[0].data, a->queries, item, query);
    const int64_t key_units = (keys + a->path.step - 1) / a->path.step;
    pb_attention_pack_across(a, q, queries, w + b->q_across);
    pb_attention_pack_across(a, dy, queries, w + b->dy_across);
    memset(w + b->lse, 0, QUERIES * sizeof(float));
    memcpy(w + b->lse, (const float *)args->in[5].data + item * a->queries + query, (size_t)queries * sizeof(float));
    for (int64_t t = 0; t < queries; t += a->columns) {
        const int64_t here = least(a->columns, queries - t), bytes = a->width * a->path.size;
        char *p = (char *)(w + b->p) + t * a->path.size, *ds = (char *)(w + b->ds) + t * a->path.size;
        pb_attention_pack_columns(a, q + t * bytes, here, w + b->q_columns);
        pb_attention_pack_columns(a, dy + t * bytes, here, w + b->dy_columns);
        pb_attention_multiply(a, keys, a->head_units, w + b->k_along, w + b->q_columns, w + b->scores, a->columns,
                              false);
        pb_attention_multiply(a, keys, a->head_units, w + b->v_along, w + b->dy_columns, w + b->dp, a->columns, false);
        if (a->causal) pb_attention_mask(a, w + b->scores, key, keys, query + t);
        kernels->softmax_bwd(w + b->scores, w + b->dp, keys, a->scale, w + b->lse + t, w + b->delta + query + t, p, ds,
                             QUERIES, a->dtype);
        const char *rows[KEYS];
        for (int64_t i = 0; i < keys; i++) rows[i] = ds + i * QUERIES * a->path.size;
        kernels->pack_across(w + b->panel, a->columns, 0, rows, a->columns, 0, keys, a->path.unit);
        pb_attention_multiply(a, a->head, key_units, w + b->k_across, w + b->panel, dq + (query + t) * a->head,
                              a->columns, true);
    }
    add_over_queries(b, w + b->dy_across, w + b->p, keys, queries, w + b->panel, w + b->dv);
    add_over_queries(b, w + b->q_across, w + b->ds, keys, queries, w + b->panel, w + b->dk);
}

static void store_dq(const backward *b, int64_t item, const float *dq, float *scratch) {
    const pb_attention *a = &b->a;
    for (int64_t q = 0; q < a->queries; q += a->columns)
        pb_attention_store(a, (char *)pb_attention_token(a, b->args->out[0].data, a->queries, item, q),
                           dq + q * a->head, a->columns, least(a->columns, a->queries - q), scratch);
}

// x^T[head, keys], rows KEYS apart, to the tokens from `key` on.
static void store_keys(const backward *b, void *out, int64_t item, int64_t key, int64_t keys, const float *x,
                       float *scratch) {
    const pb_attention *a = &b->a;
    for (int64_t k = 0; k < keys; k += a->columns)
        pb_attention_store(a, (char *)pb_attention_token(a, out, a->keys, item, key + k), x + k, KEYS,
                           least(a->columns, keys - k), scratch);
}

static void run_item(const backward *b, int64_t item, int64_t part, float *w) {
    const pb_attention *a = &b->a;
    const pb_kernel_args *args = b->args;
    float *dq = b->parts > 1 ? part_dq(b, item, part) : w + b->dq;
    memset(dq, 0, (size_t)b->dq_floats * sizeof(float));
    memset(w + b->delta, 0, (size_t)(b->query_tiles * a->columns) * sizeof(float));
    a->path.kernels->dot_rows(w + b->delta, pb_attention_token(a, args->in[0].data, a->queries, item, 0),
                              pb_attention_token(a, args->in[4].data, a->queries, item, 0), a->head, a->queries,
                              a->width, a->dtype);
    const int64_t end = least((part + 1) * b->part_keys, a->keys);
    for (int64_t key = part * b->part_keys; key < end; key += KEYS) {
        const int64_t keys = least(KEYS, end - key);
        const char *k = pb_attention_token(a, args->in[2].data, a->keys, item, key);
        const char *v = pb_attention_token(a, args->in[3].data, a->keys, item, key);
        pb_attention_pack_along(a, k, keys, a->path.kernels->rows, w + b->k_along);
        pb_attention_pack_along(a, v, keys, a->path.kernels->rows, w + b->v_along);
        pb_attention_pack_across(a, k, keys, w + b->k_across);
        memset(w + b->dk, 0, (size_t)(a->head * KEYS) * sizeof(float));
        memset(w + b->dv, 0, (size_t)(a->head * KEYS) * sizeof(float));
        for (int64_t query = 0; query < a->queries; query += QUERIES) {
            const int64_t queries = least(QUERIES, a->queries - query);
            if (a->causal && key >= query + queries) continue;
            run_block(b, item, key, keys, query, queries, w, dq);
        }
        store_keys(b, args->out[1].data, item, key, keys, w + b->dk, w + b->scratch);
        store_keys(b, args->out[2].data, item, key, keys, w + b->dv, w + b->scratch);
    }
    if (b->parts == 1) store_dq(b, item, dq, w + b->scratch);
}

static void run_items(void *context, int64_t begin, int64_t end, int thread) {
    const backward *b = context;
    for (int64_t i = begin; i < end; i++)
        run_item(b, i / b->parts, i % b->parts, b->workspace + thread * b->thread_floats);
}

static void add_parts(void *context, int64_t begin, int64_t end, int thread) {
    const backward *b = context;
    for (int64_t item = begin; item < end; item++) {
        float *dq = part_dq(b, item, 0);
        for (int64_t part = 1; part < b->parts; part++)
            b->a.path.kernels->add_rows(dq, part_dq(b, item, part), b->dq_floats, 1, 0, PB_F32);
        store_dq(b, item, dq, b->workspace + thread * b->thread_floats + b->scratch);
    }
}

void pb_cpu_attention_bwd(const pb_kernel_args *args) {
    backward b = backward_of(args);
    pb_parallel_for(b.items * b.parts, 1, run_items, &b);
    if (b.parts > 1) pb_parallel_for(b.items, 1, add_parts, &b);
}
