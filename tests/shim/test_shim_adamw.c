// test: links=shim,base
// The CUDA kernel of AdamW gives the bits of the scalar sequence in kernels/adamw.h for every dtype of gradients and of
// the working copy, in whole vectors and beside them.
#include "check.h"
#include "kernels/adamw.h"
#include "ops/support_harness.h"
#include "support_shim.h"

enum { MOST = 5000 };
static _Alignas(16) float gradient[MOST], initial[3][MOST], expected[3][MOST], state[3][MOST], work[MOST];
static _Alignas(16) uint16_t narrow[MOST];

static void check_bits(pb_dtype dtype, pb_dtype work_dtype, int64_t count, const float *hyper, const float *control) {
    const pb_shape shape = PB_SHAPE1(count);
    const pb_adamw_scalars scalars = pb_adamw_scalars_of(hyper, control);
    void *g = dtype == PB_F32 ? (void *)gradient : narrow;
    if (dtype != PB_F32) pb_convert(dtype, narrow, PB_F32, gradient, (size_t)count);
    memcpy(expected, initial, sizeof initial);
    memcpy(state, initial, sizeof initial);
    for (int64_t i = 0; control[PB_CONTROL_SKIP] == 0 && i < count; i++)
        pb_adamw_element(&scalars, (float)pb_dtype_load(dtype, g, (size_t)i), &expected[0][i], &expected[1][i],
                         &expected[2][i]);
    pb_kernel_args args = {
        .in = {{g, dtype, shape}, {(void *)control, PB_F32, PB_SHAPE1(4)}, {(void *)hyper, PB_F32, PB_SHAPE1(16)}}};
    for (int s = 0; s < 3; s++) args.in[3 + s] = args.out[s] = (pb_tensor){state[s], PB_F32, shape};
    args.out[3] = (pb_tensor){work, work_dtype, shape};
    shim_backend()->kernels[PB_OP_ADAMW](&args);
    CHECK_THAT(!memcmp(expected, state, sizeof state), "%s, %lld elements: other bits", pb_dtype_name(dtype),
               (long long)count);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) {
        double rounded;
        pb_dtype_store(work_dtype, &rounded, 0, state[0][i]);
        wrong += pb_dtype_load(work_dtype, work, (size_t)i) != pb_dtype_load(work_dtype, &rounded, 0);
    }
    CHECK_THAT(!wrong, "%lld elements of the working copy are not the master weights", (long long)wrong);
}

int main(void) {
    float hyper[PB_HYPER_COUNT] = {0}, control[PB_CONTROL_COUNT] = {0};
    uint64_t random = 9;
    hyper[PB_HYPER_BETA2] = 0.999f;
    hyper[PB_HYPER_EPS] = 1e-8f;
    hyper[PB_HYPER_DECAY] = 1 - 5e-8f;
    hyper[PB_HYPER_STEP_SIZE] = 1.1e-5f;
    hyper[PB_HYPER_SQRT_BIAS2] = 0.0547f;
    hyper[PB_HYPER_ONE_MINUS_BETA1] = 0.1f;
    hyper[PB_HYPER_ONE_MINUS_BETA2] = 0.001f;
    control[PB_CONTROL_SCALE] = 0.371f;
    for (int i = 0; i < MOST; i++) {
        const double size = pow(10, 4 * op_random(&random));  // eight decades: gradients are that unequal
        gradient[i] = (float)(size * op_random(&random));
        initial[0][i] = (float)op_random(&random);
        initial[1][i] = (float)(size * op_random(&random));
        initial[2][i] = i % 3 ? (float)(size * size * fabs(op_random(&random))) : 0;
    }
    const pb_dtype dtypes[] = {PB_F32, PB_F16, PB_BF16};
    for (int skip = 0; skip <= 1; skip++) {
        control[PB_CONTROL_SKIP] = (float)skip;
        for (int d = 0; d < 9; d++)
            for (int64_t count = 1; count <= MOST; count += count < 20 ? 1 : MOST - 20)
                check_bits(dtypes[d / 3], dtypes[d % 3], count, hyper, control);
    }
    return CHECK_DONE();
}
