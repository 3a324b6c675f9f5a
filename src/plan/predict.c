// What single ops cost. The simulation of a whole program is in simulate.c.
#include "plan/predict.h"

static int speed_dtype(const pb_graph *g, pb_vid v) {
    if (v == PB_NONE) return PB_SPEED_F32;
    const pb_dtype dtype = g->values[v].dtype;
    return dtype == PB_F16 ? PB_SPEED_F16 : dtype == PB_BF16 ? PB_SPEED_BF16 : PB_SPEED_F32;
}

int pb_node_dtype(const pb_graph *graph, const pb_node *node) {
    if (node->op == PB_OP_ADAMW) return PB_SPEED_F32;
    const int out = speed_dtype(graph, node->out[0]);
    return out != PB_SPEED_F32 ? out : speed_dtype(graph, node->in[0]);
}

// Updates that follow one another are one launch of a GPU's, 25 to 50 of them (docs/cuda.md): of the overhead each has
// a share.
static double overhead_of(const pb_machine *machine, const pb_node *node) {
    enum { UPDATES_TOGETHER = 25 };
    return machine->overhead / (node->op == PB_OP_ADAMW && !machine->shared_cores ? UPDATES_TOGETHER : 1);
}

double pb_node_seconds(const pb_machine *machine, const pb_graph *graph, uint32_t node) {
    const pb_node *n = &graph->nodes[node];
    const pb_op_speed *speed = &machine->op[n->op][pb_node_dtype(graph, n)];
    const double arithmetic = pb_node_flops(graph, n) / speed->flops;
    const double memory = (double)pb_node_bytes(graph, n) / speed->bandwidth;
    return overhead_of(machine, n) + (arithmetic > memory ? arithmetic : memory);
}

// Of the operands of adamw (see ops.def) that have the parameter's shape; scales of blocks are next to nothing.
uint64_t pb_update_bytes(const pb_graph *graph, uint32_t node) {
    const pb_node *n = &graph->nodes[node];
    const pb_shape shape = graph->values[n->in[3]].shape;
    uint64_t bytes = pb_dtype_size(graph->values[n->in[0]].dtype);
    for (int i = 3; i < PB_MAX_INPUTS; i++)
        if (n->in[i] != PB_NONE && pb_shape_equal(graph->values[n->in[i]].shape, shape))
            bytes += pb_dtype_size(graph->values[n->in[i]].dtype);
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (n->out[i] != PB_NONE && pb_shape_equal(graph->values[n->out[i]].shape, shape))
            bytes += pb_dtype_size(graph->values[n->out[i]].dtype);
    return bytes;
}

double pb_machine_update_seconds(const pb_machine *machine, const pb_graph *graph, uint32_t node, int64_t count,
                                 pb_lane lane) {
    const double bytes = (double)count * (double)pb_update_bytes(graph, node);
    if (lane == PB_LANE_HOST) return bytes / machine->host_adamw;
    return machine->overhead + bytes / machine->op[PB_OP_ADAMW][PB_SPEED_F32].bandwidth;
}

double pb_machine_recast_seconds(const pb_machine *machine, const pb_graph *graph, const pb_insn *insn) {
    const pb_value *from = &graph->values[insn->in[0].value], *to = &graph->values[insn->out[0].value];
    const double bytes = (double)(pb_dtype_size(from->dtype) + pb_dtype_size(to->dtype)) * (double)insn->count;
    return machine->overhead + bytes / machine->op[PB_OP_CAST][speed_dtype(graph, insn->out[0].value)].bandwidth;
}
