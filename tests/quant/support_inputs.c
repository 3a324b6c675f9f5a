#include "support_inputs.h"

#include <math.h>

#include "base/dtype.h"

uint32_t input_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

static float one(int kind, uint64_t *state) {
    const uint32_t r = input_random(state), sign = r & 0x80000000u;
    const float uniform = (float)((int32_t)r) * 0x1p-31f;
    switch (kind) {
    case 0: return pb_f32_from_bits(r);
    case 1: return pb_f32_from_bits(r & 0x807fffffu);
    case 2: return pb_f32_from_bits(sign);
    case 3: return pb_f32_from_bits(sign | ((r >> 3 & 255u) << 23) | (r & 1u ? r & 3u : 0x7ffffcu | (r & 3u)));
    case 4: return pb_f32_from_bits((r & 0xffff0000u) | 0x8000u);
    case 5: return pb_f32_from_bits((r & 0x8fffe000u) | 0x30001000u);
    case 6: return pb_bf16_to_f32((uint16_t)r);
    case 7: return pb_f16_to_f32((uint16_t)r);
    case 8: return 0.04f * uniform;
    case 9: return uniform * exp2f((float)(r % 61u) - 40);
    case 10: return r % 64 ? 1e-6f * uniform : 1.0f;
    case 11: return pb_f32_from_bits((r & 0x800fffffu) | 0x38000000u);  // about fp16's smallest normal number
    case 12: return uniform * 0x1p-24f;                                 // about its smallest denormal
    default: return r % 7 ? uniform * 70000 : pb_f32_from_bits(sign | 0x7f800000u | (r % 5 ? 0 : r & 0x7fffffu));
    }
}

void input_fill(float *x, int64_t n, uint64_t seed) {
    uint64_t state = seed;
    for (int64_t i = 0; i < n; i++) {
        // Whole blocks of a kind at first, then kinds within a block.
        const int kind = i < 14 * 256 ? (int)(i / 256) : (int)(((i / 64) * 5 + i / 640) % 14);
        x[i] = one(kind, &state);
    }
}
