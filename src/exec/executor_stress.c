// For tests: what nobody may count on is made to show.
#include <stdlib.h>
#include <string.h>

#include "exec/executor_parts.h"
#include "kernels/cpu/cpu_device.h"

static int by_place(const void *a, const void *b) {
    const pb_kept *x = a, *y = b;
    if (x->tier != y->tier) return x->tier < y->tier ? -1 : 1;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

// Inputs and pieces, in order of place.
static pb_status find_kept(pb_executor *e) {
    const pb_program *p = e->program;
    const uint32_t pieces = p->first_piece[e->graph->value_count];
    if (e->kept) return PB_OK;
    e->kept = calloc((size_t)pieces + e->graph->value_count + 1, sizeof *e->kept);
    if (!e->kept) return pb_error(PB_ERR_MEMORY, "no memory for a test");
    for (uint32_t i = 0; i < pieces; i++)
        if (p->pieces[i].tier != PB_TIER_NVME)
            e->kept[e->kept_count++] =
                (pb_kept){p->pieces[i].tier, p->pieces[i].offset, p->pieces[i].offset + p->pieces[i].bytes};
    for (pb_vid v = 0; v < e->graph->value_count; v++) {
        const pb_value *value = &e->graph->values[v];
        if (p->home[v] != UINT64_MAX && value->producer == PB_NONE && !value->persistent)
            e->kept[e->kept_count++] = (pb_kept){PB_TIER_DEVICE, p->home[v], p->home[v] + pb_value_bytes(value)};
    }
    qsort(e->kept, e->kept_count, sizeof *e->kept, by_place);
    return PB_OK;
}

void pb_executor_poison(pb_executor *e) {
    uint32_t next = 0;
    for (int tier = PB_TIER_DEVICE; tier <= PB_TIER_HOST; tier++) {
        unsigned char *slab = e->memory->slab[tier];
        uint64_t at = 0;
        for (; next < e->kept_count && e->kept[next].tier == (pb_tier)tier; next++) {
            const pb_kept *k = &e->kept[next];
            if (k->begin > at) memset(slab + at, 0xff, k->begin - at);
            if (k->end > at) at = k->end;
        }
        if (slab && at < e->memory->bytes[tier]) memset(slab + at, 0xff, e->memory->bytes[tier] - at);
    }
}

pb_status pb_executor_stress(pb_executor *e, uint64_t seed) {
    if (!e->memory->on_cpu) return pb_error(PB_ERR_UNSUPPORTED, "only the CPU's device can be put under stress");
    PB_RETURN_IF(find_kept(e));
    e->stress = seed;
    pb_cpu_device_stress(e->memory->device, seed);
    if (e->memory->io) pb_io_stress(e->memory->io, seed);
    return PB_OK;
}
