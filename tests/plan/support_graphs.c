#include "plan/support_graphs.h"

#include <stdlib.h>
#include <string.h>

#include "graph/optimizer.h"

uint32_t support_random(uint64_t *state, uint32_t below) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % below);
}

enum { POOL = 64 };

typedef struct builder {
    pb_graph *g;
    uint64_t random;
    pb_vid pool[POOL];  // activations [2,4,4,C] to choose from
    int count;
    pb_vid params[POOL];
    int param_count;
} builder;

static pb_vid param(builder *b, pb_shape shape) {
    const pb_vid v = pb_graph_add_value(b->g, PB_CLASS_WEIGHT, PB_F32, shape, true, "p%d", b->param_count);
    if (b->param_count < POOL) b->params[b->param_count++] = v;
    return v;
}

static pb_vid pick(builder *b) {
    // Mostly recent ones, now and then an old one: a skip connection.
    const int back =
        support_random(&b->random, 4) ? (int)support_random(&b->random, 3) : (int)support_random(&b->random, POOL);
    return b->pool[back < b->count ? b->count - 1 - back : 0];
}

static pb_vid random_op(builder *b) {
    pb_graph *g = b->g;
    const pb_vid x = pick(b);
    const int64_t channels = pb_shape_last(g->values[x].shape);
    switch (support_random(&b->random, 7)) {
    case 0: return pb_unary(g, x, (pb_unary_kind)support_random(&b->random, 3));
    case 1: {
        const pb_vid gamma = param(b, PB_SHAPE1(channels));
        return pb_group_norm(g, x, gamma, param(b, PB_SHAPE1(channels)), 4, 1e-5f, support_random(&b->random, 2));
    }
    case 2: {
        const pb_vid gamma = param(b, PB_SHAPE1(channels));
        return pb_layer_norm(g, x, gamma, param(b, PB_SHAPE1(channels)), 1e-5f);
    }
    case 3: {
        const pb_vid y = pick(b);
        if (channels + pb_shape_last(g->values[y].shape) <= 24) return pb_concat(g, x, y);
        return pb_geglu(g, x);
    }
    case 4: {
        const pb_vid y = pick(b);
        return pb_shape_equal(g->values[x].shape, g->values[y].shape) ? pb_add(g, x, y) : pb_unary(g, y, PB_UNARY_SILU);
    }
    case 5: return channels <= 16 ? pb_attention(g, x, x, x, 2, false, 0.5f) : pb_geglu(g, x);
    default: {
        const int64_t outputs = 8 * (1 + support_random(&b->random, 2));
        const pb_vid w = param(b, PB_SHAPE2(outputs, channels)), bias = param(b, PB_SHAPE1(outputs));
        const pb_vid y = pick(b);
        pb_shape wanted = g->values[x].shape;
        wanted.dim[3] = outputs;
        return pb_linear(g, x, w, bias, pb_shape_equal(g->values[y].shape, wanted) ? y : PB_NONE);
    }
    }
}

// One parameter's update from its gradient; every other one also goes through a sum.
static pb_vid add_state(builder *b, pb_vid p, pb_vid gradient, pb_vid *norm, bool sum, pb_vid state[3]) {
    pb_graph *g = b->g;
    const pb_shape shape = g->values[p].shape;
    state[0] = p;
    state[1] = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, shape, true, "m%u", p);
    state[2] = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, shape, true, "v%u", p);
    if (sum)
        gradient = pb_accumulate(g, gradient, pb_graph_add_value(g, PB_CLASS_GRADIENT, PB_F32, shape, true, "s%u", p));
    *norm = pb_grad_norm(g, gradient, *norm);
    return gradient;
}

pb_graph *support_random_graph(uint64_t seed, int ops) {
    builder b = {.random = seed * 977 + 5};
    if (pb_graph_create(&b.g) != PB_OK) return NULL;
    pb_graph *g = b.g;
    b.pool[b.count++] = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE4(2, 4, 4, 8), false, "x");
    param(&b, PB_SHAPE1(8));
    pb_vid last = pb_linear(g, b.pool[0], param(&b, PB_SHAPE2(8, 8)), PB_NONE, PB_NONE);
    b.pool[b.count++] = last;
    for (int i = 0; i < ops && b.count < POOL && b.param_count < POOL - 2; i++) {
        // Values stay in 8, 16 or 24 channels, so that many pairs fit each other.
        last = random_op(&b);
        if (pb_shape_last(g->values[last].shape) % 8 == 0) b.pool[b.count++] = last;
    }
    last = b.pool[b.count - 1];
    const pb_vid target = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, g->values[last].shape, false, "target");
    const pb_vid weight = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(2), false, "weight");
    const pb_vid scale = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(1), false, "scale");
    pb_vid norm = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F64, PB_SHAPE1(1), false, "norm");
    const pb_vid hyper = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(PB_HYPER_COUNT), false, "hyper");
    pb_graph_mark_output(g, pb_mse_loss(g, last, target));
    g->phase = PB_PHASE_BACKWARD;
    const pb_vid seed_gradient = pb_mse_loss_bwd(g, last, target, weight, scale);
    pb_vid grads[POOL], state[POOL][3];
    if (pb_graph_differentiate(g, &last, &seed_gradient, 1, b.params, grads, (uint32_t)b.param_count) != PB_OK)
        return g;
    for (int i = 0; i < b.param_count; i++)
        if (grads[i] != PB_NONE) grads[i] = add_state(&b, b.params[i], grads[i], &norm, i % 2, state[i]);
    g->phase = PB_PHASE_UPDATE;
    const pb_vid control = pb_step_control(g, norm, hyper);
    pb_graph_mark_output(g, control);
    for (int i = 0; i < b.param_count; i++)
        if (grads[i] != PB_NONE) pb_adamw(g, grads[i], control, hyper, state[i][0], state[i][1], state[i][2], PB_NONE);
    return g;
}

void support_fill(const pb_graph *g, pb_vid v, uint64_t seed, void *data) {
    const pb_value *value = &g->values[v];
    uint64_t random = seed * 31 + v;
    for (int64_t i = 0; i < pb_shape_count(value->shape); i++) {
        double x = support_random(&random, 2001) / 1000.0 - 1;
        if (value->class_ == PB_CLASS_STATE || !strcmp(value->name, "scale")) x = x * x + 0.1;
        if (!strcmp(value->name, "norm")) x = 0;
        if (!strcmp(value->name, "hyper")) x = 0.5;
        pb_dtype_store(value->dtype, data, (size_t)i, x);
    }
}

static bool starts_filled(const pb_value *v) {
    return v->producer == PB_NONE && (v->persistent || v->class_ == PB_CLASS_INPUT);
}

void **support_run_plainly(const pb_graph *g, uint64_t seed) {
    void **data = calloc(g->value_count + 1, sizeof *data);
    for (pb_vid v = 0; v < g->value_count; v++) {
        if (!starts_filled(&g->values[v])) continue;
        data[v] = malloc(pb_value_bytes(&g->values[v]));
        support_fill(g, v, seed, data[v]);
    }
    const pb_backend *backend = pb_backend_reference();
    for (uint32_t n = 0; n < g->node_count; n++) {
        const pb_node *node = &g->nodes[n];
        pb_kernel_args args;
        pb_node_kernel_args(g, node, &args);
        for (int i = 0; i < PB_MAX_INPUTS; i++)
            if (node->in[i] != PB_NONE) args.in[i].data = data[node->in[i]];
        for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
            if (node->out[i] == PB_NONE) continue;
            const pb_value *value = &g->values[node->out[i]];
            data[node->out[i]] = calloc(1, pb_value_bytes(value));
            // An op that works in place finds the old version in its output, too.
            if (value->alias != PB_NONE) memcpy(data[node->out[i]], data[value->alias], pb_value_bytes(value));
            args.out[i].data = data[node->out[i]];
        }
        if (backend->workspaces && backend->workspaces[node->op])
            args.workspace = malloc((args.workspace_bytes = backend->workspaces[node->op](&args)) + 1);
        backend->kernels[node->op](&args);
        free(args.workspace);
    }
    return data;
}

void support_free(const pb_graph *g, void **data) {
    for (pb_vid v = 0; v < g->value_count; v++) free(data[v]);
    free(data);
}

bool support_program_agrees(const pb_graph *g, const pb_program *program, uint64_t seed, void **expected,
                            const char *nvme, uint64_t stress) {
    const pb_memory_options options = {.nvme = nvme};
    pb_memory *memory;
    pb_executor *executor;
    if (pb_memory_create_for(pb_backend_reference(), &program, 1, &options, &memory) != PB_OK) return false;
    if (pb_executor_create(pb_backend_reference(), g, program, memory, &executor) != PB_OK) {
        pb_memory_destroy(memory);
        return false;
    }
    bool agrees = !stress || pb_executor_stress(executor, stress) == PB_OK;
    for (pb_vid v = 0; v < g->value_count; v++) {
        if (!starts_filled(&g->values[v])) continue;
        const uint64_t bytes = pb_value_bytes(&g->values[v]);
        void *data = malloc(bytes);
        support_fill(g, v, seed, data);
        agrees &= pb_executor_write(executor, v, 0, data, bytes) == PB_OK;
        free(data);
    }
    agrees &= pb_executor_run(executor) == PB_OK;
    bool *replaced = calloc(g->value_count + 1, sizeof *replaced);
    for (pb_vid v = 0; v < g->value_count; v++)
        if (g->values[v].alias != PB_NONE) replaced[g->values[v].alias] = true;
    for (pb_vid v = 0; v < g->value_count && agrees; v++) {
        if (!g->values[v].output && !(g->values[v].persistent && !replaced[v])) continue;
        const uint64_t bytes = pb_value_bytes(&g->values[v]);
        void *data = malloc(bytes);
        agrees = pb_executor_read(executor, v, 0, data, bytes) == PB_OK && !memcmp(data, expected[v], bytes);
        free(data);
    }
    free(replaced);
    pb_executor_destroy(executor);
    pb_memory_destroy(memory);
    return agrees;
}
