// What must be the same for a resumed run to be the continuation of the one that was interrupted, and what of the rest
// has changed.
#ifndef PB_TRAIN_STATE_FIXED_H
#define PB_TRAIN_STATE_FIXED_H

#include "train/trainer_parts.h"

// The member `fixed` of trainer.json, as a JSON object.
void pb_fixed_append(const pb_trainer *t, pb_text *text);
// PB_ERR_USAGE naming the key, what it was and what it is. While class pictures are missing theirs are not compared.
pb_status pb_fixed_compare(const pb_trainer *t, const pb_json *saved, const char *path);
// Names, on the progress, the other keys that change a run's numbers and are not as in `config`, a checkpoint's
// config.yaml: they may be changed, but hardly anybody means to change a prompt. Says nothing where it cannot be read.
void pb_fixed_note_changes(pb_trainer *t, const char *config);

#endif
