#include "graph/optimizer.h"

#include <stdlib.h>
#include <string.h>

#include "graph/rules.h"

static pb_vid add_pair(pb_graph *g, pb_opcode op, pb_vid a, pb_vid b) {
    return pb_graph_add_single(g, op, NULL, a, b, PB_NONE, PB_NONE, PB_NONE);
}

pb_vid pb_mse_loss(pb_graph *g, pb_vid prediction, pb_vid target) {
    return add_pair(g, PB_OP_MSE_LOSS, prediction, target);
}

pb_vid pb_mse_loss_bwd(pb_graph *g, pb_vid prediction, pb_vid target, pb_vid weight, pb_vid scale) {
    return pb_graph_add_single(g, PB_OP_MSE_LOSS_BWD, NULL, prediction, target, weight, scale, PB_NONE);
}

pb_vid pb_accumulate(pb_graph *g, pb_vid gradient, pb_vid sum) {
    return add_pair(g, PB_OP_ACCUMULATE, gradient, sum);
}

// Writes a new version of `old` with output `slot` of the newest node, which does not read it.
static pb_vid overwrite(pb_graph *g, int slot, pb_vid old) {
    pb_value copy = g->values[old];
    copy.alias = copy.persistent ? old : PB_NONE;  // what does not live on has no place to keep
    copy.producer = g->node_count - 1;
    return g->nodes[g->node_count - 1].out[slot] = pb_graph_new_value(g, &copy);
}

pb_vid pb_store_gradient(pb_graph *g, pb_vid gradient, pb_vid sum) {
    if (g->status != PB_OK) return PB_NONE;
    const pb_attr attr = {.cast = {.dtype = g->values[sum].dtype}};
    pb_vid in[PB_MAX_INPUTS], out[PB_MAX_OUTPUTS];
    for (int i = 0; i < PB_MAX_INPUTS; i++) in[i] = i ? PB_NONE : gradient;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) out[i] = PB_ABSENT;
    pb_graph_add_node(g, PB_OP_CAST, &attr, in, out);
    return g->status == PB_OK ? overwrite(g, 0, sum) : PB_NONE;
}

pb_vid pb_grad_norm(pb_graph *g, pb_vid gradient, pb_vid norm) {
    return add_pair(g, PB_OP_GRAD_NORM, gradient, norm);
}

pb_vid pb_step_control(pb_graph *g, pb_vid norm, pb_vid hyper) {
    return add_pair(g, PB_OP_STEP_CONTROL, norm, hyper);
}

pb_vid pb_adamw_on(pb_graph *g, pb_vid gradient, pb_vid control, pb_vid hyper, const pb_adamw_state *s) {
    if (g->status != PB_OK) return PB_NONE;
    const pb_dtype master = g->values[s->master].dtype;
    const bool split = master == PB_I16 || master == PB_I8;
    const pb_attr attr = {.adamw = {.stream = s->stream}};
    const pb_vid in[PB_MAX_INPUTS] = {gradient,    control,    hyper, s->master, s->m, s->v, split ? s->work : PB_NONE,
                                      s->m_scales, s->v_scales};
    pb_vid out[PB_MAX_OUTPUTS];
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) out[i] = PB_NONE;
    if (!split) out[PB_ADAMW_NEW_WORK] = PB_ABSENT;
    if (s->m_scales == PB_NONE) out[PB_ADAMW_NEW_M_SCALES] = PB_ABSENT;
    if (s->v_scales == PB_NONE) out[PB_ADAMW_NEW_V_SCALES] = PB_ABSENT;
    pb_graph_add_node(g, PB_OP_ADAMW, &attr, in, out);
    if (g->status != PB_OK) return PB_NONE;
    if (split) return out[PB_ADAMW_NEW_WORK];
    if (s->work == PB_NONE || s->work == s->master) return out[PB_ADAMW_NEW_MASTER];
    // The working copy is written without being read, so it is no input.
    return overwrite(g, PB_ADAMW_NEW_WORK, s->work);
}

pb_vid pb_adamw(pb_graph *g, pb_vid gradient, pb_vid control, pb_vid hyper, pb_vid master, pb_vid m, pb_vid v,
                pb_vid work) {
    return pb_adamw_on(
        g, gradient, control, hyper,
        &(pb_adamw_state){.master = master, .m = m, .v = v, .work = work, .m_scales = PB_NONE, .v_scales = PB_NONE});
}

void pb_keep_gradient(pb_graph *g, pb_vid gradient, pb_vid kept) {
    if (g->status != PB_OK) return;
    pb_value *value = &g->values[gradient];
    if (!pb_shape_equal(value->shape, g->values[kept].shape) || value->dtype != g->values[kept].dtype) {
        g->status = pb_error(PB_ERR_INTERNAL, "the gradient of %s has another shape or dtype than what is kept of it",
                             g->values[kept].name);
        return;
    }
    value->class_ = PB_CLASS_GRADIENT;
    value->alias = kept;
    value->persistent = true;
    value->name = g->values[kept].name;
}

pb_status pb_graph_update_first(pb_graph *g, const pb_vid *renamed) {
    if (g->status != PB_OK) return g->status;
    pb_node *nodes = malloc((g->node_count + 1) * sizeof *nodes);
    if (!nodes) return pb_error(PB_ERR_MEMORY, "no memory for a graph");
    uint32_t count = 0;
    for (int updates = 1; updates >= 0; updates--)
        for (uint32_t n = 0; n < g->node_count; n++)
            if ((g->nodes[n].phase == PB_PHASE_UPDATE) == (updates == 1)) nodes[count++] = g->nodes[n];
    for (uint32_t n = 0; n < count; n++) {
        if (nodes[n].phase == PB_PHASE_UPDATE) continue;
        for (int i = 0; i < PB_MAX_INPUTS; i++) {
            const pb_vid v = nodes[n].in[i];
            if (v != PB_NONE && renamed[v] != PB_NONE) nodes[n].in[i] = renamed[v];
        }
    }
    memcpy(g->nodes, nodes, count * sizeof *nodes);
    free(nodes);
    pb_graph_renumber(g);
    return PB_OK;
}
