#include "kernels/cpu/attention.h"

#include <math.h>
#include <string.h>

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

pb_attention pb_attention_of(const pb_attr *attr, pb_tensor q, pb_tensor k) {
    const int64_t width = pb_shape_last(q.shape), images = q.shape.dim[0];
    pb_attention a = {
        .path = pb_gemm_path_for(q.dtype),
        .dtype = q.dtype,
        .images = images,
        .heads = attr->attention.heads,
        .head = width / attr->attention.heads,
        .queries = pb_shape_rows(q.shape) / images,
        .keys = pb_shape_rows(k.shape) / images,
        .width = width,
        .scale = attr->attention.scale,
        .causal = attr->attention.causal,
    };
    a.columns = 2 * a.path.kernels->lanes;
    a.head_units = (a.head + a.path.step - 1) / a.path.step;
    return a;
}

const char *pb_attention_token(const pb_attention *a, const void *data, int64_t tokens, int64_t item, int64_t first) {
    const int64_t image = item / a->heads, head = item % a->heads;
    return (const char *)data + ((image * tokens + first) * a->width + head * a->head) * a->path.size;
}

int64_t pb_attention_height(int64_t count, int64_t most, int64_t i) {
    const int64_t panels = (count + most - 1) / most;
    return count / panels + (i < count % panels);
}

static void locate(const pb_attention *a, const char *tokens, int64_t count, const char **rows) {
    for (int64_t i = 0; i < count; i++) rows[i] = tokens + i * a->width * a->path.size;
}

void pb_attention_pack_along(const pb_attention *a, const char *tokens, int64_t count, int64_t most, float *panels) {
    const char *rows[PB_TILE_COLUMNS_MAX];
    for (int64_t at = 0, i = 0; at < count; i++) {
        const int64_t height = pb_attention_height(count, most, i);
        locate(a, tokens + at * a->width * a->path.size, height, rows);
        a->path.kernels->pack_along(panels + at * a->head_units, height, rows, height, 0, a->head, a->path.unit);
        at += height;
    }
}

void pb_attention_pack_columns(const pb_attention *a, const char *tokens, int64_t count, float *panel) {
    const char *rows[PB_TILE_COLUMNS_MAX];
    locate(a, tokens, count, rows);
    for (int64_t i = count; i < a->columns; i++) rows[i] = NULL;
    a->path.kernels->pack_along(panel, a->columns, rows, a->columns, 0, a->head, a->path.unit);
}

void pb_attention_pack_across(const pb_attention *a, const char *tokens, int64_t count, float *panels) {
    enum { LOCATED = 32 };
    const char *rows[LOCATED];
    const int step = a->path.step;
    const int64_t units = (count + step - 1) / step, tall = a->path.kernels->rows;
    for (int64_t t = 0; t < count; t += LOCATED) {
        const int64_t here = least(LOCATED, count - t);
        locate(a, tokens + t * a->width * a->path.size, here, rows);
        for (int64_t at = 0, i = 0; at < a->head; i++) {
            const int64_t height = pb_attention_height(a->head, tall, i);
            a->path.kernels->pack_across(panels + at * units + t / step * height, height, 0, rows, height, at, here,
                                         a->path.unit);
            at += height;
        }
    }
}

void pb_attention_multiply(const pb_attention *a, int64_t count, int64_t units, const float *panels, const float *b,
                           float *c, int64_t ldc, bool add) {
    const int64_t tall = a->path.kernels->rows;
    for (int64_t at = 0, i = 0; at < count; i++) {
        const int64_t height = pb_attention_height(count, tall, i);
        (*a->path.tile)[PB_LEFT_PANEL][1][height - 1](units, panels + at * units, b, c + at * ldc, ldc, add, NULL, 0);
        at += height;
    }
}

void pb_attention_store(const pb_attention *a, char *tokens, const float *x, int64_t stride, int64_t count,
                        float *scratch) {
    const char *rows[PB_TILE_COLUMNS_MAX];
    for (int64_t at = 0; at < a->head; at += PB_TILE_COLUMNS_MAX) {
        const int64_t here = least(PB_TILE_COLUMNS_MAX, a->head - at);
        for (int64_t i = 0; i < here; i++) rows[i] = (const char *)(x + (at + i) * stride);
        a->path.kernels->pack_along(scratch + at, a->head, rows, here, 0, count, PB_UNIT_F32);
    }
    for (int64_t t = 0; t < count; t++)
        a->path.kernels->finish(tokens + t * a->width * a->path.size, scratch + t * a->head, a->head, a->dtype, NULL,
                                NULL, NULL);
}

void pb_attention_mask(const pb_attention *a, float *scores, int64_t first_key, int64_t count, int64_t first_query) {
    for (int64_t k = 0; k < count; k++)
        for (int64_t c = 0; c < a->columns && first_query + c < first_key + k; c++)
            scores[k * a->columns + c] = -INFINITY;
}
