#include "io/weights_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/fs.h"
#include "base/json.h"
#include "io/weights_names.h"

enum { INDEX_BYTES = 8 << 20, MOST_SHARDS = 256 };

struct pb_weights_private {
    pb_arena *arena;
    pb_weight *items;
    size_t capacity;
    pb_safetensors *files[MOST_SHARDS];
    const char *names[MOST_SHARDS];  // of the files, within the folder
    int file_count;
};

static pb_status no_memory(const char *path) {
    return pb_error(PB_ERR_MEMORY, "%s: no memory for the list of tensors", path);
}

// Opens `name` in `folder`, unless it is open, and appends its tensors.
static pb_status add_file(pb_weights *weights, pb_part part, const char *folder, const char *name) {
    struct pb_weights_private *p = weights->private_;
    for (int i = 0; i < p->file_count; i++)
        if (strcmp(p->names[i], name) == 0) return PB_OK;
    if (p->file_count == MOST_SHARDS)
        return pb_error(PB_ERR_FORMAT, "%s: more than %d files", weights->path, MOST_SHARDS);
    const char *path = pb_fs_join(p->arena, folder, name);
    if (!path) return no_memory(folder);
    pb_safetensors *file;
    PB_RETURN_IF(pb_safetensors_open(path, &file));
    p->names[p->file_count] = name;
    p->files[p->file_count++] = file;
    if (p->capacity - weights->count < file->count) {
        const size_t capacity = weights->count + file->count + p->capacity;
        pb_weight *larger = realloc(p->items, capacity * sizeof *larger);
        if (!larger) return no_memory(path);
        p->items = larger;
        p->capacity = capacity;
    }
    for (size_t i = 0; i < file->count; i++) {
        const pb_safetensors_entry *entry = &file->tensors[i];
        pb_weight *w = &p->items[weights->count++];
        *w = (pb_weight){.entry = entry, .file = file, .ignored = pb_weight_is_ignored(part, entry->name)};
        w->canonical = pb_weight_canonical(p->arena, part, entry->name);
        if (!w->canonical) return no_memory(path);
    }
    return PB_OK;
}

// Every file that the index names, and every tensor where the index says that it is.
static pb_status add_shards(pb_weights *weights, pb_part part, const char *folder, const char *index_path) {
    struct pb_weights_private *p = weights->private_;
    char *text;
    size_t bytes;
    const pb_json *root;
    PB_RETURN_IF(pb_fs_read_file(p->arena, index_path, INDEX_BYTES, &text, &bytes));
    PB_RETURN_IF(pb_json_parse(p->arena, text, bytes, index_path, &root));
    const pb_json *map = pb_json_get(root, "weight_map");
    if (!map || map->type != PB_JSON_OBJECT || !map->count)
        return pb_error(PB_ERR_FORMAT, "%s has no \"weight_map\" of tensors to files", index_path);
    for (const pb_json *m = map->first; m; m = m->next) {
        if (m->type != PB_JSON_STRING || strlen(m->string) != m->string_bytes || !pb_fs_name_is_plain(m->string) ||
            !pb_name_ends_with(m->string, ".safetensors"))
            return pb_error(PB_ERR_FORMAT, "%s: \"%.200s\" must be in a .safetensors file beside the index", index_path,
                            m->key);
        PB_RETURN_IF(add_file(weights, part, folder, m->string));
    }
    for (const pb_json *m = map->first; m; m = m->next) {
        int i = 0;
        while (strcmp(p->names[i], m->string) != 0) i++;
        if (!pb_safetensors_find(p->files[i], m->key))
            return pb_error(PB_ERR_FORMAT, "%s: tensor \"%.200s\" is not in %s", index_path, m->key, m->string);
    }
    return PB_OK;
}

static int by_canonical(const void *a, const void *b) {
    return strcmp(((const pb_weight *)a)->canonical, ((const pb_weight *)b)->canonical);
}

// Sorts, refuses two tensors of one meaning, adds up.
static pb_status finish_table(pb_weights *weights) {
    struct pb_weights_private *p = weights->private_;
    if (!weights->count) return pb_error(PB_ERR_FORMAT, "%s holds no tensors", weights->path);
    qsort(p->items, weights->count, sizeof *p->items, by_canonical);
    uint64_t by_dtype[PB_DTYPE_COUNT + 1] = {0};
    for (size_t i = 0; i < weights->count; i++) {
        const pb_weight *w = &p->items[i];
        if (i && by_canonical(w - 1, w) == 0)
            return pb_error(PB_ERR_FORMAT, "%s: the tensors \"%.200s\" and \"%.200s\" mean the same", weights->path,
                            w[-1].entry->name, w->entry->name);
        weights->elements += w->entry->elements;
        weights->bytes += w->entry->bytes;
        by_dtype[w->entry->dtype] += w->entry->elements;
    }
    weights->dtype = PB_F32;
    for (int d = 0; d < PB_DTYPE_COUNT; d++)
        if (by_dtype[d] > by_dtype[weights->dtype]) weights->dtype = (pb_dtype)d;
    weights->items = p->items;
    return PB_OK;
}

static pb_status open_file(pb_weights *weights, pb_part part, const char *path) {
    pb_arena *arena = weights->private_->arena;
    if (!pb_name_ends_with(path, ".safetensors"))
        return pb_error(PB_ERR_UNSUPPORTED, "%s is no .safetensors file: %s", path, PB_WEIGHTS_REMEDY);
    const char *folder = pb_fs_parent(arena, path);
    weights->path = pb_arena_string(arena, path);
    if (!folder || !weights->path) return no_memory(path);
    return add_file(weights, part, folder, pb_fs_base_name(weights->path));
}

static pb_status open_folder(pb_weights *weights, pb_part part, const char *folder, const char *variant) {
    pb_arena *arena = weights->private_->arena;
    const char **names, *chosen;
    size_t count;
    PB_RETURN_IF(pb_fs_list(arena, folder, &names, &count));
    PB_RETURN_IF(pb_weights_choose(arena, folder, names, count, pb_part_weights_stem(part), variant, &chosen));
    weights->path = pb_fs_join(arena, folder, chosen);
    if (!weights->path) return no_memory(folder);
    return pb_name_ends_with(chosen, ".json") ? add_shards(weights, part, folder, weights->path)
                                              : add_file(weights, part, folder, chosen);
}

pb_status pb_weights_open(const char *path, pb_part part, const char *variant, pb_weights **result) {
    pb_status status = PB_OK;
    pb_weights *weights = calloc(1, sizeof *weights);
    struct pb_weights_private *p = calloc(1, sizeof *p);
    if (weights) weights->private_ = p;
    if (!weights || !p || !(p->arena = pb_arena_create())) {
        if (!weights) free(p);
        PB_TRY(no_memory(path));
    }
    if (pb_fs_kind_of(path) == PB_FS_DIRECTORY)
        PB_TRY(open_folder(weights, part, path, variant));
    else
        PB_TRY(open_file(weights, part, path));
    PB_TRY(finish_table(weights));
    *result = weights;
    return PB_OK;
fail:
    pb_weights_close(weights);
    return status;
}

void pb_weights_close(pb_weights *weights) {
    if (!weights) return;
    struct pb_weights_private *p = weights->private_;
    if (p) {
        for (int i = 0; i < p->file_count; i++) pb_safetensors_close(p->files[i]);
        free(p->items);
        pb_arena_destroy(p->arena);
        free(p);
    }
    free(weights);
}

const pb_weight *pb_weights_find(const pb_weights *weights, const char *canonical) {
    const pb_weight key = {.canonical = canonical};
    return bsearch(&key, weights->items, weights->count, sizeof key, by_canonical);
}

static int rank_without_ones(int rank, const int64_t *shape) {
    while (rank > 0 && shape[rank - 1] == 1) rank--;
    return rank;
}

bool pb_weight_has_shape(const pb_weight *weight, int rank, const int64_t *shape) {
    const pb_safetensors_entry *entry = weight->entry;
    const int length = rank_without_ones(rank, shape);
    return rank_without_ones(entry->rank, entry->shape) == length &&
           (length == 0 || memcmp(entry->shape, shape, (size_t)length * sizeof *shape) == 0);
}

pb_status pb_weight_read(const pb_weight *weight, pb_dtype dtype, void *data) {
    return pb_safetensors_read(weight->file, weight->entry, dtype, data);
}
