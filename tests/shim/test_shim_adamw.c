// test: links=shim,base
// The CUDA kernel of AdamW gives the bits of the scalar sequence in kernels/adamw.h for every dtype of gradients and of
// the working copy, in whole vectors and beside them.
#include <string.h>

#include "check.h"
#include "ops/support_adamw_states.h"
#include "support_shim.h"

enum { MOST = 5000 };
static adamw_inputs inputs;
static _Alignas(16) float expected[3][ADAMW_MOST], state[3][ADAMW_MOST], work[MOST];
static _Alignas(16) uint16_t narrow[MOST];

static void check_bits(pb_dtype dtype, pb_dtype work_dtype, int64_t count) {
    void *gradient = dtype == PB_F32 ? (void *)inputs.gradient : narrow;
    if (dtype != PB_F32) pb_convert(dtype, narrow, PB_F32, inputs.gradient, (size_t)count);
    // What lies behind the elements has to stay as it is, too.
    for (int s = 0; s < 3; s++) memcpy(expected[s], inputs.initial[s], MOST * sizeof(float));
    for (int s = 0; s < 3; s++) memcpy(state[s], inputs.initial[s], MOST * sizeof(float));
    adamw_expect(&inputs, dtype, gradient, count, expected);
    const pb_kernel_args args = adamw_arguments(&inputs, dtype, gradient, count, state, work_dtype, work);
    shim_backend()->kernels[PB_OP_ADAMW](&args);
    for (int s = 0; s < 3; s++)
        CHECK_THAT(!memcmp(expected[s], state[s], MOST * sizeof(float)), "%s, %lld elements: state %d",
                   pb_dtype_name(dtype), (long long)count, s);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) {
        double rounded;
        pb_dtype_store(work_dtype, &rounded, 0, state[0][i]);
        wrong += pb_dtype_load(work_dtype, work, (size_t)i) != pb_dtype_load(work_dtype, &rounded, 0);
    }
    CHECK_THAT(!wrong, "%lld elements of the working copy are not the master weights", (long long)wrong);
}

int main(void) {
    const pb_dtype dtypes[] = {PB_F32, PB_F16, PB_BF16};
    adamw_inputs_fill(&inputs);
    for (int skip = 0; skip <= 1; skip++) {
        inputs.control[PB_CONTROL_SKIP] = (float)skip;
        for (int d = 0; d < 9; d++)
            for (int64_t count = 1; count <= MOST; count += count < 20 ? 1 : MOST - 20)
                check_bits(dtypes[d / 3], dtypes[d % 3], count);
    }
    return CHECK_DONE();
}
