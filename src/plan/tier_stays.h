// Private to src/plan: what one tier holds when. The device and the host are treated alike: segments with known
// accesses, some of which leave for the tier below between two accesses, or live there between two steps, until what
// is left fits the budget. Slot s is the s-th thing that the step does (a node, or the update of a unit) together with
// the moves just before it; one more slot follows the last.
#ifndef PB_PLAN_TIER_STAYS_H
#define PB_PLAN_TIER_STAYS_H

#include "plan/program.h"

typedef enum pb_access_kind {
    PB_ACCESS_READ,
    PB_ACCESS_MODIFY,
    PB_ACCESS_WRITE,  // of all of it: what was there before is dead
    PB_ACCESS_SEND    // no use here: if it is here by then, it goes to the tier below, which uses it up
} pb_access_kind;

typedef struct pb_access {
    uint32_t slot;
    pb_access_kind kind;
} pb_access;

typedef struct pb_accesses {
    pb_access *items;  // ascending, one per slot at most
    uint32_t count;
    bool *vacated;  // by gap: [i] lies between accesses i and i + 1
} pb_accesses;

// Adds an access to a list that has room for it and none in a later slot. In one slot reads come before writes.
void pb_accesses_add(pb_accesses *list, uint32_t slot, pb_access_kind kind);

// Bytes that are in this tier in one place, or not at all.
typedef struct pb_tier_segment {
    uint64_t bytes;
    pb_class class_;
    bool live_in, live_out;  // has content before the step; must have it after
    bool home;               // in this tier between two steps
    bool alternate;          // `use[1]` holds instead of use[0]: the tier below does some of the work
    pb_accesses use[2];
    // What is remade is not kept over gap `remake_gap` of use[0] (unless it is evicted then), but made again at its
    // end: of its sources, as far as they live in this tier; and for each that does not, of a stand-in, a copy of that
    // part that waits elsewhere over the gap.
    bool remade;
    uint32_t remake_gap;
    // Of what can be remade: the first stand-in and how many; of a source: its own, and 1.
    uint32_t stand_in, stand_in_count;
    uint32_t dormant;                   // of a stand-in: how many reasons there are for it not to be there
    uint32_t earliest[2];               // slot of the first arrival from below, at the earliest
    uint64_t home_offset;               // where blocks that are at home lie; of those that live on only
    uint32_t first_block, block_count;  // result
} pb_tier_segment;

// It outlives the step.
static inline bool pb_tier_is_persistent(const pb_tier_segment *segment) {
    return segment->live_in && segment->live_out;
}

// A stay of a segment in the tier, slots first..last. It is used in needed..done; the rest is time for its moves.
typedef struct pb_tier_block {
    uint32_t segment;
    uint32_t first, needed, done, last;
    bool fetched;  // arrives from below in slot `first`
    bool evicted;  // is copied to below in slot done + 1, or in the last one
    bool at_home;  // lies where the segment is between two steps
    uint64_t offset;
} pb_tier_block;

// One way to need less, in the order in which they are to be tried.
typedef enum pb_relief_kind {
    PB_RELIEF_GAP,     // vacate gap `gap` of segment `index`
    PB_RELIEF_HOME,    // segment `index` lives below
    PB_RELIEF_REMAKE,  // segment `index` is remade
    PB_RELIEF_BUNDLE,  // segments bundle[index .. index + gap) live below and take their alternate accesses
} pb_relief_kind;

typedef struct pb_relief {
    pb_relief_kind kind;
    uint32_t index, gap;
    bool alternate;  // GAP: of which of the two uses
    double rank;     // lower first
    uint32_t order;
    bool taken, forced;  // result; and: take it in any case
} pb_relief;

typedef struct pb_tier_problem {
    uint32_t slot_count;  // the last one has moves only
    pb_tier_segment *segments;
    uint32_t segment_count;
    uint32_t *bundle;
    bool brings_home;               // what waits to be sent may wait here, where there is room
    uint64_t *other;                // by slot: bytes that are none of the segments' (scratch)
    const double *seconds;          // by slot: when it begins if no op waits for a move, slot_count + 1 entries
    double fetch_rate, evict_rate;  // bytes per second of the links to the tier below,
    double both_rate;               // and of both at once, in all
    double lead;                    // seconds by which what arrives should be early, where there is room
    bool drains;          // as much leaves as arrives, all the time: room for what leaves is what the rest waits for
    bool holds_eviction;  // what is copied to below keeps its place for the slot of the copy, as others arrive before
                          // it goes
    // Results.
    uint64_t *used;  // by slot
    pb_tier_block *blocks;
    uint32_t block_count;
} pb_tier_problem;

// Takes reliefs (sorted here) until at most `budget` bytes are used in any slot, then gives back the costliest that
// need not be. Returns whether it fits; with all reliefs taken and still too much used, false.
bool pb_tier_relieve(pb_tier_problem *problem, pb_relief *reliefs, uint32_t count, uint64_t budget);
// The most that is used in a slot.
uint64_t pb_tier_peak(const pb_tier_problem *problem);
// Makes the blocks, with as much time for their moves as the links want and `budget` leaves.
pb_status pb_tier_settle(pb_arena *arena, pb_tier_problem *problem, uint64_t budget);
// The slot in whose moves an evicted block is copied to the tier below.
static inline uint32_t pb_tier_eviction_slot(const pb_tier_problem *problem, const pb_tier_block *block) {
    return block->done + 1 < problem->slot_count ? block->done + 1 : problem->slot_count - 1;
}
// Whether a segment is made again at the end of its gap.
bool pb_tier_is_remade(const pb_tier_segment *segment);
// The block that holds a segment in a slot where it is used.
const pb_tier_block *pb_tier_find(const pb_tier_problem *problem, uint32_t segment, uint32_t slot);

#endif
