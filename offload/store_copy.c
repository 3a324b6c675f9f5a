// The last commit, or of scratch what it holds now, as a file of its own: blocks shared, bytes copied, or the store's
// file itself.
#define XXH_STATIC_LINKING_ONLY  // a hash's state without an allocation
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fs.h"
#include "offload/store_internal.h"

typedef struct target {
    const pb_store_hook *hook;
    const char *path;
    char *parent;  // its directory
    const char *name;
    int directory, fd;  // -1: none
    bool made;          // there is a file of that name, and it is ours
} target;

static pb_status refusal(const char *action, const target *t, long result) {
    return pb_error(PB_ERR_IO, "cannot %s %s: %s%s", action, t->path, strerror((int)-result),
                    result == -ENOSPC || result == -EDQUOT ? ": free some space" : "");
}

static pb_status open_directory(target *t) {
    const char *slash = strrchr(t->path, '/');
    t->name = slash ? slash + 1 : t->path;
    if (!pb_fs_name_is_plain(t->name)) return pb_error(PB_ERR_USAGE, "\"%s\" names no file", t->path);
    t->parent = slash == t->path ? strdup("/") : slash ? strndup(t->path, (size_t)(slash - t->path)) : strdup(".");
    if (!t->parent) return pb_error(PB_ERR_MEMORY, "no memory for %s", t->path);
    t->directory = open(t->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return t->directory < 0 ? refusal("open the directory of", t, -errno) : PB_OK;
}

static pb_status create(target *t) {
    const pb_store_call call = {.op = PB_STORE_OPEN,
                                .fd = t->directory,
                                .name = t->name,
                                .flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC};
    const long fd = pb_store_call_persist(t->hook, call);
    if (fd < 0) return refusal("create", t, fd);
    t->fd = (int)fd;
    t->made = true;
    return fchmod(t->fd, 0600) ? refusal("make private", t, -errno) : PB_OK;
}

// fsync of the file, then of its directory; neither is tried again, for a second one may succeed without a reason.
static pb_status sync_all(const target *t) {
    long result = t->fd < 0 ? 0 : pb_store_call_make(t->hook, (pb_store_call){.op = PB_STORE_SYNC, .fd = t->fd});
    if (result) return refusal("write out", t, result);
    result = pb_store_call_make(t->hook, (pb_store_call){.op = PB_STORE_SYNC, .fd = t->directory});
    return result ? refusal("write out the directory of", t, result) : PB_OK;
}

// What a failure leaves is of no use to anybody.
static pb_status close_target(target *t, pb_status status) {
    if (t->fd >= 0) close(t->fd);
    if (status != PB_OK && t->made) unlinkat(t->directory, t->name, 0);
    if (t->directory >= 0) close(t->directory);
    free(t->parent);
    return status;
}

static pb_status read_back(const target *t, uint64_t offset, void *data, size_t bytes) {
    const pb_store_call call = {.op = PB_STORE_READ, .fd = t->fd, .data = data, .bytes = bytes, .offset = offset};
    const long result = pb_store_call_whole(t->hook, call);
    return result ? refusal("read back", t, result) : PB_OK;
}

// The newest record; the caller's memory of it may be older than a commit's, so it is read from the store's own file.
static pb_status load_record(pb_store *s) {
    const pb_store_call call = {.op = PB_STORE_READ,
                                .data = s->record,
                                .bytes = s->record_room,
                                .offset = s->record_slot * (uint64_t)s->record_room};
    const long result = pb_swap_file_transfer(&s->file, call);
    if (result) return pb_swap_file_error(&s->file, "read the commit record of", result);
    return pb_record_is_sealed(s->record, s->extent_count) &&
                   pb_record_head_of(s->record)->generation == s->info.generation
               ? PB_OK
               : pb_error(PB_ERR_IO, "%s: the record of the last commit is not there any more", s->file.path);
}

static pb_status check_record(pb_store *s, const target *t) {
    PB_RETURN_IF(read_back(t, s->record_slot * (uint64_t)s->record_room, s->spare, s->record_room));
    return memcmp(s->record, s->spare, s->record_room)
               ? pb_error(PB_ERR_IO, "%s: the commit record does not read back as it was written", t->path)
               : PB_OK;
}

// Which slot of an extent is kept: that of the last commit, of scratch what it holds now. PB_NO_SLOT: neither.
static unsigned kept_slot(const pb_store *s, const pb_extent *e) {
    if (s->run_id[0]) return e->committed;
    return e->state == PB_EXTENT_VALID ? e->current : PB_NO_SLOT;
}

static uint64_t slot_offset(const pb_store *s, const pb_extent *e) {
    return e->offset + (uint64_t)kept_slot(s, e) * e->capacity;
}

static pb_status check_extent(pb_store *s, const target *t, size_t index) {
    const pb_extent *extent = &s->extents[index];
    const pb_entry *entry = &extent->entry[kept_slot(s, extent)];
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    for (uint32_t at = 0, part = 0; at < entry->bytes; at += part) {
        part = entry->bytes - at < s->spare_bytes ? entry->bytes - at : (uint32_t)s->spare_bytes;
        PB_RETURN_IF(read_back(t, slot_offset(s, extent) + at, s->spare, part));
        XXH3_128bits_update(&state, s->spare, part);
    }
    const XXH128_hash_t hash = XXH3_128bits_digest(&state);
    return hash.low64 == entry->hash[0] && hash.high64 == entry->hash[1]
               ? PB_OK
               : pb_error(PB_ERR_IO, "%s: extent %zu (owner %llu, step %llu) does not read back as it was written",
                          t->path, index, (unsigned long long)entry->owner, (unsigned long long)entry->step);
}

// To the same place in another file; within the kernel where that works between the two, else through `spare`.
static pb_status copy_range(pb_store *s, pb_swap_file *from, const target *t, uint64_t offset, uint64_t bytes) {
    const pb_store_call call = {.op = PB_STORE_COPY, .fd = t->fd, .from = from->fd, .bytes = bytes, .offset = offset};
    long result = pb_store_call_whole(t->hook, call);
    if (result != -EXDEV && result != -EOPNOTSUPP && result != -EINVAL && result != -ENOSYS)
        return result ? refusal("copy into", t, result) : PB_OK;
    for (uint64_t at = 0, part = 0; at < bytes; at += part) {
        part = bytes - at < s->spare_bytes ? bytes - at : s->spare_bytes;
        pb_store_call piece = {.op = PB_STORE_READ, .data = s->spare, .bytes = part, .offset = offset + at};
        result = pb_swap_file_transfer(from, piece);
        if (result) return pb_swap_file_error(from, "read", result);
        piece.op = PB_STORE_WRITE;
        piece.fd = t->fd;
        result = pb_store_call_whole(t->hook, piece);
        if (result) return refusal("write", t, result);
    }
    return PB_OK;
}

static uint64_t committed_bytes(const pb_store *s) {
    uint64_t bytes = 2 * (uint64_t)s->record_room;
    for (size_t i = 0; i < s->extent_count; i++)
        if (kept_slot(s, &s->extents[i]) != PB_NO_SLOT)
            bytes += s->extents[i].entry[kept_slot(s, &s->extents[i])].bytes;
    return bytes;
}

// --- What is kept of scratch ---

// Takes over what still lies only in the file that was handed over last, so that the store's own file has everything.
static pb_status complete(pb_store *s) {
    const target own = {.hook = s->hook, .path = s->file.path, .directory = -1, .fd = s->file.fd};
    for (size_t i = 0; i < s->extent_count; i++) {
        pb_extent *e = &s->extents[i];
        if (e->state != PB_EXTENT_VALID || !e->in_old) continue;
        PB_RETURN_IF(copy_range(s, &s->old, &own, slot_offset(s, e), e->entry[e->current].bytes));
        PB_RETURN_IF(check_extent(s, &own, i));
        e->in_old = false;
    }
    return PB_OK;
}

static pb_status prepare_scratch(pb_store *s) {
    enum { SPARE = 1 << 20 };
    for (size_t i = 0; i < s->extent_count; i++)
        if (s->extents[i].state == PB_EXTENT_BROKEN)
            return pb_error(PB_ERR_IO, "%s: extent %zu cannot be kept: its last write failed", s->file.path, i);
    if (!s->spare && !(s->spare = aligned_alloc(PB_STORE_BLOCK, SPARE)))
        return pb_error(PB_ERR_MEMORY, "no memory to keep the swap file");
    if (!s->record_room) s->spare_bytes = SPARE;
    PB_RETURN_IF(complete(s));
    const long result = pb_swap_file_sync(&s->file);
    if (!result) return PB_OK;
    // A second fsync may succeed without a reason.
    pb_swap_file_error(&s->file, "write out", result);
    snprintf(s->broken, sizeof s->broken, "%.400s; the file is not used any further", pb_error_message());
    return pb_error(PB_ERR_IO, "%s", s->broken);
}

// The blocks of extents that are not kept go back to the file system. Where it does not take them, they stay.
static void give_back(const pb_store *s, int fd) {
    if (s->run_id[0]) return;
    for (size_t i = 0, next = 0; i < s->extent_count; i = next) {
        uint64_t bytes = 0;
        for (next = i; next < s->extent_count && s->extents[next].state == PB_EXTENT_EMPTY; next++)
            bytes += s->extents[next].capacity;
        if (bytes)
            pb_store_call_persist(
                s->hook,
                (pb_store_call){.op = PB_STORE_PUNCH, .fd = fd, .bytes = bytes, .offset = s->extents[i].offset});
        if (next == i) next++;
    }
}

static pb_status prepare(pb_store *s, target *t) {
    PB_RETURN_IF(pb_store_drain(s));
    if (s->broken[0]) return pb_error(PB_ERR_IO, "%s", s->broken);
    if (s->handed_over) return pb_error(PB_ERR_USAGE, "%s was handed over", s->file.path);
    if (s->run_id[0] && !s->info.generation) return pb_error(PB_ERR_USAGE, "%s holds no commit yet", s->file.path);
    PB_RETURN_IF(open_directory(t));
    return s->run_id[0] ? PB_OK : prepare_scratch(s);
}

static pb_status check_kept_record(pb_store *s, const target *t) {
    if (!s->run_id[0]) return PB_OK;  // the caller's affair
    PB_RETURN_IF(load_record(s));
    return check_record(s, t);
}

pb_status pb_store_clone(pb_store *store, const char *path) {
    pb_store *s = store;
    target t = {.hook = s->hook, .path = path, .directory = -1, .fd = -1};
    pb_status status = PB_OK;
    PB_TRY(prepare(s, &t));
    PB_TRY(create(&t));
    const long result =
        pb_store_call_persist(s->hook, (pb_store_call){.op = PB_STORE_CLONE, .fd = t.fd, .from = s->file.fd});
    if (result == -EOPNOTSUPP || result == -EXDEV || result == -EINVAL || result == -ENOTTY || result == -ENOSYS)
        PB_FAIL(PB_ERR_UNSUPPORTED, "the file system does not let %s share the blocks of %s", path, s->file.path);
    if (result) {
        status = refusal("clone the swap file to", &t, result);
        goto fail;
    }
    give_back(s, t.fd);
    PB_TRY(sync_all(&t));
    PB_TRY(check_kept_record(s, &t));
fail:
    return close_target(&t, status);
}

pb_status pb_store_copy(pb_store *store, const char *path) {
    pb_store *s = store;
    target t = {.hook = s->hook, .path = path, .directory = -1, .fd = -1};
    pb_status status = PB_OK;
    PB_TRY(prepare(s, &t));
    PB_TRY(pb_swap_file_require_room(t.parent, committed_bytes(s), "a copy of the swap file and a margin"));
    PB_TRY(create(&t));
    if (ftruncate(t.fd, (off_t)s->file.bytes)) {
        status = refusal("size", &t, -errno);
        goto fail;
    }
    for (size_t i = 0; i < s->extent_count; i++) {
        const pb_extent *extent = &s->extents[i];
        const unsigned slot = kept_slot(s, extent);
        if (slot != PB_NO_SLOT) PB_TRY(copy_range(s, &s->file, &t, slot_offset(s, extent), extent->entry[slot].bytes));
    }
    // The record is last, so that it never names bytes that are not there; a hole in the other's place is no record.
    if (s->run_id[0]) {
        PB_TRY(load_record(s));
        PB_TRY(copy_range(s, &s->file, &t, s->record_slot * (uint64_t)s->record_room, s->record_room));
    }
    PB_TRY(sync_all(&t));
    posix_fadvise(t.fd, 0, 0, POSIX_FADV_DONTNEED);  // from the disk, not from memory
    PB_TRY(check_kept_record(s, &t));
    for (size_t i = 0; i < s->extent_count; i++)
        if (kept_slot(s, &s->extents[i]) != PB_NO_SLOT) PB_TRY(check_extent(s, &t, i));
fail:
    return close_target(&t, status);
}

// A file that had its name taken away rather than never had one; or there is no /proc.
static bool cannot_be_named(long result) {
    return result == -ENOENT || result == -EPERM || result == -EOPNOTSUPP || result == -EMLINK || result == -ENOSYS;
}

pb_status pb_store_hand_over(pb_store *store, const char *path) {
    pb_store *s = store;
    target t = {.hook = s->hook, .path = path, .directory = -1, .fd = -1};
    pb_status status = PB_OK;
    char *new_path = strdup(path);
    if (!new_path) PB_FAIL(PB_ERR_MEMORY, "no memory for %s", path);
    PB_TRY(prepare(s, &t));
    const bool named = s->run_id[0];
    const pb_store_call call = {.op = named ? PB_STORE_RENAME : PB_STORE_LINK,
                                .fd = t.directory,
                                .name = t.name,
                                .from = named ? s->file.directory : s->file.fd,
                                .source = s->file.name};
    const long result = pb_store_call_persist(s->hook, call);
    if (result == -EXDEV) PB_FAIL(PB_ERR_UNSUPPORTED, "%s is on another file system than %s", path, s->file.path);
    if (!named && cannot_be_named(result))
        PB_FAIL(PB_ERR_UNSUPPORTED, "the system gives %s no name (%s)", s->file.path, strerror((int)-result));
    if (result) {
        status = refusal("rename the swap file to", &t, result);
        goto fail;
    }
    // From here on it is the caller's, whatever becomes of the directories.
    s->handed_over = true;
    s->file.name[0] = '\0';
    free(s->file.path);
    s->info.path = s->file.path = new_path;
    new_path = NULL;
    if (s->handed >= 0) close(s->handed);
    s->handed = openat(t.directory, t.name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (!named) give_back(s, s->file.fd);
    PB_TRY(sync_all(&t));
    if (!named) goto fail;
    const long old = pb_store_call_make(s->hook, (pb_store_call){.op = PB_STORE_SYNC, .fd = s->file.directory});
    if (old) status = pb_swap_file_error(&s->file, "write out the old directory of", old);
fail:
    free(new_path);
    return close_target(&t, status);
}
