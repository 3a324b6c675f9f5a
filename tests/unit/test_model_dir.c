// test: links=io,base
#include "check.h"

#include <sys/stat.h>
#include <unistd.h>

#include "io/model_dir.h"
#include "scratch.h"

static void make_dir(const char *name) {
    CHECK_OK(pb_fs_make_directories(scratch_path(name)));
}

static void make_text(const char *name, const char *text) {
    CHECK_OK(pb_fs_write_file(scratch_path(name), text, strlen(text)));
}

// A file of [2]-tensors of the names given, ended by NULL; values 1, 2.
static void make_tensors_of(const char *path, pb_dtype dtype, const char *const *names) {
    static const float f32[] = {1, 2};
    static const uint16_t f16[] = {0x3c00, 0x4000};
    pb_safetensors_array arrays[16];
    size_t count = 0;
    for (; names[count]; count++)
        arrays[count] = (pb_safetensors_array){names[count], dtype, 1, {2}, dtype == PB_F32 ? (const void *)f32 : f16};
    CHECK_OK(pb_safetensors_save(scratch_path(path), arrays, count));
}
#define MAKE_TENSORS(path, dtype, ...) make_tensors_of(path, dtype, (const char *const[]){__VA_ARGS__, NULL})

static bool message_has(const char *text) {
    if (strstr(pb_error_message(), text)) return true;
    fprintf(stderr, "message: %s\n", pb_error_message());
    return false;
}

static pb_weights *open_weights(const char *name, pb_part part, const char *variant) {
    pb_weights *weights = NULL;
    CHECK_OK(pb_weights_open(scratch_path(name), part, variant, &weights));
    return weights;
}

static bool weights_fail(const char *name, pb_part part, const char *variant, pb_status expected, const char *message) {
    pb_weights *weights = NULL;
    const pb_status status = pb_weights_open(scratch_path(name), part, variant, &weights);
    pb_weights_close(weights);
    return status == expected && message_has(message);
}

static void test_names(void) {
    make_dir("te");
    MAKE_TENSORS("te/model.safetensors", PB_F32, "text_model.embeddings.token_embedding.weight",
                 "text_model.embeddings.position_ids", "text_projection.weight", "logit_scale",
                 "vision_model.pre_layrnorm.bias", "text_model.text_projection.weight");
    pb_weights *w = open_weights("te", PB_PART_TEXT_ENCODER, NULL);
    if (!w) return;
    CHECK(w->count == 6 && w->elements == 12 && w->bytes == 48 && w->dtype == PB_F32);
    CHECK(pb_weights_find(w, "text_model.embeddings.token_embedding.weight") &&
          pb_weights_find(w, "text_projection.weight"));
    CHECK(pb_weights_find(w, "text_model.embeddings.position_ids")->ignored &&
          pb_weights_find(w, "text_projection.weight")->ignored && pb_weights_find(w, "logit_scale")->ignored &&
          pb_weights_find(w, "vision_model.pre_layrnorm.bias")->ignored);
    CHECK(!pb_weights_find(w, "text_model.embeddings.token_embedding.weight")->ignored &&
          !pb_weights_find(w, "text_model.text_projection.weight")->ignored);
    CHECK(!pb_weights_find(w, "embeddings.token_embedding.weight"));
    pb_weights_close(w);

    MAKE_TENSORS("te/model.safetensors", PB_F32, "embeddings.token_embedding.weight", "encoder.layers.0.mlp.fc1.bias",
                 "final_layer_norm.weight");
    w = open_weights("te", PB_PART_TEXT_ENCODER, NULL);
    if (!w) return;
    const pb_weight *found = pb_weights_find(w, "text_model.encoder.layers.0.mlp.fc1.bias");
    CHECK(found && strcmp(found->entry->name, "encoder.layers.0.mlp.fc1.bias") == 0);
    CHECK(pb_weights_find(w, "text_model.final_layer_norm.weight") != NULL);
    float values[2] = {0};
    CHECK_OK(pb_weight_read(found, PB_F32, values));
    CHECK(values[0] == 1 && values[1] == 2);
    pb_weights_close(w);

    make_dir("vae");
    MAKE_TENSORS("vae/diffusion_pytorch_model.safetensors", PB_F16, "encoder.mid_block.attentions.0.query.weight",
                 "encoder.mid_block.attentions.0.key.bias", "encoder.mid_block.attentions.0.value.weight",
                 "encoder.mid_block.attentions.0.proj_attn.weight", "decoder.mid_block.attentions.0.to_q.weight",
                 "decoder.mid_block.attentions.0.group_norm.weight", "odd.query.weight");
    w = open_weights("vae", PB_PART_VAE, "");
    if (!w) return;
    static const char *const canonical[] = {"encoder.mid_block.attentions.0.to_q.weight",
                                            "encoder.mid_block.attentions.0.to_k.bias",
                                            "encoder.mid_block.attentions.0.to_v.weight",
                                            "encoder.mid_block.attentions.0.to_out.0.weight",
                                            "decoder.mid_block.attentions.0.to_q.weight",
                                            "decoder.mid_block.attentions.0.group_norm.weight",
                                            "odd.query.weight"};
    for (size_t i = 0; i < 7; i++) CHECK_THAT(pb_weights_find(w, canonical[i]), "%s", canonical[i]);
    CHECK(w->dtype == PB_F16);
    pb_weights_close(w);
    MAKE_TENSORS("vae/diffusion_pytorch_model.safetensors", PB_F16, "e.attentions.0.query.weight",
                 "e.attentions.0.to_q.weight");
    CHECK(weights_fail("vae", PB_PART_VAE, NULL, PB_ERR_FORMAT, "mean the same"));
}

static void test_shapes(void) {
    const pb_safetensors_entry conv = {.rank = 4, .shape = {8, 8, 1, 1}}, scalar = {.rank = 0};
    const pb_weight w = {.entry = &conv}, s = {.entry = &scalar};
    CHECK(pb_weight_has_shape(&w, 2, (int64_t[]){8, 8}) && pb_weight_has_shape(&w, 4, (int64_t[]){8, 8, 1, 1}));
    CHECK(!pb_weight_has_shape(&w, 2, (int64_t[]){8, 4}) && !pb_weight_has_shape(&w, 1, (int64_t[]){64}));
    CHECK(!pb_weight_has_shape(&w, 4, (int64_t[]){8, 8, 1, 2}) && pb_weight_has_shape(&s, 1, (int64_t[]){1}));
    CHECK(!pb_weight_has_shape(&s, 1, (int64_t[]){2}) && pb_weight_has_shape(&s, 0, NULL));
}

static void test_variants(void) {
    make_dir("unet");
    CHECK(weights_fail("unet", PB_PART_UNET, NULL, PB_ERR_FORMAT, "there is no diffusion_pytorch_model.safetensors"));
    make_text("unet/diffusion_pytorch_model.bin", "x");
    CHECK(weights_fail("unet", PB_PART_UNET, NULL, PB_ERR_UNSUPPORTED, "save_pretrained"));
    CHECK(weights_fail("unet/diffusion_pytorch_model.bin", PB_PART_UNET, NULL, PB_ERR_UNSUPPORTED, "save_pretrained"));
    MAKE_TENSORS("unet/diffusion_pytorch_model.fp16.safetensors", PB_F16, "a");
    pb_weights *w = open_weights("unet", PB_PART_UNET, NULL);  // the only one there
    CHECK(w && w->dtype == PB_F16);
    pb_weights_close(w);
    MAKE_TENSORS("unet/diffusion_pytorch_model.non_ema.safetensors", PB_F32, "a");
    CHECK(weights_fail("unet", PB_PART_UNET, NULL, PB_ERR_USAGE, "variants fp16 and non_ema"));
    CHECK(weights_fail("unet", PB_PART_UNET, "bf16", PB_ERR_UNSUPPORTED, "save_pretrained"));
    w = open_weights("unet", PB_PART_UNET, "non_ema");
    CHECK(w && w->dtype == PB_F32 && strstr(w->path, "non_ema"));
    pb_weights_close(w);
    MAKE_TENSORS("unet/diffusion_pytorch_model.safetensors", PB_F32, "a", "b");
    w = open_weights("unet", PB_PART_UNET, NULL);
    CHECK(w && w->count == 2);
    pb_weights_close(w);
    w = open_weights("unet", PB_PART_UNET, "fp16");
    CHECK(w && w->count == 1);
    pb_weights_close(w);
    w = open_weights("unet", PB_PART_UNET, "bf16");  // a part without that variant has the plain one
    CHECK(w && w->count == 2);
    pb_weights_close(w);
    w = open_weights("unet/diffusion_pytorch_model.non_ema.safetensors", PB_PART_UNET, NULL);
    CHECK(w && w->count == 1);
    pb_weights_close(w);
    CHECK(weights_fail("absent.safetensors", PB_PART_UNET, NULL, PB_ERR_IO, "absent"));
}

static void test_shards(void) {
    make_dir("sharded");
    MAKE_TENSORS("sharded/model-00001-of-00002.safetensors", PB_F32, "b", "a");
    MAKE_TENSORS("sharded/model-00002-of-00002.safetensors", PB_F32, "c");
    make_text("sharded/model.safetensors.index.json",
              "{\"metadata\":{\"total_size\":24},\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
              "\"b\":\"model-00001-of-00002.safetensors\",\"c\":\"model-00002-of-00002.safetensors\"}}");
    pb_weights *w = open_weights("sharded", PB_PART_TEXT_ENCODER, NULL);
    CHECK(w && w->count == 3 && pb_weights_find(w, "a") &&
          pb_weights_find(w, "c")->file != pb_weights_find(w, "a")->file);
    CHECK(w && strstr(w->path, "index.json"));
    pb_weights_close(w);
    MAKE_TENSORS("outside.safetensors", PB_F32, "a");
    static const struct {
        const char *index, *message;
        pb_status status;
    } bad[] = {
        {"{\"weight_map\":{\"a\":\"../outside.safetensors\"}}", "beside the index", PB_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "beside the index", PB_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"..\"}}", "beside the index", PB_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"model.bin\"}}", "beside the index", PB_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"x\\u0000.safetensors\"}}", "beside the index", PB_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":1}}", "beside the index", PB_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"absent.safetensors\"}}", "absent.safetensors", PB_ERR_IO},
        {"{\"weight_map\":{\"c\":\"model-00001-of-00002.safetensors\"}}", "is not in", PB_ERR_FORMAT},
        {"{\"weight_map\":{}}", "weight_map", PB_ERR_FORMAT},
        {"{\"weight_map\":[]}", "weight_map", PB_ERR_FORMAT},
        {"{}", "weight_map", PB_ERR_FORMAT},
        {"[]", "weight_map", PB_ERR_FORMAT},
        {"{", "index.json:1:2", PB_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        make_text("sharded/model.safetensors.index.json", bad[i].index);
        CHECK_THAT(weights_fail("sharded", PB_PART_TEXT_ENCODER, NULL, bad[i].status, bad[i].message), "%s",
                   bad[i].index);
    }
    // The index of a variant, and a tensor in two shards.
    make_text("sharded/model.safetensors.index.fp16.json",
              "{\"weight_map\":{\"c\":\"model-00002-of-00002.safetensors\"}}");
    w = open_weights("sharded", PB_PART_TEXT_ENCODER, "fp16");
    CHECK(w && w->count == 1);
    pb_weights_close(w);
    MAKE_TENSORS("sharded/model-00002-of-00002.safetensors", PB_F32, "c", "a");
    make_text("sharded/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
                                                      "\"c\":\"model-00002-of-00002.safetensors\"}}");
    CHECK(weights_fail("sharded", PB_PART_TEXT_ENCODER, NULL, PB_ERR_FORMAT, "mean the same"));
}

static void make_pipeline(const char *root) {
    char name[256];
#define AT(file) (snprintf(name, sizeof name, "%s/%s", root, file), name)
    make_dir(AT("unet"));
    make_dir(AT("vae"));
    make_dir(AT("text_encoder"));
    make_dir(AT("tokenizer"));
    make_dir(AT("scheduler"));
    make_dir(AT("safety_checker"));
    make_dir(AT("checkpoint-500"));
    make_text(AT("checkpoint-500/state"), "not part of the pipeline");
    make_text(
        AT("model_index.json"),
        "{\"_class_name\":\"StableDiffusionPipeline\",\"unet\":[\"diffusers\",\"UNet2DConditionModel\"],\"vae\":["
        "\"diffusers\","
        "\"AutoencoderKL\"],\"text_encoder\":[\"transformers\",\"CLIPTextModel\"],\"tokenizer\":[\"transformers\","
        "\"CLIPTokenizer\"],\"scheduler\":[\"diffusers\",\"PNDMScheduler\"],\"feature_extractor\":[null,null],"
        "\"safety_checker\":[\"stable_diffusion\",\"StableDiffusionSafetyChecker\"],\"requires_safety_checker\":true}");
    make_text(AT("README.md"), "# A model");
    make_text(AT("v1.ckpt"), "a pickle");
    make_text(AT("unet/config.json"), "{\"_class_name\":\"UNet2DConditionModel\",\"sample_size\":8}");
    make_text(AT("vae/config.json"), "{}");
    make_text(AT("text_encoder/config.json"), "{}");
    make_text(AT("scheduler/scheduler_config.json"), "{\"prediction_type\":\"epsilon\"}");
    make_text(AT("tokenizer/vocab.json"), "{}");
    make_text(AT("unet/diffusion_pytorch_model.bin"), "a pickle");
    make_text(AT("safety_checker/pytorch_model.bin"), "a pickle");
    MAKE_TENSORS(AT("unet/diffusion_pytorch_model.safetensors"), PB_F32, "u");
    MAKE_TENSORS(AT("unet/diffusion_pytorch_model.fp16.safetensors"), PB_F16, "u");
    MAKE_TENSORS(AT("vae/diffusion_pytorch_model.fp16.safetensors"), PB_F16, "v");
    MAKE_TENSORS(AT("text_encoder/model.safetensors"), PB_F32, "t");
    make_text(AT("text_encoder/pytorch_model.bin"), "a pickle");
#undef AT
}

static pb_model_dir *open_model(const char *path, const char *revision) {
    pb_model_dir *model = NULL;
    CHECK_OK(pb_model_dir_open(path, revision, &model));
    return model;
}

static bool model_fails(const char *path, const char *revision, pb_status expected, const char *message) {
    pb_model_dir *model = NULL;
    const pb_status status = pb_model_dir_open(path, revision, &model);
    pb_model_dir_close(model);
    return status == expected && message_has(message);
}

static void test_pipeline(void) {
    make_pipeline("model");
    pb_model_dir *m = open_model(scratch_path("model"), NULL);
    if (!m) return;
    for (pb_part part = 0; part < PB_PART_COUNT; part++) CHECK_OK(pb_model_dir_require(m, part));
    CHECK(strcmp(m->parts[PB_PART_UNET].class_name, "UNet2DConditionModel") == 0);
    CHECK(pb_json_get(m->parts[PB_PART_UNET].config, "sample_size") && m->parts[PB_PART_SCHEDULER].config);
    CHECK(!m->parts[PB_PART_TOKENIZER].config);
    pb_weights *w = NULL;
    CHECK_OK(pb_model_dir_weights(m, PB_PART_VAE, NULL, &w));
    CHECK(w && pb_weights_find(w, "v"));
    pb_weights_close(w);
    pb_model_dir_close(m);

    CHECK(model_fails(scratch_path("absent"), NULL, PB_ERR_IO, "there is no model at"));
    CHECK(model_fails(scratch_path("model/v1.ckpt"), NULL, PB_ERR_UNSUPPORTED, "from_single_file"));
    CHECK(model_fails(scratch_path("model/README.md"), NULL, PB_ERR_FORMAT, "not a pipeline directory"));
    CHECK(model_fails(scratch_path("model/tokenizer"), NULL, PB_ERR_FORMAT, "neither model_index.json nor"));
    // Parts that the index denies, a config that is gone, another pipeline, broken JSON.
    make_text("model/model_index.json",
              "{\"_class_name\":\"StableDiffusionPipeline\",\"unet\":[\"diffusers\",\"U\"],\"vae\":[null,null]}");
    CHECK(unlink(scratch_path("model/unet/config.json")) == 0);
    m = open_model(scratch_path("model"), NULL);
    if (!m) return;
    CHECK(pb_model_dir_require(m, PB_PART_VAE) == PB_ERR_FORMAT && message_has("has no vae"));
    CHECK(pb_model_dir_require(m, PB_PART_TEXT_ENCODER) == PB_ERR_FORMAT);
    CHECK(pb_model_dir_require(m, PB_PART_UNET) == PB_ERR_FORMAT && message_has("unet has no config.json"));
    CHECK(pb_model_dir_weights(m, PB_PART_UNET, NULL, &w) == PB_ERR_FORMAT);
    pb_model_dir_close(m);
    static const char *const others[] = {"FluxPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline"};
    for (size_t i = 0; i < 3; i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"_class_name\":\"%s\"}", others[i]);
        make_text("model/model_index.json", text);
        m = open_model(scratch_path("model"), NULL);
        CHECK(m && pb_model_dir_require(m, PB_PART_UNET) == PB_ERR_UNSUPPORTED && message_has(others[i]));
        pb_model_dir_close(m);
    }
    make_text("model/model_index.json", "[]");
    CHECK(model_fails(scratch_path("model"), NULL, PB_ERR_FORMAT, "no object"));
    make_text("model/model_index.json", "{\"a\":1,}");
    CHECK(model_fails(scratch_path("model"), NULL, PB_ERR_FORMAT, "model_index.json:1:8"));
    // Without an index the folders speak for themselves.
    CHECK(unlink(scratch_path("model/model_index.json")) == 0);
    make_text("model/unet/config.json", "{\"_class_name\":\"UNet2DConditionModel\"}");
    m = open_model(scratch_path("model"), NULL);
    CHECK(m && m->parts[PB_PART_VAE].present && strcmp(m->parts[PB_PART_UNET].class_name, "UNet2DConditionModel") == 0);
    pb_model_dir_close(m);
}

static void test_hub_cache(void) {
    make_pipeline("hub/models--org--name/snapshots/abc123");
    make_dir("hub/models--org--name/refs");
    make_text("hub/models--org--name/refs/main", "abc123\n");
    const char *folder = scratch_path("hub/models--org--name");
    pb_model_dir *m = open_model(folder, NULL);
    CHECK(m && strstr(m->path, "snapshots/abc123") && m->parts[PB_PART_UNET].present);
    pb_model_dir_close(m);
    m = open_model(folder, "abc123");
    pb_model_dir_close(m);
    // The cache keeps files as links to its blobs.
    make_dir("hub/models--org--name/blobs");
    const char *file = scratch_path("hub/models--org--name/snapshots/abc123/unet/config.json");
    CHECK_OK(pb_fs_rename(file, scratch_path("hub/models--org--name/blobs/1f2e")));
    CHECK(symlink("../../../blobs/1f2e", file) == 0);
    m = open_model(folder, "main");
    CHECK(m && m->parts[PB_PART_UNET].config);
    pb_model_dir_close(m);
    CHECK(model_fails(folder, "fp16", PB_ERR_IO, "no snapshot of `fp16`"));
    CHECK(model_fails(folder, "../../x", PB_ERR_USAGE, "no name of a snapshot"));
    make_text("hub/models--org--name/refs/evil", "../../../model");
    CHECK(model_fails(folder, "evil", PB_ERR_FORMAT, "names no snapshot"));
    setenv("HF_HUB_CACHE", scratch_path("hub"), 1);
    m = open_model("org/name", "main");
    CHECK(m && strstr(m->path, "models--org--name/snapshots/abc123"));
    pb_model_dir_close(m);
    CHECK(model_fails("org/other", NULL, PB_ERR_IO, "models--org--other"));
    CHECK(model_fails("solo", NULL, PB_ERR_IO, "models--solo") &&
          model_fails("a/b/c", NULL, PB_ERR_IO, "no model at a/b/c"));
    unsetenv("HF_HUB_CACHE");
    setenv("HF_HOME", scratch_path("home"), 1);
    CHECK(model_fails("org/name", NULL, PB_ERR_IO, "home/hub/models--org--name"));
    unsetenv("HF_HOME");
}

static bool is_file(const char *name) {
    return pb_fs_kind_of(scratch_path(name)) == PB_FS_FILE;
}

static void begin(const char *target, pb_model_writer **writer) {
    pb_model_dir *m = open_model(scratch_path("hub/models--org--name/snapshots/abc123"), NULL);
    const bool replaced[PB_PART_COUNT] = {[PB_PART_UNET] = true};
    CHECK_OK(pb_model_writer_begin(m, scratch_path(target), replaced, writer));
    pb_model_dir_close(m);
}

static void write_unet(pb_model_writer *writer, float value) {
    const float values[] = {value, value};
    const pb_safetensors_array array = {"u", PB_F32, 1, {2}, values};
    CHECK_OK(pb_safetensors_save(pb_model_writer_weights_path(writer, PB_PART_UNET), &array, 1));
}

static float written_value(const char *target) {
    float values[2] = {0};
    pb_model_dir *m = open_model(scratch_path(target), NULL);
    pb_weights *w = NULL;
    if (m) CHECK_OK(pb_model_dir_weights(m, PB_PART_UNET, NULL, &w));
    if (w) CHECK_OK(pb_weight_read(pb_weights_find(w, "u"), PB_F32, values));
    pb_weights_close(w);
    pb_model_dir_close(m);
    return values[0];
}

static void test_writing(void) {
    pb_model_writer *writer = NULL;
    make_dir("result/checkpoint-1");
    make_text("result/metrics.jsonl", "{}");
    make_dir("result/.pipeline.1.tmp/unet");  // a killed run's
    begin("result", &writer);
    if (!writer) return;
    CHECK(pb_fs_kind_of(scratch_path("result/.pipeline.1.tmp")) == PB_FS_NONE);
    CHECK(pb_model_writer_weights_path(writer, PB_PART_VAE) == NULL);
    CHECK(pb_fs_kind_of(scratch_path("result/unet")) == PB_FS_NONE && !is_file("result/model_index.json"));
    write_unet(writer, 3);
    CHECK_OK(pb_model_writer_commit(writer));
    pb_model_writer_destroy(writer);
    CHECK(written_value("result") == 3);
    CHECK(is_file("result/model_index.json") && is_file("result/README.md") && is_file("result/metrics.jsonl"));
    struct stat info;
    CHECK(lstat(scratch_path("result/unet/config.json"), &info) == 0 && S_ISREG(info.st_mode));  // a link no more
    CHECK(is_file("result/unet/config.json") && is_file("result/tokenizer/vocab.json") &&
          is_file("result/scheduler/scheduler_config.json"));
    CHECK(!is_file("result/unet/diffusion_pytorch_model.fp16.safetensors") &&
          !is_file("result/unet/diffusion_pytorch_model.bin"));
    CHECK(!is_file("result/v1.ckpt") && !is_file("result/checkpoint-500/state"));
    // A variant without a plain sibling gets the plain name; a pickle stays where nothing else is.
    CHECK(is_file("result/vae/diffusion_pytorch_model.safetensors") &&
          !is_file("result/vae/diffusion_pytorch_model.fp16.safetensors"));
    CHECK(!is_file("result/text_encoder/pytorch_model.bin") && is_file("result/safety_checker/pytorch_model.bin"));
    // Over an older result; and one that is given up.
    begin("result", &writer);
    if (!writer) return;
    write_unet(writer, 4);
    CHECK(written_value("result") == 3);
    pb_model_writer_destroy(writer);
    CHECK(written_value("result") == 3);
    begin("result", &writer);
    if (!writer) return;
    write_unet(writer, 5);
    CHECK_OK(pb_model_writer_commit(writer));
    pb_model_writer_destroy(writer);
    CHECK(written_value("result") == 5);
    pb_arena *arena = pb_arena_create();
    const char **names;
    size_t count = 0;
    CHECK_OK(pb_fs_list(arena, scratch_path("result"), &names, &count));
    for (size_t i = 0; i < count; i++) CHECK_THAT(names[i][0] != '.', "%s was left behind", names[i]);
    pb_arena_destroy(arena);
    // A pipeline can be written over itself.
    pb_model_dir *m = open_model(scratch_path("result"), NULL);
    const bool replaced[PB_PART_COUNT] = {[PB_PART_UNET] = true};
    CHECK_OK(pb_model_writer_begin(m, scratch_path("result"), replaced, &writer));
    write_unet(writer, 6);
    CHECK_OK(pb_model_writer_commit(writer));
    pb_model_writer_destroy(writer);
    pb_model_dir_close(m);
    CHECK(written_value("result") == 6);
}

int main(void) {
    test_names();
    test_shapes();
    test_variants();
    test_shards();
    test_pipeline();
    test_hub_cache();
    test_writing();
    scratch_remove();
    return CHECK_DONE();
}
