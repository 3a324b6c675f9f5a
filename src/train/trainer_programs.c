#include <stdlib.h>
#include <string.h>

#include "train/trainer_parts.h"

pb_pass_program *pb_programs_find(pb_programs *programs, int64_t images, pb_pass pass) {
    for (int i = 0; i < programs->count; i++)
        if (programs->items[i].images == images && programs->items[i].pass == pass) return &programs->items[i];
    return NULL;
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

static pb_status compile(const pb_step_request *request, uint64_t budget, bool sums, pb_pass_program *p) {
    pb_step_request r = *request;
    r.batch = (int)p->images;
    r.pass = p->pass;
    r.sums = sums;
    PB_RETURN_IF(pb_step_graph_create(&r, &p->step));
    return pb_compile(p->step->graph, pb_backend_cpu(), &(pb_plan_request){.budget = {budget}}, &p->program);
}

static uint64_t place_of(const pb_pass_program *p, pb_vid v) {
    uint32_t count;
    return pb_program_pieces(p->program, p->step->graph, v, &count)->offset;
}

static bool same_places(const pb_pass_program *a, const pb_pass_program *b, const pb_param *pa, const pb_param *pb) {
    const pb_vid va[] = {pa->work, pa->master, pa->m, pa->v, pa->m_scales, pa->v_scales, pa->grad_sum};
    const pb_vid vb[] = {pb->work, pb->master, pb->m, pb->v, pb->m_scales, pb->v_scales, pb->grad_sum};
    for (size_t i = 0; i < sizeof va / sizeof *va; i++) {
        if ((va[i] == PB_NONE) != (vb[i] == PB_NONE)) return false;
        if (va[i] != PB_NONE && place_of(a, va[i]) != place_of(b, vb[i])) return false;
    }
    return true;
}

// All programs work on the same bytes, so they must agree on where they are.
static bool agree(const pb_pass_program *a, const pb_pass_program *b) {
    const pb_module *const ma[] = {a->step->unet, a->step->clip}, *const mb[] = {b->step->unet, b->step->clip};
    for (int m = 0; m < 2; m++)
        for (uint32_t i = 0; ma[m] && i < ma[m]->param_count; i++)
            if (!same_places(a, b, &ma[m]->params[i], &mb[m]->params[i])) return false;
    return true;
}

static pb_status compile_all(const pb_step_request *request, const pb_batching *batching, uint64_t budget,
                             pb_programs *programs) {
    bool sums = false;
    *programs = (pb_programs){0};
    PB_RETURN_IF(find_passes(batching, programs, &sums));
    for (int i = 0; i < programs->count; i++) {
        pb_pass_program *p = &programs->items[i];
        PB_RETURN_IF(compile(request, budget, sums, p));
        if (!agree(&programs->items[0], p))
            return pb_error(PB_ERR_INTERNAL, "two programs of a step disagree on where the weights are");
        const uint64_t bytes = p->program->tier_bytes[PB_TIER_DEVICE];
        if (bytes > programs->slab_bytes) programs->slab_bytes = bytes;
    }
    return PB_OK;
}

// The largest pass that fits, or 0.
static int64_t find_fit(const pb_step_request *request, const pb_batching *batching, uint64_t budget) {
    pb_batching smaller = *batching;
    for (smaller.pass_images = batching->pass_images / 2; smaller.pass_images > 0; smaller.pass_images /= 2) {
        pb_programs programs;
        const pb_status status = compile_all(request, &smaller, budget, &programs);
        pb_programs_deinit(&programs);
        if (status == PB_OK) return smaller.pass_images;
        if (status != PB_ERR_BUDGET) return 0;
    }
    return 0;
}

pb_status pb_programs_compile(const pb_step_request *request, const pb_batching *batching, uint64_t budget,
                              pb_programs *programs) {
    const pb_status status = compile_all(request, batching, budget, programs);
    if (status != PB_ERR_BUDGET) return status;
    char *reason = strdup(pb_error_message());
    const int64_t fit = find_fit(request, batching, budget);
    if (fit)
        pb_error(status, "%s; memory.micro_batch: %lld would fit as it is", reason ? reason : "", (long long)fit);
    else
        pb_error(status, "%s", reason ? reason : "the step does not fit the memory");
    free(reason);
    return status;
}

pb_status pb_programs_start(pb_programs *programs) {
    const pb_program *all[PB_PASS_PROGRAMS];
    for (int i = 0; i < programs->count; i++) all[i] = programs->items[i].program;
    PB_RETURN_IF(pb_memory_create_for(pb_backend_cpu(), all, (uint32_t)programs->count, NULL, &programs->memory));
    for (int i = 0; i < programs->count; i++) {
        pb_pass_program *p = &programs->items[i];
        PB_RETURN_IF(pb_executor_create(pb_backend_cpu(), p->step->graph, p->program, programs->memory, &p->executor));
    }
    return PB_OK;
}

void pb_programs_deinit(pb_programs *programs) {
    for (int i = 0; i < programs->count; i++) {
        pb_executor_destroy(programs->items[i].executor);
        pb_program_destroy(programs->items[i].program);
        pb_step_graph_destroy(programs->items[i].step);
    }
    pb_memory_destroy(programs->memory);
    *programs = (pb_programs){0};
}
