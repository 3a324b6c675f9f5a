// The planner: a pure function from (graph, capabilities, budget) to a program; and the checker that proves one safe.
#ifndef PB_PLAN_PLAN_H
#define PB_PLAN_PLAN_H

#include "plan/program.h"

typedef struct pb_plan_request {
    const pb_kernel_workspace *workspaces;  // by pb_opcode; entries may be NULL
    uint64_t device_budget;                 // bytes of the slab; UINT64_MAX for no limit
} pb_plan_request;

// Errors: PB_ERR_BUDGET (names the smallest budget that works), PB_ERR_MEMORY.
pb_status pb_plan(const pb_graph *graph, const pb_plan_request *request, pb_program **program);

// Independent of the planner: simulates the slab byte range by byte range and rejects a program that reads what is
// not there, overwrites what is still needed, leaves the slab, misses a node or an output, or breaks alignment.
// Errors: PB_ERR_INTERNAL, with the instruction and the value.
pb_status pb_program_check(const pb_graph *graph, const pb_program *program, const pb_plan_request *request);

#endif
