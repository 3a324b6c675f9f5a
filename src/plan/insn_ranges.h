// Private to src/plan: the bytes that an instruction reads and writes.
#ifndef PB_PLAN_INSN_RANGES_H
#define PB_PLAN_INSN_RANGES_H

#include "plan/program.h"

// Of the device slab (0) or the host slab (1).
typedef struct pb_insn_range {
    int slab;
    uint64_t begin, end;
    bool write;
} pb_insn_range;

enum { PB_INSN_RANGES = PB_MAX_INPUTS + PB_MAX_OUTPUTS + 1 };  // at most

// Fills in the ranges of a RUN, UPDATE, RECAST, FETCH or EVICT, reads first; returns how many. Scratch counts as
// written, an extent of the store is none.
int pb_insn_ranges(const pb_graph *graph, const pb_insn *insn, pb_insn_range ranges[PB_INSN_RANGES]);

#endif
