// Group normalisation (with SiLU) over NHWC and its gradient. Statistics and gradients of a group are gathered channel
// by channel, which is how the memory lies, and added up to groups afterwards.
#include <math.h>
#include <string.h>

#include "kernels/cpu/column_blocks.h"
#include "kernels/cpu/cpu_kernels.h"

typedef struct group_norm {
    const pb_kernel_args *args;
    const pb_row_kernels *rows;
    column_blocks blocks;
    int64_t groups, span;  // span: channels of a group
    double *sums;          // in the workspace, per block; see the callers
    float *factors;        // in the workspace: two per image and group
} group_norm;

static column_blocks blocks_of(const pb_tensor *x) {
    const int64_t images = x->shape.dim[0], channels = pb_shape_last(x->shape);
    return column_blocks_of(images, pb_shape_rows(x->shape) / images, channels);
}

// `width`: sums per block.
static uint64_t workspace_bytes(const pb_kernel_args *args, const pb_tensor *x, int64_t width) {
    const column_blocks b = blocks_of(x);
    const int64_t factors = b.images * args->attr->norm.groups * 2;
    return (uint64_t)(b.images * b.count * width) * sizeof(double) + (uint64_t)factors * sizeof(float);
}

static group_norm group_norm_of(const pb_kernel_args *args, const pb_tensor *x, int64_t width) {
    const column_blocks b = blocks_of(x);
    const int64_t groups = args->attr->norm.groups;
    double *sums = args->workspace;
    return (group_norm){
        args, pb_rows(), b, groups, b.channels / groups, sums, (float *)(sums + b.images * b.count * width)};
}

// The values that belong to the channels of a tile, from two per group: `pairs` is that image's.
static void spread(const group_norm *k, const float *pairs, const tile_area *tile, float *first, float *second) {
    for (int64_t c = 0, g = tile->column / k->span; c < tile->width; g++) {
        const int64_t end = tile_min((g + 1) * k->span - tile->column, tile->width);
        for (; c < end; c++) {
            first[c] = pairs[2 * g];
            second[c] = pairs[2 * g + 1];
        }
    }
}

// Forward, sums[block][group][2]: of the elements and of their squares.
static void moments_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const group_norm *k = context;
    float x_tile[AREA];
    double sum[STRIP], square[STRIP];
    for (int64_t i = begin; i < end; i++) {
        double *to = k->sums + i * k->groups * 2;
        memset(to, 0, (size_t)k->groups * 2 * sizeof *to);
        const tile_area area = column_block_area(&k->blocks, i);
        for (tile_area t = tile_first(&area); t.width; tile_next(&area, &t)) {
            int64_t stride;
            const float *x = tile_load_area(k->rows, &k->args->in[0], &t, x_tile, &stride);
            if (t.row == area.row) {
                memset(sum, 0, sizeof sum);
                memset(square, 0, sizeof square);
            }
            k->rows->column_moments(x, stride, t.count, t.width, sum, square);
            if (t.row + t.count < area.row + area.count) continue;
            for (int64_t c = 0; c < t.width; c++) {
                const int64_t g = (t.column + c) / k->span;
                to[2 * g] += sum[c];
                to[2 * g + 1] += square[c];
            }
        }
    }
}

static void normalise_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const group_norm *k = context;
    const pb_tensor none = {0}, *x_tensor = &k->args->in[0], *y_tensor = &k->args->out[0];
    const float *gamma = k->args->in[1].data, *beta = k->args->in[2].data;
    float x_tile[AREA], y_tile[AREA], mean[STRIP], scale[STRIP];
    for (int64_t i = begin; i < end; i++) {
        const tile_area area = column_block_area(&k->blocks, i);
        for (tile_area t = tile_first(&area); t.width; tile_next(&area, &t)) {
            int64_t x_stride, y_stride;
            if (t.row == area.row) {
                spread(k, k->factors + i / k->blocks.count * k->groups * 2, &t, mean, scale);
                for (int64_t c = 0; c < t.width; c++) scale[c] *= gamma[t.column + c];
            }
            const float *x = tile_load_area(k->rows, x_tensor, &t, x_tile, &x_stride);
            float *y = tile_output_area(y_tensor, &t, y_tile, &y_stride);
            // In 16 bits the norm is rounded before SiLU, as separate ops (and autocast on CPUs) would.
            const bool silu = k->args->attr->norm.silu, narrow = y_tensor->dtype != PB_F32;
            k->rows->normalise(x, x_stride, y, y_stride, t.count, t.width, mean, scale, beta + t.column,
                               silu && !narrow);
            if (silu && narrow) {  // y is a tile of its own, without gaps between its rows
                k->rows->round(y_tensor->dtype, y, t.count * t.width);
                k->rows->activate(PB_UNARY_SILU, y, y, t.count * t.width);
            }
            tile_store_area(k->rows, y_tensor, &t, y, y_stride, &none, NULL);
        }
    }
}

uint64_t pb_cpu_group_norm_workspace(const pb_kernel_args *args) {
    return workspace_bytes(args, &args->in[0], args->attr->norm.groups * 2);
}

void pb_cpu_group_norm(const pb_kernel_args *args) {
    group_norm k = group_norm_of(args, &args->in[0], args->attr->norm.groups * 2);
    const column_blocks *b = &k.blocks;
    column_blocks_run(b, moments_range, &k);
    column_blocks_combine(b, k.sums, k.groups * 2);
    const double size = (double)(b->pixels * k.span);
    for (int64_t i = 0; i < b->images * k.groups; i++) {
        const double *sums = k.sums + (i / k.groups * b->count * k.groups + i % k.groups) * 2;
        const double mean = sums[0] / size, variance = fmax(0, sums[1] / size - mean * mean);
        k.factors[2 * i] = (float)mean;
        k.factors[2 * i + 1] = (float)(1 / sqrt(variance + (double)args->attr->norm.eps));
    }
    if (args->out[1].data) memcpy(args->out[1].data, k.factors, (size_t)(b->images * k.groups) * 2 * sizeof *k.factors);
    column_blocks_run(b, normalise_range, &k);
}

// Per-channel rows of a tile that both passes of the gradient need.
typedef struct channels {
    float mean[STRIP], inverse[STRIP];
} channels;

// `c` is filled at the first tile of a strip, area's first row.
static pb_norm_block norm_block_of(const group_norm *k, const tile_area *area, const tile_area *t, channels *c,
                                   float *dy_tile, float *x_tile) {
    const pb_kernel_args *args = k->args;
    const float *stats = (const float *)args->in[4].data + t->row / k->blocks.pixels * k->groups * 2;
    if (t->row == area->row) spread(k, stats, t, c->mean, c->inverse);
    pb_norm_block b = {.rows = t->count, .width = t->width, .mean = c->mean, .inverse = c->inverse};
    b.gamma = (const float *)args->in[2].data + t->column;
    b.beta = args->attr->norm.silu ? (const float *)args->in[3].data + t->column : NULL;
    b.dy = tile_load_area(k->rows, &args->in[0], t, dy_tile, &b.dy_stride);
    b.x = tile_load_area(k->rows, &args->in[1], t, x_tile, &b.x_stride);
    return b;
}

// Backward, sums[block][2][channel]: of dz, and of dz times the normalised element.
static void bwd_sums_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const group_norm *k = context;
    const int64_t width = k->blocks.channels;
    float dy_tile[AREA], x_tile[AREA];
    channels c;
    for (int64_t i = begin; i < end; i++) {
        double *to = k->sums + i * width * 2;
        memset(to, 0, (size_t)width * 2 * sizeof *to);
        const tile_area area = column_block_area(&k->blocks, i);
        for (tile_area t = tile_first(&area); t.width; tile_next(&area, &t)) {
            const pb_norm_block b = norm_block_of(k, &area, &t, &c, dy_tile, x_tile);
            k->rows->norm_bwd_sums(&b, to + t.column, to + width + t.column);
        }
    }
}

static void bwd_data_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const group_norm *k = context;
    const pb_tensor *dx_tensor = &k->args->out[0];
    float dy_tile[AREA], x_tile[AREA], dx_tile[AREA], sum[STRIP], product[STRIP];
    channels c;
    for (int64_t i = begin; i < end; i++) {
        const tile_area area = column_block_area(&k->blocks, i);
        for (tile_area t = tile_first(&area); t.width; tile_next(&area, &t)) {
            int64_t stride;
            if (t.row == area.row) spread(k, k->factors + i / k->blocks.count * k->groups * 2, &t, sum, product);
            const pb_norm_block b = norm_block_of(k, &area, &t, &c, dy_tile, x_tile);
            float *dx = tile_output_area(dx_tensor, &t, dx_tile, &stride);
            k->rows->norm_bwd_data(&b, sum, product, dx, stride);
            tile_store_area(k->rows, dx_tensor, &t, dx, stride, &k->args->in[5], x_tile);
        }
    }
}

uint64_t pb_cpu_group_norm_bwd_workspace(const pb_kernel_args *args) {
    return workspace_bytes(args, &args->in[1], pb_shape_last(args->in[1].shape) * 2);
}

void pb_cpu_group_norm_bwd(const pb_kernel_args *args) {
    group_norm k = group_norm_of(args, &args->in[1], pb_shape_last(args->in[1].shape) * 2);
    const column_blocks *b = &k.blocks;
    const float *gamma = args->in[2].data;
    column_blocks_run(b, bwd_sums_range, &k);
    column_blocks_combine(b, k.sums, b->channels * 2);
    const double size = (double)(b->pixels * k.span);
    for (int64_t i = 0; i < b->images * k.groups; i++) {
        const double *sums = k.sums + i / k.groups * b->count * b->channels * 2;
        double sum = 0, product = 0;
        for (int64_t c = i % k.groups * k.span; c < (i % k.groups + 1) * k.span; c++) {
            sum += sums[c] * gamma[c];
            product += sums[b->channels + c] * gamma[c];
        }
        k.factors[2 * i] = (float)(sum / size);
        k.factors[2 * i + 1] = (float)(product / size);
    }
    for (int64_t o = 1; o <= 2; o++) {  // dgamma from the products, dbeta from the sums
        float *to = args->out[o].data;
        for (int64_t c = 0; to && c < b->channels; c++) {
            double sum = 0;
            for (int64_t n = 0; n < b->images; n++) sum += k.sums[(n * b->count * 2 + 2 - o) * b->channels + c];
            to[c] = (float)sum;
        }
    }
    if (args->out[0].data) column_blocks_run(b, bwd_data_range, &k);
}
