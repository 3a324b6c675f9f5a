// Private to src/plan: one attempt at a program. pager_build.c turns a graph and a layout into slots, segments and
// accesses; pager_reliefs.c lists what can be done for less to be in a tier; pager_solve.c decides what is where and
// when; pager_emit.c writes the instructions down.
#ifndef PB_PLAN_PAGER_H
#define PB_PLAN_PAGER_H

#include "plan/layout.h"
#include "plan/tier_stays.h"

#define NO_MEMORY pb_error(PB_ERR_MEMORY, "no memory for a plan")

// What the step does in one slot: a node, or the update of a unit.
typedef struct pb_slot {
    uint32_t node;  // UINT32_MAX: a unit
    uint32_t unit;  // UINT32_MAX, too: nothing, only moves
} pb_slot;

// Where updates run whose state is not on the device.
typedef enum pb_strategy {
    PB_STRATEGY_STREAM,  // their state comes to the device and goes back
    PB_STRATEGY_HOST,    // gradients go to the host, the host updates, weights come back
} pb_strategy;

// What one attempt tries; the planner keeps the best of several.
typedef struct pb_attempt {
    pb_strategy strategy;
    double reserve;          // share of the budgets that is left for moves,
    uint64_t most_reserved;  // but of each tier no more than these bytes
    bool gradients_stay;     // those that the host updates from wait on the device, where there is room
    bool gradients_first;    // which leave the host first: pending gradients or optimizer state
    bool weights_first;      // weights that the host updates leave the device between their uses before more state does
    bool activations_first;  // activations leave the device from the forward to the backward pass before state does
} pb_attempt;

typedef struct pb_place_of {
    uint32_t segment;  // UINT32_MAX: none
    uint64_t offset;
} pb_place_of;

typedef struct pb_pager {
    const pb_graph *graph;
    const pb_plan_request *request;
    const pb_machine *machine;
    pb_arena *arena;  // of the attempt
    pb_chunking *layout;
    bool adopted;  // the layout's homes are given
    pb_attempt attempt;
    bool estimates;  // decides what moves, but finds no offsets
    bool exhausted;  // with no reserve on the device no offsets were found before
    pb_slot *slots;
    uint32_t slot_count;  // of what is done; the problems have one more
    double *seconds;      // slot_count + 2
    pb_place_of *place;   // by value: the device segment and where in it; state values have none
    // Device segments, by what they are: of chunks, of units, of other persistent values, stand-ins for the part of
    // weights that a unit's state would make again, by unit; and then values that do not live on.
    uint32_t weight_segment, gradient_segment, state_segment, other_segment, stand_in_segment, value_segment;
    pb_tier_problem device, host;
    uint32_t *host_segment;  // by device segment; UINT32_MAX: never on the host
    // By chunk: the gradients that the host updates it from are sent unit by unit, each just before its update, and
    // wait on the device until then. So are those that are made again for the update; those that wait from one step to
    // the next are on the host as a whole, if they are there at all.
    bool *in_parts;
    uint32_t *part_segment;  // by unit: the host segment of its part of the gradients, where that is sent by itself
    uint32_t *update_slot;   // by unit; UINT32_MAX: there is none
    uint64_t *scratch;       // workspace bytes by slot
    uint64_t *scratch_offset;
    uint64_t *extent_bytes;
    uint32_t *extent;  // by device segment; UINT32_MAX: never on NVMe
    uint32_t extent_count;
    uint64_t hyper_offset, control_offset;  // on the host, of what the updates there read
    pb_vid hyper, control;
    uint32_t last_host_update;  // slot, or UINT32_MAX
    uint64_t device_bytes, host_bytes;
    bool host_relieved;  // something has left the host, so it matters what goes first
    bool unplaced;       // where it does not fit: less is alive, but no placement was found
} pb_pager;

// A unit's part of its chunk's gradients leaves the device in the moves of this many slots before the host's update.
enum { PB_PART_AHEAD = 1 };

// Whether what the device sends of a segment is sent unit by unit: gradients that the host updates from.
static inline bool pb_sends_parts(const pb_pager *p, uint32_t device_segment) {
    return device_segment >= p->gradient_segment && device_segment < p->state_segment &&
           p->device.segments[device_segment].alternate && p->in_parts[device_segment - p->gradient_segment];
}

static inline bool pb_host_updates(const pb_pager *p) {
    return p->attempt.strategy == PB_STRATEGY_HOST;
}

typedef struct pb_relief_list {
    pb_relief *items;  // from malloc
    uint32_t count, room;
} pb_relief_list;

// Something that may leave a tier: when it is used, how much it moves, and of several that are used at about the same
// time, which one is to leave first.
typedef struct pb_spread_item {
    double seconds, wish;  // lower first
    uint64_t bytes;
    uint32_t index;
} pb_spread_item;

// Puts them in the order in which they should leave. False: no memory.
bool pb_pager_spread(pb_spread_item *items, uint32_t count);

// All that may leave the device or the host, or not be kept there, with ranks. False: no memory.
bool pb_pager_list_device_reliefs(pb_pager *pager, pb_relief_list *list);
bool pb_pager_list_host_reliefs(pb_pager *pager, pb_relief_list *list);
// Of the device, what moves nothing.
bool pb_pager_list_remakes(const pb_pager *pager, pb_relief_list *list);

// Which bytes of its chunk's gradients a unit's are.
void pb_pager_find_part(const pb_pager *p, uint32_t unit, uint64_t *begin, uint64_t *bytes);

// Slots, segments, accesses. The attempt's arena, graph, request, machine, layout and attempt are set.
pb_status pb_pager_build(pb_pager *p);
// Decides. PB_ERR_BUDGET where it does not fit; *needed: device, host and NVMe bytes with which it would, as far as
// known.
pb_status pb_pager_solve(pb_pager *p, uint64_t needed[PB_TIER_COUNT]);
// The slot in which the backward pass begins.
uint32_t pb_pager_first_backward(const pb_pager *p);
// What no step with these decisions is faster than, in seconds; enough of a solution for it is there with `estimates`.
double pb_pager_bound(const pb_pager *p);
// The program, in an arena of its own.
pb_status pb_pager_emit(pb_pager *p, pb_program **program);

// Inserts the WAITs that the lanes need to do what the list says; the new list lives in `arena`. PB_ERR_MEMORY.
pb_status pb_program_synchronize(pb_arena *arena, const pb_graph *graph, pb_program *program);

#endif
