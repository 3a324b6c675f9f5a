// Cases of activations and of the ops that move elements.
#include "support_cases.h"

// Tables: one case to a line.
// clang-format off

#define UNARY_CASES(make)                                       \
    make("silu", {.unary = {PB_UNARY_SILU}}, SHAPE(3, 37))      \
    make("gelu", {.unary = {PB_UNARY_GELU}}, SHAPE(3, 37))      \
    make("quick gelu", {.unary = {PB_UNARY_QUICK_GELU}}, SHAPE(5)) \
    make("threads", {.unary = {PB_UNARY_GELU}}, SHAPE(3, 35003))

// Beyond the middle of the curves: to -12 and 12, where the gates are shut or open.
static void stretch(pb_tensor *x) {
    for (int64_t i = 0; i < pb_shape_count(x->shape); i++)
        pb_dtype_store(x->dtype, x->data, (size_t)i, 6 * pb_dtype_load(x->dtype, x->data, (size_t)i));
}

static void stretch_first(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    stretch(&args->in[0]);
}

static void stretch_second(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    stretch(&args->in[1]);
}

#define UNARY(name, attributes, shape) {name, attributes, .in = {shape}, .out = {shape}, .prepare = stretch_first},
static const op_case unary[] = {UNARY_CASES(UNARY)};
const op_cases pb_case_unary = {.in = {ARG_DATA}, .out = {ARG_DATA}, .alias = {1 + 0}, CASES(unary)};

#define UNARY_BWD(name, attributes, shape) \
    {name, attributes, .in = {shape, shape}, .out = {shape}, .prepare = stretch_second},
static const op_case unary_bwd[] = {UNARY_CASES(UNARY_BWD)};
const op_cases pb_case_unary_bwd = {.in = {ARG_DATA, ARG_DATA}, .out = {ARG_DATA}, .alias = {1 + 0}, CASES(unary_bwd)};

static const op_case geglu[] = {
    {"odd", .in = {SHAPE(3, 5, 14)}, .out = {SHAPE(3, 5, 7)}, .prepare = stretch_first},
    {"wide", .in = {SHAPE(2, 2050)}, .out = {SHAPE(2, 1025)}, .prepare = stretch_first},
    {"threads", .in = {SHAPE(71, 1024)}, .out = {SHAPE(71, 512)}, .prepare = stretch_first},
};
const op_cases pb_case_geglu = {.in = {ARG_DATA}, .out = {ARG_DATA}, .inner_roundings = 1, CASES(geglu)};

static const op_case geglu_bwd[] = {
    {"odd", .in = {SHAPE(3, 5, 7), SHAPE(3, 5, 14)}, .out = {SHAPE(3, 5, 14)}, .prepare = stretch_second},
    {"wide", .in = {SHAPE(2, 1025), SHAPE(2, 2050)}, .out = {SHAPE(2, 2050)}, .prepare = stretch_second},
    {"threads", .in = {SHAPE(71, 512), SHAPE(71, 1024)}, .out = {SHAPE(71, 1024)}, .prepare = stretch_second},
};
const op_cases pb_case_geglu_bwd = {.in = {ARG_DATA, ARG_DATA}, .out = {ARG_DATA}, .alias = {1 + 1}, CASES(geglu_bwd)};

static const op_case add[] = {
    {"odd", .in = {SHAPE(3, 7), SHAPE(3, 7)}, .out = {SHAPE(3, 7)}},
    {"threads", .in = {SHAPE(2, 35003), SHAPE(2, 35003)}, .out = {SHAPE(2, 35003)}},
};
const op_cases pb_case_add = {.in = {ARG_DATA, ARG_DATA}, .out = {ARG_DATA}, .alias = {1 + 0}, CASES(add)};

static const op_case concat[] = {
    {"odd", .in = {SHAPE(2, 3, 4, 5), SHAPE(2, 3, 4, 7)}, .out = {SHAPE(2, 3, 4, 12)}},
    {"threads", .in = {SHAPE(900, 33), SHAPE(900, 20)}, .out = {SHAPE(900, 53)}},
};
const op_cases pb_case_concat = {.in = {ARG_DATA, ARG_DATA}, .out = {ARG_DATA}, CASES(concat)};

static const op_case slice[] = {
    {"first", {.slice = {0, 5}}, .in = {SHAPE(2, 3, 4, 12)}, .out = {SHAPE(2, 3, 4, 5)}},
    {"last", {.slice = {5, 7}}, .in = {SHAPE(2, 3, 4, 12)}, .out = {SHAPE(2, 3, 4, 7)}},
    {"threads", {.slice = {3, 40}}, .in = {SHAPE(901, 53)}, .out = {SHAPE(901, 40)}},
};
const op_cases pb_case_slice = {.in = {ARG_DATA}, .out = {ARG_DATA}, CASES(slice)};

static const op_case cast[] = {
    {"to the same", .in = {SHAPE(3, 37)}, .out = {SHAPE(3, 37)}},
    {"to F32", {.cast = {PB_F32}}, .in = {SHAPE(3, 37)}, .out = {SHAPE(3, 37)}, .converts = true, .to = PB_F32},
    {"to F16", {.cast = {PB_F16}}, .in = {SHAPE(3, 37)}, .out = {SHAPE(3, 37)}, .converts = true, .to = PB_F16},
    {"to BF16",
     {.cast = {PB_BF16}},
     .in = {SHAPE(2, 35003)},
     .out = {SHAPE(2, 35003)},
     .converts = true,
     .to = PB_BF16},
    {"to F64", {.cast = {PB_F64}}, .in = {SHAPE(3, 37)}, .out = {SHAPE(3, 37)}, .converts = true, .to = PB_F64},
};
const op_cases pb_case_cast = {.in = {ARG_DATA}, .out = {ARG_DATA}, CASES(cast)};

static const op_case decode8[] = {
    {"odd", .in = {SHAPE(3, 37), SHAPE(1)}, .out = {SHAPE(3, 37)}},
    {"blocks", .in = {SHAPE(4, 3, 3, 27), SHAPE(4)}, .out = {SHAPE(4, 3, 3, 27)}},
    {"threads", .in = {SHAPE(2, 35003), SHAPE(274)}, .out = {SHAPE(2, 35003)}},
};
const op_cases pb_case_decode8 = {.in = {ARG_CODES, ARG_WIDE}, .out = {ARG_DATA}, CASES(decode8)};

// Ids that repeat, and some that are not there.
static void choose_ids(pb_tensor *ids, int64_t rows) {
    int32_t *id = ids->data;
    for (int64_t i = 0; i < pb_shape_count(ids->shape); i++) id[i] = (int32_t)(i * i % 7 * 3 % rows);
}

static void choose_embedding_ids(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    choose_ids(&args->in[0], args->in[1].shape.dim[0]);
}

static void choose_embedding_bwd_ids(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    choose_ids(&args->in[1], args->attr->embedding.rows);
}

#define TABLES(rows, positions) {.embedding = {rows, positions, PB_F32}}
static const op_case embedding[] = {
    {"odd", TABLES(23, 9), .in = {SHAPE(2, 6), SHAPE(23, 11), SHAPE(9, 11)}, .out = {SHAPE(2, 6, 11)},
     .prepare = choose_embedding_ids},
    {"threads", TABLES(50, 77), .in = {SHAPE(2, 77), SHAPE(50, 300), SHAPE(77, 300)}, .out = {SHAPE(2, 77, 300)},
     .prepare = choose_embedding_ids},
};
const op_cases pb_case_embedding = {.in = {ARG_IDS, ARG_DATA, ARG_DATA}, .out = {ARG_DATA}, CASES(embedding)};

static const op_case embedding_bwd[] = {
    {"odd", TABLES(23, 9), .in = {SHAPE(2, 6, 11), SHAPE(2, 6)}, .out = {SHAPE(23, 11), SHAPE(9, 11)},
     .prepare = choose_embedding_bwd_ids},
    {"to F32", TABLES(23, 9), .in = {SHAPE(3, 9, 11), SHAPE(3, 9)}, .out = {SHAPE(23, 11), SHAPE(9, 11)},
     .prepare = choose_embedding_bwd_ids, .converts = true, .to = PB_F32},
    {"threads", TABLES(50, 77), .in = {SHAPE(2, 77, 1100), SHAPE(2, 77)}, .out = {SHAPE(50, 1100), SHAPE(77, 1100)},
     .prepare = choose_embedding_bwd_ids},
};
const op_cases pb_case_embedding_bwd = {
    .in = {ARG_DATA, ARG_IDS}, .out = {ARG_DATA, ARG_DATA}, .optional_out = BIT(0) | BIT(1), .by_norm = BIT(0) | BIT(1),
    CASES(embedding_bwd)};

static void choose_timesteps(const pb_backend *reference, pb_kernel_args *args) {
    (void)reference;
    for (int64_t i = 0; i < pb_shape_count(args->in[0].shape); i++)
        pb_dtype_store(args->in[0].dtype, args->in[0].data, (size_t)i, (double)(999 - 311 * i));
}

static const op_case timestep_embedding[] = {
    {"cosines first",
     {.timestep = {320, true, 0, 10000, PB_F32}},
     .in = {SHAPE(3)},
     .out = {SHAPE(3, 320)},
     .prepare = choose_timesteps},
    {"shifted",
     {.timestep = {10, false, 1, 10000, PB_F32}},
     .in = {SHAPE(2)},
     .out = {SHAPE(2, 10)},
     .prepare = choose_timesteps},
};
const op_cases pb_case_timestep_embedding = {.in = {ARG_WIDE}, .out = {ARG_DATA}, CASES(timestep_embedding)};
