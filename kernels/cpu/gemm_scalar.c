// The contractions' vector code in the compiler's baseline: four floats at a time.
#include "kernels/cpu/gemm_kernels.h"

#define LANES 4
#define TILE_ROWS 6

typedef float vf __attribute__((vector_size(4 * LANES)));

static inline vf splat(float x) {
    return (vf){x, x, x, x};
}

static inline vf fused(vf a, vf b, vf c) {
    return a * b + c;
}

static inline vf interleave_low(vf a, vf b) {
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}

static inline vf interleave_high(vf a, vf b) {
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}

static inline vf load_f16(const uint16_t *p) {
    return (vf){pb_f16_to_f32(p[0]), pb_f16_to_f32(p[1]), pb_f16_to_f32(p[2]), pb_f16_to_f32(p[3])};
}

static inline void store_f16(uint16_t *p, vf v) {
    for (int i = 0; i < LANES; i++) p[i] = pb_f16_from_f32(v[i]);
}

#include "kernels/cpu/gemm_body.h"

const pb_gemm_kernels *pb_gemm_kernels_scalar(void) {
    return &kernels;
}
