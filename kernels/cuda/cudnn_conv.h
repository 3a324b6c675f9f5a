// Execution plans of cuDNN for one convolution or one of its gradients, NHWC: which kernel will run and what scratch it
// wants, settled once per shape. A plan can be made for the GPU behind a handle, or, without any GPU, for one that is
// described (cuda_target.h), which is how a step is planned for a machine that is not this one.
#ifndef PB_KERNELS_CUDA_CUDNN_CONV_H
#define PB_KERNELS_CUDA_CUDNN_CONV_H

#include "kernels/cuda/cudnn_graph.h"

typedef enum pb_conv_kind { PB_CONV_FORWARD, PB_CONV_BACKWARD_DATA, PB_CONV_BACKWARD_FILTER } pb_conv_kind;

// What makes two convolutions the same to cuDNN. All fields are set, so that keys compare field by field.
typedef struct pb_conv_shape {
    pb_conv_kind kind;
    pb_dtype dtype;                            // of x, w and y; sums are fp32
    int64_t n, h, w, c;                        // x[N,H,W,C], resized already
    int64_t k, kh, kw;                         // w[K,kh,kw,C]
    int64_t oh, ow;                            // y[N,OH,OW,K]
    int64_t stride, top, left, bottom, right;  // bottom, right: zeros beyond the edge that a window touches
    bool accumulate;                           // the result is added to what its place holds, in fp32
} pb_conv_shape;

// PB_ERR_UNSUPPORTED where cuDNN has no plan that keeps to pb_cudnn_plan_find's rules.
pb_status pb_cudnn_conv_plan_create(const pb_cudnn_api *api, pb_cudnn_place place, const pb_conv_shape *shape,
                                    int64_t most_workspace, pb_cudnn_plan *plan);

// The pointers of one call. x[N,H,W,C], w and y as in pb_conv_shape, whichever of them is the result. Addresses are
// multiples of 16.
pb_status pb_cudnn_conv_pack_create(const pb_cudnn_plan *plan, void *x, void *w, void *y, void *workspace,
                                    pb_cudnn_descriptor *pack);

#endif
