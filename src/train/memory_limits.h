// What a run may use of each tier: the configuration's group `memory`, and for `auto` what the machine has.
#ifndef PB_TRAIN_MEMORY_LIMITS_H
#define PB_TRAIN_MEMORY_LIMITS_H

#include "io/run_config.h"
#include "kernels/backend.h"
#include "plan/plan.h"

// Of a GPU's free memory, what cuDNN, cuBLASLt, our kernels' own code and CUDA graphs will take.
#define PB_GPU_MARGIN ((uint64_t)800 << 20)

typedef struct pb_memory_limits {
    const pb_backend *backend;  // what the run computes on
    pb_machine machine;
    pb_plan_request request;  // budgets, machine (this one's) and placement; everything else as the planner wants it
    bool shared;              // device and host are both this machine's RAM, and both budgets `auto`
    const char *nvme;         // directory, or NULL
    double link_share;        // memory.link_share; the machine's links are that much slower already
} pb_memory_limits;

// `machine`: a built-in machine or a profile's path, to plan for; NULL: this machine, and config->device says what of
// it computes. Its figures are those of memory.profile, or for a GPU the described card that it resembles, or a guess.
// The result points into itself: it must not be moved. Errors: those of pb_machine_find; PB_ERR_IO for a directory that
// cannot be looked at.
pb_status pb_memory_limits_find(pb_arena *arena, const pb_config *config, const char *machine,
                                pb_memory_limits *limits);

#endif
