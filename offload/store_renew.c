// Scratch that goes on in a new file while the old one is somebody else's.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/store_internal.h"

void pb_store_forget(pb_store *store, size_t extent) {
    if (store->run_id[0]) return;
    pb_store_settle(store);
    pb_extent *e = &store->extents[extent];
    e->state = PB_EXTENT_EMPTY;
    e->in_old = false;
    memset(e->entry, 0, sizeof e->entry);
}

pb_status pb_store_renew(pb_store *store) {
    pb_store *s = store;
    pb_status status = PB_OK;
    uint64_t found;
    pb_swap_file file = PB_SWAP_FILE_NONE;
    const pb_store_options options = {.directory = s->directory, .buffered = s->buffered};
    if (s->run_id[0] || !s->handed_over)
        return pb_error(PB_ERR_USAGE, "%s was not handed over, or has a name: it is not renewed", s->file.path);
    PB_RETURN_IF(pb_store_drain(s));
    file.hook = s->hook;
    PB_TRY(pb_swap_file_find(&file, &options, &found));
    PB_TRY(pb_swap_file_create(&file, &options, s->info.file_bytes));
    for (size_t i = 0; i < s->extent_count; i++) s->extents[i].in_old = s->extents[i].state == PB_EXTENT_VALID;
    pb_swap_file_close(&s->old, true);
    s->old = s->file;
    s->file = file;
    s->handed_over = false;
    if (s->engine->kind->prefer) s->engine->kind->prefer(s->engine, file.fd);
    s->info.path = s->file.path;
    s->info.direct = s->file.direct;
    s->info.registered_file = s->engine->registered_file;
    return PB_OK;
fail:
    pb_swap_file_close(&file, true);
    return status;
}

static bool has_room_for(const pb_extent *e, const pb_store_place *place) {
    return !place->bytes ||
           (place->offset == e->offset && place->bytes <= e->capacity && place->bytes % PB_STORE_BLOCK == 0);
}

static pb_status open_old(const pb_store *s, const char *path, pb_swap_file *old) {
    struct stat info;
    const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    pb_store_call call = {.op = PB_STORE_OPEN, .fd = AT_FDCWD, .name = path, .flags = flags};
    if (!(old->path = strdup(path))) return pb_error(PB_ERR_MEMORY, "no memory for %s", path);
    old->direct = !s->buffered;
    if (old->direct) call.flags |= O_DIRECT;
    long fd = pb_store_call_persist(s->hook, call);
    if (fd == -EINVAL && old->direct) {
        old->direct = false;
        call.flags = flags;
        fd = pb_store_call_persist(s->hook, call);
    }
    if (fd < 0) return pb_swap_file_error(old, "open", fd);
    old->fd = (int)fd;
    if (fstat(old->fd, &info)) return pb_swap_file_error(old, "look at", -errno);
    return S_ISREG(info.st_mode) ? PB_OK : pb_error(PB_ERR_IO, "%s is not a regular file: no run made it", path);
}

pb_status pb_store_adopt(pb_store *store, const char *path, const pb_store_place *places) {
    pb_store *s = store;
    pb_status status = PB_OK;
    pb_swap_file old = PB_SWAP_FILE_NONE;
    for (size_t i = 0; i < s->extent_count; i++) {
        if (s->run_id[0] || s->handed_over || s->extents[i].state != PB_EXTENT_EMPTY || s->old.fd >= 0)
            return pb_error(PB_ERR_USAGE, "%s is not new, or has a name: it adopts nothing", s->file.path);
        if (!has_room_for(&s->extents[i], &places[i]))
            return pb_error(PB_ERR_UNSUPPORTED, "%s has another layout than %s", path, s->file.path);
    }
    old.hook = s->hook;
    PB_TRY(open_old(s, path, &old));
    for (size_t i = 0; i < s->extent_count; i++) {
        pb_extent *e = &s->extents[i];
        if (!places[i].bytes) continue;
        e->current = 0;
        e->state = PB_EXTENT_VALID;
        e->in_old = true;
        e->entry[0] = (pb_entry){.hash = {places[i].hash[0], places[i].hash[1]},
                                 .owner = places[i].owner,
                                 .generation = s->info.generation + 1,
                                 .bytes = places[i].bytes};
    }
    s->old = old;
    s->handed = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return PB_OK;
fail:
    pb_swap_file_close(&old, true);
    return status;
}
