// AdamW on every format of its state (ops.def), a backend against the scalar reference.
#ifndef PB_TESTS_OPS_SUPPORT_ADAMW_STATES_H
#define PB_TESTS_OPS_SUPPORT_ADAMW_STATES_H

#include "kernels/backend.h"

// hyper[PB_HYPER_COUNT], control[PB_CONTROL_COUNT]: those of step 17 of a run with a seed.
void adamw_scalars_fill(float *hyper, float *control);

// --- fp32 state ---

enum { ADAMW_MOST = 70000 };
typedef struct adamw_inputs {
    _Alignas(16) float gradient[ADAMW_MOST];
    _Alignas(16) float initial[3][ADAMW_MOST];  // master weight and moments
    float hyper[PB_HYPER_COUNT], control[PB_CONTROL_COUNT];
} adamw_inputs;

// Gradients and moments over eight decades: gradients are that unequal.
void adamw_inputs_fill(adamw_inputs *inputs);
// What the scalar sequence of kernels/adamw.h makes of the first `count` elements; `gradient` in `dtype`.
void adamw_expect(const adamw_inputs *inputs, pb_dtype dtype, const void *gradient, int64_t count,
                  float expected[3][ADAMW_MOST]);
// The arguments of a step over them, in place.
pb_kernel_args adamw_arguments(const adamw_inputs *inputs, pb_dtype dtype, void *gradient, int64_t count,
                               float state[3][ADAMW_MOST], pb_dtype work_dtype, void *work);

// --- Every format ---

// What was found: of which format, how it was run, over how many elements.
typedef void (*adamw_states_report)(bool good, const char *format, const char *what, int64_t elements);

// Bits: in place, apart, in slices, and of a skipped step, over at most `most` elements (70000).
void adamw_states_compare(const pb_backend *backend, int64_t most, adamw_states_report report);

// Weights after a step: how far from those of fp32 state.
void adamw_states_distances(const pb_backend *backend, adamw_states_report report);

#endif
