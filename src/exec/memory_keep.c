// What lies in the store as a file that outlives it: shared, handed over or copied, whatever the file system allows.
#include <stdlib.h>

#include "exec/memory_parts.h"

pb_status pb_memory_check_extent(pb_memory *m, uint32_t extent) {
    if (m->failed) return pb_error(m->failed, "%s", m->failure);
    if (extent >= m->extent_count) return pb_error(PB_ERR_INTERNAL, "there is no extent %u", extent);
    PB_RETURN_IF(pb_memory_fill(m, extent));
    return pb_memory_touch(m, extent, 0, NULL, 0, false);
}

pb_kept_extent pb_memory_kept_extent(const pb_memory *m, uint32_t extent) {
    const pb_store_place place = pb_store_get_place(m->store, extent);
    return (pb_kept_extent){place.offset, place.bytes, {place.hash[0], place.hash[1]}};
}

pb_status pb_memory_adopt(pb_memory *m, const char *path, const pb_kept_extent *extents) {
    if (m->failed) return pb_error(m->failed, "%s", m->failure);
    if (!m->store) return pb_error(PB_ERR_UNSUPPORTED, "this run has no swap file");
    pb_store_place *places = calloc((size_t)m->extent_count + 1, sizeof *places);
    if (!places) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    pb_status status = m->dirty ? PB_ERR_UNSUPPORTED : PB_OK;
    for (uint32_t x = 0; x < m->extent_count && status == PB_OK; x++) {
        const pb_kept_extent *e = &extents[x];
        // A read takes exactly the bytes that were written.
        if (pb_store_get_tag(m->store, x).bytes || (e->bytes && e->bytes != m->content[x])) status = PB_ERR_UNSUPPORTED;
        if (e->bytes)
            places[x] = (pb_store_place){
                .owner = x, .offset = e->offset, .hash = {e->hash[0], e->hash[1]}, .bytes = (uint32_t)e->bytes};
    }
    if (status == PB_OK) status = pb_store_adopt(m->store, path, places);
    if (status == PB_OK) pb_memory_unstage(m);
    free(places);
    return status;
}

uint32_t pb_memory_extents(const pb_memory *m) {
    return m->extent_count;
}

uint64_t pb_memory_store_bytes(const pb_memory *m) {
    return m->store ? pb_store_get_info(m->store)->file_bytes : 0;
}

pb_status pb_memory_keep(pb_memory *m, const bool *needed, const char *path, pb_kept_as *how) {
    static pb_status (*const ways[])(pb_store *, const char *) = {[PB_KEPT_SHARED] = pb_store_clone,
                                                                  [PB_KEPT_HANDED_OVER] = pb_store_hand_over,
                                                                  [PB_KEPT_COPIED] = pb_store_copy};
    if (m->failed) return pb_error(m->failed, "%s", m->failure);
    if (!m->store) return pb_error(PB_ERR_INTERNAL, "this run has no swap file to keep");
    PB_RETURN_IF(pb_memory_writable(m));
    PB_RETURN_IF(pb_memory_flush(m));
    pb_memory_unstage(m);
    for (uint32_t x = 0; x < m->extent_count; x++)
        if (!needed[x]) pb_store_forget(m->store, x);
    m->forgotten++;
    pb_status status = PB_ERR_UNSUPPORTED;
    for (int way = 0; way < 3 && status == PB_ERR_UNSUPPORTED; way++) {
        *how = (pb_kept_as)way;
        status = ways[way](m->store, path);
    }
    m->handed_over = status == PB_OK && *how == PB_KEPT_HANDED_OVER;
    return status;
}

pb_status pb_memory_writable(pb_memory *m) {
    if (!m->handed_over) return PB_OK;
    const pb_status status = pb_store_renew(m->store);
    if (status != PB_OK)
        return pb_error_context(status, "the swap file belongs to the last checkpoint, which is whole, and there is no "
                                        "other to go on with; resume from that checkpoint once there is");
    m->handed_over = false;
    return PB_OK;
}
