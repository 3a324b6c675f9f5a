// Whose kernel does an attention op: cuDNN's or ours. No GPU is needed to know it.
#ifndef PB_KERNELS_CUDA_ATTENTION_OP_H
#define PB_KERNELS_CUDA_ATTENTION_OP_H

#include "base/op.h"

// What makes two attention ops the same to cuDNN.
typedef struct pb_cudnn_attention_shape {
    bool gradient;
    pb_dtype dtype;  // of q, k, v, y and their gradients; lse is fp32
    bool lse;        // whether the forward op stores it
    int64_t images, heads, width, queries, keys;
} pb_cudnn_attention_shape;

// Of arguments without data.
pb_cudnn_attention_shape pb_cuda_attention_shape_of(pb_opcode op, const pb_kernel_args *args);
// Whether cuDNN is asked for a plan on GPUs of this compute capability. Where it then has none, ours does it.
bool pb_cuda_attention_is_cudnns(pb_opcode op, const pb_kernel_args *args, int capability);

// For measurements and tests: AUTO is what the rest of the program has. Scratch sizes and `prepare` go by it.
typedef enum pb_cuda_attention_choice {
    PB_CUDA_ATTENTION_AUTO,
    PB_CUDA_ATTENTION_OURS,
    PB_CUDA_ATTENTION_CUDNNS,  // wherever it is possible
} pb_cuda_attention_choice;
void pb_cuda_attention_choose(pb_cuda_attention_choice choice);

#endif
