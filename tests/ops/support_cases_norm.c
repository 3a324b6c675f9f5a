// Cases of group_norm, layer_norm and sum_pixels: group widths that are no multiple of a vector, more channels than a
// strip, more elements than one thread takes.
#include <stdlib.h>

#include "support_cases.h"

// Tables: one case to a line.
// clang-format off

#define PLAIN(groups) {.norm = {1e-5f, groups, false}}
#define SILU(groups) {.norm = {1e-5f, groups, true}}
#define GROUP_CASES(make)                                                  \
    make("odd", PLAIN(4), SHAPE(2, 5, 3, 12), SHAPE(12), SHAPE(2, 4, 2))   \
    make("silu", SILU(4), SHAPE(2, 5, 3, 12), SHAPE(12), SHAPE(2, 4, 2))   \
    make("one pixel", PLAIN(2), SHAPE(3, 1, 1, 8), SHAPE(8), SHAPE(3, 2, 2))   \
    make("tokens", SILU(3), SHAPE(2, 7, 21), SHAPE(21), SHAPE(2, 3, 2))    \
    make("groups of ten", SILU(32), SHAPE(1, 4, 4, 320), SHAPE(320), SHAPE(1, 32, 2))      \
    make("strips", SILU(16), SHAPE(1, 3, 2, 1056), SHAPE(1056), SHAPE(1, 16, 2))           \
    make("threads", SILU(8), SHAPE(2, 33, 25, 40), SHAPE(40), SHAPE(2, 8, 2))

#define GROUP_NORM(name, attributes, x, channel, stats) \
    {name, attributes, .in = {x, channel, channel}, .out = {x, stats}},
static const op_case group_norm[] = {GROUP_CASES(GROUP_NORM)};
const op_cases pb_case_group_norm = {
    .in = {ARG_DATA, ARG_WIDE, ARG_WIDE}, .out = {ARG_DATA, ARG_WIDE},
    .optional_out = BIT(1), .alias = {1 + 0}, .inner_roundings = 1, CASES(group_norm)};

// Statistics as the forward pass leaves them.
static void run_norm(const pb_backend *reference, pb_opcode op, const pb_kernel_args *args, int stats) {
    pb_kernel_args forward = {.attr = args->attr, .in = {args->in[1], args->in[2], args->in[2]}};
    forward.out[0] = args->in[1];
    forward.out[0].data = malloc((size_t)pb_shape_count(args->in[1].shape) * pb_dtype_size(args->in[1].dtype));
    forward.out[1] = args->in[stats];
    if (!forward.out[0].data) abort();
    reference->kernels[op](&forward);
    free(forward.out[0].data);
}

static void run_group_norm(const pb_backend *reference, pb_kernel_args *args) {
    run_norm(reference, PB_OP_GROUP_NORM, args, 4);
}

static void run_layer_norm(const pb_backend *reference, pb_kernel_args *args) {
    run_norm(reference, PB_OP_LAYER_NORM, args, 3);
}

#define GROUP_NORM_BWD(name, attributes, x, channel, stats) \
    {name, attributes, .in = {x, x, channel, channel, stats, x}, .out = {x, channel, channel}, \
     .prepare = run_group_norm},
static const op_case group_norm_bwd[] = {GROUP_CASES(GROUP_NORM_BWD)};
const op_cases pb_case_group_norm_bwd = {
    .in = {ARG_DATA, ARG_DATA, ARG_WIDE, ARG_WIDE, ARG_WIDE, ARG_DATA}, .out = {ARG_DATA, ARG_WIDE, ARG_WIDE},
    .optional_in = BIT(5), .optional_out = BIT(0) | BIT(1) | BIT(2), .alias = {1 + 0}, .by_norm = BIT(1) | BIT(2),
    CASES(group_norm_bwd)};

#define LAYER_CASES(make)                                   \
    make("odd", SHAPE(3, 7), SHAPE(7), SHAPE(3, 2))         \
    make("pair", SHAPE(1, 2), SHAPE(2), SHAPE(1, 2))        \
    make("tokens", SHAPE(2, 5, 33), SHAPE(33), SHAPE(10, 2))    \
    make("wide", SHAPE(2, 2100), SHAPE(2100), SHAPE(2, 2))  \
    make("threads", SHAPE(201, 320), SHAPE(320), SHAPE(201, 2))

#define LAYER_NORM(name, x, channel, stats) {name, PLAIN(0), .in = {x, channel, channel}, .out = {x, stats}},
static const op_case layer_norm[] = {LAYER_CASES(LAYER_NORM)};
const op_cases pb_case_layer_norm = {
    .in = {ARG_DATA, ARG_WIDE, ARG_WIDE}, .out = {ARG_DATA, ARG_WIDE},
    .optional_out = BIT(1), .alias = {1 + 0}, CASES(layer_norm)};

#define LAYER_NORM_BWD(name, x, channel, stats) \
    {name, PLAIN(0), .in = {x, x, channel, stats, x}, .out = {x, channel, channel}, .prepare = run_layer_norm},
static const op_case layer_norm_bwd[] = {LAYER_CASES(LAYER_NORM_BWD)};
const op_cases pb_case_layer_norm_bwd = {
    .in = {ARG_DATA, ARG_DATA, ARG_WIDE, ARG_WIDE, ARG_DATA}, .out = {ARG_DATA, ARG_WIDE, ARG_WIDE},
    .optional_in = BIT(4), .optional_out = BIT(0) | BIT(1) | BIT(2), .alias = {1 + 0}, .by_norm = BIT(1) | BIT(2),
    CASES(layer_norm_bwd)};

static const op_case sum_pixels[] = {
    {"odd", .in = {SHAPE(2, 5, 7, 33)}, .out = {SHAPE(2, 33)}},
    {"no pixels between", .in = {SHAPE(3, 5)}, .out = {SHAPE(3, 5)}},
    {"threads", .in = {SHAPE(2, 31, 29, 72)}, .out = {SHAPE(2, 72)}},
};
const op_cases pb_case_sum_pixels = {.in = {ARG_DATA}, .out = {ARG_DATA}, CASES(sum_pixels)};
