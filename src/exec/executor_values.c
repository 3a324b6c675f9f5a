// Values read and written from outside, between runs.
#include <string.h>

#include "exec/executor_parts.h"

// One stretch of a value that lies in one place.
static pb_status touch(pb_memory *m, pb_tier tier, uint32_t extent, uint64_t at, void *data, uint64_t bytes,
                       bool write) {
    if (tier == PB_TIER_NVME) return pb_memory_touch(m, extent, at, data, bytes, write);
    unsigned char *there = m->slab[tier] + at;
    if (tier == PB_TIER_DEVICE)
        return write ? m->calls->write(m->device, there, data, bytes) : m->calls->read(m->device, data, there, bytes);
    memcpy(write ? there : data, write ? data : there, bytes);
    return PB_OK;
}

static pb_status touch_pieces(const pb_executor *e, const pb_piece *pieces, uint32_t count, uint64_t offset,
                              unsigned char *data, uint64_t bytes, bool write) {
    for (uint32_t i = 0; i < count && bytes; i++) {
        const pb_piece *p = &pieces[i];
        if (offset < p->begin || offset - p->begin >= p->bytes) continue;
        const uint64_t inside = offset - p->begin, left = p->bytes - inside, part = bytes < left ? bytes : left;
        PB_RETURN_IF(touch(e->memory, p->tier, p->extent, p->offset + inside, data, part, write));
        offset += part;
        data += part;
        bytes -= part;
    }
    return bytes ? pb_error(PB_ERR_INTERNAL, "the pieces of a value have gaps") : PB_OK;
}

static pb_status access_value(const pb_executor *e, pb_vid value, uint64_t offset, void *data, uint64_t bytes,
                              bool write) {
    pb_memory *m = e->memory;
    const pb_value *v = value < e->graph->value_count ? &e->graph->values[value] : NULL;
    uint32_t pieces = 0;
    const pb_piece *piece = v ? pb_program_pieces(e->program, e->graph, value, &pieces) : NULL;
    const uint64_t home = v ? e->program->home[value] : UINT64_MAX;
    if (!pieces && home == UINT64_MAX) return pb_error(PB_ERR_INTERNAL, "value %u has no home in the slab", value);
    if (offset > pb_value_bytes(v) || bytes > pb_value_bytes(v) - offset)
        return pb_error(PB_ERR_INTERNAL, "copy outside value %u (%s)", value, v->name);
    if (m->failed) return pb_error(m->failed, "%s", m->failure);
    if (pieces) return touch_pieces(e, piece, pieces, offset, data, bytes, write);
    if (home > m->bytes[PB_TIER_DEVICE] || offset + bytes > m->bytes[PB_TIER_DEVICE] - home)
        return pb_error(PB_ERR_INTERNAL, "value %u (%s) lies outside the slab", value, v->name);
    return touch(m, PB_TIER_DEVICE, 0, home + offset, data, bytes, write);
}

pb_status pb_executor_write(pb_executor *e, pb_vid value, uint64_t offset, const void *data, uint64_t bytes) {
    return access_value(e, value, offset, (void *)data, bytes, true);
}

pb_status pb_executor_read(const pb_executor *e, pb_vid value, uint64_t offset, void *data, uint64_t bytes) {
    return access_value(e, value, offset, data, bytes, false);
}

pb_status pb_executor_flush(pb_executor *e) {
    if (e->memory->failed) return pb_error(e->memory->failed, "%s", e->memory->failure);
    return pb_memory_flush(e->memory);
}
