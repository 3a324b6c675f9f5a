// test: links=exec,ref,plan,graph,base
// Which gradients are made again, what is carried for them, and what becomes of the graph.
#include "check.h"
#include "graph/carry.h"
#include "graph/optimizer.h"

#include <stdlib.h>

enum { ROWS = 4, WIDE = 64, PARAMS = 3 };

// Two linears that share their input, and one behind them; each one's gradient is kept.
typedef struct network {
    pb_graph *g;
    pb_vid x, w[PARAMS], grads[PARAMS], kept[PARAMS];
} network;

static network build(void) {
    network n = {0};
    CHECK_OK(pb_graph_create(&n.g));
    pb_graph *g = n.g;
    n.x = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE2(ROWS, WIDE), false, "x");
    for (int i = 0; i < PARAMS; i++)
        n.w[i] = pb_graph_add_value(g, PB_CLASS_WEIGHT, PB_F32, PB_SHAPE2(WIDE, WIDE), true, "w%d", i);
    const pb_vid left = pb_linear(g, n.x, n.w[0], PB_NONE, PB_NONE);
    const pb_vid right = pb_linear(g, n.x, n.w[1], PB_NONE, PB_NONE);
    const pb_vid y = pb_linear(g, pb_add(g, left, right), n.w[2], PB_NONE, PB_NONE);
    const pb_vid target = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE2(ROWS, WIDE), false, "target");
    const pb_vid weight = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(ROWS), false, "weight");
    const pb_vid scale = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(1), false, "scale");
    g->phase = PB_PHASE_BACKWARD;
    const pb_vid seed = pb_mse_loss_bwd(g, y, target, weight, scale);
    CHECK_OK(pb_graph_differentiate(g, &y, &seed, 1, n.w, n.grads, PARAMS));
    for (int i = 0; i < PARAMS; i++) {
        n.kept[i] = pb_graph_add_value(g, PB_CLASS_GRADIENT, PB_F32, PB_SHAPE2(WIDE, WIDE), true, "kept %d", i);
        pb_keep_gradient(g, n.grads[i], n.kept[i]);
    }
    CHECK_OK(g->status);
    return n;
}

// Their updates, from what was kept, before everything else.
static void update_first(network *n) {
    pb_graph *g = n->g;
    const pb_vid control = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT), false, "control");
    const pb_vid hyper = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(PB_HYPER_COUNT), false, "hyper");
    pb_vid *renamed = malloc((g->value_count + 100) * sizeof *renamed);
    for (uint32_t v = 0; v < g->value_count + 100; v++) renamed[v] = PB_NONE;
    g->phase = PB_PHASE_UPDATE;
    for (int i = 0; i < PARAMS; i++) {
        pb_vid moments[2];
        for (int k = 0; k < 2; k++)
            moments[k] = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, PB_SHAPE2(WIDE, WIDE), true, "moment");
        renamed[n->w[i]] = pb_adamw(g, n->kept[i], control, hyper, n->w[i], moments[0], moments[1], PB_NONE);
    }
    CHECK_OK(pb_graph_update_first(g, renamed));
    free(renamed);
}

static uint32_t choose(pb_arena *arena, const network *n, double seconds, double per_byte, pb_carry *carry) {
    double *each = malloc((n->g->node_count + 1) * sizeof *each);
    for (uint32_t i = 0; i < n->g->node_count; i++) each[i] = seconds;
    CHECK_OK(pb_carry_choose(arena, n->g, n->kept, PARAMS, each, per_byte, carry));
    free(each);
    return carry->remade_count;
}

static void test_choice(void) {
    network n = build();
    pb_arena *arena = pb_arena_create();
    pb_carry carry;
    const double gradient = WIDE * WIDE * 4, operand = ROWS * WIDE * 4;
    CHECK(choose(arena, &n, 0, 0, &carry) == PARAMS);
    // x, left + right, the gradient of y and that of the sum, which is both linears'.
    CHECK(carry.carried_count == 4);
    int copied = 0;
    for (uint32_t k = 0; k < carry.carried_count; k++) copied += carry.carried[k].copied;
    CHECK(copied == 1);  // x
    CHECK(choose(arena, &n, 1, 0, &carry) == 0);
    // The two that share both their operands save more than the third.
    CHECK(choose(arena, &n, 1, 1 / (gradient - operand) * 1.01, &carry) == 2);
    CHECK(carry.remade[0].x == carry.remade[1].x && carry.remade[0].dy == carry.remade[1].dy);
    CHECK(choose(arena, &n, 1, 1 / (gradient - 2 * operand) * 1.01, &carry) == 3);
    // What is kept of none is made again of none.
    for (int i = 0; i < PARAMS; i++) n.kept[i] = PB_NONE;
    CHECK(choose(arena, &n, 0, 1, &carry) == 0);
    pb_arena_destroy(arena);
    pb_graph_destroy(n.g);
}

static uint32_t count_op(const pb_graph *g, pb_opcode op) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < g->node_count; i++) count += g->nodes[i].op == op;
    return count;
}

static void test_change(bool makes) {
    network n = build();
    pb_arena *arena = pb_arena_create();
    pb_carry carry;
    update_first(&n);
    CHECK(choose(arena, &n, 0, 1, &carry) == PARAMS);
    const uint32_t before = n.g->value_count;
    CHECK_OK(pb_carry_apply(n.g, &carry, n.kept, makes));
    const pb_graph *g = n.g;
    CHECK(count_op(g, PB_OP_LINEAR_BWD_WEIGHT) == 2 * PARAMS);
    CHECK(count_op(g, PB_OP_CAST) == (makes ? 1 : 0));
    for (int i = 0; i < PARAMS; i++) {
        CHECK(!g->values[n.kept[i]].persistent && !g->values[n.grads[i]].persistent);
        CHECK(g->values[n.grads[i]].alias == PB_NONE);
        // Made again just before its update, of what the last step left.
        const uint32_t again = g->values[n.kept[i]].producer;
        CHECK(again + 1 < g->node_count && g->nodes[again].phase == PB_PHASE_UPDATE && g->nodes[again].recompute);
        CHECK(g->nodes[again + 1].op == PB_OP_ADAMW && g->nodes[again + 1].in[0] == n.kept[i]);
        for (int k = 0; k < 2; k++) {
            const pb_value *of = &g->values[g->nodes[again].in[k]];
            CHECK(of->persistent && of->producer == PB_NONE && of->class_ == PB_CLASS_ACTIVATION);
        }
    }
    uint32_t versions = 0;
    for (uint32_t v = 0; v < g->value_count; v++)
        versions += g->values[v].class_ == PB_CLASS_ACTIVATION && g->values[v].alias != PB_NONE;
    CHECK(versions == (makes ? carry.carried_count : 0));
    CHECK(g->value_count == before + carry.carried_count + (makes ? 1 : 0));
    pb_arena_destroy(arena);
    pb_graph_destroy(n.g);
}

int main(void) {
    test_choice();
    test_change(true);
    test_change(false);
    return CHECK_DONE();
}
