// A plan of a graph, or of the fastest of several graphs; or what it lacks.
#include "plan/plan.h"

#include <stdlib.h>

#include "plan/search.h"

static bool has_host(const pb_plan_request *request) {
    return request->budget[PB_TIER_HOST] > 0;
}

// One that has no choice.
static pb_status try_only(const pb_graph *graph, const pb_plan_request *request, uint32_t way, pb_outcome *o) {
    pb_setting setting;
    pb_made made = {.program = NULL};
    pb_status status = pb_setting_build(graph, request, 0, PB_STRATEGY_STREAM, &setting);
    if (status == PB_OK) status = pb_attempt_make(&setting, (pb_attempt){0}, false, &made);
    pb_setting_deinit(&setting);
    if (status == PB_OK) pb_outcome_add(o, way, &made);
    return status;
}

static uint64_t persistent_bytes(const pb_graph *g) {
    uint64_t bytes = 0;
    for (pb_vid v = 0; v < g->value_count; v++)
        if (g->values[v].persistent && g->values[v].alias == PB_NONE) bytes += pb_value_bytes(&g->values[v]);
    return bytes;
}

// With everything on the device; *fits: that it does.
static pb_status try_resident(const pb_graph *graph, const pb_plan_request *request, uint32_t way, pb_outcome *o,
                              bool *fits) {
    pb_outcome own = {.needed = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    pb_plan_request resident = *request;
    resident.budget[PB_TIER_HOST] = resident.budget[PB_TIER_NVME] = 0;
    *fits = false;
    if (has_host(request) && persistent_bytes(graph) > request->budget[PB_TIER_DEVICE]) return PB_OK;
    PB_RETURN_IF(try_only(graph, &resident, way, &own));
    *fits = own.program != NULL;
    pb_made made = {.program = own.program, .seconds = own.seconds};
    // Where something can move, more than this budget is not what lacks.
    if (!has_host(request)) made.needed[PB_TIER_DEVICE] = own.program ? 0 : own.needed[PB_TIER_DEVICE];
    pb_outcome_add(o, way, &made);
    return PB_OK;
}

static pb_status try_all(const pb_graph *const *graphs, uint32_t count, const pb_plan_request *request, pb_outcome *o) {
    pb_status status = PB_OK;
    bool *fits = calloc(count, sizeof *fits), all = true;
    if (!fits) return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    *o = (pb_outcome){.needed = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    if (request->like && !request->like->layout->paged) {
        status = try_only(graphs[0], request, 0, o);
        goto fail;
    }
    for (uint32_t w = 0; w < count; w++) {
        // What fits is not moved.
        if (!request->like && request->state <= PB_STATE_ON_DEVICE)
            PB_TRY(try_resident(graphs[w], request, w, o, &fits[w]));
        all = all && fits[w];
    }
    if (!all && has_host(request) && request->state != PB_STATE_ON_DEVICE)
        status = pb_search(graphs, count, fits, request, o);
fail:
    free(fits);
    return status;
}

// --- Refusals ---

typedef struct problem {
    const pb_graph *const *graphs;
    uint32_t count;
} problem;

// The refusal of what has come to no program.
static pb_plan_refusal refusal_of(const pb_outcome *o) {
    // Where the device does for some attempts, and only the host or the disk is too small, that is what to name.
    for (int t = PB_TIER_COUNT - 1; t >= 0; t--)
        if (o->needed[t] < UINT64_MAX) return (pb_plan_refusal){(pb_tier)t, o->needed[t], o->slower};
    return (pb_plan_refusal){PB_TIER_DEVICE, 0, o->slower};
}

static pb_status probe(void *context, const pb_plan_request *limits) {
    const problem *p = context;
    pb_outcome o;
    const pb_status status = try_all(p->graphs, p->count, limits, &o);
    const bool works = o.program != NULL;
    pb_program_destroy(o.program);
    *limits->refusal = refusal_of(&o);
    return status == PB_OK && !works ? PB_ERR_BUDGET : status;
}

// The smallest budget of tier t that works, all else as it is; 0: none does.
static uint64_t smallest_budget(const problem *p, const pb_plan_request *request, pb_plan_refusal lacks) {
    pb_plan_request limits = *request;
    problem own = *p;
    limits.refusal = &lacks;
    limits.quick = true;
    const pb_tier t = lacks.tier;
    if (!lacks.needed || !pb_smallest_budgets(probe, &own, &limits, t)) return 0;
    for (int other = 0; other < PB_TIER_COUNT; other++)
        if (other != (int)t && limits.budget[other] != request->budget[other]) return 0;
    return limits.budget[t];
}

static pb_status refuse(const problem *p, const pb_plan_request *request, const pb_outcome *o) {
    static const char *const keys[PB_TIER_COUNT] = {"memory.device", "memory.host", "memory.nvme_size"};
    static const char *const names[PB_TIER_COUNT] = {"device memory", "host memory", "NVMe"};
    const pb_plan_refusal lacks = refusal_of(o);
    if (request->refusal) *request->refusal = lacks;
    if (!lacks.needed) return pb_error(PB_ERR_BUDGET, "the step does not fit the memory");
    const uint64_t works = request->refusal ? 0 : smallest_budget(p, request, lacks);
    const double allowed = (double)request->budget[lacks.tier] / 0x1p30;
    if (works)
        return pb_error(PB_ERR_BUDGET,
                        "the step needs %.3f GiB of %s, and %s allows %.3f GiB; the smallest budget that works is "
                        "%llu bytes (a smaller train_batch_size or resolution needs less)",
                        (double)works / 0x1p30, names[lacks.tier], keys[lacks.tier], allowed,
                        (unsigned long long)works);
    return pb_error(PB_ERR_BUDGET,
                    "the step needs at least %.3f GiB of %s, and %s allows %.3f GiB; that alone does not do, the "
                    "other budgets of `memory` are too small as well",
                    (double)lacks.needed / 0x1p30, names[lacks.tier], keys[lacks.tier], allowed);
}

pb_status pb_plan_fastest(const pb_graph *const *graphs, uint32_t count, const pb_plan_request *wanted,
                          uint32_t *chosen, pb_program **result) {
    for (uint32_t w = 0; w < count; w++)
        if (graphs[w]->status != PB_OK) return graphs[w]->status;
    const problem p = {graphs, count};
    pb_plan_request request = *wanted;
    if (!request.machine) request.machine = pb_machine_builtin("generic");
    pb_outcome o;
    const pb_status status = try_all(graphs, count, &request, &o);
    if (status != PB_OK) {
        pb_program_destroy(o.program);
        return status;
    }
    if (!o.program) return refuse(&p, &request, &o);
    pb_error_clear();
    *chosen = o.way;
    *result = o.program;
    return PB_OK;
}

pb_status pb_plan(const pb_graph *graph, const pb_plan_request *request, pb_program **program) {
    uint32_t chosen;
    return pb_plan_fastest(&graph, 1, request, &chosen, program);
}
