// The learning rate's factor per optimizer step: diffusers' optimization.py (its LambdaLR functions), in double.
#ifndef PB_TRAIN_LR_SCHEDULE_H
#define PB_TRAIN_LR_SCHEDULE_H

#include <stdint.h>

#include "base/error.h"

typedef enum pb_lr_kind {
    PB_LR_CONSTANT,
    PB_LR_CONSTANT_WITH_WARMUP,
    PB_LR_LINEAR,
    PB_LR_COSINE,
    PB_LR_COSINE_WITH_RESTARTS,
    PB_LR_POLYNOMIAL
} pb_lr_kind;

typedef struct pb_lr_schedule {
    pb_lr_kind kind;
    double base;            // learning_rate
    int64_t warmup, total;  // optimizer steps; total counts the warm-up
    double cycles;          // cosine_with_restarts: hard restarts (lr_num_cycles); cosine is always half a cycle
    double power;           // polynomial (lr_power); it ends at 1e-7
} pb_lr_schedule;

// "constant", "constant_with_warmup", ...; PB_ERR_USAGE with the choices otherwise.
pb_status pb_lr_kind_parse(const char *text, pb_lr_kind *kind);
const char *pb_lr_kind_name(pb_lr_kind kind);

// PB_ERR_USAGE where the fields make no schedule (polynomial: base must be above 1e-7, as diffusers demands).
pb_status pb_lr_schedule_check(const pb_lr_schedule *schedule);

// The rate that optimizer step `step` (0, 1, ...) uses: with a warm-up, step 0 has 0. Steps that an fp16 overflow
// skipped do not count.
double pb_lr_at(const pb_lr_schedule *schedule, int64_t step);

#endif
