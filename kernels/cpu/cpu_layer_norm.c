// Layer normalisation over the last dimension and its gradient: one pass over memory each.
#include <string.h>

#include "kernels/cpu/column_blocks.h"
#include "kernels/cpu/cpu_kernels.h"

// A row of a 16-bit tensor is converted to one in the workspace; `row` counts those of a thread.
static float *thread_row(const pb_kernel_args *args, uint64_t offset, int thread, int rows_per_thread, int row) {
    const int64_t channels = pb_shape_last(args->in[1].shape);
    return (float *)((char *)args->workspace + offset) + ((int64_t)thread * rows_per_thread + row) * channels;
}

enum { FORWARD_ROWS = 2, BACKWARD_ROWS = 5 };  // of a thread

static void layer_norm_range(void *context, int64_t begin, int64_t end, int thread) {
    const pb_kernel_args *args = context;
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    const pb_row_kernels *rows = pb_rows();
    const int64_t n = pb_shape_last(x->shape);
    float *stats = args->out[1].data, *x_row = thread_row(args, 0, thread, FORWARD_ROWS, 0);
    float *y_row = thread_row(args, 0, thread, FORWARD_ROWS, 1), mean, inverse;
    for (int64_t r = begin; r < end; r++) {
        float *to = tile_output(y, r * n, y_row);
        rows->layer_norm(tile_load(rows, x, r * n, n, x_row), args->in[1].data, args->in[2].data, args->attr->norm.eps,
                         to, &mean, &inverse, n);
        tile_store(rows, y, r * n, n, to);
        if (!stats) continue;
        stats[2 * r] = mean;
        stats[2 * r + 1] = inverse;
    }
}

uint64_t pb_cpu_layer_norm_workspace(const pb_kernel_args *args) {
    return (uint64_t)(pb_threads() * FORWARD_ROWS * pb_shape_last(args->in[0].shape)) * sizeof(float);
}

void pb_cpu_layer_norm(const pb_kernel_args *args) {
    const pb_shape shape = args->in[0].shape;
    pb_parallel_for(pb_shape_rows(shape), tile_grain(pb_shape_last(shape)), layer_norm_range, (void *)args);
}

static column_blocks blocks_of(const pb_kernel_args *args) {
    const pb_shape shape = args->in[1].shape;
    return column_blocks_of(1, pb_shape_rows(shape), pb_shape_last(shape));
}

static uint64_t sums_bytes(const column_blocks *b) {
    return (uint64_t)(b->count * b->channels) * 2 * sizeof(double);
}

// The workspace begins with sums[block][2][channel]: of dy and of dy times the normalised element. They are gathered in
// float for RUN rows and then added in double.
enum { RUN = 32 };

static void layer_norm_bwd_range(void *context, int64_t begin, int64_t end, int thread) {
    const pb_kernel_args *args = context;
    const pb_tensor *dx = &args->out[0];
    const float *gamma = args->in[2].data, *stats = args->in[3].data;
    const pb_row_kernels *rows = pb_rows();
    const column_blocks blocks = blocks_of(args);
    const int64_t n = blocks.channels;
    const bool wants_sums = args->out[1].data || args->out[2].data;
    float *row[BACKWARD_ROWS];
    for (int i = 0; i < BACKWARD_ROWS; i++) row[i] = thread_row(args, sums_bytes(&blocks), thread, BACKWARD_ROWS, i);
    float *dbeta = wants_sums ? row[3] : NULL, *dgamma = wants_sums ? row[4] : NULL;
    for (int64_t i = begin; i < end; i++) {
        double *sums = (double *)args->workspace + i * n * 2;
        memset(sums, 0, (size_t)n * 2 * sizeof *sums);
        const tile_area area = column_block_area(&blocks, i);
        for (int64_t r = area.row, run = 0; r < area.row + area.count; r++) {
            if (wants_sums && run == 0) memset(dbeta, 0, (size_t)n * 2 * sizeof *dbeta);
            const float *dy = tile_load(rows, &args->in[0], r * n, n, row[0]);
            const float *x = tile_load(rows, &args->in[1], r * n, n, row[1]);
            float *to = dx->data ? tile_output(dx, r * n, row[2]) : NULL;
            rows->layer_norm_bwd(dy, x, gamma, stats[2 * r], stats[2 * r + 1], to, dgamma, dbeta, n);
            if (to) tile_store_sum(rows, dx, r * n, n, to, &args->in[4], row[0]);
            run = run + 1 < RUN && r + 1 < area.row + area.count ? run + 1 : 0;
            if (wants_sums && run == 0) rows->column_sums(dbeta, 0, 1, 2 * n, sums);
        }
    }
}

uint64_t pb_cpu_layer_norm_bwd_workspace(const pb_kernel_args *args) {
    const column_blocks blocks = blocks_of(args);
    return sums_bytes(&blocks) + (uint64_t)(pb_threads() * BACKWARD_ROWS * blocks.channels) * sizeof(float);
}

void pb_cpu_layer_norm_bwd(const pb_kernel_args *args) {
    const column_blocks blocks = blocks_of(args);
    double *sums = args->workspace;
    column_blocks_run(&blocks, layer_norm_bwd_range, (void *)args);
    if (!args->out[1].data && !args->out[2].data) return;
    column_blocks_combine(&blocks, sums, 2 * blocks.channels);
    for (int o = 1; o <= 2; o++) {  // dgamma from the products, dbeta from the sums
        float *to = args->out[o].data;
        for (int64_t c = 0; to && c < blocks.channels; c++) to[c] = (float)sums[(2 - o) * blocks.channels + c];
    }
}
