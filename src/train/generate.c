#include "train/generate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "io/tokenizer.h"
#include "train/architecture.h"
#include "train/trainer_parts.h"
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
    int width, height;
    int64_t channels, rows, columns;  // of a latent
    int64_t elements;                 // their product
    int copies;                       // of a picture in a UNet call: 2 with guidance, [unconditioned, conditioned]
    network unet, decoder;
    pb_vid sample, timesteps, context, latents;  // inputs of the two
    pb_sampler *sampler;
    void *hidden;           // (copies * batch, tokens, width of the text encoder) in the compute dtype
    uint64_t hidden_bytes;  // of all of it
    float *x, *output;      // (batch, C, h, w); (copies * batch, C, h, w)
    float *wide;            // what goes in or comes out of a network, channels last, in float ...
    void *narrow;           // ... and in the compute dtype
    float *times;           // (copies * batch)
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
    PB_TRY(pb_executor_create(options->backend, n->graph, n->program, NULL, &n->executor));
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
    const pb_dtype dtype = g->options.dtype;
    const int64_t images = (int64_t)g->copies * g->options.batch;
    PB_RETURN_IF(begin(n, dtype));
    g->sample = pb_graph_add_value(n->graph, PB_CLASS_INPUT, dtype,
                                   PB_SHAPE4(images, g->rows, g->columns, g->channels), false, "sample");
    g->timesteps = pb_graph_add_value(n->graph, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(images), false, "timesteps");
    g->context = pb_graph_add_value(n->graph, PB_CLASS_INPUT, dtype,
                                    PB_SHAPE3(images, tokens, g->architecture.clip.hidden), false, "context");
    n->output = pb_unet_forward(n->module, &g->architecture.unet, g->sample, g->timesteps, g->context, PB_NONE);
    return finish(n, &g->options, PB_PART_UNET);
}

static pb_status build_decoder(pb_generator *g) {
    network *const n = &g->decoder;
    PB_RETURN_IF(begin(n, g->options.dtype));
    g->latents = pb_graph_add_value(n->graph, PB_CLASS_INPUT, g->options.dtype,
                                    PB_SHAPE4(1, g->rows, g->columns, g->channels), false, "latents");
    n->output = pb_vae_decode(n->module, &g->architecture.vae, g->latents);
    return finish(n, &g->options, PB_PART_VAE);
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
    const int factor = pb_vae_factor(&g->architecture.vae), native = g->architecture.unet.sample_size * factor;
    g->width = o->width ? o->width : native;
    g->height = o->height ? o->height : native;
    if (g->width == 0 || g->height == 0)
        return pb_error(PB_ERR_USAGE, "%s has no sample_size: say which size the pictures shall have",
                        o->model->parts[PB_PART_UNET].config_path);
    if (g->width < 0 || g->height < 0 || g->width > MOST_SIDE || g->height > MOST_SIDE || g->width % factor ||
        g->height % factor)
        return pb_error(PB_ERR_USAGE, "%dx%d pixels: for this model both sides must be multiples of %d, up to %d",
                        g->width, g->height, factor, MOST_SIDE);
    g->channels = g->architecture.vae.latent_channels;
    g->rows = g->height / factor;
    g->columns = g->width / factor;
    g->elements = g->channels * g->rows * g->columns;
    return PB_OK;
}

// Encodes "negative" and prompt, once each, and lays them out for a whole UNet call.
static pb_status encode_texts(pb_generator *g, int *tokens) {
    pb_status status = PB_OK;
    const pb_generate_options *const o = &g->options;
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
    g->hidden_bytes = bytes * (uint64_t)g->copies * (uint64_t)o->batch;
    ids = malloc((size_t)g->copies * (size_t)length * sizeof *ids);
    encoded = malloc((size_t)g->copies * bytes);
    g->hidden = malloc(g->hidden_bytes);
    if (!ids || !encoded || !g->hidden) PB_FAIL(PB_ERR_MEMORY, "no memory for the prompts");
    for (int i = 0; i < g->copies; i++) {
        const char *const text = i == g->copies - 1 ? o->prompt : o->negative;
        PB_TRY(pb_tokenizer_encode(tokenizer, text, strlen(text), length, ids + i * length));
    }
    for (int i = 0; i < g->copies * length; i++)
        if (ids[i] >= clip->vocabulary)
            PB_FAIL(PB_ERR_FORMAT, "the tokenizer gives the id %d; the text encoder's vocabulary ends at %d", ids[i],
                    clip->vocabulary - 1);
    PB_TRY(pb_encode_prompts(o->backend, o->model, clip, o->variant, o->dtype, PB_FROZEN_FULL, ids, g->copies, length,
                             encoded, NULL));
    for (int i = 0; i < g->copies * o->batch; i++)
        memcpy((char *)g->hidden + (uint64_t)i * bytes, encoded + (uint64_t)(i / o->batch) * bytes, bytes);
    *tokens = length;
fail:
    free(encoded);
    free(ids);
    pb_tokenizer_destroy(tokenizer);
    return status;
}

static pb_status allocate(pb_generator *g) {
    const size_t batch = (size_t)g->options.batch, images = (size_t)g->copies * batch, elements = (size_t)g->elements;
    const size_t picture = (size_t)g->width * (size_t)g->height * 3;
    const size_t most = images * elements > picture ? images * elements : picture;
    g->x = malloc(batch * elements * sizeof *g->x);
    g->output = malloc(images * elements * sizeof *g->output);
    g->wide = malloc(most * sizeof *g->wide);
    g->narrow = malloc(most * pb_dtype_size(g->options.dtype));
    g->times = malloc(images * sizeof *g->times);
    const bool complete = g->x && g->output && g->wide && g->narrow && g->times;
    return complete ? PB_OK : pb_error(PB_ERR_MEMORY, "no memory for pictures of %dx%d", g->width, g->height);
}

pb_status pb_generator_create(const pb_generate_options *options, pb_generator **generator) {
    pb_status status = PB_OK;
    int tokens = 0;
    pb_generator *g = calloc(1, sizeof *g);
    if (!g) return pb_error(PB_ERR_MEMORY, "no memory for a generator");
    g->options = *options;
    if (!g->options.backend) g->options.backend = pb_backend_cpu();
    g->copies = options->guidance > 1 ? 2 : 1;
    if (options->batch < 1 || options->batch > MOST_BATCH)
        PB_FAIL(PB_ERR_USAGE, "the batch must be from 1 to %d pictures", MOST_BATCH);
    PB_TRY(check_model(g));
    PB_TRY(set_extent(g));
    const pb_model_part_dir *const scheduler = &options->model->parts[PB_PART_SCHEDULER];
    const size_t count = (size_t)options->batch * (size_t)g->elements;
    PB_TRY(pb_sampler_create(options->sampler, scheduler->config, scheduler->config_path, options->steps, count,
                             &g->sampler));
    PB_TRY(allocate(g));
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
    pb_sampler_destroy(g->sampler);
    free(g->hidden);
    free(g->x);
    free(g->output);
    free(g->wide);
    free(g->narrow);
    free(g->times);
    free(g);
}

int pb_generator_width(const pb_generator *g) {
    return g->width;
}

int pb_generator_height(const pb_generator *g) {
    return g->height;
}

void pb_generator_latent_shape(const pb_generator *g, int64_t shape[3]) {
    shape[0] = g->channels;
    shape[1] = g->rows;
    shape[2] = g->columns;
}

pb_sampler_kind pb_generator_sampler(const pb_generator *g) {
    return pb_sampler_kind_of(g->sampler);
}

// --- Running ---

// to[image][column][row] = from[image][row][column]: between (C,h,w) and (h,w,C).
static void transpose(float *to, const float *from, int64_t images, int64_t rows, int64_t columns) {
    for (int64_t n = 0; n < images; n++, to += rows * columns, from += rows * columns)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < columns; c++) to[c * rows + r] = from[r * columns + c];
}

// The model's output for `x` (batch,C,h,w), with guidance: u + guidance * (c - u).
static pb_status call_unet(pb_generator *g, int call) {
    pb_executor *const executor = g->unet.executor;
    const int batch = g->options.batch, images = g->copies * batch;
    const size_t group = (size_t)batch * (size_t)g->elements, size = pb_dtype_size(g->options.dtype);
    const int64_t pixels = g->rows * g->columns;
    pb_sampler_input(g->sampler, call, g->x, g->output);
    transpose(g->wide, g->output, batch, g->channels, pixels);
    pb_convert(g->options.dtype, g->narrow, PB_F32, g->wide, group);
    for (int i = 0; i < g->copies; i++)
        PB_RETURN_IF(pb_executor_write(executor, g->sample, (uint64_t)i * group * size, g->narrow, group * size));
    for (int i = 0; i < images; i++) g->times[i] = pb_sampler_timestep(g->sampler, call);
    PB_RETURN_IF(pb_executor_write(executor, g->timesteps, 0, g->times, (uint64_t)images * sizeof *g->times));
    PB_RETURN_IF(pb_executor_write(executor, g->context, 0, g->hidden, g->hidden_bytes));
    PB_RETURN_IF(pb_executor_run(executor));
    const size_t all = (size_t)g->copies * group;
    PB_RETURN_IF(pb_executor_read(executor, g->unet.output, 0, g->narrow, all * size));
    pb_convert(PB_F32, g->wide, g->options.dtype, g->narrow, all);
    transpose(g->output, g->wide, images, pixels, g->channels);
    const float guidance = (float)g->options.guidance;
    for (size_t i = 0; g->copies == 2 && i < group; i++) {
        const float unconditioned = g->output[i];
        g->output[i] = unconditioned + guidance * (g->output[group + i] - unconditioned);
    }
    return PB_OK;
}

static pb_status decode(pb_generator *g, const float *latents, pb_image *image) {
    pb_executor *const executor = g->decoder.executor;
    const size_t size = pb_dtype_size(g->options.dtype), count = (size_t)g->elements;
    const size_t values = (size_t)g->width * (size_t)g->height * 3;
    transpose(g->wide, latents, 1, g->channels, g->rows * g->columns);
    for (size_t i = 0; i < count; i++) g->wide[i] /= g->architecture.vae.scaling_factor;
    pb_convert(g->options.dtype, g->narrow, PB_F32, g->wide, count);
    PB_RETURN_IF(pb_executor_write(executor, g->latents, 0, g->narrow, count * size));
    PB_RETURN_IF(pb_executor_run(executor));
    PB_RETURN_IF(pb_executor_read(executor, g->decoder.output, 0, g->narrow, values * size));
    pb_convert(PB_F32, g->wide, g->options.dtype, g->narrow, values);
    PB_RETURN_IF(pb_image_create(g->width, g->height, image));
    for (size_t i = 0; i < values; i++)
        image->rgb[i] = (uint8_t)rintf(255 * fminf(fmaxf(g->wide[i] / 2 + 0.5f, 0), 1));
    return PB_OK;
}

pb_status pb_generator_run(pb_generator *g, float *latents, int count, pb_image *images, pb_generate_progress progress,
                           void *context) {
    pb_status status = PB_OK;
    const int batch = g->options.batch, calls = pb_sampler_calls(g->sampler);
    const int64_t groups = (count + batch - 1) / batch;
    int64_t done = 0;
    for (int i = 0; images && i < count; i++) images[i] = (pb_image){0};
    for (int first = 0; first < count; first += batch) {
        const int used = count - first < batch ? count - first : batch;
        const size_t values = (size_t)used * (size_t)g->elements, all = (size_t)batch * (size_t)g->elements;
        float *const group = latents + (size_t)first * (size_t)g->elements;
        const float sigma = pb_sampler_init_sigma(g->sampler);
        for (size_t i = 0; i < all; i++) g->x[i] = i < values ? group[i] * sigma : 0;  // a short group is filled up
        for (int call = 0; call < calls; call++) {
            PB_TRY(call_unet(g, call));
            pb_sampler_step(g->sampler, call, g->output, g->x);
            if (progress) PB_TRY(progress(context, ++done, groups * calls));
        }
        memcpy(group, g->x, values * sizeof *group);
        for (int i = 0; images && i < used; i++)
            PB_TRY(decode(g, group + (size_t)i * (size_t)g->elements, &images[first + i]));
    }
fail:
    for (int i = 0; status != PB_OK && images && i < count; i++) pb_image_deinit(&images[i]);
    return status;
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
    latents = malloc((size_t)(batch * g->elements) * sizeof *latents);
    images = calloc((size_t)batch, sizeof *images);
    if (!latents || !images) PB_FAIL(PB_ERR_MEMORY, "no memory for class images");
    part_of_all part = {.progress = progress, .context = context, .total = batches * pb_sampler_calls(g->sampler)};
    (void)pb_rng_random(rng);  // the base seed of the loader that hands out the prompts
    for (int64_t at = 0; at < missing; at += batch) {
        const int count = (int)(missing - at < batch ? missing - at : batch);
        pb_rng_randn_as(rng, options->dtype, latents, (size_t)(count * g->elements));
        PB_TRY(pb_generator_run(g, latents, count, images, progress ? report_part : NULL, &part));
        part.before += pb_sampler_calls(g->sampler);
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
