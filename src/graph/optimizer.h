// The ops of training around the model: the loss, accumulation, the global norm, AdamW.
#ifndef PB_GRAPH_OPTIMIZER_H
#define PB_GRAPH_OPTIMIZER_H

#include "graph/graph.h"

// loss[n] = mean over the rest of (prediction - target)^2, fp32.
pb_vid pb_mse_loss(pb_graph *g, pb_vid prediction, pb_vid target);

// Its gradient with respect to the prediction, times weight[n] and scale[0].
pb_vid pb_mse_loss_bwd(pb_graph *g, pb_vid prediction, pb_vid target, pb_vid weight, pb_vid scale);

// sum' = sum + g, in place; returns sum'.
pb_vid pb_accumulate(pb_graph *g, pb_vid gradient, pb_vid sum);

// sum' = g, converted to the sum's dtype: the first gradient of an accumulation.
pb_vid pb_store_gradient(pb_graph *g, pb_vid gradient, pb_vid sum);

// norm' = norm + sum of squares, in place; chain it over all gradients.
pb_vid pb_grad_norm(pb_graph *g, pb_vid gradient, pb_vid norm);

// control[PB_CONTROL_COUNT] from the squared norm and hyper[PB_HYPER_COUNT] (base/op.h).
pb_vid pb_step_control(pb_graph *g, pb_vid norm, pb_vid hyper);

// One parameter's update in place. `work` is the copy in the compute dtype, or PB_NONE where the ops read the master.
// Returns the new weight: a version of `work` or, where that does not live on, a value of its own, or of the master.
pb_vid pb_adamw(pb_graph *g, pb_vid gradient, pb_vid control, pb_vid hyper, pb_vid master, pb_vid m, pb_vid v,
                pb_vid work);

// What an optimizer keeps of a parameter in any of adamw's formats (ops.def); PB_NONE where it has no such value.
typedef struct pb_adamw_state {
    pb_vid master, m, v, work;  // work == master where the working weight is the master
    pb_vid m_scales, v_scales;  // of 8-bit moments
    uint32_t stream;            // of random bits, the parameter's own
} pb_adamw_state;

pb_vid pb_adamw_on(pb_graph *g, pb_vid gradient, pb_vid control, pb_vid hyper, const pb_adamw_state *state);

// `gradient`, which an op of this step makes, is from now on the newest version of `kept`, a persistent value of the
// same shape and dtype: it outlives the step in its place.
void pb_keep_gradient(pb_graph *g, pb_vid gradient, pb_vid kept);

// After the forward and backward passes were built on old versions of the weights: everything but the updates reads
// renamed[v] in place of v (PB_NONE: v stays), and the updates come first.
pb_status pb_graph_update_first(pb_graph *g, const pb_vid *renamed);

#endif
