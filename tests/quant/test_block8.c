// test: links=quant,io,base
// The block-wise codec against its definition, point by point, and against what bitsandbytes made of the same tensors
// (tests/golden/quant.py).
#include <stdlib.h>

#include "check.h"
#include "io/safetensors.h"
#include "quant/codecs.h"

// bitsandbytes' table: the level nearest to -1 + 2 i / 65535.
static void check_points(bool is_signed) {
    const float *map = pb_block8_map[!is_signed];
    int level = 0, wrong = 0;
    for (int i = 0; i < 65536; i++) {
        const float value = 2.0f * (float)i / 65535 - 1;
        while (level < 255 && 0.5f * (map[level] + map[level + 1]) < value) level++;
        wrong += pb_block8_code((float)i, pb_block8_decades[!is_signed], PB_BLOCK8_ZERO(is_signed)) != level;
    }
    CHECK_THAT(!wrong, "%d of 65536 points have another code (signed: %d)", wrong, is_signed);
    for (int i = 1; i < 256; i++) CHECK(map[i - 1] < map[i]);
    CHECK(map[255] == 1 && map[PB_BLOCK8_ZERO(is_signed)] == 0);
}

// What a number may lose, in its block's largest magnitude: docs/optimizer_state.md has these figures.
static double most_lost(bool is_signed, double magnitude) {
    static const double decades[] = {1e-4, 1e-3, 1e-2, 1e-1, 1};
    static const double of_both[] = {2.54e-5, 6.84e-5, 2.97e-4, 1.43e-3, 7.05e-3};
    static const double from_zero[] = {1.98e-5, 4.34e-5, 1.57e-4, 7.23e-4, 3.54e-3};
    int d = 0;
    while (d < 4 && magnitude > decades[d]) d++;
    return is_signed ? of_both[d] : from_zero[d];
}

// Blocks of every size of number, their elements spread over seven decades; short last blocks, too.
static void check_bound(bool is_signed) {
    enum { MOST = 3 * PB_BLOCK8 };
    float x[MOST], scales[3], decoded[MOST];
    uint8_t codes[MOST];
    uint64_t state = 7;
    double closest = 0;
    for (int round = 0; round < 4000; round++) {
        const int n = 1 + round * 37 % MOST;
        for (int i = 0; i < n; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            const float part = (float)(int32_t)(state >> 32) * 0x1p-31f;
            x[i] =
                (is_signed ? part : fabsf(part)) * exp2f((float)(round % 250 - 125) - (float)(state >> 8 & 15) * 1.6f);
        }
        pb_codecs_here()->encode8(is_signed, x, n, codes, scales);
        pb_codecs_here()->decode8(is_signed, codes, scales, n, decoded);
        for (int i = 0; i < n; i++) {
            const double scale = scales[i / PB_BLOCK8], lost = fabs((double)x[i] - decoded[i]) / scale;
            if (scale < 0x1p-126) continue;  // its reciprocal is not one any more
            const double share = lost / most_lost(is_signed, fabs(x[i]) / scale);
            closest = share > closest ? share : closest;
        }
    }
    CHECK_THAT(closest <= 1, "an element loses %.4f of what it may (signed: %d)", closest, is_signed);
    CHECK_THAT(closest > 0.98, "the bound is looser than it should be: %.4f (signed: %d)", closest, is_signed);
}

static void *load(const pb_safetensors *file, const char *name, const char *suffix, pb_dtype dtype, int64_t *count) {
    char full[128];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    const pb_safetensors_entry *entry = pb_safetensors_find(file, full);
    CHECK_THAT(entry, "%s is not in the goldens", full);
    void *data = entry ? malloc(entry->bytes) : NULL;
    if (!data) exit(1);
    CHECK_OK(pb_safetensors_read(file, entry, dtype, data));
    *count = (int64_t)entry->elements;
    return data;
}

static void check_tensor(const pb_safetensors *inputs, const pb_safetensors *goldens, const char *name,
                         bool is_signed) {
    int64_t n, n_codes, n_scales, n_decoded;
    float *x = load(inputs, name, "", PB_F32, &n), *scales = load(goldens, name, ".scales", PB_F32, &n_scales);
    float *decoded = load(goldens, name, ".decoded", PB_F32, &n_decoded);
    uint8_t *codes = load(goldens, name, ".codes", PB_U8, &n_codes);
    CHECK(n_codes == n && n_decoded == n && n_scales == pb_block8_scales(n));
    uint8_t *our_codes = malloc((size_t)n);
    float *our_scales = malloc((size_t)n_scales * sizeof *our_scales), *ours = malloc((size_t)n * sizeof *ours);
    if (!our_codes || !our_scales || !ours) exit(1);
    pb_encode8(is_signed, x, n, our_codes, our_scales);
    pb_decode8(is_signed, codes, scales, n, ours);
    CHECK_THAT(!memcmp(scales, our_scales, (size_t)n_scales * sizeof *scales), "%s, signed %d: scales", name,
               is_signed);
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++) wrong += codes[i] != our_codes[i];
    CHECK_THAT(!wrong, "%s, signed %d: %lld of %lld codes", name, is_signed, (long long)wrong, (long long)n);
    wrong = 0;
    for (int64_t i = 0; i < n; i++)  // the sign of a NaN is nobody's
        wrong += decoded[i] == decoded[i] ? memcmp(&decoded[i], &ours[i], sizeof ours[i]) != 0 : ours[i] == ours[i];
    CHECK_THAT(!wrong, "%s, signed %d: %lld of %lld decoded numbers", name, is_signed, (long long)wrong, (long long)n);
    free(x), free(codes), free(scales), free(decoded), free(our_codes), free(our_scales), free(ours);
}

int main(void) {
    pb_safetensors *inputs = NULL;
    CHECK_OK(pb_safetensors_open(PB_TEST_DATA "/golden/quant/inputs.safetensors", &inputs));
    for (int is_signed = 0; is_signed < 2; is_signed++) {
        check_points(is_signed);
        check_bound(is_signed);
        pb_safetensors *goldens = NULL;
        CHECK_OK(pb_safetensors_open(is_signed ? PB_TEST_DATA "/golden/quant/signed.safetensors"
                                               : PB_TEST_DATA "/golden/quant/unsigned.safetensors",
                                     &goldens));
        if (!inputs || !goldens) return 1;
        CHECK(inputs->count >= 12);
        for (int level = PB_ISA_SCALAR; level <= (int)pb_cpu_isa_best().level; level++) {
            pb_cpu_isa_set((pb_isa){(pb_isa_level)level, false});
            for (size_t i = 0; i < inputs->count; i++)
                check_tensor(inputs, goldens, inputs->tensors[i].name, is_signed);
        }
        pb_safetensors_close(goldens);
    }
    pb_safetensors_close(inputs);
    return CHECK_DONE();
}
