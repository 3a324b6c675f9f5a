// How long things take on a machine: one node, one update, and (simulated) a whole program. docs/machines.md has the
// model.
#ifndef PB_PLAN_PREDICT_H
#define PB_PLAN_PREDICT_H

#include "base/machine.h"
#include "plan/program.h"

// Seconds of a node on the device: overhead + max(FLOPs / flops, bytes touched / bandwidth), at the speed of its op in
// its compute dtype (see pb_node_dtype).
double pb_node_seconds(const pb_machine *machine, const pb_graph *graph, uint32_t node);

// Seconds of `count` elements of the adamw node `node`, on lane COMPUTE (the device) or HOST.
double pb_machine_update_seconds(const pb_machine *machine, const pb_graph *graph, uint32_t node, int64_t count,
                                 pb_lane lane);
// Bytes of memory that an update of one element reads and writes: 28 in fp32.
uint64_t pb_update_bytes(const pb_graph *graph, uint32_t node);

// The row of a machine's table that a node belongs to: fp16 or bf16 where its first input or output is that, else fp32.
int pb_node_dtype(const pb_graph *graph, const pb_node *node);

#endif
