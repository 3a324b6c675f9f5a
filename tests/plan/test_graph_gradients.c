// test: links=exec,ref,plan,graph,base timeout=300
// The graph's gradient rules, op by op: the backward graph's gradients against central differences of the forward
// graph, all in double on the reference backend. The loss is sum(output x cotangent) with a fixed random cotangent.
#include <stdlib.h>

#include "check.h"
#include "plan/support_graphs.h"

enum { MOST_WANTED = 8, PROBES = 12 };

typedef struct gradient_case {
    pb_graph *g;
    pb_vid wanted[MOST_WANTED];
    int wanted_count;
    pb_vid output, cotangent, grads[MOST_WANTED];
} gradient_case;

static pb_vid add(gradient_case *c, pb_shape shape) {
    const pb_vid v = pb_graph_add_value(c->g, PB_CLASS_WEIGHT, PB_F64, shape, true, "w%d", c->wanted_count);
    return c->wanted[c->wanted_count++] = v;
}

// --- The cases: each builds a forward graph and returns its output. ---

static pb_vid case_linear(gradient_case *c) {
    const pb_vid x = add(c, PB_SHAPE3(2, 3, 4)), w = add(c, PB_SHAPE2(5, 4)), b = add(c, PB_SHAPE1(5));
    return pb_linear(c->g, x, w, b, add(c, PB_SHAPE3(2, 3, 5)));
}

static pb_vid conv(gradient_case *c, pb_attr attr, int64_t h, int64_t w, int64_t out_h, int64_t out_w) {
    const pb_vid x = add(c, PB_SHAPE4(2, h, w, 3)), k = add(c, PB_SHAPE4(4, 3, 3, 3)), b = add(c, PB_SHAPE1(4));
    const pb_vid rowbias = add(c, PB_SHAPE2(2, 4));
    return pb_conv2d(c->g, x, k, b, rowbias, add(c, PB_SHAPE4(2, out_h, out_w, 4)), attr);
}

static pb_vid case_conv(gradient_case *c) {
    const pb_attr attr = {.conv = {.stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1}};
    return conv(c, attr, 4, 5, 4, 5);
}

static pb_vid case_conv_stride(gradient_case *c) {
    const pb_attr attr = {.conv = {.stride = 2, .pad_bottom = 1, .pad_right = 1}};
    return conv(c, attr, 6, 5, 3, 2);
}

static pb_vid case_conv_resized(gradient_case *c) {
    const pb_attr attr = {
        .conv = {.stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1, .up_h = 5, .up_w = 6}};
    return conv(c, attr, 3, 3, 5, 6);
}

static pb_vid group_norm(gradient_case *c, bool silu) {
    const pb_vid x = add(c, PB_SHAPE4(2, 3, 2, 8)), gamma = add(c, PB_SHAPE1(8));
    return pb_group_norm(c->g, x, gamma, add(c, PB_SHAPE1(8)), 2, 1e-5f, silu);
}
static pb_vid case_group_norm(gradient_case *c) {
    return group_norm(c, false);
}
static pb_vid case_group_norm_silu(gradient_case *c) {
    return group_norm(c, true);
}

static pb_vid case_layer_norm(gradient_case *c) {
    const pb_vid x = add(c, PB_SHAPE3(2, 3, 7)), gamma = add(c, PB_SHAPE1(7));
    return pb_layer_norm(c->g, x, gamma, add(c, PB_SHAPE1(7)), 1e-5f);
}

static pb_vid case_silu(gradient_case *c) {
    return pb_unary(c->g, add(c, PB_SHAPE2(3, 5)), PB_UNARY_SILU);
}
static pb_vid case_gelu(gradient_case *c) {
    return pb_unary(c->g, add(c, PB_SHAPE2(3, 5)), PB_UNARY_GELU);
}
static pb_vid case_quick_gelu(gradient_case *c) {
    return pb_unary(c->g, add(c, PB_SHAPE2(3, 5)), PB_UNARY_QUICK_GELU);
}
static pb_vid case_geglu(gradient_case *c) {
    return pb_geglu(c->g, add(c, PB_SHAPE2(3, 10)));
}

static pb_vid case_cross_attention(gradient_case *c) {
    const pb_vid q = add(c, PB_SHAPE4(2, 2, 3, 8)), k = add(c, PB_SHAPE3(2, 4, 8));
    return pb_attention(c->g, q, k, add(c, PB_SHAPE3(2, 4, 8)), 2, false, 0.5f);
}

static pb_vid case_causal_attention(gradient_case *c) {
    const pb_vid q = add(c, PB_SHAPE3(2, 5, 6)), k = add(c, PB_SHAPE3(2, 5, 6));
    return pb_attention(c->g, q, k, add(c, PB_SHAPE3(2, 5, 6)), 3, true, 0.7f);
}

static pb_vid case_self_attention(gradient_case *c) {
    const pb_vid x = add(c, PB_SHAPE3(2, 4, 6));
    return pb_attention(c->g, x, x, x, 2, false, 0.5f);
}

static pb_vid case_sums(gradient_case *c) {
    const pb_vid a = add(c, PB_SHAPE2(3, 4)), b = add(c, PB_SHAPE2(3, 4));
    const pb_vid twice = pb_add(c->g, a, a);
    return pb_add(c->g, pb_unary(c->g, twice, PB_UNARY_SILU), pb_add(c->g, twice, b));
}

static pb_vid case_concat(gradient_case *c) {
    const pb_vid a = add(c, PB_SHAPE3(2, 3, 4)), b = add(c, PB_SHAPE3(2, 3, 2));
    return pb_unary(c->g, pb_concat(c->g, pb_concat(c->g, a, b), a), PB_UNARY_SILU);
}

static pb_vid case_embedding(gradient_case *c) {
    const pb_vid ids = pb_graph_add_value(c->g, PB_CLASS_INPUT, PB_I32, PB_SHAPE2(2, 3), true, "ids");
    const pb_vid table = add(c, PB_SHAPE2(4, 5));
    return pb_unary(c->g, pb_embedding(c->g, ids, table, add(c, PB_SHAPE2(6, 5))), PB_UNARY_SILU);
}

static pb_vid case_cast(gradient_case *c) {
    return pb_cast(c->g, add(c, PB_SHAPE2(2, 3)), PB_F64);
}

// Norms, a residual and two uses of each value, as in a transformer block: gradients arrive as addends.
static pb_vid case_block(gradient_case *c) {
    pb_graph *g = c->g;
    const pb_vid x = add(c, PB_SHAPE3(2, 3, 6)), gamma = add(c, PB_SHAPE1(6)), beta = add(c, PB_SHAPE1(6));
    const pb_vid n = pb_layer_norm(g, x, gamma, beta, 1e-5f);
    const pb_vid q = pb_linear(g, n, add(c, PB_SHAPE2(6, 6)), PB_NONE, PB_NONE);
    const pb_vid k = pb_linear(g, n, add(c, PB_SHAPE2(6, 6)), PB_NONE, PB_NONE);
    const pb_vid y = pb_linear(g, pb_attention(g, q, k, n, 2, false, 0.6f), add(c, PB_SHAPE2(6, 6)), PB_NONE, x);
    return pb_group_norm(g, pb_add(g, y, x), gamma, beta, 3, 1e-5f, true);
}

static const struct {
    const char *name;
    pb_vid (*build)(gradient_case *c);
} cases[] = {
#define CASE(name) \
    { #name, case_##name }
    CASE(linear),
    CASE(conv),
    CASE(conv_stride),
    CASE(conv_resized),
    CASE(group_norm),
    CASE(group_norm_silu),
    CASE(layer_norm),
    CASE(silu),
    CASE(gelu),
    CASE(quick_gelu),
    CASE(geglu),
    CASE(cross_attention),
    CASE(causal_attention),
    CASE(self_attention),
    CASE(sums),
    CASE(concat),
    CASE(embedding),
    CASE(cast),
    CASE(block),
};

static double random_number(uint64_t *state) {
    return support_random(state, 20001) / 10000.0 - 1;
}

static void fill(pb_executor *executor, const pb_graph *g, pb_vid v, uint64_t seed) {
    const pb_value *value = &g->values[v];
    uint64_t state = seed;
    for (int64_t i = 0; i < pb_shape_count(value->shape); i++) {
        const double x = random_number(&state);
        const int32_t id = (int32_t)(i * 3 % 4);
        if (value->dtype == PB_I32)
            pb_executor_write(executor, v, (uint64_t)i * 4, &id, 4);
        else
            pb_executor_write(executor, v, (uint64_t)i * 8, &x, 8);
    }
}

static double run_loss(pb_executor *executor, const gradient_case *c, uint64_t cotangent_seed) {
    fill(executor, c->g, c->cotangent, cotangent_seed);
    pb_executor_run(executor);
    double loss = 0;
    uint64_t state = cotangent_seed;
    for (int64_t i = 0; i < pb_shape_count(c->g->values[c->output].shape); i++) {
        double y;
        pb_executor_read(executor, c->output, (uint64_t)i * 8, &y, 8);
        loss += y * random_number(&state);
    }
    return loss;
}

static void probe(pb_executor *executor, const gradient_case *c, int w, const char *name) {
    const pb_vid v = c->wanted[w];
    const int64_t count = pb_shape_count(c->g->values[v].shape);
    double *analytic = malloc((size_t)count * sizeof *analytic), scale = 0;
    run_loss(executor, c, 99);
    pb_executor_read(executor, c->grads[w], 0, analytic, (uint64_t)count * 8);
    for (int64_t i = 0; i < count; i++) scale = fmax(scale, fabs(analytic[i]));
    CHECK_THAT(scale > 0, "%s: the gradient of input %d is zero", name, w);
    uint64_t state = (uint64_t)w;
    for (int p = 0; p < PROBES; p++) {
        const uint64_t at = support_random(&state, (uint32_t)count) * 8u;
        double x;
        pb_executor_read(executor, v, at, &x, 8);
        const double h = 1e-5, up = x + h, down = x - h;
        pb_executor_write(executor, v, at, &up, 8);
        const double above = run_loss(executor, c, 99);
        pb_executor_write(executor, v, at, &down, 8);
        const double below = run_loss(executor, c, 99);
        pb_executor_write(executor, v, at, &x, 8);
        const double numeric = (above - below) / (2 * h);
        CHECK_THAT(fabs(numeric - analytic[at / 8]) <= 1e-6 * fmax(scale, 1e-2),
                   "%s: input %d element %llu: %.12g, not %.12g", name, w, (unsigned long long)at / 8, analytic[at / 8],
                   numeric);
    }
    free(analytic);
}

// An op that gets a gradient rule needs a case here.
static void check_all_covered(const bool *seen) {
    static const bool differentiable[PB_OP_COUNT] = {
#define NO false
#define YES true
#define PB_OP(name, NAME, gradient, kind, inplace) gradient,
#include "base/ops.def"
#undef PB_OP
    };
    for (int op = 0; op < PB_OP_COUNT; op++)
        CHECK_THAT(!differentiable[op] || seen[op], "no case for %s", pb_op_name((pb_opcode)op));
}

int main(void) {
    bool seen[PB_OP_COUNT] = {false};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gradient_case c = {0};
        if (pb_graph_create(&c.g) != PB_OK) return 1;
        c.output = cases[i].build(&c);
        CHECK_THAT(c.g->status == PB_OK, "%s: %s", cases[i].name, pb_error_message());
        if (c.g->status != PB_OK) continue;
        for (uint32_t n = 0; n < c.g->node_count; n++) seen[c.g->nodes[n].op] = true;
        pb_graph_mark_output(c.g, c.output);
        c.cotangent = pb_graph_add_value(c.g, PB_CLASS_INPUT, PB_F64, c.g->values[c.output].shape, false, "cotangent");
        CHECK_OK(pb_graph_differentiate(c.g, &c.output, &c.cotangent, 1, c.wanted, c.grads, (uint32_t)c.wanted_count));
        for (int w = 0; w < c.wanted_count; w++) pb_graph_mark_output(c.g, c.grads[w]);
        CHECK_OK(pb_graph_prune(c.g));
        CHECK_OK(pb_graph_recompute(c.g, 0));
        pb_program *program = NULL;
        pb_executor *executor = NULL;
        CHECK_OK(pb_compile(c.g, pb_backend_reference(), NULL, &program));
        CHECK_OK(pb_executor_create(pb_backend_reference(), c.g, program, NULL, &executor));
        for (pb_vid v = 0; executor && v < c.g->value_count; v++)
            if (c.g->values[v].persistent) fill(executor, c.g, v, v + 1);
        for (int w = 0; executor && w < c.wanted_count; w++) probe(executor, &c, w, cases[i].name);
        pb_executor_destroy(executor);
        pb_program_destroy(program);
        pb_graph_destroy(c.g);
    }
    check_all_covered(seen);
    return CHECK_DONE();
}
