// Gradients that are made again. A gradient that waits from the backward pass of one step for its update in the next
// takes as much room as the weight. What it was made of is often far less: the input of a linear or a convolution and
// the gradient of its output. (A 3x3 convolution of 1280 channels has a gradient of 29 MB in fp16; at 8x8 pixels the
// two have 0.3 MB.) So these two are carried to the next step instead, and there the same op makes the same bits of
// them once more, just before the update.
#ifndef PB_GRAPH_CARRY_H
#define PB_GRAPH_CARRY_H

#include "graph/graph.h"

// A value that outlives the step: the input of a layer, or the gradient of its output.
typedef struct pb_carried {
    pb_shape shape;
    pb_dtype dtype;
    const char *name;
    pb_vid value;  // in the graph that makes it
    bool copied;   // it is an input there: the next step's would be in its place too early
} pb_carried;

// A gradient, and the op that makes it.
typedef struct pb_remade {
    uint32_t param;  // index into kept[]
    pb_opcode op;
    pb_attr attr;
    uint32_t dy, x;  // indices of carried values
} pb_remade;

typedef struct pb_carry {
    pb_remade *remade;
    pb_carried *carried;
    uint32_t remade_count, carried_count;
} pb_carry;

// kept[i]: the persistent value that parameter i's gradient takes over (pb_keep_gradient), or PB_NONE. Chooses those
// that are worth making again: where the op takes no longer than `seconds_per_byte` times the bytes that need not be
// kept. seconds[n]: what node n takes. Nothing is changed. Errors: PB_ERR_MEMORY.
pb_status pb_carry_choose(pb_arena *arena, const pb_graph *graph, const pb_vid *kept, uint32_t count,
                          const double *seconds, double seconds_per_byte, pb_carry *carry);

// Changes a graph of the same run: the gradients of `carry` are kept no longer. Where they are updated from, they are
// made again before that. `makes`: the graph is as the one that they were chosen for, so it makes what is carried.
pb_status pb_carry_apply(pb_graph *graph, const pb_carry *carry, const pb_vid *kept, bool makes);

#endif
