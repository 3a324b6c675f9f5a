// Scaled dot-product attention and its gradient by the formulas of FlashAttention (arXiv 2205.14135, appendix B):
// the probabilities are formed again from the logarithm of their denominator.
#include <math.h>

#include "kernels/ref/reference_kernels.h"

typedef struct geometry {
    int64_t images, queries, keys, heads, width;  // width: of one head
    bool causal;
    double scale;
} geometry;

static geometry geometry_of(const pb_attr *attr, const pb_tensor *q, const pb_tensor *k) {
    const int64_t images = q->shape.dim[0], heads = attr->attention.heads;
    return (geometry){images,
                      pb_shape_rows(q->shape) / images,
                      pb_shape_rows(k->shape) / images,
                      heads,
                      pb_shape_last(q->shape) / heads,
                      attr->attention.causal,
                      attr->attention.scale};
}

static int64_t query_at(const geometry *g, int64_t n, int64_t h, int64_t i) {
    return ((n * g->queries + i) * g->heads + h) * g->width;
}

static int64_t key_at(const geometry *g, int64_t n, int64_t h, int64_t j) {
    return ((n * g->keys + j) * g->heads + h) * g->width;
}

static int64_t visible_keys(const geometry *g, int64_t i) {
    return g->causal && i + 1 < g->keys ? i + 1 : g->keys;
}

static double dot(const geometry *g, const pb_tensor *a, int64_t at_a, const pb_tensor *b, int64_t at_b) {
    double sum = 0;
    for (int64_t c = 0; c < g->width; c++) sum += ref_get(a, at_a + c) * ref_get(b, at_b + c);
    return sum;
}

// One row of probabilities.
uint64_t pb_ref_attention_workspace(const pb_kernel_args *args) {
    const geometry g = geometry_of(args->attr, &args->in[0], &args->in[1]);
    return (uint64_t)g.keys * sizeof(double);
}

// in: q[N,Tq,heads*d] k[N,Tk,heads*d] v   out: y[N,Tq,heads*d] lse[N,heads,Tq]?
void pb_ref_attention(const pb_kernel_args *args) {
    const pb_tensor *q = &args->in[0], *k = &args->in[1], *v = &args->in[2], *y = &args->out[0], *lse = &args->out[1];
    const geometry g = geometry_of(args->attr, q, k);
    double *row = args->workspace;
    for (int64_t r = 0; r < g.images * g.heads * g.queries; r++) {
        const int64_t i = r % g.queries, h = r / g.queries % g.heads, n = r / g.queries / g.heads;
        const int64_t visible = visible_keys(&g, i);
        double most = -INFINITY, sum = 0;
        for (int64_t j = 0; j < visible; j++) {
            row[j] = g.scale * dot(&g, q, query_at(&g, n, h, i), k, key_at(&g, n, h, j));
            if (row[j] > most) most = row[j];
        }
        for (int64_t j = 0; j < visible; j++) sum += exp(row[j] - most);
        const double log_sum = most + log(sum);
        for (int64_t c = 0; c < g.width; c++) {
            double value = 0;
            for (int64_t j = 0; j < visible; j++) value += exp(row[j] - log_sum) * ref_get(v, key_at(&g, n, h, j) + c);
            ref_put(y, query_at(&g, n, h, i) + c, value);
        }
        if (ref_has(lse)) ref_put(lse, r, log_sum);
    }
}

typedef struct backward {
    geometry g;
    const pb_tensor *dy, *q, *k, *v, *y, *lse;
} backward;

// Probability of key j for query i, and the gradient of the scaled score q.k (before the scale).
static double probability(const backward *b, int64_t n, int64_t h, int64_t i, int64_t j, double *dscore) {
    const geometry *g = &b->g;
    const int64_t at_q = query_at(g, n, h, i), at_k = key_at(g, n, h, j);
    const double p =
        exp(g->scale * dot(g, b->q, at_q, b->k, at_k) - ref_get(b->lse, (n * g->heads + h) * g->queries + i));
    *dscore = g->scale * p * (dot(g, b->dy, at_q, b->v, at_k) - dot(g, b->dy, at_q, b->y, at_q));
    return p;
}

// Two rows of one head.
uint64_t pb_ref_attention_bwd_workspace(const pb_kernel_args *args) {
    const geometry g = geometry_of(args->attr, &args->in[1], &args->in[2]);
    return 2 * (uint64_t)g.width * sizeof(double);
}

// in: dy q k v y lse   out: dq dk dv
void pb_ref_attention_bwd(const pb_kernel_args *args) {
    const pb_tensor *q = &args->in[1], *dq = &args->out[0], *dk = &args->out[1], *dv = &args->out[2];
    const backward b = {geometry_of(args->attr, q, &args->in[2]),
                        &args->in[0],
                        q,
                        &args->in[2],
                        &args->in[3],
                        &args->in[4],
                        &args->in[5]};
    const geometry *g = &b.g;
    double *first = args->workspace, *second = first + g->width, dscore;
    for (int64_t r = 0; r < g->images * g->heads * g->queries; r++) {
        const int64_t i = r % g->queries, h = r / g->queries % g->heads, n = r / g->queries / g->heads;
        for (int64_t c = 0; c < g->width; c++) first[c] = 0;
        for (int64_t j = 0; j < visible_keys(g, i); j++) {
            probability(&b, n, h, i, j, &dscore);
            for (int64_t c = 0; c < g->width; c++) first[c] += dscore * ref_get(b.k, key_at(g, n, h, j) + c);
        }
        for (int64_t c = 0; c < g->width; c++) ref_put(dq, query_at(g, n, h, i) + c, first[c]);
    }
    for (int64_t r = 0; r < g->images * g->heads * g->keys; r++) {
        const int64_t j = r % g->keys, h = r / g->keys % g->heads, n = r / g->keys / g->heads;
        for (int64_t c = 0; c < g->width; c++) first[c] = second[c] = 0;
        for (int64_t i = 0; i < g->queries; i++) {
            if (j >= visible_keys(g, i)) continue;
            const double p = probability(&b, n, h, i, j, &dscore);
            for (int64_t c = 0; c < g->width; c++) {
                first[c] += dscore * ref_get(b.q, query_at(g, n, h, i) + c);
                second[c] += p * ref_get(b.dy, query_at(g, n, h, i) + c);
            }
        }
        for (int64_t c = 0; c < g->width; c++) {
            ref_put(dk, key_at(g, n, h, j) + c, first[c]);
            ref_put(dv, key_at(g, n, h, j) + c, second[c]);
        }
    }
}
