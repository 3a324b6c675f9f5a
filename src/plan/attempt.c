#include "plan/attempt.h"

#include <string.h>

#include "plan/predict.h"

pb_status pb_setting_build(const pb_graph *graph, const pb_plan_request *request, uint64_t unit, pb_strategy strategy,
                           pb_setting *b) {
    pb_pager *p = &b->pager;
    *b = (pb_setting){.pager = {.graph = graph,
                                .request = request,
                                .machine = request->machine,
                                .layout = &b->layout,
                                .attempt = {.strategy = strategy},
                                .adopted = request->like != NULL,
                                .arena = pb_arena_create()}};
    if (!p->arena) return NO_MEMORY;
    if (request->like)
        PB_RETURN_IF(pb_layout_adopt(p->arena, request->like->layout, graph, &b->layout));
    else
        PB_RETURN_IF(pb_layout_create(p->arena, graph, unit, &b->layout));
    PB_RETURN_IF(pb_pager_build(p));
    for (uint32_t i = 0; i < p->device.segment_count; i++)
        for (int k = 0; k < 2; k++) b->gap_count += p->device.segments[i].use[k].count;
    return PB_OK;
}

void pb_setting_deinit(pb_setting *b) {
    pb_arena_destroy(b->pager.arena);
    b->pager.arena = NULL;
}

static void *copy(pb_arena *arena, const void *from, size_t count, size_t size) {
    void *made = pb_arena_array(arena, count + 1, size);
    if (made) memcpy(made, from, count * size);
    return made;
}

// With homes of its own.
static pb_status copy_layout(pb_arena *arena, const pb_chunking *from, pb_chunking **result) {
    pb_chunking *l = copy(arena, from, 1, sizeof *l);
    if (!l) return NO_MEMORY;
    l->weight_home = copy(arena, from->weight_home, l->chunk_count, sizeof *l->weight_home);
    l->gradient_home = copy(arena, from->gradient_home, l->chunk_count, sizeof *l->gradient_home);
    l->state_home = copy(arena, from->state_home, l->unit_count, sizeof *l->state_home);
    l->other_home = copy(arena, from->other_home, l->other_count, sizeof *l->other_home);
    *result = l;
    return l->weight_home && l->gradient_home && l->state_home && l->other_home ? PB_OK : NO_MEMORY;
}

// Into *p, in an arena of its own: a copy of all that an attempt decides.
static pb_status begin(const pb_setting *b, pb_attempt attempt, pb_pager *p) {
    *p = b->pager;
    p->attempt = attempt;
    p->arena = pb_arena_create();
    if (!p->arena) return NO_MEMORY;
    pb_tier_problem *d = &p->device;
    d->brings_home = attempt.gradients_stay && !p->adopted;
    d->segments = copy(p->arena, b->pager.device.segments, d->segment_count, sizeof *d->segments);
    d->used = pb_arena_array(p->arena, d->slot_count, sizeof *d->used);
    p->scratch_offset = pb_arena_array(p->arena, d->slot_count, sizeof *p->scratch_offset);
    bool *vacated = pb_arena_array(p->arena, b->gap_count + 1, sizeof *vacated);
    if (!d->segments || !d->used || !p->scratch_offset || !vacated) return NO_MEMORY;
    for (uint32_t i = 0; i < d->segment_count; i++) {
        for (int k = 0; k < 2; k++) {
            d->segments[i].use[k].vacated = vacated;
            vacated += d->segments[i].use[k].count;
        }
    }
    return copy_layout(p->arena, &b->layout, &p->layout);
}

// Whether there is room on the device when the step ends.
static bool has_turning_point(const pb_pager *p) {
    static const double much = 0.05;
    const double budget = (double)p->request->budget[PB_TIER_DEVICE];
    return (double)p->device.used[p->device.slot_count - 1] < (1 - much) * budget;
}

pb_status pb_attempt_make(const pb_setting *setting, pb_attempt attempt, bool exhausted, pb_made *made) {
    pb_status status = PB_OK;
    pb_prediction prediction;
    pb_pager p;
    *made = (pb_made){.program = NULL};
    PB_TRY(begin(setting, attempt, &p));
    p.exhausted = exhausted;
    status = pb_pager_solve(&p, made->needed);
    made->unplaced = p.unplaced;
    if (status == PB_ERR_BUDGET) {
        status = PB_OK;
        goto fail;
    }
    PB_TRY(status);
    PB_TRY(pb_pager_emit(&p, &made->program));
    PB_TRY(pb_program_predict(p.graph, made->program, p.machine, &prediction, NULL));
    made->seconds = made->program->seconds = prediction.seconds;
    made->bound = prediction.lower_bound;
    made->turning = has_turning_point(&p);
fail:
    if (status != PB_OK) {
        pb_program_destroy(made->program);
        made->program = NULL;
    }
    pb_arena_destroy(p.arena);
    return status;
}

pb_status pb_attempt_estimate(const pb_setting *setting, pb_attempt attempt, pb_estimate *e) {
    pb_status status = PB_OK;
    pb_pager p;
    *e = (pb_estimate){.fits = false};
    PB_TRY(begin(setting, attempt, &p));
    p.estimates = true;
    status = pb_pager_solve(&p, e->needed);
    e->fits = status == PB_OK;
    e->host_matters = p.host_relieved || e->needed[PB_TIER_HOST] || e->needed[PB_TIER_NVME];
    if (e->fits) e->bound = pb_pager_bound(&p);
    if (status == PB_ERR_BUDGET) status = PB_OK;
fail:
    pb_arena_destroy(p.arena);
    return status;
}
