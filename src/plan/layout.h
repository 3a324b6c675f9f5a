// Private to src/plan: which bytes move together. Parameters are cut into chunks by the order in which the forward pass
// first reads them; a chunk has a segment of weights and one of gradients, and its optimizer state is a segment for
// each of its units, the parts of a chunk that are updated at once. A segment lies in one piece wherever it is.
#ifndef PB_PLAN_LAYOUT_H
#define PB_PLAN_LAYOUT_H

#include "plan/plan.h"

enum { PB_LAYOUT_STATES = 6 };  // values of optimizer state per parameter, at most
// A parameter is only cut at multiples of this, so that every dtype's slice and every block of a block-wise codec stays
// whole and aligned.
enum { PB_SLICE_ELEMENTS = 4096 };
#define PB_CHUNK_BYTES (UINT64_C(32) << 20)  // of a unit's optimizer state, at most

typedef enum pb_segment_kind {
    PB_SEGMENT_WEIGHT,
    PB_SEGMENT_GRADIENT,
    PB_SEGMENT_STATE,
    PB_SEGMENT_OTHER,  // a persistent value that no update touches
} pb_segment_kind;

// A trained parameter, by its values; PB_NONE where it has no such value.
typedef struct pb_layout_param {
    pb_vid key;       // the root of adamw's master operand: tells parameters apart
    pb_vid weight;    // what the ops read: a root, or the update's output where it does not live on
    pb_vid gradient;  // a root
    pb_vid state[PB_LAYOUT_STATES];
    uint32_t state_count;
    uint32_t node;      // adamw, or UINT32_MAX in a graph that does not update
    bool reads_weight;  // the update needs the old weight; else it makes a new one of its state alone
    int64_t elements;
    uint32_t chunk;
    uint64_t weight_offset, gradient_offset;  // in the chunk's segments
} pb_layout_param;

// Elements [first, first + count) of a parameter within a unit; state[i] is where that part of its i-th state value
// lies in the unit's segment.
typedef struct pb_layout_slice {
    uint32_t param;
    int64_t first, count;
    uint64_t state_offset[PB_LAYOUT_STATES];
} pb_layout_slice;

typedef struct pb_layout_unit {
    uint32_t chunk;
    uint32_t first_slice, slice_count;
    uint64_t state_bytes;
} pb_layout_unit;

typedef struct pb_layout_chunk {
    uint32_t first_param, param_count;
    uint32_t first_unit, unit_count;
    uint64_t weight_bytes, gradient_bytes;
} pb_layout_chunk;

// Where a segment is between two steps.
typedef struct pb_home {
    pb_tier tier;
    uint32_t extent;
    uint64_t offset;
} pb_home;

// All that lives on, and where. A persistent root's ordinal among its graph's is the same in all graphs of a run; so a
// layout that was made for one of them can be adopted by another.
typedef struct pb_chunking {
    pb_vid *roots;  // of the graph that it is for, by ordinal
    uint32_t root_count;
    pb_layout_param *params;
    pb_layout_slice *slices;
    pb_layout_unit *units;
    pb_layout_chunk *chunks;
    uint32_t param_count, slice_count, unit_count, chunk_count;
    pb_vid *others;  // persistent values that no update touches
    uint32_t other_count;
    // Chosen by the planner: homes of chunks' weights and gradients, of units' states, of others. Meaningful for
    // segments that live on.
    pb_home *weight_home, *gradient_home, *state_home, *other_home;
    bool paged;             // something may be elsewhere than on the device
    bool host_updates;      // chunks whose state is not on the device are updated on the host
    uint32_t extent_count;  // of segments that live on
} pb_chunking;

// Bytes of the elements [0, count) of a state value of a parameter with `elements` elements: the value has as many, or
// one per block of a block-wise codec.
uint64_t pb_layout_slice_bytes(const pb_value *value, int64_t elements, int64_t count);

// Cuts the parameters of a graph with updates into units of at most `unit_bytes`, or, with 0, leaves each alone. Arrays
// live in `arena`.
pb_status pb_layout_create(pb_arena *arena, const pb_graph *graph, uint64_t unit_bytes, pb_chunking *layout);

// The layout of a program of the same run, homes included, for another of its graphs. PB_ERR_INTERNAL where the two do
// not have the same persistent values.
pb_status pb_layout_adopt(pb_arena *arena, const pb_chunking *from, const pb_graph *graph, pb_chunking *layout);

#endif
