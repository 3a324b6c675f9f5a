// unary, geglu and their gradients.
#include "base/parallel.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/tiles.h"

static void unary_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_row_kernels *rows = pb_rows();
    float x_tile[TILE], y_tile[TILE];
    for (int64_t i = begin; i < end; i += TILE) {
        const int64_t n = tile_min(TILE, end - i);
        float *y = tile_output(&args->out[0], i, y_tile);
        rows->activate(args->attr->unary.kind, tile_load(rows, &args->in[0], i, n, x_tile), y, n);
        tile_store(rows, &args->out[0], i, n, y);
    }
}

void pb_cpu_unary(const pb_kernel_args *args) {
    pb_parallel_for(pb_shape_count(args->out[0].shape), GRAIN, unary_range, (void *)args);
}

static void unary_bwd_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_row_kernels *rows = pb_rows();
    float dy_tile[TILE], x_tile[TILE], dx_tile[TILE];
    for (int64_t i = begin; i < end; i += TILE) {
        const int64_t n = tile_min(TILE, end - i);
        const float *dy = tile_load(rows, &args->in[0], i, n, dy_tile);
        const float *x = tile_load(rows, &args->in[1], i, n, x_tile);
        float *dx = tile_output(&args->out[0], i, dx_tile);
        rows->activate_bwd(args->attr->unary.kind, dy, x, dx, n);
        tile_store(rows, &args->out[0], i, n, dx);
    }
}

void pb_cpu_unary_bwd(const pb_kernel_args *args) {
    pb_parallel_for(pb_shape_count(args->out[0].shape), GRAIN, unary_bwd_range, (void *)args);
}

// x[R,2D] -> y[R,D]; the range counts rows
static void geglu_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    const pb_row_kernels *rows = pb_rows();
    const int64_t width = pb_shape_last(y->shape);
    float h_tile[TILE], g_tile[TILE], y_tile[TILE];
    for (int64_t r = begin; r < end; r++) {
        for (int64_t c = 0; c < width; c += TILE) {
            const int64_t n = tile_min(TILE, width - c), h = 2 * r * width + c;
            float *out = tile_output(y, r * width + c, y_tile);
            // The gate is rounded before the product, as separate ops would.
            rows->activate(PB_UNARY_GELU, tile_load(rows, x, h + width, n, g_tile), g_tile, n);
            rows->round(y->dtype, g_tile, n);
            rows->multiply(tile_load(rows, x, h, n, h_tile), g_tile, out, n);
            tile_store(rows, y, r * width + c, n, out);
        }
    }
}

void pb_cpu_geglu(const pb_kernel_args *args) {
    const pb_shape shape = args->out[0].shape;
    pb_parallel_for(pb_shape_rows(shape), tile_grain(pb_shape_last(shape)), geglu_range, (void *)args);
}

// dy[R,D] x[R,2D] -> dx[R,2D]
static void geglu_bwd_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_tensor *dy = &args->in[0], *x = &args->in[1], *dx = &args->out[0];
    const pb_row_kernels *rows = pb_rows();
    const int64_t width = pb_shape_last(dy->shape);
    float dy_tile[TILE], h_tile[TILE], g_tile[TILE], dh_tile[TILE], dg_tile[TILE];
    for (int64_t r = begin; r < end; r++) {
        for (int64_t c = 0; c < width; c += TILE) {
            const int64_t n = tile_min(TILE, width - c), h = 2 * r * width + c, g = h + width;
            float *dh = tile_output(dx, h, dh_tile), *dg = tile_output(dx, g, dg_tile);
            rows->geglu_bwd(tile_load(rows, dy, r * width + c, n, dy_tile), tile_load(rows, x, h, n, h_tile),
                            tile_load(rows, x, g, n, g_tile), dh, dg, n);
            tile_store(rows, dx, h, n, dh);
            tile_store(rows, dx, g, n, dg);
        }
    }
}

void pb_cpu_geglu_bwd(const pb_kernel_args *args) {
    const pb_shape shape = args->in[0].shape;
    pb_parallel_for(pb_shape_rows(shape), tile_grain(pb_shape_last(shape)), geglu_bwd_range, (void *)args);
}
