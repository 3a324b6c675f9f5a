// Attention on matrix units, for those shapes, dtypes and cards that have a path; cuda_attention.cu asks and falls
// back.
#ifndef PB_KERNELS_CUDA_ATTENTION_MMA_H
#define PB_KERNELS_CUDA_ATTENTION_MMA_H

#include "kernels/cuda/attention_tiles.cuh"

bool attention_mma_has(const attention_shape &s);
pb_status attention_mma_launch(const attention_shape &s, const void *q, const void *k, const void *v, void *y,
                               float *lse, void *stream);
// delta[image, head, query]: dy . y
pb_status attention_gradient_mma_launch(const attention_shape &s, const attention_gradient_in &in, const float *delta,
                                        void *dq, void *dk, void *dv, void *stream);

#endif
