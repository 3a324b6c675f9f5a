// What people see of a run, on stderr: a bar that is drawn over itself on a terminal, now and then a line elsewhere.
// Nothing is allocated.
#ifndef PB_TRAIN_PROGRESS_H
#define PB_TRAIN_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct pb_progress {
    int64_t first, total;  // steps done at the start; steps in all
    double begun, shown;   // seconds of the monotonic clock
    bool terminal, open;   // open: the cursor is behind a bar
    int columns;
} pb_progress;

void pb_progress_begin(pb_progress *progress, int64_t first, int64_t total);
// After a step.
void pb_progress_step(pb_progress *progress, int64_t step, double loss, double lr, double seconds);
// Work other than training: "WHAT 12/100", on a terminal only.
void pb_progress_count(pb_progress *progress, const char *what, int64_t done, int64_t total);
// Ends the bar's line.
void pb_progress_end(pb_progress *progress);

// A sentence for people on a line of its own.
void pb_progress_note(pb_progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
