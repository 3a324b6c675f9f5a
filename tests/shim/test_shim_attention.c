// test: links=shim,ref,base
// Attention and its gradient for the head sizes of SD 1, SD 2, SDXL, their text encoders and the VAE, with fewer, as
// many and more tokens than a tile, against the scalar reference.
#include "check.h"
#include "ops/support_harness.h"
#include "support_shim.h"

typedef struct geometry {
    int width, heads, queries, keys;
    bool causal;
} geometry;

static const geometry geometries[] = {
    {40, 2, 70, 77, false},  {64, 2, 77, 77, true},    {80, 2, 16, 77, false},   {96, 1, 65, 65, true},
    {128, 1, 33, 64, false}, {160, 1, 64, 130, false}, {160, 2, 100, 77, false}, {152, 1, 70, 70, true},
    {512, 1, 36, 36, false}, {40, 1, 200, 150, false}, {40, 1, 140, 140, true},  {24, 1, 70, 130, false},
    {48, 1, 30, 70, false},  {40, 2, 600, 77, false},  {64, 1, 900, 20, false},  {160, 1, 530, 20, false},
};

static void check(const geometry *g, pb_opcode op, const op_case *c, pb_dtype dtype, bool units) {
    char why[200];
    const uint64_t before = shim_matrix_products();
    const int most = 160;
    shim_set_matrix_units(units);
    op_run run, expected;
    op_run_init(&run, op, c, dtype, pb_backend_reference());
    op_run_init(&expected, op, c, dtype, pb_backend_reference());
    CHECK(!op_run_execute(&expected, pb_backend_reference()));
    shim_set_order(SHIM_RANDOM, (uint64_t)g->width);
    const char *fault = op_run_execute(&run, shim_backend());
    CHECK_THAT(!fault, "%s, heads of %d, %s: %s", pb_op_name(op), g->width, pb_dtype_name(dtype), fault);
    CHECK_THAT(op_run_agrees(&run, &expected, why, sizeof why), "%s, heads of %d, %s: %s", pb_op_name(op), g->width,
               pb_dtype_name(dtype), why);
    CHECK((shim_matrix_products() > before) == (units && dtype != PB_F32 && g->width <= most));
    op_run_deinit(&run);
    op_run_deinit(&expected);
}

int main(void) {
    const pb_dtype dtypes[] = {PB_F16, PB_BF16, PB_F32};
    for (size_t i = 0; i < sizeof geometries / sizeof geometries[0]; i++) {
        const geometry *g = &geometries[i];
        const pb_shape q = PB_SHAPE3(1, g->queries, g->heads * g->width),
                       k = PB_SHAPE3(1, g->keys, g->heads * g->width);
        const pb_shape lse = PB_SHAPE3(1, g->heads, g->queries);
        const pb_attr attr = {.attention = {g->heads, g->causal, 1 / sqrtf((float)g->width)}};
        const op_case forward = {"", attr, .in = {q, k, k}, .out = {q, lse}};
        const op_case backward = {"", attr, .in = {q, q, k, k, q, lse}, .out = {q, k, k},
                                  .prepare = op_prepare_attention_bwd};
        for (int d = 0; d < 5; d++) {
            check(g, PB_OP_ATTENTION, &forward, dtypes[d % 3], d < 3);
            check(g, PB_OP_ATTENTION_BWD, &backward, dtypes[d % 3], d < 3);
        }
    }
    return CHECK_DONE();
}
