// Cases of the loss and the optimizer.
#include <math.h>

#include "support_cases.h"

// Tables: one case to a line.
// clang-format off

static const op_case mse_loss[] = {
    {"odd", .in = {SHAPE(3, 5, 3, 4), SHAPE(3, 5, 3, 4)}, .out = {SHAPE(3)}},
    {"threads", .in = {SHAPE(2, 70, 70, 4), SHAPE(2, 70, 70, 4)}, .out = {SHAPE(2)}},
};
const op_cases pb_case_mse_loss = {.in = {ARG_DATA, ARG_WIDE}, .out = {ARG_WIDE}, CASES(mse_loss)};

// A loss scale, so that the small gradients are not all below the tolerance.
static void choose_scale(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    pb_dtype_store(args->in[3].dtype, args->in[3].data, 0, 1024);
}

static const op_case mse_loss_bwd[] = {
    {"odd", .in = {SHAPE(3, 5, 3, 4), SHAPE(3, 5, 3, 4), SHAPE(3), SHAPE(1)}, .out = {SHAPE(3, 5, 3, 4)},
     .prepare = choose_scale},
    {"threads", .in = {SHAPE(2, 70, 70, 4), SHAPE(2, 70, 70, 4), SHAPE(2), SHAPE(1)}, .out = {SHAPE(2, 70, 70, 4)},
     .prepare = choose_scale},
};
const op_cases pb_case_mse_loss_bwd = {
    .in = {ARG_DATA, ARG_WIDE, ARG_WIDE, ARG_WIDE}, .out = {ARG_DATA}, CASES(mse_loss_bwd)};

static const op_case accumulate[] = {
    {"odd", .in = {SHAPE(5, 7), SHAPE(5, 7)}, .out = {SHAPE(5, 7)}},
    {"threads", .in = {SHAPE(70003), SHAPE(70003)}, .out = {SHAPE(70003)}},
};
const op_cases pb_case_accumulate = {
    .in = {ARG_DATA, ARG_WIDE}, .out = {ARG_WIDE}, .alias = {1 + 1}, CASES(accumulate)};

static void put_infinity(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    pb_dtype_store(args->in[0].dtype, args->in[0].data, 17, INFINITY);
}

static void put_nan(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    pb_dtype_store(args->in[0].dtype, args->in[0].data, 33, NAN);
}

static const op_case grad_norm[] = {
    {"odd", .in = {SHAPE(5, 7), SHAPE(1)}, .out = {SHAPE(1)}},
    {"threads", .in = {SHAPE(100003), SHAPE(1)}, .out = {SHAPE(1)}},
    {"infinity", .in = {SHAPE(5, 7), SHAPE(1)}, .out = {SHAPE(1)}, .prepare = put_infinity},
    {"NaN", .in = {SHAPE(5, 7), SHAPE(1)}, .out = {SHAPE(1)}, .prepare = put_nan},
};
const op_cases pb_case_grad_norm = {.in = {ARG_DATA, ARG_F64}, .out = {ARG_F64}, .alias = {1 + 1}, CASES(grad_norm)};

static void put(pb_tensor *t, int i, double value) {
    pb_dtype_store(t->dtype, t->data, (size_t)i, value);
}

// Step 3 of a run with PyTorch's defaults, but for a learning rate and an epsilon whose absence would not go unnoticed.
static void choose_hyper(pb_tensor *hyper) {
    const double lr = 1e-2, beta1 = 0.9, beta2 = 0.999, decay = 1e-2, step = 3;
    put(hyper, PB_HYPER_LR, lr);
    put(hyper, PB_HYPER_BETA1, beta1);
    put(hyper, PB_HYPER_BETA2, beta2);
    put(hyper, PB_HYPER_EPS, 1e-3);
    put(hyper, PB_HYPER_DECAY, 1 - lr * decay);
    put(hyper, PB_HYPER_STEP_SIZE, lr / (1 - pow(beta1, step)));
    put(hyper, PB_HYPER_SQRT_BIAS2, sqrt(1 - pow(beta2, step)));
    put(hyper, PB_HYPER_INV_LOSS_SCALE, 1.0 / 1024);
    put(hyper, PB_HYPER_MAX_NORM, 1);
    put(hyper, PB_HYPER_ONE_MINUS_BETA1, 1 - beta1);
    put(hyper, PB_HYPER_ONE_MINUS_BETA2, 1 - beta2);
}

static void control_with(pb_kernel_args *args, double squares, double max_norm) {
    choose_hyper(&args->in[1]);
    put(&args->in[0], 0, squares);
    put(&args->in[1], PB_HYPER_MAX_NORM, max_norm);
}

static void clipped(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    control_with(args, 1e8, 1);
}

static void below_the_limit(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    control_with(args, 1e5, 1);
}

static void unlimited(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    control_with(args, 1e8, INFINITY);
}

static void overflowed(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    control_with(args, INFINITY, 1);
}

static void undefined(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    control_with(args, NAN, INFINITY);
}

#define CONTROL(name, function) {name, .in = {SHAPE(1), SHAPE(16)}, .out = {SHAPE(4)}, .prepare = function}
static const op_case step_control[] = {
    CONTROL("clipped", clipped),       CONTROL("below the limit", below_the_limit), CONTROL("unlimited", unlimited),
    CONTROL("overflowed", overflowed), CONTROL("undefined", undefined),
};
const op_cases pb_case_step_control = {.in = {ARG_F64, ARG_WIDE}, .out = {ARG_WIDE}, CASES(step_control)};

// Second moments are not negative, and some are zero: parameters that have not had a gradient yet.
static void take_step(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    choose_hyper(&args->in[2]);
    put(&args->in[1], PB_CONTROL_NORM, 2);
    put(&args->in[1], PB_CONTROL_SCALE, 0.25);
    put(&args->in[1], PB_CONTROL_SKIP, 0);
    pb_tensor *v = &args->in[5];
    for (int64_t i = 0; i < pb_shape_count(v->shape); i++) {
        const double x = pb_dtype_load(v->dtype, v->data, (size_t)i);
        put(v, (int)i, i % 5 ? x * x : 0);
    }
}

static void skip_step(const pb_backend *reference, pb_kernel_args *args) {
    take_step(reference, args);
    put(&args->in[1], PB_CONTROL_SCALE, 0);
    put(&args->in[1], PB_CONTROL_SKIP, 1);
}

#define ADAMW(name, shape, function)                                                                \
    {name, .in = {shape, SHAPE(4), SHAPE(16), shape, shape, shape}, .out = {shape, shape, shape, shape}, \
     .prepare = function}
static const op_case adamw[] = {
    ADAMW("odd", SHAPE(5, 7), take_step),
    ADAMW("threads", SHAPE(70003), take_step),
    ADAMW("skipped", SHAPE(5, 7), skip_step),
};
const op_cases pb_case_adamw = {
    .in = {ARG_DATA, ARG_WIDE, ARG_WIDE, ARG_WIDE, ARG_WIDE, ARG_WIDE}, .out = {ARG_WIDE, ARG_WIDE, ARG_WIDE, ARG_DATA},
    .optional_out = BIT(3), .alias = {1 + 3, 1 + 4, 1 + 5}, CASES(adamw)};
