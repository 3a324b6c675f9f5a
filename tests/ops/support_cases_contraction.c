// Cases of linear, conv2d and attention.
#include <stdlib.h>

#include "support_cases.h"

// Tables: one case to a line.
// clang-format off

static const op_case linear[] = {
    {"odd", .in = {SHAPE(3, 5, 19), SHAPE(23, 19), SHAPE(23), SHAPE(3, 5, 23)}, .out = {SHAPE(3, 5, 23)}},
    {"single", .in = {SHAPE(1, 1), SHAPE(1, 1), SHAPE(1), SHAPE(1, 1)}, .out = {SHAPE(1, 1)}},
    {"blocks", .in = {SHAPE(130, 96), SHAPE(72, 96), SHAPE(72), SHAPE(130, 72)}, .out = {SHAPE(130, 72)}},
};
const op_cases pb_case_linear = {
    .in = {ARG_DATA, ARG_DATA, ARG_WIDE, ARG_DATA}, .out = {ARG_DATA},
    .optional_in = BIT(2) | BIT(3), .alias = {1 + 3}, .by_norm = BIT(0), CASES(linear)};

static const op_case linear_bwd_data[] = {
    {"odd", .in = {SHAPE(3, 5, 23), SHAPE(23, 19), SHAPE(3, 5, 19)}, .out = {SHAPE(3, 5, 19)}},
    {"single", .in = {SHAPE(1, 1), SHAPE(1, 1), SHAPE(1, 1)}, .out = {SHAPE(1, 1)}},
    {"blocks", .in = {SHAPE(130, 72), SHAPE(72, 96), SHAPE(130, 96)}, .out = {SHAPE(130, 96)}},
};
const op_cases pb_case_linear_bwd_data = {
    .in = {ARG_DATA, ARG_DATA, ARG_DATA}, .out = {ARG_DATA},
    .optional_in = BIT(2), .alias = {1 + 2}, .by_norm = BIT(0), CASES(linear_bwd_data)};

static const op_case linear_bwd_weight[] = {
    {"odd", .in = {SHAPE(3, 5, 23), SHAPE(3, 5, 19)}, .out = {SHAPE(23, 19), SHAPE(23)}},
    {"single", .in = {SHAPE(1, 1), SHAPE(1, 1)}, .out = {SHAPE(1, 1), SHAPE(1)}},
    {"blocks", .in = {SHAPE(130, 72), SHAPE(130, 96)}, .out = {SHAPE(72, 96), SHAPE(72)}},
};
const op_cases pb_case_linear_bwd_weight = {
    .in = {ARG_DATA, ARG_DATA}, .out = {ARG_DATA, ARG_WIDE},
    .optional_out = BIT(0) | BIT(1), .by_norm = BIT(0) | BIT(1), CASES(linear_bwd_weight)};

// The geometries that the models have, and stranger ones: same padding, 1x1, the VAE's asymmetric stride, the UNet's
// stride, resizing by two and to an odd size, a kernel that is not square.
#define SAME {.conv = {3, 3, 1, 1, 1, 1, 1, 0, 0, 7, 5}}
#define POINT {.conv = {1, 1, 1, 0, 0, 0, 0, 0, 0, 4, 4}}
#define LOPSIDED {.conv = {3, 3, 2, 0, 0, 1, 1, 0, 0, 8, 6}}
#define STRIDED {.conv = {3, 3, 2, 1, 1, 1, 1, 0, 0, 7, 7}}
#define DOUBLED {.conv = {3, 3, 1, 1, 1, 1, 1, 6, 8, 3, 4}}
#define RESIZED {.conv = {3, 3, 1, 1, 1, 1, 1, 9, 7, 5, 4}}
#define OBLONG {.conv = {3, 5, 1, 1, 2, 1, 2, 0, 0, 6, 6}}
#define CONV_CASES(make)                                              \
    make("same", SAME, 2, 7, 5, 6, 3, 3, 7, 5, 9)                     \
    make("pointwise", POINT, 3, 4, 4, 18, 1, 1, 4, 4, 33)             \
    make("asymmetric padding", LOPSIDED, 1, 8, 6, 5, 3, 3, 4, 3, 7)   \
    make("strided", STRIDED, 2, 7, 7, 4, 3, 3, 4, 4, 8)               \
    make("doubled", DOUBLED, 2, 3, 4, 5, 3, 3, 6, 8, 6)               \
    make("resized", RESIZED, 1, 5, 4, 16, 3, 3, 9, 7, 17)             \
    make("oblong", OBLONG, 1, 6, 6, 3, 3, 5, 6, 6, 2)

#define FORWARD(name, attributes, n, h, w, i, kh, kw, oh, ow, o)                                                      \
    {name, attributes, .in = {SHAPE(n, h, w, i), SHAPE(o, kh, kw, i), SHAPE(o), SHAPE(n, o), SHAPE(n, oh, ow, o)},    \
     .out = {SHAPE(n, oh, ow, o)}},
static const op_case conv2d[] = {CONV_CASES(FORWARD)};
const op_cases pb_case_conv2d = {
    .in = {ARG_DATA, ARG_DATA, ARG_WIDE, ARG_DATA, ARG_DATA}, .out = {ARG_DATA},
    .optional_in = BIT(2) | BIT(3) | BIT(4), .alias = {1 + 4}, .by_norm = BIT(0), CASES(conv2d)};

#define BACKWARD_DATA(name, attributes, n, h, w, i, kh, kw, oh, ow, o)                                      \
    {name, attributes, .in = {SHAPE(n, oh, ow, o), SHAPE(o, kh, kw, i), SHAPE(n, h, w, i)},                 \
     .out = {SHAPE(n, h, w, i)}},
static const op_case conv2d_bwd_data[] = {CONV_CASES(BACKWARD_DATA)};
const op_cases pb_case_conv2d_bwd_data = {
    .in = {ARG_DATA, ARG_DATA, ARG_DATA}, .out = {ARG_DATA},
    .optional_in = BIT(2), .alias = {1 + 2}, .by_norm = BIT(0), CASES(conv2d_bwd_data)};

#define BACKWARD_WEIGHT(name, attributes, n, h, w, i, kh, kw, oh, ow, o)                                    \
    {name, attributes, .in = {SHAPE(n, oh, ow, o), SHAPE(n, h, w, i)}, .out = {SHAPE(o, kh, kw, i), SHAPE(o)}},
static const op_case conv2d_bwd_weight[] = {CONV_CASES(BACKWARD_WEIGHT)};
const op_cases pb_case_conv2d_bwd_weight = {
    .in = {ARG_DATA, ARG_DATA}, .out = {ARG_DATA, ARG_WIDE},
    .optional_out = BIT(0) | BIT(1), .by_norm = BIT(0) | BIT(1), CASES(conv2d_bwd_weight)};

#define CROSS {.attention = {3, false, 0.35355339f}}
#define CAUSAL {.attention = {2, true, 0.37796447f}}
#define PICTURE {.attention = {1, false, 0.15811388f}}
#define LONG {.attention = {2, false, 0.25f}}
#define WIDE {.attention = {1, false, 0.09805807f}}
static const op_case attention[] = {
    {"cross", CROSS, .in = {SHAPE(2, 7, 24), SHAPE(2, 5, 24), SHAPE(2, 5, 24)},
     .out = {SHAPE(2, 7, 24), SHAPE(2, 3, 7)}},
    {"causal", CAUSAL, .in = {SHAPE(2, 9, 14), SHAPE(2, 9, 14), SHAPE(2, 9, 14)},
     .out = {SHAPE(2, 9, 14), SHAPE(2, 2, 9)}},
    {"picture", PICTURE, .in = {SHAPE(1, 4, 6, 40), SHAPE(1, 4, 6, 40), SHAPE(1, 4, 6, 40)},
     .out = {SHAPE(1, 4, 6, 40), SHAPE(1, 1, 24)}},
    {"long", LONG, .in = {SHAPE(1, 70, 32), SHAPE(1, 133, 32), SHAPE(1, 133, 32)},
     .out = {SHAPE(1, 70, 32), SHAPE(1, 2, 70)}},
    {"wide", WIDE, .in = {SHAPE(1, 66, 104), SHAPE(1, 70, 104), SHAPE(1, 70, 104)},
     .out = {SHAPE(1, 66, 104), SHAPE(1, 1, 66)}},
};
const op_cases pb_case_attention = {
    .in = {ARG_DATA, ARG_DATA, ARG_DATA}, .out = {ARG_DATA, ARG_WIDE},
    .optional_out = BIT(1), .by_norm = BIT(0), CASES(attention)};

void op_prepare_attention_bwd(const pb_backend *reference, pb_kernel_args *args) {
    pb_kernel_args forward = {
        .attr = args->attr, .in = {args->in[1], args->in[2], args->in[3]}, .out = {args->in[4], args->in[5]}};
    forward.workspace = malloc(reference->workspaces[PB_OP_ATTENTION](&forward));
    if (!forward.workspace) abort();
    reference->kernels[PB_OP_ATTENTION](&forward);
    free(forward.workspace);
}

#define ATTENTION_BWD(name, attributes, q, k, statistics) \
    {name, attributes, .in = {q, q, k, k, q, statistics}, .out = {q, k, k}, .prepare = op_prepare_attention_bwd}
static const op_case attention_bwd[] = {
    ATTENTION_BWD("cross", CROSS, SHAPE(2, 7, 24), SHAPE(2, 5, 24), SHAPE(2, 3, 7)),
    ATTENTION_BWD("causal", CAUSAL, SHAPE(2, 9, 14), SHAPE(2, 9, 14), SHAPE(2, 2, 9)),
    ATTENTION_BWD("picture", PICTURE, SHAPE(1, 4, 6, 40), SHAPE(1, 4, 6, 40), SHAPE(1, 1, 24)),
    ATTENTION_BWD("long", LONG, SHAPE(1, 70, 32), SHAPE(1, 133, 32), SHAPE(1, 2, 70)),
    ATTENTION_BWD("wide", WIDE, SHAPE(1, 66, 104), SHAPE(1, 70, 104), SHAPE(1, 1, 66)),
};
const op_cases pb_case_attention_bwd = {
    .in = {ARG_DATA, ARG_DATA, ARG_DATA, ARG_DATA, ARG_DATA, ARG_WIDE}, .out = {ARG_DATA, ARG_DATA, ARG_DATA},
    .by_norm = BIT(0) | BIT(1) | BIT(2), CASES(attention_bwd)};
