// test: links=quant,ref,base
// The reference's backward ops against central differences of its forward ops, all in double. The loss is the sum of
// the output times a fixed random cotangent: a plain sum would be blind for norms and softmax.
#include <stdlib.h>

#include "check.h"
#include "support_harness.h"

// Where an argument of a backward op comes from (inputs) or what it is the gradient of (outputs).
typedef enum source { NOTHING, COTANGENT, INPUT, OUTPUT = INPUT + PB_MAX_INPUTS } source;

typedef struct backward {
    pb_opcode forward, op;
    int in[PB_MAX_INPUTS];    // source of each input
    int out[PB_MAX_OUTPUTS];  // INPUT + i: the gradient of input i
} backward;

// A gradient that is the cotangent itself (residuals, summands) has no op.
static const backward table[] = {
    {PB_OP_LINEAR, PB_OP_LINEAR_BWD_DATA, {COTANGENT, INPUT + 1}, {INPUT + 0}},
    {PB_OP_LINEAR, PB_OP_LINEAR_BWD_WEIGHT, {COTANGENT, INPUT + 0}, {INPUT + 1, INPUT + 2}},
    {PB_OP_CONV2D, PB_OP_CONV2D_BWD_DATA, {COTANGENT, INPUT + 1}, {INPUT + 0}},
    {PB_OP_CONV2D, PB_OP_CONV2D_BWD_WEIGHT, {COTANGENT, INPUT + 0}, {INPUT + 1, INPUT + 2}},
    {PB_OP_CONV2D, PB_OP_SUM_PIXELS, {COTANGENT}, {INPUT + 3}},
    {PB_OP_GROUP_NORM,
     PB_OP_GROUP_NORM_BWD,
     {COTANGENT, INPUT + 0, INPUT + 1, INPUT + 2, OUTPUT + 1},
     {INPUT + 0, INPUT + 1, INPUT + 2}},
    {PB_OP_LAYER_NORM,
     PB_OP_LAYER_NORM_BWD,
     {COTANGENT, INPUT + 0, INPUT + 1, OUTPUT + 1},
     {INPUT + 0, INPUT + 1, INPUT + 2}},
    {PB_OP_UNARY, PB_OP_UNARY_BWD, {COTANGENT, INPUT + 0}, {INPUT + 0}},
    {PB_OP_GEGLU, PB_OP_GEGLU_BWD, {COTANGENT, INPUT + 0}, {INPUT + 0}},
    {PB_OP_ATTENTION,
     PB_OP_ATTENTION_BWD,
     {COTANGENT, INPUT + 0, INPUT + 1, INPUT + 2, OUTPUT + 0, OUTPUT + 1},
     {INPUT + 0, INPUT + 1, INPUT + 2}},
    {PB_OP_ADD, PB_OP_CAST, {COTANGENT}, {INPUT + 0}},
    {PB_OP_ADD, PB_OP_CAST, {COTANGENT}, {INPUT + 1}},
    {PB_OP_CONCAT, PB_OP_SLICE, {COTANGENT}, {INPUT + 0}},
    {PB_OP_CONCAT, PB_OP_SLICE, {COTANGENT}, {INPUT + 1}},
    {PB_OP_EMBEDDING, PB_OP_EMBEDDING_BWD, {COTANGENT, INPUT + 0}, {INPUT + 1, INPUT + 2}},
    {PB_OP_CAST, PB_OP_CAST, {COTANGENT}, {INPUT + 0}},
    // The loss's own gradient; its cotangent is the weight of each image.
    {PB_OP_MSE_LOSS, PB_OP_MSE_LOSS_BWD, {INPUT + 0, INPUT + 1, COTANGENT}, {INPUT + 0}},
};
enum { TABLE_ROWS = sizeof table / sizeof table[0] };

static double element(const pb_tensor *t, int64_t i) {
    return pb_dtype_load(t->dtype, t->data, (size_t)i);
}

static pb_tensor tensor_of(pb_dtype dtype, pb_shape shape) {
    const pb_tensor t = {calloc((size_t)pb_shape_count(shape), sizeof(double)), dtype, shape};
    if (!t.data) abort();
    return t;
}

static void run_op(pb_opcode op, pb_kernel_args *args) {
    const pb_backend *reference = pb_backend_reference();
    const pb_kernel_workspace workspace = reference->workspaces[op];
    args->workspace_bytes = workspace ? workspace(args) : 0;
    args->workspace = malloc(args->workspace_bytes + 1);
    if (!args->workspace) abort();
    reference->kernels[op](args);
    free(args->workspace);
}

static double loss_of(op_run *run, const pb_tensor *cotangent) {
    double sum = 0;
    run_op(run->op, &run->args);
    for (int64_t i = 0; i < pb_shape_count(cotangent->shape); i++)
        sum += element(&run->args.out[0], i) * element(cotangent, i);
    return sum;
}

static double difference(op_run *run, const pb_tensor *cotangent, int input, int64_t i) {
    double *x = (double *)run->args.in[input].data + i;
    const double at = *x, step = 1e-4 * (fabs(at) > 1 ? fabs(at) : 1);
    double loss[4];
    for (int k = 0; k < 4; k++) {
        *x = at + step * (const double[]){-2, -1, 1, 2}[k];
        loss[k] = loss_of(run, cotangent);
    }
    *x = at;
    return (8 * (loss[2] - loss[1]) - (loss[3] - loss[0])) / (12 * step);
}

// Compares a sample of the elements with the largest of them.
static void check_gradient(op_run *run, const pb_tensor *cotangent, const char *label, int input,
                           const pb_tensor *gradient) {
    enum { SAMPLES = 16 };
    const int64_t count = pb_shape_count(gradient->shape);
    const int64_t stride = count <= SAMPLES ? 1 : count / SAMPLES;
    double largest = 0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(element(gradient, i)));
    CHECK_THAT(largest > 0, "%s, %s: the gradient of input %d is zero", pb_op_name(run->op), label, input);
    for (int64_t i = 0; i < count; i += stride) {
        const double expected = difference(run, cotangent, input, i), got = element(gradient, i);
        CHECK_THAT(fabs(got - expected) <= 1e-6 * largest, "%s, %s: d input %d [%lld] is %.9g, not %.9g",
                   pb_op_name(run->op), label, input, (long long)i, got, expected);
    }
}

static void check_backward(op_run *run, const pb_tensor *cotangent, const char *label, const backward *b) {
    pb_attr attr = run->attr;
    pb_kernel_args args = {.attr = &attr};
    double one = 1;
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        if (b->in[i] == COTANGENT)
            args.in[i] = *cotangent;
        else if (b->in[i] >= OUTPUT)
            args.in[i] = run->args.out[b->in[i] - OUTPUT];
        else if (b->in[i] >= INPUT)
            args.in[i] = run->args.in[b->in[i] - INPUT];
    }
    if (b->op == PB_OP_MSE_LOSS_BWD) args.in[3] = (pb_tensor){&one, PB_F64, PB_SHAPE1(1)};
    if (b->op == PB_OP_SLICE) {
        const int64_t first = pb_shape_last(run->args.in[0].shape);
        attr.slice.begin = b->out[0] == INPUT ? 0 : first;
        attr.slice.length = b->out[0] == INPUT ? first : pb_shape_last(run->args.in[1].shape);
    }
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (b->out[i]) args.out[i] = tensor_of(PB_F64, run->args.in[b->out[i] - INPUT].shape);
    run_op(b->op, &args);
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        if (b->out[i]) check_gradient(run, cotangent, label, b->out[i] - INPUT, &args.out[i]);
        free(args.out[i].data);
    }
}

// Large cases are there for threads, which the reference has not.
static bool is_small(const op_case *c) {
    return pb_shape_count(c->in[0].rank ? c->in[0] : c->out[0]) <= 5000 && pb_shape_count(c->in[1]) <= 15000;
}

static void check_case(pb_opcode op, const op_case *c) {
    op_run run;
    uint64_t state = 77;
    op_run_init(&run, op, c, PB_F64, pb_backend_reference());
    pb_tensor cotangent = tensor_of(PB_F64, run.args.out[0].shape);
    for (int64_t i = 0; i < pb_shape_count(cotangent.shape); i++) ((double *)cotangent.data)[i] = op_random(&state);
    loss_of(&run, &cotangent);
    for (int i = 0; i < TABLE_ROWS; i++)
        if (table[i].forward == op) check_backward(&run, &cotangent, c->label, &table[i]);
    free(cotangent.data);
    op_run_deinit(&run);
}

int main(void) {
    const bool differentiable[PB_OP_COUNT] = {
#define NO false
#define YES true
#define PB_OP(name, NAME, gradient, kind, inplace) gradient,
#include "base/ops.def"
#undef PB_OP
    };
    for (int op = 0; op < PB_OP_COUNT; op++) {
        const int before = check_count;
        const op_cases *spec = op_cases_of((pb_opcode)op);
        for (int c = 0; c < spec->count; c++)
            if (is_small(&spec->cases[c])) check_case((pb_opcode)op, &spec->cases[c]);
        CHECK_THAT(!differentiable[op] || check_count > before, "%s: no gradient was checked",
                   pb_op_name((pb_opcode)op));
    }
    return CHECK_DONE();
}
