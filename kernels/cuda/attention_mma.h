// Attention on matrix units, for those shapes, dtypes and cards that have a path; cuda_attention.cu asks and falls
// back.
#ifndef PB_KERNELS_CUDA_ATTENTION_MMA_H
#define PB_KERNELS_CUDA_ATTENTION_MMA_H

#include "kernels/cuda/attention_tiles.cuh"

bool attention_mma_has(const attention_shape &s);
pb_status attention_mma_launch(const attention_shape &s, const void *q, const void *k, const void *v, void *y,
                               float *lse, void *stream);
// Few keys and many queries (cross attention): the queries are shared out to so many blocks of the same keys, which
// leave fp32 parts of dk and dv. 1: whole sums. By the shape alone.
static inline int attention_parts(const attention_shape &s) {
    constexpr int TILE = 64, LEAST = 4 * TILE, MOST = 8, BLOCKS = 256;
    if (s.causal || s.dtype == PB_F32 || !s.in_runs || s.width > 160) return 1;
    const int64_t blocks = divide_up(s.keys, TILE) * s.images * s.heads * (s.width > 80 ? 2 : 1);
    int64_t parts = BLOCKS / blocks < s.queries / LEAST ? BLOCKS / blocks : s.queries / LEAST;
    if (parts > MOST) parts = MOST;
    return parts > 1 ? (int)parts : 1;
}

// Floats of those parts: [part][dk, dv][image, key, head, channel].
static inline int64_t attention_part_floats(const attention_shape &s) {
    const int64_t parts = attention_parts(s), of_one = (int64_t)s.images * s.keys * s.heads * s.width;
    return parts > 1 ? 2 * parts * of_one : 0;
}

// delta[image, head, query]: dy . y
pb_status attention_gradient_mma_launch(const attention_shape &s, const attention_gradient_in &in, const float *delta,
                                        float *parts, void *dq, void *dk, void *dv, void *stream);

#endif
