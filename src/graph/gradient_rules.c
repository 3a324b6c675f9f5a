// The gradient of each op, as nodes added to the graph. din[i] holds the sum of the gradients of input i that other
// consumers have contributed so far; ops that can add it in their last pass take it as their addend.
#include "graph/rules.h"

enum { MOST_INPUTS = 6 };  // of a backward op

// Adds a backward op with the inputs in[MOST_INPUTS]; wanted[i] says which outputs.
static void emit(pb_gradient_args *a, pb_opcode op, const pb_vid *inputs, const bool *wanted, pb_vid *out) {
    pb_vid in[PB_MAX_INPUTS];
    for (int i = 0; i < PB_MAX_INPUTS; i++) in[i] = i < MOST_INPUTS ? inputs[i] : PB_NONE;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) out[i] = wanted[i] ? PB_NONE : PB_ABSENT;
    pb_graph_add_node(a->graph, op, &a->node.attr, in, out);
}

static pb_vid emit_single(pb_gradient_args *a, pb_opcode op, pb_vid in0, pb_vid in1, pb_vid in2) {
    return pb_graph_add_single(a->graph, op, &a->node.attr, in0, in1, in2, PB_NONE, PB_NONE);
}

// The sum so far plus one more gradient.
static pb_vid plus(pb_gradient_args *a, pb_vid sum, pb_vid gradient) {
    return sum == PB_NONE ? gradient : pb_add(a->graph, sum, gradient);
}

// dw and db of a contraction, where they are needed: two outputs of one op, which share the pass over dy.
static void weight_gradients(pb_gradient_args *a, pb_opcode op) {
    const bool wanted[PB_MAX_OUTPUTS] = {a->need[1], a->node.in[2] != PB_NONE && a->need[2]};
    if (!wanted[0] && !wanted[1]) return;
    const pb_vid in[MOST_INPUTS] = {a->dout[0], a->node.in[0], PB_NONE, PB_NONE, PB_NONE, PB_NONE};
    pb_vid out[PB_MAX_OUTPUTS];
    emit(a, op, in, wanted, out);
    if (wanted[0]) a->din[1] = plus(a, a->din[1], out[0]);
    if (wanted[1]) a->din[2] = plus(a, a->din[2], out[1]);
}

void pb_gradient_linear(pb_gradient_args *a) {
    weight_gradients(a, PB_OP_LINEAR_BWD_WEIGHT);
    if (a->need[0]) a->din[0] = emit_single(a, PB_OP_LINEAR_BWD_DATA, a->dout[0], a->node.in[1], a->din[0]);
    if (a->need[3]) a->din[3] = plus(a, a->din[3], a->dout[0]);
}

void pb_gradient_conv2d(pb_gradient_args *a) {
    weight_gradients(a, PB_OP_CONV2D_BWD_WEIGHT);
    if (a->need[3]) a->din[3] = plus(a, a->din[3], emit_single(a, PB_OP_SUM_PIXELS, a->dout[0], PB_NONE, PB_NONE));
    if (a->need[0]) a->din[0] = emit_single(a, PB_OP_CONV2D_BWD_DATA, a->dout[0], a->node.in[1], a->din[0]);
    if (a->need[4]) a->din[4] = plus(a, a->din[4], a->dout[0]);
}

// x, gamma, beta of a norm; the addend is the op's last input.
static void norm_gradients(pb_gradient_args *a, pb_opcode op, const pb_vid *in) {
    const bool wanted[PB_MAX_OUTPUTS] = {a->need[0], a->need[1], a->need[2]};
    pb_vid out[PB_MAX_OUTPUTS];
    emit(a, op, in, wanted, out);
    if (a->need[0]) a->din[0] = out[0];
    if (a->need[1]) a->din[1] = plus(a, a->din[1], out[1]);
    if (a->need[2]) a->din[2] = plus(a, a->din[2], out[2]);
}

void pb_gradient_group_norm(pb_gradient_args *a) {
    const pb_node *n = &a->node;
    const pb_vid addend = a->need[0] ? a->din[0] : PB_NONE;
    const pb_vid in[MOST_INPUTS] = {a->dout[0], n->in[0], n->in[1], n->in[2], n->out[1], addend};
    norm_gradients(a, PB_OP_GROUP_NORM_BWD, in);
}

void pb_gradient_layer_norm(pb_gradient_args *a) {
    const pb_node *n = &a->node;
    const pb_vid addend = a->need[0] ? a->din[0] : PB_NONE;
    const pb_vid in[MOST_INPUTS] = {a->dout[0], n->in[0], n->in[1], n->out[1], addend, PB_NONE};
    norm_gradients(a, PB_OP_LAYER_NORM_BWD, in);
}

void pb_gradient_unary(pb_gradient_args *a) {
    a->din[0] = plus(a, a->din[0], emit_single(a, PB_OP_UNARY_BWD, a->dout[0], a->node.in[0], PB_NONE));
}

void pb_gradient_geglu(pb_gradient_args *a) {
    a->din[0] = plus(a, a->din[0], emit_single(a, PB_OP_GEGLU_BWD, a->dout[0], a->node.in[0], PB_NONE));
}

void pb_gradient_attention(pb_gradient_args *a) {
    const pb_node *n = &a->node;
    const pb_vid in[MOST_INPUTS] = {a->dout[0], n->in[0], n->in[1], n->in[2], n->out[0], n->out[1]};
    const bool wanted[PB_MAX_OUTPUTS] = {true, true, true};
    pb_vid out[PB_MAX_OUTPUTS];
    emit(a, PB_OP_ATTENTION_BWD, in, wanted, out);
    for (int i = 0; i < 3; i++)
        if (a->need[i]) a->din[i] = plus(a, a->din[i], out[i]);
}

void pb_gradient_add(pb_gradient_args *a) {
    for (int i = 0; i < 2; i++)
        if (a->need[i]) a->din[i] = plus(a, a->din[i], a->dout[0]);
}

void pb_gradient_concat(pb_gradient_args *a) {
    int64_t begin = 0;
    for (int i = 0; i < 2; i++) {
        const int64_t length = pb_shape_last(a->graph->values[a->node.in[i]].shape);
        if (a->need[i]) a->din[i] = plus(a, a->din[i], pb_slice(a->graph, a->dout[0], begin, length));
        begin += length;
    }
}

void pb_gradient_embedding(pb_gradient_args *a) {
    const pb_value *table = &a->graph->values[a->node.in[1]], *positions = &a->graph->values[a->node.in[2]];
    a->node.attr.embedding.rows = table->shape.dim[0];
    a->node.attr.embedding.positions = positions->shape.dim[0];
    a->node.attr.embedding.dtype = table->dtype;
    const pb_vid in[MOST_INPUTS] = {a->dout[0], a->node.in[0], PB_NONE, PB_NONE, PB_NONE, PB_NONE};
    const bool wanted[PB_MAX_OUTPUTS] = {a->need[1], a->need[2]};
    pb_vid out[PB_MAX_OUTPUTS];
    emit(a, PB_OP_EMBEDDING_BWD, in, wanted, out);
    if (a->need[1]) a->din[1] = plus(a, a->din[1], out[0]);
    if (a->need[2]) a->din[2] = plus(a, a->din[2], out[1]);
}

void pb_gradient_cast(pb_gradient_args *a) {
    const pb_dtype dtype = a->graph->values[a->node.in[0]].dtype;
    a->din[0] = plus(a, a->din[0], pb_cast(a->graph, a->dout[0], dtype));
}
