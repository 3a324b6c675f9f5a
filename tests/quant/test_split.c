// test: links=quant,base
// Split weights: the working weight is the rounded weight, and what comes back is as near as split.h says, for every
// kind of number. Splitting what came back gives the same bits.
#include "check.h"
#include "quant/codecs.h"
#include "support_inputs.h"

enum { COUNT = 1 << 18 };
static float x[COUNT];

static bool same(float a, float b) {
    return a == b || (a != a && b != b);
}

// One unit in the last place of a 16-bit float with `bits` of significand and the smallest normal exponent `least`.
static double ulp(double size, int bits, int least) {
    int exponent;
    frexp(size, &exponent);
    return ldexp(1, (exponent - 1 < least ? least : exponent - 1) - bits);
}

static void check_bf16(bool wide) {
    int64_t work = 0, far = 0, inexact = 0, ties = 0, drift = 0;
    for (int i = 0; i < COUNT; i++) {
        const pb_split s = pb_split_bf16(x[i], wide);
        const float y = pb_join_bf16(s.work, s.residual, wide);
        work += s.work != pb_bf16_from_f32(x[i]);
        if (!isfinite(x[i])) {
            far += !same(x[i], y) || s.residual;
            continue;
        }
        const int64_t distance = (int64_t)pb_f32_bits(x[i]) - pb_f32_bits(y);
        far += (distance < 0 ? -distance : distance) > (wide ? 1 : 129);
        ties += (pb_f32_bits(x[i]) & 0x1ffffu) == 0x8000u;
        inexact += distance != 0;
        const pb_split again = pb_split_bf16(y, wide);
        drift += again.work != s.work || again.residual != s.residual;
    }
    CHECK_THAT(!work, "bf16: %lld working weights are not the rounded weights", (long long)work);
    CHECK_THAT(!far, "bf16, wide %d: %lld weights are farther away than documented", wide, (long long)far);
    CHECK_THAT(!drift, "bf16, wide %d: %lld weights change when they are split again", wide, (long long)drift);
    if (wide)
        CHECK_THAT(inexact == ties && ties > 0, "bf16: %lld inexact, %lld ties", (long long)inexact, (long long)ties);
    else
        CHECK(inexact > COUNT / 4);
}

static void check_f16(bool wide) {
    int64_t work = 0, far = 0, drift = 0, denormals = 0, normals = 0;
    for (int i = 0; i < COUNT; i++) {
        const pb_split s = pb_split_f16(x[i], wide);
        const float y = pb_join_f16(s.work, s.residual, wide), size = fabsf(x[i]);
        work += s.work != pb_f16_from_f32(x[i]);
        if (!(size < 65520)) {
            far += s.residual || (x[i] != x[i] ? y == y : y != copysignf(INFINITY, x[i]));
            continue;
        }
        const double error = fabs((double)x[i] - y), unit = ulp(x[i], 23, -126);
        const bool small = fabsf(pb_f16_to_f32(s.work)) <= 0x1p-14f;
        if (!small)
            normals++;
        else
            denormals += x[i] != 0;
        const double most = small ? (wide ? 0x1p-38 : 0x1p-24 / 508) + unit : wide ? 0 : 17 * unit;
        far += !(error <= most);
        const pb_split again = pb_split_f16(y, wide);
        drift += again.work != s.work || again.residual != s.residual;
    }
    CHECK(normals > COUNT / 8 && denormals > COUNT / 16);
    CHECK_THAT(!work, "fp16: %lld working weights are not the rounded weights", (long long)work);
    CHECK_THAT(!far, "fp16, wide %d: %lld weights are farther away than documented", wide, (long long)far);
    CHECK_THAT(!drift, "fp16, wide %d: %lld weights change when they are split again", wide, (long long)drift);
}

int main(void) {
    for (uint64_t seed = 100; seed < 104; seed++) {
        input_fill(x, COUNT, seed);
        for (int wide = 0; wide < 2; wide++) {
            check_bf16(wide);
            check_f16(wide);
        }
    }
    return CHECK_DONE();
}
