#include "train/random_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/rng.h"
#include "io/safetensors.h"
#include "nn/module.h"
#include "nn/preset.h"

enum { CHUNK_ELEMENTS = 1 << 18 };

typedef struct writing {
    const char *preset, *directory;
    pb_dtype dtype;
    pb_rng rng;
    pb_arena *arena;
    float *chunk;  // CHUNK_ELEMENTS
} writing;

// --- Weights ---

static const pb_param *find_param(const pb_module *m, const char *name) {
    for (uint32_t i = 0; i < m->param_count; i++)
        if (!strcmp(m->params[i].name, name)) return &m->params[i];
    return NULL;
}

// torch.nn.Linear and Conv2d draw weight and bias from U(-b, b), b = 1 / sqrt(inputs of an output)
// (kaiming_uniform_ with a = sqrt(5)); norms begin at 1 and 0; CLIP's embeddings at N(0, 0.02^2).
typedef struct distribution {
    enum { CONSTANT, UNIFORM, NORMAL } kind;
    float scale;
} distribution;

static distribution distribution_of(const pb_module *m, const pb_param *param) {
    const size_t length = strlen(param->name);
    const pb_param *weight = param;
    if (length > 5 && !strcmp(param->name + length - 5, ".bias")) {
        char name[256];
        snprintf(name, sizeof name, "%.*s.weight", (int)(length - 5), param->name);
        weight = find_param(m, name);
    }
    if (weight->file_shape.rank == 1) return (distribution){CONSTANT, weight == param ? 1.0f : 0.0f};
    if (strstr(param->name, "_embedding.weight") && weight == param) return (distribution){NORMAL, 0.02f};
    const int64_t inputs = pb_shape_count(weight->file_shape) / weight->file_shape.dim[0];
    return (distribution){UNIFORM, (float)(1.0 / sqrt((double)inputs))};
}

static void draw(writing *w, distribution d, size_t count) {
    if (d.kind == UNIFORM) pb_rng_rand(&w->rng, w->chunk, count);
    if (d.kind == NORMAL) pb_rng_randn(&w->rng, w->chunk, count);
    for (size_t i = 0; i < count; i++) {
        if (d.kind == CONSTANT) w->chunk[i] = d.scale;
        if (d.kind == UNIFORM) w->chunk[i] = (2.0f * w->chunk[i] - 1.0f) * d.scale;
        if (d.kind == NORMAL) w->chunk[i] *= d.scale;
    }
}

static pb_status write_weights(writing *w, const pb_module *m, const char *path) {
    pb_status status = PB_OK;
    pb_safetensors_writer *writer = NULL;
    PB_TRY(pb_safetensors_writer_create(&writer));
    for (uint32_t i = 0; i < m->param_count; i++) {
        const pb_shape shape = m->params[i].file_shape;
        PB_TRY(pb_safetensors_writer_declare(writer, m->params[i].name, w->dtype, shape.rank, shape.dim));
    }
    PB_TRY(pb_safetensors_writer_open(writer, path));
    for (size_t i = 0; i < pb_safetensors_writer_count(writer); i++) {
        const pb_safetensors_entry *entry = pb_safetensors_writer_entry(writer, i);
        const distribution d = distribution_of(m, find_param(m, entry->name));
        for (uint64_t at = 0; at < entry->elements; at += CHUNK_ELEMENTS) {
            const uint64_t left = entry->elements - at, count = left < CHUNK_ELEMENTS ? left : CHUNK_ELEMENTS;
            draw(w, d, count);
            PB_TRY(pb_safetensors_writer_convert(writer, PB_F32, w->chunk, count));
        }
    }
    status = pb_safetensors_writer_finish(writer);
fail:
    pb_safetensors_writer_destroy(writer);
    return status;
}

// The forward graph, for the names and shapes of its parameters; the inputs' sizes do not matter.
static pb_status build_part(const char *part, const pb_json *json, const char *name, pb_module *m) {
    pb_graph *g = m->graph;
    if (!strcmp(part, "unet")) {
        pb_unet_config c;
        PB_RETURN_IF(pb_unet_config_read(json, name, &c));
        const pb_shape sample = PB_SHAPE4(1, 8, 8, c.in_channels), context = PB_SHAPE3(1, 1, c.cross_attention_dim);
        pb_unet_forward(m, &c, pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, sample, false, "sample"),
                        pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(1), false, "timestep"),
                        pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, context, false, "context"), PB_NONE);
    } else if (!strcmp(part, "vae")) {
        pb_vae_config c;
        PB_RETURN_IF(pb_vae_config_read(json, name, &c));
        const pb_shape pixels = PB_SHAPE4(1, 64, 64, c.in_channels), latents = PB_SHAPE4(1, 8, 8, c.latent_channels);
        pb_vae_encode(m, &c, pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, pixels, false, "pixels"));
        pb_vae_decode(m, &c, pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, latents, false, "latents"));
    } else {
        pb_clip_config c;
        PB_RETURN_IF(pb_clip_config_read(json, name, &c));
        pb_clip_forward(m, &c, pb_graph_add_value(g, PB_CLASS_INPUT, PB_I32, PB_SHAPE2(1, 2), false, "ids"));
    }
    return g->status;
}

// --- Files ---

// DIRECTORY/FOLDER/FILE, or DIRECTORY/FILE where folder is NULL; the folder is made.
static pb_status make_path(writing *w, const char *folder, const char *file, const char **path) {
    const char *full = folder ? pb_fs_join(w->arena, w->directory, folder) : w->directory;
    if (full) PB_RETURN_IF(pb_fs_make_directories(full));
    *path = full ? pb_fs_join(w->arena, full, file) : NULL;
    return *path ? PB_OK : pb_error(PB_ERR_MEMORY, "no memory for a path in %s", w->directory);
}

static pb_status write_text(writing *w, const char *folder, const char *file, const char *text) {
    const char *path;
    PB_RETURN_IF(make_path(w, folder, file, &path));
    return pb_fs_write_file(path, text, strlen(text));
}

static pb_status write_part(writing *w, const char *part, const char *weights_file) {
    pb_status status = PB_OK;
    pb_graph *graph = NULL;
    const pb_json *json = NULL;
    const char *text = pb_preset_json(w->preset, part), *path = NULL;
    PB_TRY(write_text(w, part, "config.json", text));
    PB_TRY(pb_json_parse(w->arena, text, strlen(text), part, &json));
    PB_TRY(pb_graph_create(&graph));
    pb_module *m = pb_module_create(graph, PB_F32, false);
    if (!m) PB_FAIL(PB_ERR_MEMORY, "no memory for a model's graph");
    PB_TRY(build_part(part, json, part, m));
    PB_TRY(make_path(w, part, weights_file, &path));
    status = write_weights(w, m, path);
fail:
    pb_graph_destroy(graph);
    return status;
}

// The character that stands for a byte in CLIP's (GPT-2's) byte-level alphabet, as UTF-8: printable Latin-1 stands for
// itself, the rest for 256 and up in order. `rank` counts in the order in which vocabularies list them.
static void byte_character(int rank, char text[3]) {
    enum { PRINTABLE = 94 + 12 + 82 };
    int code = rank < 94 ? '!' + rank : rank < 94 + 12 ? 0xa1 + rank - 94 : 0xae + rank - 94 - 12;
    if (rank >= PRINTABLE) code = 256 + rank - PRINTABLE;
    if (code < 0x80) {
        text[0] = (char)code;
        text[1] = '\0';
        return;
    }
    text[0] = (char)(0xc0 | code >> 6);
    text[1] = (char)(0x80 | (code & 0x3f));
    text[2] = '\0';
}

static void append_token(pb_text *text, const char *token, int id) {
    pb_text_append(text, id ? ", " : "{");
    pb_text_append_json_string(text, token, strlen(token));
    pb_text_append(text, ": %d", id);
}

static pb_status write_vocabulary(writing *w, int size) {
    pb_status status = PB_OK;
    pb_text text = {0};
    char token[48], character[3];
    for (int id = 0; id < size; id++) {
        byte_character(id % 256, character);
        if (id < 512)
            snprintf(token, sizeof token, "%s%s", character, id < 256 ? "" : "</w>");
        else if (id < size - 2)
            snprintf(token, sizeof token, "<|unused %d|>", id);  // no word contains a space
        else
            snprintf(token, sizeof token, "%s", id == size - 2 ? "<|startoftext|>" : "<|endoftext|>");
        append_token(&text, token, id);
    }
    pb_text_append(&text, "}\n");
    if (text.failed) PB_FAIL(PB_ERR_MEMORY, "no memory for a vocabulary of %d tokens", size);
    status = write_text(w, "tokenizer", "vocab.json", text.data);
fail:
    pb_text_deinit(&text);
    return status;
}

static pb_status write_tokenizer(writing *w) {
    const char *text = pb_preset_json(w->preset, "text_encoder");
    const pb_json *json;
    pb_clip_config config;
    PB_RETURN_IF(pb_json_parse(w->arena, text, strlen(text), "text_encoder", &json));
    PB_RETURN_IF(pb_clip_config_read(json, "text_encoder", &config));
    PB_RETURN_IF(write_vocabulary(w, config.vocabulary));
    PB_RETURN_IF(write_text(w, "tokenizer", "merges.txt", "#version: 0.2\n"));
    const char *pad = !strcmp(w->preset, "sd21") ? "!" : "<|endoftext|>";
    const char *special =
        pb_arena_format(w->arena,
                        "\"bos_token\": \"<|startoftext|>\", \"eos_token\": \"<|endoftext|>\", \"pad_token\": \"%s\", "
                        "\"unk_token\": \"<|endoftext|>\"",
                        pad);
    const char *map = pb_arena_format(w->arena, "{%s}\n", special ? special : "");
    const char *tokenizer =
        pb_arena_format(w->arena,
                        "{\"add_prefix_space\": false, %s, \"do_lower_case\": true, \"model_max_length\": %d, "
                        "\"tokenizer_class\": \"CLIPTokenizer\"}\n",
                        special ? special : "", config.positions);
    if (!special || !map || !tokenizer) return pb_error(PB_ERR_MEMORY, "no memory for a tokenizer");
    PB_RETURN_IF(write_text(w, "tokenizer", "special_tokens_map.json", map));
    return write_text(w, "tokenizer", "tokenizer_config.json", tokenizer);
}

static pb_status write_index(writing *w) {
    const bool pndm = strstr(pb_preset_json(w->preset, "scheduler"), "PNDMScheduler");
    const char *text = pb_arena_format(
        w->arena,
        "{\n  \"_class_name\": \"StableDiffusionPipeline\",\n  \"feature_extractor\": [null, null],\n"
        "  \"requires_safety_checker\": false,\n  \"safety_checker\": [null, null],\n"
        "  \"scheduler\": [\"diffusers\", \"%s\"],\n  \"text_encoder\": [\"transformers\", \"CLIPTextModel\"],\n"
        "  \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"],\n  \"unet\": [\"diffusers\", "
        "\"UNet2DConditionModel\"],\n  \"vae\": [\"diffusers\", \"AutoencoderKL\"]\n}\n",
        pndm ? "PNDMScheduler" : "DDIMScheduler");
    if (!text) return pb_error(PB_ERR_MEMORY, "no memory for model_index.json");
    return write_text(w, NULL, "model_index.json", text);
}

static pb_status write_all(writing *w) {
    PB_RETURN_IF(write_part(w, "unet", "diffusion_pytorch_model.safetensors"));
    PB_RETURN_IF(write_part(w, "vae", "diffusion_pytorch_model.safetensors"));
    PB_RETURN_IF(write_part(w, "text_encoder", "model.safetensors"));
    PB_RETURN_IF(write_text(w, "scheduler", "scheduler_config.json", pb_preset_json(w->preset, "scheduler")));
    PB_RETURN_IF(write_tokenizer(w));
    return write_index(w);
}

// Free, or an empty directory (which a rename may replace).
static pb_status check_free(pb_arena *arena, const char *path) {
    const pb_fs_kind kind = pb_fs_kind_of(path);
    const char **names = NULL;
    size_t count = 1;
    if (kind == PB_FS_NONE) return PB_OK;
    if (kind == PB_FS_DIRECTORY) PB_RETURN_IF(pb_fs_list(arena, path, &names, &count));
    return count ? pb_error(PB_ERR_IO, "%s is there already; name a new or empty directory", path) : PB_OK;
}

pb_status pb_random_model_write(const char *preset, uint64_t seed, pb_dtype dtype, const char *path) {
    pb_status status = PB_OK;
    writing w = {.preset = preset, .dtype = dtype, .arena = pb_arena_create()};
    if (!pb_preset_json(preset, "vae"))
        PB_FAIL(PB_ERR_UNSUPPORTED, "there is no pipeline preset `%s`; use tiny, medium, sd14 or sd21", preset);
    w.chunk = malloc(CHUNK_ELEMENTS * sizeof *w.chunk);
    if (!w.arena || !w.chunk) PB_FAIL(PB_ERR_MEMORY, "no memory for random weights");
    PB_TRY(check_free(w.arena, path));
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    const char *final = pb_arena_string_n(w.arena, path, length);
    const char *parent = final ? pb_fs_parent(w.arena, final) : NULL;
    const char *partial = final ? pb_arena_format(w.arena, "%s.partial-%ld", final, (long)getpid()) : NULL;
    if (!parent || !partial) PB_FAIL(PB_ERR_MEMORY, "no memory for the path %s", path);
    PB_TRY(pb_fs_make_directories(parent));
    w.directory = partial;
    pb_rng_seed(&w.rng, seed);
    PB_TRY(write_all(&w));
    PB_TRY(pb_fs_rename(w.directory, final));
fail:
    if (status != PB_OK && w.directory) pb_fs_remove(w.directory);
    free(w.chunk);
    pb_arena_destroy(w.arena);
    return status;
}
