// Which configurations the builders are right for. Defaults and meanings: diffusers' UNet2DConditionModel and
// AutoencoderKL, transformers' CLIPTextConfig. The bounds keep every size and product far inside 64 bits.
#include "nn/config_field.h"

#include <stddef.h>
#include <string.h>

enum {
    MAX_CHANNELS = 1 << 16,
    MAX_HEADS = 1 << 10,
    MAX_TRANSFORMER_LAYERS = 64,
    MAX_SAMPLE = 1 << 14,
    MAX_VOCABULARY = 1 << 21,
    MAX_CLIP_LAYERS = 256,
};

#define CHECK_FIXED(file, fields) pb_config_check_fixed((file), (fields), (int)(sizeof(fields) / sizeof *(fields)))

// An int, or [height, width] of a square; 0 where there is none.
static pb_status read_sample_size(const pb_config_file *file, int *size) {
    const pb_json *json = pb_json_get(file->json, "sample_size");
    int both[2];
    PB_RETURN_IF(pb_config_ints(file, "sample_size", 2, 1, MAX_SAMPLE, 0, both));
    if (both[0] != both[1]) {
        char text[80];
        pb_config_describe(json, text, sizeof text);
        return pb_error(PB_ERR_UNSUPPORTED, "%s: sample_size is %s; only a square is supported", file->name, text);
    }
    *size = both[0];
    return PB_OK;
}

static pb_status read_norm(const pb_config_file *file, const int *channels, int levels, int *groups) {
    const pb_json *json = pb_json_get(file->json, "norm_num_groups");
    if (json && json->type == PB_JSON_NULL)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: norm_num_groups is null; only a number is supported", file->name);
    PB_RETURN_IF(pb_config_int(file, "norm_num_groups", 1, MAX_CHANNELS, 32, groups));
    for (int i = 0; i < levels; i++)
        PB_RETURN_IF(pb_config_divides(file, "norm_num_groups", *groups, "block_out_channels", channels[i]));
    return PB_OK;
}

static const pb_fixed_field unet_fixed[] = {
    {"act_fn", "\"silu\"|\"swish\""},
    {"attention_type", "\"default\""},
    {"center_input_sample", "false"},
    {"class_embed_type", "null"},
    {"class_embeddings_concat", "false"},
    {"conv_in_kernel", "3"},
    {"conv_out_kernel", "3"},
    {"cross_attention_norm", "null"},
    {"downsample_padding", "1"},
    {"dropout", "0"},
    {"dual_cross_attention", "false"},
    {"encoder_hid_dim", "null"},
    {"encoder_hid_dim_type", "null"},
    {"mid_block_only_cross_attention", "null|false"},
    {"mid_block_scale_factor", "1"},
    {"mid_block_type", "\"UNetMidBlock2DCrossAttn\"|\"UNetMidBlock2D\"|null"},
    {"num_attention_heads", "null"},
    {"num_class_embeds", "null"},
    {"only_cross_attention", "false"},
    {"resnet_out_scale_factor", "1"},
    {"resnet_skip_time_act", "false"},
    {"resnet_time_scale_shift", "\"default\""},
    {"reverse_transformer_layers_per_block", "null"},
    {"time_cond_proj_dim", "null"},
    {"time_embedding_act_fn", "null"},
    {"time_embedding_type", "\"positional\""},
    {"timestep_post_act", "null"},
};

// What attends at each level, and with how many heads.
static pb_status read_unet_attention(const pb_config_file *file, pb_unet_config *c) {
    const int levels = c->levels;
    PB_RETURN_IF(
        pb_config_blocks(file, "down_block_types", levels, "DownBlock2D", "CrossAttnDownBlock2D", c->down_attention));
    PB_RETURN_IF(pb_config_blocks(file, "up_block_types", levels, "UpBlock2D", "CrossAttnUpBlock2D", c->up_attention));
    PB_RETURN_IF(pb_config_ints(file, "attention_head_dim", levels, 1, MAX_HEADS, 8, c->heads));
    PB_RETURN_IF(pb_config_ints(file, "transformer_layers_per_block", levels, 1, MAX_TRANSFORMER_LAYERS, 1,
                                c->transformer_layers));
    const pb_json *type = pb_json_get(file->json, "mid_block_type");
    const char *mid;
    PB_RETURN_IF(pb_json_get_string(file->json, "mid_block_type", "UNetMidBlock2DCrossAttn", file->name, &mid));
    c->mid_block = !type || type->type != PB_JSON_NULL;
    c->mid_attention = c->mid_block && !strcmp(mid, "UNetMidBlock2DCrossAttn");
    for (int i = 0; i < levels; i++) {
        const bool in_mid = c->mid_attention && i == levels - 1;
        if (c->down_attention[i] || c->up_attention[levels - 1 - i] || in_mid)
            PB_RETURN_IF(pb_config_divides(file, "attention_head_dim (the number of heads)", c->heads[i],
                                           "block_out_channels", c->channels[i]));
    }
    int dims[PB_MAX_LEVELS];
    PB_RETURN_IF(pb_config_ints(file, "cross_attention_dim", levels, 1, MAX_CHANNELS, 1280, dims));
    for (int i = 1; i < levels; i++)
        if (dims[i] != dims[0])
            return pb_error(PB_ERR_UNSUPPORTED, "%s: cross_attention_dim has %d beside %d; only one size is supported",
                            file->name, dims[i], dims[0]);
    c->cross_attention_dim = dims[0];
    return PB_OK;
}

// The time embedding, and what SDXL adds to it.
static pb_status read_unet_time(const pb_config_file *file, pb_unet_config *c) {
    if (c->channels[0] % 2)
        return pb_error(PB_ERR_FORMAT,
                        "%s: block_out_channels begins with %d; the sinusoids of the time need an even "
                        "number",
                        file->name, c->channels[0]);
    PB_RETURN_IF(pb_json_get_bool(file->json, "flip_sin_to_cos", true, file->name, &c->flip_sin_to_cos));
    int shift;
    PB_RETURN_IF(pb_config_int(file, "freq_shift", 0, 1, 0, &shift));
    if (shift == c->channels[0] / 2)  // the exponent is i / (channels / 2 - freq_shift)
        return pb_error(PB_ERR_FORMAT, "%s: freq_shift is %d with %d channels, which divides by 0", file->name, shift,
                        c->channels[0]);
    c->freq_shift = (float)shift;
    const int wide = 4 * MAX_CHANNELS;
    PB_RETURN_IF(pb_config_int(file, "time_embedding_dim", 1, wide, 4 * c->channels[0], &c->time_embed_dim));

    const pb_json *type = pb_json_get(file->json, "addition_embed_type");
    if (!type || type->type == PB_JSON_NULL) return PB_OK;
    static const pb_fixed_field text_time[] = {{"addition_embed_type", "\"text_time\""}};
    PB_RETURN_IF(CHECK_FIXED(file, text_time));
    const char *input_dim = "projection_class_embeddings_input_dim";
    PB_RETURN_IF(pb_config_int(file, "addition_time_embed_dim", 1, MAX_CHANNELS, 0, &c->addition_time_embed_dim));
    PB_RETURN_IF(pb_config_int(file, input_dim, 1, wide, 0, &c->addition_input_dim));
    if (c->addition_time_embed_dim < 4 || c->addition_time_embed_dim % 2)
        return pb_error(PB_ERR_FORMAT,
                        "%s: addition_time_embed_dim is %d; with addition_embed_type \"text_time\" it "
                        "must be even and at least 4",
                        file->name, c->addition_time_embed_dim);
    if (c->addition_input_dim <= c->addition_time_embed_dim)
        return pb_error(PB_ERR_FORMAT,
                        "%s: %s is %d; with addition_embed_type \"text_time\" it must be above "
                        "addition_time_embed_dim",
                        file->name, input_dim, c->addition_input_dim);
    return PB_OK;
}

pb_status pb_unet_config_read(const pb_json *json, const char *name, pb_unet_config *c) {
    const pb_config_file file = {json, name};
    *c = (pb_unet_config){0};
    PB_RETURN_IF(pb_config_class(&file, "UNet2DConditionModel"));
    PB_RETURN_IF(CHECK_FIXED(&file, unet_fixed));
    PB_RETURN_IF(pb_config_int(&file, "in_channels", 1, MAX_CHANNELS, 4, &c->in_channels));
    PB_RETURN_IF(pb_config_int(&file, "out_channels", 1, MAX_CHANNELS, 4, &c->out_channels));
    PB_RETURN_IF(read_sample_size(&file, &c->sample_size));
    PB_RETURN_IF(pb_config_levels(&file, "block_out_channels", 1, MAX_CHANNELS, c->channels, &c->levels));
    PB_RETURN_IF(pb_config_ints(&file, "layers_per_block", c->levels, 1, PB_MAX_LAYERS, 2, c->layers_per_block));
    PB_RETURN_IF(read_norm(&file, c->channels, c->levels, &c->norm_groups));
    PB_RETURN_IF(pb_config_positive(&file, "norm_eps", 1e-5, &c->norm_eps));
    PB_RETURN_IF(pb_json_get_bool(json, "use_linear_projection", false, name, &c->linear_projection));
    PB_RETURN_IF(read_unet_attention(&file, c));
    return read_unet_time(&file, c);
}

static const pb_fixed_field clip_fixed[] = {
    {"hidden_act", "\"quick_gelu\"|\"gelu\""},
    {"attention_dropout", "0"},
    {"dropout", "0"},  // written by older versions, used by none
    {"model_type", "\"clip_text_model\""},
    {"architectures", "\"CLIPTextModel\""},
};

pb_status pb_clip_config_read(const pb_json *json, const char *name, pb_clip_config *c) {
    const pb_config_file file = {json, name};
    *c = (pb_clip_config){0};
    PB_RETURN_IF(pb_config_class(&file, "CLIPTextModel"));
    PB_RETURN_IF(CHECK_FIXED(&file, clip_fixed));
    PB_RETURN_IF(pb_config_int(&file, "hidden_size", 1, MAX_CHANNELS, 512, &c->hidden));
    PB_RETURN_IF(pb_config_int(&file, "intermediate_size", 1, 4 * MAX_CHANNELS, 2048, &c->intermediate));
    PB_RETURN_IF(pb_config_int(&file, "num_attention_heads", 1, MAX_HEADS, 8, &c->heads));
    PB_RETURN_IF(pb_config_int(&file, "num_hidden_layers", 1, MAX_CLIP_LAYERS, 12, &c->layers));
    PB_RETURN_IF(pb_config_int(&file, "max_position_embeddings", 2, MAX_CHANNELS, 77, &c->positions));
    PB_RETURN_IF(pb_config_int(&file, "vocab_size", 1, MAX_VOCABULARY, 49408, &c->vocabulary));
    PB_RETURN_IF(pb_config_positive(&file, "layer_norm_eps", 1e-5, &c->eps));
    PB_RETURN_IF(pb_config_divides(&file, "num_attention_heads", c->heads, "hidden_size", c->hidden));
    const char *activation;
    PB_RETURN_IF(pb_json_get_string(json, "hidden_act", "quick_gelu", name, &activation));
    c->quick_gelu = !strcmp(activation, "quick_gelu");
    return PB_OK;
}

static const pb_fixed_field vae_fixed[] = {
    {"act_fn", "\"silu\"|\"swish\""},
    {"latents_mean", "null"},
    {"latents_std", "null"},
    {"shift_factor", "null|0"},
};

pb_status pb_vae_config_read(const pb_json *json, const char *name, pb_vae_config *c) {
    const pb_config_file file = {json, name};
    bool none[PB_MAX_LEVELS];
    *c = (pb_vae_config){0};
    PB_RETURN_IF(pb_config_class(&file, "AutoencoderKL"));
    PB_RETURN_IF(CHECK_FIXED(&file, vae_fixed));
    PB_RETURN_IF(pb_config_int(&file, "in_channels", 1, MAX_CHANNELS, 3, &c->in_channels));
    PB_RETURN_IF(pb_config_int(&file, "out_channels", 1, MAX_CHANNELS, 3, &c->out_channels));
    PB_RETURN_IF(pb_config_int(&file, "latent_channels", 1, MAX_CHANNELS, 4, &c->latent_channels));
    PB_RETURN_IF(read_sample_size(&file, &c->sample_size));
    PB_RETURN_IF(pb_config_levels(&file, "block_out_channels", 1, MAX_CHANNELS, c->channels, &c->levels));
    PB_RETURN_IF(pb_config_blocks(&file, "down_block_types", c->levels, "DownEncoderBlock2D", NULL, none));
    PB_RETURN_IF(pb_config_blocks(&file, "up_block_types", c->levels, "UpDecoderBlock2D", NULL, none));
    PB_RETURN_IF(pb_config_int(&file, "layers_per_block", 1, PB_MAX_LAYERS, 1, &c->layers_per_block));
    PB_RETURN_IF(read_norm(&file, c->channels, c->levels, &c->norm_groups));
    PB_RETURN_IF(pb_json_get_bool(json, "mid_block_add_attention", true, name, &c->mid_attention));
    PB_RETURN_IF(pb_json_get_bool(json, "use_quant_conv", true, name, &c->quant_conv));
    PB_RETURN_IF(pb_json_get_bool(json, "use_post_quant_conv", true, name, &c->post_quant_conv));
    return pb_config_positive(&file, "scaling_factor", 0.18215, &c->scaling_factor);
}
