// pagebooth inspect: what is in a model or a checkpoint, for people and as JSON.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/inspect_checkpoint.h"
#include "cli/options.h"
#include "io/model_dir.h"
#include "io/safetensors.h"
#include "train/checkpoint.h"
#include "train/saved_state.h"

static void append_string(pb_text *text, const char *string) {
    if (string)
        pb_text_append_json_string(text, string, strlen(string));
    else
        pb_text_append(text, "null");
}

// Names come out of files: as JSON strings they cannot move a terminal's cursor.
static void append_name(pb_text *text, const char *name) {
    pb_text quoted = {0};
    pb_text_append_json_string(&quoted, name, strlen(name));
    if (quoted.failed)
        text->failed = true;
    else
        pb_text_append(text, "%.*s", (int)quoted.bytes - 2, quoted.data + 1);
    pb_text_deinit(&quoted);
}

static void tensor_as_json(pb_text *text, const pb_safetensors_entry *entry) {
    pb_text_append(text, "{\"name\":");
    append_string(text, entry->name);
    pb_text_append(text, ",\"dtype\":\"%s\",\"shape\":", entry->dtype_name);
    pb_inspect_shape(text, entry->rank, entry->shape);
    pb_text_append(text, ",\"bytes\":%" PRIu64 "}", entry->bytes);
}

static void tensor_as_line(pb_text *text, const pb_safetensors_entry *entry) {
    pb_text_append(text, "    %-5s %12" PRIu64 " B  ", entry->dtype_name, entry->bytes);
    append_name(text, entry->name);
    pb_text_append(text, " ");
    pb_inspect_shape(text, entry->rank, entry->shape);
    pb_text_append(text, "\n");
}

static void append_size(pb_text *text, uint64_t bytes) {
    if (bytes >= 1000000000)
        pb_text_append(text, "%.2f GB", (double)bytes / 1e9);
    else
        pb_text_append(text, "%.2f MB", (double)bytes / 1e6);
}

// --- One file ---

static void metadata_as_json(pb_text *text, const pb_safetensors *file) {
    pb_text_append(text, "{");
    for (size_t i = 0; i < file->metadata_count; i++) {
        if (i) pb_text_append(text, ",");
        append_string(text, file->metadata[i].key);
        pb_text_append(text, ":");
        append_string(text, file->metadata[i].value);
    }
    pb_text_append(text, "}");
}

static void describe_file(pb_text *text, const pb_safetensors *file, bool json) {
    uint64_t elements = 0, bytes = 0;
    for (size_t i = 0; i < file->count; i++) {
        elements += file->tensors[i].elements;
        bytes += file->tensors[i].bytes;
    }
    if (json) {
        pb_text_append(text, "{\"path\":");
        append_string(text, file->path);
        pb_text_append(text,
                       ",\"file_bytes\":%" PRIu64 ",\"parameters\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"metadata\":",
                       file->file_bytes, elements, bytes);
        metadata_as_json(text, file);
        pb_text_append(text, ",\"tensors\":[");
        for (size_t i = 0; i < file->count; i++) {
            if (i) pb_text_append(text, ",");
            tensor_as_json(text, &file->tensors[i]);
        }
        pb_text_append(text, "]}\n");
        return;
    }
    append_name(text, file->path);
    pb_text_append(text, ": %zu tensors, %" PRIu64 " elements, ", file->count, elements);
    append_size(text, bytes);
    pb_text_append(text, "\n");
    for (size_t i = 0; i < file->metadata_count; i++) {
        pb_text_append(text, "  ");
        append_name(text, file->metadata[i].key);
        pb_text_append(text, ": ");
        append_name(text, file->metadata[i].value);
        pb_text_append(text, "\n");
    }
    for (size_t i = 0; i < file->count; i++) tensor_as_line(text, &file->tensors[i]);
}

// --- A pipeline, or one part of it ---

// What people want to know of a config; the whole of it is in the JSON.
static const char *const facts[PB_PART_COUNT][10] = {
    [PB_PART_UNET] = {"sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block",
                      "cross_attention_dim", "attention_head_dim", "use_linear_projection"},
    [PB_PART_TEXT_ENCODER] = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                              "hidden_act", "max_position_embeddings", "vocab_size"},
    [PB_PART_VAE] = {"sample_size", "latent_channels", "block_out_channels", "layers_per_block", "scaling_factor"},
    [PB_PART_SCHEDULER] = {"num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type"},
};

static void part_as_json(pb_text *text, const pb_model_part_dir *part, const pb_weights *weights, const char *fault) {
    pb_text_append(text, "\"class\":");
    append_string(text, part->class_name);
    pb_text_append(text, ",\"path\":");
    append_string(text, part->path);
    pb_text_append(text, ",\"config\":");
    if (part->config)
        pb_text_append_json(text, part->config);
    else
        pb_text_append(text, "null");
    if (fault) {
        pb_text_append(text, ",\"error\":");
        append_string(text, fault);
    }
    if (!weights) return;
    pb_text_append(text, ",\"weights\":");
    append_string(text, weights->path);
    pb_text_append(text, ",\"parameters\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"dtype\":\"%s\",\"tensors\":[",
                   weights->elements, weights->bytes, pb_dtype_name(weights->dtype));
    for (size_t i = 0; i < weights->count; i++) {
        if (i) pb_text_append(text, ",");
        tensor_as_json(text, weights->items[i].entry);
    }
    pb_text_append(text, "]");
}

static void part_as_lines(pb_text *text, pb_part which, const pb_model_part_dir *part, const pb_weights *weights,
                          const char *fault, bool tensors) {
    pb_text_append(text, "  %-13s ", pb_part_name(which));
    append_name(text, part->class_name ? part->class_name : "");
    if (weights) {
        pb_text_append(text, ", %" PRIu64 " parameters in %zu tensors, mostly %s, ", weights->elements, weights->count,
                       pb_dtype_name(weights->dtype));
        append_size(text, weights->bytes);
        pb_text_append(text, ", %s", pb_fs_base_name(weights->path));
    }
    pb_text_append(text, "\n");
    for (const char *const *fact = facts[which]; *fact; fact++) {
        const pb_json *value = pb_json_get(part->config, *fact);
        if (!value) continue;
        pb_text_append(text, "    %s: ", *fact);
        pb_text_append_json(text, value);
        pb_text_append(text, "\n");
    }
    if (fault) pb_text_append(text, "    (%s)\n", fault);
    for (size_t i = 0; tensors && weights && i < weights->count; i++) tensor_as_line(text, weights->items[i].entry);
}

// A part whose weights cannot be read is described all the same, with what is wrong.
static pb_status describe_part(pb_text *text, const pb_model_dir *model, pb_part which, const char *variant, bool json,
                               bool tensors) {
    const pb_model_part_dir *part = &model->parts[which];
    pb_weights *weights = NULL;
    char fault[512] = "";
    if (pb_part_weights_stem(which)) {
        const pb_status status = pb_weights_open(part->path, which, variant, &weights);
        if (status == PB_ERR_MEMORY) return status;
        if (status != PB_OK) snprintf(fault, sizeof fault, "%s", pb_error_message());
    }
    if (json)
        part_as_json(text, part, weights, fault[0] ? fault : NULL);
    else
        part_as_lines(text, which, part, weights, fault[0] ? fault : NULL, tensors);
    pb_weights_close(weights);
    return PB_OK;
}

// What model_index.json names besides: of another kind of pipeline the part that matters may be there.
static void other_parts(pb_text *text, const pb_model_dir *model) {
    for (const pb_json *m = model->index ? model->index->first : NULL; m; m = m->next) {
        const pb_json *class_name = m->type == PB_JSON_ARRAY && m->count == 2 ? m->first->next : NULL;
        bool known = !class_name || class_name->type != PB_JSON_STRING;
        for (pb_part part = 0; part < PB_PART_COUNT && !known; part++)
            known = !strcmp(m->key, pb_part_name(part)) && model->parts[part].present;
        if (known) continue;
        pb_text_append(text, "  ");
        append_name(text, m->key);
        pb_text_append(text, ": ");
        append_name(text, class_name->string);
        pb_text_append(text, ", not looked into\n");
    }
    if (pb_model_dir_trainable(model) != PB_OK) pb_text_append(text, "  (%s)\n", pb_error_message());
    pb_error_clear();
}

static pb_status describe_model(pb_text *text, const pb_model_dir *model, const char *variant, bool json,
                                bool tensors) {
    const pb_json *class_name = pb_json_get(model->index, "_class_name");
    const char *name = class_name && class_name->type == PB_JSON_STRING ? class_name->string : NULL;
    if (json) {
        pb_text_append(text, "{\"path\":");
        append_string(text, model->path);
        pb_text_append(text, ",\"class\":");
        append_string(text, name);
        pb_text_append(text, ",\"parts\":{");
    } else {
        append_name(text, model->path);
        pb_text_append(text, ": ");
        append_name(text, name ? name : "a pipeline without model_index.json");
        pb_text_append(text, "\n");
    }
    bool first = true;
    for (pb_part part = 0; part < PB_PART_COUNT; part++) {
        if (!model->parts[part].present) continue;
        if (json) pb_text_append(text, "%s\"%s\":{", first ? "" : ",", pb_part_name(part));
        PB_RETURN_IF(describe_part(text, model, part, variant, json, tensors));
        if (json) pb_text_append(text, "}");
        first = false;
    }
    if (json)
        pb_text_append(text, "}}\n");
    else
        other_parts(text, model);
    return PB_OK;
}

pb_status pb_command_inspect(int argc, char **argv) {
    const char *path = NULL, *variant = NULL, *revision = NULL;
    bool json = false, tensors = false, verify = false, done;
    const pb_positional positionals[] = {
        {.name = "MODEL",
         .help = "A pipeline directory, a folder of the Hugging Face cache, a .safetensors file, or a checkpoint.",
         .text = &path}};
    const pb_option options[] = {
        PB_OPTION_FLAG("--json", NULL, &json, "Print everything as one JSON object."),
        PB_OPTION_FLAG("--tensors", "-t", &tensors, "List the tensors of every part (those of a file always are)."),
        PB_OPTION_FLAG("--verify", NULL, &verify, "Read all of a checkpoint and compare it with its hashes first."),
        PB_OPTION_TEXT("--variant", NULL, "NAME", &variant,
                       "Which weights: fp16 for *.fp16.safetensors (the plain ones)."),
        PB_OPTION_TEXT("--revision", NULL, "NAME", &revision, "Which snapshot of a cached model (main)."),
    };
    const pb_command_line line = {.summary =
                                      "Lists what is in a model or a checkpoint: parts, configurations, tensors.",
                                  .positionals = positionals,
                                  .positional_count = PB_COUNT_OF(positionals),
                                  .options = options,
                                  .option_count = PB_COUNT_OF(options)};
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;
    pb_status status = PB_OK;
    pb_text text = {0};
    pb_safetensors *file = NULL;
    pb_model_dir *model = NULL;
    const size_t bytes = strlen(path);
    if (verify) PB_TRY(pb_checkpoint_verify(path));
    if (bytes > 12 && strcmp(path + bytes - 12, ".safetensors") == 0) {
        PB_TRY(pb_safetensors_open(path, &file));
        describe_file(&text, file, json);
    } else if (pb_saved_state_is_there(path)) {
        PB_TRY(pb_inspect_checkpoint(&text, path, json, tensors));
    } else {
        PB_TRY(pb_model_dir_open(path, revision, &model));
        PB_TRY(pb_model_dir_require_variant(model, variant));
        PB_TRY(describe_model(&text, model, variant, json, tensors));
    }
    if (text.failed) PB_FAIL(PB_ERR_MEMORY, "no memory for the list");
    if (fwrite(text.data, 1, text.bytes, stdout) != text.bytes || fflush(stdout))
        PB_FAIL(PB_ERR_IO, "cannot write the list");
fail:
    pb_safetensors_close(file);
    pb_model_dir_close(model);
    pb_text_deinit(&text);
    return status;
}
