// test: links=shim,ref,base timeout=300
// Attention and its gradient for the head sizes of SD 1, SD 2, SDXL, their text encoders and the VAE, with fewer, as
// many and more tokens than a tile, against the scalar reference.
#include <stdlib.h>

#include "check.h"
#include "ops/support_harness.h"
#include "support_shim.h"

typedef struct geometry {
    int width, heads, queries, keys;
    bool causal;
} geometry;

static const geometry geometries[] = {
    {40, 2, 70, 77, false},  {64, 2, 77, 77, true},    {80, 2, 16, 77, false},  {96, 1, 65, 65, true},
    {128, 1, 33, 64, false}, {160, 1, 64, 130, false}, {512, 1, 36, 36, false},
};

static void run_forward(const pb_backend *reference, pb_kernel_args *args) {
    pb_kernel_args forward = {
        .attr = args->attr, .in = {args->in[1], args->in[2], args->in[3]}, .out = {args->in[4], args->in[5]}};
    forward.workspace = malloc(reference->workspaces[PB_OP_ATTENTION](&forward));
    if (!forward.workspace) abort();
    reference->kernels[PB_OP_ATTENTION](&forward);
    free(forward.workspace);
}

static void check(const geometry *g, pb_opcode op, const op_case *c, pb_dtype dtype) {
    char why[200];
    op_run run, expected;
    op_run_init(&run, op, c, dtype, pb_backend_reference());
    op_run_init(&expected, op, c, dtype, pb_backend_reference());
    CHECK(!op_run_execute(&expected, pb_backend_reference()));
    shim_set_order(SHIM_RANDOM, (uint64_t)g->width);
    const char *fault = op_run_execute(&run, shim_backend());
    CHECK_THAT(!fault, "%s, heads of %d, %s: %s", pb_op_name(op), g->width, pb_dtype_name(dtype), fault);
    CHECK_THAT(op_run_agrees(&run, &expected, why, sizeof why), "%s, heads of %d, %s: %s", pb_op_name(op), g->width,
               pb_dtype_name(dtype), why);
    op_run_deinit(&run);
    op_run_deinit(&expected);
}

int main(void) {
    const pb_dtype dtypes[] = {PB_F32, PB_F16, PB_BF16};
    for (size_t i = 0; i < sizeof geometries / sizeof geometries[0]; i++) {
        const geometry *g = &geometries[i];
        const pb_shape q = PB_SHAPE3(1, g->queries, g->heads * g->width),
                       k = PB_SHAPE3(1, g->keys, g->heads * g->width);
        const pb_shape lse = PB_SHAPE3(1, g->heads, g->queries);
        const pb_attr attr = {.attention = {g->heads, g->causal, 1 / sqrtf((float)g->width)}};
        const op_case forward = {"", attr, .in = {q, k, k}, .out = {q, lse}};
        const op_case backward = {"", attr, .in = {q, q, k, k, q, lse}, .out = {q, k, k}, .prepare = run_forward};
        for (int d = 0; d < 3; d++) {
            check(g, PB_OP_ATTENTION, &forward, dtypes[d]);
            check(g, PB_OP_ATTENTION_BWD, &backward, dtypes[d]);
        }
    }
    return CHECK_DONE();
}
