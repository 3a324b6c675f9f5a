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

// Into request->carry, which then lives in *arena; where none are worth it, both stay NULL.
static pb_status choose_carry(const pb_programs *programs, const pb_plan_request *limits, pb_step_request *request,
                              pb_arena **arena) {
    pb_status status = PB_OK;
    pb_step_graph *step = NULL;
    double *seconds = NULL;
    pb_step_request r = *request;
    r.batch = (int)programs->items[0].images;
    r.pass = programs->items[0].pass;
    r.deferred = true;
    PB_TRY(pb_step_graph_create(&r, &step));
    if (!weights_live_on(step) && !(request->recompute > 0)) goto fail;
    *arena = pb_arena_create();
    pb_carry *carry = *arena ? pb_arena_alloc(*arena, sizeof *carry) : NULL;
    seconds = malloc((step->graph->node_count + 1) * sizeof *seconds);
    if (!carry || !seconds) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    for (uint32_t n = 0; n < step->graph->node_count; n++)
        seconds[n] = pb_node_seconds(limits->machine, step->graph, n);
    PB_TRY(pb_step_graph_carry(*arena, step, seconds, seconds_per_byte(limits), carry));
    if (carry->remade_count) request->carry = carry;
fail:
    if (!request->carry) {
        pb_arena_destroy(*arena);
        *arena = NULL;
    }
    free(seconds);
    pb_step_graph_destroy(step);
    return status;
}

// --- Two ways side by side ---

// For a thread: a way with something carried, if that is worth it, and a program for it.
typedef struct way {
    pb_step_request request;
    pb_plan_request limits;
    bool quick, carries;
    const pb_programs *passes;
    pb_arena *arena;       // of what it carries
    pb_programs programs;  // result
    pb_plan_refusal refusal;
    pb_status status;
    char message[512];
} way;

static void finish_way(way *w, pb_status status) {
    w->status = status;
    if (status != PB_OK) snprintf(w->message, sizeof w->message, "%s", pb_error_message());
}

static void *carry_way(void *argument) {
    way *w = argument;
    finish_way(w, choose_carry(w->passes, &w->limits, &w->request, &w->arena));
    return NULL;
}

static void *compile_way(void *argument) {
    way *w = argument;
    int chosen;
    w->limits.refusal = &w->refusal;
    if (w->carries) carry_way(w);
    if (w->status != PB_OK) return NULL;
    w->programs = *w->passes;
    w->programs.arena = w->arena;
    w->arena = NULL;
    finish_way(w, pb_programs_compile_ways(&w->request, 1, &w->limits, w->quick, &w->programs, &chosen));
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

// Linears kept, and run again in the backward pass; with gradients that are made again, or not.
static way way_of(const pb_step_request *request, const pb_plan_request *budgets, const pb_programs *programs,
                  bool again) {
    way w = {.request = *request, .limits = *budgets, .passes = programs};
    if (again) w.request.recompute = programs->recompute;
    return w;
}

// Where that moves bytes with linears kept, or does not fit, they are run again if that is predicted to be faster.
// `programs` lists the passes, and has nothing compiled where this fails.
static pb_status compile_pair(const pb_step_request *request, const pb_plan_request *budgets, bool quick, bool carries,
                              pb_programs *programs) {
    way ways[2];
    pb_status status = PB_OK;
    int best = -1;
    for (int k = 0; k < 2; k++) {
        ways[k] = way_of(request, budgets, programs, k == 1);
        ways[k].quick = quick;
        ways[k].carries = carries;
    }
    run_both(compile_way, &ways[0], &ways[1]);
    for (int k = 0; k < 2 && status == PB_OK; k++)  // what is no matter of budgets ends it
        if (ways[k].status != PB_OK && ways[k].status != PB_ERR_BUDGET)
            status = pb_error(ways[k].status, "%s", ways[k].message);
    if (status != PB_OK) goto fail;
    const way *plain = &ways[0], *again = &ways[1];
    if (plain->status == PB_OK) best = 0;
    if (again->status == PB_OK &&
        (best < 0 || (!quick && moves_something(&plain->programs) && is_faster(&again->programs, &plain->programs))))
        best = 1;
    if (best < 0) {
        *budgets->refusal = refuses_less(&plain->refusal, &again->refusal) ? plain->refusal : again->refusal;
        PB_FAIL(PB_ERR_BUDGET, "%s", plain->message);
    }
    *programs = ways[best].programs;
fail:
    for (int k = 0; k < 2; k++)
        if (k != best) pb_programs_deinit(&ways[k].programs);
    return status;
}

// --- Four ways in one search ---

// Gradients made again where that is worth it, or kept; in either case linears kept, or run again.
static pb_status compile_four(const pb_step_request *request, const pb_plan_request *budgets, pb_programs *programs) {
    way carrying[2];
    pb_step_request requests[PB_PROGRAMS_WAYS];
    pb_status status = PB_OK;
    int count = 0, chosen = -1;
    for (int k = 0; k < 2; k++) carrying[k] = way_of(request, budgets, programs, k == 1);
    run_both(carry_way, &carrying[0], &carrying[1]);
    for (int k = 0; k < 2; k++) {
        if (carrying[k].status != PB_OK) PB_FAIL(carrying[k].status, "%s", carrying[k].message);
        if (carrying[k].request.carry) requests[count++] = carrying[k].request;
    }
    for (int k = 0; k < 2; k++) requests[count++] = way_of(request, budgets, programs, k == 1).request;
    PB_TRY(pb_programs_compile_ways(requests, count, budgets, false, programs, &chosen));
fail:
    for (int k = 0; k < 2; k++) {
        if (status == PB_OK && requests[chosen].carry && requests[chosen].carry == carrying[k].request.carry)
            programs->arena = carrying[k].arena;
        else
            pb_arena_destroy(carrying[k].arena);
    }
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
    int chosen;
    *again = false;
    const pb_status kept = pb_programs_compile_ways(request, 1, limits, quick, programs, &chosen);
    if (kept != PB_ERR_BUDGET) return kept;
    const pb_plan_refusal refusal = *limits->refusal;
    PB_RETURN_IF(choose_recompute(request, programs));
    more.recompute = programs->recompute;
    *again = true;
    const pb_status status = pb_programs_compile_ways(&more, 1, limits, quick, programs, &chosen);
    if (status == PB_ERR_BUDGET && refuses_less(&refusal, limits->refusal)) *limits->refusal = refusal;
    return status;
}
