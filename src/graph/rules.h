// Private to src/graph: what each op's row in ops.def stands for here.
#ifndef PB_GRAPH_RULES_H
#define PB_GRAPH_RULES_H

#include "graph/graph.h"

typedef struct pb_infer_args {
    const pb_graph *graph;
    const pb_value *in[PB_MAX_INPUTS];  // NULL where absent
    pb_vid in_id[PB_MAX_INPUTS];
    pb_attr attr;                   // inference may complete it
    pb_value *out[PB_MAX_OUTPUTS];  // shape and dtype (class and alias where they differ) are set by inference
    int out_count;                  // how many outputs the op can have
} pb_infer_args;

typedef struct pb_gradient_args {
    pb_graph *graph;
    pb_node node;                 // a copy: the graph's array moves as nodes are added
    pb_vid dout[PB_MAX_OUTPUTS];  // PB_NONE where the loss does not depend on it
    bool need[PB_MAX_INPUTS];
    pb_vid din[PB_MAX_INPUTS];  // in: the sum of the gradients so far or PB_NONE; out: with this node's added
} pb_gradient_args;

#define PB_OP(name, NAME, gradient, kind, inplace) \
    pb_status pb_infer_##name(pb_infer_args *a);   \
    PB_GRADIENT_##gradient(name)
#define PB_GRADIENT_YES(name) void pb_gradient_##name(pb_gradient_args *a);
#define PB_GRADIENT_NO(name)
#include "base/ops.def"
#undef PB_OP

pb_vid pb_graph_new_value(pb_graph *g, const pb_value *value);

// After nodes have moved: every value's producer is where its node is now.
void pb_graph_renumber(pb_graph *g);

// A node of which output 0 alone is wanted; returns it. `attr` may be NULL, inputs PB_NONE.
pb_vid pb_graph_add_single(pb_graph *g, pb_opcode op, const pb_attr *attr, pb_vid a, pb_vid b, pb_vid c, pb_vid d,
                           pb_vid e);

#endif
