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
// Seconds of a RECAST.
double pb_machine_recast_seconds(const pb_machine *machine, const pb_graph *graph, const pb_insn *insn);
// Seconds of any instruction, alone; a WAIT takes none.
double pb_insn_seconds(const pb_machine *machine, const pb_graph *graph, const pb_insn *insn);
// Bytes of memory that an update of one element reads and writes: 28 in fp32.
uint64_t pb_update_bytes(const pb_graph *graph, uint32_t node);

// The row of a machine's table that a node belongs to: fp16 or bf16 where its first input or output is that, else fp32.
int pb_node_dtype(const pb_graph *graph, const pb_node *node);

// What a step's time can be bound by; each is a number of seconds that no order of the same instructions goes below.
typedef enum pb_bound {
    PB_BOUND_COMPUTE,  // all ops and updates of lane COMPUTE, one after another; with shared_cores also the copies, at
                       // copy_both, the drive, at nvme_processors, and the updates on the host
    PB_BOUND_UPLOAD,   // bytes / bandwidth of each link alone
    PB_BOUND_DOWNLOAD,
    PB_BOUND_COPIES,  // bytes both ways / copy_both
    PB_BOUND_READ,
    PB_BOUND_WRITE,
    PB_BOUND_NVME,     // bytes both ways / nvme_both
    PB_BOUND_UPDATES,  // all of lane HOST
    PB_BOUND_DRAM,     // bytes of host memory that copies, NVMe and updates touch / dram; not with shared_cores
    PB_BOUND_COUNT
} pb_bound;

const char *pb_bound_name(pb_bound bound);  // "compute", "upload", "host memory"

// What there is to do in a step, or in some of it.
typedef struct pb_work {
    double compute, updates;      // seconds of lanes COMPUTE and HOST,
    double update_bytes;          // and the bytes of host memory that the latter touches
    double moved[PB_LANE_COUNT];  // bytes on each link
} pb_work;

// Adds an instruction.
void pb_work_add(const pb_machine *machine, const pb_graph *graph, const pb_insn *insn, pb_work *work);
// Seconds that it takes at least, by what bounds it.
void pb_work_bounds(const pb_machine *machine, const pb_work *work, double bounds[PB_BOUND_COUNT]);

typedef struct pb_prediction {
    double seconds;  // from the step's begin to the end of the last instruction
    double busy[PB_LANE_COUNT];
    double bounds[PB_BOUND_COUNT];
    pb_bound bound;      // the largest of them
    double lower_bound;  // its seconds
} pb_prediction;

// Simulates a program's lanes (docs/machines.md has the model). `times`, of insn_count, or NULL: of every instruction,
// of a WAIT from when its lane came to it until the lane went on. Errors: PB_ERR_MEMORY; PB_ERR_INTERNAL for a program
// that deadlocks or is malformed, with the instruction.
pb_status pb_program_predict(const pb_graph *graph, const pb_program *program, const pb_machine *machine,
                             pb_prediction *prediction, pb_insn_times *times);

// A bound that is closer than lower_bound, for it knows when there has to be room for what (step_bound.c;
// docs/machines.md has the formula): no step is faster that runs these ops in this order on this device slab and moves
// these bytes. It consists of parts of the step, one after another. Only for programs that pb_program_check accepts.
typedef struct pb_step_bound {
    double seconds;
    double held[PB_BOUND_COUNT];  // of them, those of parts that are bound by this; the sum is `seconds`
    pb_bound bound;               // of most of them
} pb_step_bound;

// PB_ERR_MEMORY.
pb_status pb_program_bound(const pb_graph *graph, const pb_program *program, const pb_machine *machine,
                           pb_step_bound *bound);

#endif
