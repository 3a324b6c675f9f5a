// test: links=quant,base
// Stochastic rounding: Philox's published vectors, the mean, and that a draw depends on seed, step, stream and index
// only.
#include "check.h"
#include "quant/codecs.h"

enum { COUNT = 1 << 20 };
static float x[COUNT];
static uint16_t a[COUNT], b[COUNT];

// Known answers from the authors' Random123 library.
static void check_philox(void) {
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t words[4];
        memcpy(words, cases[i].counter, sizeof words);
        pb_philox(words, cases[i].key[0], cases[i].key[1]);
        CHECK(!memcmp(words, cases[i].expected, sizeof words));
    }
}

static int64_t differences(void) {
    int64_t count = 0;
    for (int i = 0; i < COUNT; i++) count += a[i] != b[i];
    return count;
}

int main(void) {
    check_philox();
    const pb_codecs *codecs = pb_codecs_here();
    const pb_random_key key = {42, 3, 5};
    // 1 + k/16 of a unit in the last place of bf16: the share of k/16 goes up, the rest down.
    for (int k = 0; k <= 16; k++) {
        const float value = pb_f32_from_bits(0x3f800000u + (uint32_t)k * 0x1000u);
        for (int i = 0; i < COUNT; i++) x[i] = i % 2 ? value : -value;
        codecs->round_stochastic(&key, 0, x, COUNT, a);
        int64_t up = 0, wrong = 0;
        for (int i = 0; i < COUNT; i++) {
            const uint16_t magnitude = a[i] & 0x7fffu;
            up += magnitude == 0x3f81;
            wrong += (magnitude != 0x3f80 && magnitude != 0x3f81) || a[i] >> 15 != 1 - i % 2;
        }
        const double share = (double)up / COUNT, deviation = sqrt(k / 16.0 * (1 - k / 16.0) / COUNT);
        CHECK_THAT(!wrong && fabs(share - k / 16.0) <= 5 * deviation, "%d/16: %g go up", k, share);
    }
    for (int i = 0; i < COUNT; i++) x[i] = pb_f32_from_bits(0x3f808000u);
    codecs->round_stochastic(&key, 0, x, COUNT, a);
    // In pieces, from any multiple of 8 on: the same.
    for (int64_t i = 0, n; i < COUNT; i += n) {
        n = i % 3 ? 4096 : 8 * (1 + i % 77);
        n = n < COUNT - i ? n : COUNT - i;
        codecs->round_stochastic(&key, i, x + i, n, b + i);
    }
    CHECK(!differences());
    // Another seed, step, stream or place: half of the draws differ.
    const pb_random_key keys[] = {{43, 3, 5}, {42 + ((uint64_t)1 << 32), 3, 5}, {42, 4, 5}, {42, 3, 6}, {42, 3, 5}};
    for (int k = 0; k < 5; k++) {
        codecs->round_stochastic(&keys[k], k == 4 ? 8 : 0, x, COUNT, b);
        CHECK_THAT(fabs((double)differences() / COUNT - 0.5) < 5 * 0.5 / 1024, "key %d", k);
    }
    // What is no number to round stays what it is.
    const float odd[] = {INFINITY, -INFINITY, NAN, 0.0f, -0.0f, pb_f32_from_bits(0x7f800001u)};
    for (int i = 0; i < 6 * 1000; i++) x[i] = odd[i % 6];
    codecs->round_stochastic(&key, 0, x, 6000, a);
    for (int i = 0; i < 6000; i++) {
        const float y = pb_bf16_to_f32(a[i]), z = odd[i % 6];
        CHECK(z != z ? y != y : y == z && !signbit(y) == !signbit(z));
    }
    return CHECK_DONE();
}
