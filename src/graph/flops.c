// FLOPs of convolutions and matmuls, two per multiply-add (norms, activations and softmax are not counted), and the
// bytes that any node touches.
#include "graph/graph.h"

static double of_linear(const pb_shape rows_by, const pb_shape w) {
    return 2.0 * (double)pb_shape_rows(rows_by) * (double)pb_shape_count(w);
}

// One multiply-add for each output pixel, output channel and element of the kernel.
static double of_conv(const pb_shape y, const pb_shape w) {
    return 2.0 * (double)pb_shape_rows(y) * (double)pb_shape_count(w);
}

// q k^T: tokens_q * tokens_k * channels multiply-adds for an image, all heads together.
static double of_attention_matmul(const pb_shape q, const pb_shape k) {
    return 2.0 * (double)pb_shape_count(q) * (double)(pb_shape_rows(k) / k.dim[0]);
}

double pb_node_flops(const pb_graph *g, const pb_node *node) {
    const pb_value *values = g->values;
    switch (node->op) {
    case PB_OP_LINEAR:
    case PB_OP_LINEAR_BWD_DATA: return of_linear(values[node->in[0]].shape, values[node->in[1]].shape);
    case PB_OP_LINEAR_BWD_WEIGHT:
        return node->out[0] == PB_NONE ? 0 : of_linear(values[node->in[0]].shape, values[node->out[0]].shape);
    case PB_OP_CONV2D: return of_conv(values[node->out[0]].shape, values[node->in[1]].shape);
    case PB_OP_CONV2D_BWD_DATA: return of_conv(values[node->in[0]].shape, values[node->in[1]].shape);
    case PB_OP_CONV2D_BWD_WEIGHT:
        return node->out[0] == PB_NONE ? 0 : of_conv(values[node->in[0]].shape, values[node->out[0]].shape);
    case PB_OP_ATTENTION: return 2 * of_attention_matmul(values[node->in[0]].shape, values[node->in[1]].shape);
    case PB_OP_ATTENTION_BWD: return 5 * of_attention_matmul(values[node->in[1]].shape, values[node->in[2]].shape);
    default: return 0;
    }
}

double pb_graph_flops(const pb_graph *g, pb_phase phase) {
    double flops = 0;
    for (uint32_t n = 0; n < g->node_count; n++)
        if (g->nodes[n].phase == phase && !g->nodes[n].recompute) flops += pb_node_flops(g, &g->nodes[n]);
    return flops;
}

uint64_t pb_node_bytes(const pb_graph *g, const pb_node *node) {
    uint64_t bytes = 0;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (node->out[i] != PB_NONE) bytes += pb_value_bytes(&g->values[node->out[i]]);
    if (node->op == PB_OP_EMBEDDING) return 3 * bytes + pb_value_bytes(&g->values[node->in[0]]);
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (node->in[i] != PB_NONE) bytes += pb_value_bytes(&g->values[node->in[i]]);
    return bytes;
}
