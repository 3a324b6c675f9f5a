// test: links=train,base
// Noise and learning-rate schedules against diffusers' (tests/golden/schedules.txt), and what a config may not say.
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"
#include "train/lr_schedule.h"
#include "train/noise_schedule.h"

// torch takes float's square roots from a library that is off by one unit in the last place now and then.
static const float root_error = 5e-7f;

static pb_status read_schedule(pb_arena *arena, const char *json, pb_noise_schedule *schedule) {
    const pb_json *root;
    PB_RETURN_IF(pb_json_parse(arena, json, strlen(json), "scheduler_config.json", &root));
    return pb_noise_schedule_init(arena, root, "scheduler_config.json", true, schedule);
}

static float read_bits(FILE *file) {
    uint32_t bits = 0;
    CHECK(fscanf(file, "%" SCNx32, &bits) == 1);
    return pb_f32_from_bits(bits);
}

static pb_dtype dtype_of(const char *name) {
    return strcmp(name, "F16") == 0 ? PB_F16 : strcmp(name, "BF16") == 0 ? PB_BF16 : PB_F32;
}

static void check_alphas(FILE *file, const pb_noise_schedule *schedule, bool rescaled) {
    int count;
    CHECK(fscanf(file, "%d", &count) == 1 && count == schedule->timesteps);
    for (int i = 0; i < count; i++) {
        const float expected = read_bits(file);
        const float alpha = schedule->alphas_cumprod[i];
        CHECK_THAT(fabsf(alpha - expected) <= (rescaled ? root_error : 0), "alpha %d: %.9g is not %.9g", i,
                   (double)alpha, (double)expected);
    }
}

static void check_mix(FILE *file, const pb_noise_schedule *schedule, bool velocity) {
    char dtype[8], noise_dtype[8];
    int t, count;
    float sample[16], noise[16], expected[16], out[16];
    CHECK(fscanf(file, "%7s %7s %d %d", dtype, noise_dtype, &t, &count) == 4 && count <= 16);
    for (int i = 0; i < count; i++) {
        sample[i] = read_bits(file);
        noise[i] = read_bits(file);
        expected[i] = read_bits(file);
    }
    const pb_noise_operands operands = {.dtype = dtype_of(dtype),
                                        .noise_dtype = dtype_of(noise_dtype),
                                        .sample = sample,
                                        .noise = noise,
                                        .count = (size_t)count};
    (velocity ? pb_noise_velocity : pb_noise_add)(schedule, t, &operands, out);
    for (int i = 0; i < count; i++) {
        const float error = operands.dtype == PB_F32 ? root_error * (fabsf(sample[i]) + fabsf(noise[i])) : 0;
        CHECK_THAT(fabsf(out[i] - expected[i]) <= error, "%s %s %d: %.9g is not %.9g", dtype, noise_dtype, t,
                   (double)out[i], (double)expected[i]);
    }
}

static void check_snr(FILE *file, const pb_noise_schedule *schedule) {
    int t;
    CHECK(fscanf(file, "%d", &t) == 1);
    const float snr = pb_noise_snr(schedule, t), expected = read_bits(file);
    CHECK_THAT(fabsf(snr - expected) <= 1e-6f * expected, "snr %d: %.9g is not %.9g", t, (double)snr, (double)expected);
    const float least = expected < 5 ? expected : 5;
    const float weight = schedule->v_prediction ? least / (expected + 1) : expected > 0 ? least / expected : 1;
    CHECK(fabsf(pb_noise_min_snr_weight(schedule, t, 5) - weight) <= 1e-6f);
}

static void check_rates(FILE *file) {
    char name[32];
    pb_lr_schedule s;
    int count;
    CHECK(fscanf(file, "%31s %lf %" SCNd64 "%" SCNd64 "%lf %lf %d", name, &s.base, &s.warmup, &s.total, &s.cycles,
                 &s.power, &count) == 7);
    CHECK_OK(pb_lr_kind_parse(name, &s.kind));
    CHECK_OK(pb_lr_schedule_check(&s));
    CHECK(strcmp(pb_lr_kind_name(s.kind), name) == 0);
    for (int step = 0; step < count; step++) {
        double expected;
        CHECK(fscanf(file, "%lf", &expected) == 1);
        const double rate = pb_lr_at(&s, step);
        CHECK_THAT(fabs(rate - expected) <= 1e-14 * s.base, "%s, %d: %.17g is not %.17g", name, step, rate, expected);
    }
}

static void check_golden(pb_arena *arena) {
    FILE *const file = fopen(PB_TEST_DATA "/golden/schedules.txt", "r");
    CHECK(file != NULL);
    if (!file) return;
    char kind[16], json[512];
    pb_noise_schedule schedule = {0};
    int noises = 0, rates = 0;
    while (fscanf(file, "%15s", kind) == 1) {
        if (strcmp(kind, "noise") == 0) {
            CHECK(fgets(json, sizeof json, file) != NULL);
            CHECK_OK(read_schedule(arena, json, &schedule));
            noises++;
        } else if (strcmp(kind, "alphas") == 0) {
            check_alphas(file, &schedule, strstr(json, "rescale") != NULL);
        } else if (strcmp(kind, "snr") == 0) {
            check_snr(file, &schedule);
        } else if (strcmp(kind, "lr") == 0) {
            check_rates(file);
            rates++;
        } else {
            check_mix(file, &schedule, strcmp(kind, "velocity") == 0);
        }
    }
    CHECK(noises == 5 && rates == 24);
    fclose(file);
}

static void check_refused(pb_arena *arena, const char *json, pb_status status, const char *field) {
    pb_noise_schedule schedule;
    CHECK_THAT(read_schedule(arena, json, &schedule) == status, "%s", json);
    CHECK_THAT(strstr(pb_error_message(), field), "\"%s\" does not name %s", pb_error_message(), field);
}

int main(void) {
    pb_arena *const arena = pb_arena_create();
    check_golden(arena);
    check_refused(arena, "{\"prediction_type\": \"sample\"}", PB_ERR_UNSUPPORTED, "prediction_type");
    check_refused(arena, "{\"beta_schedule\": \"laplace\"}", PB_ERR_UNSUPPORTED, "beta_schedule");
    check_refused(arena, "{\"beta_start\": \"x\"}", PB_ERR_FORMAT, "beta_start");
    check_refused(arena, "{\"beta_start\": 0.5, \"beta_end\": 0.1}", PB_ERR_FORMAT, "beta_end");
    check_refused(arena, "{\"beta_end\": 1.5}", PB_ERR_FORMAT, "beta_end");
    check_refused(arena, "{\"num_train_timesteps\": 0}", PB_ERR_FORMAT, "num_train_timesteps");
    check_refused(arena, "{\"num_train_timesteps\": 2, \"trained_betas\": [0.1]}", PB_ERR_FORMAT, "trained_betas");
    check_refused(arena, "{\"num_train_timesteps\": 1, \"trained_betas\": [2]}", PB_ERR_FORMAT, "trained_betas");
    pb_lr_kind kind;
    CHECK(pb_lr_kind_parse("cosin", &kind) == PB_ERR_USAGE && strstr(pb_error_message(), "cosine_with_restarts"));
    CHECK(pb_lr_schedule_check(&(pb_lr_schedule){.kind = PB_LR_POLYNOMIAL, .base = 1e-7}) == PB_ERR_USAGE);
    CHECK(pb_lr_schedule_check(&(pb_lr_schedule){.base = -1}) == PB_ERR_USAGE);
    CHECK(pb_lr_schedule_check(&(pb_lr_schedule){.warmup = -1}) == PB_ERR_USAGE);
    CHECK(pb_lr_schedule_check(&(pb_lr_schedule){.kind = PB_LR_COSINE_WITH_RESTARTS}) == PB_ERR_USAGE);
    pb_arena_destroy(arena);
    return CHECK_DONE();
}
