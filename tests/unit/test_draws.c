// test: links=train,base
// The draws of whole runs against what diffusers' own script drew (tests/golden/draws.txt), and resuming in mid-epoch.
#include <stdlib.h>

#include "check.h"
#include "train/draws.h"

enum { MOST = 16, CHANNELS = 4, PIXELS = 16 * 16 };

typedef struct run {
    char name[32];
    pb_draws_options options;
    unsigned long long seed;
    int center, offset, bf16, passes;
    pb_crop_slack instance[MOST], class_[MOST];
} run;

static bool read_run(FILE *file, run *r) {
    long long instances, classes, batch;
    if (fscanf(file, " case %31s %llu %lld %lld %lld", r->name, &r->seed, &instances, &classes, &batch) != 5 ||
        fscanf(file, "%d %d %d %d", &r->center, &r->offset, &r->bf16, &r->passes) != 4)
        return false;
    r->options = (pb_draws_options){.instances = instances, .classes = classes, .batch = batch};
    if (r->center) return true;
    for (int i = 0; i < instances + classes; i++) {
        pb_crop_slack *const slack = i < instances ? &r->instance[i] : &r->class_[i - instances];
        if (fscanf(file, "%d %d", &slack->rows, &slack->columns) != 2) return false;
    }
    r->options.instance = r->instance;
    r->options.class_ = r->class_;
    return true;
}

// The integers that the crops of a batch stand for.
static void expect_crops(const run *r, const pb_draws_item *item, int *integers, int *count) {
    for (int part = 0; part < (r->options.classes ? 2 : 1) && !r->center; part++) {
        const pb_crop_slack slack = part ? r->class_[item->class_] : r->instance[item->instance];
        const pb_crop crop = part ? item->class_crop : item->instance_crop;
        if (slack.rows == 0 && slack.columns == 0) continue;
        integers[(*count)++] = crop.top;
        integers[(*count)++] = crop.left;
    }
}

static void check_run(FILE *file, const run *r) {
    pb_rng rng;
    pb_draws *draws = NULL;
    pb_rng_seed(&rng, r->seed);
    CHECK_OK(pb_draws_create(&r->options, &rng, &draws));
    static float sample[2 * MOST * CHANNELS * PIXELS], noise[2 * MOST * CHANNELS * PIXELS];
    float offset[2 * MOST * CHANNELS];
    int64_t timesteps[2 * MOST];
    int traced_indices[512], traced_integers[2048], traced = 0, integers = 0, items = 0, crops = 0;
    for (int pass = 0; pass < r->passes; pass++) {
        int count, normals;
        CHECK(fscanf(file, " indices %d", &count) == 1 && traced + count <= 512);
        for (int i = 0; i < count; i++) CHECK(fscanf(file, "%d", &traced_indices[traced++]) == 1);
        CHECK(fscanf(file, " integers %d", &count) == 1 && integers + count <= 2048);
        for (int i = 0; i < count; i++) CHECK(fscanf(file, "%d", &traced_integers[integers++]) == 1);

        const pb_draws_batch batch = pb_draws_next(draws);
        for (int64_t i = 0; i < batch.count; i++, items++) {
            CHECK_THAT(batch.items[i].index == traced_indices[items], "%s pass %d item", r->name, pass);
            int drawn[4], drawn_count = 0;
            expect_crops(r, &batch.items[i], drawn, &drawn_count);
            for (int j = 0; j < drawn_count; j++)
                CHECK_THAT(drawn[j] == traced_integers[crops++], "%s pass %d crop", r->name, pass);
        }
        const size_t images = (size_t)batch.count * (r->options.classes ? 2 : 1);
        const pb_draws_pass filled = {.dtype = r->bf16 ? PB_BF16 : PB_F32,
                                      .vae_attention = true,
                                      .images = images,
                                      .channels = CHANNELS,
                                      .pixels = PIXELS,
                                      .train_timesteps = 1000,
                                      .sample = sample,
                                      .noise = noise,
                                      .offset = r->offset ? offset : NULL,
                                      .timesteps = timesteps};
        pb_draws_fill(draws, &filled);
        // The timesteps are the pass's last integers, after the next batch's crops; those stay for the next pass.
        integers -= (int)images;
        for (size_t i = 0; i < images; i++)
            CHECK_THAT(timesteps[i] == traced_integers[(size_t)integers + i], "%s pass %d timestep", r->name, pass);
        CHECK(fscanf(file, " normals %d", &normals) == 1 && normals == 2 + r->offset);
        for (int i = 0; i < normals; i++) {
            const float *const drawn = i == 0 ? sample : i == 1 ? noise : offset;
            float head[4];
            CHECK(fscanf(file, "%d %f %f %f %f", &count, &head[0], &head[1], &head[2], &head[3]) == 5);
            CHECK(count == (int)images);
            for (int j = 0; j < 4; j++)
                CHECK_THAT(drawn[j] == head[j], "%s pass %d normal %d: %.9g is not %.9g", r->name, pass, i,
                           (double)drawn[j], (double)head[j]);
        }
    }
    pb_draws_destroy(draws);
}

static void check_golden(void) {
    FILE *const file = fopen(PB_TEST_DATA "/golden/draws.txt", "r");
    CHECK(file != NULL);
    int runs = 0;
    run r;
    for (; file && read_run(file, &r); runs++) check_run(file, &r);
    CHECK(runs == 8);
    if (file) fclose(file);
}

static uint64_t mix(uint64_t digest, const void *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) digest = (digest ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
    return digest;
}

// A digest of everything that the next `passes` passes draw.
static uint64_t digest_of(pb_draws *draws, int passes) {
    uint64_t digest = 1;
    float sample[2 * 2 * 3], noise[2 * 2 * 3], offset[2 * 2];
    int64_t timesteps[4];
    for (int pass = 0; pass < passes; pass++) {
        const pb_draws_batch batch = pb_draws_next(draws);
        const size_t images = 2 * (size_t)batch.count;
        digest = mix(digest, &batch.number, sizeof batch.number);
        digest = mix(digest, &batch.epoch, sizeof batch.epoch);
        for (int64_t i = 0; i < batch.count; i++) digest = mix(digest, &batch.items[i], sizeof batch.items[i]);
        const pb_draws_pass filled = {.images = images,
                                      .channels = 1,
                                      .pixels = 3,
                                      .train_timesteps = 10,
                                      .sample = sample,
                                      .noise = noise,
                                      .offset = offset,
                                      .timesteps = timesteps};
        pb_draws_fill(draws, &filled);
        digest = mix(digest, sample, images * 3 * sizeof *sample);
        digest = mix(digest, noise, images * 3 * sizeof *noise);
        digest = mix(digest, offset, images * sizeof *offset);
        digest = mix(digest, timesteps, images * sizeof *timesteps);
    }
    return digest;
}

static void check_resume(void) {
    const pb_crop_slack instance[5] = {{0, 3}, {7, 0}, {0, 0}, {1, 0}, {0, 9}}, class_[7] = {{2, 0}};
    const pb_draws_options options = {.instances = 5, .classes = 7, .batch = 2, .instance = instance, .class_ = class_};
    pb_rng rng;
    pb_rng_seed(&rng, 9);
    pb_draws *draws = NULL, *resumed = NULL;
    CHECK_OK(pb_draws_create(&options, &rng, &draws));
    const size_t bytes = pb_draws_state_bytes(draws);
    uint8_t *const state = malloc(bytes);
    for (int passes = 0; passes < 10; passes++) {
        pb_draws_save(draws, state);
        pb_rng_seed(&rng, 1234);
        CHECK_OK(pb_draws_create(&options, &rng, &resumed));
        CHECK_OK(pb_draws_restore(resumed, state, bytes));
        pb_draws *original = NULL;
        CHECK_OK(pb_draws_create(&options, &rng, &original));
        CHECK_OK(pb_draws_restore(original, state, bytes));
        const uint64_t first = digest_of(resumed, 9);
        CHECK(digest_of(original, 9) == first);
        pb_draws_destroy(original);
        pb_draws_destroy(resumed);
        if (passes == 0) {  // against a run that was never interrupted
            pb_rng_seed(&rng, 9);
            CHECK_OK(pb_draws_create(&options, &rng, &original));
            CHECK(digest_of(original, 9) == first);
            pb_draws_destroy(original);
        }
        (void)digest_of(draws, 1);
    }
    CHECK(pb_draws_restore(draws, state, bytes - 1) == PB_ERR_FORMAT);
    for (size_t at = 0; at < 48 + 8 * 7; at += 8) {  // the counts and the order
        uint8_t *const field = state + PB_RNG_STATE_BYTES + at;
        const uint8_t kept = field[7];
        field[7] = 0x41;
        CHECK(pb_draws_restore(draws, state, bytes) == PB_ERR_FORMAT || at == 24);  // any epoch is possible
        field[7] = kept;
    }
    CHECK_OK(pb_draws_restore(draws, state, bytes));
    free(state);
    pb_draws_destroy(draws);
}

int main(void) {
    check_golden();
    check_resume();
    return CHECK_DONE();
}
