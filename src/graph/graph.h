// A step as a graph: values (tensors in SSA form) and nodes (ops), in the order in which they will run.
//
// A value that replaces another one's bytes in place (AdamW's new weights, a gradient sum) names it as its `alias`:
// the two share storage, and the old version is gone once the new one is written.
#ifndef PB_GRAPH_GRAPH_H
#define PB_GRAPH_GRAPH_H

#include "base/arena.h"
#include "base/error.h"
#include "base/op.h"

typedef uint32_t pb_vid;  // index of a value
#define PB_NONE UINT32_MAX

typedef enum pb_class {
    PB_CLASS_INPUT,       // uploaded for each step: latents, timesteps, ids, hyperparameters
    PB_CLASS_WEIGHT,      // what the ops read: the working copy, or an fp32 parameter itself
    PB_CLASS_STATE,       // master weights (where they are not the working copy) and moments
    PB_CLASS_GRADIENT,    // of parameters
    PB_CLASS_ACTIVATION,  // everything else, gradients of activations among it
    PB_CLASS_WORKSPACE,   // a kernel's scratch (never a value; for reports)
    PB_CLASS_COUNT
} pb_class;

typedef enum pb_phase { PB_PHASE_FORWARD, PB_PHASE_BACKWARD, PB_PHASE_UPDATE } pb_phase;

typedef struct pb_value {
    pb_shape shape;
    pb_dtype dtype;
    pb_class class_;
    pb_vid alias;       // the value whose storage this one takes over, or PB_NONE
    uint32_t producer;  // node, or PB_NONE for what exists before the step
    bool persistent;    // lives from step to step: weights, state, gradient sums
    bool output;        // read by the host after the step
    const char *name;   // for people; "" where it has none
} pb_value;

typedef struct pb_node {
    pb_opcode op;
    pb_phase phase;
    bool recompute;  // a second run of a forward op for the backward pass
    pb_attr attr;
    pb_vid in[PB_MAX_INPUTS];  // PB_NONE where absent
    pb_vid out[PB_MAX_OUTPUTS];
} pb_node;

typedef struct pb_graph {
    pb_arena *arena;
    pb_value *values;
    uint32_t value_count, value_capacity;
    pb_node *nodes;
    uint32_t node_count, node_capacity;
    pb_phase phase;    // given to nodes that are added
    pb_status status;  // the first error: the builders below return PB_NONE from then on, so check once at the end
} pb_graph;

pb_status pb_graph_create(pb_graph **graph);
void pb_graph_destroy(pb_graph *graph);  // NULL is allowed

uint64_t pb_value_bytes(const pb_value *value);
static inline const pb_value *pb_graph_value(const pb_graph *g, pb_vid v) {
    return &g->values[v];
}

// A value that exists before the step (input, weight, state).
pb_vid pb_graph_add_value(pb_graph *g, pb_class class_, pb_dtype dtype, pb_shape shape, bool persistent,
                          const char *name_format, ...) __attribute__((format(printf, 6, 7)));
void pb_graph_mark_output(pb_graph *g, pb_vid value);

// Adds a node; in[] and out[] have PB_MAX_INPUTS and PB_MAX_OUTPUTS entries. On entry out[i] is PB_NONE for an output
// that is wanted and PB_ABSENT for one that is not; shape inference makes the values. Failure: status is set.
#define PB_ABSENT (UINT32_MAX - 1)
void pb_graph_add_node(pb_graph *g, pb_opcode op, const pb_attr *attr, const pb_vid *in, pb_vid *out);

// --- Builders of forward ops (PB_NONE for absent arguments; see ops.def) ---
pb_vid pb_linear(pb_graph *g, pb_vid x, pb_vid w, pb_vid bias, pb_vid residual);
// attr.conv: kh, kw, in_h, in_w are filled in from the shapes.
pb_vid pb_conv2d(pb_graph *g, pb_vid x, pb_vid w, pb_vid bias, pb_vid rowbias, pb_vid residual, pb_attr attr);
pb_vid pb_group_norm(pb_graph *g, pb_vid x, pb_vid gamma, pb_vid beta, int groups, float eps, bool silu);
pb_vid pb_layer_norm(pb_graph *g, pb_vid x, pb_vid gamma, pb_vid beta, float eps);
pb_vid pb_unary(pb_graph *g, pb_vid x, pb_unary_kind kind);
pb_vid pb_geglu(pb_graph *g, pb_vid x);
pb_vid pb_attention(pb_graph *g, pb_vid q, pb_vid k, pb_vid v, int heads, bool causal, float scale);
pb_vid pb_add(pb_graph *g, pb_vid a, pb_vid b);
pb_vid pb_concat(pb_graph *g, pb_vid a, pb_vid b);
pb_vid pb_slice(pb_graph *g, pb_vid x, int64_t begin, int64_t length);
pb_vid pb_embedding(pb_graph *g, pb_vid ids, pb_vid table, pb_vid positions);
pb_vid pb_timestep_embedding(pb_graph *g, pb_vid t, pb_dtype dtype, int channels, bool flip, float shift);
pb_vid pb_cast(pb_graph *g, pb_vid x, pb_dtype dtype);
pb_vid pb_decode_codes(pb_graph *g, pb_vid codes, pb_vid scales, pb_dtype dtype);

// Reverse-mode differentiation. seeds[i] is a value, seed_grads[i] the gradient of the loss with respect to it.
// For each of wanted[] the gradient's value is written to grads[] (PB_NONE where the seeds do not depend on it). Nodes
// are added in phase BACKWARD; gradients of values of class WEIGHT get class GRADIENT.
pb_status pb_graph_differentiate(pb_graph *g, const pb_vid *seeds, const pb_vid *seed_grads, uint32_t seed_count,
                                 const pb_vid *wanted, pb_vid *grads, uint32_t wanted_count);

// Moves what consumes a gradient (grad_norm, accumulate) to just behind the op that makes it. Changes no result.
pb_status pb_graph_hoist(pb_graph *g);

// Runs cheap forward ops (norms, SiLU, GELU, concatenation) again just before the backward pass reads their output,
// wherever that keeps fewer bytes. Changes no result.
// `dearest`: linears, convolutions and attention are run again, too, where that costs at most so many FLOPs per byte
// that need not be kept; 0: none.
pb_status pb_graph_recompute(pb_graph *g, double dearest);

// Bytes that the backward pass finds made by the forward pass: values of ops, each once.
uint64_t pb_graph_kept_bytes(const pb_graph *g);

// Removes nodes whose results nobody reads.
pb_status pb_graph_prune(pb_graph *g);

// What a kernel or a workspace query sees of a node: attributes, dtypes and shapes; no data (rank 0 where absent).
void pb_node_kernel_args(const pb_graph *g, const pb_node *node, pb_kernel_args *args);

// The value at the bottom of v's chain of aliases: the one whose storage it lives in.
pb_vid pb_graph_root(const pb_graph *g, pb_vid v);

// Multiply-adds times 2 of the convolutions and matmuls of a phase, recomputed nodes left out.
double pb_graph_flops(const pb_graph *g, pb_phase phase);
double pb_node_flops(const pb_graph *g, const pb_node *node);
// Bytes that a node reads and writes: all its operands, each once; of an embedding's tables the rows that it looks up.
uint64_t pb_node_bytes(const pb_graph *g, const pb_node *node);

#endif
