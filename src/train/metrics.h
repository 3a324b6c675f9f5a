// metrics.jsonl: one JSON object per optimizer step. After open nothing is allocated: a line is put together in a
// buffer of fixed size and written with one write(2), so that a kill leaves whole lines, or a last one that resuming
// cuts off.
#ifndef PB_TRAIN_METRICS_H
#define PB_TRAIN_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef struct pb_metrics pb_metrics;

typedef struct pb_metrics_step {
    int64_t step, epoch;         // `step` from 1
    double loss;                 // the total; of the passes' mean where gradients are accumulated
    double lr;                   // that the optimizer used
    double grad_norm;            // of the unscaled gradients before clipping
    double seconds;              // the whole step, update included
    double loss_scale;           // 0: not written
    const double *micro_losses;  // one per pass, or NULL
    int64_t micro_count;
} pb_metrics_step;

// Keeps the lines of the steps up to `keep_steps` and cuts off the rest. `micro_count`: the most that a line will have.
pb_status pb_metrics_open(const char *path, int64_t keep_steps, int64_t micro_count, pb_metrics **metrics);
void pb_metrics_close(pb_metrics *metrics);  // NULL is allowed

pb_status pb_metrics_write(pb_metrics *metrics, const pb_metrics_step *step);
// A step that fp16 overflow undid: {"step", "overflow": true, "scale"}; it will be tried again with other pictures.
pb_status pb_metrics_write_overflow(pb_metrics *metrics, int64_t step, double scale);
// fsync: before a checkpoint of the same step is made.
pb_status pb_metrics_sync(pb_metrics *metrics);

#endif
