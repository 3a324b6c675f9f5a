// Paged programs made without a planner, from a graph alone: every node fetches what it reads into one of two frames
// and sends away what it has made, and persistent values lie in all tiers. Naive, but with every kind of instruction,
// and with exactly the WAITs that the lanes need: a hazard that follows from no earlier WAIT gets one.
#ifndef PB_TESTS_EXEC_SUPPORT_PAGING_H
#define PB_TESTS_EXEC_SUPPORT_PAGING_H

#include "exec/executor.h"

// The same program for the same seed; of seed 0, one that has everything on the device. NULL: no memory.
pb_program *support_paging_program(const pb_graph *g, const pb_backend *backend, uint64_t seed);

// A copy without instruction `without`; all others keep their order, and WAITs what they wait for.
pb_program *support_program_without(const pb_program *program, uint32_t without);

#endif
