// The CUDA kernels, one launcher per op of ops.def, which gives their arguments. Pointers are device memory. A launcher
// puts work into `stream` (a cudaStream_t) and returns at once; it allocates nothing, waits for nothing, and may be
// captured into a graph. PB_ERR_INTERNAL when CUDA refuses a launch. All are deterministic: the order of every sum
// follows from shapes alone.
#ifndef PB_KERNELS_CUDA_CUDA_KERNELS_H
#define PB_KERNELS_CUDA_CUDA_KERNELS_H

#include "base/error.h"
#include "base/op.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef pb_status (*pb_cuda_launcher)(const pb_kernel_args *args, void *stream);

// The workspace queries exist for the ops that cuda_table.c lists with one.
#define PB_OP(name, NAME, gradient, kind, inplace)                      \
    pb_status pb_cuda_##name(const pb_kernel_args *args, void *stream); \
    uint64_t pb_cuda_##name##_workspace(const pb_kernel_args *args);
#include "base/ops.def"
#undef PB_OP

// grad_norm of several gradients in a row, the same bits in fewer launches: how many of `count` of them can be taken
// together (one norm in one place, all but the first small), and those.
uint32_t pb_cuda_grad_norms_at_once(const pb_kernel_args *const *args, uint32_t count);
pb_status pb_cuda_grad_norms(const pb_kernel_args *const *args, uint32_t count, void *stream);

// adamw of several parameters as one launch, the same bits: how many of `count` of them can be taken together
// (cuda_together.c), and those. One table of them is a kernel's argument.
enum { PB_CUDA_ADAMWS_OF_FLOATS = 50, PB_CUDA_ADAMWS = 28 };  // at most: where all have fp32 state, and where not
bool pb_cuda_adamw_is_float(const pb_kernel_args *args);
uint32_t pb_cuda_adamws_at_once(const pb_kernel_args *const *args, uint32_t count);
pb_status pb_cuda_adamws(const pb_kernel_args *const *args, uint32_t count, void *stream);

// Attention by our own kernels; the ops' launchers (cuda_attention_op.c) prefer cuDNN's for some shapes.
pb_status pb_cuda_attention_own(const pb_kernel_args *args, void *stream);
pb_status pb_cuda_attention_own_bwd(const pb_kernel_args *args, void *stream);
uint64_t pb_cuda_attention_own_bwd_workspace(const pb_kernel_args *args);

extern const pb_cuda_launcher pb_cuda_launchers[PB_OP_COUNT];
extern const pb_kernel_workspace pb_cuda_workspaces[PB_OP_COUNT];  // NULL: none needed

// What follows a contraction: y = round(round(round(sum + bias) + rowbias) + residual), to y's dtype where a term is
// present; y = round(sum) where none is. y and residual [rows, channels] of one dtype; rowbias [images, channels] of it
// too, image = row / (rows / images); bias[channels] fp32, rounded to y's dtype first. Absent: NULL. `sum` is fp32 or
// of y's dtype; y may be sum (of one dtype) or residual.
typedef struct pb_cuda_epilogue_args {
    const void *sum;
    pb_dtype sum_dtype;
    void *y;
    pb_dtype dtype;
    const float *bias;
    const void *rowbias, *residual;
    int64_t rows, channels, images;
} pb_cuda_epilogue_args;
pb_status pb_cuda_epilogue(const pb_cuda_epilogue_args *args, void *stream);

// sums[image, channel] (fp32 or, by sum_pixels, of x's dtype) of x[images, rows, channels] over the rows of an image,
// in fp32. A bias gradient is images = 1. The workspace may be NULL where its query gives 0.
typedef struct pb_cuda_column_sums_args {
    const void *x;
    pb_dtype dtype, sums_dtype;
    void *sums;
    int64_t images, rows, channels;
    void *workspace;
} pb_cuda_column_sums_args;
pb_status pb_cuda_column_sums(const pb_cuda_column_sums_args *args, void *stream);
uint64_t pb_cuda_column_sums_workspace(int64_t images, int64_t rows, int64_t channels);

#ifdef __cplusplus
}
#endif

#endif
