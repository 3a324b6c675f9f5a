// The planner: a pure function from (graph, capabilities, budgets) to a program; and the checker that proves one safe.
#ifndef PB_PLAN_PLAN_H
#define PB_PLAN_PLAN_H

#include "base/machine.h"
#include "plan/program.h"

// Where weights' optimizer state has to be; elsewhere than on the device only between its updates. Never changes a
// result.
typedef enum pb_state_home { PB_STATE_ANYWHERE, PB_STATE_ON_DEVICE, PB_STATE_ON_HOST, PB_STATE_ON_NVME } pb_state_home;

// What lacks, as data: a tier, and what the attempts asked of it. No less does, and it may take more.
typedef struct pb_plan_refusal {
    pb_tier tier;
    uint64_t needed;  // bytes; 0 where that is not known
    bool slower;      // nothing lacks, or not in all attempts: there is one that would not be faster_than
} pb_plan_refusal;

typedef struct pb_plan_request {
    const pb_kernel_workspace *workspaces;  // by pb_opcode; entries may be NULL
    uint64_t budget[PB_TIER_COUNT];  // bytes of each tier; UINT64_MAX for no limit, 0 for a tier that is not there
    const pb_machine *machine;       // how fast things go; NULL: something middling
    pb_state_home state;
    bool quick;                // the first way that fits will do
    double faster_than;        // seconds, or 0: what is slower is of no use, and need not be planned
    pb_plan_refusal *refusal;  // NULL, or where a refusal goes: then no time is spent on looking for the
                               // smallest budget that works
    const pb_program *like;    // a program of the same run, whose persistent values this one must find and
                               // leave at the same places; or NULL
} pb_plan_request;

// Errors: PB_ERR_BUDGET (names the smallest budget that works), PB_ERR_MEMORY.
pb_status pb_plan(const pb_graph *graph, const pb_plan_request *request, pb_program **program);

// Of graphs that do the same with the same results, the one that is predicted to be the fastest: *chosen. Like pb_plan.
pb_status pb_plan_fastest(const pb_graph *const *graphs, uint32_t count, const pb_plan_request *request,
                          uint32_t *chosen, pb_program **program);

// Whether everything works within limits->budget. PB_ERR_BUDGET: no, and what lacks is in *limits->refusal.
typedef pb_status (*pb_plan_probe)(void *context, const pb_plan_request *limits);
// From budgets that do not work, with what lacks in *limits->refusal, to ones that do, in limits->budget: that of what
// lacks is raised, and that of the other tiers where they then lack; afterwards that of tier t is lowered to within a
// sixty-fourth of the least that works. False: none were found. Every probe is a plan.
bool pb_smallest_budgets(pb_plan_probe probe, void *context, pb_plan_request *limits, pb_tier t);

// Independent of the planner: simulates the tiers byte range by byte range, with every order of events that the lanes
// permit, and rejects a program that reads what is not there, overwrites what is still needed, races, leaves its
// budget, misses a node, an element or an output, or breaks alignment. Errors: PB_ERR_INTERNAL, with the instruction
// and the value.
pb_status pb_program_check(const pb_graph *graph, const pb_program *program, const pb_plan_request *request);

#endif
