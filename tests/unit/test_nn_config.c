// test: links=nn,graph,base
// config.json: what is read, and what is refused. A refusal names the file, the field and its value.
#include "check.h"
#include "nn/config.h"
#include "nn/preset.h"

typedef pb_status (*reader)(const pb_json *json, const char *file, void *config);

static pb_status read_unet(const pb_json *json, const char *file, void *config) {
    return pb_unet_config_read(json, file, config);
}
static pb_status read_clip(const pb_json *json, const char *file, void *config) {
    return pb_clip_config_read(json, file, config);
}
static pb_status read_vae(const pb_json *json, const char *file, void *config) {
    return pb_vae_config_read(json, file, config);
}

// A preset's text with one field set to `value`.
static void edit(char *out, size_t bytes, const char *text, const char *key, const char *value) {
    char quoted[80];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *at = strstr(text, quoted);
    if (!at) {
        snprintf(out, bytes, "{\n%s%s,%s", quoted, value, text + 1);
        return;
    }
    const char *end = at + strlen(quoted);
    if (*end == '[') end = strchr(end, ']');
    end += strcspn(end, ",\n");
    snprintf(out, bytes, "%.*s%s%s%s", (int)(at - text), text, quoted, value, end);
}

static pb_status read_edited(reader read, const char *part, const char *key, const char *value, void *config) {
    char text[4096];
    edit(text, sizeof text, pb_preset_json("sd14", part), key, value);
    pb_arena *arena = pb_arena_create();
    const pb_json *json = NULL;
    CHECK_OK(pb_json_parse(arena, text, strlen(text), "config.json", &json));
    const pb_status status = read(json, "config.json", config);
    pb_arena_destroy(arena);
    return status;
}

typedef struct refusal {
    const char *key, *value;
    pb_status status;
    const char *message;  // a part of it that must be there; NULL: the value
} refusal;

static const refusal unet_refusals[] = {
    {"_class_name", "\"UNet2DModel\"", PB_ERR_UNSUPPORTED, NULL},
    {"class_embed_type", "\"timestep\"", PB_ERR_UNSUPPORTED, NULL},
    {"num_class_embeds", "10", PB_ERR_UNSUPPORTED, NULL},
    {"only_cross_attention", "true", PB_ERR_UNSUPPORTED, NULL},
    {"only_cross_attention", "[false, true, false, false]", PB_ERR_UNSUPPORTED, NULL},
    {"dual_cross_attention", "true", PB_ERR_UNSUPPORTED, NULL},
    {"resnet_time_scale_shift", "\"scale_shift\"", PB_ERR_UNSUPPORTED, NULL},
    {"mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"", PB_ERR_UNSUPPORTED, NULL},
    {"mid_block_scale_factor", "1.5", PB_ERR_UNSUPPORTED, NULL},
    {"act_fn", "\"gelu\"", PB_ERR_UNSUPPORTED, NULL},
    {"act_fn", "\"si\"", PB_ERR_UNSUPPORTED, NULL},
    {"encoder_hid_dim", "512", PB_ERR_UNSUPPORTED, NULL},
    {"encoder_hid_dim_type", "\"text_proj\"", PB_ERR_UNSUPPORTED, NULL},
    {"center_input_sample", "true", PB_ERR_UNSUPPORTED, NULL},
    {"addition_embed_type", "\"image\"", PB_ERR_UNSUPPORTED, NULL},
    {"conv_in_kernel", "1", PB_ERR_UNSUPPORTED, NULL},
    {"conv_out_kernel", "5", PB_ERR_UNSUPPORTED, NULL},
    {"downsample_padding", "0", PB_ERR_UNSUPPORTED, NULL},
    {"dropout", "0.1", PB_ERR_UNSUPPORTED, NULL},
    {"attention_type", "\"gated\"", PB_ERR_UNSUPPORTED, NULL},
    {"time_embedding_type", "\"fourier\"", PB_ERR_UNSUPPORTED, NULL},
    {"timestep_post_act", "\"silu\"", PB_ERR_UNSUPPORTED, NULL},
    {"time_cond_proj_dim", "256", PB_ERR_UNSUPPORTED, NULL},
    {"reverse_transformer_layers_per_block", "[1, 1, 1, 1]", PB_ERR_UNSUPPORTED, NULL},
    {"cross_attention_dim", "[768, 768, 768, 1024]", PB_ERR_UNSUPPORTED, "1024"},
    {"sample_size", "[64, 96]", PB_ERR_UNSUPPORTED, NULL},
    {"norm_num_groups", "null", PB_ERR_UNSUPPORTED, NULL},
    {"up_block_types", "[\"UpBlock2D\", \"AttnUpBlock2D\", \"UpBlock2D\", \"UpBlock2D\"]", PB_ERR_UNSUPPORTED,
     "AttnUpBlock2D"},
    {"down_block_types", "[\"DownBlock2D\"]", PB_ERR_FORMAT, NULL},
    {"block_out_channels", "[]", PB_ERR_FORMAT, NULL},
    {"block_out_channels", "[32, 32, 32, 32, 32, 32, 32, 32, 32]", PB_ERR_FORMAT, NULL},
    {"block_out_channels", "[320, 640, 1280, -1280]", PB_ERR_FORMAT, "-1280"},
    {"block_out_channels", "[320, 640, 1280, 1e308]", PB_ERR_FORMAT, "1e+308"},
    {"block_out_channels", "[320, 640, 1280, 9223372036854775807]", PB_ERR_FORMAT, "9.22337203685478e+18"},
    {"block_out_channels", "[320, 640, 1280, 1290]", PB_ERR_FORMAT, "1290"},
    {"block_out_channels", "[320, \"640\", 1280, 1280]", PB_ERR_FORMAT, "\"640\""},
    {"norm_num_groups", "0", PB_ERR_FORMAT, NULL},
    {"norm_num_groups", "48", PB_ERR_FORMAT, NULL},
    {"attention_head_dim", "7", PB_ERR_FORMAT, NULL},
    {"attention_head_dim", "0", PB_ERR_FORMAT, NULL},
    {"attention_head_dim", "[8, 8, 8]", PB_ERR_FORMAT, NULL},
    {"layers_per_block", "1000000000", PB_ERR_FORMAT, NULL},
    {"transformer_layers_per_block", "[1, [1, 2], 1, 1]", PB_ERR_FORMAT, "[1, 2]"},
    {"norm_eps", "-1e-05", PB_ERR_FORMAT, NULL},
    {"norm_eps", "\"1e-05\"", PB_ERR_FORMAT, NULL},
    {"in_channels", "4.5", PB_ERR_FORMAT, NULL},
    {"freq_shift", "true", PB_ERR_FORMAT, NULL},
    {"flip_sin_to_cos", "1", PB_ERR_FORMAT, "flip_sin_to_cos"},
    {"addition_embed_type", "\"text_time\"", PB_ERR_FORMAT, "addition_time_embed_dim"},
};

static const refusal clip_refusals[] = {
    {"hidden_act", "\"gelu_new\"", PB_ERR_UNSUPPORTED, NULL},
    {"hidden_act", "null", PB_ERR_UNSUPPORTED, NULL},
    {"attention_dropout", "0.1", PB_ERR_UNSUPPORTED, NULL},
    {"model_type", "\"t5\"", PB_ERR_UNSUPPORTED, NULL},
    {"architectures", "[\"CLIPTextModelWithProjection\"]", PB_ERR_UNSUPPORTED, NULL},
    {"num_attention_heads", "7", PB_ERR_FORMAT, NULL},
    {"hidden_size", "-768", PB_ERR_FORMAT, NULL},
    {"vocab_size", "99999999999", PB_ERR_FORMAT, NULL},
    {"num_hidden_layers", "0", PB_ERR_FORMAT, NULL},
    {"layer_norm_eps", "0", PB_ERR_FORMAT, NULL},
};

static const refusal vae_refusals[] = {
    {"_class_name", "\"AsymmetricAutoencoderKL\"", PB_ERR_UNSUPPORTED, NULL},
    {"latents_mean", "[0.1, 0.2, 0.3, 0.4]", PB_ERR_UNSUPPORTED, NULL},
    {"latents_std", "[1.1, 1.2, 1.3, 1.4]", PB_ERR_UNSUPPORTED, NULL},
    {"shift_factor", "0.1159", PB_ERR_UNSUPPORTED, NULL},
    {"act_fn", "\"relu\"", PB_ERR_UNSUPPORTED, NULL},
    {"up_block_types", "[\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"AttnUpDecoderBlock2D\"]",
     PB_ERR_UNSUPPORTED, "AttnUpDecoderBlock2D"},
    {"norm_num_groups", "33", PB_ERR_FORMAT, NULL},
    {"layers_per_block", "[2, 2, 2, 2]", PB_ERR_FORMAT, NULL},
    {"scaling_factor", "0", PB_ERR_FORMAT, NULL},
    {"scaling_factor", "1e+308", PB_ERR_FORMAT, NULL},
    {"latent_channels", "2147483648", PB_ERR_FORMAT, NULL},
};

static void check_refusals(reader read, const char *part, const refusal *refusals, size_t count) {
    pb_unet_config config;  // the largest of the three
    for (size_t i = 0; i < count; i++) {
        const refusal *r = &refusals[i];
        pb_error_clear();
        const pb_status status = read_edited(read, part, r->key, r->value, &config);
        CHECK_THAT(status == r->status, "%s %s: %s gives %d (%s)", part, r->key, r->value, status, pb_error_message());
        CHECK_THAT(strstr(pb_error_message(), "config.json") && strstr(pb_error_message(), r->key) &&
                       strstr(pb_error_message(), r->message ? r->message : r->value),
                   "%s %s: %s: the message is \"%s\"", part, r->key, r->value, pb_error_message());
    }
}

// What diffusers and transformers write beside what matters, and forms that mean the same.
static void check_harmless(void) {
    static const char *const fields[][3] = {
        {"unet", "upcast_attention", "true"},
        {"unet", "only_cross_attention", "[false, false, false, false]"},
        {"unet", "mid_block_scale_factor", "1.0"},
        {"unet", "act_fn", "\"swish\""},
        {"unet", "addition_embed_type_num_heads", "64"},
        {"unet", "cross_attention_dim", "[768, 768, 768, 768]"},
        {"unet", "layers_per_block", "[2, 2, 2, 2]"},
        {"unet", "sample_size", "[64, 64]"},
        {"unet", "sample_size", "null"},
        {"unet", "a_later_version", "7"},
        {"text_encoder", "transformers_version", "\"5.23.0\""},
        {"text_encoder", "torch_dtype", "\"float16\""},
        {"text_encoder", "dropout", "0.0"},
        {"vae", "force_upcast", "true"},
        {"vae", "latents_mean", "null"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        pb_unet_config config;
        const char *part = fields[i][0];
        const reader read = !strcmp(part, "unet") ? read_unet : !strcmp(part, "vae") ? read_vae : read_clip;
        CHECK_OK(read_edited(read, part, fields[i][1], fields[i][2], &config));
    }
}

static void check_values(void) {
    pb_unet_config u;
    CHECK_OK(read_edited(read_unet, "unet", "transformer_layers_per_block", "[1, 2, 3, 4]", &u));
    CHECK(u.levels == 4 && u.channels[0] == 320 && u.channels[3] == 1280 && u.heads[2] == 8);
    CHECK(u.down_attention[2] && !u.down_attention[3] && !u.up_attention[0] && u.up_attention[3] && u.mid_attention);
    CHECK(u.transformer_layers[2] == 3 && u.layers_per_block[3] == 2 && u.time_embed_dim == 1280);
    CHECK(u.cross_attention_dim == 768 && u.norm_groups == 32 && u.norm_eps == 1e-5f && u.flip_sin_to_cos);
    CHECK(u.addition_input_dim == 0 && u.sample_size == 64 && !u.linear_projection);
    CHECK_OK(read_edited(read_unet, "unet", "mid_block_type", "\"UNetMidBlock2D\"", &u));
    CHECK(u.mid_block && !u.mid_attention);
    CHECK_OK(read_edited(read_unet, "unet", "mid_block_type", "null", &u));
    CHECK(!u.mid_block && !u.mid_attention);
    pb_clip_config c;
    CHECK_OK(read_edited(read_clip, "text_encoder", "hidden_act", "\"gelu\"", &c));
    CHECK(c.hidden == 768 && c.layers == 12 && c.heads == 12 && c.vocabulary == 49408 && !c.quick_gelu);
    pb_vae_config v;
    CHECK_OK(read_edited(read_vae, "vae", "use_quant_conv", "false", &v));
    CHECK(v.levels == 4 && pb_vae_factor(&v) == 8 && !v.quant_conv && v.post_quant_conv && v.mid_attention);
    CHECK(v.scaling_factor == 0.18215f && v.layers_per_block == 2);
}

int main(void) {
    check_refusals(read_unet, "unet", unet_refusals, sizeof unet_refusals / sizeof *unet_refusals);
    check_refusals(read_clip, "text_encoder", clip_refusals, sizeof clip_refusals / sizeof *clip_refusals);
    check_refusals(read_vae, "vae", vae_refusals, sizeof vae_refusals / sizeof *vae_refusals);
    check_harmless();
    check_values();
    return CHECK_DONE();
}
