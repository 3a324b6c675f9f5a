// test: links=shim,ref,base
// Every CUDA kernel of ours, run through the shim, against the scalar reference: all cases, storage dtypes and optional
// arguments; with threads and blocks forward, reversed and at random, and in other block sizes, to the same bits.
#include "check.h"
#include "ops/support_harness.h"
#include "support_shim.h"

static void check_run(const op_setting *s, op_run *run, const op_run *expected, const char *what) {
    char why[200];
    const char *fault = op_run_execute(run, shim_backend());
    CHECK_THAT(!fault, "%s, %s, %s, inputs without %#x, %s: %s", pb_op_name(s->op), s->c->label,
               pb_dtype_name(s->dtype), s->dropped, what, fault);
    CHECK_THAT(op_run_agrees(run, expected, why, sizeof why), "%s, %s, %s, inputs without %#x, %s: %s",
               pb_op_name(s->op), s->c->label, pb_dtype_name(s->dtype), s->dropped, what, why);
}

static void check_bits(const op_setting *s, const op_run *run, const op_run *first, const char *what) {
    CHECK_THAT(op_run_same_bits(run, first), "%s, %s, %s, inputs without %#x: other bits %s", pb_op_name(s->op),
               s->c->label, pb_dtype_name(s->dtype), s->dropped, what);
}

// Where misaligned memory and lengths that are no multiple of a vector need other code, the cases' odd lengths run it.
static void check_setting(const op_setting *s) {
    pb_cuda_threads = 256;
    op_run expected, first, other, aliased;
    op_run_init_setting(&expected, s);
    op_run_init_setting(&first, s);
    op_run_init_setting(&other, s);
    op_run_init_setting(&aliased, s);
    const char *fault = op_run_execute(&expected, pb_backend_reference());
    CHECK_THAT(!fault, "the reference's %s, %s: %s", pb_op_name(s->op), s->c->label, fault);
    shim_set_order(SHIM_FORWARD, 0);
    check_run(s, &first, &expected, "forward");
    shim_set_order(SHIM_REVERSED, 0);
    check_run(s, &other, &expected, "reversed");
    check_bits(s, &other, &first, "in reversed order");
    shim_set_order(SHIM_RANDOM, 1);
    check_run(s, &other, &expected, "at random");
    check_bits(s, &other, &first, "in random order");
    if (op_run_alias(&aliased)) {
        check_run(s, &aliased, &expected, "in place");
        check_bits(s, &aliased, &first, "in place");
    }
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        if (!(first.spec->optional_out & BIT(i))) continue;
        op_run partial;
        op_run_init_setting(&partial, s);
        op_run_drop_output(&partial, i);
        check_run(s, &partial, &expected, "an output absent");
        check_bits(s, &partial, &first, "with an output absent");
        op_run_deinit(&partial);
    }
    for (pb_cuda_threads = 64; pb_cuda_threads <= 128; pb_cuda_threads *= 2)
        check_run(s, &other, &expected, pb_cuda_threads == 64 ? "64 threads" : "128 threads");
    op_run_deinit(&expected);
    op_run_deinit(&first);
    op_run_deinit(&other);
    op_run_deinit(&aliased);
}

int main(void) {
    int ops = 0;
    for (int op = 0; op < PB_OP_COUNT; op++) {
        if (!shim_has((pb_opcode)op)) continue;
        ops++;
        op_each_setting((pb_opcode)op, check_setting);
    }
    printf("%d ops, %llu threads\n", ops, (unsigned long long)shim_threads_run());
    return CHECK_DONE();
}
