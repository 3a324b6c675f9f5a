// Private to src/plan: placed blocks by offset, and the searches for room among them.
#ifndef PB_PLAN_SHELF_H
#define PB_PLAN_SHELF_H

#include <stdbool.h>
#include <stdint.h>

enum { PB_SHELF_SCALE = 20 };
enum { PB_TRAY_ROOM = 128, PB_TRAY_GROUP = 8, PB_TRAY_GROUPS = PB_TRAY_ROOM / PB_TRAY_GROUP };

// Some of the placed blocks. What a search looks at lies side by side, so that it can look at many of them at once.
typedef struct pb_tray {
    uint32_t count;
    uint64_t most_end;
    uint64_t times[PB_TRAY_GROUPS];  // by group: parts of the step in which any of it is alive, a bit each
    uint64_t top[PB_TRAY_GROUPS];    // by group: the highest end
    int32_t first[PB_TRAY_ROOM], last[PB_TRAY_ROOM];
    uint64_t offset[PB_TRAY_ROOM], end[PB_TRAY_ROOM];
} pb_tray;

typedef struct pb_shelf {
    pb_tray *trays;   // room for pb_shelf_trays(blocks), zeroed
    uint32_t *order;  // of the trays that are in use, by ascending offset; as much room
    uint32_t count;
    uint32_t steps, scale;  // step s is in the part (s * scale) >> PB_SHELF_SCALE of 64
    uint64_t full[64];      // by part: below it nothing is free at any time of it
} pb_shelf;

// Steps first..last, both included, and how many bytes.
typedef struct pb_shelf_block {
    int32_t first, last;
    uint64_t bytes;
} pb_shelf_block;

// Trays that this many blocks may take.
uint32_t pb_shelf_trays(uint32_t blocks);

// For a step of `steps`.
void pb_shelf_clear(pb_shelf *shelf, uint32_t steps);
void pb_shelf_insert(pb_shelf *shelf, const pb_shelf_block *block, uint64_t offset);

// The lowest offset that is free during the block's life and at which it ends at or below `limit`; UINT64_MAX: none.
uint64_t pb_shelf_lowest(const pb_shelf *shelf, const pb_shelf_block *block, uint64_t limit);

// Lengthens the life of a block that lies at `offset` to both sides, as far as its bytes are free and at most to
// first..last.
void pb_shelf_stretch(pb_shelf *shelf, pb_shelf_block *block, uint64_t offset, int32_t first, int32_t last);

#endif
