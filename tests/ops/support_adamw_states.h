// AdamW on every format of its state (ops.def), a backend against the scalar reference.
#ifndef PB_TESTS_OPS_SUPPORT_ADAMW_STATES_H
#define PB_TESTS_OPS_SUPPORT_ADAMW_STATES_H

#include "kernels/backend.h"

// What was found: of which format, how it was run, over how many elements.
typedef void (*adamw_states_report)(bool good, const char *format, const char *what, int64_t elements);

// Bits: in place, apart, in slices, and of a skipped step, over at most `most` elements (70000).
void adamw_states_compare(const pb_backend *backend, int64_t most, adamw_states_report report);

// Weights after a step: how far from those of fp32 state.
void adamw_states_distances(const pb_backend *backend, adamw_states_report report);

#endif
