// Private to src/plan: for every byte of a slab, the instruction that wrote it last and those that have read it since.
#ifndef PB_PLAN_BYTE_HISTORY_H
#define PB_PLAN_BYTE_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/tier.h"

// By lane, how far it has come: positions of instructions on it, from 1; 0 is nothing.
typedef struct pb_stamp {
    uint32_t at[PB_LANE_COUNT];
} pb_stamp;

// Takes what is further.
void pb_stamp_join(pb_stamp *to, const pb_stamp *from);

typedef struct pb_byte_history pb_byte_history;

// Of a slab that nothing has touched. NULL when there is no memory.
pb_byte_history *pb_byte_history_create(void);
void pb_byte_history_destroy(pb_byte_history *history);  // NULL is allowed

// What an access to [begin, end) must come after is joined to *wanted: the writers, and for a write the readers too.
void pb_byte_history_gather(const pb_byte_history *history, uint64_t begin, uint64_t end, bool write, pb_stamp *wanted);

// The instruction at `position` of `lane` reads or writes [begin, end); begin < end. False: no memory.
bool pb_byte_history_read(pb_byte_history *history, uint64_t begin, uint64_t end, pb_lane lane, uint32_t position);
bool pb_byte_history_write(pb_byte_history *history, uint64_t begin, uint64_t end, pb_lane lane, uint32_t position);

#endif
