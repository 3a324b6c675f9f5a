// diffusers' AutoencoderKL (models/autoencoders/autoencoder_kl.py, vae.py): encoder and decoder as parts of their own.
#include "nn/layers.h"

static const float NORM_EPS = 1e-6f;  // fixed in Encoder and Decoder

static pb_vid build_resnet(pb_module *m, const pb_vae_config *config, const char *path, pb_vid x, int64_t out) {
    return pb_layer_resnet(m, path, x, out, config->norm_groups, NORM_EPS, PB_NONE);
}

// Attention with one head of all channels, its GroupNorm inside, and the residual around it.
static pb_vid build_attention(pb_module *m, const pb_vae_config *config, const char *path, pb_vid x) {
    const int64_t channels = pb_shape_last(pb_module_shape(m, x));
    const pb_vid h =
        pb_layer_group_norm(m, pb_module_path(m, "%s.group_norm", path), x, config->norm_groups, NORM_EPS, false);
    const pb_vid q = pb_layer_linear(m, pb_module_path(m, "%s.to_q", path), h, channels, PB_NONE);
    const pb_vid k = pb_layer_linear(m, pb_module_path(m, "%s.to_k", path), h, channels, PB_NONE);
    const pb_vid v = pb_layer_linear(m, pb_module_path(m, "%s.to_v", path), h, channels, PB_NONE);
    const pb_vid y = pb_attention(m->graph, q, k, v, 1, false, pb_attention_scale(channels, 1));
    return pb_layer_linear(m, pb_module_path(m, "%s.to_out.0", path), y, channels, x);
}

static pb_vid build_mid_block(pb_module *m, const pb_vae_config *config, const char *part, pb_vid x) {
    const int64_t channels = config->channels[config->levels - 1];
    x = build_resnet(m, config, pb_module_path(m, "%s.mid_block.resnets.0", part), x, channels);
    if (config->mid_attention) x = build_attention(m, config, pb_module_path(m, "%s.mid_block.attentions.0", part), x);
    return build_resnet(m, config, pb_module_path(m, "%s.mid_block.resnets.1", part), x, channels);
}

pb_vid pb_vae_encode(pb_module *m, const pb_vae_config *config, pb_vid pixels) {
    pb_module_sibling(m, "decoder.");
    pb_module_sibling(m, "post_quant_conv.");
    pb_module_expect(m, pixels, 4, config->in_channels, "sample");
    pb_vid x = pb_layer_conv(m, "encoder.conv_in", pixels, config->channels[0], PB_NONE, PB_NONE);
    for (int level = 0; level < config->levels; level++) {
        const char *path = pb_module_path(m, "encoder.down_blocks.%d", level);
        for (int i = 0; i < config->layers_per_block; i++)
            x = build_resnet(m, config, pb_module_path(m, "%s.resnets.%d", path, i), x, config->channels[level]);
        if (level + 1 < config->levels)
            x = pb_layer_downsample(m, pb_module_path(m, "%s.downsamplers.0.conv", path), x, 0);
    }
    x = build_mid_block(m, config, "encoder", x);
    x = pb_layer_group_norm(m, "encoder.conv_norm_out", x, config->norm_groups, NORM_EPS, true);
    x = pb_layer_conv(m, "encoder.conv_out", x, 2 * config->latent_channels, PB_NONE, PB_NONE);
    if (!config->quant_conv) return x;
    return pb_layer_pointwise(m, "quant_conv", x, 2 * config->latent_channels, PB_NONE);
}

pb_vid pb_vae_decode(pb_module *m, const pb_vae_config *config, pb_vid latents) {
    pb_module_sibling(m, "encoder.");
    pb_module_sibling(m, "quant_conv.");
    pb_module_expect(m, latents, 4, config->latent_channels, "sample");
    const int last = config->levels - 1;
    pb_vid x = latents;
    if (config->post_quant_conv) x = pb_layer_pointwise(m, "post_quant_conv", x, config->latent_channels, PB_NONE);
    x = pb_layer_conv(m, "decoder.conv_in", x, config->channels[last], PB_NONE, PB_NONE);
    x = build_mid_block(m, config, "decoder", x);
    for (int index = 0; index < config->levels; index++) {
        const int level = last - index;
        const char *path = pb_module_path(m, "decoder.up_blocks.%d", index);
        for (int i = 0; i < config->layers_per_block + 1; i++)
            x = build_resnet(m, config, pb_module_path(m, "%s.resnets.%d", path, i), x, config->channels[level]);
        if (level == 0) break;
        const pb_shape shape = pb_module_shape(m, x);
        x = pb_layer_upsample(m, pb_module_path(m, "%s.upsamplers.0.conv", path), x, 2 * shape.dim[1],
                              2 * shape.dim[2]);
    }
    x = pb_layer_group_norm(m, "decoder.conv_norm_out", x, config->norm_groups, NORM_EPS, true);
    return pb_layer_conv(m, "decoder.conv_out", x, config->out_channels, PB_NONE, PB_NONE);
}
