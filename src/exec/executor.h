// Runs a compiled program on a backend over the memory of a run (exec/memory.h). The caller's thread walks the list: it
// runs kernels and issues copies; a thread of the memory's works the lanes READ and WRITE. Allocates nothing after
// pb_executor_create.
#ifndef PB_EXEC_EXECUTOR_H
#define PB_EXEC_EXECUTOR_H

#include "exec/memory.h"
#include "kernels/backend.h"
#include "plan/plan.h"

// Plans `graph` for `backend` within `limits` (NULL: all of it on the device, however much that takes; the workspaces
// are the backend's in any case) and proves the program safe.
// Errors: PB_ERR_BUDGET, PB_ERR_UNSUPPORTED (an op that the backend lacks), PB_ERR_INTERNAL, the graph's own status.
pb_status pb_compile(const pb_graph *graph, const pb_backend *backend, const pb_plan_request *limits,
                     pb_program **program);
// Of several graphs the fastest, *chosen (see pb_plan_fastest).
pb_status pb_compile_fastest(const pb_graph *const *graphs, uint32_t count, const pb_backend *backend,
                             const pb_plan_request *limits, uint32_t *chosen, pb_program **program);

typedef struct pb_executor pb_executor;

// `graph` and `program` must outlive the executor, and so must `shared`: memory of the same backend, large enough for
// the program. Programs that share one must agree about the pieces of their persistent values, which stay in place from
// one program to the next. NULL: the executor makes and owns one, and the program must do without NVMe.
// Errors: PB_ERR_INTERNAL (the program leaves its memory, or is not one), PB_ERR_MEMORY.
pb_status pb_executor_create(const pb_backend *backend, const pb_graph *graph, const pb_program *program,
                             pb_memory *shared, pb_executor **executor);
void pb_executor_destroy(pb_executor *executor);  // NULL is allowed

// Copies `bytes` into or out of a value that exists before the step, lives from step to step, or was marked as output,
// starting `offset` bytes into it. PB_ERR_INTERNAL where the value has no home or the range is outside; PB_ERR_IO.
// Inputs have to be written again before every run: their space is used for other things once they are read.
// Persistent values are reached wherever their pieces are. Of what lies on NVMe one extent is held in a buffer and
// changed there; it is written back when another one is wanted, by a run, and by pb_executor_flush. Bytes on NVMe that
// nobody has written are zeros.
pb_status pb_executor_write(pb_executor *executor, pb_vid value, uint64_t offset, const void *data, uint64_t bytes);
pb_status pb_executor_read(const pb_executor *executor, pb_vid value, uint64_t offset, void *data, uint64_t bytes);
pb_status pb_executor_flush(pb_executor *executor);

// One step. Returns when all lanes have finished, with the first error if there was one; then what the memory holds is
// of no step, and every later call on it returns the error again.
pb_status pb_executor_run(pb_executor *executor);

// Whether kernels that follow one another are handed to the device as one (CUDA graphs), where it offers that. On at
// first, for the whole process, for executors whose first run is still to come. Never changes a result.
void pb_executor_captures(bool on);

// Seconds spent in each op kind since creation, when measuring was switched on (it costs a clock read per node). For
// backends whose kernels run in the calling thread.
void pb_executor_profile(pb_executor *executor, bool on);
void pb_executor_profile_print(const pb_executor *executor, void (*line)(void *context, const char *text),
                               void *context);

// When each instruction of a run began and ended: times[insn_count], the caller's, is written by every run from now on.
// NULL ends it. What the backend cannot time stays 0.
void pb_executor_trace(pb_executor *executor, pb_insn_times *times);

// For measurements. From now on what is on one of these lanes (a bit each) counts as done as soon as it is its turn,
// but is not done, so that the others can be timed alone. What the memory holds is of no step after that.
void pb_executor_skip(pb_executor *executor, uint32_t lanes);

// For tests of programs and of executors, on the CPU's device: everything that the lanes do is put off by random short
// times; before a run, all bytes of the slabs but inputs and what persists are filled with 0xff (NaN in every dtype),
// and so is the destination of a copy or read when it begins. What is not waited for shows. `seed` 0 ends it.
// PB_ERR_UNSUPPORTED on another device, PB_ERR_MEMORY.
pb_status pb_executor_stress(pb_executor *executor, uint64_t seed);

#endif
