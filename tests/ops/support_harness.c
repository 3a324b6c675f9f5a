#include "support_harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SENTINEL = 64, SENTINEL_BYTE = 0xA5 };

const op_cases *op_cases_of(pb_opcode op) {
    static const op_cases *const table[PB_OP_COUNT] = {
#define PB_OP(name, NAME, gradient, kind, inplace) &pb_case_##name,
#include "base/ops.def"
#undef PB_OP
    };
    return table[op];
}

double op_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int32_t)(*state >> 32) / 2147483648.0;
}

static void *allocate(size_t bytes) {
    unsigned char *block = aligned_alloc(SENTINEL, (bytes + 3 * SENTINEL - 1) / SENTINEL * SENTINEL);
    if (!block) abort();
    memset(block, SENTINEL_BYTE, bytes + 2 * SENTINEL);
    memset(block + SENTINEL, 0xff, bytes);  // NaN in every floating dtype
    return block + SENTINEL;
}

static void release(void *data) {
    if (data) free((unsigned char *)data - SENTINEL);
}

static bool sentinels_stand(const void *data, size_t bytes) {
    const unsigned char *p = data;
    for (size_t i = 0; i < SENTINEL; i++)
        if (p[i - SENTINEL] != SENTINEL_BYTE || p[bytes + i] != SENTINEL_BYTE) return false;
    return true;
}

size_t op_tensor_bytes(const pb_tensor *t) {
    return (size_t)pb_shape_count(t->shape) * pb_dtype_size(t->dtype);
}

static pb_dtype dtype_of(arg_role role, pb_dtype storage) {
    switch (role) {
    case ARG_WIDE: return storage == PB_F64 ? PB_F64 : PB_F32;
    case ARG_IDS: return PB_I32;
    case ARG_F64: return PB_F64;
    case ARG_CODES: return PB_U8;
    default: return storage;
    }
}

static pb_tensor make(pb_shape shape, arg_role role, pb_dtype storage) {
    pb_tensor t = {NULL, dtype_of(role, storage), shape};
    if (shape.rank) t.data = allocate(op_tensor_bytes(&t));
    return t;
}

void op_run_init(op_run *run, pb_opcode op, const op_case *c, pb_dtype dtype, const pb_backend *reference) {
    *run = (op_run){.op = op, .spec = op_cases_of(op), .dtype = dtype, .attr = c->attr};
    run->args.attr = &run->attr;
    uint64_t state = (uint64_t)op + 1;
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        pb_tensor *t = &run->args.in[i];
        *t = make(c->in[i], run->spec->in[i], dtype);
        for (int64_t k = 0; t->data && k < pb_shape_count(t->shape); k++)
            pb_dtype_store(t->dtype, t->data, (size_t)k,
                           run->spec->in[i] == ARG_CODES ? 127.5 * (1 + op_random(&state)) : 2 * op_random(&state));
    }
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        const bool converts = c->converts && run->spec->out[i] == ARG_DATA && dtype != PB_F64;
        run->args.out[i] = make(c->out[i], run->spec->out[i], converts ? c->to : dtype);
    }
    if (c->prepare) c->prepare(reference, &run->args);
}

static void drop(pb_tensor *t) {
    release(t->data);
    *t = (pb_tensor){0};
}

void op_run_drop_input(op_run *run, int i) {
    drop(&run->args.in[i]);
}

void op_run_drop_output(op_run *run, int i) {
    drop(&run->args.out[i]);
}

static bool is_aliased(const op_run *run, const pb_tensor *t) {
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (t->data && t->data == run->args.out[i].data) return true;
    return false;
}

void op_run_deinit(op_run *run) {
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (!is_aliased(run, &run->args.in[i])) release(run->args.in[i].data);
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) release(run->args.out[i].data);
}

bool op_run_alias(op_run *run) {
    bool any = false;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        const int from = run->spec->alias[i] - 1;
        pb_tensor *out = &run->args.out[i];
        if (from < 0 || !out->data || !run->args.in[from].data || run->args.in[from].dtype != out->dtype) continue;
        release(out->data);
        out->data = run->args.in[from].data;
        any = true;
    }
    return any;
}

const char *op_run_execute(op_run *run, const pb_backend *backend) {
    pb_kernel_args *args = &run->args;
    const char *fault = NULL;
    void *before[PB_MAX_INPUTS] = {0};
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        pb_tensor *out = &args->out[i];
        bool aliased = false;
        for (int k = 0; k < PB_MAX_INPUTS; k++) aliased = aliased || (out->data && out->data == args->in[k].data);
        if (out->data && !aliased) memset(out->data, 0xff, op_tensor_bytes(out));
    }
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        const pb_tensor *in = &args->in[i];
        if (!in->data || is_aliased(run, in)) continue;
        before[i] = malloc(op_tensor_bytes(in));
        if (!before[i]) abort();
        memcpy(before[i], in->data, op_tensor_bytes(in));
    }
    const pb_kernel_workspace workspace = backend->workspaces[run->op];
    args->workspace_bytes = workspace ? workspace(args) : 0;
    args->workspace = allocate(args->workspace_bytes);
    backend->kernels[run->op](args);
    if (!sentinels_stand(args->workspace, args->workspace_bytes)) fault = "it wrote outside of its scratch";
    release(args->workspace);
    args->workspace = NULL;
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        const pb_tensor *in = &args->in[i];
        if (before[i] && memcmp(before[i], in->data, op_tensor_bytes(in))) fault = "it changed an input";
        free(before[i]);
    }
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (args->out[i].data && !sentinels_stand(args->out[i].data, op_tensor_bytes(&args->out[i])))
            fault = "it wrote outside of an output";
    return fault;
}

typedef struct tolerance {
    double absolute, relative, square;  // square: of the normalised mean square error
} tolerance;

static tolerance tolerance_of(pb_dtype dtype) {
    switch (dtype) {
    case PB_F16: return (tolerance){1e-5, 1e-3, 1e-6};
    case PB_BF16: return (tolerance){1e-5, 1e-2, 3e-5};
    default: return (tolerance){1e-6, 5e-6, 1e-11};
    }
}

// The rounding between a result and the addition of a fused addend is relative to the result before it.
static double addend_at(const op_run *run, int output, int64_t k) {
    double sum = 0;
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        const pb_tensor *t = &run->args.in[i];
        const bool fused = (run->spec->optional_in & BIT(i)) && t->data;
        if (fused && output == 0 && pb_shape_equal(t->shape, run->args.out[0].shape))
            sum += fabs(pb_dtype_load(t->dtype, t->data, (size_t)k));
    }
    return sum;
}

bool op_run_agrees(const op_run *got, const op_run *expected, char *why, size_t why_bytes) {
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        const pb_tensor *a = &got->args.out[i], *b = &expected->args.out[i];
        if (!a->data || !b->data) continue;
        // What is computed from 16-bit inputs and stored in fp32 has the inputs' tolerance where it is a long sum.
        const bool by_norm = got->spec->by_norm & BIT(i);
        tolerance limit = tolerance_of(by_norm ? got->dtype : b->dtype);
        if (pb_dtype_size(b->dtype) == 2) limit.relative *= 1 + got->spec->inner_roundings;
        double error = 0, size = 0;
        for (int64_t k = 0; k < pb_shape_count(b->shape); k++) {
            const double x = pb_dtype_load(a->dtype, a->data, (size_t)k);
            const double y = pb_dtype_load(b->dtype, b->data, (size_t)k);
            const double off = fabs(x - y), scale = fabs(y) + addend_at(expected, i, k);
            error += off * off;
            size += y * y;
            const bool equal = x == y || (isnan(x) && isnan(y));
            const bool near = isfinite(y) && off <= limit.absolute + limit.relative * scale;
            if (by_norm ? isfinite(x) : equal || near) continue;
            snprintf(why, why_bytes, "output %d, element %lld: %.9g instead of %.9g", i, (long long)k, x, y);
            return false;
        }
        if (by_norm && !(error <= limit.square * size)) {
            snprintf(why, why_bytes, "output %d: mean square error %.3g of the mean square", i, error / size);
            return false;
        }
    }
    return true;
}

bool op_run_same_bits(const op_run *a, const op_run *b) {
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        const pb_tensor *x = &a->args.out[i], *y = &b->args.out[i];
        if (x->data && y->data && memcmp(x->data, y->data, op_tensor_bytes(y))) return false;
    }
    return true;
}

void op_run_init_setting(op_run *run, const op_setting *s) {
    op_run_init(run, s->op, s->c, s->dtype, pb_backend_reference());
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (s->dropped & BIT(i)) op_run_drop_input(run, i);
}

void op_each_setting(pb_opcode op, void (*check)(const op_setting *setting)) {
    static const pb_dtype dtypes[] = {PB_F32, PB_F16, PB_BF16};
    const op_cases *spec = op_cases_of(op);
    for (int c = 0; c < spec->count; c++)
        for (int d = 0; d < 3; d++)
            for (unsigned dropped = 0; dropped < BIT(PB_MAX_INPUTS); dropped++)
                if ((dropped & ~spec->optional_in) == 0) check(&(op_setting){op, &spec->cases[c], dtypes[d], dropped});
}
