// One blocked matrix product under all contractions: out[m, n] = finish(sum over k of a[m, k] b[k, n]).
//
// An operand is described by where its rows lie in memory, so convolutions gather their pixels, transposed matrices are
// read as they are, and 16-bit elements are converted, all while panels are packed. Nothing is allocated.
#ifndef PB_KERNELS_CPU_GEMM_H
#define PB_KERNELS_CPU_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/op.h"

// The addresses of rows [first, first + count) of an operand in one of its segments (see pb_gemm); NULL: zeros.
typedef void (*pb_gemm_locate)(const void *context, int64_t segment, int64_t first, int64_t count, const char **rows);

typedef struct pb_gemm_operand {
    pb_gemm_locate locate;
    const void *context;
    bool along;  // a row runs along K, and there is one per m or n; else it runs along m or n, and there is one per k
} pb_gemm_operand;

// K is k_segments runs of k_length (the taps of a kernel window: b and a's rows are contiguous only within one), or N
// is n_segments runs of n_length; one of the two counts is 1.
typedef struct pb_gemm {
    int64_t m, n;
    int64_t k_segments, k_length, n_segments, n_length;
    pb_dtype dtype;  // of a, b, out, rowbias and addend
    pb_gemm_operand a, b;

    void *out;  // [rows, n]; row i of the product is row out_row(i), or i without that function
    int64_t (*out_row)(const void *context, int64_t i);
    const void *out_context;
    const float *bias;    // [n] or NULL
    const void *rowbias;  // [m / rowbias_rows, n] or NULL
    int64_t rowbias_rows;
    const void *addend;  // like out, or NULL; may be out
    bool streams;        // out is large and not read soon: written around the caches; without bias and addends
} pb_gemm;

// Weight gradients from this size on are better written around the caches: measured, 80 GB/s instead of 30.
enum { PB_GEMM_STREAM_BYTES = 2 << 20 };

// Bytes of scratch for these shapes, operands' data aside.
uint64_t pb_gemm_workspace(const pb_gemm *g);
void pb_gemm_run(const pb_gemm *g, void *workspace);

// Rows of a matrix: row r of segment s lies at data + r * row_bytes + s * segment_bytes.
typedef struct pb_gemm_matrix {
    const char *data;
    int64_t row_bytes, segment_bytes;
} pb_gemm_matrix;
void pb_gemm_locate_matrix(const void *matrix, int64_t segment, int64_t first, int64_t count, const char **rows);

// out[columns] (fp32) = sums of the rows of x[rows, columns]; the same bits for any number of threads. Needs
// columns * 8 bytes of workspace.
void pb_gemm_column_sums(float *out, const void *x, int64_t rows, int64_t columns, pb_dtype dtype, void *workspace);
uint64_t pb_gemm_column_sums_workspace(int64_t columns);

#endif
