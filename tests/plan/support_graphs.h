// Random small training graphs, and a way to run one without any plan: every value in a buffer of its own.
#ifndef PB_TESTS_PLAN_SUPPORT_GRAPHS_H
#define PB_TESTS_PLAN_SUPPORT_GRAPHS_H

#include "exec/executor.h"

uint32_t support_random(uint64_t *state, uint32_t below);

// A forward pass of `ops` random ops over a few parameters, its backward pass, and AdamW; `sums` adds gradient sums.
pb_graph *support_random_graph(uint64_t seed, int ops);

// The bytes that input or persistent value `v` has before the step; the same for every run of a seed.
void support_fill(const pb_graph *g, pb_vid v, uint64_t seed, void *data);

// Runs the graph with buffers of its own for each value. data[v] is malloc'ed (NULL where a value is never made); an
// alias has a buffer of its own that starts as a copy.
void **support_run_plainly(const pb_graph *g, uint64_t seed);
void support_free(const pb_graph *g, void **data);

// Runs a program; true when every output and every persistent value has the bits of `expected`.
// `nvme`: directory for the store, or NULL. `stress` not 0: in the adversarial mode, see pb_executor_stress.
bool support_program_agrees(const pb_graph *g, const pb_program *program, uint64_t seed, void **expected,
                            const char *nvme, uint64_t stress);

#endif
