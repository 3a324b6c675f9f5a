// Private to src/plan, the checker's: what each byte of a slab holds, and which instructions touched it last.
//
// The slab is cut into ranges, in ascending order and without gaps; each is uniform. They lie in blocks of a few dozen,
// so that inserting one moves no more than a block: a full-size program has tens of thousands of them.
#ifndef PB_PLAN_CHECK_RANGES_H
#define PB_PLAN_CHECK_RANGES_H

#include "base/tier.h"
#include "graph/graph.h"

// Which instruction wrote last, and which was the last of each lane to read since; UINT32_MAX for none.
typedef struct pb_touch {
    uint32_t writer, reader[PB_LANE_COUNT];
} pb_touch;

typedef struct pb_range {
    uint64_t begin;
    pb_vid value;   // PB_NONE: nothing that anybody may read
    uint64_t from;  // the byte of the value that lies at `begin`
    pb_touch touch;
} pb_range;

typedef struct pb_ranges pb_ranges;

// A slab of `bytes` bytes that holds nothing. NULL when there is no memory.
pb_ranges *pb_ranges_create(uint64_t bytes);
void pb_ranges_destroy(pb_ranges *ranges);  // NULL is allowed

// A place in the list. Any change of the ranges but of their touches makes it invalid.
typedef struct pb_range_place {
    uint32_t block, slot;
} pb_range_place;

// The range that holds byte `offset`; offset < bytes.
pb_range_place pb_ranges_find(const pb_ranges *ranges, uint64_t offset);
pb_range *pb_ranges_at(const pb_ranges *ranges, pb_range_place place);
uint64_t pb_ranges_end(const pb_ranges *ranges, pb_range_place place);         // where the range ends
pb_range_place pb_ranges_next(const pb_ranges *ranges, pb_range_place place);  // not past the slab's end

// Makes [begin, end) begin and end where ranges do; begin < end <= bytes. Where begin is. False: no memory.
bool pb_ranges_cut(pb_ranges *ranges, uint64_t begin, uint64_t end, pb_range_place *place);

// Puts with[0 .. count), count >= 1, which begin at `begin`, ascend and fill [begin, end), in place of what was there.
// False: no memory.
bool pb_ranges_replace(pb_ranges *ranges, uint64_t begin, uint64_t end, const pb_range *with, uint32_t count);

#endif
