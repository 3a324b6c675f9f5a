// pagebooth generate: pictures from a prompt, a grid of them, and their latents.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/fs.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "exec/executor.h"
#include "exec/select.h"
#include "io/safetensors.h"
#include "train/generate.h"

enum { MOST_PICTURES = 4096, TEXT_ROOM = 96, DEFAULT_BATCH = 4 };

typedef struct request {
    pb_generate_options options;
    const char *model_path, *folder, *latents_path, *dtype_name;
    uint64_t seed;
    int count;
} request;

// A line on a terminal, nothing elsewhere.
static pb_status show(void *context, int64_t done, int64_t total) {
    (void)context;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%lld of %lld steps%s", (long long)done, (long long)total, done == total ? "\n" : "");
    return PB_OK;
}

static pb_status write_picture(const request *r, const pb_generator *g, const pb_image *image, int index) {
    char path[4096], values[5][TEXT_ROOM];
    const char *const name = index < 0 ? "grid" : "picture";
    int length = snprintf(path, sizeof path, "%s/%s.png", r->folder, name);
    if (index >= 0) length = snprintf(path, sizeof path, "%s/%s-%03d.png", r->folder, name, index);
    if (length >= (int)sizeof path) return pb_error(PB_ERR_USAGE, "%s: too long a path", r->folder);
    snprintf(values[0], TEXT_ROOM, "%d", r->options.steps);
    snprintf(values[1], TEXT_ROOM, "%.9g", r->options.guidance);
    snprintf(values[2], TEXT_ROOM, "%llu", (unsigned long long)r->seed);
    snprintf(values[3], TEXT_ROOM, "%d of %d", index + 1, r->count);
    snprintf(values[4], TEXT_ROOM, "%dx%d", pb_generator_width(g), pb_generator_height(g));
    const pb_image_text texts[] = {
        {"Software", "pagebooth " PB_VERSION},
        {"model", r->model_path},
        {"prompt", r->options.prompt},
        {"negative_prompt", r->options.negative},
        {"sampler", pb_sampler_kind_name(pb_generator_sampler(g))},
        {"steps", values[0]},
        {"guidance_scale", values[1]},
        {"seed", values[2]},
        {"size", values[4]},
        {"dtype", r->dtype_name},
        {"picture", index < 0 ? "all" : values[3]},
    };
    PB_RETURN_IF(pb_image_write_png(path, image, texts, sizeof texts / sizeof *texts));
    puts(path);
    return PB_OK;
}

static pb_status write_grid(const request *r, const pb_generator *g, const pb_image *images) {
    int columns = 1;
    while (columns * columns < r->count) columns++;
    pb_image grid = {0};
    PB_RETURN_IF(pb_image_grid(images, (size_t)r->count, columns, &grid));
    const pb_status status = write_picture(r, g, &grid, -1);
    pb_image_deinit(&grid);
    return status;
}

static pb_status generate(const request *r) {
    pb_status status = PB_OK;
    pb_generator *g = NULL;
    float *latents = NULL;
    pb_image *images = NULL;
    int64_t shape[3];
    pb_rng rng;
    PB_TRY(pb_fs_require_writable(r->folder, "-o"));
    PB_TRY(pb_generator_create(&r->options, &g));
    pb_generator_latent_shape(g, shape);
    const size_t values = (size_t)(r->count * shape[0] * shape[1] * shape[2]);
    latents = malloc(values * sizeof *latents);
    images = calloc((size_t)r->count, sizeof *images);
    if (!latents || !images) PB_FAIL(PB_ERR_MEMORY, "no memory for %d pictures", r->count);
    pb_rng_seed(&rng, r->seed);
    pb_rng_randn_as(&rng, r->options.dtype, latents, values);
    PB_TRY(pb_generator_run(g, latents, r->count, images, show, NULL));
    PB_TRY(pb_fs_make_directories(r->folder));
    for (int i = 0; i < r->count; i++) PB_TRY(write_picture(r, g, &images[i], i));
    if (r->count > 1) PB_TRY(write_grid(r, g, images));
    if (r->latents_path) {
        const pb_safetensors_array array = {.name = "latents",
                                            .dtype = PB_F32,
                                            .rank = 4,
                                            .data = latents,
                                            .shape = {r->count, shape[0], shape[1], shape[2]}};
        PB_TRY(pb_safetensors_save(r->latents_path, &array, 1));
    }
fail:
    for (int i = 0; images && i < r->count; i++) pb_image_deinit(&images[i]);
    free(images);
    free(latents);
    pb_generator_destroy(g);
    return status;
}

typedef struct arguments {
    const char *model, *prompt, *negative, *steps, *guidance, *seed, *count, *sampler, *size, *dtype, *batch, *variant;
    const char *device;
    bool no_graphs;
    const char *folder, *latents;
} arguments;

static pb_status read_arguments(const arguments *a, request *r) {
    static const char *const dtype_names[] = {"fp32", "fp16", "bf16"};
    static const pb_dtype dtypes[] = {PB_F32, PB_F16, PB_BF16};
    int64_t steps, count, batch;
    int dtype;
    if (!a->prompt) return pb_error(PB_ERR_USAGE, "--prompt is missing");
    if (!a->folder) return pb_error(PB_ERR_USAGE, "-o DIR is missing");
    PB_RETURN_IF(pb_parse_int("--steps", a->steps, 1, 1000000, &steps));
    PB_RETURN_IF(pb_parse_int("--n", a->count, 1, MOST_PICTURES, &count));
    PB_RETURN_IF(pb_parse_choice("--dtype", a->dtype, dtype_names, 3, &dtype));
    *r = (request){.model_path = a->model, .folder = a->folder, .latents_path = a->latents, .dtype_name = a->dtype};
    r->count = (int)count;
    r->options = (pb_generate_options){.variant = a->variant,
                                       .dtype = dtypes[dtype],
                                       .prompt = a->prompt,
                                       .negative = a->negative,
                                       .steps = (int)steps};
    PB_RETURN_IF(pb_parse_double("--guidance", a->guidance, -1e6, 1e6, &r->options.guidance));
    batch = count < DEFAULT_BATCH ? count : DEFAULT_BATCH;
    if (a->batch) PB_RETURN_IF(pb_parse_int("--batch", a->batch, 1, count, &batch));
    r->options.batch = (int)batch;
    if (a->sampler) PB_RETURN_IF(pb_sampler_kind_parse(a->sampler, &r->options.sampler));
    if (a->size) PB_RETURN_IF(pb_parse_extent("--size", a->size, &r->options.width, &r->options.height));
    PB_RETURN_IF(pb_backend_select(a->device, &r->options.backend));
    pb_executor_captures(!a->no_graphs);
    if (a->seed) return pb_parse_uint64("--seed", a->seed, &r->seed);
    uint32_t drawn;
    if (getrandom(&drawn, sizeof drawn, 0) != sizeof drawn)
        return pb_error(PB_ERR_IO, "the system has no random numbers; give a --seed");
    r->seed = drawn;
    return PB_OK;
}

pb_status pb_command_generate(int argc, char **argv) {
    arguments a = {.negative = "", .steps = "50", .guidance = "7.5", .count = "1", .dtype = "fp32"};
    const pb_positional positionals[] = {
        {.name = "MODEL", .help = "A pipeline directory in diffusers' layout.", .text = &a.model},
    };
    const pb_option options[] = {
        PB_OPTION_TEXT("--prompt", "-p", "TEXT", &a.prompt, "What the pictures shall show."),
        PB_OPTION_TEXT("--negative", NULL, "TEXT", &a.negative, "What they shall not show (nothing)."),
        PB_OPTION_TEXT("--output", "-o", "DIR", &a.folder, "Where the pictures go: picture-000.png ..., and grid.png."),
        PB_OPTION_TEXT("--steps", NULL, "N", &a.steps, "Sampling steps (50)."),
        PB_OPTION_TEXT("--guidance", NULL, "X", &a.guidance, "Classifier-free guidance; none up to 1 (7.5)."),
        PB_OPTION_TEXT("--seed", NULL, "N", &a.seed,
                       "The same seed gives the same pictures, and those of diffusers on a CPU (a random one)."),
        PB_OPTION_TEXT("--n", "-n", "N", &a.count, "How many pictures (1)."),
        PB_OPTION_TEXT("--sampler", NULL, "NAME", &a.sampler, "ddim, pndm, euler or dpmpp2m (the model's own)."),
        PB_OPTION_TEXT("--size", NULL, "WxH", &a.size, "In pixels (what the UNet was made for)."),
        PB_OPTION_TEXT("--dtype", NULL, "DTYPE", &a.dtype, "fp32, fp16 or bf16: what to compute in (fp32)."),
        PB_OPTION_TEXT("--batch", NULL, "N", &a.batch, "Pictures at a time; changes memory and speed only (4)."),
        PB_OPTION_TEXT("--device", NULL, "DEVICE", &a.device,
                       "auto, cpu, cuda or cuda:N (auto: a GPU where one can be used)."),
        PB_OPTION_FLAG("--no-cuda-graphs", NULL, &a.no_graphs,
                       "On a GPU, launch kernels one by one: the same pictures, easier to debug and to profile."),
        PB_OPTION_TEXT("--variant", NULL, "VARIANT", &a.variant, "Of the weights' file name: fp16."),
        PB_OPTION_TEXT("--save-latents", NULL, "FILE", &a.latents,
                       "Safetensors for the final latents: `latents`, float32, N x C x H x W."),
    };
    const pb_command_line line = {
        .summary = "Makes pictures from a prompt. Their settings are in the PNGs' texts.",
        .positionals = positionals,
        .positional_count = PB_COUNT_OF(positionals),
        .options = options,
        .option_count = PB_COUNT_OF(options),
        .epilogue = "Example:\n  pagebooth generate MODEL --prompt \"a photo of sks dog\" --seed 1 --n 4 -o pictures\n",
    };
    bool done = false;
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;
    request r;
    pb_model_dir *model = NULL;
    PB_RETURN_IF(read_arguments(&a, &r));
    PB_RETURN_IF(pb_model_dir_open(a.model, NULL, &model));
    r.options.model = model;
    pb_status status = pb_model_dir_require_variant(model, a.variant);
    if (status == PB_OK) status = generate(&r);
    pb_model_dir_close(model);
    return status;
}
