#include "train/encode.h"

#include <math.h>
#include <stdlib.h>

#include "train/dataset.h"
#include "train/weights.h"

// diffusers holds a frozen part wholly in the low precision, biases and norms as well; ours has them in fp32, so their
// values are rounded.
static pb_status round_wide(const pb_module *m, pb_executor *executor) {
    pb_status status = PB_OK;
    float *values = NULL;
    for (uint32_t i = 0; i < m->param_count; i++) {
        const pb_value *value = pb_graph_value(m->graph, m->params[i].work);
        const uint64_t bytes = pb_value_bytes(value), count = bytes / sizeof *values;
        if (value->dtype != PB_F32 || m->params[i].codes != PB_NONE) continue;
        float *grown = realloc(values, bytes);
        if (!grown) PB_FAIL(PB_ERR_MEMORY, "no memory to load %s", m->params[i].name);
        values = grown;
        PB_TRY(pb_executor_read(executor, m->params[i].work, 0, values, bytes));
        for (uint64_t k = 0; k < count; k++) values[k] = pb_rounded(m->compute, values[k]);
        PB_TRY(pb_executor_write(executor, m->params[i].work, 0, values, bytes));
    }
fail:
    free(values);
    return status;
}

static pb_status load_part(const pb_encoding *encoding, pb_part part, const pb_module *module, pb_executor *executor) {
    pb_weights *weights;
    PB_RETURN_IF(pb_model_dir_weights(encoding->model, part, encoding->variant, &weights));
    pb_status status = pb_weights_load(module, weights, executor);
    if (status == PB_OK && module->compute != PB_F32) status = round_wide(module, executor);
    pb_weights_close(weights);
    return status;
}

// --- VAE ---

static pb_status build_encoder(pb_vae_encoder *e, const pb_encoding *encoding, const pb_vae_config *config) {
    PB_RETURN_IF(pb_graph_create(&e->graph));
    const pb_shape shape = PB_SHAPE4(1, e->size, e->size, 3);
    e->pixels = pb_graph_add_value(e->graph, PB_CLASS_INPUT, e->dtype, shape, false, "pixels");
    e->module = pb_module_create(e->graph, e->dtype, false);
    if (!e->module) return pb_error(PB_ERR_MEMORY, "no memory for the VAE");
    e->module->codes = encoding->weights == PB_FROZEN_8BIT;
    e->moments = pb_vae_encode(e->module, config, e->pixels);
    pb_graph_mark_output(e->graph, e->moments);
    PB_RETURN_IF(e->graph->status);
    PB_RETURN_IF(pb_compile(e->graph, encoding->backend, NULL, &e->program));
    return pb_executor_create(encoding->backend, e->graph, e->program, NULL, &e->executor);
}

pb_status pb_vae_encoder_create(const pb_encoding *encoding, const pb_vae_config *config, int32_t size,
                                pb_vae_encoder **result) {
    pb_status status = PB_OK;
    pb_vae_encoder *e = calloc(1, sizeof *e);
    if (!e) return pb_error(PB_ERR_MEMORY, "no memory for the VAE");
    const int64_t side = size / pb_vae_factor(config);
    *e = (pb_vae_encoder){
        .size = size, .dtype = encoding->dtype, .channels = config->latent_channels, .latent_pixels = side * side};
    const size_t pixels = (size_t)size * (size_t)size * 3, moments = (size_t)(2 * e->channels * e->latent_pixels);
    const size_t most = pixels > moments ? pixels : moments;
    e->values = malloc(most * sizeof *e->values);
    e->narrow = malloc(most * pb_dtype_size(e->dtype));
    if (!e->values || !e->narrow) PB_FAIL(PB_ERR_MEMORY, "no memory for the VAE");
    PB_TRY(build_encoder(e, encoding, config));
    PB_TRY(load_part(encoding, PB_PART_VAE, e->module, e->executor));
    *result = e;
    e = NULL;
fail:
    pb_vae_encoder_destroy(e);
    return status;
}

void pb_vae_encoder_destroy(pb_vae_encoder *e) {
    if (!e) return;
    pb_executor_destroy(e->executor);
    pb_program_destroy(e->program);
    pb_graph_destroy(e->graph);
    free(e->values);
    free(e->narrow);
    free(e);
}

// diffusers' DiagonalGaussianDistribution, from (h,w,2C) to mean and deviation (C,h,w).
static void split_moments(const pb_vae_encoder *e, pb_moments *moments) {
    const int64_t channels = e->channels;
    for (int64_t p = 0; p < e->latent_pixels; p++) {
        const float *at = e->values + p * 2 * channels;
        for (int64_t c = 0; c < channels; c++) {
            const float log_variance = fminf(fmaxf(at[channels + c], -30.0f), 20.0f);
            moments->mean[c * e->latent_pixels + p] = at[c];
            moments->deviation[c * e->latent_pixels + p] =
                pb_rounded(e->dtype, expf(pb_rounded(e->dtype, 0.5f * log_variance)));
        }
    }
}

pb_status pb_vae_encoder_run(pb_vae_encoder *e, const pb_image *image, pb_crop crop, pb_moments *moments) {
    const size_t pixels = (size_t)e->size * (size_t)e->size * 3;
    const size_t count = (size_t)(2 * e->channels * e->latent_pixels), size = pb_dtype_size(e->dtype);
    pb_picture_pixels(image, crop.top, crop.left, e->size, e->values);
    pb_convert(e->dtype, e->narrow, PB_F32, e->values, pixels);
    PB_RETURN_IF(pb_executor_write(e->executor, e->pixels, 0, e->narrow, pixels * size));
    PB_RETURN_IF(pb_executor_run(e->executor));
    PB_RETURN_IF(pb_executor_read(e->executor, e->moments, 0, e->narrow, count * size));
    pb_convert(PB_F32, e->values, e->dtype, e->narrow, count);
    split_moments(e, moments);
    return PB_OK;
}

// --- Text encoder ---

pb_status pb_encode_prompts(const pb_encoding *encoding, const pb_clip_config *config, const int32_t *ids, int count,
                            int tokens, void *hidden, uint64_t *device_bytes) {
    pb_status status = PB_OK;
    pb_graph *graph = NULL;
    pb_program *program = NULL;
    pb_executor *executor = NULL;
    PB_TRY(pb_graph_create(&graph));
    const pb_vid input = pb_graph_add_value(graph, PB_CLASS_INPUT, PB_I32, PB_SHAPE2(1, tokens), false, "ids");
    pb_module *module = pb_module_create(graph, encoding->dtype, false);
    if (!module) PB_FAIL(PB_ERR_MEMORY, "no memory for the text encoder");
    module->codes = encoding->weights == PB_FROZEN_8BIT;
    const pb_vid output = pb_clip_forward(module, config, input);
    pb_graph_mark_output(graph, output);
    PB_TRY(graph->status);
    PB_TRY(pb_compile(graph, encoding->backend, NULL, &program));
    if (device_bytes) *device_bytes = program->tier_bytes[PB_TIER_DEVICE];
    PB_TRY(pb_executor_create(encoding->backend, graph, program, NULL, &executor));
    PB_TRY(load_part(encoding, PB_PART_TEXT_ENCODER, module, executor));
    const uint64_t bytes = pb_value_bytes(pb_graph_value(graph, output));
    for (int i = 0; i < count; i++) {
        PB_TRY(pb_executor_write(executor, input, 0, ids + (size_t)i * (size_t)tokens, (uint64_t)tokens * sizeof *ids));
        PB_TRY(pb_executor_run(executor));
        PB_TRY(pb_executor_read(executor, output, 0, (char *)hidden + (uint64_t)i * bytes, bytes));
    }
fail:
    pb_executor_destroy(executor);
    pb_program_destroy(program);
    pb_graph_destroy(graph);
    return status;
}
