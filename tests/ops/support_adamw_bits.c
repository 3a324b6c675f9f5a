// AdamW on fp32 state: inputs, and what the scalar sequence makes of them.
#include <math.h>
#include <string.h>

#include "kernels/adamw.h"
#include "support_adamw_states.h"
#include "support_harness.h"

void adamw_scalars_fill(float *hyper, float *control) {
    hyper[PB_HYPER_BETA2] = 0.999f;
    hyper[PB_HYPER_EPS] = 1e-8f;
    hyper[PB_HYPER_DECAY] = 1 - 5e-8f;
    hyper[PB_HYPER_STEP_SIZE] = 1.1e-3f;
    hyper[PB_HYPER_SQRT_BIAS2] = 0.547f;
    hyper[PB_HYPER_ONE_MINUS_BETA1] = 0.1f;
    hyper[PB_HYPER_ONE_MINUS_BETA2] = 0.001f;
    hyper[PB_HYPER_SEED_LOW] = 0x1234;
    hyper[PB_HYPER_SEED_HIGH] = 0xfedc;
    hyper[PB_HYPER_STEP_LOW] = 17;
    control[PB_CONTROL_SCALE] = 0.371f;
}

void adamw_inputs_fill(adamw_inputs *in) {
    uint64_t random = 9;
    memset(in->hyper, 0, sizeof in->hyper);
    memset(in->control, 0, sizeof in->control);
    adamw_scalars_fill(in->hyper, in->control);
    in->hyper[PB_HYPER_STEP_SIZE] = 1.1e-5f;
    in->hyper[PB_HYPER_SQRT_BIAS2] = 0.0547f;
    for (int i = 0; i < ADAMW_MOST; i++) {
        const double size = pow(10, 4 * op_random(&random));
        in->gradient[i] = (float)(size * op_random(&random));
        in->initial[0][i] = (float)op_random(&random);
        in->initial[1][i] = (float)(size * op_random(&random));
        in->initial[2][i] = i % 3 ? (float)(size * size * fabs(op_random(&random))) : 0;
    }
}

void adamw_expect(const adamw_inputs *in, pb_dtype dtype, const void *gradient, int64_t count,
                  float expected[3][ADAMW_MOST]) {
    const pb_adamw_scalars scalars = pb_adamw_scalars_of(in->hyper, in->control);
    for (int s = 0; s < 3; s++) memcpy(expected[s], in->initial[s], (size_t)count * sizeof(float));
    for (int64_t i = 0; in->control[PB_CONTROL_SKIP] == 0 && i < count; i++)
        pb_adamw_element(&scalars, (float)pb_dtype_load(dtype, gradient, (size_t)i), &expected[0][i], &expected[1][i],
                         &expected[2][i]);
}

pb_kernel_args adamw_arguments(const adamw_inputs *in, pb_dtype dtype, void *gradient, int64_t count,
                               float state[3][ADAMW_MOST], pb_dtype work_dtype, void *work) {
    const pb_shape shape = PB_SHAPE1(count);
    pb_kernel_args args = {.in = {{gradient, dtype, shape},
                                  {(void *)in->control, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT)},
                                  {(void *)in->hyper, PB_F32, PB_SHAPE1(PB_HYPER_COUNT)}}};
    for (int s = 0; s < 3; s++) args.in[3 + s] = args.out[s] = (pb_tensor){state[s], PB_F32, shape};
    args.out[3] = (pb_tensor){work, work_dtype, shape};
    return args;
}
