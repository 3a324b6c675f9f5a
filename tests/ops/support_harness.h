// Runs one op on one case with any backend, between sentinels, and compares results.
#ifndef PB_TESTS_OPS_SUPPORT_HARNESS_H
#define PB_TESTS_OPS_SUPPORT_HARNESS_H

#include "support_cases.h"

typedef struct op_run {
    pb_opcode op;
    const op_cases *spec;
    pb_dtype dtype;
    pb_attr attr;
    pb_kernel_args args;  // every data pointer lies between two sentinels
} op_run;

// A case, as it is to be run.
typedef struct op_setting {
    pb_opcode op;
    const op_case *c;
    pb_dtype dtype;
    unsigned dropped;  // bit i: input i is absent
} op_setting;

// Every case of an op in every storage dtype, with every subset of its optional inputs absent.
void op_each_setting(pb_opcode op, void (*check)(const op_setting *setting));
// op_run_init with the setting's inputs, against the reference.
void op_run_init_setting(op_run *run, const op_setting *setting);

// Allocates the arguments; inputs are the same pseudo-random numbers for every run of a case, outputs NaN.
void op_run_init(op_run *run, pb_opcode op, const op_case *c, pb_dtype dtype, const pb_backend *reference);
void op_run_deinit(op_run *run);
void op_run_drop_input(op_run *run, int i);
void op_run_drop_output(op_run *run, int i);

// Runs the op over outputs and scratch full of NaN. NULL, or what it did wrong: wrote outside of its outputs and
// scratch, or onto its inputs. `aliased`: outputs lie where their aliased inputs did; false where no output has one.
const char *op_run_execute(op_run *run, const pb_backend *backend);
bool op_run_alias(op_run *run);

// Whether `got` is within the tolerances for its dtype of `expected`; if not, says where in `why`.
bool op_run_agrees(const op_run *got, const op_run *expected, char *why, size_t why_bytes);
// Whether all outputs that both have are the same bits.
bool op_run_same_bits(const op_run *a, const op_run *b);

size_t op_tensor_bytes(const pb_tensor *t);
// The same numbers on every machine, uniform in [-1, 1).
double op_random(uint64_t *state);

#endif
