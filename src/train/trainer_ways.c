// The ways to build a step, all with the same results: with attention and feed-forwards' linears kept for the backward
// pass or run again in it; and, where updates are deferred, with gradients kept for the update or made again before it.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "plan/predict.h"
#include "train/trainer_parts.h"

// --- What may run again in the backward pass ---

// FLOPs per byte that need not be kept, at most: attention and the linears that widen. The links take longer to move a
// byte than a device takes for either. The larger one takes in the linears of 1280 channels.
static const double dear = 650, dearest = 1800;
// It pays where that spares more than this share of what is kept otherwise: in SDXL, not in SD 1 and 2.
static const double worth_it = 0.25;

static pb_status find_kept(const pb_step_request *request, double recompute, uint64_t *bytes) {
    pb_step_request r = *request;
    pb_step_graph *step = NULL;
    r.recompute = recompute;
    PB_RETURN_IF(pb_step_graph_create(&r, &step));
    *bytes = pb_graph_kept_bytes(step->graph);
    pb_step_graph_destroy(step);
    return PB_OK;
}

// Into programs->recompute, once for all ways.
static pb_status choose_recompute(const pb_step_request *request, pb_programs *programs) {
    pb_step_request r = *request;
    uint64_t all, less, least;
    if (programs->recompute > 0) return PB_OK;
    r.batch = (int)programs->items[0].images;
    r.pass = programs->items[0].pass;
    r.sums = programs->sums;
    PB_RETURN_IF(find_kept(&r, 0, &all));
    PB_RETURN_IF(find_kept(&r, dear, &less));
    PB_RETURN_IF(find_kept(&r, dearest, &least));
    programs->recompute = (double)less - (double)least > worth_it * (double)all ? dearest : dear;
    return PB_OK;
}

// One of the ways, for a thread.
typedef struct way {
    pb_step_request request;
    pb_plan_request limits;
    bool quick, carries;
    pb_programs *programs;
    pb_plan_refusal refusal;
    pb_status status;
    char message[512];
    double bound;  // seconds that it takes at least; 0: not known
} way;

// --- Gradients that are made again ---

// Between two steps there are gradients where, in the midst of one, there are working copies. Where those pass with the
// step, being rid of the gradients helps as far as the copies are made again of masters on the device (a relief
// REMAKE), and where few activations lie beside them.
static bool weights_live_on(const pb_step_graph *step) {
    const pb_module *unet = step->unet;
    return unet->param_count && pb_graph_value(step->graph, unet->params[0].work)->persistent;
}

// What a byte costs that has to leave the device and come back.
static double seconds_per_byte(const pb_plan_request *limits) {
    const pb_machine *m = limits->machine;
    const double links = 1 / m->upload + 1 / m->download;
    return limits->budget[PB_TIER_NVME] ? links + 1 / m->nvme_read + 1 / m->nvme_write : links;
}

// Into programs->carry; where none are worth it, that stays NULL.
static pb_status choose_carry(const pb_step_request *request, const pb_plan_request *limits, pb_programs *programs) {
    pb_status status = PB_OK;
    pb_step_graph *step = NULL;
    double *seconds = NULL;
    pb_step_request r = *request;
    r.batch = (int)programs->items[0].images;
    r.pass = programs->items[0].pass;
    r.deferred = true;
    PB_TRY(pb_step_graph_create(&r, &step));
    if (!weights_live_on(step) && !(request->recompute > 0)) goto fail;
    programs->arena = pb_arena_create();
    pb_carry *carry = programs->arena ? pb_arena_alloc(programs->arena, sizeof *carry) : NULL;
    seconds = malloc((step->graph->node_count + 1) * sizeof *seconds);
    if (!carry || !seconds) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    for (uint32_t n = 0; n < step->graph->node_count; n++)
        seconds[n] = pb_node_seconds(limits->machine, step->graph, n);
    PB_TRY(pb_step_graph_carry(programs->arena, step, seconds, seconds_per_byte(limits), carry));
    if (carry->remade_count) programs->carry = carry;
fail:
    free(seconds);
    pb_step_graph_destroy(step);
    return status;
}

// --- Two ways side by side ---

static void finish_way(way *w, pb_status status) {
    w->status = status;
    if (status != PB_OK) snprintf(w->message, sizeof w->message, "%s", pb_error_message());
}

static void *compile_way(void *argument) {
    way *w = argument;
    w->limits.refusal = &w->refusal;
    pb_status status = w->carries && !w->programs->carry ? choose_carry(&w->request, &w->limits, w->programs) : PB_OK;
    if (status == PB_OK) status = pb_programs_compile_way(&w->request, &w->limits, w->quick, w->programs);
    finish_way(w, status);
    return NULL;
}

// Two threads where there is a second one to be had. What comes of it does not depend on that.
static void run_both(void *(*run)(void *), void *a, void *b) {
    pthread_t thread;
    const bool beside = pthread_create(&thread, NULL, run, b) == 0;
    run(a);
    if (beside)
        pthread_join(thread, NULL);
    else
        run(b);
}

double pb_programs_seconds(const pb_programs *programs) {
    double seconds = 0;
    for (int i = 0; i < programs->count; i++) seconds += programs->items[i].program->seconds;
    return seconds;
}

static bool is_faster(const pb_programs *a, const pb_programs *b) {
    return pb_programs_seconds(a) < pb_programs_seconds(b);
}

static bool moves_something(const pb_programs *programs) {
    for (int i = 0; i < programs->count; i++)
        for (int link = 0; link < PB_LINK_COUNT; link++)
            if (programs->items[i].program->moved[link]) return true;
    return false;
}

// The refusal to tell: of the tier that is further down, for the other ones do; else of what needs less.
static bool refuses_less(const pb_plan_refusal *a, const pb_plan_refusal *b) {
    if (!a->needed || !b->needed) return a->needed > 0;
    return a->tier != b->tier ? a->tier > b->tier : a->needed <= b->needed;
}

static void replace(pb_programs *programs, pb_programs *with) {
    pb_programs_deinit(programs);
    *programs = *with;
}

// --- Two ways, whatever they promise ---

// Linears kept; and where that moves bytes, or does not fit, run again: whichever is predicted to be faster.
// `programs` lists the passes, and has nothing compiled where this fails.
static pb_status compile_pair(const pb_step_request *request, const pb_plan_request *budgets, bool quick, bool carries,
                              pb_programs *programs) {
    pb_programs other = *programs;
    way plain = {*request, *budgets, quick, carries, programs, {.needed = 0}, PB_ERR_BUDGET, "", 0};
    way again = {*request, *budgets, quick, carries, &other, {.needed = 0}, PB_ERR_BUDGET, "", 0};
    again.request.recompute = programs->recompute;
    // What kernels set up at their first use is there when everything was tried on the device before.
    if (!quick && budgets->state <= PB_STATE_ON_DEVICE) {
        run_both(compile_way, &plain, &again);
    } else {
        compile_way(&plain);
        if (plain.status == PB_ERR_BUDGET || !quick) compile_way(&again);
    }
    for (int k = 0; k < 2; k++) {  // what is no matter of budgets ends it
        const way *w = k ? &again : &plain;
        if (w->status == PB_OK || w->status == PB_ERR_BUDGET) continue;
        pb_programs_deinit(&other);
        return pb_error(w->status, "%s", w->message);
    }
    if (plain.status != PB_OK && again.status != PB_OK) {
        *budgets->refusal = refuses_less(&plain.refusal, &again.refusal) ? plain.refusal : again.refusal;
        pb_programs_deinit(&other);
        return pb_error(PB_ERR_BUDGET, "%s", plain.message);
    }
    if (again.status == PB_OK && (plain.status != PB_OK || (moves_something(programs) && is_faster(&other, programs))))
        replace(programs, &other);
    else
        pb_programs_deinit(&other);
    return PB_OK;
}

// --- Four ways, what promises most first ---

enum { WAYS = 4 };  // gradients carried, linears kept or run again; gradients kept, likewise

// Every second of `WAYS`, for a thread: what it is made of, and what it takes at least.
static void *prepare_ways(void *argument) {
    way *ways = argument;
    for (int k = 0; k < WAYS; k += 2) {
        way *w = &ways[k];
        pb_status status = w->carries ? choose_carry(&w->request, &w->limits, w->programs) : PB_OK;
        const bool same = w->carries && !w->programs->carry;  // as the one with gradients kept
        if (status == PB_OK && !same) status = pb_programs_bound_way(&w->request, &w->limits, w->programs, &w->bound);
        finish_way(w, status);
        if (same && status == PB_OK) w->status = PB_ERR_UNSUPPORTED;
    }
    return NULL;
}

// Compiles what may be the fastest and then what may still be faster. Into *best; NULL: none fits.
static pb_status compile_ranked(way *ways, way **best) {
    way *order[WAYS];
    int count = 0;
    double limit = ways[0].limits.faster_than;
    *best = NULL;
    for (int k = 0; k < WAYS; k++) {
        way *w = &ways[k];
        if (w->status == PB_ERR_UNSUPPORTED) continue;
        if (w->status != PB_OK) return pb_error(w->status, "%s", w->message);
        int at = count++;
        for (; at > 0 && order[at - 1]->bound > w->bound; at--) order[at] = order[at - 1];
        order[at] = w;
    }
    for (int k = 0; k < count; k++) {
        way *w = order[k];
        w->status = PB_ERR_BUDGET;
        w->refusal.slower = true;
        if (limit > 0 && w->bound >= limit) continue;
        w->limits.faster_than = limit;
        compile_way(w);
        if (w->status == PB_ERR_BUDGET) continue;
        if (w->status != PB_OK) return pb_error(w->status, "%s", w->message);
        if (*best && !is_faster(w->programs, (*best)->programs)) continue;
        *best = w;
        limit = pb_programs_seconds(w->programs);
    }
    return PB_OK;
}

static pb_status compile_four(const pb_step_request *request, const pb_plan_request *budgets, pb_programs *programs) {
    pb_programs sets[WAYS];
    way ways[WAYS], *best = NULL;
    for (int k = 0; k < WAYS; k++) {
        sets[k] = *programs;
        ways[k] = (way){*request, *budgets, false, k < 2, &sets[k], {.needed = 0}, PB_ERR_BUDGET, "", 0};
        ways[k].limits.refusal = &ways[k].refusal;
        if (k % 2) ways[k].request.recompute = programs->recompute;
    }
    // What kernels set up at their first use is there when everything was tried on the device before.
    if (budgets->state <= PB_STATE_ON_DEVICE) {
        run_both(prepare_ways, &ways[0], &ways[1]);
    } else {
        prepare_ways(&ways[0]);
        prepare_ways(&ways[1]);
    }
    pb_status status = compile_ranked(ways, &best);
    if (status == PB_OK && !best) {
        const way *told = &ways[WAYS - 2];
        for (int k = WAYS; k-- > 0;)
            if (ways[k].status == PB_ERR_BUDGET && refuses_less(&ways[k].refusal, &told->refusal)) told = &ways[k];
        *budgets->refusal = told->refusal;
        status = pb_error(PB_ERR_BUDGET, "%s", told->message);
    }
    if (status == PB_OK) *programs = *best->programs;
    for (int k = 0; k < WAYS; k++)
        if (status != PB_OK || &ways[k] != best) pb_programs_deinit(&sets[k]);
    return status;
}

pb_status pb_programs_compile_deferred(const pb_step_request *request, const pb_plan_request *budgets, bool quick,
                                       pb_programs *programs) {
    programs->deferred = true;
    PB_RETURN_IF(choose_recompute(request, programs));
    // What is carried has a shape: all steps have to be of one size.
    const bool one_size = programs->count == 1 && !programs->sums;
    return one_size && !quick ? compile_four(request, budgets, programs)
                              : compile_pair(request, budgets, quick, one_size, programs);
}

pb_status pb_programs_compile_resident(const pb_step_request *request, const pb_plan_request *limits, bool quick,
                                       pb_programs *programs, bool *again) {
    pb_step_request more = *request;
    *again = false;
    const pb_status kept = pb_programs_compile_way(request, limits, quick, programs);
    if (kept != PB_ERR_BUDGET) return kept;
    const pb_plan_refusal refusal = *limits->refusal;
    PB_RETURN_IF(choose_recompute(request, programs));
    more.recompute = programs->recompute;
    *again = true;
    const pb_status status = pb_programs_compile_way(&more, limits, quick, programs);
    if (status == PB_ERR_BUDGET && refuses_less(&refusal, limits->refusal)) *limits->refusal = refusal;
    return status;
}
