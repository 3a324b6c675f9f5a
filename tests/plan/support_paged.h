// Paged programs by naive means: values live on the device, the host or NVMe as the dice fall, and each op fetches what
// it reads and evicts what it wrote. Valid by construction, good for nothing but to hold the checker against.
#ifndef PB_TESTS_PLAN_SUPPORT_PAGED_H
#define PB_TESTS_PLAN_SUPPORT_PAGED_H

#include "plan/plan.h"

// What an instruction touches. `where` is a tier for the slabs, PB_TIER_NVME + extent for an extent.
typedef struct support_access {
    uint64_t where, begin, end;
    bool writes;
} support_access;
enum { SUPPORT_ACCESSES = PB_MAX_INPUTS + PB_MAX_OUTPUTS + 1 };
int support_accesses(const pb_graph *g, const pb_insn *insn, support_access *accesses);

typedef struct support_paging {
    uint64_t seed;
    bool chain;  // each instruction waits for the one before it, rather than for what it conflicts with: for large ones
} support_paging;

// `resident` is the plan of `g` without any move. The result's budget is its tier_bytes. Caller: pb_program_destroy.
pb_program *support_page(const pb_graph *g, const pb_program *resident, const support_paging *paging);

#endif
