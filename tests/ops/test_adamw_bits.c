// test: links=quant,ref,cpu,base
// AdamW gives the bits of the scalar sequence in kernels/adamw.h on every instruction set, for every dtype of gradients
// and at every length of the last vector.
#include <string.h>

#include "base/isa.h"
#include "check.h"
#include "kernels/backend.h"
#include "support_adamw_states.h"

static adamw_inputs inputs;
static float expected[3][ADAMW_MOST], state[3][ADAMW_MOST];
static uint16_t narrow_gradient[ADAMW_MOST], work[ADAMW_MOST];

static void check_bits(pb_dtype dtype, int64_t count) {
    pb_convert(dtype, narrow_gradient, PB_F32, inputs.gradient, dtype == PB_F32 ? 0 : (size_t)count);
    void *gradient = dtype == PB_F32 ? (void *)inputs.gradient : narrow_gradient;
    adamw_expect(&inputs, dtype, gradient, count, expected);
    for (int s = 0; s < 3; s++) memcpy(state[s], inputs.initial[s], (size_t)count * sizeof(float));
    const pb_kernel_args args = adamw_arguments(&inputs, dtype, gradient, count, state, PB_BF16, work);
    pb_backend_cpu()->kernels[PB_OP_ADAMW](&args);
    for (int s = 0; s < 3; s++)
        CHECK_THAT(!memcmp(expected[s], state[s], (size_t)count * sizeof(float)),
                   "%s, %lld elements, instruction set %d: state %d", pb_dtype_name(dtype), (long long)count,
                   pb_cpu_isa().level, s);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) wrong += work[i] != pb_bf16_from_f32(state[0][i]);
    CHECK_THAT(!wrong, "%lld elements of the working copy are not the master weights", (long long)wrong);
}

int main(void) {
    const pb_dtype dtypes[] = {PB_F32, PB_F16, PB_BF16};
    adamw_inputs_fill(&inputs);
    for (int level = PB_ISA_SCALAR; level <= (int)pb_cpu_isa_best().level; level++) {
        pb_cpu_isa_set((pb_isa){(pb_isa_level)level, false});
        for (int d = 0; d < 3; d++)
            for (int64_t count = 1; count <= ADAMW_MOST; count += count < 40 ? 1 : ADAMW_MOST - 40)
                check_bits(dtypes[d], count);
    }
    return CHECK_DONE();
}
