// test: links=base
// Every draw and the saved state against PyTorch's (tests/golden/rng.txt): equal bit for bit.
#include <inttypes.h>

#include "base/rng.h"
#include "check.h"

static void check_floats(FILE *file, const char *kind, pb_rng *rng) {
    float values[256];
    int count;
    CHECK(fscanf(file, "%d", &count) == 1 && count <= 256);
    const size_t n = (size_t)count;
    if (strcmp(kind, "rand") == 0) pb_rng_rand(rng, values, n);
    if (strcmp(kind, "randn") == 0) pb_rng_randn(rng, values, n);
    if (strcmp(kind, "half") == 0) pb_rng_randn_as(rng, PB_F16, values, n);
    if (strcmp(kind, "bf16") == 0) pb_rng_randn_as(rng, PB_BF16, values, n);
    if (strcmp(kind, "last") == 0) pb_rng_randn_permuted(rng, PB_F32, values, n);
    for (int i = 0; i < count; i++) {
        uint32_t expected;
        CHECK(fscanf(file, "%" SCNx32, &expected) == 1);
        CHECK_THAT(pb_f32_bits(values[i]) == expected, "%s %d of %d: %.9g is not %.9g", kind, i, count,
                   (double)values[i], (double)pb_f32_from_bits(expected));
    }
}

static void check_permutation(FILE *file, pb_rng *rng) {
    int64_t indices[256], expected;
    int count;
    CHECK(fscanf(file, "%d", &count) == 1 && count <= 256);
    pb_rng_randperm(rng, indices, (size_t)count);
    for (int i = 0; i < count; i++) CHECK(fscanf(file, "%" SCNd64, &expected) == 1 && indices[i] == expected);
}

// The state's bytes are torch's; what is restored from them draws the same.
static void check_state(FILE *file, pb_rng *rng) {
    uint8_t bytes[PB_RNG_STATE_BYTES];
    uint64_t expected, digest = 0xcbf29ce484222325u;
    pb_rng_save(rng, bytes);
    for (int i = 0; i < PB_RNG_STATE_BYTES; i++) digest = (digest ^ bytes[i]) * 0x100000001b3u;
    CHECK(fscanf(file, "%" SCNu64, &expected) == 1 && digest == expected);
    pb_rng restored, fork = *rng;
    CHECK_OK(pb_rng_restore(&restored, bytes));
    float drawn[2][3];
    pb_rng_randn(&restored, drawn[0], 3);
    pb_rng_randn(&fork, drawn[1], 3);
    CHECK(memcmp(drawn[0], drawn[1], sizeof drawn[0]) == 0 && pb_rng_u64(&restored) == pb_rng_u64(&fork));

    // left, seeded, next, the upper half of a word, the kept normal's flag
    const int fields[] = {8, 12, 16, 24 + 4, 5040};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        bytes[fields[i]] ^= 0x80;
        CHECK(pb_rng_restore(&restored, bytes) == PB_ERR_FORMAT);
        bytes[fields[i]] ^= 0x80;
    }
}

int main(void) {
    FILE *const file = fopen(PB_TEST_DATA "/golden/rng.txt", "r");
    CHECK(file != NULL);
    if (!file) return CHECK_DONE();
    char kind[16];
    pb_rng rng;
    int lines = 0;
    for (; fscanf(file, "%15s", kind) == 1; lines++) {
        int64_t low, high, expected;
        if (strcmp(kind, "seed") == 0) {
            uint64_t seed;
            CHECK(fscanf(file, "%" SCNu64, &seed) == 1);
            pb_rng_seed(&rng, seed);
        } else if (strcmp(kind, "randint") == 0) {
            CHECK(fscanf(file, "%" SCNd64 "%" SCNd64 "%" SCNd64, &low, &high, &expected) == 3);
            CHECK(pb_rng_randint(&rng, low, high) == expected);
        } else if (strcmp(kind, "random") == 0) {
            CHECK(fscanf(file, "%" SCNd64, &expected) == 1 && pb_rng_random(&rng) == expected);
        } else if (strcmp(kind, "randperm") == 0) {
            check_permutation(file, &rng);
        } else if (strcmp(kind, "state") == 0) {
            check_state(file, &rng);
        } else {
            check_floats(file, kind, &rng);
        }
    }
    CHECK(lines == 4 * (1 + 9 * 12));
    fclose(file);
    return CHECK_DONE();
}
