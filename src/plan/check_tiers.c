// The checker's tiers: reads, writes and moves of byte ranges, and the order that lanes and WAITs give them.
#include <stdlib.h>

#include "plan/check_internal.h"

static const char *const lanes[PB_LANE_COUNT] = {"compute", "upload", "download", "host", "read", "write"};

const char *pb_check_tier(pb_tier tier) {
    return tier == PB_TIER_DEVICE ? "device" : tier == PB_TIER_HOST ? "host" : "nvme";
}

const char *pb_check_deed(const pb_checker *c, uint32_t i) {
    if (i >= c->program->insn_count) return "before the first";
    const pb_insn *insn = &c->program->insns[i];
    if (insn->kind == PB_INSN_FETCH) return insn->lane == PB_LANE_READ ? "FETCH from NVMe" : "FETCH";
    if (insn->kind == PB_INSN_EVICT) return insn->lane == PB_LANE_WRITE ? "EVICT to NVMe" : "EVICT";
    if (insn->kind == PB_INSN_WAIT) return "WAIT";
    if (insn->kind == PB_INSN_RECAST) return "RECAST";
    return insn->node < c->graph->node_count ? pb_op_name(c->graph->nodes[insn->node].op) : "no node";
}

pb_status pb_check_within(const pb_checker *c, pb_tier tier, uint64_t offset, uint64_t bytes, uint64_t alignment,
                          const char *what, uint32_t id) {
    const uint64_t size = c->program->tier_bytes[tier];
    if (offset % alignment) PB_UNSAFE("%s %u is not aligned to %llu", what, id, (unsigned long long)alignment);
    if (offset > size || bytes > size - offset) PB_UNSAFE("%s %u leaves the %s slab", what, id, pb_check_tier(tier));
    return PB_OK;
}

// Whether instruction `before` is complete when the present one begins.
static bool known(const pb_checker *c, uint32_t before) {
    if (before == UINT32_MAX || before == c->now) return true;
    return c->clock[c->program->insns[c->now].lane][c->program->insns[before].lane] > before;
}

static pb_status race(const pb_checker *c, const char *deed, pb_vid value, uint32_t other, const char *others_deed) {
    PB_UNSAFE(
        "instruction %u (%s, lane %s) %s bytes of value %d (%s) that instruction %u (%s, lane %s) may still be %s: "
        "a WAIT is missing",
        c->now, pb_check_deed(c, c->now), lanes[c->program->insns[c->now].lane], deed, (int)value,
        pb_check_name(c, value), other, pb_check_deed(c, other), lanes[c->program->insns[other].lane], others_deed);
}

static pb_status touch_to_read(pb_checker *c, pb_touch *touch, pb_vid value) {
    if (!known(c, touch->writer)) return race(c, "reads", value, touch->writer, "writing");
    touch->reader[c->program->insns[c->now].lane] = c->now;
    return PB_OK;
}

static pb_status touch_to_write(const pb_checker *c, const pb_touch *touch, pb_vid value) {
    if (!known(c, touch->writer)) return race(c, "overwrites", value, touch->writer, "writing");
    for (int l = 0; l < PB_LANE_COUNT; l++)
        if (!known(c, touch->reader[l])) return race(c, "overwrites", value, touch->reader[l], "reading");
    return PB_OK;
}

static pb_touch written(const pb_checker *c) {
    pb_touch touch = {.writer = c->now};
    for (int l = 0; l < PB_LANE_COUNT; l++) touch.reader[l] = UINT32_MAX;
    return touch;
}

pb_status pb_check_read(pb_checker *c, pb_tier tier, uint64_t offset, uint64_t bytes, pb_vid value, uint64_t from) {
    pb_ranges *slab = c->slab[tier];
    pb_range_place place;
    if (!pb_ranges_cut(slab, offset, offset + bytes, &place)) PB_CHECK_MEMORY();
    for (;; place = pb_ranges_next(slab, place)) {
        pb_range *r = pb_ranges_at(slab, place);
        if (r->value != value || r->from - from != r->begin - offset)
            PB_UNSAFE(
                "instruction %u (%s) reads value %u (%s), whose byte %llu is not at %s offset %llu: value %d (%s) is",
                c->now, pb_check_deed(c, c->now), value, pb_check_name(c, value),
                (unsigned long long)(from + (r->begin - offset)), pb_check_tier(tier), (unsigned long long)r->begin,
                (int)r->value, pb_check_name(c, r->value));
        PB_RETURN_IF(touch_to_read(c, &r->touch, value));
        if (pb_ranges_end(slab, place) >= offset + bytes) return PB_OK;
    }
}

// Whether the present instruction may write there.
static pb_status may_write(pb_checker *c, pb_tier tier, uint64_t begin, uint64_t end) {
    const pb_ranges *slab = c->slab[tier];
    for (pb_range_place place = pb_ranges_find(slab, begin);; place = pb_ranges_next(slab, place)) {
        const pb_range *r = pb_ranges_at(slab, place);
        PB_RETURN_IF(touch_to_write(c, &r->touch, r->value));
        if (pb_ranges_end(slab, place) >= end) return PB_OK;
    }
}

pb_status pb_check_write(pb_checker *c, pb_tier tier, uint64_t offset, uint64_t bytes, pb_vid value, uint64_t from) {
    PB_RETURN_IF(may_write(c, tier, offset, offset + bytes));
    const pb_range range = {.begin = offset, .value = value, .from = from, .touch = written(c)};
    if (!pb_ranges_replace(c->slab[tier], offset, offset + bytes, &range, 1)) PB_CHECK_MEMORY();
    return PB_OK;
}

static bool grow(pb_range **array, uint32_t *capacity, uint32_t needed) {
    if (needed <= *capacity) return true;
    const uint32_t larger = needed + needed / 2 + 8;
    pb_range *grown = realloc(*array, larger * sizeof *grown);
    if (!grown) return false;
    *array = grown;
    *capacity = larger;
    return true;
}

bool pb_check_add_part(pb_extent_state *extent, const pb_range *part) {
    if (!grow(&extent->parts, &extent->part_capacity, extent->part_count + 1)) return false;
    extent->parts[extent->part_count++] = *part;
    return true;
}

// Adds to what a move carries; what goes on where the part before it ends becomes one with it.
static bool carry(pb_checker *c, uint64_t begin, pb_vid value, uint64_t from) {
    if (c->copy_count) {
        const pb_range *last = &c->copy[c->copy_count - 1];
        if (last->value == value && (value == PB_NONE || from - last->from == begin - last->begin)) return true;
    }
    if (!grow(&c->copy, &c->copy_capacity, c->copy_count + 1)) return false;
    c->copy[c->copy_count++] = (pb_range){.begin = begin, .value = value, .from = from, .touch = written(c)};
    return true;
}

// Reads `bytes` at `from` for a move, of which the first `wanted` are carried.
static pb_status pick_up(pb_checker *c, pb_tier tier, uint64_t from, uint64_t bytes, uint64_t wanted) {
    pb_ranges *slab = c->slab[tier];
    pb_range_place place;
    if (!pb_ranges_cut(slab, from, from + bytes, &place)) PB_CHECK_MEMORY();
    for (;; place = pb_ranges_next(slab, place)) {
        pb_range *r = pb_ranges_at(slab, place);
        PB_RETURN_IF(touch_to_read(c, &r->touch, r->value));
        if (r->begin - from < wanted && !carry(c, r->begin - from, r->value, r->from)) PB_CHECK_MEMORY();
        if (pb_ranges_end(slab, place) >= from + bytes) return PB_OK;
    }
}

static pb_status put_down(pb_checker *c, pb_tier tier, uint64_t to, uint64_t bytes) {
    PB_RETURN_IF(may_write(c, tier, to, to + bytes));
    for (uint32_t i = 0; i < c->copy_count; i++) c->copy[i].begin += to;
    if (!pb_ranges_replace(c->slab[tier], to, to + bytes, c->copy, c->copy_count)) PB_CHECK_MEMORY();
    return PB_OK;
}

// The store moves whole blocks: what lies in the slab behind the last byte is read or lost as well.
static uint64_t whole_blocks(uint64_t bytes) {
    return (bytes + PB_EXTENT_ALIGNMENT - 1) / PB_EXTENT_ALIGNMENT * PB_EXTENT_ALIGNMENT;
}

static pb_status check_nvme_move(pb_checker *c, const pb_insn *insn) {
    const bool reads = insn->lane == PB_LANE_READ;
    const uint64_t offset = reads ? insn->to : insn->from, bytes = insn->bytes;
    if (reads ? insn->from : insn->to)
        PB_UNSAFE("instruction %u moves an extent from elsewhere than its beginning", c->now);
    if (insn->extent >= c->program->extent_count)
        PB_UNSAFE("instruction %u moves extent %u, which is not there", c->now, insn->extent);
    if (bytes > c->program->extent_bytes[insn->extent])
        PB_UNSAFE("instruction %u moves %llu bytes, more than extent %u takes", c->now, (unsigned long long)bytes,
                  insn->extent);
    PB_RETURN_IF(pb_check_within(c, PB_TIER_HOST, offset, whole_blocks(bytes), PB_EXTENT_ALIGNMENT,
                                 "the host side of instruction", c->now));
    pb_extent_state *extent = &c->extents[insn->extent];
    const pb_vid some = extent->part_count ? extent->parts[0].value : PB_NONE;
    if ((reads || extent->lasting) && bytes != extent->bytes)
        PB_UNSAFE("instruction %u (%s) moves %llu bytes, but extent %u (value %d, %s) holds %llu", c->now,
                  pb_check_deed(c, c->now), (unsigned long long)bytes, insn->extent, (int)some, pb_check_name(c, some),
                  (unsigned long long)extent->bytes);
    if (!reads) {
        PB_RETURN_IF(touch_to_write(c, &extent->touch, some));
        PB_RETURN_IF(pick_up(c, PB_TIER_HOST, offset, whole_blocks(bytes), bytes));
        extent->part_count = 0;
        for (uint32_t i = 0; i < c->copy_count; i++)
            if (!pb_check_add_part(extent, &c->copy[i])) PB_CHECK_MEMORY();
        extent->bytes = bytes;
        extent->touch = written(c);
        return PB_OK;
    }
    PB_RETURN_IF(touch_to_read(c, &extent->touch, some));
    for (uint32_t i = 0; i < extent->part_count; i++) {
        const pb_range *part = &extent->parts[i];
        if (!carry(c, part->begin, part->value, part->from)) PB_CHECK_MEMORY();
    }
    if (whole_blocks(bytes) > bytes && !carry(c, bytes, PB_NONE, 0)) PB_CHECK_MEMORY();
    return put_down(c, PB_TIER_HOST, offset, whole_blocks(bytes));
}

pb_status pb_check_move(pb_checker *c, const pb_insn *insn) {
    static const struct {
        pb_insn_kind kind;
        pb_lane lane;
        pb_tier from, to;
    } links[PB_LINK_COUNT] = {
        [PB_LINK_UPLOAD] = {PB_INSN_FETCH, PB_LANE_UPLOAD, PB_TIER_HOST, PB_TIER_DEVICE},
        [PB_LINK_DOWNLOAD] = {PB_INSN_EVICT, PB_LANE_DOWNLOAD, PB_TIER_DEVICE, PB_TIER_HOST},
        [PB_LINK_NVME_READ] = {PB_INSN_FETCH, PB_LANE_READ, PB_TIER_NVME, PB_TIER_HOST},
        [PB_LINK_NVME_WRITE] = {PB_INSN_EVICT, PB_LANE_WRITE, PB_TIER_HOST, PB_TIER_NVME},
    };
    int link = 0;
    while (link < PB_LINK_COUNT && (links[link].kind != insn->kind || links[link].lane != insn->lane ||
                                    links[link].from != insn->from_tier || links[link].to != insn->to_tier))
        link++;
    if (link == PB_LINK_COUNT)
        PB_UNSAFE("instruction %u (%s): lane %s does not move from %s to %s", c->now, pb_check_deed(c, c->now),
                  lanes[insn->lane], pb_check_tier(insn->from_tier), pb_check_tier(insn->to_tier));
    if (!insn->bytes) PB_UNSAFE("instruction %u moves nothing", c->now);
    c->moved[link] += insn->bytes;
    c->copy_count = 0;
    if (link == PB_LINK_NVME_READ || link == PB_LINK_NVME_WRITE) return check_nvme_move(c, insn);
    PB_RETURN_IF(pb_check_within(c, insn->from_tier, insn->from, insn->bytes, PB_ALIGNMENT, "the source of instruction",
                                 c->now));
    PB_RETURN_IF(
        pb_check_within(c, insn->to_tier, insn->to, insn->bytes, PB_ALIGNMENT, "the target of instruction", c->now));
    PB_RETURN_IF(pick_up(c, insn->from_tier, insn->from, insn->bytes, insn->bytes));
    return put_down(c, insn->to_tier, insn->to, insn->bytes);
}

pb_status pb_check_wait(pb_checker *c, const pb_insn *insn) {
    if (insn->on >= c->now) PB_UNSAFE("instruction %u waits for %u, which does not come before it", c->now, insn->on);
    const pb_insn *on = &c->program->insns[insn->on];
    if (on->kind == PB_INSN_WAIT) PB_UNSAFE("instruction %u waits for %u, a WAIT", c->now, insn->on);
    if (on->lane == insn->lane && insn->lane != PB_LANE_READ && insn->lane != PB_LANE_WRITE)
        PB_UNSAFE("instruction %u: lane %s waits for itself", c->now, lanes[insn->lane]);
    uint32_t *clock = c->clock[insn->lane];
    for (int l = 0; l < PB_LANE_COUNT; l++)
        if (c->began[insn->on][l] > clock[l]) clock[l] = c->began[insn->on][l];
    if (clock[on->lane] < insn->on + 1) clock[on->lane] = insn->on + 1;
    return PB_OK;
}

static bool continues(const pb_range *r, uint64_t offset, pb_vid value, uint64_t from) {
    return r->value == value && r->from - from == r->begin - offset;
}

bool pb_check_holds(const pb_checker *c, pb_tier tier, uint32_t extent, uint64_t offset, uint64_t bytes, pb_vid value,
                    uint64_t from) {
    if (tier == PB_TIER_NVME) {
        const pb_extent_state *e = &c->extents[extent];
        for (uint32_t i = 0; i < e->part_count; i++) {
            const uint64_t begin = e->parts[i].begin, end = i + 1 < e->part_count ? e->parts[i + 1].begin : e->bytes;
            if (end <= offset || begin >= offset + bytes) continue;
            if (!continues(&e->parts[i], offset, value, from)) return false;
        }
        return offset + bytes <= e->bytes;
    }
    const pb_ranges *slab = c->slab[tier];
    for (pb_range_place place = pb_ranges_find(slab, offset);; place = pb_ranges_next(slab, place)) {
        if (!continues(pb_ranges_at(slab, place), offset, value, from)) return false;
        if (pb_ranges_end(slab, place) >= offset + bytes) return true;
    }
}
