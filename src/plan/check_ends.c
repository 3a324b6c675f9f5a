// The checker's two ends: what lies where before a program, and what must lie there after it.
#include <stdlib.h>

#include "plan/check_internal.h"

// Pruning leaves values behind that nothing makes: versions of others, and activations.
static bool exists(const pb_value *value) {
    return value->producer != PB_NONE || value->alias == PB_NONE;
}

static bool is_input(const pb_value *value) {
    return !value->persistent && value->producer == PB_NONE && value->alias == PB_NONE &&
           value->class_ == PB_CLASS_INPUT;
}

static pb_status put(pb_checker *c, pb_tier tier, uint64_t offset, uint64_t bytes, pb_vid v, uint64_t from) {
    pb_ranges *slab = c->slab[tier];
    for (pb_range_place place = pb_ranges_find(slab, offset);; place = pb_ranges_next(slab, place)) {
        const pb_range *r = pb_ranges_at(slab, place);
        if (r->value != PB_NONE)
            PB_UNSAFE("values %u (%s) and %u (%s) lie at the same %s offset before the step", v, pb_check_name(c, v),
                      r->value, pb_check_name(c, r->value), pb_check_tier(tier));
        if (pb_ranges_end(slab, place) >= offset + bytes) break;
    }
    pb_range range = *pb_ranges_at(slab, pb_ranges_find(slab, offset));
    range.begin = offset;
    range.value = v;
    range.from = from;
    if (!pb_ranges_replace(slab, offset, offset + bytes, &range, 1)) PB_CHECK_MEMORY();
    return PB_OK;
}

typedef struct nvme_piece {
    const pb_piece *piece;
    pb_vid value;
} nvme_piece;

static int by_extent(const void *a, const void *b) {
    const pb_piece *x = ((const nvme_piece *)a)->piece, *y = ((const nvme_piece *)b)->piece;
    if (x->extent != y->extent) return x->extent < y->extent ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

// Extents that pieces lie in hold them, and are full; the rest between pieces is nothing.
static pb_status fill_extents(pb_checker *c, nvme_piece *pieces, uint32_t count) {
    qsort(pieces, count, sizeof *pieces, by_extent);
    for (uint32_t i = 0; i < count; i++) {
        const pb_piece *piece = pieces[i].piece;
        const uint32_t e = piece->extent;
        pb_extent_state *extent = &c->extents[e];
        if (e && !c->extents[e - 1].lasting)
            PB_UNSAFE("extent %u holds value %u (%s), but extent %u before it holds nothing that lasts", e,
                      pieces[i].value, pb_check_name(c, pieces[i].value), e - 1);
        const pb_piece *before = extent->lasting ? pieces[i - 1].piece : NULL;
        const uint64_t end = before ? before->offset + before->bytes : 0;
        if (piece->offset < end)
            PB_UNSAFE("values %u (%s) and %u (%s) lie in extent %u at the same offset", pieces[i - 1].value,
                      pb_check_name(c, pieces[i - 1].value), pieces[i].value, pb_check_name(c, pieces[i].value), e);
        const pb_range gap = {.begin = end, .value = PB_NONE};
        const pb_range part = {.begin = piece->offset, .value = pieces[i].value, .from = piece->begin};
        if (piece->offset > end && !pb_check_add_part(extent, &gap)) PB_CHECK_MEMORY();
        if (!pb_check_add_part(extent, &part)) PB_CHECK_MEMORY();
        extent->lasting = true;
        extent->bytes = c->program->extent_bytes[e];
        const bool last = i + 1 == count || pieces[i + 1].piece->extent != e;
        const pb_range rest = {.begin = piece->offset + piece->bytes, .value = PB_NONE};
        if (last && rest.begin < extent->bytes && !pb_check_add_part(extent, &rest)) PB_CHECK_MEMORY();
    }
    return PB_OK;
}

static pb_status check_piece(const pb_checker *c, pb_vid v, const pb_piece *piece) {
    if (piece->tier == PB_TIER_DEVICE || piece->tier == PB_TIER_HOST)
        return pb_check_within(c, piece->tier, piece->offset, piece->bytes, PB_ALIGNMENT, "a piece of value", v);
    if (piece->tier != PB_TIER_NVME || piece->extent >= c->program->extent_count)
        PB_UNSAFE("a piece of value %u (%s) lies nowhere", v, pb_check_name(c, v));
    const uint64_t capacity = c->program->extent_bytes[piece->extent];
    if (piece->offset % PB_ALIGNMENT || piece->offset > capacity || piece->bytes > capacity - piece->offset)
        PB_UNSAFE("a piece of value %u (%s) leaves extent %u or is not aligned", v, pb_check_name(c, v), piece->extent);
    return PB_OK;
}

// The pieces of root v: together all of its bytes. Those on NVMe are only collected.
static pb_status lay_out(pb_checker *c, pb_vid v, nvme_piece *nvme, uint32_t *nvme_count) {
    const pb_program *p = c->program;
    uint64_t begin = 0;
    for (uint32_t i = p->first_piece[v]; i < p->first_piece[v + 1]; i++) {
        const pb_piece *piece = &p->pieces[i];
        if (piece->begin != begin || !piece->bytes)
            PB_UNSAFE("the pieces of value %u (%s) leave a gap or overlap at byte %llu", v, pb_check_name(c, v),
                      (unsigned long long)begin);
        PB_RETURN_IF(check_piece(c, v, piece));
        begin += piece->bytes;
        if (piece->tier == PB_TIER_NVME)
            nvme[(*nvme_count)++] = (nvme_piece){piece, v};
        else
            PB_RETURN_IF(put(c, piece->tier, piece->offset, piece->bytes, v, piece->begin));
    }
    if (begin != pb_value_bytes(&c->graph->values[v]))
        PB_UNSAFE("the pieces of value %u (%s) end at byte %llu", v, pb_check_name(c, v), (unsigned long long)begin);
    return PB_OK;
}

static pb_status check_sizes(const pb_checker *c) {
    const pb_program *p = c->program;
    uint64_t sum = 0;
    for (uint32_t e = 0; e < p->extent_count; e++) {
        if (!p->extent_bytes[e] || p->extent_bytes[e] % PB_EXTENT_ALIGNMENT || sum + p->extent_bytes[e] < sum)
            PB_UNSAFE("extent %u has a capacity of %llu bytes", e, (unsigned long long)p->extent_bytes[e]);
        sum += p->extent_bytes[e];
    }
    if (sum != p->tier_bytes[PB_TIER_NVME])
        PB_UNSAFE("its extents have %llu bytes, not %llu", (unsigned long long)sum,
                  (unsigned long long)p->tier_bytes[PB_TIER_NVME]);
    for (int t = 0; t < PB_TIER_COUNT; t++)
        if (p->tier_bytes[t] > c->request->budget[t])
            PB_UNSAFE("it exceeds its budget of the %s tier", pb_check_tier((pb_tier)t));
    return PB_OK;
}

pb_status pb_check_begin(pb_checker *c) {
    const pb_graph *g = c->graph;
    const pb_program *p = c->program;
    PB_RETURN_IF(check_sizes(c));
    for (pb_vid v = 0; v < g->value_count; v++) {
        const bool lasts = g->values[v].persistent && g->values[v].alias == PB_NONE;
        if (p->first_piece[v] > p->first_piece[v + 1] || (!lasts && p->first_piece[v] != p->first_piece[v + 1]))
            PB_UNSAFE("value %u (%s) has pieces, but is not kept from step to step", v, pb_check_name(c, v));
    }
    const uint32_t most = p->first_piece[g->value_count];
    nvme_piece *nvme = calloc((size_t)most + 1, sizeof *nvme);
    if (!nvme) PB_CHECK_MEMORY();
    uint32_t nvme_count = 0;
    pb_status status = PB_OK;
    for (pb_vid v = 0; v < g->value_count && status == PB_OK; v++) {
        const pb_value *value = &g->values[v];
        const uint64_t bytes = pb_value_bytes(value);
        if (value->persistent && value->alias == PB_NONE) PB_TRY(lay_out(c, v, nvme, &nvme_count));
        if (!is_input(value) || !bytes) continue;
        PB_TRY(pb_check_within(c, PB_TIER_DEVICE, p->home[v], bytes, PB_ALIGNMENT, "the home of value", v));
        PB_TRY(put(c, PB_TIER_DEVICE, p->home[v], bytes, v, 0));
    }
    PB_TRY(fill_extents(c, nvme, nvme_count));
fail:
    free(nvme);
    return status;
}

static int by_element(const void *a, const void *b) {
    const pb_update *x = a, *y = b;
    if (x->node != y->node) return x->node < y->node ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

// All nodes ran, and each parameter's elements were updated once.
static pb_status check_nodes(const pb_checker *c) {
    const pb_graph *g = c->graph;
    qsort(c->updates, c->update_count, sizeof *c->updates, by_element);
    const pb_update *u = c->updates, *const end = u + c->update_count;
    for (uint32_t n = 0; n < g->node_count; n++) {
        if (!c->runs[n]) PB_UNSAFE("node %u (%s) never runs", n, pb_op_name(g->nodes[n].op));
        if (c->runs[n] != PB_UPDATED) continue;
        const pb_vid v = g->nodes[n].in[3];  // the parameter
        int64_t next = 0;
        for (; u < end && u->node == n; u++) {
            if (u->first != next)
                PB_UNSAFE("instruction %u updates value %u (%s) from element %lld, not %lld", u->insn, v,
                          pb_check_name(c, v), (long long)u->first, (long long)next);
            next += u->count;
        }
        if (next != pb_shape_count(g->values[v].shape))
            PB_UNSAFE("value %u (%s) is updated only up to element %lld", v, pb_check_name(c, v), (long long)next);
    }
    return PB_OK;
}

static pb_status check_left(const pb_checker *c, pb_vid v) {
    const pb_program *p = c->program;
    const pb_value *value = &c->graph->values[v];
    if (!value->persistent) {
        PB_RETURN_IF(pb_check_within(c, PB_TIER_DEVICE, p->home[v], pb_value_bytes(value), PB_ALIGNMENT,
                                     "the home of value", v));
        if (pb_value_bytes(value) && !pb_check_holds(c, PB_TIER_DEVICE, 0, p->home[v], pb_value_bytes(value), v, 0))
            PB_UNSAFE("value %u (%s) is not at home after the step", v, value->name);
        return PB_OK;
    }
    uint32_t count;
    const pb_piece *pieces = pb_program_pieces(p, c->graph, v, &count);
    if (count ? pieces[count - 1].begin + pieces[count - 1].bytes != pb_value_bytes(value) : pb_value_bytes(value) > 0)
        PB_UNSAFE("value %u (%s) has no place to be kept in", v, value->name);
    for (uint32_t i = 0; i < count; i++)
        if (!pb_check_holds(c, pieces[i].tier, pieces[i].extent, pieces[i].offset, pieces[i].bytes, v, pieces[i].begin))
            PB_UNSAFE("bytes %llu+%llu of value %u (%s) are not in their place on the %s tier after the step",
                      (unsigned long long)pieces[i].begin, (unsigned long long)pieces[i].bytes, v, value->name,
                      pb_check_tier(pieces[i].tier));
    return PB_OK;
}

pb_status pb_check_end(const pb_checker *c) {
    static const char *const links[PB_LINK_COUNT] = {"upload", "download", "NVMe read", "NVMe write"};
    const pb_graph *g = c->graph;
    for (int l = 0; l < PB_LINK_COUNT; l++)
        if (c->moved[l] != c->program->moved[l])
            PB_UNSAFE("it moves %llu bytes by %s and says %llu", (unsigned long long)c->moved[l], links[l],
                      (unsigned long long)c->program->moved[l]);
    PB_RETURN_IF(check_nodes(c));
    bool *replaced = calloc((size_t)g->value_count + 1, sizeof *replaced);
    if (!replaced) PB_CHECK_MEMORY();
    for (pb_vid v = 0; v < g->value_count; v++)
        if (g->values[v].alias != PB_NONE && exists(&g->values[v])) replaced[g->values[v].alias] = true;
    pb_status status = PB_OK;
    for (pb_vid v = 0; v < g->value_count && status == PB_OK; v++) {
        const pb_value *value = &g->values[v];
        if (exists(value) && (value->output || (value->persistent && !replaced[v]))) status = check_left(c, v);
    }
    free(replaced);
    return status;
}
