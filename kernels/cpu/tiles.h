// Tiles: short stretches of a tensor as floats. An fp32 tensor is its own tile; a 16-bit one is converted to a buffer
// in the first-level cache and back.
#ifndef PB_KERNELS_CPU_TILES_H
#define PB_KERNELS_CPU_TILES_H

#include "kernels/cpu/rows.h"

enum {
    TILE = 1024,        // elements of a one-dimensional tile
    GRAIN = 32 * 1024,  // elements below which a second thread costs more than it saves
};

static inline int64_t tile_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t tile_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}

// Items of `size` elements that make up GRAIN.
static inline int64_t tile_grain(int64_t size) {
    return tile_max(1, GRAIN / tile_max(1, size));
}

static inline void *tile_address(const pb_tensor *t, int64_t i) {
    return (char *)t->data + (size_t)i * pb_dtype_size(t->dtype);
}

// Elements i .. i+n-1.
static inline const float *tile_load(const pb_row_kernels *rows, const pb_tensor *t, int64_t i, int64_t n,
                                     float *buffer) {
    if (t->dtype == PB_F32) return tile_address(t, i);
    rows->load(t->dtype, tile_address(t, i), buffer, n);
    return buffer;
}

// Where the results for elements i.. go; tile_store then puts them into the tensor.
static inline float *tile_output(const pb_tensor *t, int64_t i, float *buffer) {
    return t->dtype == PB_F32 ? tile_address(t, i) : buffer;
}

static inline void tile_store(const pb_row_kernels *rows, const pb_tensor *t, int64_t i, int64_t n,
                              const float *results) {
    if (t->dtype != PB_F32) rows->store(t->dtype, results, tile_address(t, i), n);
}

// tile_store after adding elements i.. of an addend that may be absent, as a separate op would: the results are rounded
// to the dtype of `t` first.
static inline void tile_store_sum(const pb_row_kernels *rows, const pb_tensor *t, int64_t i, int64_t n, float *results,
                                  const pb_tensor *addend, float *buffer) {
    if (addend->data) {
        rows->round(t->dtype, results, n);
        rows->add(results, tile_load(rows, addend, i, n, buffer), results, n);
    }
    tile_store(rows, t, i, n, results);
}

// A part of a [pixels, channels] matrix: `count` rows from `row`, `width` columns from `column`.
typedef struct tile_area {
    int64_t row, count, column, width, channels;
} tile_area;

static inline const float *tile_load_area(const pb_row_kernels *rows, const pb_tensor *t, const tile_area *a,
                                          float *buffer, int64_t *stride) {
    const int64_t first = a->row * a->channels + a->column;
    *stride = t->dtype == PB_F32 ? a->channels : a->width;
    if (t->dtype == PB_F32) return tile_address(t, first);
    if (a->width == a->channels) return tile_load(rows, t, first, a->count * a->width, buffer);
    for (int64_t r = 0; r < a->count; r++) tile_load(rows, t, first + r * a->channels, a->width, buffer + r * a->width);
    return buffer;
}

static inline float *tile_output_area(const pb_tensor *t, const tile_area *a, float *buffer, int64_t *stride) {
    *stride = t->dtype == PB_F32 ? a->channels : a->width;
    return tile_output(t, a->row * a->channels + a->column, buffer);
}

static inline void tile_store_area(const pb_row_kernels *rows, const pb_tensor *t, const tile_area *a, float *results,
                                   int64_t stride, const pb_tensor *addend, float *buffer) {
    const int64_t first = a->row * a->channels + a->column;
    if (a->width == a->channels) {
        tile_store_sum(rows, t, first, a->count * a->width, results, addend, buffer);
        return;
    }
    for (int64_t r = 0; r < a->count; r++)
        tile_store_sum(rows, t, first + r * a->channels, a->width, results + r * stride, addend, buffer);
}

#endif
