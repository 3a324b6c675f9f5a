#include "train/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"
#include "train/saved_state.h"

enum { MANIFEST_LIMIT = 1 << 20, STATE_LIMIT = 1 << 26, FILES_MAX = 64 };
enum { ALWAYS_HASHED = 1 << 20 };  // bytes of a file that takes no time to read

static const char *const prefix = "checkpoint-", *const partial_prefix = ".partial-checkpoint-";

// --- Writing ---

struct pb_checkpoint_writer {
    pb_arena *arena;
    const char *output_dir, *temporary, *path;
    const char *names[FILES_MAX];
    const char *maps[FILES_MAX];  // of files of extents; else NULL
    int count;
    uint64_t bytes;  // of files that are no files of extents
    bool committed;
};

pb_status pb_checkpoint_begin(const char *output_dir, int64_t step, uint64_t bytes, pb_checkpoint_writer **result) {
    pb_status status = PB_OK;
    pb_arena *arena = pb_arena_create();
    pb_checkpoint_writer *w = arena ? pb_arena_alloc(arena, sizeof *w) : NULL;
    if (!w) PB_FAIL(PB_ERR_MEMORY, "no memory for a checkpoint");
    w->arena = arena;
    w->output_dir = pb_arena_string(arena, output_dir);
    w->temporary = pb_arena_format(arena, "%s/%s%lld", output_dir, partial_prefix, (long long)step);
    w->path = pb_arena_format(arena, "%s/%s%lld", output_dir, prefix, (long long)step);
    if (!w->output_dir || !w->temporary || !w->path) PB_FAIL(PB_ERR_MEMORY, "no memory for a checkpoint");
    PB_TRY(pb_fs_remove(w->temporary));
    PB_TRY(pb_fs_require_space(output_dir, bytes, "a checkpoint"));
    PB_TRY(pb_fs_make_directories(w->temporary));
    *result = w;
    return PB_OK;
fail:
    pb_arena_destroy(arena);
    return status;
}

const char *pb_checkpoint_add(pb_checkpoint_writer *w, const char *name) {
    const char *path = pb_fs_join(w->arena, w->temporary, name);
    const char *copy = pb_arena_string(w->arena, name);
    const char *folder = path ? pb_fs_parent(w->arena, path) : NULL;
    if (!folder || !copy || w->count == FILES_MAX) {
        pb_error(PB_ERR_MEMORY, "no memory for a checkpoint");
        return NULL;
    }
    if (pb_fs_make_directories(folder) != PB_OK) return NULL;
    w->names[w->count++] = copy;
    return path;
}

const char *pb_checkpoint_add_extents(pb_checkpoint_writer *w, const char *name, const char *map) {
    const char *path = pb_checkpoint_add(w, name);
    if (path) w->maps[w->count - 1] = map;
    return path;
}

static pb_status size_of(const char *path, uint64_t *bytes) {
    int fd;
    PB_RETURN_IF(pb_fs_open_read(path, &fd, bytes));
    close(fd);
    return PB_OK;
}

typedef enum care { QUICK, FILES, THOROUGH } care;  // sizes; the hashes of files; those of extents as well
static pb_status verify(const char *path, care how);

static pb_status write_manifest(pb_checkpoint_writer *w) {
    pb_status status = PB_OK;
    pb_text text = {0};
    int version = 1;
    for (int i = 0; i < w->count; i++)
        if (w->maps[i]) version = 2;
    pb_text_append(&text, "{\n  \"format\": \"pagebooth-checkpoint\",\n  \"version\": %d,\n  \"files\": [", version);
    for (int i = 0; i < w->count; i++) {
        char hex[PB_HASH_TEXT];
        uint64_t bytes;
        const char *path = pb_fs_join(w->arena, w->temporary, w->names[i]);
        if (!path) PB_FAIL(PB_ERR_MEMORY, "no memory for a checkpoint");
        if (w->maps[i])
            PB_TRY(size_of(path, &bytes));
        else
            PB_TRY(pb_hash_file(path, false, hex, &bytes));
        if (!w->maps[i]) w->bytes += bytes;
        pb_text_append(&text, "%s\n    {\"name\": ", i ? "," : "");
        pb_text_append_json_string(&text, w->names[i], strlen(w->names[i]));
        pb_text_append(&text, ", \"bytes\": %llu, \"%s\": \"%s\"}", (unsigned long long)bytes,
                       w->maps[i] ? "extents" : "xxh3_128", w->maps[i] ? w->maps[i] : hex);
    }
    pb_text_append(&text, "\n  ]\n}\n");
    if (text.failed) PB_FAIL(PB_ERR_MEMORY, "no memory for a checkpoint");
    PB_TRY(pb_fs_write_file(pb_fs_join(w->arena, w->temporary, "manifest.json"), text.data, text.bytes));
fail:
    pb_text_deinit(&text);
    return status;
}

// Every folder that holds a file of the checkpoint; an entry is durable once its folder is.
static pb_status sync_folders(const pb_checkpoint_writer *w) {
    for (int i = 0; i < w->count; i++) {
        if (!strchr(w->names[i], '/')) continue;
        const char *folder = pb_fs_parent(w->arena, pb_fs_join(w->arena, w->temporary, w->names[i]));
        if (!folder) return pb_error(PB_ERR_MEMORY, "no memory for a checkpoint");
        PB_RETURN_IF(pb_fs_sync_directory(folder));
    }
    return pb_fs_sync_directory(w->temporary);
}

// A folder cannot be renamed over one that is not empty. Exchanging the two keeps one of them in place at any instant;
// the replaced one then has the temporary name.
static pb_status put_in_place(const pb_checkpoint_writer *w) {
    if (pb_fs_kind_of(w->path) == PB_FS_NONE) return pb_fs_rename(w->temporary, w->path);
    if (renameat2(AT_FDCWD, w->temporary, AT_FDCWD, w->path, RENAME_EXCHANGE)) {
        // A file system that exchanges nothing. Under its own name a checkpoint is whole or not there.
        const char *aside = pb_arena_format(w->arena, "%s.old", w->temporary);
        if (!aside) return pb_error(PB_ERR_MEMORY, "no memory for a checkpoint");
        PB_RETURN_IF(pb_fs_remove(aside));
        PB_RETURN_IF(pb_fs_rename(w->path, aside));
        PB_RETURN_IF(pb_fs_rename(w->temporary, w->path));
        return pb_fs_remove(aside);
    }
    PB_RETURN_IF(pb_fs_sync_directory(w->output_dir));
    return pb_fs_remove(w->temporary);
}

pb_status pb_checkpoint_commit(pb_checkpoint_writer *w) {
    PB_RETURN_IF(write_manifest(w));
    PB_RETURN_IF(sync_folders(w));
    PB_RETURN_IF(put_in_place(w));
    w->committed = true;
    const pb_status status = verify(w->path, FILES);
    if (status != PB_OK) pb_error_context(status, "the checkpoint that was just written cannot be read back");
    return status;
}

uint64_t pb_checkpoint_bytes(const pb_checkpoint_writer *w) {
    return w->bytes;
}

void pb_checkpoint_end(pb_checkpoint_writer *w) {
    if (!w) return;
    if (!w->committed) pb_fs_remove(w->temporary);  // what stays is removed when the next run begins
    pb_arena_destroy(w->arena);
}

// --- Reading ---

static pb_status damaged_size(const char *file, uint64_t found, int64_t bytes) {
    return pb_error(PB_ERR_FORMAT, "%s: damaged: %llu bytes, where the manifest has %lld", file,
                    (unsigned long long)found, (long long)bytes);
}

// `extents`: set where it is a file of extents.
static pb_status verify_file(pb_arena *arena, const char *path, const char *manifest, const pb_json *item, care how,
                             bool *extents) {
    const char *name, *expected, *map;
    int64_t bytes;
    PB_RETURN_IF(pb_json_get_string(item, "name", NULL, manifest, &name));
    PB_RETURN_IF(pb_json_get_string(item, "xxh3_128", NULL, manifest, &expected));
    PB_RETURN_IF(pb_json_get_string(item, "extents", NULL, manifest, &map));
    PB_RETURN_IF(pb_json_get_int(item, "bytes", 0, INT64_MAX, -1, manifest, &bytes));
    if (!name || (!expected && !map) || bytes < 0 || name[0] == '/' || strstr(name, ".."))
        return pb_error(PB_ERR_FORMAT, "%s: a file without name, size or hash", manifest);
    const char *file = pb_fs_join(arena, path, name);
    if (!file) return pb_error(PB_ERR_MEMORY, "no memory to check %s", path);
    if (!expected && (strcmp(name, PB_SAVED_SWAP) || strcmp(map, PB_SAVED_MAP)))
        return pb_error(PB_ERR_FORMAT, "%s: a file without name, size or hash", manifest);
    char hex[PB_HASH_TEXT];
    uint64_t found;
    PB_RETURN_IF(size_of(file, &found));
    if (found != (uint64_t)bytes) return damaged_size(file, found, bytes);
    *extents = *extents || !expected;
    if (!expected || (how == QUICK && bytes > ALWAYS_HASHED)) return PB_OK;
    PB_RETURN_IF(pb_hash_file(file, true, hex, &found));
    if (found != (uint64_t)bytes) return damaged_size(file, found, bytes);
    return strcmp(hex, expected) ? pb_error(PB_ERR_FORMAT, "%s: damaged: it has the hash %s, where the manifest has %s",
                                            file, hex, expected)
                                 : PB_OK;
}

static pb_status verify_extents(const char *path) {
    pb_saved_state *state;
    PB_RETURN_IF(pb_saved_state_open(path, &state));
    const pb_status status = pb_saved_state_verify(state);
    pb_saved_state_close(state);
    return status;
}

static pb_status verify_in(pb_arena *arena, const char *path, care how) {
    const char *manifest = pb_fs_join(arena, path, "manifest.json"), *format;
    char *text;
    size_t bytes;
    int64_t version;
    const pb_json *root;
    bool extents = false;
    if (!manifest) return pb_error(PB_ERR_MEMORY, "no memory to check %s", path);
    PB_RETURN_IF(pb_fs_read_file(arena, manifest, MANIFEST_LIMIT, &text, &bytes));
    PB_RETURN_IF(pb_json_parse(arena, text, bytes, manifest, &root));
    PB_RETURN_IF(pb_json_get_string(root, "format", "", manifest, &format));
    PB_RETURN_IF(pb_json_get_int(root, "version", 0, INT64_MAX, 0, manifest, &version));
    const pb_json *files = pb_json_get(root, "files");
    if (strcmp(format, "pagebooth-checkpoint") || (version != 1 && version != 2) || !files ||
        files->type != PB_JSON_ARRAY || !files->count)
        return pb_error(PB_ERR_FORMAT, "%s: not the manifest of a checkpoint", manifest);
    for (const pb_json *item = files->first; item; item = item->next)
        PB_RETURN_IF(verify_file(arena, path, manifest, item, how, &extents));
    if (extents != (version == 2))
        return pb_error(PB_ERR_FORMAT, "%s: its version and its files do not agree", manifest);
    return extents && how == THOROUGH ? verify_extents(path) : PB_OK;
}

static pb_status verify(const char *path, care how) {
    pb_arena *arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "no memory to check %s", path);
    const pb_status status = verify_in(arena, path, how);
    pb_arena_destroy(arena);
    return status;
}

pb_status pb_checkpoint_verify(const char *path) {
    return verify(path, THOROUGH);
}

pb_status pb_checkpoint_look(const char *path) {
    return verify(path, QUICK);
}

// N of "checkpoint-N", or -1.
static int64_t step_of(const char *name) {
    if (strncmp(name, prefix, strlen(prefix))) return -1;
    const char *digits = name + strlen(prefix);
    if (!*digits || strspn(digits, "0123456789") != strlen(digits) || strlen(digits) > 18) return -1;
    return strtoll(digits, NULL, 10);
}

static int64_t run_of(pb_arena *arena, const char *path) {
    const char *file = pb_fs_join(arena, path, "trainer.json");
    char *text;
    size_t bytes;
    const pb_json *root;
    int64_t run = 0;
    if (!file || pb_fs_read_file(arena, file, STATE_LIMIT, &text, &bytes) != PB_OK ||
        pb_json_parse(arena, text, bytes, file, &root) != PB_OK ||
        pb_json_get_int(root, "run", 0, INT64_MAX, 0, file, &run) != PB_OK)
        pb_error_clear();  // whoever wants to read it verifies it first
    return run;
}

static int newest_first(const void *left, const void *right) {
    const pb_checkpoint_entry *a = left, *b = right;
    if (a->run != b->run) return a->run < b->run ? 1 : -1;
    return (a->step < b->step) - (a->step > b->step);
}

pb_status pb_checkpoint_list(pb_arena *arena, const char *output_dir, pb_checkpoint_entry **entries, size_t *count) {
    const char **names;
    size_t found = 0;
    *entries = NULL;
    *count = 0;
    if (pb_fs_kind_of(output_dir) != PB_FS_DIRECTORY) return PB_OK;
    PB_RETURN_IF(pb_fs_list(arena, output_dir, &names, &found));
    pb_checkpoint_entry *list = pb_arena_array(arena, found + 1, sizeof *list);
    if (!list) return pb_error(PB_ERR_MEMORY, "no memory to list %s", output_dir);
    for (size_t i = 0; i < found; i++) {
        const int64_t step = step_of(names[i]);
        const char *path = step < 0 ? NULL : pb_fs_join(arena, output_dir, names[i]);
        if (!path || pb_fs_kind_of(path) != PB_FS_DIRECTORY) continue;
        list[(*count)++] = (pb_checkpoint_entry){.path = path, .step = step, .run = run_of(arena, path)};
    }
    qsort(list, *count, sizeof *list, newest_first);
    *entries = list;
    return PB_OK;
}

// What a kill leaves half written or half deleted: checkpoints, and the small files beside them under their temporary
// names (base/fs.h).
static bool is_leftover(const char *name) {
    static const char *const small[] = {".run.json.", ".config.yaml."};
    if (!strncmp(name, partial_prefix, strlen(partial_prefix))) return true;
    const size_t bytes = strlen(name);
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        if (!strncmp(name, small[i], strlen(small[i])) && bytes > 4 && !strcmp(name + bytes - 4, ".tmp")) return true;
    return false;
}

// Under its own name a checkpoint is whole or not there: it gets the name of a leftover before its files go.
static pb_status remove_checkpoint(pb_arena *arena, const char *output_dir, const pb_checkpoint_entry *entry) {
    const char *leftover = pb_arena_format(arena, "%s/%s%lld", output_dir, partial_prefix, (long long)entry->step);
    if (!leftover) return pb_error(PB_ERR_MEMORY, "no memory to remove %s", entry->path);
    PB_RETURN_IF(pb_fs_rename(entry->path, leftover));
    return pb_fs_remove(leftover);
}

static pb_status prune_in(pb_arena *arena, const char *output_dir, int64_t keep) {
    const char **names;
    size_t found, count;
    pb_checkpoint_entry *entries;
    PB_RETURN_IF(pb_fs_list(arena, output_dir, &names, &found));
    for (size_t i = 0; i < found; i++)
        if (is_leftover(names[i])) PB_RETURN_IF(pb_fs_remove(pb_fs_join(arena, output_dir, names[i])));
    PB_RETURN_IF(pb_checkpoint_list(arena, output_dir, &entries, &count));
    for (size_t i = count; keep > 0 && i > (size_t)keep; i--)
        PB_RETURN_IF(remove_checkpoint(arena, output_dir, &entries[i - 1]));
    return PB_OK;
}

pb_status pb_checkpoint_prune(const char *output_dir, int64_t keep) {
    if (pb_fs_kind_of(output_dir) != PB_FS_DIRECTORY) return PB_OK;
    pb_arena *arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "no memory to list %s", output_dir);
    const pb_status status = prune_in(arena, output_dir, keep);
    pb_arena_destroy(arena);
    return status;
}
