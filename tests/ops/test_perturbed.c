// test: links=quant,cpu,ref,base
// The comparison of test_cpu_against_reference must be able to fail: for every op, results of the CPU backend that are
// slightly wrong, as a faulty kernel would leave them, are refused.
#include "check.h"
#include "support_harness.h"

static void run_init(op_run *run, pb_opcode op, const op_case *c) {
    op_run_init(run, op, c, PB_F32, pb_backend_reference());
}

static bool passes(op_run *run, const op_run *expected) {
    char why[200];
    return !op_run_execute(run, pb_backend_cpu()) && op_run_agrees(run, expected, why, sizeof why);
}

// A way to be wrong, applied to output `i` of a run; false where it would change nothing.
typedef bool (*perturbation)(pb_tensor *t);

static double load(const pb_tensor *t, int64_t i) {
    return pb_dtype_load(t->dtype, t->data, (size_t)i);
}

static int64_t largest(const pb_tensor *t) {
    int64_t best = 0;
    for (int64_t i = 1; i < pb_shape_count(t->shape); i++)
        if (fabs(load(t, i)) > fabs(load(t, best))) best = i;
    return best;
}

// Below the resolution of 16 bits.
static bool scale_all(pb_tensor *t) {
    const double most = load(t, largest(t));
    for (int64_t i = 0; i < pb_shape_count(t->shape); i++)
        pb_dtype_store(t->dtype, t->data, (size_t)i, 1.001 * load(t, i));
    return most != 0 && isfinite(most) && pb_dtype_size(t->dtype) > 2;
}

static bool change_one(pb_tensor *t) {
    const int64_t i = largest(t);
    const double value = load(t, i);
    pb_dtype_store(t->dtype, t->data, (size_t)i, isfinite(value) ? 1.05 * value + 0.001 : 0);
    return true;
}

static bool leave_one(pb_tensor *t) {
    const int64_t i = pb_shape_count(t->shape) - 1;
    const bool was_nan = isnan(load(t, i));
    pb_dtype_store(t->dtype, t->data, (size_t)i, NAN);
    return !was_nan;
}

static bool swap_two(pb_tensor *t) {
    const int64_t i = largest(t), k = i ? i - 1 : pb_shape_count(t->shape) - 1;
    const double a = load(t, i), b = load(t, k);
    pb_dtype_store(t->dtype, t->data, (size_t)i, b);
    pb_dtype_store(t->dtype, t->data, (size_t)k, a);
    return fabs(a - b) > 1e-3 * fabs(a);
}

static const struct {
    const char *what;
    perturbation apply;
} wrongs[] = {{"scaled by 1.001", scale_all},
              {"one element off", change_one},
              {"one element not written", leave_one},
              {"two elements swapped", swap_two}};
enum { WRONGS = sizeof wrongs / sizeof wrongs[0] };

// Returns how many faults were tried.
static int check_outputs(pb_opcode op, const op_case *c, const op_run *expected) {
    int tried = 0;
    char why[200];
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        for (int w = 0; w < WRONGS && c->out[i].rank; w++) {
            op_run run;
            run_init(&run, op, c);
            CHECK_THAT(passes(&run, expected), "%s, %s: the right result is refused", pb_op_name(op), c->label);
            if (wrongs[w].apply(&run.args.out[i])) {
                CHECK_THAT(!op_run_agrees(&run, expected, why, sizeof why), "%s, %s: output %d %s passes",
                           pb_op_name(op), c->label, i, wrongs[w].what);
                tried++;
            }
            op_run_deinit(&run);
        }
    }
    return tried;
}

// A kernel that does not look at an input. Returns a bit per input whose absence was noticed: some cases do not depend
// on an input (the beta of a norm without SiLU), but some case of the op does.
static unsigned noticed_inputs(pb_opcode op, const op_case *c, const op_run *expected) {
    unsigned noticed = 0;
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        if (!c->in[i].rank) continue;
        op_run run;
        run_init(&run, op, c);
        memset(run.args.in[i].data, 0, op_tensor_bytes(&run.args.in[i]));
        if (!passes(&run, expected)) noticed |= BIT(i);
        op_run_deinit(&run);
    }
    return noticed;
}

// Attributes that a kernel might mistake.
static bool mistake_attr(pb_opcode op, pb_attr *attr, int way) {
    switch (op) {
    case PB_OP_GROUP_NORM:
        if (way == 0)
            attr->norm.eps *= 10;
        else
            attr->norm.silu = !attr->norm.silu;
        return way < 2;
    case PB_OP_LAYER_NORM: attr->norm.eps *= 10; return way < 1;
    case PB_OP_GROUP_NORM_BWD: attr->norm.silu = !attr->norm.silu; return way < 1;
    case PB_OP_ATTENTION:
    case PB_OP_ATTENTION_BWD:
        if (way == 0)
            attr->attention.scale *= 1.001f;
        else
            attr->attention.causal = !attr->attention.causal;
        return way < 1 || (way < 2 && attr->attention.causal == false);  // masking is for as many keys as queries
    case PB_OP_UNARY:
    case PB_OP_UNARY_BWD: attr->unary.kind = (pb_unary_kind)((attr->unary.kind + 1) % 3); return way < 1;
    case PB_OP_SLICE: attr->slice.begin += attr->slice.begin ? -1 : 1; return way < 1;
    case PB_OP_TIMESTEP_EMBEDDING:
        if (way == 0)
            attr->timestep.flip_sin_to_cos = !attr->timestep.flip_sin_to_cos;
        else if (way == 1)
            attr->timestep.freq_shift = 1 - attr->timestep.freq_shift;
        else
            attr->timestep.max_period *= 1.001f;
        return way < 3;
    default: return false;
    }
}

static int check_attr(pb_opcode op, const op_case *c, const op_run *expected) {
    int tried = 0;
    for (int way = 0;; way++) {
        op_run run;
        run_init(&run, op, c);
        const bool any = mistake_attr(op, &run.attr, way);
        if (any) {
            run.args.attr = &run.attr;
            CHECK_THAT(!passes(&run, expected), "%s, %s: attribute mistaken in way %d passes", pb_op_name(op), c->label,
                       way);
            tried++;
        }
        op_run_deinit(&run);
        if (!any) return tried;
    }
}

static bool has_attr(pb_opcode op) {
    pb_attr attr = {.norm = {1, 1, false}};
    return mistake_attr(op, &attr, 0);
}

int main(void) {
    for (int o = 0; o < PB_OP_COUNT; o++) {
        const pb_opcode op = (pb_opcode)o;
        const op_cases *spec = op_cases_of(op);
        int outputs = 0, attributes = 0;
        unsigned noticed = 0, present = 0;
        for (int c = 0; c < spec->count; c++) {
            op_run expected;
            run_init(&expected, op, &spec->cases[c]);
            CHECK(!op_run_execute(&expected, pb_backend_reference()));
            outputs += check_outputs(op, &spec->cases[c], &expected);
            noticed |= noticed_inputs(op, &spec->cases[c], &expected);
            attributes += check_attr(op, &spec->cases[c], &expected);
            for (int i = 0; i < PB_MAX_INPUTS; i++)
                if (spec->cases[c].in[i].rank) present |= BIT(i);
            op_run_deinit(&expected);
        }
        CHECK_THAT(outputs > 0, "%s: no wrong output was tried", pb_op_name(op));
        CHECK_THAT(noticed == present, "%s: inputs %#x may be ignored", pb_op_name(op), present & ~noticed);
        CHECK_THAT(attributes > 0 || !has_attr(op), "%s: no wrong attribute was tried", pb_op_name(op));
    }
    return CHECK_DONE();
}
