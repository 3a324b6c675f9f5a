// test: links=quant,cpu,ref,base timeout=300
// Every op of the CPU backend, on every instruction set of this machine, against the scalar reference on the same
// inputs: all storage dtypes, all subsets of optional inputs, each optional output absent, in place, in threads; equal
// bits in every run.
#include "base/parallel.h"
#include "check.h"
#include "base/isa.h"
#include "support_harness.h"

static void check_run(const op_setting *s, op_run *run, const char *what) {
    const char *fault = op_run_execute(run, pb_backend_cpu());
    CHECK_THAT(!fault, "%s, %s, %s, inputs without %#x, %s, instruction set %d: %s", pb_op_name(s->op), s->c->label,
               pb_dtype_name(s->dtype), s->dropped, what, pb_cpu_isa().level, fault);
}

static void check_bits(const op_setting *s, const op_run *run, const op_run *first, const char *what) {
    CHECK_THAT(op_run_same_bits(run, first), "%s, %s, %s, inputs without %#x, instruction set %d: other bits %s",
               pb_op_name(s->op), s->c->label, pb_dtype_name(s->dtype), s->dropped, pb_cpu_isa().level, what);
}

static void check_isa(const op_setting *s, const op_run *expected) {
    char why[200];
    op_run first, second, aliased;
    op_run_init_setting(&first, s);
    op_run_init_setting(&second, s);
    op_run_init_setting(&aliased, s);
    CHECK_OK(pb_backend_cpu()->supports(s->op, &first.args));
    check_run(s, &first, "first run");
    CHECK_THAT(op_run_agrees(&first, expected, why, sizeof why),
               "%s, %s, %s, inputs without %#x, instruction set %d: %s", pb_op_name(s->op), s->c->label,
               pb_dtype_name(s->dtype), s->dropped, pb_cpu_isa().level, why);
    check_run(s, &second, "second run");
    check_bits(s, &second, &first, "in a second run");
    if (op_run_alias(&aliased)) {
        check_run(s, &aliased, "in place");
        check_bits(s, &aliased, &first, "in place");
    }
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        if (!(first.spec->optional_out & BIT(i))) continue;
        op_run partial;
        op_run_init_setting(&partial, s);
        op_run_drop_output(&partial, i);
        check_run(s, &partial, "an output absent");
        check_bits(s, &partial, &first, "with an output absent");
        op_run_deinit(&partial);
    }
    op_run_deinit(&first);
    op_run_deinit(&second);
    op_run_deinit(&aliased);
}

static void check_setting(const op_setting *s) {
    op_run expected;
    op_run_init_setting(&expected, s);
    const char *fault = op_run_execute(&expected, pb_backend_reference());
    CHECK_THAT(!fault, "the reference's %s, %s: %s", pb_op_name(s->op), s->c->label, fault);
    const pb_isa best = pb_cpu_isa_best();
    for (int level = PB_ISA_SCALAR; level <= (int)best.level; level++) {
        for (int bf16 = 0; bf16 <= (best.bf16 && level == PB_ISA_AVX512); bf16++) {
            pb_cpu_isa_set((pb_isa){(pb_isa_level)level, bf16});
            check_isa(s, &expected);
        }
    }
    op_run_deinit(&expected);
}

static void check_unsupported(pb_opcode op, const op_case *c) {
    op_run run;
    op_run_init(&run, op, c, PB_F64, pb_backend_reference());
    CHECK_THAT(pb_backend_cpu()->supports(op, &run.args) == PB_ERR_UNSUPPORTED || op == PB_OP_CAST,
               "%s: double is taken for supported", pb_op_name(op));
    op_run_deinit(&run);
}

int main(void) {
    pb_threads_set(3);  // ranges that differ in length
    for (int op = 0; op < PB_OP_COUNT; op++) {
        const op_cases *spec = op_cases_of((pb_opcode)op);
        CHECK_THAT(spec->count > 0, "%s has no cases", pb_op_name((pb_opcode)op));
        check_unsupported((pb_opcode)op, &spec->cases[0]);
        op_each_setting((pb_opcode)op, check_setting);
    }
    return CHECK_DONE();
}
