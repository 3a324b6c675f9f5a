// Runs of a program over several steps, and whether two of them end with the same bits.
#ifndef PB_TESTS_EXEC_SUPPORT_RUNS_H
#define PB_TESTS_EXEC_SUPPORT_RUNS_H

#include "exec/executor.h"

enum { RUN_STEPS = 3 };

// All outputs of every step, then all persistent values; malloc'ed. NULL with *status set where a call fails.
unsigned char *support_run_steps(pb_executor *executor, const pb_graph *g, uint64_t seed, pb_status *status);
uint64_t support_result_bytes(const pb_graph *g);

// The resident program's result.
unsigned char *support_run_resident(const pb_graph *g, const pb_backend *backend, uint64_t seed);

typedef struct paged_run {
    const char *directory;  // of the store
    int engine;             // a pb_store_engine
    uint64_t stress;        // 0: none
    const struct pb_store_hook *hook;
    pb_insn_times *times;  // or NULL
} paged_run;

// The paged program's, likewise.
unsigned char *support_run_paged(const pb_graph *g, const pb_backend *backend, const pb_program *program,
                                 const paged_run *how, uint64_t seed, pb_status *status);

#endif
