// The measurements of `pagebooth bench --profile`: each fills in what it measured of a pb_machine. Errors:
// PB_ERR_MEMORY, and what the store returns.
#ifndef PB_CLI_BENCH_MACHINE_H
#define PB_CLI_BENCH_MACHINE_H

#include "base/error.h"
#include "base/machine.h"
#include "kernels/backend.h"

// Copies as the CPU device makes them: one thread per direction, between memory that is in no cache. And the host's
// memory: a STREAM triad on all threads. `bytes` of each buffer.
pb_status pb_bench_copies(size_t bytes, pb_machine *machine);
// AdamW on the host, on `count` parameters; and the seconds that handing out work to all threads takes (overhead).
pb_status pb_bench_adamw(size_t count, pb_machine *machine);
// Every op of a training step of SD 1.4 at `resolution`, in fp32, fp16 and bf16: its commonest and largest shapes are
// run by the backend, on its device where it has one, and speeds are fitted to them. `guess`: what decides which shapes
// are likely to take most of the time. Calls `report` once per op and dtype.
typedef struct pb_bench_op {
    const char *op, *dtype;
    int shapes, kinds;  // that were run, of how many
    double seconds;     // of all of the op's nodes in a step, as measured
    double worst;       // largest ratio between a shape's measured and fitted time, either way
    pb_op_speed speed;
    double achieved_flops;  // 0 where none are counted
    double achieved_bandwidth;
} pb_bench_op;
pb_status pb_bench_ops(const pb_backend *backend, const pb_machine *guess, int resolution, bool quick,
                       pb_machine *machine, void (*report)(void *context, const pb_bench_op *op), void *context);

#endif
