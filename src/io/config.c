#include "io/run_config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/byte_size.h"
#include "base/device_name.h"
#include "base/fs.h"
#include "base/nearest.h"
#include "io/config_table.h"
#include "io/yaml.h"

enum { MOST_NOTES = 64, MOST_KEYS = 160, LEAST_BYTES = 4096 };  // LEAST_BYTES: of a size without a unit

// Where a value comes from, for messages.
typedef struct source {
    const char *file;  // NULL: the command line
    const char *key;   // with its group
    int line, column;
} source;

static pb_status fail(const source *from, const char *format, ...) __attribute__((format(printf, 2, 3)));

static pb_status fail(const source *from, const char *format, ...) {
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (from->file) return pb_error(PB_ERR_FORMAT, "%s:%d:%d: %s", from->file, from->line, from->column, message);
    return pb_error(PB_ERR_USAGE, "--set %s: %s", from->key, message);
}

static pb_status no_memory(void) {
    return pb_error(PB_ERR_MEMORY, "no memory for the configuration");
}

static pb_status add_note(pb_config *config, const char *format, ...) __attribute__((format(printf, 2, 3)));

static pb_status add_note(pb_config *config, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (size_t i = 0; i < config->note_count; i++)
        if (strcmp(config->notes[i], text) == 0) return PB_OK;
    if (config->note_count == MOST_NOTES) return PB_OK;
    const char *note = pb_arena_string(config->arena, text);
    if (!note) return no_memory();
    config->notes[config->note_count++] = note;
    return PB_OK;
}

static const pb_config_key *find_key(const char *name) {
    for (int i = 0; i < pb_config_key_count; i++)
        if (pb_config_keys[i].kind != PB_CONFIG_SECTION && strcmp(pb_config_keys[i].key, name) == 0)
            return &pb_config_keys[i];
    return NULL;
}

static bool is_group(const char *name) {
    const size_t bytes = strlen(name);
    for (int i = 0; i < pb_config_key_count; i++) {
        const pb_config_key *k = &pb_config_keys[i];
        if (k->kind != PB_CONFIG_SECTION && strncmp(k->key, name, bytes) == 0 && k->key[bytes] == '.') return true;
    }
    return false;
}

// Keys that people bring along from other scripts, by a part of their name, and what there is instead.
static const char *elsewhere(const char *name) {
    static const struct {
        const char *part, *instead;
    } strangers[] = {
        {"lora", "there is no LoRA here: the whole model is trained"},
        {"ema", "there is no EMA here"},
        {"dataset", "pictures come from instance_data_dir, with one prompt, instance_prompt"},
        {"train_data_dir", "pictures come from instance_data_dir, with one prompt, instance_prompt"},
        {"caption", "one prompt, instance_prompt, is for all pictures"},
        {"validation_epochs", "validation_steps counts optimizer steps"},
        {"text_encoder_lr", "the text encoder has the UNet's learning_rate"},
        {"prodigy", "the optimizer is AdamW"},
        {"attention", "attention never holds its matrix of weights, and needs no other kind"},
        {"flip", "pictures are never mirrored: a text or a parting would be"},
        {"cache_dir", "HF_HUB_CACHE or HF_HOME say where the cache is"},
    };
    if (!strcmp(name, "rank")) return strangers[0].instead;
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
        if (strstr(name, strangers[i].part)) return strangers[i].instead;
    return NULL;
}

static pb_status unknown_key(const source *from, const char *name) {
    const char *names[MOST_KEYS], *in_group = NULL;
    int count = 0;
    for (int i = 0; i < pb_config_key_count && count < MOST_KEYS; i++) {
        const pb_config_key *k = &pb_config_keys[i];
        if (k->kind == PB_CONFIG_SECTION) continue;
        names[count++] = k->key;
        const char *dot = strchr(k->key, '.');
        if (dot && strcmp(dot + 1, name) == 0) in_group = k->key;
    }
    const char *nearest = in_group ? in_group : pb_nearest_name(name, names, count);
    const char *instead = pb_name_distance(name, nearest ? nearest : "") > 1 ? elsewhere(name) : NULL;
    if (instead) return fail(from, "unknown key `%.100s`: %s", name, instead);
    if (nearest) return fail(from, "unknown key `%.100s`: did you mean `%s`?", name, nearest);
    return fail(from, "unknown key `%.100s`; docs/configuration.md lists them all", name);
}

// The choice of that name, or an error that lists them all.
static pb_status find_choice(const source *from, const pb_config_key *key, const char *text,
                             const pb_config_choice **choice) {
    const char *names[PB_CONFIG_CHOICES];
    int count = 0;
    char list[256] = "";
    for (const pb_config_choice *c = key->choices; c->name; c++) {
        if (strcmp(c->name, text) == 0) {
            *choice = c;
            return PB_OK;
        }
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", count ? ", " : "", c->name);
        names[count++] = c->name;
    }
    const char *nearest = pb_nearest_name(text, names, count);
    return fail(from, "`%s` cannot be `%.100s`: it is one of %s%s%s%s", key->key, text, list,
                nearest ? "; did you mean `" : "", nearest ? nearest : "", nearest ? "`?" : "");
}

// Behind what a value must be: a number or a truth in quotes is a text.
static const char *quotes(const pb_yaml *node) {
    return node->plain ? "" : " in quotes";
}

static pb_status set_int(const source *from, const pb_config_key *key, const pb_yaml *node, int64_t *value) {
    if (!pb_yaml_int(node, value) || (double)*value < key->low || (double)*value > key->high)
        return fail(from, "`%s` must be a whole number from %.0f to %.0f%s, not `%.60s`%s", key->key, key->low,
                    key->high,
                    key->kind == PB_CONFIG_COUNT       ? ", or `auto`"
                    : key->kind == PB_CONFIG_MAYBE_INT ? ", or null"
                                                       : "",
                    node->text, quotes(node));
    return PB_OK;
}

static pb_status set_real(const source *from, const pb_config_key *key, const pb_yaml *node, double *value) {
    if (!pb_yaml_double(node, value) || *value < key->low || *value > key->high)
        return fail(from, "`%s` must be a number from %.10g to %.10g, not `%.60s`%s", key->key, key->low, key->high,
                    node->text, quotes(node));
    return PB_OK;
}

static pb_status set_size(const source *from, const pb_config_key *key, const char *text, int64_t *bytes) {
    *bytes = strcmp(text, "auto") == 0 ? PB_SIZE_AUTO : 0;
    if (*bytes == PB_SIZE_AUTO || strcmp(text, "none") == 0) return PB_OK;
    if (!pb_byte_size_parse(text, bytes) || *bytes < 1)
        return fail(from, "`%s` must be a size (8GiB, 500MB), `auto` or `none`, not `%.60s`", key->key, text);
    const bool has_unit = text[strspn(text, "0123456789.")];
    if (*bytes >= LEAST_BYTES || has_unit) return PB_OK;
    return fail(from, "`%s: %.60s` is in bytes: give it a unit, as in %.60sGiB", key->key, text, text);
}

// A shell makes a directory of ~ and $NAME before a program sees them; nobody does that to a configuration, and a
// folder called "~" is never what was meant.
static pb_status set_path(pb_config *config, const source *from, const pb_config_key *key, const char *text) {
    const char **field = (const char **)((char *)config + key->offset), *home = getenv("HOME");
    *field = text;
    if (text[0] == '$')
        return fail(from,
                    "`%s` cannot be `%.200s`: a configuration knows no variables; write what it stands for, or "
                    "./%.200s if that is the name",
                    key->key, text, text);
    if (text[0] != '~') return PB_OK;
    if (!home || !*home || (text[1] && text[1] != '/'))
        return fail(from, "`%s` cannot be `%.200s`: only ~/ is known, where HOME is set; write the whole path",
                    key->key, text);
    *field = pb_arena_format(config->arena, "%s%s", home, text + 1);
    return *field ? PB_OK : no_memory();
}

static pb_status set_scalar(pb_config *config, const source *from, const pb_config_key *key, const pb_yaml *node) {
    void *field = (char *)config + key->offset;
    const pb_config_choice *choice = NULL;
    switch (key->kind) {
    case PB_CONFIG_STRING: *(const char **)field = node->text; return PB_OK;
    case PB_CONFIG_PATH: return set_path(config, from, key, node->text);
    case PB_CONFIG_BOOL:
        return pb_yaml_bool(node, field)
                   ? PB_OK
                   : fail(from, "`%s` must be true or false, not `%.60s`%s", key->key, node->text, quotes(node));
    case PB_CONFIG_INT: return set_int(from, key, node, field);
    case PB_CONFIG_MAYBE_INT:
        ((pb_maybe_int *)field)->set = true;
        return set_int(from, key, node, &((pb_maybe_int *)field)->value);
    case PB_CONFIG_REAL: return set_real(from, key, node, field);
    case PB_CONFIG_MAYBE_REAL:
        ((pb_maybe_real *)field)->set = true;
        return set_real(from, key, node, &((pb_maybe_real *)field)->value);
    case PB_CONFIG_COUNT:
        *(int64_t *)field = 0;
        return strcmp(node->text, "auto") == 0 ? PB_OK : set_int(from, key, node, field);
    case PB_CONFIG_SIZE: return set_size(from, key, node->text, field);
    case PB_CONFIG_ENUM:
        PB_RETURN_IF(find_choice(from, key, node->text, &choice));
        *(int *)field = choice->value;
        return PB_OK;
    case PB_CONFIG_NAME:
        PB_RETURN_IF(find_choice(from, key, node->text, &choice));
        *(const char **)field = choice->name;
        return PB_OK;
    default: return PB_OK;  // headings have no value; the other two are told apart before
    }
}

// Back to the default.
static pb_status reset(pb_config *config, const pb_config_key *key) {
    void *field = (char *)config + key->offset;
    if (strcmp(key->initial, "null") == 0) {
        if (key->kind == PB_CONFIG_STRING || key->kind == PB_CONFIG_PATH) *(const char **)field = NULL;
        if (key->kind == PB_CONFIG_MAYBE_INT) *(pb_maybe_int *)field = (pb_maybe_int){0};
        if (key->kind == PB_CONFIG_MAYBE_REAL) *(pb_maybe_real *)field = (pb_maybe_real){0};
        return PB_OK;
    }
    const source nowhere = {.key = key->key};
    return set_scalar(config, &nowhere, key, &(pb_yaml){.type = PB_YAML_SCALAR, .plain = true, .text = key->initial});
}

static pb_status set_value(pb_config *config, const source *from, const pb_config_key *key, const pb_yaml *node) {
    bool yes = false;
    const bool off = pb_yaml_is_null(node) || (pb_yaml_bool(node, &yes) && !yes);
    if (key->kind == PB_CONFIG_INERT)
        return off ? PB_OK : add_note(config, "`%s` changes nothing here: %s", key->key, key->doc);
    if (key->kind == PB_CONFIG_REFUSED) return off ? PB_OK : fail(from, "`%s` cannot be set: %s", key->key, key->doc);
    if (node->type != PB_YAML_SCALAR) return fail(from, "`%s` takes a single value", key->key);
    return pb_yaml_is_null(node) ? reset(config, key) : set_scalar(config, from, key, node);
}

pb_status pb_config_init(pb_arena *arena, pb_config *config) {
    *config = (pb_config){.arena = arena, .notes = pb_arena_array(arena, MOST_NOTES, sizeof *config->notes)};
    if (!config->notes) return no_memory();
    for (int i = 0; i < pb_config_key_count; i++)
        if (pb_config_keys[i].kind != PB_CONFIG_SECTION) PB_RETURN_IF(reset(config, &pb_config_keys[i]));
    return PB_OK;
}

static pb_status read_members(pb_config *config, const pb_yaml *mapping, const char *group, const char *file) {
    for (const pb_yaml *m = mapping->first; m; m = m->next) {
        const char *name = group ? pb_arena_format(config->arena, "%s.%s", group, m->key) : m->key;
        if (!name) return no_memory();
        const source from = {.file = file, .key = name, .line = m->line, .column = m->column};
        if (!group && is_group(name)) {
            if (m->type == PB_YAML_MAPPING)
                PB_RETURN_IF(read_members(config, m, name, file));
            else if (!pb_yaml_is_null(m))
                return fail(&from, "`%s` is a group of keys, as in `%s: {...}`", name, name);
            continue;
        }
        const pb_config_key *key = find_key(name);
        if (key && strchr(m->key, '.'))
            return fail(&from, "`%s` is written in its group in a file, as in `%.*s: {%s: ...}`", name,
                        (int)strcspn(name, "."), name, strchr(name, '.') + 1);
        if (!key) return unknown_key(&from, name);
        PB_RETURN_IF(set_value(config, &from, key, m));
    }
    return PB_OK;
}

pb_status pb_config_read(pb_config *config, const char *text, size_t bytes, const char *name) {
    const pb_yaml *root;
    PB_RETURN_IF(pb_yaml_parse(config->arena, text, bytes, name, &root));
    if (root->type != PB_YAML_MAPPING)
        return pb_error(PB_ERR_FORMAT, "%s: a configuration is a list of `key: value` lines", name);
    return read_members(config, root, NULL, name);
}

pb_status pb_config_set(pb_config *config, const char *assignment) {
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment)
        return pb_error(PB_ERR_USAGE, "--set %.100s: expected KEY=VALUE, as in --set learning_rate=1e-4", assignment);
    const char *name = pb_arena_string_n(config->arena, assignment, (size_t)(equals - assignment));
    const char *text = pb_arena_string(config->arena, equals + 1);
    if (!name || !text) return no_memory();
    const source from = {.key = name};
    const pb_config_key *key = find_key(name);
    if (!key) return unknown_key(&from, name);
    pb_yaml plain = {.type = PB_YAML_SCALAR, .plain = true, .text = text};
    const pb_yaml *node = &plain;
    if (*text == '"' || *text == '\'') {
        const pb_status status = pb_yaml_parse(config->arena, text, strlen(text), "the value", &node);
        if (status != PB_OK) return pb_error_context(status == PB_ERR_FORMAT ? PB_ERR_USAGE : status, "--set %s", name);
    }
    return set_value(config, &from, key, node);
}

static pb_status require(const char *key, const char *value, const char *why) {
    if (value && *value) return PB_OK;
    return pb_error(PB_ERR_USAGE, "`%s` is missing%s: set it in the configuration or with --set %s=...", key, why, key);
}

// Not in check alone: `plan` asks without the keys for data.
pb_status pb_config_check_optimizer(pb_config *config) {
    if (config->use_8bit_adam && config->optimizer.states == PB_STATES_16BIT)
        return pb_error(PB_ERR_USAGE, "use_8bit_adam stands for optimizer.states: 8bit, which is set to 16bit");
    if (config->use_8bit_adam) config->optimizer.states = PB_STATES_8BIT;
    const pb_optimizer_master master = config->optimizer.master;
    if (master == PB_MASTER_NONE && config->mixed_precision != PB_BF16)
        return pb_error(PB_ERR_USAGE, "optimizer.master: none rounds stochastically to bf16 and needs "
                                      "mixed_precision: bf16");
    if (master != PB_MASTER_FP32 && config->mixed_precision == PB_F32)
        return pb_error(PB_ERR_USAGE, "optimizer.master: split16 and split8 split a weight into a 16-bit working copy "
                                      "and the rest; they need mixed_precision: fp16 or bf16");
    return PB_OK;
}

pb_status pb_config_check(pb_config *config) {
    PB_RETURN_IF(require("pretrained_model_name_or_path", config->pretrained_model_name_or_path, ""));
    PB_RETURN_IF(require("instance_data_dir", config->instance_data_dir, ""));
    PB_RETURN_IF(require("instance_prompt", config->instance_prompt, ""));
    PB_RETURN_IF(require("output_dir", config->output_dir, ""));
    if (config->with_prior_preservation) {
        PB_RETURN_IF(require("class_data_dir", config->class_data_dir, ", and with_prior_preservation needs it"));
        PB_RETURN_IF(require("class_prompt", config->class_prompt, ", and with_prior_preservation needs it"));
    } else {
        if (config->class_data_dir)
            PB_RETURN_IF(add_note(config, "`class_data_dir` is not used without with_prior_preservation"));
        if (config->class_prompt)
            PB_RETURN_IF(add_note(config, "`class_prompt` is not used without with_prior_preservation"));
    }
    PB_RETURN_IF(pb_config_check_optimizer(config));
    pb_device_kind kind;
    int ordinal;
    PB_RETURN_IF(pb_device_name_parse("`device`", config->device, &kind, &ordinal));
    if (config->memory.placement == PB_PLACEMENT_NVME)
        PB_RETURN_IF(require("memory.nvme", config->memory.nvme, ", and memory.placement: nvme needs it"));
    if (config->memory.nvme_size > 0)
        PB_RETURN_IF(require("memory.nvme", config->memory.nvme, ", and memory.nvme_size needs it"));
    return PB_OK;
}

pb_status pb_config_gather(pb_arena *arena, const char *path, const char *const *sets, size_t set_count,
                           pb_config *config) {
    PB_RETURN_IF(pb_config_init(arena, config));
    if (path) {
        char *text;
        size_t bytes;
        PB_RETURN_IF(pb_fs_read_file(arena, path, PB_YAML_BYTES, &text, &bytes));
        PB_RETURN_IF(pb_config_read(config, text, bytes, path));
    }
    for (size_t i = 0; i < set_count; i++) PB_RETURN_IF(pb_config_set(config, sets[i]));
    return PB_OK;
}

pb_status pb_config_load(pb_arena *arena, const char *path, const char *const *sets, size_t set_count,
                         pb_config *config) {
    PB_RETURN_IF(pb_config_gather(arena, path, sets, set_count, config));
    return pb_config_check(config);
}
