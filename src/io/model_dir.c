#include "io/model_dir.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "io/weights_names.h"

enum { CONFIG_BYTES = 1 << 20, REF_BYTES = 256 };

static pb_status no_memory(void) {
    return pb_error(PB_ERR_MEMORY, "no memory to open a model");
}

static pb_status read_json(pb_arena *arena, const char *path, const pb_json **root) {
    char *text;
    size_t bytes;
    PB_RETURN_IF(pb_fs_read_file(arena, path, CONFIG_BYTES, &text, &bytes));
    PB_RETURN_IF(pb_json_parse(arena, text, bytes, path, root));
    if ((*root)->type != PB_JSON_OBJECT) return pb_error(PB_ERR_FORMAT, "%s is no object", path);
    return PB_OK;
}

// A branch, tag ("v1.0"), commit or pull request ("refs/pr/1"), but no way out of the cache.
static bool revision_is_safe(const char *revision) {
    return revision[0] && revision[0] != '/' && !strstr(revision, "..");
}

// The snapshot of `revision` in a folder of the hub's cache: refs/NAME holds its commit; a commit names itself.
static pb_status find_snapshot(pb_arena *arena, const char *folder, const char *revision, const char **snapshot) {
    if (!revision || !*revision) revision = "main";
    if (!revision_is_safe(revision)) return pb_error(PB_ERR_USAGE, "revision: `%s` is no name of a snapshot", revision);
    const char *reference = pb_arena_format(arena, "%s/refs/%s", folder, revision);
    const char *commit = revision;
    if (!reference) return no_memory();
    if (pb_fs_kind_of(reference) == PB_FS_FILE) {
        char *text;
        size_t bytes;
        PB_RETURN_IF(pb_fs_read_file(arena, reference, REF_BYTES, &text, &bytes));
        text[strcspn(text, " \r\n")] = '\0';
        if (!pb_fs_name_is_plain(text)) return pb_error(PB_ERR_FORMAT, "%s names no snapshot", reference);
        commit = text;
    }
    *snapshot = pb_arena_format(arena, "%s/snapshots/%s", folder, commit);
    if (!*snapshot) return no_memory();
    if (pb_fs_kind_of(*snapshot) != PB_FS_DIRECTORY)
        return pb_error(PB_ERR_IO, "%s has no snapshot of `%s`: download it with huggingface-cli first", folder,
                        revision);
    return PB_OK;
}

// ORG/NAME or NAME: at most one slash, and nothing that leads elsewhere.
static bool is_hub_name(const char *name) {
    const char *slash = strchr(name, '/');
    return name[0] && name[0] != '.' && name[0] != '/' && name[0] != '~' && !strstr(name, "..") &&
           (!slash || (slash[1] && !strchr(slash + 1, '/')));
}

// models--ORG--NAME in the hub's cache of this machine; NULL when there is no memory.
static const char *cache_folder(pb_arena *arena, const char *name) {
    const char *cache = getenv("HF_HUB_CACHE"), *hugging_face = getenv("HF_HOME"), *home = getenv("HOME");
    if (!cache || !*cache)
        cache = hugging_face && *hugging_face ? pb_arena_format(arena, "%s/hub", hugging_face)
                                              : pb_arena_format(arena, "%s/.cache/huggingface/hub", home ? home : "");
    const char *slash = strchr(name, '/');
    if (!cache) return NULL;
    return slash ? pb_arena_format(arena, "%s/models--%.*s--%s", cache, (int)(slash - name), name, slash + 1)
                 : pb_arena_format(arena, "%s/models--%s", cache, name);
}

// A path that leads nowhere: what it was taken for, and what to do.
static pb_status no_model(pb_arena *arena, const char *path, const char *cache) {
    char here[4096];
    if (strstr(path, "://"))
        return pb_error(PB_ERR_IO, "there is no model at %s: nothing is downloaded; name a directory", path);
    if (*path == '/' || !getcwd(here, sizeof here)) return pb_error(PB_ERR_IO, "there is no model at %s", path);
    const char *looked = *cache ? pb_arena_format(arena,
                                                  ", nor in the cache at %s (nothing is downloaded: "
                                                  "`huggingface-cli download %s` does that)",
                                                  cache, path)
                                : "";
    if (!looked) return no_memory();
    return pb_error(PB_ERR_IO, "there is no model at %s in %s%s", path, here, looked);
}

// What people take for a pipeline: a LoRA, one part of a pipeline, a folder around a single-file checkpoint.
static pb_status no_pipeline(pb_model_dir *model) {
    const char **names, *single = NULL;
    size_t count;
    bool lora = false, part = false;
    PB_RETURN_IF(pb_fs_list(model->arena, model->path, &names, &count));
    for (size_t i = 0; i < count; i++) {
        lora = lora || !strcmp(names[i], "adapter_config.json") || strstr(names[i], "lora_weights");
        part = part || !strcmp(names[i], "config.json") || !strcmp(names[i], "scheduler_config.json");
        if (pb_name_is_weights(names[i])) single = names[i];
    }
    if (lora)
        return pb_error(PB_ERR_UNSUPPORTED,
                        "%s is a LoRA, which only adds to a model; merge it into its model once, in Python: "
                        "pipe.load_lora_weights(LORA); pipe.fuse_lora(); pipe.save_pretrained(NEW)",
                        model->path);
    if (part)
        return pb_error(PB_ERR_FORMAT, "%s is one part of a pipeline: name the directory that it lies in", model->path);
    if (single)
        return pb_error(PB_ERR_UNSUPPORTED,
                        "%s is no pipeline directory: it has neither model_index.json nor unet/; is %s a single-file "
                        "checkpoint? " PB_SINGLE_FILE_REMEDY,
                        model->path, single);
    return pb_error(PB_ERR_FORMAT, "%s is no pipeline directory: it has neither model_index.json nor unet/",
                    model->path);
}

static pb_status resolve(pb_arena *arena, const char *path, const char *revision, const char **resolved) {
    const char *folder = path;
    pb_fs_kind kind;
    PB_RETURN_IF(pb_fs_look(path, &kind));
    switch (kind) {
    case PB_FS_DIRECTORY: break;
    case PB_FS_NONE:
        folder = is_hub_name(path) ? cache_folder(arena, path) : "";
        if (!folder) return no_memory();
        if (pb_fs_kind_of(folder) == PB_FS_DIRECTORY) break;
        return no_model(arena, path, folder);
    default:
        if (pb_name_is_weights(path))
            return pb_error(PB_ERR_UNSUPPORTED, "%s is a single file, not a pipeline directory; " PB_SINGLE_FILE_REMEDY,
                            path);
        return pb_error(PB_ERR_FORMAT, "%s is a file, not a pipeline directory", path);
    }
    const char *snapshots = pb_fs_join(arena, folder, "snapshots");
    if (!snapshots) return no_memory();
    if (pb_fs_kind_of(snapshots) == PB_FS_DIRECTORY) return find_snapshot(arena, folder, revision, resolved);
    if (revision && *revision && strcmp(revision, "main") && strcmp(revision, pb_fs_base_name(folder)))
        return pb_error(PB_ERR_USAGE,
                        "revision: `%s` names a snapshot of a cached model, and %s is a plain directory, which has "
                        "none: leave it out",
                        revision, path);
    *resolved = pb_arena_string(arena, folder);
    return *resolved ? PB_OK : no_memory();
}

// The class in an entry [library, class] of model_index.json; NULL where the part is null or absent.
static const char *indexed_class(const pb_json *index, const char *part) {
    const pb_json *entry = pb_json_get(index, part);
    if (!entry || entry->type != PB_JSON_ARRAY || entry->count != 2) return NULL;
    const pb_json *class_name = entry->first->next;
    return class_name->type == PB_JSON_STRING ? class_name->string : NULL;
}

static pb_status read_part(pb_model_dir *model, pb_part part) {
    pb_model_part_dir *p = &model->parts[part];
    p->class_name = indexed_class(model->index, pb_part_name(part));
    p->path = pb_fs_join(model->arena, model->path, pb_part_name(part));
    if (!p->path) return no_memory();
    pb_fs_kind kind;
    PB_RETURN_IF(pb_fs_look(p->path, &kind));
    p->present = kind == PB_FS_DIRECTORY && (!model->index || p->class_name);
    if (!p->present || part == PB_PART_TOKENIZER) return PB_OK;
    const char *config =
        pb_fs_join(model->arena, p->path, part == PB_PART_SCHEDULER ? "scheduler_config.json" : "config.json");
    if (!config) return no_memory();
    PB_RETURN_IF(pb_fs_look(config, &kind));
    if (kind == PB_FS_NONE) return PB_OK;
    PB_RETURN_IF(read_json(model->arena, config, &p->config));
    p->config_path = config;
    return p->class_name ? PB_OK : pb_json_get_string(p->config, "_class_name", NULL, config, &p->class_name);
}

pb_status pb_model_dir_open(const char *path, const char *revision, pb_model_dir **result) {
    pb_status status = PB_OK;
    pb_model_dir *model = calloc(1, sizeof *model);
    if (!model || !(model->arena = pb_arena_create())) PB_TRY(no_memory());
    PB_TRY(resolve(model->arena, path, revision, &model->path));
    const char *index = pb_fs_join(model->arena, model->path, "model_index.json");
    if (!index) PB_TRY(no_memory());
    pb_fs_kind kind;
    PB_TRY(pb_fs_look(index, &kind));
    if (kind != PB_FS_NONE) PB_TRY(read_json(model->arena, index, &model->index));
    bool any = model->index != NULL;
    for (pb_part part = 0; part < PB_PART_COUNT; part++) {
        PB_TRY(read_part(model, part));
        any = any || model->parts[part].present;
    }
    if (!any) PB_TRY(no_pipeline(model));
    *result = model;
    return PB_OK;
fail:
    pb_model_dir_close(model);
    return status;
}

void pb_model_dir_close(pb_model_dir *model) {
    if (!model) return;
    pb_arena_destroy(model->arena);
    free(model);
}

pb_status pb_model_dir_trainable(const pb_model_dir *model) {
    const char *name;
    PB_RETURN_IF(pb_json_get_string(model->index, "_class_name", "StableDiffusionPipeline", model->path, &name));
    if (strncmp(name, "StableDiffusion", 15) == 0 && strncmp(name + 15, "3", 1) != 0 &&
        strncmp(name + 15, "XL", 2) != 0)
        return PB_OK;
    return pb_error(PB_ERR_UNSUPPORTED, "%s is a %s; this program trains StableDiffusionPipeline (1.x and 2.x)",
                    model->path, name);
}

pb_status pb_model_dir_require(const pb_model_dir *model, pb_part part) {
    PB_RETURN_IF(pb_model_dir_trainable(model));
    const pb_model_part_dir *p = &model->parts[part];
    if (!p->present)
        return pb_error(PB_ERR_FORMAT, "%s has no %s: there is no such folder%s", model->path, pb_part_name(part),
                        model->index && !p->class_name ? " in its model_index.json" : "");
    if (part != PB_PART_TOKENIZER && !p->config)
        return pb_error(PB_ERR_FORMAT, "%s has no %s", p->path,
                        part == PB_PART_SCHEDULER ? "scheduler_config.json" : "config.json");
    return PB_OK;
}

pb_status pb_model_dir_require_variant(const pb_model_dir *model, const char *variant) {
    bool has = false, any = false;
    const char *other = NULL;
    if (!variant || !*variant) return PB_OK;
    for (pb_part part = 0; part < PB_PART_COUNT && !has; part++) {
        const char **names, *stem = pb_part_weights_stem(part);
        size_t count;
        if (!stem || !model->parts[part].present) continue;
        PB_RETURN_IF(pb_fs_list(model->arena, model->parts[part].path, &names, &count));
        PB_RETURN_IF(pb_weights_has_variant(model->arena, names, count, stem, variant, &has, &other, &any));
    }
    if (has || !any) return PB_OK;  // without any weights, what is missing is said where they are opened
    return pb_error(PB_ERR_USAGE, "variant: %s has no weights named `%s`, %s%s%s", model->path, variant,
                    other ? "but has `" : "and none of another name: leave it out", other ? other : "",
                    other ? "`" : "");
}

pb_status pb_model_dir_weights(const pb_model_dir *model, pb_part part, const char *variant, pb_weights **weights) {
    PB_RETURN_IF(pb_model_dir_require(model, part));
    return pb_weights_open(model->parts[part].path, part, variant, weights);
}
