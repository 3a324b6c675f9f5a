// fuzz: links=nn,graph,base
// Any JSON as the config.json of each part and as the scheduler's: refused with a reason, or accepted in sizes that
// make sense; a small UNet that is accepted is also built.
#include <stdlib.h>

#include "nn/module.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool in_range(int64_t value) {
    return value > 0 && value <= 1 << 24;
}

static bool small(const pb_unet_config *c) {
    for (int i = 0; i < c->levels; i++)
        if (c->channels[i] > 64 || c->layers_per_block[i] > 2 || c->transformer_layers[i] > 2) return false;
    return c->in_channels <= 8 && c->out_channels <= 8 && c->cross_attention_dim <= 64 && !c->addition_time_embed_dim;
}

static void build(const pb_unet_config *c) {
    pb_graph *g;
    if (pb_graph_create(&g) != PB_OK) return;
    pb_module *m = pb_module_create(g, PB_F32, false);
    const int64_t side = 1 << c->levels;
    const pb_vid x =
        pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE4(1, side, side, c->in_channels), false, "x");
    const pb_vid t = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(1), false, "t");
    const pb_shape words = PB_SHAPE3(1, 4, c->cross_attention_dim);
    const pb_vid context = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, words, false, "context");
    const pb_vid y = m ? pb_unet_forward(m, c, x, t, context, PB_NONE) : PB_NONE;
    if (m && (g->status != PB_OK) != (y == PB_NONE)) abort();
    pb_graph_destroy(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pb_arena *arena = pb_arena_create();
    const pb_json *root;
    if (arena && pb_json_parse(arena, (const char *)data, size, "input", &root) == PB_OK) {
        pb_unet_config unet;
        pb_clip_config clip;
        pb_vae_config vae;
        if (pb_unet_config_read(root, "input", &unet) == PB_OK) {
            if (!in_range(unet.levels) || unet.levels > PB_MAX_LEVELS || !in_range(unet.in_channels)) abort();
            for (int i = 0; i < unet.levels; i++)
                if (!in_range(unet.channels[i]) || unet.channels[i] % unet.norm_groups) abort();
            if (small(&unet)) build(&unet);
        }
        if (pb_clip_config_read(root, "input", &clip) == PB_OK)
            if (!in_range(clip.heads) || clip.hidden % clip.heads || !in_range(clip.vocabulary)) abort();
        if (pb_vae_config_read(root, "input", &vae) == PB_OK)
            if (vae.levels > PB_MAX_LEVELS || !in_range(pb_vae_factor(&vae)) || !in_range(vae.latent_channels)) abort();
    }
    pb_arena_destroy(arena);
    return 0;
}
