// Execution plans of cuDNN for attention and its gradient: softmax(scale q k^T) v per image and head, in 16 bits, with
// nothing masked. Tokens and heads lie as everywhere here, x[N, tokens, heads * width], which cuDNN takes by strides.
#ifndef PB_KERNELS_CUDA_CUDNN_ATTENTION_H
#define PB_KERNELS_CUDA_CUDNN_ATTENTION_H

#include "kernels/cuda/cuda_attention_op.h"
#include "kernels/cuda/cudnn_graph.h"

// Scratch that cuDNN wants, in bytes, at most: its gradient keeps ds as a matrix, in whole tiles; the forward op wants
// next to nothing. Held to what plans say by tests/cuda/test_attention_plans.c.
uint64_t pb_cudnn_attention_scratch(const pb_cudnn_attention_shape *shape);

// plan->plan is NULL where cuDNN has none that keeps to pb_cudnn_plan_find's rules, or one that is known to be wrong.
// cuDNN compiles these kernels when a plan is made: half a second or so.
pb_status pb_cudnn_attention_plan_create(const pb_cudnn_api *api, pb_cudnn_place place,
                                         const pb_cudnn_attention_shape *shape, int64_t most_workspace,
                                         pb_cudnn_plan *plan);

// The pointers of one call: of the forward op q, k, v, y and lse[N,heads,queries], of the gradient all. `sums` is
// scratch of its own, fp32[N,heads,queries], for the gradient. `scale` and `one` are the host's and stay where they
// are.
typedef struct pb_cudnn_attention_pointers {
    void *q, *k, *v, *y, *lse;
    void *dy, *dq, *dk, *dv, *sums;
    float *scale, *one;
} pb_cudnn_attention_pointers;
pb_status pb_cudnn_attention_pack_create(const pb_cudnn_plan *plan, const pb_cudnn_attention_shape *shape,
                                         const pb_cudnn_attention_pointers *pointers, void *workspace,
                                         pb_cudnn_descriptor *pack);

#endif
