// Resizing by nearest pixels around a convolution (resize.cu).
#ifndef PB_KERNELS_CUDA_RESIZE_H
#define PB_KERNELS_CUDA_RESIZE_H

#include "base/error.h"
#include "base/op.h"

#ifdef __cplusplus
extern "C" {
#endif

// Images [n, h, w, channels] and [n, up_h, up_w, channels]; pixel (y, x) of the second is that of the first at
// PyTorch's nearest index of each. One dtype throughout.
typedef struct pb_cuda_resize_args {
    pb_dtype dtype;
    int64_t n, h, w, up_h, up_w, channels;
    const void *from;    // the first for resize, the second for its gradient
    const void *addend;  // like `to`, or NULL; the gradient only; may be `to`
    void *to;
} pb_cuda_resize_args;
pb_status pb_cuda_resize(const pb_cuda_resize_args *args, void *stream);
// to = sum of the pixels that were copied from it, in fp32 and in ascending order, rounded; then + addend, rounded.
pb_status pb_cuda_resize_bwd(const pb_cuda_resize_args *args, void *stream);

// Starts an empty kernel: the first use of this program's device code, which fails where none is for the GPU.
pb_status pb_cuda_probe(void *stream);

#ifdef __cplusplus
}
#endif

#endif
