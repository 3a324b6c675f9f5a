#include "base/rng.h"

#include <assert.h>
#include <math.h>

enum { SHIFT = 397 };

void pb_rng_seed(pb_rng *rng, uint64_t seed) {
    *rng = (pb_rng){.seed = seed, .left = 1};
    rng->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < PB_RNG_WORDS; i++) {
        const uint32_t last = rng->state[i - 1];
        rng->state[i] = 1812433253u * (last ^ (last >> 30)) + i;
    }
}

static void refill(pb_rng *rng) {
    uint32_t *const s = rng->state;
    for (int i = 0; i < PB_RNG_WORDS; i++) {
        const uint32_t mixed = (s[i] & 0x80000000u) | (s[(i + 1) % PB_RNG_WORDS] & 0x7fffffffu);
        s[i] = s[(i + SHIFT) % PB_RNG_WORDS] ^ (mixed >> 1) ^ (mixed & 1 ? 0x9908b0dfu : 0);
    }
    rng->left = PB_RNG_WORDS;
    rng->next = 0;
}

uint32_t pb_rng_u32(pb_rng *rng) {
    if (--rng->left == 0) refill(rng);
    uint32_t word = rng->state[rng->next++];
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680u;
    word ^= (word << 15) & 0xefc60000u;
    return word ^ (word >> 18);
}

uint64_t pb_rng_u64(pb_rng *rng) {
    const uint64_t high = pb_rng_u32(rng);
    return high << 32 | pb_rng_u32(rng);
}

void pb_rng_rand(pb_rng *rng, float *values, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = (float)(pb_rng_u32(rng) & 0xffffffu) * 0x1p-24f;
}

int64_t pb_rng_randint(pb_rng *rng, int64_t low, int64_t high) {
    assert(low < high);
    const uint64_t range = (uint64_t)high - (uint64_t)low;
    const uint64_t draw = range >= (uint64_t)1 << 28 ? pb_rng_u64(rng) : pb_rng_u32(rng);
    return (int64_t)(draw % range + (uint64_t)low);
}

int64_t pb_rng_random(pb_rng *rng) {
    return (int64_t)(pb_rng_u64(rng) & INT64_MAX);
}

void pb_rng_randperm(pb_rng *rng, int64_t *indices, size_t count) {
    assert(count < UINT32_MAX / 20);
    for (size_t i = 0; i < count; i++) indices[i] = (int64_t)i;
    for (size_t i = 0; i + 1 < count; i++) {
        const size_t j = i + pb_rng_u32(rng) % (uint32_t)(count - i);
        const int64_t swapped = indices[i];
        indices[i] = indices[j];
        indices[j] = swapped;
    }
}

// --- Normals ---
// Logarithm, sine and cosine by Cephes' single-precision polynomials (S. Moshier), with multiply and add fused
// where torch's compiler fuses them. Not libm, whose last bits depend on the machine.

// Natural logarithm of x in [2^-24, 1].
static inline __attribute__((always_inline)) float log_float(float x) {
    int exponent;
    x = frexpf(x, &exponent);  // [0.5, 1)
    float e = (float)exponent;
    if (x < 0.707106781186547524f) {
        e -= 1;
        x = (x - 1) + x;
    } else {
        x -= 1;
    }
    static const float p[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                              -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                              2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    const float z = x * x;
    float y = p[0];
    for (int i = 1; i < 9; i++) y = fmaf(y, x, p[i]);
    y = fmaf(y * x, z, e * -2.12194440e-4f);
    y = fmaf(z, -0.5f, y);
    return fmaf(e, 0.693359375f, x + y);
}

// Sine and cosine of x in [0, 2 pi].
static inline __attribute__((always_inline)) void sincos_float(float x, float *sine, float *cosine) {
    const int octant = ((int)(x * 1.27323954473516f) + 1) & ~1;  // 4 / pi; rounded up to even: 0, 2, ... 8
    const float y = (float)octant;
    x = fmaf(y, -0.78515625f, x);  // minus y pi / 4, in three parts
    x = fmaf(y, -2.4187564849853515625e-4f, x);
    x = fmaf(y, -3.77489497744594108e-8f, x);
    const float z = x * x;
    float c = fmaf(fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
    c = fmaf(c * z, z, z * -0.5f) + 1;
    float s = fmaf(fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
    s = fmaf(s * z, x, x);
    if (octant & 2) {
        const float swapped = s;
        s = c;
        c = swapped;
    }
    *sine = octant & 4 ? -s : s;
    *cosine = (octant + 2) & 4 ? -c : c;
}

// Box-Muller over 16 uniforms: the first 8 give the radii, the last 8 the angles.
static inline __attribute__((always_inline)) void normal_16(float *values) {
    for (int i = 0; i < 8; i++) {
        const float radius = sqrtf(-2 * log_float(1 - values[i]));
        float sine, cosine;
        sincos_float(6.28318530717958647692f * values[i + 8], &sine, &cosine);
        values[i] = radius * cosine;
        values[i + 8] = radius * sine;
    }
}

static void normal_blocks(float *values, size_t count) {
    for (size_t i = 0; i + 16 <= count; i += 16) normal_16(values + i);
}

// The same with the processor's own instruction for fmaf.
#if defined(__x86_64__)
__attribute__((target("fma"))) static void normal_blocks_fma(float *values, size_t count) {
    for (size_t i = 0; i + 16 <= count; i += 16) normal_16(values + i);
}
#endif

static double uniform_double(pb_rng *rng) {
    return (double)(pb_rng_u64(rng) & (((uint64_t)1 << 53) - 1)) * 0x1p-53;
}

static double normal_double(pb_rng *rng) {
    if (rng->has_next_normal) {
        rng->has_next_normal = false;
        return rng->next_normal;
    }
    const double angle = 2 * M_PI * uniform_double(rng);
    const double radius = sqrt(-2 * log1p(-uniform_double(rng)));
    rng->next_normal = radius * sin(angle);
    rng->has_next_normal = true;
    return radius * cos(angle);
}

static void round_to(pb_dtype dtype, float *values, size_t count) {
    assert(dtype == PB_F32 || dtype == PB_F16 || dtype == PB_BF16);
    for (size_t i = 0; i < count && dtype != PB_F32; i++) values[i] = pb_rounded(dtype, values[i]);
}

void pb_rng_randn_permuted(pb_rng *rng, pb_dtype dtype, float *values, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = (float)normal_double(rng);
    round_to(dtype, values, count);
}

void pb_rng_randn_as(pb_rng *rng, pb_dtype dtype, float *values, size_t count) {
    if (count < 16) {
        pb_rng_randn_permuted(rng, dtype, values, count);
        return;
    }
    void (*box_muller)(float *, size_t) = normal_blocks;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("fma")) box_muller = normal_blocks_fma;
#endif
    const size_t odd = count % 16;
    pb_rng_rand(rng, values, dtype == PB_F32 ? count : count - odd);
    box_muller(values, count - odd);
    if (odd) {
        pb_rng_rand(rng, values + count - 16, 16);
        box_muller(values + count - 16, 16);
    }
    round_to(dtype, values, count);
}

void pb_rng_randn(pb_rng *rng, float *values, size_t count) {
    pb_rng_randn_as(rng, PB_F32, values, count);
}

// --- State ---
// torch's legacy layout (aten/src/ATen/CPUGeneratorImpl.cpp): seed u64, left i32, seeded i32, next u64, 624 words of
// 64 bits, normal_x, normal_y, normal_rho (f64; y is the kept normal), normal_is_valid i32 + 4 bytes of padding, then
// next_float_normal_sample f32 and its valid flag (1 byte + 3), which no draw of ours sets.
enum {
    AT_LEFT = 8,
    AT_NEXT = 16,
    AT_WORDS = 24,
    AT_NORMAL = AT_WORDS + 8 * PB_RNG_WORDS + 8,
    AT_HAS_NORMAL = AT_NORMAL + 16
};

static void put_u64(uint8_t *bytes, uint64_t value) {
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get_u64(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

void pb_rng_save(const pb_rng *rng, uint8_t bytes[PB_RNG_STATE_BYTES]) {
    memset(bytes, 0, PB_RNG_STATE_BYTES);
    put_u64(bytes, rng->seed);
    put_u64(bytes + AT_LEFT, rng->left | (uint64_t)1 << 32);
    put_u64(bytes + AT_NEXT, rng->next);
    for (int i = 0; i < PB_RNG_WORDS; i++) put_u64(bytes + AT_WORDS + 8 * i, rng->state[i]);
    uint64_t normal = 0;
    if (rng->has_next_normal) memcpy(&normal, &rng->next_normal, sizeof normal);
    put_u64(bytes + AT_NORMAL, normal);
    bytes[AT_HAS_NORMAL] = rng->has_next_normal;
}

pb_status pb_rng_restore(pb_rng *rng, const uint8_t bytes[PB_RNG_STATE_BYTES]) {
    pb_rng read = {.seed = get_u64(bytes), .next = (uint32_t)get_u64(bytes + AT_NEXT)};
    const uint64_t left_seeded = get_u64(bytes + AT_LEFT);
    read.left = (uint32_t)left_seeded;
    bool valid = left_seeded >> 32 == 1 && read.left >= 1 && read.left <= PB_RNG_WORDS;
    valid &= get_u64(bytes + AT_NEXT) == (read.left == 1 && read.next == 0 ? 0u : PB_RNG_WORDS + 1 - read.left);
    for (int i = 0; i < PB_RNG_WORDS; i++) {
        const uint64_t word = get_u64(bytes + AT_WORDS + 8 * i);
        valid &= word <= UINT32_MAX;
        read.state[i] = (uint32_t)word;
    }
    const uint64_t normal = get_u64(bytes + AT_NORMAL);
    memcpy(&read.next_normal, &normal, sizeof normal);
    valid &= bytes[AT_HAS_NORMAL] <= 1 && isfinite(read.next_normal);
    if (!valid) return pb_error(PB_ERR_FORMAT, "these bytes are not the state of a random generator");
    read.has_next_normal = bytes[AT_HAS_NORMAL];
    *rng = read;
    return PB_OK;
}
