// test: links=shim_watched,ref,base
// What accesses to memory cost, place by place, in the kernels where that matters, counted by the watched shim: passes
// over the banks of shared memory and sectors of device memory, printed where there are more than need be. Attention on
// matrix units and the norms must read and write shared memory without a conflict in their loops.
//   test_shim_accesses all     prints every place
#include <string.h>

#include "check.h"
#include "ops/support_harness.h"
#include "support_shim.h"

static bool prints_all;

// `most`: passes over banks per pass that is needed, in hundredths, that any place may take.
static void count(const char *what, pb_opcode op, const op_case *c, pb_dtype dtype, uint64_t most) {
    const shim_accesses *list;
    op_run run;
    op_run_init(&run, op, c, dtype, pb_backend_reference());
    shim_count_accesses(true);
    const char *fault = op_run_execute(&run, shim_backend());
    CHECK_THAT(!fault, "%s: %s", what, fault);
    const int places = shim_counted(&list);
    CHECK_THAT(places > 0, "%s: nothing was counted", what);
    uint64_t touched = 0, used = 0, passes = 0, needed = 0;
    for (int i = 0; i < places; i++) {
        const shim_accesses *a = &list[i];
        *(a->is_shared ? &passes : &touched) += a->pieces;
        *(a->is_shared ? &needed : &used) += a->least;
        if (prints_all || a->pieces > a->least)
            printf("  %-28s %s, %2d bytes: %8llu accesses, %8llu %s, %8llu needed\n", a->place,
                   a->is_shared ? "shared" : "device", a->bytes, (unsigned long long)a->accesses,
                   (unsigned long long)a->pieces, a->is_shared ? "passes" : "sectors", (unsigned long long)a->least);
        if (a->is_shared)
            CHECK_THAT(a->pieces * 100 <= a->least * most, "%s: %llu passes instead of %llu at %s", what,
                       (unsigned long long)a->pieces, (unsigned long long)a->least, a->place);
    }
    printf("%s, %s: %llu sectors of device memory for %llu, %llu passes over shared memory for %llu\n", what,
           pb_dtype_name(dtype), (unsigned long long)touched, (unsigned long long)used, (unsigned long long)passes,
           (unsigned long long)needed);
    shim_count_accesses(false);
    op_run_deinit(&run);
}

static void count_attention(int width, int queries, int keys) {
    const pb_shape q = PB_SHAPE3(1, queries, 2 * width), k = PB_SHAPE3(1, keys, 2 * width);
    const pb_shape lse = PB_SHAPE3(1, 2, queries);
    const pb_attr attr = {.attention = {2, false, 1 / sqrtf((float)width)}};
    const op_case forward = {"", attr, .in = {q, k, k}, .out = {q, lse}};
    const op_case backward = {"", attr, .in = {q, q, k, k, q, lse}, .out = {q, k, k},
                              .prepare = op_prepare_attention_bwd};
    char what[100];
    snprintf(what, sizeof what, "attention, heads of %d, %d queries, %d keys", width, queries, keys);
    count(what, PB_OP_ATTENTION, &forward, PB_F16, 100);
    snprintf(what, sizeof what, "its gradient");
    count(what, PB_OP_ATTENTION_BWD, &backward, PB_F16, 100);
}

static void count_norms(int channels, int pixels) {
    const pb_shape x = PB_SHAPE3(1, pixels, channels), parameter = PB_SHAPE1(channels);
    const pb_shape stats = PB_SHAPE3(1, 32, 2), of_rows = PB_SHAPE3(1, pixels, 2);
    const pb_attr attr = {.norm = {1e-5f, 32, true}};
    const op_case group = {"", attr, .in = {x, parameter, parameter}, .out = {x, stats}};
    const op_case group_bwd = {"", attr, .in = {x, x, parameter, parameter, stats}, .out = {x, parameter, parameter}};
    const op_case layer = {"", attr, .in = {x, parameter, parameter}, .out = {x, of_rows}};
    const op_case layer_bwd = {"", attr, .in = {x, x, parameter, of_rows}, .out = {x, parameter, parameter}};
    const op_case pixels_sum = {"", attr, .in = {x}, .out = {PB_SHAPE2(1, channels)}};
    // A block's sums are put together once, at its end, by eighths of what its rows cost.
    count("group_norm", PB_OP_GROUP_NORM, &group, PB_F16, 800);
    count("group_norm_bwd", PB_OP_GROUP_NORM_BWD, &group_bwd, PB_F16, 800);
    count("layer_norm", PB_OP_LAYER_NORM, &layer, PB_F16, 800);
    count("layer_norm_bwd", PB_OP_LAYER_NORM_BWD, &layer_bwd, PB_F16, 800);
    count("sum_pixels", PB_OP_SUM_PIXELS, &pixels_sum, PB_F16, 800);
}

int main(int argc, char **argv) {
    prints_all = argc > 1 && strcmp(argv[1], "all") == 0;
    shim_set_order(SHIM_FORWARD, 0);
    count_attention(40, 128, 128);
    count_attention(64, 128, 77);
    count_attention(80, 64, 64);
    count_attention(160, 64, 64);
    count_norms(320, 256);
    count_norms(1280, 64);
    return CHECK_DONE();
}
