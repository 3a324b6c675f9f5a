// test: links=quant,base
// Every instruction set's codecs give the reference's bits, on every kind of number and at every length of the last
// vector and block; nothing is written beyond the end.
#include <stdlib.h>

#include "check.h"
#include "quant/codecs.h"
#include "support_avx512.h"
#include "support_inputs.h"

enum { MOST = 40000, GUARD = 64 };

typedef struct result {
    uint8_t codes[MOST + GUARD];
    float scales[MOST / PB_BLOCK8 + 1 + GUARD];
    float decoded[MOST + GUARD];
    uint16_t work[MOST + GUARD];
    int16_t residual[MOST + GUARD];
    float joined[MOST + GUARD];
    uint16_t rounded[MOST + GUARD];
} result;

static float x[MOST];
static result expected, found;

static void run(const pb_codecs *c, int variant, int64_t n, result *r) {
    memset(r, 0xa5, sizeof *r);
    const bool is_signed = variant & 1;
    const pb_dtype type = variant & 1 ? PB_BF16 : PB_F16, residual = variant & 2 ? PB_I16 : PB_I8;
    const pb_random_key key = {0x123456789abcdef0u + (uint64_t)variant, 7, (uint32_t)n};
    const int64_t first = variant & 2 ? 8 : ((int64_t)1 << 35) - 64;  // block numbers of more than 32 bits
    c->encode8(is_signed, x, n, r->codes, r->scales);
    c->decode8(is_signed, r->codes, r->scales, n, r->decoded);
    c->split(type, residual, x, n, r->work, r->residual);
    c->join(type, residual, r->work, r->residual, n, r->joined);
    c->round_stochastic(&key, first, x, n, r->rounded);
}

static void compare(const char *name, int variant, int64_t n) {
#define SAME(field)                                                                                                   \
    CHECK_THAT(!memcmp(expected.field, found.field, sizeof expected.field), "%s, variant %d, %lld elements: " #field, \
               name, variant, (long long)n)
    SAME(codes);
    SAME(scales);
    SAME(decoded);
    SAME(work);
    SAME(residual);
    SAME(joined);
    SAME(rounded);
}

static const struct {
    const char *name;
    const pb_codecs *codecs;
    pb_isa_level needs;
} others[] = {
    {"AVX2", &pb_codecs_avx2, PB_ISA_AVX2},
    {"AVX-512 in stand-ins", &pb_codecs_emulated, PB_ISA_AVX2},
    {"AVX-512", &pb_codecs_avx512, PB_ISA_AVX512},
};

// Every one of the 65536 points that a number may land on, from its middle and from the last floats on both of its
// sides, in blocks whose largest magnitude is 2^exponent: with it the quotient is exact.
static void sweep(bool is_signed, int exponent, pb_isa_level best) {
    enum { BLOCKS = MOST / PB_BLOCK8, ELEMENTS = BLOCKS * PB_BLOCK8 };
    const float whole = ldexpf(1, exponent);
    for (int64_t next = 0; next < 3 * 65536;) {
        for (int i = 0; i < ELEMENTS; i++) {
            if (i % PB_BLOCK8 == 0) {
                x[i] = i / PB_BLOCK8 % 2 ? -whole : whole;
                continue;
            }
            const double point = (double)(next / 3);
            float edge = (float)((2 * point + (next % 3 ? 1 : 0)) / 65535 - 1);
            if (next % 3) edge = nextafterf(edge, next % 3 == 1 ? -2 : 2);
            edge = edge < -1 ? -1 : edge > 1 ? 1 : edge;
            x[i] = (is_signed ? edge : fabsf(edge)) * whole;
            if (next < 3 * 65536) next++;
        }
        pb_codecs_scalar.encode8(is_signed, x, ELEMENTS, expected.codes, expected.scales);
        for (int k = 0; k < 3; k++) {
            if (best < others[k].needs) continue;
            others[k].codecs->encode8(is_signed, x, ELEMENTS, found.codes, found.scales);
            CHECK_THAT(!memcmp(expected.codes, found.codes, ELEMENTS) &&
                           !memcmp(expected.scales, found.scales, BLOCKS * sizeof(float)),
                       "%s, signed: %d, of 2^%d: other codes up to point %lld", others[k].name, is_signed, exponent,
                       (long long)(next / 3));
        }
    }
}

int main(void) {
    const pb_isa_level best = pb_cpu_isa_best().level;
    if (best < PB_ISA_AVX2) return SKIP("this machine has no AVX2");
    static const int exponents[] = {0,    -3,  40,  -126, -127, -128,
                                    -130, 124, 125, 126,  127};  // the ends of the usual ones
    for (size_t e = 0; e < sizeof exponents / sizeof *exponents; e++) {
        sweep(true, exponents[e], best);
        sweep(false, exponents[e], best);
    }
    for (int seed = 0; seed < 12; seed++) {
        input_fill(x, MOST, (uint64_t)seed);
        for (int64_t n = seed ? MOST - seed : 1; n <= MOST; n += n < 530 ? 1 : MOST) {
            for (int variant = 0; variant < 4; variant++) {
                run(&pb_codecs_scalar, variant, n, &expected);
                for (int k = 0; k < 3; k++) {
                    if (best < others[k].needs) continue;
                    run(others[k].codecs, variant, n, &found);
                    compare(others[k].name, variant, n);
                }
            }
        }
    }
    if (best < PB_ISA_AVX512) printf("this machine has no AVX-512: its code ran in stand-ins only\n");
    return CHECK_DONE();
}
