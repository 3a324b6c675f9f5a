#include "train/generate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "io/tokenizer.h"
#include "train/architecture.h"
#include "train/denoise.h"
#include "train/encode.h"
#include "train/weights.h"

enum { MOST_SIDE = 1 << 14, MOST_BATCH = 1 << 10 };

// A frozen part of the model, ready to run.
typedef struct network {
    pb_graph *graph;
    pb_module *module;
    pb_program *program;
    pb_executor *executor;
    pb_vid output;
} network;

struct pb_generator {
    pb_generate_options options;
    pb_architecture architecture;
    network unet, decoder;
    void *hidden;  // (copies * batch, tokens, width of the text encoder) in the compute dtype
    pb_denoise denoise;
};

// --- Networks ---

static pb_status begin(network *n, pb_dtype dtype) {
    PB_RETURN_IF(pb_graph_create(&n->graph));
    n->module = pb_module_create(n->graph, dtype, false);
    return n->module ? PB_OK : pb_error(PB_ERR_MEMORY, "no memory for a model's graph");
}

static pb_status finish(network *n, const pb_generate_options *options, pb_part part) {
    pb_status status = PB_OK;
    pb_weights *weights = NULL;
    pb_graph_mark_output(n->graph, n->output);
    PB_TRY(n->graph->status);
    PB_TRY(pb_compile(n->graph, options->backend, NULL, &n->program));
    status = pb_executor_create(options->backend, n->graph, n->program, NULL, &n->executor);
    if (status == PB_ERR_MEMORY)  // whose message is of the keys of a run
        PB_FAIL(PB_ERR_MEMORY, "the device has no %.3f GiB of memory for the %s at this size: %s needs less",
                (double)n->program->tier_bytes[PB_TIER_DEVICE] / 0x1p30, part == PB_PART_VAE ? "VAE" : "UNet",
                options->smaller      ? options->smaller
                : part == PB_PART_VAE ? "a smaller --size"
                                      : "a smaller --batch or --size");
    PB_TRY(status);
    PB_TRY(pb_model_dir_weights(options->model, part, options->variant, &weights));
    PB_TRY(pb_weights_load(n->module, weights, n->executor));
fail:
    pb_weights_close(weights);
    return status;
}

static void deinit(network *n) {
    pb_executor_destroy(n->executor);
    pb_program_destroy(n->program);
    pb_graph_destroy(n->graph);
}

static pb_status build_unet(pb_generator *g, int tokens) {
    network *const n = &g->unet;
    pb_denoise *const d = &g->denoise;
    const int64_t images = (int64_t)d->copies * d->batch;
    PB_RETURN_IF(begin(n, d->dtype));
    d->sample = pb_graph_add_value(n->graph, PB_CLASS_INPUT, d->dtype,
                                   PB_SHAPE4(images, d->rows, d->columns, d->channels), false, "sample");
    d->timesteps = pb_graph_add_value(n->graph, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(images), false, "timesteps");
    d->condition = pb_graph_add_value(n->graph, PB_CLASS_INPUT, d->dtype,
                                      PB_SHAPE3(images, tokens, g->architecture.clip.hidden), false, "context");
    n->output = pb_unet_forward(n->module, &g->architecture.unet, d->sample, d->timesteps, d->condition, PB_NONE);
    PB_RETURN_IF(finish(n, &g->options, PB_PART_UNET));
    d->unet = n->executor;
    d->prediction = n->output;
    return PB_OK;
}

static pb_status build_decoder(pb_generator *g) {
    network *const n = &g->decoder;
    pb_denoise *const d = &g->denoise;
    PB_RETURN_IF(begin(n, d->dtype));
    d->latents = pb_graph_add_value(n->graph, PB_CLASS_INPUT, d->dtype, PB_SHAPE4(1, d->rows, d->columns, d->channels),
                                    false, "latents");
    n->output = pb_vae_decode(n->module, &g->architecture.vae, d->latents);
    PB_RETURN_IF(finish(n, &g->options, PB_PART_VAE));
    d->decoder = n->executor;
    d->pixels = n->output;
    return PB_OK;
}

// --- Set-up ---

static pb_status check_model(pb_generator *g) {
    const pb_generate_options *const o = &g->options;
    for (int i = 0; i < PB_PART_COUNT; i++) PB_RETURN_IF(pb_model_dir_require(o->model, (pb_part)i));
    PB_RETURN_IF(pb_architecture_read(o->model, &g->architecture));
    const pb_unet_config *const unet = &g->architecture.unet;
    const pb_vae_config *const vae = &g->architecture.vae;
    if (unet->addition_input_dim)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: addition_embed_type (SDXL) is not supported for generation",
                        o->model->parts[PB_PART_UNET].config_path);
    if (unet->in_channels != vae->latent_channels || unet->out_channels != vae->latent_channels)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: in_channels and out_channels are not the VAE's latent_channels, %d",
                        o->model->parts[PB_PART_UNET].config_path, vae->latent_channels);
    if (unet->cross_attention_dim != g->architecture.clip.hidden)
        return pb_error(PB_ERR_FORMAT, "%s: cross_attention_dim is not the text encoder's hidden_size, %d",
                        o->model->parts[PB_PART_UNET].config_path, g->architecture.clip.hidden);
    return PB_OK;
}

static pb_status set_extent(pb_generator *g) {
    const pb_generate_options *const o = &g->options;
    pb_denoise *const d = &g->denoise;
    const int factor = pb_vae_factor(&g->architecture.vae), native = g->architecture.unet.sample_size * factor;
    d->width = o->width ? o->width : native;
    d->height = o->height ? o->height : native;
    if (d->width == 0 || d->height == 0)
        return pb_error(PB_ERR_USAGE, "%s has no sample_size: say which size the pictures shall have",
                        o->model->parts[PB_PART_UNET].config_path);
    if (d->width < 0 || d->height < 0 || d->width > MOST_SIDE || d->height > MOST_SIDE || d->width % factor ||
        d->height % factor)
        return pb_error(PB_ERR_USAGE, "%dx%d pixels: for this model both sides must be multiples of %d, up to %d",
                        d->width, d->height, factor, MOST_SIDE);
    d->channels = g->architecture.vae.latent_channels;
    d->rows = d->height / factor;
    d->columns = d->width / factor;
    d->scaling_factor = g->architecture.vae.scaling_factor;
    return PB_OK;
}

// Encodes "negative" and prompt, once each, and lays them out for a whole UNet call.
static pb_status encode_texts(pb_generator *g, int *tokens) {
    pb_status status = PB_OK;
    const pb_generate_options *const o = &g->options;
    pb_denoise *const d = &g->denoise;
    const pb_clip_config *const clip = &g->architecture.clip;
    pb_tokenizer *tokenizer = NULL;
    int32_t *ids = NULL;
    char *encoded = NULL;
    PB_TRY(pb_tokenizer_create(o->model->parts[PB_PART_TOKENIZER].path, &tokenizer));
    const int length = pb_tokenizer_length(tokenizer);
    if (length > clip->positions)
        PB_FAIL(PB_ERR_FORMAT, "the tokenizer's model_max_length is %d, but the text encoder has %d positions", length,
                clip->positions);
    const uint64_t bytes = (uint64_t)length * (uint64_t)clip->hidden * pb_dtype_size(o->dtype);
    d->text_bytes = bytes * (uint64_t)d->copies * (uint64_t)o->batch;
    ids = malloc((size_t)d->copies * (size_t)length * sizeof *ids);
    encoded = malloc((size_t)d->copies * bytes);
    g->hidden = malloc(d->text_bytes);
    if (!ids || !encoded || !g->hidden) PB_FAIL(PB_ERR_MEMORY, "no memory for the prompts");
    for (int i = 0; i < d->copies; i++) {
        const char *const text = i == d->copies - 1 ? o->prompt : o->negative;
        status = pb_tokenizer_encode(tokenizer, text, strlen(text), length, ids + i * length);
        if (status != PB_OK) PB_TRY(pb_error_context(status, "the %sprompt", i == d->copies - 1 ? "" : "negative "));
    }
    for (int i = 0; i < d->copies * length; i++)
        if (ids[i] >= clip->vocabulary)
            PB_FAIL(PB_ERR_FORMAT, "the tokenizer gives the id %d; the text encoder's vocabulary ends at %d", ids[i],
                    clip->vocabulary - 1);
    const pb_encoding encoding = {
        .backend = o->backend, .model = o->model, .variant = o->variant, .dtype = o->dtype, .weights = PB_FROZEN_FULL};
    PB_TRY(pb_encode_prompts(&encoding, clip, ids, d->copies, length, encoded, NULL));
    for (int i = 0; i < d->copies * o->batch; i++)
        memcpy((char *)g->hidden + (uint64_t)i * bytes, encoded + (uint64_t)(i / o->batch) * bytes, bytes);
    d->texts = g->hidden;
    *tokens = length;
fail:
    free(encoded);
    free(ids);
    pb_tokenizer_destroy(tokenizer);
    return status;
}

pb_status pb_generator_create(const pb_generate_options *options, pb_generator **generator) {
    pb_status status = PB_OK;
    int tokens = 0;
    pb_generator *g = calloc(1, sizeof *g);
    if (!g) return pb_error(PB_ERR_MEMORY, "no memory for a generator");
    g->options = *options;
    if (!g->options.backend) g->options.backend = pb_backend_cpu();
    pb_denoise *const d = &g->denoise;
    d->dtype = options->dtype;
    d->batch = options->batch;
    d->guidance = options->guidance;
    d->copies = options->guidance > 1 ? 2 : 1;
    if (options->batch < 1 || options->batch > MOST_BATCH)
        PB_FAIL(PB_ERR_USAGE, "the batch must be from 1 to %d pictures", MOST_BATCH);
    PB_TRY(check_model(g));
    PB_TRY(set_extent(g));
    const pb_model_part_dir *const scheduler = &options->model->parts[PB_PART_SCHEDULER];
    PB_TRY(pb_denoise_init(d));
    PB_TRY(pb_sampler_create(options->sampler, scheduler->class_name, scheduler->config, scheduler->config_path,
                             options->steps, (size_t)d->batch * (size_t)d->elements, &d->sampler));
    PB_TRY(encode_texts(g, &tokens));
    PB_TRY(build_unet(g, tokens));
    PB_TRY(build_decoder(g));
    *generator = g;
    g = NULL;
fail:
    pb_generator_destroy(g);
    return status;
}

void pb_generator_destroy(pb_generator *g) {
    if (!g) return;
    deinit(&g->unet);
    deinit(&g->decoder);
    pb_sampler_destroy(g->denoise.sampler);
    pb_denoise_deinit(&g->denoise);
    free(g->hidden);
    free(g);
}

int pb_generator_width(const pb_generator *g) {
    return g->denoise.width;
}

int pb_generator_height(const pb_generator *g) {
    return g->denoise.height;
}

void pb_generator_latent_shape(const pb_generator *g, int64_t shape[3]) {
    shape[0] = g->denoise.channels;
    shape[1] = g->denoise.rows;
    shape[2] = g->denoise.columns;
}

pb_sampler_kind pb_generator_sampler(const pb_generator *g) {
    return pb_sampler_kind_of(g->denoise.sampler);
}

// --- Running ---

pb_status pb_generator_run(pb_generator *g, float *latents, int count, pb_image *images, pb_generate_progress progress,
                           void *context) {
    g->denoise.overflowed = false;
    PB_RETURN_IF(pb_denoise_run(&g->denoise, latents, count, images, progress, context));
    bool finite = !g->denoise.overflowed;
    for (int64_t i = 0; i < count * g->denoise.elements; i++) finite &= isfinite(latents[i]) != 0;
    if (finite) return PB_OK;
    for (int i = 0; images && i < count; i++) pb_image_deinit(&images[i]);
    return pb_error(PB_ERR_NUMERIC, "%s: its pictures in %s are not finite: %s", g->options.model->path,
                    pb_dtype_name(g->options.dtype),
                    g->options.dtype == PB_F16 ? "fp16's range is too small for them; take bf16 or fp32"
                                               : "weights of the model are damaged, or its training went wrong");
}

// --- Class images ---

static pb_status write_class_image(const char *folder, int64_t index, const pb_image *image) {
    char hash[41], path[4096];
    pb_image_sha1(image, hash);
    if (snprintf(path, sizeof path, "%s/%lld-%s.jpg", folder, (long long)index, hash) >= (int)sizeof path)
        return pb_error(PB_ERR_USAGE, "%s: too long a path", folder);
    return pb_image_write_jpeg(path, image);
}

typedef struct part_of_all {
    pb_generate_progress progress;
    void *context;
    int64_t before, total;
} part_of_all;

static pb_status report_part(void *context, int64_t done, int64_t total) {
    const part_of_all *const part = context;
    (void)total;
    return part->progress(part->context, part->before + done, part->total);
}

pb_status pb_generate_class_images(const pb_generate_options *options, const char *folder, int64_t first,
                                   int64_t missing, pb_rng *rng, pb_generate_progress progress, void *context) {
    if (missing <= 0) return PB_OK;
    pb_status status = PB_OK;
    pb_generator *g = NULL;
    float *latents = NULL;
    pb_image *images = NULL;
    PB_TRY(pb_fs_make_directories(folder));
    PB_TRY(pb_generator_create(options, &g));
    const int64_t batch = options->batch, batches = (missing + batch - 1) / batch;
    latents = malloc((size_t)(batch * g->denoise.elements) * sizeof *latents);
    images = calloc((size_t)batch, sizeof *images);
    if (!latents || !images) PB_FAIL(PB_ERR_MEMORY, "no memory for class images");
    part_of_all part = {
        .progress = progress, .context = context, .total = batches * pb_sampler_calls(g->denoise.sampler)};
    (void)pb_rng_random(rng);  // the base seed of the loader that hands out the prompts
    for (int64_t at = 0; at < missing; at += batch) {
        const int count = (int)(missing - at < batch ? missing - at : batch);
        pb_rng_randn_as(rng, options->dtype, latents, (size_t)(count * g->denoise.elements));
        PB_TRY(pb_generator_run(g, latents, count, images, progress ? report_part : NULL, &part));
        part.before += pb_sampler_calls(g->denoise.sampler);
        for (int i = 0; i < count; i++) {
            if (status == PB_OK) status = write_class_image(folder, first + at + i, &images[i]);
            pb_image_deinit(&images[i]);
        }
        PB_TRY(status);
    }
fail:
    free(images);
    free(latents);
    pb_generator_destroy(g);
    return status;
}
