// Values inside extents, read and written between runs: one extent's bytes are kept in a buffer and changed there, and
// go back when another extent is wanted or a run begins.
#include <string.h>

#include "exec/memory_parts.h"

static pb_status write_back(pb_memory *m, uint32_t extent, uint32_t bytes) {
    pb_ticket ticket;
    PB_RETURN_IF(pb_memory_writable(m));
    PB_RETURN_IF(pb_store_write(m->store, extent, extent, m->runs, m->staging, bytes, &ticket));
    return pb_store_wait(m->store, ticket);
}

// What is in an extent, or will be when it is first written.
static uint32_t content_of(const pb_memory *m, uint32_t extent) {
    const uint32_t bytes = pb_store_get_tag(m->store, extent).bytes;
    return bytes ? bytes : m->content[extent];
}

pb_status pb_memory_flush(pb_memory *m) {
    if (!m->dirty) return PB_OK;
    PB_RETURN_IF(write_back(m, m->staged, content_of(m, m->staged)));
    m->dirty = false;
    return PB_OK;
}

pb_status pb_memory_fill(pb_memory *m, uint32_t extent) {
    if (pb_store_get_tag(m->store, extent).bytes) return PB_OK;
    PB_RETURN_IF(pb_memory_flush(m));
    pb_memory_unstage(m);
    memset(m->staging, 0, m->content[extent]);
    return write_back(m, extent, m->content[extent]);
}

static pb_status stage(pb_memory *m, uint32_t extent) {
    if (m->staged == extent) return PB_OK;
    PB_RETURN_IF(pb_memory_flush(m));
    pb_memory_unstage(m);
    const uint32_t there = pb_store_get_tag(m->store, extent).bytes;
    if (there) {
        pb_ticket ticket;
        PB_RETURN_IF(pb_store_read(m->store, extent, extent, m->staging, there, &ticket));
        PB_RETURN_IF(pb_store_wait(m->store, ticket));
    } else {
        memset(m->staging, 0, m->content[extent]);
    }
    m->staged = extent;
    return PB_OK;
}

pb_status pb_memory_touch(pb_memory *m, uint32_t extent, uint64_t offset, void *data, uint64_t bytes, bool write) {
    PB_RETURN_IF(stage(m, extent));
    const uint32_t there = content_of(m, extent);
    if (offset > there || bytes > there - offset)
        return pb_error(PB_ERR_INTERNAL, "a value lies outside the %u bytes of extent %u", there, extent);
    if (!bytes) return PB_OK;
    if (write) {
        memcpy(m->staging + offset, data, bytes);
        m->dirty = true;
    } else {
        memcpy(data, m->staging + offset, bytes);
    }
    return PB_OK;
}
