// Execution plans of cuDNN's graph API for one convolution or one of its gradients, NHWC: which kernel will run and
// what scratch it wants, settled once per shape. A plan can be made for the GPU behind a handle, or, without any GPU,
// for one that is described (cuda_target.h), which is how a step is planned for a machine that is not this one.
#ifndef PB_KERNELS_CUDA_CUDNN_PLAN_H
#define PB_KERNELS_CUDA_CUDNN_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "kernels/cuda/cuda_libraries.h"

typedef enum pb_conv_kind { PB_CONV_FORWARD, PB_CONV_BACKWARD_DATA, PB_CONV_BACKWARD_FILTER } pb_conv_kind;

// What makes two convolutions the same to cuDNN. All fields are set, so that keys compare field by field.
typedef struct pb_conv_shape {
    pb_conv_kind kind;
    pb_dtype dtype;                                     // of x, w and y; sums are fp32
    int64_t n, h, w, c;                                 // x[N,H,W,C], resized already
    int64_t k, kh, kw;                                  // w[K,kh,kw,C]
    int64_t oh, ow;                                     // y[N,OH,OW,K]
    int64_t stride, top, left, bottom, right;           // bottom, right: zeros beyond the edge that a window touches
    bool accumulate;                                    // the result is added to what its place holds, in fp32
} pb_conv_shape;

bool pb_conv_shape_equal(const pb_conv_shape *a, const pb_conv_shape *b);

// Where a plan will run: one of the two is set.
typedef struct pb_cudnn_place {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t properties;  // of a described GPU
} pb_cudnn_place;

// A described GPU, from its JSON text. PB_ERR_UNSUPPORTED where cuDNN does not understand it.
pb_status pb_cudnn_properties_create(const pb_cudnn_api *api, const char *json, cudnnBackendDescriptor_t *properties);

typedef struct pb_cudnn_plan {
    const pb_cudnn_api *api;
    cudnnBackendDescriptor_t plan;
    int64_t workspace_bytes;
    bool tensor_core;
    int rank;      // its place in cuDNN's list of candidates, from 0
    int64_t engine;  // cuDNN's number of it
} pb_cudnn_plan;

// The first of cuDNN's candidates, by its own order of expected speed, that gives the same bits in every run, sums in
// fp32, keeps fp32 inputs fp32, and wants at most `most_workspace` bytes. PB_ERR_UNSUPPORTED where there is none.
pb_status pb_cudnn_plan_create(const pb_cudnn_api *api, pb_cudnn_place place, const pb_conv_shape *shape,
                               int64_t most_workspace, pb_cudnn_plan *plan);
void pb_cudnn_plan_destroy(pb_cudnn_plan *plan);  // zeroed is allowed

// The pointers of one call. x[N,H,W,C], w and y as in pb_conv_shape, whichever of them is the result; workspace of
// plan->workspace_bytes. Addresses are multiples of 16.
pb_status pb_cudnn_pack_create(const pb_cudnn_plan *plan, void *x, void *w, void *y, void *workspace,
                               cudnnBackendDescriptor_t *pack);
pb_status pb_cudnn_plan_run(const pb_cudnn_plan *plan, cudnnHandle_t handle, cudnnBackendDescriptor_t pack);

#endif
