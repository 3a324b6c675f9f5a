// test: links=quant,ref,cpu,base
// AdamW gives the bits of the scalar sequence in kernels/adamw.h on every instruction set, for every dtype of gradients
// and at every length of the last vector.
#include "check.h"
#include "kernels/adamw.h"
#include "kernels/backend.h"
#include "base/isa.h"
#include "support_harness.h"

enum { MOST = 70000 };
static float gradient[MOST], initial[3][MOST], expected[3][MOST], state[3][MOST];
static uint16_t narrow_gradient[MOST], work[MOST];

static void check_bits(pb_dtype dtype, int64_t count, const float *hyper, const float *control) {
    const pb_shape shape = PB_SHAPE1(count);
    const pb_adamw_scalars scalars = pb_adamw_scalars_of(hyper, control);
    pb_convert(dtype, narrow_gradient, PB_F32, gradient, dtype == PB_F32 ? 0 : (size_t)count);
    void *g = dtype == PB_F32 ? (void *)gradient : narrow_gradient;
    for (int s = 0; s < 3; s++) {
        memcpy(expected[s], initial[s], (size_t)count * sizeof(float));
        memcpy(state[s], initial[s], (size_t)count * sizeof(float));
    }
    for (int64_t i = 0; i < count; i++)
        pb_adamw_element(&scalars, (float)pb_dtype_load(dtype, g, (size_t)i), &expected[0][i], &expected[1][i],
                         &expected[2][i]);
    pb_kernel_args args = {
        .in = {{g, dtype, shape}, {(void *)control, PB_F32, PB_SHAPE1(4)}, {(void *)hyper, PB_F32, PB_SHAPE1(16)}}};
    for (int s = 0; s < 3; s++) args.in[3 + s] = args.out[s] = (pb_tensor){state[s], PB_F32, shape};
    args.out[3] = (pb_tensor){work, PB_BF16, shape};
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
    for (int level = PB_ISA_SCALAR; level <= (int)pb_cpu_isa_best().level; level++) {
        pb_cpu_isa_set((pb_isa){(pb_isa_level)level, false});
        for (int d = 0; d < 3; d++)
            for (int64_t count = 1; count <= MOST; count += count < 40 ? 1 : MOST - 40)
                check_bits(dtypes[d], count, hyper, control);
    }
    return CHECK_DONE();
}
