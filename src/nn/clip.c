// transformers' CLIPTextModel (models/clip/modeling_clip.py), with the names of published checkpoints: transformers 5
// writes them without "text_model.".
#include "nn/layers.h"

static pb_vid build_attention(pb_module *m, const pb_clip_config *config, const char *path, pb_vid x, pb_vid residual) {
    const int64_t hidden = config->hidden;
    const pb_vid q = pb_layer_linear(m, pb_module_path(m, "%s.q_proj", path), x, hidden, PB_NONE);
    const pb_vid k = pb_layer_linear(m, pb_module_path(m, "%s.k_proj", path), x, hidden, PB_NONE);
    const pb_vid v = pb_layer_linear(m, pb_module_path(m, "%s.v_proj", path), x, hidden, PB_NONE);
    const pb_vid y = pb_attention(m->graph, q, k, v, config->heads, true, pb_attention_scale(hidden, config->heads));
    return pb_layer_linear(m, pb_module_path(m, "%s.out_proj", path), y, hidden, residual);
}

static pb_vid build_layer(pb_module *m, const pb_clip_config *config, const char *path, pb_vid x) {
    pb_vid h = pb_layer_layer_norm(m, pb_module_path(m, "%s.layer_norm1", path), x, config->eps);
    x = build_attention(m, config, pb_module_path(m, "%s.self_attn", path), h, x);
    h = pb_layer_layer_norm(m, pb_module_path(m, "%s.layer_norm2", path), x, config->eps);
    h = pb_layer_linear(m, pb_module_path(m, "%s.mlp.fc1", path), h, config->intermediate, PB_NONE);
    h = pb_unary(m->graph, h, config->quick_gelu ? PB_UNARY_QUICK_GELU : PB_UNARY_GELU);
    return pb_layer_linear(m, pb_module_path(m, "%s.mlp.fc2", path), h, config->hidden, x);
}

pb_vid pb_clip_forward(pb_module *m, const pb_clip_config *config, pb_vid ids) {
    pb_module_expect(m, ids, 2, 0, "input_ids");
    const int64_t tokens = pb_shape_last(pb_module_shape(m, ids));
    if (tokens > config->positions)
        m->graph->status = pb_error(PB_ERR_FORMAT, "input_ids has %lld tokens; the text encoder has %d positions",
                                    (long long)tokens, config->positions);
    const pb_vid table = pb_module_table(m, PB_SHAPE2(config->vocabulary, config->hidden),
                                         "text_model.embeddings.token_embedding.weight");
    const pb_vid positions = pb_module_table(m, PB_SHAPE2(config->positions, config->hidden),
                                             "text_model.embeddings.position_embedding.weight");
    pb_vid x = pb_embedding(m->graph, ids, table, positions);
    for (int i = 0; i < config->layers; i++)
        x = build_layer(m, config, pb_module_path(m, "text_model.encoder.layers.%d", i), x);
    return pb_layer_layer_norm(m, "text_model.final_layer_norm", x, config->eps);
}
