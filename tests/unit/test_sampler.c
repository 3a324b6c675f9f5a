// test: links=train,io,base
// The samplers against diffusers' with a model that is a formula (tests/golden/samplers.txt).
#include <stdlib.h>

#include "check.h"
#include "io/config_table.h"
#include "train/sampler.h"

enum { COUNT = 6 };

static const float start[COUNT] = {1.0f, -0.5f, 0.25f, 2.0f, -1.5f, 0.125f};

static void model(const float *x, float t, float *output) {
    for (int i = 0; i < COUNT; i++) output[i] = 0.6f * x[i] - 0.2f * x[(i + 1) % COUNT] + 0.3f * t / 1000;
}

static void sample(pb_sampler *sampler, float *x) {
    float input[COUNT], output[COUNT];
    for (int i = 0; i < COUNT; i++) x[i] = start[i] * pb_sampler_init_sigma(sampler);
    for (int call = 0; call < pb_sampler_calls(sampler); call++) {
        pb_sampler_input(sampler, call, x, input);
        model(input, pb_sampler_timestep(sampler, call), output);
        pb_sampler_step(sampler, call, output, x);
    }
}

static void check_run(FILE *file, const pb_json *config) {
    char name[16];
    int steps, calls;
    float sigma, expected, x[COUNT], again[COUNT];
    CHECK(fscanf(file, "%15s %d %d %f", name, &steps, &calls, &sigma) == 4);
    pb_sampler_kind kind = PB_SAMPLER_MODEL;
    if (strcmp(name, "model") != 0) CHECK_OK(pb_sampler_kind_parse(name, &kind));
    pb_sampler *sampler = NULL;
    CHECK_OK(pb_sampler_create(kind, NULL, config, "scheduler_config.json", steps, COUNT, &sampler));
    CHECK(kind == PB_SAMPLER_MODEL || pb_sampler_kind_of(sampler) == kind);
    CHECK_THAT(pb_sampler_calls(sampler) == calls, "%s %d: %d calls", name, steps, pb_sampler_calls(sampler));
    CHECK(fabsf(pb_sampler_init_sigma(sampler) - sigma) <= 1e-6f * sigma);
    for (int i = 0; i < calls; i++) {
        CHECK(fscanf(file, "%f", &expected) == 1);
        // Those between two whole ones come of logarithms, which libraries round in different ways.
        const float room = expected == truncf(expected) ? 0 : 3e-6f * expected;
        CHECK_THAT(fabsf(pb_sampler_timestep(sampler, i) - expected) <= room, "%s %d: timestep %d is %g, not %g", name,
                   steps, i, (double)pb_sampler_timestep(sampler, i), (double)expected);
    }
    sample(sampler, x);
    sample(sampler, again);  // nothing is left over from the first time
    CHECK(memcmp(x, again, sizeof x) == 0);
    for (int i = 0; i < COUNT; i++) {
        CHECK(fscanf(file, "%f", &expected) == 1);
        // x begins as large as sigma (4096 with a zero terminal signal), and rounding with it.
        const float error = 1e-5f * (1 + fabsf(expected)) + 3e-7f * sigma;
        CHECK_THAT(fabsf(x[i] - expected) <= error, "%s %d: x[%d] is %.9g, not %.9g", name, steps, i, (double)x[i],
                   (double)expected);
    }
    pb_sampler_destroy(sampler);
}

static const pb_json *parse(pb_arena *arena, const char *json) {
    const pb_json *root = NULL;
    CHECK_OK(pb_json_parse(arena, json, strlen(json), "scheduler_config.json", &root));
    return root;
}

static void check_golden(pb_arena *arena) {
    FILE *const file = fopen(PB_TEST_DATA "/golden/samplers.txt", "r");
    CHECK(file != NULL);
    if (!file) return;
    char kind[16], json[1024];
    const pb_json *config = NULL;
    int configs = 0, runs = 0;
    while (fscanf(file, "%15s", kind) == 1) {
        if (strcmp(kind, "config") == 0) {
            CHECK(fgets(json, sizeof json, file) != NULL);
            config = parse(arena, json);
            configs++;
        } else {
            check_run(file, config);
            runs++;
        }
    }
    CHECK(configs == 11 && runs > 200);
    fclose(file);
}

static void check_refused(pb_arena *arena, pb_sampler_kind kind, const char *json, int steps, pb_status status,
                          const char *field) {
    pb_sampler *sampler = NULL;
    CHECK_THAT(pb_sampler_create(kind, NULL, parse(arena, json), "scheduler_config.json", steps, COUNT, &sampler) ==
                   status,
               "%s", json);
    CHECK_THAT(strstr(pb_error_message(), field), "\"%s\" does not name %s", pb_error_message(), field);
}

int main(void) {
    pb_arena *const arena = pb_arena_create();
    check_golden(arena);
    check_refused(arena, PB_SAMPLER_MODEL, "{\"_class_name\": \"LMSDiscreteScheduler\"}", 5, PB_ERR_UNSUPPORTED,
                  "LMSDiscreteScheduler");
    check_refused(arena, PB_SAMPLER_EULER, "{\"use_beta_sigmas\": true}", 5, PB_ERR_UNSUPPORTED, "use_beta_sigmas");
    check_refused(arena, PB_SAMPLER_EULER, "{\"use_karras_sigmas\": true, \"sigma_min\": 0.1}", 5, PB_ERR_UNSUPPORTED,
                  "sigma_min");
    check_refused(arena, PB_SAMPLER_EULER, "{\"timestep_spacing\": \"odd\"}", 5, PB_ERR_UNSUPPORTED,
                  "timestep_spacing");
    check_refused(arena, PB_SAMPLER_DPMPP2M, "{\"solver_order\": 3}", 5, PB_ERR_UNSUPPORTED, "solver_order");
    check_refused(arena, PB_SAMPLER_DPMPP2M, "{\"algorithm_type\": \"sde-dpmsolver++\"}", 5, PB_ERR_UNSUPPORTED,
                  "algorithm_type");
    check_refused(arena, PB_SAMPLER_DPMPP2M, "{\"lambda_min_clipped\": -5.1}", 5, PB_ERR_UNSUPPORTED,
                  "lambda_min_clipped");
    check_refused(arena, PB_SAMPLER_EULER, "{\"final_sigmas_type\": \"one\"}", 5, PB_ERR_UNSUPPORTED,
                  "final_sigmas_type");
    check_refused(arena, PB_SAMPLER_DDIM, "{\"prediction_type\": \"sample\"}", 5, PB_ERR_UNSUPPORTED,
                  "prediction_type");
    check_refused(arena, PB_SAMPLER_PNDM, "{}", 3, PB_ERR_USAGE, "skip_prk_steps");
    check_refused(arena, PB_SAMPLER_DDIM, "{}", 0, PB_ERR_USAGE, "steps");
    check_refused(arena, PB_SAMPLER_DDIM, "{}", 1001, PB_ERR_USAGE, "steps");
    pb_sampler_kind kind;
    CHECK(pb_sampler_kind_parse("eular", &kind) == PB_ERR_USAGE && strstr(pb_error_message(), "euler"));
    CHECK(strcmp(pb_sampler_kind_name(PB_SAMPLER_DPMPP2M), "dpmpp2m") == 0);
    // What a configuration may name, there is: PB_SAMPLER_MODEL would be another sampler in silence.
    int schedulers = 0;
    for (int i = 0; i < pb_config_key_count; i++) {
        if (strcmp(pb_config_keys[i].key, "validation_scheduler") != 0) continue;
        for (const pb_config_choice *c = pb_config_keys[i].choices; c->name; c++, schedulers++)
            CHECK_THAT(pb_sampler_kind_of_class(c->name) != PB_SAMPLER_MODEL, "%s", c->name);
    }
    CHECK(schedulers == PB_SAMPLER_DPMPP2M);
    pb_arena_destroy(arena);
    return CHECK_DONE();
}
