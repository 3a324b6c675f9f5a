// The independent checker: a simulation of the tiers that knows nothing of the planner's reasons. It keeps, for every
// byte of the slabs and extents, which byte of which version of a value lies there, and which instructions touched it
// last. An input must be there byte for byte, a write destroys what it covers, and whatever touches the same bytes must
// be ordered by lanes and WAITs. What a program computes is then what the graph says, whatever the offsets are and in
// whatever order the lanes get on.
#include <stdlib.h>
#include <string.h>

#include "plan/check_internal.h"

static pb_status check_insn(pb_checker *c, const pb_insn *insn) {
    if ((unsigned)insn->lane >= PB_LANE_COUNT) PB_UNSAFE("instruction %u is on no lane", c->now);
    if (insn->kind == PB_INSN_WAIT) return pb_check_wait(c, insn);
    // Lanes but READ and WRITE finish one instruction before they begin the next.
    if (insn->lane != PB_LANE_READ && insn->lane != PB_LANE_WRITE) c->clock[insn->lane][insn->lane] = c->now;
    memcpy(c->began[c->now], c->clock[insn->lane], sizeof c->began[c->now]);
    switch (insn->kind) {
    case PB_INSN_RUN:
    case PB_INSN_UPDATE: return pb_check_node(c, insn);
    case PB_INSN_RECAST: return pb_check_recast(c, insn);
    case PB_INSN_FETCH:
    case PB_INSN_EVICT: return pb_check_move(c, insn);
    default: PB_UNSAFE("instruction %u is of no kind", c->now);
    }
}

static pb_status allocate(pb_checker *c) {
    const uint32_t insns = c->program->insn_count, extents = c->program->extent_count;
    for (int t = 0; t < PB_TIER_NVME; t++)
        if (!(c->slab[t] = pb_ranges_create(c->program->tier_bytes[t]))) PB_CHECK_MEMORY();
    c->extents = calloc((size_t)extents + 1, sizeof *c->extents);
    c->began = calloc((size_t)insns + 1, sizeof *c->began);
    c->runs = calloc((size_t)c->graph->node_count + 1, sizeof *c->runs);
    c->updates = calloc((size_t)insns + 1, sizeof *c->updates);
    if (!c->extents || !c->began || !c->runs || !c->updates) PB_CHECK_MEMORY();
    for (uint32_t e = 0; e < extents; e++) memset(&c->extents[e].touch, 0xff, sizeof c->extents[e].touch);
    return PB_OK;
}

pb_status pb_program_check(const pb_graph *graph, const pb_program *program, const pb_plan_request *request) {
    pb_status status = PB_OK;
    pb_checker c = {.graph = graph, .program = program, .request = request, .now = UINT32_MAX};
    PB_TRY(allocate(&c));
    PB_TRY(pb_check_begin(&c));
    for (c.now = 0; c.now < program->insn_count; c.now++) PB_TRY(check_insn(&c, &program->insns[c.now]));
    PB_TRY(pb_check_end(&c));
fail:
    for (int t = 0; t < PB_TIER_NVME; t++) pb_ranges_destroy(c.slab[t]);
    for (uint32_t e = 0; c.extents && e < program->extent_count; e++) free(c.extents[e].parts);
    free(c.extents);
    free(c.began);
    free(c.copy);
    free(c.runs);
    free(c.updates);
    return status;
}
