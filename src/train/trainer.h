// A DreamBooth run: data, latents, the compiled step, the loop, checkpoints, the result. The semantics are those of
// diffusers' examples/dreambooth/train_dreambooth.py but for its faults (docs/training.md lists them).
#ifndef PB_TRAIN_TRAINER_H
#define PB_TRAIN_TRAINER_H

#include "io/run_config.h"

// Runs the training that `config` describes, or, with `check`, reads the configuration, the model and the data, plans
// the step, prints what it found to stdout and stops. `config` is completed: a seed is drawn where it has none. Errors:
// all kinds; PB_ERR_INTERRUPTED after SIGINT or SIGTERM, when a checkpoint has been written; PB_ERR_NUMERIC where the
// loss or the gradients are not finite.
pb_status pb_train(pb_config *config, bool check);

#endif
