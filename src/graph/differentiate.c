// Reverse-mode differentiation: a sweep over the forward nodes from the last to the first, which adds the backward
// ops of every node that lies between a wanted value and a seed.
#include <stdlib.h>
#include <string.h>

#include "graph/rules.h"

static void (*const gradient[PB_OP_COUNT])(pb_gradient_args *) = {
#define PB_GRADIENT_OF_YES(name) pb_gradient_##name
#define PB_GRADIENT_OF_NO(name) NULL
#define PB_OP(name, NAME, has_gradient, kind, inplace) PB_GRADIENT_OF_##has_gradient(name),
#include "base/ops.def"
#undef PB_OP
};

// active[v]: v depends on a wanted value, so its gradient is of use.
static void mark_active(const pb_graph *g, uint32_t node_count, const pb_vid *wanted, uint32_t wanted_count,
                        bool *active) {
    for (uint32_t i = 0; i < wanted_count; i++) active[wanted[i]] = true;
    for (uint32_t n = 0; n < node_count; n++) {
        bool depends = false;
        for (int i = 0; i < PB_MAX_INPUTS; i++) depends |= g->nodes[n].in[i] != PB_NONE && active[g->nodes[n].in[i]];
        for (int i = 0; i < PB_MAX_OUTPUTS; i++)
            if (depends && g->nodes[n].out[i] != PB_NONE) active[g->nodes[n].out[i]] = true;
    }
}

// Adds the backward ops of one node; grad[] is indexed by forward value.
static void differentiate_node(pb_graph *g, uint32_t n, const bool *active, pb_vid *grad) {
    pb_gradient_args a = {.graph = g, .node = g->nodes[n]};
    bool reached = false, useful = false;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        a.dout[i] = a.node.out[i] == PB_NONE ? PB_NONE : grad[a.node.out[i]];
        reached |= a.dout[i] != PB_NONE;
    }
    if (!reached) return;
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        const pb_vid v = a.node.in[i];
        a.need[i] = v != PB_NONE && active[v];
        useful |= a.need[i];
    }
    if (!useful) return;
    if (!gradient[a.node.op]) {
        g->status = pb_error(PB_ERR_INTERNAL, "op %s has no gradient", pb_op_name(a.node.op));
        return;
    }
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        a.din[i] = PB_NONE;
        if (!a.need[i]) continue;
        // A value that is an input twice (x + x) has one running sum: its first slot holds it while the rule runs.
        bool earlier = false;
        for (int j = 0; j < i; j++) earlier |= a.node.in[j] == a.node.in[i];
        if (!earlier) a.din[i] = grad[a.node.in[i]];
    }
    gradient[a.node.op](&a);
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        if (!a.need[i]) continue;
        pb_vid sum = a.din[i];
        for (int j = i + 1; j < PB_MAX_INPUTS; j++) {
            if (!a.need[j] || a.node.in[j] != a.node.in[i]) continue;
            sum = pb_add(g, sum, a.din[j]);
            a.need[j] = false;
        }
        grad[a.node.in[i]] = sum;
    }
}

pb_status pb_graph_differentiate(pb_graph *g, const pb_vid *seeds, const pb_vid *seed_grads, uint32_t seed_count,
                                 const pb_vid *wanted, pb_vid *grads, uint32_t wanted_count) {
    if (g->status != PB_OK) return g->status;
    const uint32_t forward_values = g->value_count, forward_nodes = g->node_count;
    bool *active = calloc(forward_values, sizeof *active);
    pb_vid *grad = malloc((size_t)forward_values * sizeof *grad);
    pb_status status = PB_OK;
    if (!active || !grad) PB_FAIL(PB_ERR_MEMORY, "no memory to differentiate a graph");
    memset(grad, 0xff, (size_t)forward_values * sizeof *grad);  // PB_NONE
    mark_active(g, forward_nodes, wanted, wanted_count, active);
    for (uint32_t i = 0; i < seed_count; i++) grad[seeds[i]] = seed_grads[i];

    g->phase = PB_PHASE_BACKWARD;
    for (uint32_t n = forward_nodes; n-- > 0 && g->status == PB_OK;) differentiate_node(g, n, active, grad);
    PB_TRY(g->status);

    for (uint32_t i = 0; i < wanted_count; i++) {
        grads[i] = grad[wanted[i]];
        // Gradients that pass through unchanged (of a residual) stay what they are.
        if (grads[i] >= forward_values && grads[i] != PB_NONE && g->values[wanted[i]].class_ == PB_CLASS_WEIGHT) {
            g->values[grads[i]].class_ = PB_CLASS_GRADIENT;
            g->values[grads[i]].name = g->values[wanted[i]].name;
        }
    }
fail:
    free(active);
    free(grad);
    return status;
}
