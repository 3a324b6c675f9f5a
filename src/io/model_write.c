// Writing a pipeline directory: everything into a temporary folder inside the target (one file system, so that renames
// work), then folder by folder into place.
#include "io/model_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/fs_error.h"
#include "io/weights_names.h"

#define TEMPORARY_PREFIX ".pipeline."
#define TEMPORARY_SUFFIX ".tmp"
#define INDEX_NAME "model_index.json"

enum { SMALL_FILE_BYTES = 4 << 20 };

struct pb_model_writer {
    pb_arena *arena;
    const char *path, *temporary;
    const char *weights_path[PB_PART_COUNT];  // NULL where not replaced
};

static pb_status no_memory(void) {
    return pb_error(PB_ERR_MEMORY, "no memory to write a model");
}

static bool contains(const char *const *names, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

// The name that a file of a part that is kept gets in the copy: its own, the plain one for a variant without a plain
// sibling, or NULL where the file is a pickle that safetensors files stand beside.
static pb_status copied_name(pb_arena *arena, const char *const *names, size_t count, size_t i, const char **copied) {
    *copied = names[i];
    if (pb_name_is_pickle(names[i])) {
        for (size_t k = 0; k < count; k++)
            if (pb_name_ends_with(names[k], ".safetensors")) *copied = NULL;
        return PB_OK;
    }
    bool failed = false;
    const char *plain = pb_name_without_variant(arena, names[i], NULL, &failed);
    if (failed) return no_memory();
    if (!plain || contains(names, count, plain)) return PB_OK;
    for (size_t k = 0; k < i; k++) {  // the first of several variants takes the plain name
        const char *other = pb_name_without_variant(arena, names[k], NULL, &failed);
        if (failed) return no_memory();
        if (other && strcmp(other, plain) == 0) return PB_OK;
    }
    *copied = plain;
    return PB_OK;
}

// A copy of what belongs to a pipeline, or (`to` is NULL) a look at what it would take.
typedef struct copying {
    pb_arena *arena;
    const char *to;
    uint64_t bytes;  // looked at
} copying;

// To NAME in the folder `to`, NULL where it is only looked at.
static pb_status copy_or_look(copying *c, const char *from, const char *to, const char *name) {
    uint64_t bytes = 0;
    if (to) {
        const char *target = pb_fs_join(c->arena, to, name);
        return target ? pb_fs_copy_tree(from, target) : no_memory();
    }
    PB_RETURN_IF(pb_fs_tree_bytes(from, &bytes));
    c->bytes += bytes;
    return PB_OK;
}

static pb_status copy_part(copying *c, const char *from, const char *part, bool replaced) {
    const char **names, *to = c->to ? pb_fs_join(c->arena, c->to, part) : NULL;
    size_t count;
    if (c->to && !to) return no_memory();
    if (to) PB_RETURN_IF(pb_fs_make_directories(to));
    PB_RETURN_IF(pb_fs_list(c->arena, from, &names, &count));
    for (size_t i = 0; i < count; i++) {
        if (replaced && pb_name_is_weights(names[i])) continue;
        const char *name, *source = pb_fs_join(c->arena, from, names[i]);
        PB_RETURN_IF(copied_name(c->arena, names, count, i, &name));
        if (!source) return no_memory();
        if (name) PB_RETURN_IF(copy_or_look(c, source, to, name));
    }
    return to ? pb_fs_sync_directory(to) : PB_OK;
}

static int known_part(const char *name) {
    for (int part = 0; part < PB_PART_COUNT; part++)
        if (strcmp(pb_part_name((pb_part)part), name) == 0) return part;
    return -1;
}

// A folder that model_index.json names belongs to the pipeline; without an index, the parts that we know.
static bool is_part(const pb_model_dir *model, const char *name) {
    if (!model->index) return known_part(name) >= 0;
    const pb_json *entry = pb_json_get(model->index, name);
    return entry && entry->type == PB_JSON_ARRAY && entry->count == 2 && entry->first->next->type == PB_JSON_STRING;
}

static bool is_small_file(const char *path, const char *name) {
    uint64_t bytes = 0;
    int fd = -1;
    const bool kind = pb_name_ends_with(name, ".json") || pb_name_ends_with(name, ".md") ||
                      pb_name_ends_with(name, ".txt") || strncmp(name, "LICENSE", 7) == 0;
    if (!kind || pb_fs_open_read(path, &fd, &bytes) != PB_OK) return false;
    close(fd);
    return bytes <= SMALL_FILE_BYTES;
}

static pb_status copy_pipeline(copying *c, const pb_model_dir *model, const bool replaced[PB_PART_COUNT]) {
    const char **names;
    size_t count;
    bool seen[PB_PART_COUNT] = {false};
    PB_RETURN_IF(pb_fs_list(c->arena, model->path, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *from = pb_fs_join(c->arena, model->path, names[i]);
        if (!from) return no_memory();
        const int part = known_part(names[i]);
        if (part >= 0) seen[part] = true;
        const pb_fs_kind kind = pb_fs_kind_of(from);
        if (kind == PB_FS_DIRECTORY && is_part(model, names[i]))
            PB_RETURN_IF(copy_part(c, from, names[i], part >= 0 && replaced[part]));
        else if (kind == PB_FS_FILE && is_small_file(from, names[i]))
            PB_RETURN_IF(copy_or_look(c, from, c->to, names[i]));
    }
    for (int part = 0; part < PB_PART_COUNT; part++)
        if (model->parts[part].present && !seen[part])
            return pb_error(PB_ERR_IO, "%s is gone: it was there when the model was opened", model->parts[part].path);
    return PB_OK;
}

pb_status pb_model_copied_bytes(const pb_model_dir *model, const bool replaced[PB_PART_COUNT], uint64_t *bytes) {
    copying c = {.arena = pb_arena_create()};
    if (!c.arena) return no_memory();
    const pb_status status = copy_pipeline(&c, model, replaced);
    *bytes = c.bytes;
    pb_arena_destroy(c.arena);
    return status;
}

// What a killed run left behind.
static pb_status remove_leftovers(pb_arena *arena, const char *path) {
    const char **names;
    size_t count;
    PB_RETURN_IF(pb_fs_list(arena, path, &names, &count));
    for (size_t i = 0; i < count; i++) {
        if (strncmp(names[i], TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX)) != 0 ||
            !pb_name_ends_with(names[i], TEMPORARY_SUFFIX))
            continue;
        const char *leftover = pb_fs_join(arena, path, names[i]);
        if (!leftover) return no_memory();
        PB_RETURN_IF(pb_fs_remove(leftover));
    }
    return PB_OK;
}

pb_status pb_model_writer_begin(const pb_model_dir *model, const char *path, const bool replaced[PB_PART_COUNT],
                                pb_model_writer **result) {
    pb_status status = PB_OK;
    pb_model_writer *writer = calloc(1, sizeof *writer);
    if (!writer || !(writer->arena = pb_arena_create()) || !(writer->path = pb_arena_string(writer->arena, path)))
        PB_TRY(no_memory());
    PB_TRY(pb_fs_make_directories(path));
    PB_TRY(remove_leftovers(writer->arena, path));
    writer->temporary =
        pb_arena_format(writer->arena, "%s/" TEMPORARY_PREFIX "%ld" TEMPORARY_SUFFIX, path, (long)getpid());
    if (!writer->temporary) PB_TRY(no_memory());
    PB_TRY(pb_fs_make_directories(writer->temporary));
    for (pb_part part = 0; part < PB_PART_COUNT; part++) {
        if (!replaced[part] || !pb_part_weights_stem(part)) continue;
        writer->weights_path[part] = pb_arena_format(writer->arena, "%s/%s/%s.safetensors", writer->temporary,
                                                     pb_part_name(part), pb_part_weights_stem(part));
        if (!writer->weights_path[part]) PB_TRY(no_memory());
    }
    PB_TRY(copy_pipeline(&(copying){.arena = writer->arena, .to = writer->temporary}, model, replaced));
    *result = writer;
    return PB_OK;
fail:
    pb_model_writer_destroy(writer);
    return status;
}

const char *pb_model_writer_weights_path(const pb_model_writer *writer, pb_part part) {
    return writer->weights_path[part];
}

// Puts `from` in place of whatever is at `to`, which ends up at `from` or is gone.
static pb_status put_in_place(pb_arena *arena, const char *from, const char *to) {
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0 || rename(from, to) == 0) return PB_OK;
    // A folder that is not empty, on a file system that cannot exchange.
    const char *aside = pb_arena_format(arena, "%s.old", from);
    if (!aside) return no_memory();
    if (rename(to, aside) || rename(from, to)) return pb_fs_error("put a finished part in place at", to);
    return PB_OK;
}

pb_status pb_model_writer_commit(pb_model_writer *writer) {
    const char **names, *index = pb_fs_join(writer->arena, writer->path, INDEX_NAME);
    size_t count;
    if (!index) return no_memory();
    PB_RETURN_IF(pb_fs_sync_directory(writer->temporary));
    PB_RETURN_IF(pb_fs_list(writer->arena, writer->temporary, &names, &count));
    PB_RETURN_IF(pb_fs_remove(index));
    PB_RETURN_IF(pb_fs_sync_directory(writer->path));
    const char *new_index = NULL;
    for (size_t i = 0; i < count; i++) {
        const char *from = pb_fs_join(writer->arena, writer->temporary, names[i]);
        const char *to = pb_fs_join(writer->arena, writer->path, names[i]);
        if (!from || !to) return no_memory();
        if (strcmp(names[i], INDEX_NAME) == 0)
            new_index = from;
        else
            PB_RETURN_IF(put_in_place(writer->arena, from, to));
    }
    PB_RETURN_IF(pb_fs_sync_directory(writer->path));
    if (new_index) PB_RETURN_IF(pb_fs_rename(new_index, index));
    const char *temporary = writer->temporary;
    writer->temporary = NULL;
    return pb_fs_remove(temporary);
}

void pb_model_writer_destroy(pb_model_writer *writer) {
    if (!writer) return;
    if (writer->temporary) pb_fs_remove(writer->temporary);
    pb_arena_destroy(writer->arena);
    free(writer);
}
