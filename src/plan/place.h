// Private to src/plan: offsets for blocks with known lifetimes.
#ifndef PB_PLAN_PLACE_H
#define PB_PLAN_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef struct pb_block {
    uint64_t bytes;         // a multiple of PB_ALIGNMENT; 0: takes no room
    uint32_t first, last;   // alive at the steps first..last, both included; result: shortened where nothing else fits
    uint32_t needed, done;  // first <= needed <= done <= last: never shortened to less than needed..done
    bool pinned;            // `offset` is given; no two pinned blocks overlap
    uint64_t offset;        // result
} pb_block;

// Most bytes alive at one step: no placement can be smaller without shorter lives.
uint64_t pb_blocks_lower_bound(const pb_block *blocks, uint32_t count, uint32_t steps);

// Sets every offset that is not pinned; no two blocks that are alive at the same step overlap. *height: what it takes;
// above `limit`: it does not fit, the blocks are left as they were, and how high an attempt has come.
// Where a block does not fit below `limit`, its life is shortened; UINT64_MAX: as low as it gets, with whole lives.
// With `shortens` all are placed with the shortest lives first, which then grow as far as there is room: that fits more
// often and leaves less time. Steps are below `steps`, and that is below INT32_MAX.
pb_status pb_blocks_place(pb_block *blocks, uint32_t count, uint32_t steps, uint64_t limit, bool shortens,
                          uint64_t *height);

#endif
