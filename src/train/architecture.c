#include "train/architecture.h"

#include <stdlib.h>
#include <string.h>

#include "nn/preset.h"

// Configurations from before diffusers 0.9 may have a sample_size of 32 where the model was made for 64, which
// StableDiffusionPipeline puts right when it loads them.
static pb_status correct_sample_size(const pb_model_part_dir *unet, pb_unet_config *config) {
    enum { SMALLEST = 64, FIRST_RIGHT = 9 };
    const pb_json *size = pb_json_get(unet->config, "sample_size");
    const char *version;
    PB_RETURN_IF(pb_json_get_string(unet->config, "_diffusers_version", "", unet->config_path, &version));
    if (!size || size->type != PB_JSON_NUMBER || strncmp(version, "0.", 2) != 0) return PB_OK;
    if (atoi(version + 2) < FIRST_RIGHT && config->sample_size < SMALLEST) config->sample_size = SMALLEST;
    return PB_OK;
}

pb_status pb_architecture_read(const pb_model_dir *model, pb_architecture *a) {
    static const pb_part needed[] = {PB_PART_UNET, PB_PART_TEXT_ENCODER, PB_PART_VAE};
    *a = (pb_architecture){.has_clip = true};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) PB_RETURN_IF(pb_model_dir_require(model, needed[i]));
    const pb_model_part_dir *unet = &model->parts[PB_PART_UNET], *clip = &model->parts[PB_PART_TEXT_ENCODER];
    const pb_model_part_dir *vae = &model->parts[PB_PART_VAE];
    PB_RETURN_IF(pb_unet_config_read(unet->config, unet->config_path, &a->unet));
    PB_RETURN_IF(correct_sample_size(unet, &a->unet));
    PB_RETURN_IF(pb_clip_config_read(clip->config, clip->config_path, &a->clip));
    PB_RETURN_IF(pb_vae_config_read(vae->config, vae->config_path, &a->vae));
    if (a->vae.in_channels != 3 || a->vae.out_channels != 3)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: in_channels is %d and out_channels %d; pictures have 3 channels",
                        vae->config_path, a->vae.in_channels, a->vae.out_channels);
    if (a->clip.hidden != a->unet.cross_attention_dim)
        return pb_error(PB_ERR_FORMAT, "%s: hidden_size is %d, but %s wants cross_attention_dim %d", clip->config_path,
                        a->clip.hidden, unet->config_path, a->unet.cross_attention_dim);
    return PB_OK;
}

static pb_status preset_part(pb_arena *arena, const char *preset, const char *part, const pb_json **json) {
    const char *text = pb_preset_json(preset, part);
    *json = NULL;
    return text ? pb_json_parse(arena, text, strlen(text), preset, json) : PB_OK;
}

pb_status pb_architecture_preset(pb_arena *arena, const char *preset, pb_architecture *a) {
    *a = (pb_architecture){.has_clip = false};
    const pb_json *unet, *clip, *vae;
    PB_RETURN_IF(preset_part(arena, preset, "unet", &unet));
    PB_RETURN_IF(preset_part(arena, preset, "text_encoder", &clip));
    PB_RETURN_IF(preset_part(arena, preset, "vae", &vae));
    if (!unet)
        return pb_error(PB_ERR_USAGE, "no preset is called %s; there are tiny, medium, sd14, sd21 and sdxl", preset);
    PB_RETURN_IF(pb_unet_config_read(unet, preset, &a->unet));
    if (vae)
        PB_RETURN_IF(pb_vae_config_read(vae, preset, &a->vae));
    else
        a->vae.levels = 4;  // a factor of 8, as in every published VAE
    if (clip) PB_RETURN_IF(pb_clip_config_read(clip, preset, &a->clip));
    a->has_clip = clip != NULL;
    return PB_OK;
}

pb_status pb_architecture_step(const pb_architecture *a, const pb_config *config, pb_step_request *request) {
    const int factor = pb_vae_factor(&a->vae);
    if (config->resolution % factor)
        return pb_error(
            PB_ERR_FORMAT, "resolution is %lld, which is not divisible by %d, the factor of this model's VAE; try %lld",
            (long long)config->resolution, factor, (long long)(config->resolution + factor - 1) / factor * factor);
    if (config->train_text_encoder && !a->has_clip)
        return pb_error(PB_ERR_FORMAT, "train_text_encoder: this preset has no text encoder");
    const int latent = (int)(config->resolution / factor);
    *request = (pb_step_request){
        .unet = &a->unet,
        .clip = config->train_text_encoder ? &a->clip : NULL,
        .compute = config->mixed_precision,
        .batch = (int)config->train_batch_size * (config->with_prior_preservation ? 2 : 1),
        .latent_h = latent,
        .latent_w = latent,
        .tokens = config->tokenizer_max_length.set ? (int)config->tokenizer_max_length.value
                  : a->has_clip                    ? a->clip.positions
                                                   : 77,
        .pass = PB_PASS_WHOLE,
        .sums = config->gradient_accumulation_steps > 1,
        .optimizer = {.states = config->optimizer.states, .master = config->optimizer.master},
    };
    if (pb_config_validates(config) && a->has_clip) {
        // As a pipeline makes them without being told a size, and no more at once than a step has pictures.
        const int native = a->unet.sample_size ? a->unet.sample_size : latent, most = request->batch / 2;
        const int pictures = config->num_validation_images < most ? (int)config->num_validation_images : most;
        request->validation = (pb_validation_request){
            .vae = &a->vae, .latent_h = native, .latent_w = native, .pictures = pictures > 1 ? pictures : 1};
    }
    return PB_OK;
}
