// The vector code under the contractions, one table per instruction set, all made from gemm_body.h.
//
// A panel is a slice of a matrix in the order in which the tile kernel reads it: for each step along K, `width` units
// of 32 bits side by side. A unit is a float, or two consecutive 16-bit elements along K where the machine has dot
// products of pairs.
#ifndef PB_KERNELS_CPU_GEMM_KERNELS_H
#define PB_KERNELS_CPU_GEMM_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/isa.h"

//
// Of a tile's left operand there is a second form, without the interleaving: rows of units, PB_ROW_STRIDE apart. It is
// a plain copy of rows that run along K, and the kernels reach all of it from one address.
enum { PB_TILE_ROWS_MAX = 14, PB_TILE_COLUMNS_MAX = 32, PB_ROW_UNITS_MAX = 320, PB_ROW_STRIDE = 336 };
typedef enum pb_left { PB_LEFT_PANEL, PB_LEFT_ROWS } pb_left;

// How the elements in memory become units.
typedef enum pb_unit { PB_UNIT_F32, PB_UNIT_F16, PB_UNIT_BF16, PB_UNIT_PAIR } pb_unit;

// c[rows, columns] (+)= sum over steps of a[step, rows] b[step, columns]; ldc in floats. The additions for one element
// are in the order of K whatever the tile's size. Along the way it asks for soon_count (at most `steps`) lines of
// memory that will be packed next, spread over the steps: a burst of requests would hold the core up.
typedef void (*pb_tile_kernel)(int64_t steps, const float *a, const float *b, float *c, int64_t ldc, bool add,
                               const char *const *soon, int64_t soon_count);

// [form of the left operand][one or two vectors of columns][rows - 1]
typedef pb_tile_kernel pb_tile_kernels[2][2][PB_TILE_ROWS_MAX];

typedef struct pb_gemm_kernels {
    int lanes;  // floats in a vector
    int rows;   // of the largest tile; the most columns are two vectors
    pb_tile_kernels tile;

    // Copies `length` elements from `offset` on of each of `count` rows that run along K, PB_ROW_STRIDE units apart.
    // NULL rows are zeros.
    void (*copy_rows)(float *to, const char *const *rows, int64_t count, int64_t offset, int64_t length, pb_unit unit);
    // Packs `length` elements from `offset` on of each of `count` rows that run along K; row r becomes column r of the
    // panel. NULL rows are zeros. Columns from `count` on are left alone.
    void (*pack_along)(float *panel, int64_t width, const char *const *rows, int64_t count, int64_t offset,
                       int64_t length, pb_unit unit);
    // Packs `columns` elements from `offset` on of each of `length` rows that run across K: row p becomes step p
    // (pairs: half a step). `panel` points at the first step's first column to write; columns beyond `width` continue
    // in further panels, panel_floats apart.
    void (*pack_across)(float *panel, int64_t width, int64_t panel_floats, const char *const *rows, int64_t columns,
                        int64_t offset, int64_t length, pb_unit unit);

    // out = ((sums + bias) + rowbias) + addend, each rounded to dtype; all but out and sums may be NULL. bias is fp32
    // and rounded before it is added; the others have out's dtype. addend may be out.
    void (*finish)(void *out, const float *sums, int64_t count, pb_dtype dtype, const float *bias, const void *rowbias,
                   const void *addend);
    // Copies around the caches, for results that are large and not read soon. stream_end before other threads read.
    void (*stream)(void *out, const void *from, int64_t bytes);
    void (*stream_end)(void);
    // sums[count] += the sums of `rows` rows, `stride` elements apart.
    void (*add_rows)(float *sums, const void *from, int64_t count, int64_t rows, int64_t stride, pb_dtype dtype);

    // Attention works on columns of queries, two vectors of them: a row per key.
    // One block of scores[keys, columns] of the online softmax. max and sum (of the columns so far) are brought up to
    // date, factor gets what earlier sums must be multiplied by, and scores becomes the panel of
    // exp(scale score - max), rounded to dtype, in `unit`.
    void (*softmax)(float *scores, int64_t keys, float scale, float *max, float *sum, float *factor, pb_dtype dtype,
                    pb_unit unit);
    // p = exp(scale score - lse), ds = p (dp - delta) scale, both rounded to dtype; rows `stride` elements apart.
    void (*softmax_bwd)(const float *scores, const float *dp, int64_t keys, float scale, const float *lse,
                        const float *delta, void *p, void *ds, int64_t stride, pb_dtype dtype);
    // x[rows, columns] *= factor[columns]
    void (*scale_columns)(float *x, int64_t rows, const float *factor);
    // out[r] = the product of row r of a and of b; rows `stride` elements apart.
    void (*dot_rows)(float *out, const void *a, const void *b, int64_t count, int64_t rows, int64_t stride,
                     pb_dtype dtype);
} pb_gemm_kernels;

const pb_gemm_kernels *pb_gemm_kernels_scalar(void);
const pb_gemm_kernels *pb_gemm_kernels_avx2(void);
const pb_gemm_kernels *pb_gemm_kernels_avx512(void);
const pb_tile_kernels *pb_gemm_tiles_avx512bf16(void);  // over pairs of bf16

// What pb_cpu_isa() has, and for a dtype: its units and the tiles for them.
typedef struct pb_gemm_path {
    const pb_gemm_kernels *kernels;
    const pb_tile_kernels *tile;
    pb_unit unit;
    int step;  // elements along K in a unit
    int size;  // bytes of an element
} pb_gemm_path;

pb_gemm_path pb_gemm_path_for(pb_dtype dtype);

#endif
