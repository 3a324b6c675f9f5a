// Tries several ways to run a step within the budgets and keeps the one that is predicted to be the fastest.
#include "plan/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/pager.h"
#include "plan/predict.h"

// Updates may run on the host only where what steers them is known when the step begins.
static bool can_update_on_host(const pb_graph *g) {
    bool any = false;
    for (uint32_t n = 0; n < g->node_count; n++) {
        if (g->nodes[n].op != PB_OP_ADAMW) continue;
        any = true;
        if (g->values[g->nodes[n].in[1]].class_ != PB_CLASS_INPUT) return false;
    }
    return any;
}

// One unit of paging: large enough for the links and small enough to hide, so that little room does for many moves at
// once; and no more of them than can be planned in a second.
static uint64_t unit_bytes(const pb_graph *g, const pb_plan_request *request) {
    enum { MOST_UNITS = 640 };
    const uint64_t smallest = PB_CHUNK_BYTES / 4, share = request->budget[PB_TIER_DEVICE] / 8;
    uint64_t unit = 0;
    for (pb_vid v = 0; v < g->value_count; v++)
        if (g->values[v].class_ == PB_CLASS_STATE && g->values[v].persistent && g->values[v].alias == PB_NONE)
            unit += pb_value_bytes(&g->values[v]) / MOST_UNITS;
    if (unit < smallest) unit = smallest;
    if (unit > PB_CHUNK_BYTES) unit = PB_CHUNK_BYTES;
    return share < unit ? share : unit;
}

typedef struct outcome {
    pb_program *program;  // the best so far, or NULL
    double seconds;
    pb_attempt attempt;
    int level;                       // its reserve, as one of reserves[]
    bool improved, order_matters;    // the newest attempt: is the best so far; something had to leave the host
    double gap;                      // the newest attempt: its seconds over its lower bound; 0: does not fit
    bool unplaced;                   // some attempt only failed to find offsets
    uint64_t needed[PB_TIER_COUNT];  // the least that some attempt asked for, where none fitted
} outcome;

// The faster one, or, where that makes no difference, the one that moves less.
static bool is_better(const pb_program *a, double a_seconds, const pb_program *b, double b_seconds) {
    static const double difference = 0.001;
    if (fabs(a_seconds - b_seconds) > difference * b_seconds) return a_seconds < b_seconds;
    uint64_t a_bytes = 0, b_bytes = 0;
    for (int l = 0; l < PB_LINK_COUNT; l++) {
        a_bytes += a->moved[l];
        b_bytes += b->moved[l];
    }
    return a_bytes != b_bytes ? a_bytes < b_bytes : a_seconds < b_seconds;
}

static pb_status try_attempt(const pb_graph *graph, const pb_plan_request *request, uint64_t unit, pb_attempt attempt,
                             outcome *o) {
    pb_status status = PB_OK;
    pb_program *program = NULL;
    pb_chunking layout;
    pb_prediction prediction;
    uint64_t needed[PB_TIER_COUNT];
    pb_pager p = {.graph = graph,
                  .request = request,
                  .machine = request->machine,
                  .layout = &layout,
                  .attempt = attempt,
                  .adopted = request->like != NULL};
    p.arena = pb_arena_create();
    if (!p.arena) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    if (request->like)
        PB_TRY(pb_layout_adopt(p.arena, request->like->layout, graph, &layout));
    else
        PB_TRY(pb_layout_create(p.arena, graph, unit, &layout));
    PB_TRY(pb_pager_build(&p));
    status = pb_pager_solve(&p, needed);
    o->order_matters = status != PB_OK || p.host_relieved;
    o->gap = 0;
    o->unplaced |= p.unplaced;
    if (status == PB_ERR_BUDGET)
        for (int t = 0; t < PB_TIER_COUNT; t++)
            if (needed[t] && needed[t] < o->needed[t]) o->needed[t] = needed[t];
    if (status != PB_OK) goto fail;
    PB_TRY(pb_pager_emit(&p, &program));
    PB_TRY(pb_program_predict(graph, program, request->machine, &prediction, NULL));
    o->gap = prediction.seconds / prediction.lower_bound;
    if (o->program && !is_better(program, prediction.seconds, o->program, o->seconds)) goto fail;
    pb_program_destroy(o->program);
    o->program = program;
    o->seconds = program->seconds = prediction.seconds;
    o->attempt = attempt;
    program = NULL;
fail:
    pb_program_destroy(program);
    pb_arena_destroy(p.arena);
    return status;
}

// A gap from which on the two directions of a link take turns, since lives had to be shortened for all to find a place.
static const double TAKES_TURNS = 1.4;

// Shares of the budgets that are left for moves. State that comes and goes wants some; what the host updates, little.
static const double reserves[] = {0, 0.02, 0.1, 0.25};
enum { RESERVES = sizeof reserves / sizeof *reserves, QUICK_LEVEL = 2 };

// Of a large budget no more than so many units are: what is on its way at once is no more in a large memory.
enum { MOST_MOVING = 24 };

static int first_reserve(pb_strategy strategy) {
    return strategy == PB_STRATEGY_HOST ? 1 : 2;
}

typedef struct search {
    const pb_graph *graph;
    const pb_plan_request *request;
    uint64_t unit;
    outcome *o;
} search;

// An attempt, but for its reserve; one that does not fit is no error.
static pb_status look(const search *s, pb_attempt attempt, int level) {
    outcome *o = s->o;
    attempt.reserve = reserves[level];
    attempt.most_reserved = MOST_MOVING * s->unit;
    const pb_program *best = o->program;
    const pb_status status = try_attempt(s->graph, s->request, s->unit, attempt, o);
    o->improved = o->program != best;
    if (o->improved) o->level = level;
    return status == PB_ERR_BUDGET ? PB_OK : status;
}

// Every strategy, with its first reserve or reserves[level].
static pb_status try_strategies(const search *s, int level) {
    const pb_plan_request *request = s->request;
    const bool host = can_update_on_host(s->graph), nvme = request->budget[PB_TIER_NVME] && !request->like;
    bool order_matters[PB_STRATEGY_HOST + 1] = {false};
    for (int i = PB_STRATEGY_STREAM; i <= PB_STRATEGY_HOST; i++) {
        const bool on_host = i == PB_STRATEGY_HOST;
        const int first = first_reserve((pb_strategy)i), used = level < 0 ? first : level;
        if (request->like ? request->like->layout->host_updates != on_host : on_host && !host) continue;
        if (request->quick && s->o->program) return PB_OK;
        pb_attempt attempt = {.strategy = (pb_strategy)i};
        PB_RETURN_IF(look(s, attempt, used));
        order_matters[i] = s->o->order_matters;
        // With more room they go side by side.
        if (!on_host && level < 0 && s->o->gap > TAKES_TURNS && used + 1 < RESERVES)
            PB_RETURN_IF(look(s, attempt, used + 1));
        // Gradients that the host updates from wait on the device, where there is room.
        attempt.gradients_first = attempt.gradients_stay = true;
        if (nvme && on_host && !(request->quick && s->o->program)) PB_RETURN_IF(look(s, attempt, used));
    }
    if (!nvme || !s->o->program || request->quick) return PB_OK;
    // Gradients leave the host first rather than state.
    pb_attempt best = s->o->attempt;
    best.gradients_first = true;
    if (!s->o->attempt.gradients_first && order_matters[best.strategy]) PB_RETURN_IF(look(s, best, s->o->level));
    // Weights leave the device first, to come once more from the host: that is cheaper than state from the disk.
    best = s->o->attempt;
    best.weights_first = true;
    return best.strategy == PB_STRATEGY_HOST ? look(s, best, s->o->level) : PB_OK;
}

// What has won, with less or more room for moves, for as long as that is faster.
static pb_status refine(const search *s) {
    const int start = s->o->level;
    for (int step = -1; step <= 1; step += 2) {
        for (int level = start + step; level >= 0 && level < RESERVES; level += step) {
            PB_RETURN_IF(look(s, s->o->attempt, level));
            if (!s->o->improved) break;
        }
    }
    return PB_OK;
}

// What is worth trying when not everything fits. A program that has to do with another's decisions, and a quick plan,
// take the first that fits.
static pb_status try_paged(const pb_graph *graph, const pb_plan_request *request, outcome *o) {
    const search s = {graph, request, unit_bytes(graph, request), o};
    if (!request->quick) PB_RETURN_IF(try_strategies(&s, -1));
    if (!o->program) PB_RETURN_IF(try_strategies(&s, 0));
    // Without a reserve the least leaves the device. What does not fit then may only do with one where offsets were not
    // found, or where it is what passes through the host that takes too much of it.
    const bool passes = o->needed[PB_TIER_HOST] < UINT64_MAX && request->budget[PB_TIER_NVME];
    for (int level = RESERVES - 1; level > 0 && !o->program && (o->unplaced || passes); level--)
        if (!request->quick || level == QUICK_LEVEL) PB_RETURN_IF(try_strategies(&s, level));
    return o->program && !request->like && !request->quick ? refine(&s) : PB_OK;
}

static pb_status try_all(const pb_graph *graph, const pb_plan_request *request, outcome *o) {
    // What fits is not moved.
    if (!request->like && request->state <= PB_STATE_ON_DEVICE) {
        pb_plan_request resident = *request;
        resident.budget[PB_TIER_HOST] = resident.budget[PB_TIER_NVME] = 0;
        const pb_status status = try_attempt(graph, &resident, 0, (pb_attempt){0}, o);
        if (status != PB_ERR_BUDGET || request->state == PB_STATE_ON_DEVICE) return status;
        if (request->budget[PB_TIER_HOST])
            for (int t = 0; t < PB_TIER_COUNT; t++) o->needed[t] = UINT64_MAX;
    }
    if (request->like && !request->like->layout->paged) return try_attempt(graph, request, 0, (pb_attempt){0}, o);
    return request->budget[PB_TIER_HOST] ? try_paged(graph, request, o) : PB_OK;
}

// --- Refusals ---

enum { PROBES = 8 };

// The smallest budget of tier `t` that works, all else as it is: from what the attempts asked for upwards, since
// fragmentation can take more.
static uint64_t smallest_budget(const pb_graph *graph, const pb_plan_request *request, pb_tier t, uint64_t asked) {
    pb_plan_request probe = *request;
    probe.quick = true;
    uint64_t budget = asked;
    for (int i = 0; i < PROBES; i++) {
        outcome o = {.needed = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
        probe.budget[t] = budget;
        const pb_status status = try_all(graph, &probe, &o);
        const bool works = o.program != NULL;
        pb_program_destroy(o.program);
        if (works) return budget;
        if (status != PB_OK && status != PB_ERR_BUDGET) return 0;
        // Where another tier is what lacks, no budget of this one helps.
        if (o.needed[t] == UINT64_MAX) return 0;
        budget = o.needed[t] > budget ? o.needed[t] : budget + budget / 64;
    }
    return 0;
}

static pb_status refuse(const pb_graph *graph, const pb_plan_request *request, const outcome *o) {
    static const char *const keys[PB_TIER_COUNT] = {"memory.device", "memory.host", "memory.nvme_size"};
    static const char *const names[PB_TIER_COUNT] = {"device memory", "host memory", "NVMe"};
    // Where the device does for some attempts, and only the host or the disk is too small, that is what to name.
    for (int t = PB_TIER_COUNT - 1; t >= 0; t--) {
        if (o->needed[t] == UINT64_MAX) continue;
        if (request->refusal) *request->refusal = (pb_plan_refusal){(pb_tier)t, o->needed[t]};
        const uint64_t works = request->refusal ? 0 : smallest_budget(graph, request, (pb_tier)t, o->needed[t]);
        if (works)
            return pb_error(PB_ERR_BUDGET,
                            "the step needs %.3f GiB of %s, and %s allows %.3f GiB; the smallest budget that works is "
                            "%llu bytes (a smaller train_batch_size or resolution needs less)",
                            (double)works / 0x1p30, names[t], keys[t], (double)request->budget[t] / 0x1p30,
                            (unsigned long long)works);
        return pb_error(PB_ERR_BUDGET,
                        "the step needs at least %.3f GiB of %s, and %s allows %.3f GiB; that alone does not do, the "
                        "other budgets of `memory` are too small as well",
                        (double)o->needed[t] / 0x1p30, names[t], keys[t], (double)request->budget[t] / 0x1p30);
    }
    if (request->refusal) *request->refusal = (pb_plan_refusal){PB_TIER_DEVICE, 0};
    return pb_error(PB_ERR_BUDGET, "the step does not fit the memory");
}

pb_status pb_plan(const pb_graph *graph, const pb_plan_request *wanted, pb_program **result) {
    if (graph->status != PB_OK) return graph->status;
    pb_plan_request request = *wanted;
    if (!request.machine) request.machine = pb_machine_builtin("generic");
    outcome o = {.needed = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    const pb_status status = try_all(graph, &request, &o);
    if (status != PB_OK && status != PB_ERR_BUDGET) {
        pb_program_destroy(o.program);
        return status;
    }
    if (!o.program) return refuse(graph, &request, &o);
    pb_error_clear();
    *result = o.program;
    return PB_OK;
}
