// How an epoch is cut up into optimizer steps, batches and passes.
#ifndef PB_TRAIN_BATCHING_H
#define PB_TRAIN_BATCHING_H

#include <stdbool.h>
#include <stdint.h>

#include "io/run_config.h"
#include "train/step_graph.h"

// Batches of the data set; optimizer steps of `accumulation` batches, the epoch's last one closing a step in any case;
// passes of at most `pass_images` pictures, where a batch does not fit the memory at once.
typedef struct pb_batching {
    int64_t length;  // of the data set
    int64_t batch;   // items
    int64_t sides;   // pictures per item: 2 with prior preservation
    int64_t accumulation;
    int64_t pass_images;
} pb_batching;

// Of a data set of `length` items.
pb_batching pb_batching_of(const pb_config *config, int64_t length);
int64_t pb_batching_batches(const pb_batching *b);                // of an epoch
int64_t pb_batching_steps(const pb_batching *b);                  // optimizer steps of an epoch
int64_t pb_batching_images(const pb_batching *b, int64_t batch);  // pictures of a batch of the epoch
bool pb_batching_opens(const pb_batching *b, int64_t batch);      // whether it is the first of its step
bool pb_batching_closes(const pb_batching *b, int64_t batch);     // whether it is the last
int64_t pb_batching_longest(const pb_batching *b);                // batches of the longest step
// The pass that begins with picture `first` of the batch; *images: how many it has.
pb_pass pb_batching_pass(const pb_batching *b, int64_t batch, int64_t first, int64_t *images);

#endif
