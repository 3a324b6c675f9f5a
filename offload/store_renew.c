// Scratch that goes on in a new file while the old one is somebody else's.
#include <string.h>

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
