// Architectures as data, read from diffusers' and transformers' config.json.
#ifndef PB_NN_CONFIG_H
#define PB_NN_CONFIG_H

#include <stdbool.h>

#include "base/error.h"
#include "base/json.h"

enum { PB_MAX_LEVELS = 8, PB_MAX_LAYERS = 16, PB_TIME_IDS = 6 };

typedef struct pb_unet_config {
    int in_channels, out_channels;
    int sample_size;  // native latent size, 0 where the file has none
    int levels;
    int channels[PB_MAX_LEVELS];          // block_out_channels
    bool down_attention[PB_MAX_LEVELS];   // CrossAttnDownBlock2D
    bool up_attention[PB_MAX_LEVELS];     // CrossAttnUpBlock2D, in the order of up_block_types
    int heads[PB_MAX_LEVELS];             // attention_head_dim, which is a count of heads (diffusers issue 2011)
    int layers_per_block[PB_MAX_LEVELS];  // at most PB_MAX_LAYERS
    int transformer_layers[PB_MAX_LEVELS];
    bool mid_block;      // false: mid_block_type null, as in distilled models
    bool mid_attention;  // UNetMidBlock2DCrossAttn; else one ResNet block (UNetMidBlock2D)
    int cross_attention_dim;
    int norm_groups;
    float norm_eps;
    bool linear_projection;  // use_linear_projection
    bool flip_sin_to_cos;
    float freq_shift;
    int time_embed_dim;  // 4 * channels[0]
    // SDXL (addition_embed_type "text_time", with PB_TIME_IDS time ids); 0 where absent
    int addition_time_embed_dim, addition_input_dim;
} pb_unet_config;

typedef struct pb_clip_config {
    int hidden, intermediate, heads, layers, positions, vocabulary;
    float eps;
    bool quick_gelu;
} pb_clip_config;

typedef struct pb_vae_config {
    int in_channels, out_channels, latent_channels;
    int levels;
    int channels[PB_MAX_LEVELS];  // block_out_channels
    int layers_per_block;
    int norm_groups;
    bool mid_attention, quant_conv, post_quant_conv;
    float scaling_factor;  // double in the file, used as diffusers does: latents * scaling_factor in fp32
    int sample_size;
} pb_vae_config;

// Refuse (PB_ERR_UNSUPPORTED) what the builders do not do, naming the field; PB_ERR_FORMAT for what makes no sense.
// `file` is for messages.
pb_status pb_unet_config_read(const pb_json *json, const char *file, pb_unet_config *config);
pb_status pb_clip_config_read(const pb_json *json, const char *file, pb_clip_config *config);
pb_status pb_vae_config_read(const pb_json *json, const char *file, pb_vae_config *config);

static inline int pb_vae_factor(const pb_vae_config *config) {
    return 1 << (config->levels - 1);
}

#endif
