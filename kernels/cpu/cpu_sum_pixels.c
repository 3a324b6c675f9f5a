// y[N,C] = the sums of x[N,P,C] over the pixels.
#include <string.h>

#include "kernels/cpu/column_blocks.h"
#include "kernels/cpu/cpu_kernels.h"

static column_blocks blocks_of(const pb_kernel_args *args) {
    const pb_shape shape = args->in[0].shape;
    return column_blocks_of(shape.dim[0], pb_shape_rows(shape) / shape.dim[0], pb_shape_last(shape));
}

// The workspace is sums[block][channel].
static void sum_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_row_kernels *rows = pb_rows();
    const column_blocks blocks = blocks_of(args);
    float tile[AREA];
    for (int64_t i = begin; i < end; i++) {
        double *sums = (double *)args->workspace + i * blocks.channels;
        memset(sums, 0, (size_t)blocks.channels * sizeof *sums);
        const tile_area area = column_block_area(&blocks, i);
        for (tile_area t = tile_first(&area); t.width; tile_next(&area, &t)) {
            int64_t stride;
            const float *x = tile_load_area(rows, &args->in[0], &t, tile, &stride);
            rows->column_sums(x, stride, t.count, t.width, sums + t.column);
        }
    }
}

uint64_t pb_cpu_sum_pixels_workspace(const pb_kernel_args *args) {
    const column_blocks blocks = blocks_of(args);
    return (uint64_t)(blocks.images * blocks.count * blocks.channels) * sizeof(double);
}

void pb_cpu_sum_pixels(const pb_kernel_args *args) {
    const column_blocks blocks = blocks_of(args);
    const pb_tensor *y = &args->out[0];
    const double *sums = args->workspace;
    column_blocks_run(&blocks, sum_range, (void *)args);
    column_blocks_combine(&blocks, args->workspace, blocks.channels);
    for (int64_t i = 0; i < blocks.images * blocks.channels; i++) {
        const int64_t n = i / blocks.channels, c = i % blocks.channels;
        pb_dtype_store(y->dtype, y->data, (size_t)i, sums[n * blocks.count * blocks.channels + c]);
    }
}
