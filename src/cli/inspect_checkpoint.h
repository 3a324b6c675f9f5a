// A checkpoint in the format `swap`, for `pagebooth inspect`.
#ifndef PB_CLI_INSPECT_CHECKPOINT_H
#define PB_CLI_INSPECT_CHECKPOINT_H

#include "base/json.h"

// Appends what is in it: as lines (each tensor where `tensors`) or as one JSON object. Errors: those of
// pb_saved_state_open.
pb_status pb_inspect_checkpoint(pb_text *text, const char *path, bool json, bool tensors);

// Appends "[320,4,3,3]".
void pb_inspect_shape(pb_text *text, int rank, const int64_t *shape);

#endif
