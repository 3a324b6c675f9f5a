// What the optimizer keeps of a parameter, in the format that the configuration asks for.
#ifndef PB_TRAIN_OPTIMIZER_STATE_H
#define PB_TRAIN_OPTIMIZER_STATE_H

#include "graph/optimizer.h"
#include "io/run_config.h"
#include "nn/module.h"

// Zeros: everything in fp32.
typedef struct pb_optimizer_format {
    pb_optimizer_states states;
    pb_optimizer_master master;
} pb_optimizer_format;

enum { PB_COMPRESSED_ELEMENTS = 4096 };  // a parameter with fewer keeps its moments in fp32 (bitsandbytes' rule)

// Declares master and moments (and scales) of a parameter whose working weight is there. `stream` is the parameter's
// number in the model: what it draws depends on it.
void pb_optimizer_declare(pb_graph *graph, pb_param *param, const pb_optimizer_format *format, uint32_t stream);

// Adds its update; returns the new working weight.
pb_vid pb_optimizer_update(pb_graph *graph, const pb_param *param, pb_vid gradient, pb_vid control, pb_vid hyper);

// Whether the master is a residual beside the working weight: then both must live on, and both are read.
static inline bool pb_optimizer_is_split(const pb_graph *graph, const pb_param *param) {
    if (param->master == PB_NONE) return false;
    const pb_dtype dtype = pb_graph_value(graph, param->master)->dtype;
    return dtype == PB_I16 || dtype == PB_I8;
}

#endif
