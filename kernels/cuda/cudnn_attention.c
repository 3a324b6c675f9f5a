#include "kernels/cuda/cudnn_attention.h"

// cuDNN's unique ids of the tensors in memory.
enum { Q = 1, K, V, Y, SCALE, LSE, DY, DQ, DK, DV, SUMS, ONE };

// One head after another: [images, heads, tokens, width] by the strides of x[images, tokens, heads * width].
static pb_cudnn_descriptor heads_of(pb_cudnn_graph *g, const pb_cudnn_attention_shape *s, int64_t id, int64_t tokens) {
    const int64_t row = s->heads * s->width;
    const int64_t dims[] = {s->images, s->heads, tokens, s->width}, strides[] = {tokens * row, s->width, row, 1};
    return pb_cudnn_tensor(g, PB_CUDNN_STORED, id, pb_cudnn_type(s->dtype), dims, strides);
}

// The same with the last two dimensions exchanged, as the second factor of q k^T and dy v^T.
static pb_cudnn_descriptor transposed_heads_of(pb_cudnn_graph *g, const pb_cudnn_attention_shape *s, int64_t id) {
    const int64_t row = s->heads * s->width;
    const int64_t dims[] = {s->images, s->heads, s->width, s->keys}, strides[] = {s->keys * row, s->width, 1, row};
    return pb_cudnn_tensor(g, PB_CUDNN_STORED, id, pb_cudnn_type(s->dtype), dims, strides);
}

// fp32 [images, heads, queries, 1].
static pb_cudnn_descriptor per_query(pb_cudnn_graph *g, const pb_cudnn_attention_shape *s, pb_cudnn_memory memory,
                                     int64_t id) {
    const int64_t dims[] = {s->images, s->heads, s->queries, 1}, strides[] = {s->heads * s->queries, s->queries, 1, 1};
    return pb_cudnn_tensor(g, memory, id, CUDNN_DATA_FLOAT, dims, strides);
}

static pb_cudnn_descriptor scalar(pb_cudnn_graph *g, int64_t id) {
    const int64_t one[] = {1, 1, 1, 1};
    return pb_cudnn_tensor(g, PB_CUDNN_BY_VALUE, id, CUDNN_DATA_FLOAT, one, one);
}

// [images, heads, queries, keys], which is never in memory.
static pb_cudnn_descriptor scores(pb_cudnn_graph *g, const pb_cudnn_attention_shape *s) {
    const int64_t matrix = s->queries * s->keys;
    const int64_t dims[] = {s->images, s->heads, s->queries, s->keys};
    const int64_t strides[] = {s->heads * matrix, matrix, s->keys, 1};
    return pb_cudnn_tensor(g, PB_CUDNN_VIRTUAL, 0, CUDNN_DATA_FLOAT, dims, strides);
}

// The transpose of those, rounded to the storage dtype.
static pb_cudnn_descriptor transposed_scores(pb_cudnn_graph *g, const pb_cudnn_attention_shape *s) {
    const int64_t matrix = s->queries * s->keys;
    const int64_t dims[] = {s->images, s->heads, s->keys, s->queries};
    const int64_t strides[] = {s->heads * matrix, matrix, 1, s->keys};
    return pb_cudnn_tensor(g, PB_CUDNN_VIRTUAL, 0, pb_cudnn_type(s->dtype), dims, strides);
}

// One node.
static void make_forward(pb_cudnn_graph *g, const pb_cudnn_attention_shape *s) {
    const pb_cudnn_descriptor q = heads_of(g, s, Q, s->queries), k = heads_of(g, s, K, s->keys);
    const pb_cudnn_descriptor v = heads_of(g, s, V, s->keys), y = heads_of(g, s, Y, s->queries);
    const pb_cudnn_descriptor scale = scalar(g, SCALE), lse = s->lse ? per_query(g, s, PB_CUDNN_STORED, LSE) : NULL;
    const pb_cudnn_descriptor op = pb_cudnn_operation(g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, q);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, k);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, v);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, y);
    if (s->lse) pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, lse);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, scale);
    pb_cudnn_finalize(g, op, "attention");
}

// The form that cuDNN knows as attention's gradient. That dq is a product's result, and not the sum of one in fp32,
// asks for the algorithm that gives the same bits in every run.
//   sums = rows of dy y;  p = exp(scale q k^T - lse);  dv = p^T dy
//   ds = (dy v^T - sums) p scale;  dk = ds^T q;  dq = ds k
static void make_gradient(pb_cudnn_graph *g, const pb_cudnn_attention_shape *s) {
    const int64_t row = s->heads * s->width;
    const pb_cudnn_descriptor q = heads_of(g, s, Q, s->queries), k_transposed = transposed_heads_of(g, s, K);
    const pb_cudnn_descriptor v_transposed = transposed_heads_of(g, s, V), y = heads_of(g, s, Y, s->queries);
    const pb_cudnn_descriptor lse = per_query(g, s, PB_CUDNN_STORED, LSE), scale = scalar(g, SCALE);
    const pb_cudnn_descriptor dy = heads_of(g, s, DY, s->queries), dq = heads_of(g, s, DQ, s->queries);
    const pb_cudnn_descriptor dk = heads_of(g, s, DK, s->keys), dv = heads_of(g, s, DV, s->keys);
    const pb_cudnn_descriptor sums = per_query(g, s, PB_CUDNN_STORED, SUMS);

    const int64_t dims[] = {s->images, s->heads, s->queries, s->width};
    const int64_t strides[] = {s->queries * row, s->queries * s->width, row, 1};
    const pb_cudnn_descriptor product = pb_cudnn_tensor(g, PB_CUDNN_VIRTUAL, 0, CUDNN_DATA_FLOAT, dims, strides);
    const pb_cudnn_descriptor plain_sums = per_query(g, s, PB_CUDNN_VIRTUAL, 0), one = scalar(g, ONE);
    pb_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, dy, y, product);
    pb_cudnn_sum(g, product, plain_sums);
    pb_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, plain_sums, one, sums);

    const pb_cudnn_descriptor products = scores(g, s), scaled = scores(g, s), below = scores(g, s), p = scores(g, s);
    const pb_cudnn_descriptor p_transposed = transposed_scores(g, s);
    pb_cudnn_matmul(g, q, k_transposed, products);
    pb_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, products, scale, scaled);
    pb_cudnn_pointwise(g, CUDNN_POINTWISE_SUB, scaled, lse, below);
    pb_cudnn_pointwise(g, CUDNN_POINTWISE_EXP, below, NULL, p);
    pb_cudnn_reshape(g, p, p_transposed);
    pb_cudnn_matmul(g, p_transposed, dy, dv);

    const pb_cudnn_descriptor dp = scores(g, s), less = scores(g, s), weighed = scores(g, s), ds = scores(g, s);
    const pb_cudnn_descriptor ds_transposed = transposed_scores(g, s);
    pb_cudnn_matmul(g, dy, v_transposed, dp);
    pb_cudnn_pointwise(g, CUDNN_POINTWISE_SUB, dp, sums, less);
    pb_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, less, p, weighed);
    pb_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, weighed, scale, ds);
    pb_cudnn_reshape(g, ds, ds_transposed);
    pb_cudnn_matmul(g, ds_transposed, q, dk);

    const int64_t k_dims[] = {s->images, s->heads, s->keys, s->width}, k_strides[] = {s->keys * row, s->width, row, 1};
    const pb_cudnn_descriptor k = pb_cudnn_tensor(g, PB_CUDNN_VIRTUAL, 0, pb_cudnn_type(s->dtype), k_dims, k_strides);
    pb_cudnn_reshape(g, k_transposed, k);
    pb_cudnn_matmul(g, ds, k, dq);
}

uint64_t pb_cudnn_attention_scratch(const pb_cudnn_attention_shape *s) {
    enum { ROWS = 64, COLUMNS = 128, SMALL = 1024 };
    if (!s->gradient) return SMALL;
    const uint64_t rows = (uint64_t)(s->queries + ROWS - 1) / ROWS * ROWS;
    const uint64_t columns = (uint64_t)(s->keys + COLUMNS - 1) / COLUMNS * COLUMNS;
    return (uint64_t)(s->images * s->heads) * rows * columns * pb_dtype_size(s->dtype) + SMALL;
}

// cuDNN's form of the forward op as one node came with 9.13.1; before 9.15.1 its gradient counted keys beyond the last
// where they are no multiple of 128.
static bool is_right(const pb_cudnn_api *api, const pb_cudnn_attention_shape *s) {
    enum { ONE_NODE = 91301, KEYS_COUNTED = 91500, KEYS = 128 };
    return s->gradient ? s->keys % KEYS == 0 || api->version() > KEYS_COUNTED : api->version() >= ONE_NODE;
}

pb_status pb_cudnn_attention_plan_create(const pb_cudnn_api *api, pb_cudnn_place place,
                                         const pb_cudnn_attention_shape *s, int64_t most, pb_cudnn_plan *plan) {
    *plan = (pb_cudnn_plan){0};
    if (!is_right(api, s)) return PB_OK;
    pb_cudnn_graph g = {.api = api};
    (s->gradient ? make_gradient : make_forward)(&g, s);
    const pb_status status = pb_cudnn_plan_find(&g, place, s->dtype, most, plan);
    pb_cudnn_graph_deinit(&g);
    return status;
}

pb_status pb_cudnn_attention_pack_create(const pb_cudnn_plan *plan, const pb_cudnn_attention_shape *s,
                                         const pb_cudnn_attention_pointers *p, void *workspace,
                                         pb_cudnn_descriptor *pack) {
    static const int64_t ids[] = {Q, K, V, Y, SCALE, LSE, DY, DQ, DK, DV, SUMS, ONE};
    void *const pointers[] = {p->q, p->k, p->v, p->y, p->scale, p->lse, p->dy, p->dq, p->dk, p->dv, p->sums, p->one};
    const int count = s->gradient ? (int)(sizeof ids / sizeof *ids) : s->lse ? LSE : SCALE;
    return pb_cudnn_pack_create(plan, count, ids, pointers, workspace, pack);
}
