#include "train/step_plan.h"

#include <stdlib.h>

#include "base/clock.h"
#include "plan/timeline.h"
#include "train/trainer_parts.h"

// --- A step is its passes ---

static void add(const pb_prediction *p, const pb_step_bound *least, const pb_program *program, pb_step_forecast *f) {
    f->passes++;
    f->seconds += p->seconds;
    f->lower_bound += least->seconds;
    for (int i = 0; i < PB_BOUND_COUNT; i++) f->held[i] += least->held[i];
    for (int l = 0; l < PB_LANE_COUNT; l++) f->busy[l] += p->busy[l];
    for (int l = 0; l < PB_LINK_COUNT; l++) f->moved[l] += program->moved[l];
}

pb_status pb_programs_predict(const pb_programs *programs, const pb_batching *batching, const pb_machine *machine,
                              pb_step_forecast *f) {
    pb_prediction predictions[PB_PASS_PROGRAMS];
    pb_step_bound least[PB_PASS_PROGRAMS];
    bool known[PB_PASS_PROGRAMS] = {false};
    *f = (pb_step_forecast){0};
    for (pb_pass_walk w = {0}; pb_pass_walk_next(programs, batching, &w);) {
        const ptrdiff_t i = w.pass - programs->items;
        if (!known[i]) {
            PB_RETURN_IF(pb_program_predict(w.pass->step->graph, w.pass->program, machine, &predictions[i], NULL));
            PB_RETURN_IF(pb_program_bound(w.pass->step->graph, w.pass->program, machine, &least[i]));
        }
        known[i] = true;
        add(&predictions[i], &least[i], w.pass->program, f);
    }
    for (int i = 0; i < PB_BOUND_COUNT; i++)
        if (f->held[i] > f->held[f->bound]) f->bound = (pb_bound)i;
    return PB_OK;
}

// --- The plan ---

static void take_most(const pb_program *p, pb_step_plan *plan) {
    if (p->kept_activations > plan->kept_activations) plan->kept_activations = p->kept_activations;
    if (p->lower_bound > plan->lower_bound_bytes) plan->lower_bound_bytes = p->lower_bound;
}

static void sum_up(pb_step_plan *plan) {
    const pb_programs *programs = plan->programs;
    const pb_pass_program *most = &programs->items[0];
    for (int i = 0; i < programs->count; i++) {
        const pb_pass_program *p = &programs->items[i];
        take_most(p->program, plan);
        if (p->program->tier_bytes[PB_TIER_DEVICE] > most->program->tier_bytes[PB_TIER_DEVICE]) most = p;
    }
    if (programs->deferred) take_most(programs->flush.program, plan);
    pb_programs_peaks(programs, plan->peak, plan->by_class, plan->padding);
    plan->graph = most->step->graph;
    plan->program = most->program;
    plan->parameters = pb_step_graph_parameters(most->step);
    for (pb_pass_walk w = {0}; pb_pass_walk_next(programs, plan->batching, &w);) {
        plan->flops_forward += pb_graph_flops(w.pass->step->graph, PB_PHASE_FORWARD);
        plan->flops_backward += pb_graph_flops(w.pass->step->graph, PB_PHASE_BACKWARD);
    }
}

pb_status pb_step_plan_create(const pb_config *config, const pb_step_request *request, const pb_memory_limits *limits,
                              pb_step_plan *plan) {
    pb_status status = PB_OK;
    const double begun = pb_seconds_now();
    *plan =
        (pb_step_plan){.programs = calloc(1, sizeof *plan->programs), .batching = calloc(1, sizeof *plan->batching)};
    if (!plan->programs || !plan->batching) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    *plan->batching = pb_batching_of(config, config->train_batch_size * config->gradient_accumulation_steps);
    PB_TRY(pb_programs_compile(request, plan->batching, limits, plan->programs));
    plan->deferred = plan->programs->deferred;
    sum_up(plan);
    PB_TRY(pb_programs_predict(plan->programs, plan->batching, &limits->machine, &plan->step));
    plan->plan_seconds = pb_seconds_now() - begun;
    return PB_OK;
fail:;
    const pb_step_plan refused = {.lacking = plan->programs ? plan->programs->lacking : 0,
                                  .smallest = plan->programs ? plan->programs->smallest : 0};
    pb_step_plan_deinit(plan);
    *plan = refused;
    return status;
}

void pb_step_plan_deinit(pb_step_plan *plan) {
    if (plan->programs) pb_programs_deinit(plan->programs);
    free(plan->programs);
    free(plan->batching);
    *plan = (pb_step_plan){0};
}

// --- What is where, and what is done to it ---

void pb_step_plan_homes(const pb_step_plan *plan, uint64_t bytes[PB_TIER_COUNT][PB_CLASS_COUNT]) {
    const pb_graph *g = plan->graph;
    for (int t = 0; t < PB_TIER_COUNT; t++)
        for (int c = 0; c < PB_CLASS_COUNT; c++) bytes[t][c] = 0;
    for (pb_vid v = 0; v < g->value_count; v++) {
        uint32_t count;
        if (!g->values[v].persistent || g->values[v].alias != PB_NONE) continue;
        const pb_piece *pieces = pb_program_pieces(plan->program, g, v, &count);
        for (uint32_t i = 0; i < count; i++) bytes[pieces[i].tier][g->values[v].class_] += pieces[i].bytes;
    }
}

static pb_status add_moves(const pb_pass_program *p, uint64_t bytes[PB_LINK_COUNT][PB_CLASS_COUNT]) {
    pb_timeline *timeline = NULL;
    pb_insn_times *times = calloc((size_t)p->program->insn_count + 1, sizeof *times);
    if (!times) return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    const pb_status status = pb_timeline_create(p->step->graph, p->program, times, &timeline);
    for (uint32_t i = 0; status == PB_OK && i < p->program->insn_count; i++) {
        const pb_insn *insn = &p->program->insns[i];
        if (insn->kind != PB_INSN_FETCH && insn->kind != PB_INSN_EVICT) continue;
        const pb_vid v = timeline->moved[i];
        bytes[pb_link_of(insn->lane)][v == PB_NONE ? PB_CLASS_WORKSPACE : p->step->graph->values[v].class_] +=
            insn->bytes;
    }
    pb_timeline_destroy(timeline);
    free(times);
    return status;
}

pb_status pb_step_plan_moved(const pb_step_plan *plan, uint64_t bytes[PB_LINK_COUNT][PB_CLASS_COUNT]) {
    for (int l = 0; l < PB_LINK_COUNT; l++)
        for (int c = 0; c < PB_CLASS_COUNT; c++) bytes[l][c] = 0;
    for (pb_pass_walk w = {0}; pb_pass_walk_next(plan->programs, plan->batching, &w);)
        PB_RETURN_IF(add_moves(w.pass, bytes));
    return PB_OK;
}

// Of what was put aside only the time counts: it is kept.
static void add_recast(const pb_machine *machine, const pb_graph *g, const pb_insn *insn, pb_repeated *copies) {
    copies->seconds += pb_machine_recast_seconds(machine, g, insn);
    if (insn->in[0].value == insn->out[0].value) return;
    copies->ops++;
    copies->bytes += (uint64_t)insn->count * pb_dtype_size(g->values[insn->out[0].value].dtype);
}

void pb_step_plan_work(const pb_step_plan *plan, const pb_machine *machine, pb_step_work *work) {
    *work = (pb_step_work){0};
    const pb_graph *g = plan->graph;
    for (uint32_t n = 0; n < g->node_count; n++) {
        const pb_node *node = &g->nodes[n];
        if (!node->recompute) continue;
        pb_repeated *again = node->phase == PB_PHASE_UPDATE             ? &work->gradients
                             : pb_op_kind_of(node->op) == PB_KIND_CHEAP ? &work->cheap
                                                                        : &work->contractions;
        again->ops++;
        again->seconds += pb_node_seconds(machine, g, n);
        for (int k = 0; k < PB_MAX_OUTPUTS; k++)
            if (node->out[k] != PB_NONE) again->bytes += pb_value_bytes(&g->values[node->out[k]]);
    }
    for (pb_vid v = 0; v < g->value_count; v++) {
        const pb_value *value = &g->values[v];
        if (value->persistent && value->alias == PB_NONE && value->class_ == PB_CLASS_ACTIVATION)
            work->carried += pb_value_bytes(value);
    }
    for (pb_pass_walk w = {0}; pb_pass_walk_next(plan->programs, plan->batching, &w);) {
        const pb_program *p = w.pass->program;
        for (uint32_t i = 0; i < p->insn_count; i++) {
            const pb_insn *insn = &p->insns[i];
            if (insn->kind == PB_INSN_RECAST) add_recast(machine, w.pass->step->graph, insn, &work->copies);
            if (insn->kind != PB_INSN_RUN && insn->kind != PB_INSN_UPDATE) continue;
            const pb_node *node = &w.pass->step->graph->nodes[insn->node];
            if (node->op != PB_OP_ADAMW) continue;
            const int64_t count = insn->kind == PB_INSN_UPDATE
                                      ? insn->count
                                      : pb_shape_count(w.pass->step->graph->values[node->in[3]].shape);
            *(insn->lane == PB_LANE_HOST ? &work->updated_on_host : &work->updated_on_device) += count;
        }
    }
}
