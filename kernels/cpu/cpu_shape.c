// add, concat, slice, cast, decode8: what moves elements.
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/tiles.h"
#include "quant/codecs.h"

_Static_assert((int)TILE % (int)PB_BLOCK8 == 0 && GRAIN % TILE == 0, "decode8's tiles are whole blocks");

static void add_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_row_kernels *rows = pb_rows();
    float a_tile[TILE], b_tile[TILE], y_tile[TILE];
    for (int64_t i = begin; i < end; i += TILE) {
        const int64_t n = tile_min(TILE, end - i);
        float *y = tile_output(&args->out[0], i, y_tile);
        rows->add(tile_load(rows, &args->in[0], i, n, a_tile), tile_load(rows, &args->in[1], i, n, b_tile), y, n);
        tile_store(rows, &args->out[0], i, n, y);
    }
}

void pb_cpu_add(const pb_kernel_args *args) {
    pb_parallel_for(pb_shape_count(args->out[0].shape), GRAIN, add_range, (void *)args);
}

static void concat_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const size_t size = pb_dtype_size(args->out[0].dtype);
    const size_t a = (size_t)pb_shape_last(args->in[0].shape) * size;
    const size_t b = (size_t)pb_shape_last(args->in[1].shape) * size;
    for (size_t r = (size_t)begin; r < (size_t)end; r++) {
        char *y = (char *)args->out[0].data + r * (a + b);
        memcpy(y, (const char *)args->in[0].data + r * a, a);
        memcpy(y + a, (const char *)args->in[1].data + r * b, b);
    }
}

void pb_cpu_concat(const pb_kernel_args *args) {
    const pb_shape shape = args->out[0].shape;
    pb_parallel_for(pb_shape_rows(shape), tile_grain(pb_shape_last(shape)), concat_range, (void *)args);
}

static void slice_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const size_t size = pb_dtype_size(args->out[0].dtype);
    const size_t from = (size_t)pb_shape_last(args->in[0].shape) * size;
    const size_t to = (size_t)pb_shape_last(args->out[0].shape) * size;
    const char *x = (const char *)args->in[0].data + (size_t)args->attr->slice.begin * size;
    for (size_t r = (size_t)begin; r < (size_t)end; r++) memcpy((char *)args->out[0].data + r * to, x + r * from, to);
}

void pb_cpu_slice(const pb_kernel_args *args) {
    const pb_shape shape = args->out[0].shape;
    pb_parallel_for(pb_shape_rows(shape), tile_grain(pb_shape_last(shape)), slice_range, (void *)args);
}

static void cast_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    if (x->dtype == y->dtype || x->dtype == PB_F64 || y->dtype == PB_F64) {
        pb_convert(y->dtype, tile_address(y, begin), x->dtype, tile_address(x, begin), (size_t)(end - begin));
        return;
    }
    const pb_row_kernels *rows = pb_rows();
    float tile[TILE];
    for (int64_t i = begin; i < end; i += TILE) {
        const int64_t n = tile_min(TILE, end - i);
        if (y->dtype == PB_F32)
            rows->load(x->dtype, tile_address(x, i), tile_address(y, i), n);
        else
            rows->store(y->dtype, tile_load(rows, x, i, n, tile), tile_address(y, i), n);
    }
}

void pb_cpu_cast(const pb_kernel_args *args) {
    pb_parallel_for(pb_shape_count(args->out[0].shape), GRAIN, cast_range, (void *)args);
}

static void decode8_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    const float *scales = args->in[1].data;
    const pb_codecs *codecs = pb_codecs_here();
    const pb_row_kernels *rows = pb_rows();
    float tile[TILE];
    for (int64_t i = begin; i < end; i += TILE) {
        const int64_t n = tile_min(TILE, end - i);
        float *to = y->dtype == PB_F32 ? tile_address(y, i) : tile;
        codecs->decode8(true, tile_address(x, i), scales + i / PB_BLOCK8, n, to);
        if (to == tile) rows->store(y->dtype, tile, tile_address(y, i), n);
    }
}

void pb_cpu_decode8(const pb_kernel_args *args) {
    pb_parallel_for(pb_shape_count(args->out[0].shape), GRAIN, decode8_range, (void *)args);
}
