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

enum { STRATEGIES = PB_STRATEGY_HOST + 1 };

// The best of a strategy so far.
typedef struct record {
    pb_attempt attempt;
    int level;              // its reserve, as one of reserves[]
    double seconds, bound;  // and what was known beforehand that it would take at least; 0: there is none yet
    bool turning;           // there is room on the device when the step ends: the turning point is what binds
} record;

typedef struct outcome {
    pb_program *program;  // the best so far, or NULL
    double seconds;
    pb_attempt attempt;
    record records[STRATEGIES];
    double newest;                   // seconds of the newest attempt; 0: it was not made, or does not fit
    double gap;                      // the newest attempt: its seconds over its lower bound; 0: does not fit
    bool turning;                    // the newest attempt: see record
    bool unplaced;                   // some attempt only failed to find offsets
    bool slower;                     // some attempt was not made, for it would take longer than is of use
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

// --- One attempt ---

// What all attempts of a strategy begin with. Built when it is first wanted.
typedef struct setting {
    pb_pager pager;  // its arena is NULL until then
    pb_chunking layout;
    pb_tier_segment *segments;  // as they were built
    bool exhausted;             // a quick attempt without a reserve found no offsets on the device
} setting;

static pb_status build(const pb_graph *graph, const pb_plan_request *request, uint64_t unit, pb_strategy strategy,
                       setting *b) {
    pb_pager *p = &b->pager;
    if (p->arena) return PB_OK;
    *p = (pb_pager){.graph = graph,
                    .request = request,
                    .machine = request->machine,
                    .layout = &b->layout,
                    .attempt = {.strategy = strategy},
                    .adopted = request->like != NULL,
                    .arena = pb_arena_create()};
    if (!p->arena) return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    if (request->like)
        PB_RETURN_IF(pb_layout_adopt(p->arena, request->like->layout, graph, &b->layout));
    else
        PB_RETURN_IF(pb_layout_create(p->arena, graph, unit, &b->layout));
    PB_RETURN_IF(pb_pager_build(p));
    b->segments = pb_arena_array(p->arena, p->device.segment_count + 1, sizeof *b->segments);
    if (!b->segments) return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    memcpy(b->segments, p->device.segments, p->device.segment_count * sizeof *b->segments);
    return PB_OK;
}

// Into *p, with an arena of its own; nothing is left of the attempts before.
static pb_status begin(const setting *b, pb_attempt attempt, pb_pager *p) {
    *p = b->pager;
    p->attempt = attempt;
    p->device.brings_home = attempt.gradients_stay && !p->adopted;
    for (uint32_t i = 0; i < p->device.segment_count; i++) {
        p->device.segments[i] = b->segments[i];
        for (int k = 0; k < 2; k++)
            if (b->segments[i].use[k].count)
                memset(b->segments[i].use[k].vacated, 0, b->segments[i].use[k].count * sizeof(bool));
    }
    p->arena = pb_arena_create();
    return p->arena ? PB_OK : pb_error(PB_ERR_MEMORY, "no memory for a plan");
}

static void note_needed(const uint64_t needed[PB_TIER_COUNT], outcome *o) {
    for (int t = 0; t < PB_TIER_COUNT; t++)
        if (needed[t] && needed[t] < o->needed[t]) o->needed[t] = needed[t];
}

// Whether there is room on the device when the step ends.
static bool has_turning_point(const pb_pager *p) {
    static const double much = 0.05;
    const double budget = (double)p->request->budget[PB_TIER_DEVICE];
    return (double)p->device.used[p->device.slot_count - 1] < (1 - much) * budget;
}

static pb_status try_attempt(setting *b, pb_attempt attempt, outcome *o) {
    pb_status status = PB_OK;
    pb_program *program = NULL;
    pb_prediction prediction;
    uint64_t needed[PB_TIER_COUNT];
    pb_pager p;
    PB_TRY(begin(b, attempt, &p));
    p.exhausted = b->exhausted;
    status = pb_pager_solve(&p, needed);
    if (p.request->quick && p.unplaced && !(attempt.reserve > 0) && needed[PB_TIER_DEVICE]) b->exhausted = true;
    o->gap = 0;
    o->unplaced |= p.unplaced;
    if (status == PB_ERR_BUDGET) note_needed(needed, o);
    if (status != PB_OK) goto fail;
    PB_TRY(pb_pager_emit(&p, &program));
    PB_TRY(pb_program_predict(p.graph, program, p.machine, &prediction, NULL));
    o->gap = prediction.seconds / prediction.lower_bound;
    o->newest = prediction.seconds;
    o->turning = has_turning_point(&p);
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

// What no program of the attempt is faster than, and whether something has to leave the host. PB_ERR_BUDGET where it
// does not fit, whatever the offsets.
static pb_status estimate(const setting *b, pb_attempt attempt, outcome *o, double *seconds, bool *order_matters) {
    pb_status status = PB_OK;
    uint64_t needed[PB_TIER_COUNT];
    pb_pager p;
    PB_TRY(begin(b, attempt, &p));
    p.estimates = true;
    status = pb_pager_solve(&p, needed);
    *order_matters = status != PB_OK || p.host_relieved;
    if (status == PB_ERR_BUDGET) note_needed(needed, o);
    if (status == PB_OK) *seconds = pb_pager_bound(&p);
fail:
    pb_arena_destroy(p.arena);
    return status;
}

// --- Several ---

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
    setting settings[STRATEGIES];
} search;

// One thing to try.
typedef struct candidate {
    pb_attempt attempt;
    int level;
    double bound;  // no program of it is faster
    bool fits, order_matters;
    bool unlike;  // may wait much less than what was tried of the strategy before
} candidate;

static candidate candidate_of(const search *s, pb_attempt attempt, int level) {
    attempt.reserve = reserves[level];
    attempt.most_reserved = MOST_MOVING * s->unit;
    return (candidate){.attempt = attempt, .level = level, .fits = true};
}

static pb_status prepare(search *s, candidate *c) {
    setting *b = &s->settings[c->attempt.strategy];
    PB_RETURN_IF(build(s->graph, s->request, s->unit, c->attempt.strategy, b));
    if (s->request->quick || s->request->like) return PB_OK;
    const pb_status status = estimate(b, c->attempt, s->o, &c->bound, &c->order_matters);
    c->fits = status == PB_OK;
    return status == PB_ERR_BUDGET ? PB_OK : status;
}

// The seconds that are to be beaten; INFINITY: any will do.
static double to_beat(const search *s) {
    const double limit = s->request->faster_than > 0 ? s->request->faster_than : INFINITY;
    return s->o->program && s->o->seconds < limit ? s->o->seconds : limit;
}

// Whether it promises to be faster than that: programs of one strategy wait about as long beyond their bounds.
static bool may_be_faster(const search *s, const candidate *c) {
    static const double surely = 2.0 / 3;
    const record *r = &s->o->records[c->attempt.strategy];
    const double waits = r->bound > 0 && !c->unlike ? surely * (r->seconds / r->bound - 1) : 0;
    return c->bound * (1 + waits) < to_beat(s);
}

// A candidate that is prepared; one that does not fit is no error, and one that will not be faster is not tried.
static pb_status look(search *s, const candidate *c) {
    outcome *o = s->o;
    record *r = &o->records[c->attempt.strategy];
    o->newest = o->gap = 0;
    if (!c->fits) return PB_OK;
    if (!may_be_faster(s, c)) {
        o->slower = true;
        return PB_OK;
    }
    const pb_status status = try_attempt(&s->settings[c->attempt.strategy], c->attempt, o);
    if (o->newest > 0 && (!(r->seconds > 0) || o->newest < r->seconds))
        *r = (record){c->attempt, c->level, o->newest, c->bound, o->turning};
    return status == PB_ERR_BUDGET ? PB_OK : status;
}

static pb_status prepare_and_look(search *s, pb_attempt attempt, int level, bool unlike) {
    candidate c = candidate_of(s, attempt, level);
    c.unlike = unlike;
    PB_RETURN_IF(prepare(s, &c));
    return look(s, &c);
}

enum { CANDIDATES = 5 };

// Every strategy. Returns how many candidates.
static int list_strategies(const search *s, int level, candidate *list) {
    const pb_plan_request *request = s->request;
    const bool nvme = request->budget[PB_TIER_NVME] && !request->like;
    int count = 0;
    for (int i = 0; i < STRATEGIES; i++) {
        const bool on_host = i == PB_STRATEGY_HOST;
        const int used = level < 0 ? first_reserve((pb_strategy)i) : level;
        if (request->like ? request->like->layout->host_updates != on_host : on_host && !can_update_on_host(s->graph))
            continue;
        list[count++] = candidate_of(s, (pb_attempt){.strategy = (pb_strategy)i}, used);
        if (!nvme || !on_host) continue;
        // Gradients that the host updates from wait on the device, where there is room.
        pb_attempt attempt = {.strategy = PB_STRATEGY_HOST, .gradients_first = true, .gradients_stay = true};
        list[count++] = candidate_of(s, attempt, used);
        if (request->quick) continue;
        // Weights leave the device first, to come once more from the host: that is cheaper than state from the disk.
        attempt.weights_first = true;
        list[count++] = candidate_of(s, attempt, used);
        attempt.gradients_first = attempt.gradients_stay = false;
        list[count++] = candidate_of(s, attempt, used);
    }
    return count;
}

// Whatever fits will do.
static pb_status try_quickly(search *s, int level) {
    candidate list[CANDIDATES];
    const int count = list_strategies(s, level, list);
    for (int i = 0; i < count && !(s->request->quick && s->o->program); i++) {
        PB_RETURN_IF(prepare(s, &list[i]));
        PB_RETURN_IF(look(s, &list[i]));
    }
    return PB_OK;
}

// The strategies, prepared, and what promises most first. Returns how many; *order_matters: for some of them, what
// leaves the host first.
static pb_status rank_strategies(search *s, int level, candidate *list, int *count, bool *order_matters) {
    *count = list_strategies(s, level, list);
    *order_matters = false;
    for (int i = 0; i < *count; i++) {
        candidate c = list[i];
        PB_RETURN_IF(prepare(s, &c));
        *order_matters |= c.order_matters;
        int at = i;
        for (; at > 0 && list[at - 1].bound > c.bound; at--) list[at] = list[at - 1];
        list[at] = c;
    }
    return PB_OK;
}

// Every strategy with its first reserve or reserves[level], what promises most first: then the others can often be seen
// to be slower beforehand.
static pb_status try_strategies(search *s, int level) {
    candidate list[CANDIDATES];
    bool order_matters;
    int count;
    PB_RETURN_IF(rank_strategies(s, level, list, &count, &order_matters));
    for (int i = 0; i < count; i++) {
        PB_RETURN_IF(look(s, &list[i]));
        // With more room they go side by side.
        const int more = list[i].level + 1;
        if (list[i].attempt.strategy == PB_STRATEGY_STREAM && level < 0 && s->o->gap > TAKES_TURNS && more < RESERVES)
            PB_RETURN_IF(prepare_and_look(s, list[i].attempt, more, true));
    }
    // Gradients leave the host first rather than state.
    for (int i = 0; i < STRATEGIES && s->request->budget[PB_TIER_NVME] && order_matters; i++) {
        pb_attempt best = s->o->records[i].attempt;
        if (!(s->o->records[i].seconds > 0) || best.gradients_first) continue;
        best.gradients_first = true;
        PB_RETURN_IF(prepare_and_look(s, best, s->o->records[i].level, false));
    }
    return PB_OK;
}

// Of each strategy what has won, with less or more room for moves, for as long as that is faster.
static pb_status refine(search *s) {
    for (int i = 0; i < STRATEGIES; i++) {
        const record *r = &s->o->records[i];
        const int start = r->level;
        for (int step = -1; step <= 1 && r->seconds > 0; step += 2) {
            for (int level = start + step; level >= 0 && level < RESERVES; level += step) {
                PB_RETURN_IF(prepare_and_look(s, r->attempt, level, false));
                if (r->level != level) break;
            }
        }
        // Activations in the place of some state.
        pb_attempt other = r->attempt;
        other.activations_first = true;
        if (i == PB_STRATEGY_STREAM && r->seconds > 0 && r->turning)
            PB_RETURN_IF(prepare_and_look(s, other, r->level, false));
    }
    return PB_OK;
}

// What is worth trying when not everything fits. A program that has to do with another's decisions, and a quick plan,
// take the first that fits.
static pb_status search_paged(search *s) {
    const pb_plan_request *request = s->request;
    outcome *o = s->o;
    const bool quick = request->quick || request->like;
    if (!request->quick) PB_RETURN_IF(quick ? try_quickly(s, -1) : try_strategies(s, -1));
    if (!o->program && !o->slower) PB_RETURN_IF(quick ? try_quickly(s, 0) : try_strategies(s, 0));
    // Without a reserve the least leaves the device. What does not fit then may only do with one where offsets were not
    // found, or where it is what passes through the host that takes too much of it.
    const bool passes = o->needed[PB_TIER_HOST] < UINT64_MAX && request->budget[PB_TIER_NVME];
    for (int level = RESERVES - 1; level > 0 && !o->program && !o->slower && (o->unplaced || passes); level--)
        if (!request->quick || level == QUICK_LEVEL)
            PB_RETURN_IF(quick ? try_quickly(s, level) : try_strategies(s, level));
    return o->program && !quick ? refine(s) : PB_OK;
}

static void end(search *s) {
    for (int i = 0; i < STRATEGIES; i++) pb_arena_destroy(s->settings[i].pager.arena);
}

static pb_status try_paged(const pb_graph *graph, const pb_plan_request *request, outcome *o) {
    search s = {.graph = graph, .request = request, .unit = unit_bytes(graph, request), .o = o};
    const pb_status status = search_paged(&s);
    end(&s);
    return status;
}

pb_status pb_plan_bound(const pb_graph *graph, const pb_plan_request *wanted, double *seconds) {
    if (graph->status != PB_OK) return graph->status;
    pb_plan_request request = *wanted;
    outcome o = {.needed = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    candidate list[CANDIDATES];
    bool order_matters;
    int count = 0;
    request.quick = false;
    if (!request.machine) request.machine = pb_machine_builtin("generic");
    search s = {.graph = graph, .request = &request, .unit = unit_bytes(graph, &request), .o = &o};
    const pb_status status = rank_strategies(&s, -1, list, &count, &order_matters);
    end(&s);
    *seconds = 0;
    for (int i = 0; i < count; i++)
        if (list[i].fits && (!(*seconds > 0) || list[i].bound < *seconds)) *seconds = list[i].bound;
    return status;
}

// One that has no choice.
static pb_status try_only(const pb_graph *graph, const pb_plan_request *request, outcome *o) {
    setting b = {.segments = NULL};
    pb_status status = build(graph, request, 0, PB_STRATEGY_STREAM, &b);
    if (status == PB_OK) status = try_attempt(&b, (pb_attempt){0}, o);
    pb_arena_destroy(b.pager.arena);
    return status;
}

static pb_status try_all(const pb_graph *graph, const pb_plan_request *request, outcome *o) {
    // What fits is not moved.
    if (!request->like && request->state <= PB_STATE_ON_DEVICE) {
        pb_plan_request resident = *request;
        resident.budget[PB_TIER_HOST] = resident.budget[PB_TIER_NVME] = 0;
        const pb_status status = try_only(graph, &resident, o);
        if (status != PB_ERR_BUDGET || request->state == PB_STATE_ON_DEVICE) return status;
        if (request->budget[PB_TIER_HOST])
            for (int t = 0; t < PB_TIER_COUNT; t++) o->needed[t] = UINT64_MAX;
    }
    if (request->like && !request->like->layout->paged) return try_only(graph, request, o);
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
        if (request->refusal) *request->refusal = (pb_plan_refusal){(pb_tier)t, o->needed[t], o->slower};
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
    if (request->refusal) *request->refusal = (pb_plan_refusal){PB_TIER_DEVICE, 0, o->slower};
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
