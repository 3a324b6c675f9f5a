// test: links=train,exec,nn,io,plan,graph,cpu,ref,base timeout=300
// Pictures and latents of the demo's model against diffusers' (tests/golden/generate.safetensors), class images, and
// what is refused.
#include <stdlib.h>

#include "check.h"
#include "io/safetensors.h"
#include "scratch.h"
#include "train/generate.h"

#define MODEL PB_SOURCE "/demo/emoji-sd"

static pb_model_dir *model;

static pb_generate_options options_of(pb_sampler_kind sampler, int steps) {
    return (pb_generate_options){.model = model,
                                 .dtype = PB_F32,
                                 .prompt = "a photo of a fox",
                                 .negative = "",
                                 .guidance = 4,
                                 .sampler = sampler,
                                 .steps = steps,
                                 .batch = 1};
}

static double psnr(const pb_image *images, int count, const uint8_t *expected) {
    const size_t bytes = (size_t)images[0].width * (size_t)images[0].height * 3;
    double sum = 0;
    for (int n = 0; n < count; n++)
        for (size_t i = 0; i < bytes; i++) {
            const double error = images[n].rgb[i] - (double)expected[(size_t)n * bytes + i];
            sum += error * error;
        }
    return 10 * log10(255.0 * 255 * (double)count * (double)bytes / (sum + 1e-9));
}

// A case's name says what was asked for: SAMPLER-STEPS-GUIDANCE-COUNT-WIDTHxHEIGHT.latents
static void check_case(const pb_safetensors *golden, const char *name) {
    char sampler[16], key[128];
    int steps, count, width, height;
    double guidance;
    CHECK(sscanf(name, "%15[a-z0-9]-%d-%lf-%d-%dx%d", sampler, &steps, &guidance, &count, &width, &height) == 6);
    pb_generate_options options = options_of(PB_SAMPLER_MODEL, steps);
    if (strcmp(sampler, "model") != 0) CHECK_OK(pb_sampler_kind_parse(sampler, &options.sampler));
    options.guidance = guidance;
    options.negative = "red";
    options.batch = 2;  // with three pictures the last group is short
    if (width != 64 || height != 64) {
        options.width = width;
        options.height = height;
    }
    pb_generator *g = NULL;
    CHECK_OK(pb_generator_create(&options, &g));
    CHECK(pb_generator_width(g) == width && pb_generator_height(g) == height);
    int64_t shape[3];
    pb_generator_latent_shape(g, shape);
    const size_t values = (size_t)(count * shape[0] * shape[1] * shape[2]);
    const pb_safetensors_entry *const entry = pb_safetensors_find(golden, name);
    float *const latents = malloc(values * sizeof *latents), *const expected = malloc(values * sizeof *expected);
    CHECK(entry->elements == values);
    CHECK_OK(pb_safetensors_read(golden, entry, PB_F32, expected));
    pb_rng rng;
    pb_image images[4];
    pb_rng_seed(&rng, 5);
    pb_rng_randn(&rng, latents, values);
    CHECK_OK(pb_generator_run(g, latents, count, images, NULL, NULL));
    float worst = 0;
    for (size_t i = 0; i < values; i++) worst = fmaxf(worst, fabsf(latents[i] - expected[i]));
    CHECK_THAT(worst <= 1e-3f, "%s: latents differ by %g", name, (double)worst);

    snprintf(key, sizeof key, "%.*simages", (int)(strlen(name) - strlen("latents")), name);
    const pb_safetensors_entry *const pictures = pb_safetensors_find(golden, key);
    uint8_t *const pixels = malloc(pictures->bytes);
    CHECK_OK(pb_safetensors_read(golden, pictures, PB_U8, pixels));
    CHECK_THAT(psnr(images, count, pixels) >= 45, "%s: %.1f dB", name, psnr(images, count, pixels));
    for (int i = 0; i < count; i++) pb_image_deinit(&images[i]);
    free(pixels);
    free(latents);
    free(expected);
    pb_generator_destroy(g);
}

static void check_golden(void) {
    pb_safetensors *golden = NULL;
    CHECK_OK(pb_safetensors_open(PB_TEST_DATA "/golden/generate.safetensors", &golden));
    int cases = 0;
    for (size_t i = 0; golden && i < golden->count; i++) {
        if (!strstr(golden->tensors[i].name, ".latents")) continue;
        check_case(golden, golden->tensors[i].name);
        cases++;
    }
    CHECK(cases == 5);
    pb_safetensors_close(golden);
}

// Low precision is a little off, not something else.
static void check_dtype(pb_dtype dtype, double least) {
    pb_generate_options options = options_of(PB_SAMPLER_MODEL, 3);
    pb_image images[2];
    float latents[2][4 * 16 * 16];
    for (int i = 0; i < 2; i++) {
        pb_generator *g = NULL;
        pb_rng rng;
        pb_rng_seed(&rng, 1);
        pb_rng_randn(&rng, latents[i], 4 * 16 * 16);
        options.dtype = i ? dtype : PB_F32;
        CHECK_OK(pb_generator_create(&options, &g));
        CHECK_OK(pb_generator_run(g, latents[i], 1, &images[i], NULL, NULL));
        pb_generator_destroy(g);
    }
    CHECK_THAT(psnr(&images[1], 1, images[0].rgb) >= least, "%s: %.1f dB", pb_dtype_name(dtype),
               psnr(&images[1], 1, images[0].rgb));
    pb_image_deinit(&images[0]);
    pb_image_deinit(&images[1]);
}

static pb_status count_calls(void *context, int64_t done, int64_t total) {
    int64_t *const calls = context;
    CHECK(done == ++*calls && total == 4);
    return PB_OK;
}

static pb_status stop(void *context, int64_t done, int64_t total) {
    (void)context;
    return done == 2 && total == 4 ? pb_error(PB_ERR_INTERRUPTED, "stopped") : PB_OK;
}

// Three pictures, two at a time: indices go on, and the generator is where diffusers' would be.
static void check_class_images(void) {
    pb_generate_options options = options_of(PB_SAMPLER_MODEL, 2);
    options.batch = 2;
    pb_rng rng, expected;
    float drawn[2 * 4 * 16 * 16];
    pb_rng_seed(&rng, 3);
    pb_rng_seed(&expected, 3);
    const char *const folder = scratch_path("new/class");
    int64_t calls = 0;
    CHECK_OK(pb_generate_class_images(&options, folder, 7, 3, &rng, count_calls, &calls));
    CHECK(calls == 4);
    (void)pb_rng_random(&expected);
    pb_rng_randn(&expected, drawn, 2 * 4 * 16 * 16);
    pb_rng_randn(&expected, drawn, 4 * 16 * 16);
    CHECK(pb_rng_u64(&expected) == pb_rng_u64(&rng));
    pb_arena *const arena = pb_arena_create();
    const char **names = NULL;
    size_t count = 0;
    CHECK_OK(pb_fs_list(arena, folder, &names, &count));
    CHECK(count == 3);
    for (size_t i = 0; i < count; i++) {
        pb_image image;
        CHECK(names[i][0] == (char)('7' + i) && names[i][1] == '-' && strlen(names[i]) == 2 + 40 + 4);
        CHECK_OK(pb_image_load(pb_fs_join(arena, folder, names[i]), NULL, &image));
        CHECK(image.width == 64 && image.height == 64);
        pb_image_deinit(&image);
    }
    CHECK(pb_generate_class_images(&options, scratch_path("stopped"), 0, 3, &rng, stop, NULL) == PB_ERR_INTERRUPTED);
    CHECK_OK(pb_generate_class_images(&options, "/nowhere", 3, 0, &rng, NULL, NULL));  // nothing to do
    pb_arena_destroy(arena);
}

static void check_refused(pb_generate_options options, pb_status status, const char *what) {
    pb_generator *g = NULL;
    CHECK_THAT(pb_generator_create(&options, &g) == status && strstr(pb_error_message(), what), "%s: \"%s\"", what,
               pb_error_message());
}

int main(void) {
    CHECK_OK(pb_model_dir_open(MODEL, NULL, &model));
    if (!model) return CHECK_DONE();
    check_golden();
    check_dtype(PB_BF16, 20);
    check_dtype(PB_F16, 35);
    check_class_images();
    pb_generate_options odd = options_of(PB_SAMPLER_MODEL, 2), many = options_of(PB_SAMPLER_MODEL, 2000);
    odd.width = odd.height = 62;
    check_refused(odd, PB_ERR_USAGE, "62x62");
    check_refused(many, PB_ERR_USAGE, "1000");
    pb_model_dir_close(model);
    scratch_remove();
    return CHECK_DONE();
}
