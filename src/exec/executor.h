// Runs a compiled program on a backend over one slab. Allocates nothing after pb_executor_create.
#ifndef PB_EXEC_EXECUTOR_H
#define PB_EXEC_EXECUTOR_H

#include "kernels/backend.h"
#include "plan/plan.h"

// The device slab. Programs that share one (a step at two batch sizes, say) must have the same persistent values,
// declared first and in the same order: the planner then gives them the same offsets, and they stay in place.
typedef struct pb_slab pb_slab;
pb_status pb_slab_create(uint64_t bytes, pb_slab **slab);  // zeroed; PB_ERR_MEMORY
void pb_slab_destroy(pb_slab *slab);                       // NULL is allowed
uint64_t pb_slab_bytes(const pb_slab *slab);

// Plans `graph` for `backend` within `device_budget` bytes (UINT64_MAX: no limit) and proves the program safe.
// Errors: PB_ERR_BUDGET, PB_ERR_UNSUPPORTED (an op that the backend lacks), PB_ERR_INTERNAL, the graph's own status.
pb_status pb_compile(const pb_graph *graph, const pb_backend *backend, uint64_t device_budget, pb_program **program);

typedef struct pb_executor pb_executor;

// `graph` and `program` must outlive the executor. `shared` is a slab of at least program->slab_bytes, or NULL: then
// the executor makes and owns one.
pb_status pb_executor_create(const pb_backend *backend, const pb_graph *graph, const pb_program *program,
                             pb_slab *shared, pb_executor **executor);
void pb_executor_destroy(pb_executor *executor);  // NULL is allowed

// Copies `bytes` into or out of a value that exists before the step, lives from step to step, or was marked as output,
// starting `offset` bytes into it. PB_ERR_INTERNAL where the value has no home or the range is outside.
// Inputs have to be written again before every run: their space is used for other things once they are read.
pb_status pb_executor_write(pb_executor *executor, pb_vid value, uint64_t offset, const void *data, uint64_t bytes);
pb_status pb_executor_read(const pb_executor *executor, pb_vid value, uint64_t offset, void *data, uint64_t bytes);

// One step.
pb_status pb_executor_run(pb_executor *executor);

// Seconds spent in each op kind since creation, when measuring was switched on (it costs a clock read per node).
void pb_executor_profile(pb_executor *executor, bool on);
void pb_executor_profile_print(const pb_executor *executor, void (*line)(void *context, const char *text),
                               void *context);

#endif
