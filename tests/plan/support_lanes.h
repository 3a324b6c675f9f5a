// The other judge of a program: runs it on symbols instead of numbers, in an order of events that is drawn at random
// from those that the lanes permit. It shares nothing with the checker but the format.
#ifndef PB_TESTS_PLAN_SUPPORT_LANES_H
#define PB_TESTS_PLAN_SUPPORT_LANES_H

#include "plan/plan.h"

typedef struct support_lanes support_lanes;

// Room for programs of `g` up to these sizes (bytes of all slabs and extents, instructions). All sizes and offsets must
// be multiples of 4.
support_lanes *support_lanes_create(const pb_graph *g);
void support_lanes_destroy(support_lanes *lanes);

// True: every op found its operands whole both when it began and when it ended, every node ran once over all of its
// elements, and all that must be left is there.
bool support_lanes_run(support_lanes *lanes, const pb_program *program, uint64_t *random);

#endif
