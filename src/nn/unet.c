// diffusers' UNet2DConditionModel (models/unets/unet_2d_condition.py and unet_2d_blocks.py,
// models/transformers/transformer_2d.py).
#include <assert.h>

#include "nn/layers.h"

// Transformer2DModel's own GroupNorm and BasicTransformerBlock's LayerNorms do not follow norm_eps.
static const float TRANSFORMER_NORM_EPS = 1e-6f, LAYER_NORM_EPS = 1e-5f;

typedef struct builder {
    pb_module *m;
    const pb_unet_config *config;
    pb_vid temb;     // [N, time_embed_dim]: SiLU of the time embedding, computed once for all blocks
    pb_vid context;  // [N, T, cross_attention_dim]
} builder;

// TimestepEmbedding: linear, SiLU, linear
static pb_vid embed_time(pb_module *m, const char *path, pb_vid x, int64_t out) {
    pb_vid h = pb_layer_linear(m, pb_module_path(m, "%s.linear_1", path), x, out, PB_NONE);
    h = pb_unary(m->graph, h, PB_UNARY_SILU);
    return pb_layer_linear(m, pb_module_path(m, "%s.linear_2", path), h, out, PB_NONE);
}

// x[N,h,w,C] attends to source (x normalised, or the context); the sum with `residual`.
static pb_vid attend(builder *b, const char *path, pb_vid x, pb_vid source, int heads, pb_vid residual) {
    pb_module *m = b->m;
    const int64_t channels = pb_shape_last(pb_module_shape(m, x));
    const pb_vid q = pb_layer_project(m, pb_module_path(m, "%s.to_q", path), x, channels);
    const pb_vid k = pb_layer_project(m, pb_module_path(m, "%s.to_k", path), source, channels);
    const pb_vid v = pb_layer_project(m, pb_module_path(m, "%s.to_v", path), source, channels);
    const pb_vid y = pb_attention(m->graph, q, k, v, heads, false, pb_attention_scale(channels, heads));
    return pb_layer_linear(m, pb_module_path(m, "%s.to_out.0", path), y, channels, residual);
}

// BasicTransformerBlock: self-attention, cross-attention, GEGLU feed-forward of four times the width.
static pb_vid build_transformer_block(builder *b, const char *path, pb_vid x, int heads) {
    pb_module *m = b->m;
    const int64_t channels = pb_shape_last(pb_module_shape(m, x));
    pb_vid h = pb_layer_layer_norm(m, pb_module_path(m, "%s.norm1", path), x, LAYER_NORM_EPS);
    x = attend(b, pb_module_path(m, "%s.attn1", path), h, h, heads, x);
    h = pb_layer_layer_norm(m, pb_module_path(m, "%s.norm2", path), x, LAYER_NORM_EPS);
    x = attend(b, pb_module_path(m, "%s.attn2", path), h, b->context, heads, x);
    h = pb_layer_layer_norm(m, pb_module_path(m, "%s.norm3", path), x, LAYER_NORM_EPS);
    h = pb_layer_linear(m, pb_module_path(m, "%s.ff.net.0.proj", path), h, 8 * channels, PB_NONE);
    h = pb_geglu(m->graph, h);
    return pb_layer_linear(m, pb_module_path(m, "%s.ff.net.2", path), h, channels, x);
}

// Transformer2DModel over continuous input; level is an index into the configuration.
static pb_vid build_transformer(builder *b, const char *path, pb_vid x, int level) {
    pb_module *m = b->m;
    const int64_t channels = pb_shape_last(pb_module_shape(m, x));
    const char *in = pb_module_path(m, "%s.proj_in", path), *out = pb_module_path(m, "%s.proj_out", path);
    const bool linear = b->config->linear_projection;
    pb_vid h = pb_layer_group_norm(m, pb_module_path(m, "%s.norm", path), x, b->config->norm_groups,
                                   TRANSFORMER_NORM_EPS, false);
    h = linear ? pb_layer_linear(m, in, h, channels, PB_NONE) : pb_layer_pointwise(m, in, h, channels, PB_NONE);
    for (int i = 0; i < b->config->transformer_layers[level]; i++)
        h = build_transformer_block(b, pb_module_path(m, "%s.transformer_blocks.%d", path, i), h,
                                    b->config->heads[level]);
    return linear ? pb_layer_linear(m, out, h, channels, x) : pb_layer_pointwise(m, out, h, channels, x);
}

static pb_vid build_resnet(builder *b, const char *path, pb_vid x, int64_t out) {
    return pb_layer_resnet(b->m, path, x, out, b->config->norm_groups, b->config->norm_eps, b->temb);
}

static pb_vid build_time_embedding(pb_module *m, const pb_unet_config *config, pb_vid timesteps, pb_vid added) {
    pb_vid t = pb_timestep_embedding(m->graph, timesteps, m->compute, config->channels[0], config->flip_sin_to_cos,
                                     config->freq_shift);
    t = embed_time(m, "time_embedding", t, config->time_embed_dim);
    if (config->addition_input_dim > 0) {
        pb_module_expect(m, added, 2, config->addition_input_dim, "text_embeds with time_ids");
        t = pb_add(m->graph, t, embed_time(m, "add_embedding", added, config->time_embed_dim));
    }
    return pb_unary(m->graph, t, PB_UNARY_SILU);
}

typedef struct skip_stack {
    pb_vid value[1 + PB_MAX_LEVELS * (PB_MAX_LAYERS + 1)];
    int count;
} skip_stack;

static pb_vid build_down_block(builder *b, int level, pb_vid x, skip_stack *skips) {
    const pb_unet_config *config = b->config;
    const char *path = pb_module_path(b->m, "down_blocks.%d", level);
    for (int i = 0; i < config->layers_per_block[level]; i++) {
        x = build_resnet(b, pb_module_path(b->m, "%s.resnets.%d", path, i), x, config->channels[level]);
        if (config->down_attention[level])
            x = build_transformer(b, pb_module_path(b->m, "%s.attentions.%d", path, i), x, level);
        skips->value[skips->count++] = x;
    }
    if (level + 1 == config->levels) return x;
    x = pb_layer_downsample(b->m, pb_module_path(b->m, "%s.downsamplers.0.conv", path), x, 1);
    return skips->value[skips->count++] = x;
}

static pb_vid build_mid_block(builder *b, pb_vid x) {
    const int last = b->config->levels - 1;
    if (!b->config->mid_block) return x;
    x = build_resnet(b, "mid_block.resnets.0", x, b->config->channels[last]);
    if (!b->config->mid_attention) return x;
    x = build_transformer(b, "mid_block.attentions.0", x, last);
    return build_resnet(b, "mid_block.resnets.1", x, b->config->channels[last]);
}

// The index-th up block works at level `levels - 1 - index`.
static pb_vid build_up_block(builder *b, int index, pb_vid x, skip_stack *skips) {
    const pb_unet_config *config = b->config;
    const int level = config->levels - 1 - index;
    const char *path = pb_module_path(b->m, "up_blocks.%d", index);
    for (int i = 0; i < config->layers_per_block[level] + 1; i++) {
        x = pb_concat(b->m->graph, x, skips->value[--skips->count]);
        x = build_resnet(b, pb_module_path(b->m, "%s.resnets.%d", path, i), x, config->channels[level]);
        if (config->up_attention[index])
            x = build_transformer(b, pb_module_path(b->m, "%s.attentions.%d", path, i), x, level);
    }
    if (level == 0) return x;
    // The size of the next skip connection: twice this one, or one less where the latent's size is no multiple
    // (diffusers' forward_upsample_size).
    const pb_shape next = pb_module_shape(b->m, skips->value[skips->count - 1]);
    return pb_layer_upsample(b->m, pb_module_path(b->m, "%s.upsamplers.0.conv", path), x, next.dim[1], next.dim[2]);
}

// One row or image for each picture of the sample.
static void expect_batch(pb_module *m, pb_vid sample, pb_vid x, const char *name) {
    const int64_t images = pb_module_shape(m, sample).dim[0], rows = pb_module_shape(m, x).dim[0];
    if (m->graph->status == PB_OK && rows != images)
        m->graph->status = pb_error(PB_ERR_FORMAT, "%s is for %lld pictures; sample has %lld", name, (long long)rows,
                                    (long long)images);
}

pb_vid pb_unet_forward(pb_module *m, const pb_unet_config *config, pb_vid sample, pb_vid timesteps, pb_vid context,
                       pb_vid added) {
    pb_module_expect(m, sample, 4, config->in_channels, "sample");
    pb_module_expect(m, timesteps, 1, 0, "timestep");
    pb_module_expect(m, context, 3, config->cross_attention_dim, "encoder_hidden_states");
    expect_batch(m, sample, timesteps, "timestep");
    expect_batch(m, sample, context, "encoder_hidden_states");
    builder b = {.m = m, .config = config, .context = context};
    b.temb = build_time_embedding(m, config, timesteps, added);
    skip_stack skips = {.count = 0};
    pb_vid x = pb_layer_conv(m, "conv_in", sample, config->channels[0], PB_NONE, PB_NONE);
    skips.value[skips.count++] = x;
    for (int level = 0; level < config->levels; level++) x = build_down_block(&b, level, x, &skips);
    x = build_mid_block(&b, x);
    for (int index = 0; index < config->levels; index++) x = build_up_block(&b, index, x, &skips);
    assert(skips.count == 0);
    x = pb_layer_group_norm(m, "conv_norm_out", x, config->norm_groups, config->norm_eps, true);
    return pb_layer_conv(m, "conv_out", x, config->out_channels, PB_NONE, PB_NONE);
}

pb_vid pb_unet_added(pb_module *m, const pb_unet_config *config, pb_vid pooled, const pb_vid *time_ids, int count) {
    pb_vid added = pooled;
    for (int i = 0; i < count; i++) {
        const pb_vid waves = pb_timestep_embedding(m->graph, time_ids[i], m->compute, config->addition_time_embed_dim,
                                                   config->flip_sin_to_cos, config->freq_shift);
        added = pb_concat(m->graph, added, waves);
    }
    return added;
}
