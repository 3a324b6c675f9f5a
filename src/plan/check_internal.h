// Private to the checker: its picture of the tiers, and what instructions do to it. The order of events that the lanes
// guarantee is kept in vector clocks: for each lane, and for each instruction when it begins, how far each other lane
// is known to be complete. Two instructions that touch the same bytes, one of them writing, must be ordered so.
#ifndef PB_PLAN_CHECK_INTERNAL_H
#define PB_PLAN_CHECK_INTERNAL_H

#include "plan/check_ranges.h"
#include "plan/plan.h"

// What an extent holds: parts[0 .. part_count), their `begin` relative to the extent.
typedef struct pb_extent_state {
    pb_range *parts;
    uint32_t part_count, part_capacity;
    uint64_t bytes;  // that were written last; 0: nothing yet
    bool lasting;    // pieces lie in it: it is always written whole
    pb_touch touch;
} pb_extent_state;

// An UPDATE, for the count of the elements.
typedef struct pb_update {
    uint32_t node, insn;
    int64_t first, count;
} pb_update;

typedef struct pb_checker {
    const pb_graph *graph;
    const pb_program *program;
    const pb_plan_request *request;
    pb_ranges *slab[PB_TIER_NVME];  // DEVICE, HOST
    pb_extent_state *extents;
    uint32_t now;  // the instruction that is looked at; UINT32_MAX before the first one
    // clock[l][k]: what begins on lane l now begins after all of lane k's instructions with a smaller index than this.
    uint32_t clock[PB_LANE_COUNT][PB_LANE_COUNT];
    uint32_t (*began)[PB_LANE_COUNT];  // by instruction: its lane's clock when it began
    pb_range *copy;                    // what a move carries, `begin` relative to its start
    uint32_t copy_count, copy_capacity;
    uint8_t *runs;  // by node: 0, PB_RAN or PB_UPDATED
    pb_update *updates;
    uint32_t update_count;
    uint64_t moved[PB_LINK_COUNT];
} pb_checker;

enum { PB_RAN = 1, PB_UPDATED };

#define PB_UNSAFE(...) return pb_error(PB_ERR_INTERNAL, "unsafe program: " __VA_ARGS__)
#define PB_CHECK_MEMORY() return pb_error(PB_ERR_MEMORY, "no memory to check a program")

static inline const char *pb_check_name(const pb_checker *c, pb_vid v) {
    return v == PB_NONE ? "no value" : c->graph->values[v].name;
}

// Of a tier, or of what instruction `insn` does.
const char *pb_check_tier(pb_tier tier);
const char *pb_check_deed(const pb_checker *c, uint32_t insn);

// [offset, offset + bytes) lies in the slab of `tier`, aligned; `what` and `id` name it in the message.
pb_status pb_check_within(const pb_checker *c, pb_tier tier, uint64_t offset, uint64_t bytes, uint64_t alignment,
                          const char *what, uint32_t id);

// The instruction `now` reads bytes [from, from + bytes) of a value: they must be there. bytes > 0, within the slab.
pb_status pb_check_read(pb_checker *c, pb_tier tier, uint64_t offset, uint64_t bytes, pb_vid value, uint64_t from);
// It writes them there; PB_NONE: scratch.
pb_status pb_check_write(pb_checker *c, pb_tier tier, uint64_t offset, uint64_t bytes, pb_vid value, uint64_t from);
pb_status pb_check_move(pb_checker *c, const pb_insn *insn);
pb_status pb_check_wait(pb_checker *c, const pb_insn *insn);
// RUN and UPDATE.
pb_status pb_check_node(pb_checker *c, const pb_insn *insn);
pb_status pb_check_recast(pb_checker *c, const pb_insn *insn);

// Whether the bytes lie at `offset`, however that came about; no instruction reads them.
bool pb_check_holds(const pb_checker *c, pb_tier tier, uint32_t extent, uint64_t offset, uint64_t bytes, pb_vid value,
                    uint64_t from);
// Adds to an extent's parts; they must ascend. False: no memory.
bool pb_check_add_part(pb_extent_state *extent, const pb_range *part);

// What lies where before the first instruction and must lie there after the last one.
pb_status pb_check_begin(pb_checker *c);
pb_status pb_check_end(const pb_checker *c);

#endif
