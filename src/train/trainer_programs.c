#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/trainer_parts.h"

enum { PB_ALL_PROGRAMS = PB_PASS_PROGRAMS + 3 };

pb_pass_program *pb_programs_find(pb_programs *programs, int64_t images, pb_pass pass) {
    for (int i = 0; i < programs->count; i++)
        if (programs->items[i].images == images && programs->items[i].pass == pass) return &programs->items[i];
    return NULL;
}

bool pb_pass_walk_next(const pb_programs *programs, const pb_batching *b, pb_pass_walk *w) {
    int64_t images;
    if (w->batch >= pb_batching_longest(b)) return false;
    const pb_pass pass = pb_batching_pass(b, w->batch, w->first, &images);
    w->pass = NULL;
    for (int i = 0; i < programs->count; i++)
        if (programs->items[i].images == images && programs->items[i].pass == pass) w->pass = &programs->items[i];
    w->first += images;
    if (w->first >= pb_batching_images(b, w->batch)) {
        w->first = 0;
        w->batch++;
    }
    return w->pass != NULL;
}

// Notes every kind of pass that occurs; whether any step has more than one. An epoch has few kinds but may have many
// batches: those between its first step and its last two are like those of the first.
static pb_status find_passes(const pb_batching *b, pb_programs *programs, bool *sums) {
    const int64_t batches = pb_batching_batches(b), steady = 2 * b->accumulation;
    for (int64_t j = 0; j < batches; j++) {
        if (j == steady && batches - steady > j) j = (batches - steady) / b->accumulation * b->accumulation;
        for (int64_t first = 0, images; first < pb_batching_images(b, j); first += images) {
            const pb_pass pass = pb_batching_pass(b, j, first, &images);
            if (pass != PB_PASS_WHOLE) *sums = true;
            if (pb_programs_find(programs, images, pass)) continue;
            if (programs->count == PB_PASS_PROGRAMS)
                return pb_error(PB_ERR_INTERNAL, "more kinds of passes than expected");
            programs->items[programs->count++] = (pb_pass_program){.images = images, .pass = pass};
        }
    }
    return PB_OK;
}

// The graph of one pass.
static pb_status build(const pb_step_request *request, const pb_programs *programs, const pb_pass_program *p,
                       pb_step_graph **step) {
    pb_step_request r = *request;
    r.batch = (int)p->images;
    r.pass = p->pass;
    if (p->pass == PB_PASS_SAMPLE || p->pass == PB_PASS_DECODE) {
        r.latent_h = request->validation.latent_h;
        r.latent_w = request->validation.latent_w;
    }
    r.sums = programs->sums;
    r.deferred = programs->deferred;
    return pb_step_graph_create(&r, step);
}

static pb_plan_request limits_of(const pb_plan_request *limits, const pb_programs *programs,
                                 const pb_pass_program *like) {
    pb_plan_request plan = *limits;
    plan.like = like ? like->program : NULL;
    if (!programs->deferred) plan.budget[PB_TIER_HOST] = plan.budget[PB_TIER_NVME] = 0;
    if (like) plan.faster_than = 0;  // its time is that of moves that are decided already
    return plan;
}

// Plans one pass with the decisions of another one.
static pb_status compile_like(const pb_step_request *request, const pb_plan_request *limits,
                              const pb_programs *programs, const pb_pass_program *like, pb_pass_program *p) {
    const pb_plan_request plan = limits_of(limits, programs, like);
    PB_RETURN_IF(build(request, programs, p, &p->step));
    return pb_compile(p->step->graph, programs->backend, &plan, &p->program);
}

// Plans the pass that decides.
static pb_status compile_first(const pb_step_request *ways, int count, const pb_plan_request *limits,
                               const pb_programs *programs, pb_pass_program *p, int *chosen) {
    pb_status status = PB_OK;
    pb_step_graph *steps[PB_PROGRAMS_WAYS] = {NULL};
    const pb_graph *graphs[PB_PROGRAMS_WAYS];
    const pb_plan_request plan = limits_of(limits, programs, NULL);
    uint32_t best = 0;
    assert(count <= PB_PROGRAMS_WAYS);
    for (int w = 0; w < count; w++) {
        PB_TRY(build(&ways[w], programs, p, &steps[w]));
        graphs[w] = steps[w]->graph;
    }
    PB_TRY(pb_compile_fastest(graphs, (uint32_t)count, programs->backend, &plan, &best, &p->program));
    *chosen = (int)best;
    p->step = steps[best];
    steps[best] = NULL;
fail:
    for (int w = 0; w < count; w++) pb_step_graph_destroy(steps[w]);
    return status;
}

static void drop(pb_pass_program *p) {
    pb_executor_destroy(p->executor);
    pb_program_destroy(p->program);
    pb_step_graph_destroy(p->step);
    p->executor = NULL;
    p->program = NULL;
    p->step = NULL;
}

void pb_programs_drop(pb_programs *programs) {
    for (int i = 0; i < programs->count; i++) drop(&programs->items[i]);
    drop(&programs->flush);
    drop(&programs->sample);
    drop(&programs->decode);
}

// All programs work on the same bytes, so one of them decides where those are: the one that needs most, as a rule the
// one with the most pictures that updates. Where another turns out to need more, that one decides.
// `spared`: the share of the budgets that it leaves to the others, which have to do with its decisions; *others: it is
// one of those that does not fit.
static pb_status compile_around(const pb_step_request *ways, int count, const pb_plan_request *limits,
                                pb_programs *programs, int first, double spared, bool *others, int *chosen) {
    pb_plan_request own = *limits;
    for (int t = 0; t <= PB_TIER_HOST; t++) own.budget[t] -= (uint64_t)((double)own.budget[t] * spared);
    *others = false;
    PB_RETURN_IF(compile_first(ways, count, &own, programs, &programs->items[first], chosen));
    *others = true;
    const pb_step_request *request = &ways[*chosen];
    const pb_pass_program *like = &programs->items[first];
    for (int i = 0; i < programs->count; i++)
        if (i != first) PB_RETURN_IF(compile_like(request, limits, programs, like, &programs->items[i]));
    if (request->validation.vae) {
        programs->sample = (pb_pass_program){.images = 2 * request->validation.pictures, .pass = PB_PASS_SAMPLE};
        programs->decode = (pb_pass_program){.images = 1, .pass = PB_PASS_DECODE};
        PB_RETURN_IF(compile_like(request, limits, programs, like, &programs->sample));
        PB_RETURN_IF(compile_like(request, limits, programs, like, &programs->decode));
    }
    if (!programs->deferred) return PB_OK;
    programs->flush = (pb_pass_program){.images = 1, .pass = PB_PASS_FLUSH};
    return compile_like(request, limits, programs, like, &programs->flush);
}

// Only one that updates knows what belongs to each parameter.
static bool decides(const pb_programs *programs, int i) {
    const pb_pass pass = programs->items[i].pass;
    return pass == PB_PASS_WHOLE || pass == (programs->deferred ? PB_PASS_FIRST : PB_PASS_LAST);
}

pb_status pb_programs_compile_ways(const pb_step_request *ways, int count, const pb_plan_request *limits, bool quick,
                                   pb_programs *programs, int *chosen) {
    static const double thorough_shares[] = {0, 0.03, 0.08, 0.15, 0.25}, quick_shares[] = {0, 0.15};
    const double *shares = quick ? quick_shares : thorough_shares;
    const int share_count = quick ? 2 : 5, rounds = quick ? 1 : programs->count;
    bool tried[PB_PASS_PROGRAMS] = {false};
    pb_plan_refusal first = {.needed = 0};  // with all of the budgets
    bool refused = false;
    pb_status status = PB_ERR_BUDGET;
    for (int round = 0; round < rounds && status == PB_ERR_BUDGET; round++) {
        int most = -1;
        for (int i = 0; i < programs->count; i++)
            if (!tried[i] && decides(programs, i) &&
                (most < 0 || programs->items[i].images > programs->items[most].images))
                most = i;
        if (most < 0) break;
        tried[most] = true;
        bool others = true;
        for (int k = 0; k < share_count && others; k++) {
            status = compile_around(ways, count, limits, programs, most, shares[k], &others, chosen);
            if (status == PB_OK) return status;
            pb_programs_drop(programs);
            if (status != PB_ERR_BUDGET) return status;
            if (!refused) first = *limits->refusal;
            refused = true;
        }
    }
    *limits->refusal = first;
    return status;
}

static pb_status compile_all(const pb_step_request *request, const pb_batching *batching,
                             const pb_memory_limits *limits, bool quick, pb_programs *programs) {
    *programs = (pb_programs){.backend = limits->backend};
    PB_RETURN_IF(find_passes(batching, programs, &programs->sums));
    pb_plan_request budgets = limits->request;
    pb_programs deferred = *programs;
    bool again = false;
    budgets.quick = quick;
    // What fits is not moved; the update is then made at the end of its own step.
    pb_status status = PB_ERR_BUDGET;
    if (budgets.state <= PB_STATE_ON_DEVICE)
        status = pb_programs_compile_resident(request, &budgets, quick, programs, &again);
    if ((status != PB_ERR_BUDGET && status != PB_OK) || budgets.state == PB_STATE_ON_DEVICE) return status;
    if (status == PB_OK && (quick || !again)) return PB_OK;
    if (limits->shared) {
        // Device and host are one memory: with a disk below, some of it has to be host.
        budgets.budget[PB_TIER_HOST] = budgets.budget[PB_TIER_DEVICE] / 2;
        budgets.budget[PB_TIER_DEVICE] -= budgets.budget[PB_TIER_HOST];
        if (!budgets.budget[PB_TIER_NVME]) return status;
    }
    if (!budgets.budget[PB_TIER_HOST]) return status;
    if (status != PB_OK) return pb_programs_compile_deferred(request, &budgets, quick, programs);
    // What had to be run again to fit takes time, too; moving may take less. A step that moves nothing is the surer
    // one, so that has to be worth it.
    static const double worth_moving = 0.97;
    deferred.recompute = programs->recompute;
    budgets.faster_than = worth_moving * pb_programs_seconds(programs);
    const pb_status other = pb_programs_compile_deferred(request, &budgets, quick, &deferred);
    if (other == PB_OK && pb_programs_seconds(&deferred) < worth_moving * pb_programs_seconds(programs)) {
        pb_programs_deinit(programs);
        *programs = deferred;
        return PB_OK;
    }
    pb_programs_deinit(&deferred);
    return other == PB_ERR_BUDGET ? PB_OK : other;
}

// The largest pass that fits, or 0.
static int64_t find_fit(const pb_step_request *request, const pb_batching *batching, const pb_memory_limits *limits) {
    pb_batching smaller = *batching;
    for (smaller.pass_images = batching->pass_images / 2; smaller.pass_images > 0; smaller.pass_images /= 2) {
        pb_programs programs;
        const pb_status status = compile_all(request, &smaller, limits, true, &programs);
        pb_programs_deinit(&programs);
        if (status == PB_OK) return smaller.pass_images;
        if (status != PB_ERR_BUDGET) return 0;
    }
    return 0;
}

static bool fits_without_validation(const pb_step_request *request, const pb_batching *batching,
                                    const pb_memory_limits *limits) {
    if (!request->validation.vae) return false;
    pb_step_request without = *request;
    without.validation.vae = NULL;
    pb_programs programs;
    const pb_status status = compile_all(&without, batching, limits, true, &programs);
    pb_programs_deinit(&programs);
    return status == PB_OK;
}

// Whether all of it fits.
static pb_status try_budgets(const pb_step_request *request, const pb_batching *batching,
                             const pb_memory_limits *limits) {
    pb_programs programs;
    const pb_status status = compile_all(request, batching, limits, true, &programs);
    pb_programs_deinit(&programs);
    return status;
}

typedef struct problem {
    const pb_step_request *request;
    const pb_batching *batching;
    const pb_memory_limits *limits;
} problem;

static pb_status probe(void *context, const pb_plan_request *budgets) {
    const problem *p = context;
    pb_memory_limits limits = *p->limits;
    limits.request = *budgets;
    return try_budgets(p->request, p->batching, &limits);
}

// "1.500 GiB", "12.000 MiB".
static const char *size_text(uint64_t bytes, char text[32]) {
    const bool large = bytes >= UINT64_C(1) << 29;
    snprintf(text, 32, "%.3f %s", (double)bytes / (large ? 0x1p30 : 0x1p20), large ? "GiB" : "MiB");
    return text;
}

// Says what would fit. `l`: the limits that did not do, with the refusal.
static void refuse(const pb_step_request *request, const pb_batching *batching, const pb_memory_limits *l,
                   pb_programs *programs) {
    static const char *const keys[PB_TIER_COUNT] = {"memory.device", "memory.host", "memory.nvme_size"};
    static const char *const names[PB_TIER_COUNT] = {"device memory", "host memory", "NVMe"};
    const pb_plan_refusal lacks = *l->request.refusal;
    char smaller[64] = "", needs[32], given[32], besides[160] = "";
    problem all = {request, batching, l};
    pb_plan_request enough = l->request;
    pb_plan_refusal missing = lacks;
    const char *const what = request->validation.vae ? "the step, with its validation pictures," : "the step";
    if (fits_without_validation(request, batching, l)) {
        snprintf(smaller, sizeof smaller, "; without validation_prompt it would fit as it is");
    } else {
        const int64_t fit = find_fit(request, batching, l);
        if (fit) snprintf(smaller, sizeof smaller, "; memory.micro_batch: %lld would fit as it is", (long long)fit);
    }
    enough.refusal = &missing;
    const bool found = lacks.needed && pb_smallest_budgets(probe, &all, &enough, lacks.tier);
    const uint64_t works = found ? enough.budget[lacks.tier] : 0;
    bool alone = true;
    for (int t = 0; t < PB_TIER_COUNT; t++) {
        if (!found || t == (int)lacks.tier || enough.budget[t] == l->request.budget[t]) continue;
        const size_t used = strlen(besides);
        alone = false;
        snprintf(besides + used, sizeof besides - used, " and %s: %llu", keys[t], (unsigned long long)enough.budget[t]);
    }
    size_text(works ? works : lacks.needed, needs);
    size_text(l->request.budget[lacks.tier], given);
    programs->lacking = lacks.tier;
    programs->smallest = alone ? works : 0;
    if (!alone)
        pb_error(PB_ERR_BUDGET,
                 "%s needs %s of %s, and %s allows %s; that alone does not do, but %s: %llu%s works (a smaller "
                 "train_batch_size or resolution needs less)%s",
                 what, needs, names[lacks.tier], keys[lacks.tier], given, keys[lacks.tier], (unsigned long long)works,
                 besides, smaller);
    else if (works)
        pb_error(PB_ERR_BUDGET,
                 "%s needs %s of %s, and %s allows %s; the smallest budget that works is %llu bytes (a smaller "
                 "train_batch_size or resolution needs less)%s",
                 what, needs, names[lacks.tier], keys[lacks.tier], given, (unsigned long long)works, smaller);
    else
        pb_error(PB_ERR_BUDGET,
                 "%s needs at least %s of %s, and %s allows %s; that alone does not do, the other budgets of "
                 "`memory` are too small as well%s",
                 what, needs, names[lacks.tier], keys[lacks.tier], given, smaller);
}

pb_status pb_programs_compile(const pb_step_request *request, const pb_batching *batching,
                              const pb_memory_limits *limits, pb_programs *programs) {
    pb_plan_refusal refusal = {.needed = 0};
    pb_memory_limits own = *limits;
    own.request.refusal = &refusal;
    const pb_status status = compile_all(request, batching, &own, false, programs);
    if (status == PB_OK) {
        programs->nvme = limits->nvme;
        programs->link_share = limits->link_share;
        pb_programs_bytes(programs, programs->tier_bytes);
        pb_error_clear();
    }
    if (status != PB_ERR_BUDGET) return status;
    pb_programs_deinit(programs);
    refuse(request, batching, &own, programs);
    return status;
}

// All of them: list[PB_ALL_PROGRAMS].
static int list_passes(pb_programs *programs, pb_pass_program **list) {
    pb_pass_program *const others[] = {&programs->flush, &programs->sample, &programs->decode};
    int count = 0;
    for (int i = 0; i < programs->count; i++) list[count++] = &programs->items[i];
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i]->program) list[count++] = others[i];
    return count;
}

static int list_programs(const pb_programs *programs, const pb_program **list) {
    pb_programs copy = *programs;
    pb_pass_program *passes[PB_ALL_PROGRAMS];
    const int count = list_passes(&copy, passes);
    for (int i = 0; i < count; i++) list[i] = passes[i]->program;
    return count;
}

void pb_programs_bytes(const pb_programs *programs, uint64_t bytes[PB_TIER_COUNT]) {
    const pb_program *list[PB_ALL_PROGRAMS];
    const int count = list_programs(programs, list);
    for (int t = 0; t < PB_TIER_COUNT; t++) {
        bytes[t] = 0;
        for (int i = 0; i < count; i++)
            if (list[i]->tier_bytes[t] > bytes[t]) bytes[t] = list[i]->tier_bytes[t];
    }
}

void pb_programs_peaks(const pb_programs *programs, uint64_t bytes[PB_TIER_COUNT],
                       uint64_t by_class[PB_TIER_COUNT][PB_CLASS_COUNT], uint64_t padding[PB_TIER_COUNT]) {
    const pb_program *list[PB_ALL_PROGRAMS];
    const int count = list_programs(programs, list), steps = programs->count + (programs->deferred ? 1 : 0);
    pb_programs_bytes(programs, bytes);
    for (int t = 0; t < PB_TIER_COUNT; t++) {
        const pb_program *most = list[0];
        for (int i = 1; i < count && i < steps; i++)
            if (list[i]->tier_bytes[t] > most->tier_bytes[t]) most = list[i];
        padding[t] = most->padding_bytes[t] + (bytes[t] - most->tier_bytes[t]);
        memcpy(by_class[t], most->peak_by_class[t], sizeof most->peak_by_class[t]);
    }
}

pb_status pb_programs_start(pb_programs *programs) {
    const pb_program *list[PB_ALL_PROGRAMS];
    const int count = list_programs(programs, list);
    const pb_memory_options options = {.nvme = programs->tier_bytes[PB_TIER_NVME] ? programs->nvme : NULL,
                                       .link_share = programs->link_share};
    PB_RETURN_IF(pb_memory_create_for(programs->backend, list, (uint32_t)count, &options, &programs->memory));
    pb_pass_program *passes[PB_ALL_PROGRAMS];
    list_passes(programs, passes);
    for (int i = 0; i < count; i++) {
        pb_pass_program *p = passes[i];
        PB_RETURN_IF(pb_executor_create(programs->backend, p->step->graph, p->program, programs->memory, &p->executor));
    }
    return PB_OK;
}

void pb_programs_deinit(pb_programs *programs) {
    pb_programs_drop(programs);
    pb_memory_destroy(programs->memory);
    pb_arena_destroy(programs->arena);
    *programs = (pb_programs){0};
}
