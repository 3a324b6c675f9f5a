// A DreamBooth run: data, latents, the compiled step, the loop, checkpoints, the result. The semantics are those of
// diffusers' examples/dreambooth/train_dreambooth.py but for its faults (docs/training.md lists them).
#ifndef PB_TRAIN_TRAINER_H
#define PB_TRAIN_TRAINER_H

#include "io/run_config.h"
#include "train/step_plan.h"

// Runs the training that `config` describes, or, with `check`, reads the configuration, the model and the data, plans
// the step, prints what it found to stdout and stops. `config` is completed: a seed is drawn where it has none. Errors:
// all kinds; PB_ERR_INTERRUPTED after SIGINT or SIGTERM, when a checkpoint has been written; PB_ERR_NUMERIC where the
// loss or the gradients are not finite.
pb_status pb_train(pb_config *config, bool check);

enum { PB_REPORT_STEPS = 64 };

// How a run compares with its plan. Seconds are of one optimizer step; the measured ones are means over the run's full
// steps but for the first.
typedef struct pb_train_report {
    pb_step_forecast forecast;  // on the machine that the run was planned for
    uint64_t tier_bytes[PB_TIER_COUNT];
    uint64_t by_class[PB_TIER_COUNT][PB_CLASS_COUNT], padding[PB_TIER_COUNT];  // as in pb_step_plan
    bool deferred;
    int64_t steps;                       // that were timed
    double seconds;                      // of them, pictures and all
    double program_seconds;              // in programs: what the forecast is of
    uint64_t slab_bytes[PB_TIER_COUNT];  // that the run made
    uint64_t moved[PB_LINK_COUNT];       // of the moves that a traced step completed
    // Of the same programs, with nothing done on the other lanes: ops, copies and updates, and transfers of the drive; 0
    // where nothing moves between tiers. No schedule makes a step shorter than the longer of the two.
    double compute_alone, io_alone;
    // Of the process, in bytes of RAM: the most that it had during the run; the slabs in it; and what was allowed
    // besides (its code, pictures, buffers, threads).
    uint64_t process_peak, process_slabs, process_overhead;
    int64_t losses;  // the first steps' losses and gradient norms, to tell whether two runs are the same
    double loss[PB_REPORT_STEPS], norm[PB_REPORT_STEPS];
} pb_train_report;

// The same run, but for a report: no checkpoints, no pipeline and no model is written; output_dir gets metrics.jsonl.
pb_status pb_train_measure(pb_config *config, pb_train_report *report);

#endif
