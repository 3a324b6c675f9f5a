// test: links=exec,ref,plan,graph,base
// No simulated step beats the bound that knows of rooms: hand-made programs against figures worked out by hand, random
// programs, and plans of random graphs.
#include <stdlib.h>

#include "check.h"
#include "graph/optimizer.h"
#include "plan/pager.h"
#include "plan/predict.h"
#include "plan/support_graphs.h"
#include "plan/support_paged.h"

enum { PROGRAMS = 400, MOST = 300, SLAB = 2048, UNIT = 256, COUNT = UNIT / 4, EXTENTS = 4 };

// One op of UNIT bytes in and out, and an update of COUNT parameters.
typedef struct fixture {
    pb_graph *graph;
    uint32_t op, adamw;
} fixture;

static fixture make_fixture(void) {
    fixture f = {0};
    CHECK_OK(pb_graph_create(&f.graph));
    pb_graph *g = f.graph;
    const pb_shape shape = PB_SHAPE1(COUNT);
    const pb_vid x = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, shape, false, "x");
    f.op = g->node_count;
    pb_graph_mark_output(g, pb_unary(g, x, PB_UNARY_SILU));
    const pb_vid control = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT), false, "control");
    const pb_vid hyper = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(PB_HYPER_COUNT), false, "hyper");
    const pb_vid gradient = pb_graph_add_value(g, PB_CLASS_GRADIENT, PB_F32, shape, false, "g");
    const pb_vid master = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, shape, true, "master");
    const pb_vid m = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, shape, true, "m");
    const pb_vid v = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, shape, true, "v");
    f.adamw = g->node_count;
    pb_adamw(g, gradient, control, hyper, master, m, v, PB_NONE);
    CHECK_THAT(g->status == PB_OK, "%s", pb_error_message());
    return f;
}

// An op takes 1 s, a unit 1 s on a link and 1.5 s where both directions are busy.
static pb_machine make_machine(void) {
    pb_machine m = {.name = "test",
                    .upload = UNIT,
                    .download = UNIT,
                    .copy_both = 1.5 * UNIT,
                    .dram = 1e9,
                    .nvme_read = UNIT,
                    .nvme_write = UNIT,
                    .nvme_both = UNIT,
                    .host_adamw = 28 * COUNT};
    for (int op = 0; op < PB_OP_COUNT; op++)
        for (int d = 0; d < PB_SPEED_DTYPES; d++) m.op[op][d] = (pb_op_speed){.flops = 1e30, .bandwidth = 2 * UNIT};
    return m;
}

static pb_insn blank(pb_insn_kind kind, pb_lane lane) {
    pb_insn insn = {.kind = kind, .lane = lane};
    for (int i = 0; i < PB_MAX_INPUTS; i++) insn.in[i].value = PB_NONE;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) insn.out[i].value = PB_NONE;
    return insn;
}

static pb_insn run(const fixture *f, uint64_t from, uint64_t to) {
    const pb_node *node = &f->graph->nodes[f->op];
    pb_insn insn = blank(PB_INSN_RUN, PB_LANE_COMPUTE);
    insn.node = f->op;
    insn.in[0] = (pb_operand){node->in[0], from};
    insn.out[0] = (pb_operand){node->out[0], to};
    return insn;
}

static pb_insn move(pb_lane lane, uint64_t from, uint64_t to, uint64_t bytes) {
    static const pb_tier ends[PB_LANE_COUNT][2] = {[PB_LANE_UPLOAD] = {PB_TIER_HOST, PB_TIER_DEVICE},
                                                   [PB_LANE_DOWNLOAD] = {PB_TIER_DEVICE, PB_TIER_HOST},
                                                   [PB_LANE_READ] = {PB_TIER_NVME, PB_TIER_HOST},
                                                   [PB_LANE_WRITE] = {PB_TIER_HOST, PB_TIER_NVME}};
    const bool fetch = lane == PB_LANE_UPLOAD || lane == PB_LANE_READ;
    pb_insn insn = blank(fetch ? PB_INSN_FETCH : PB_INSN_EVICT, lane);
    insn.from_tier = ends[lane][0];
    insn.to_tier = ends[lane][1];
    insn.bytes = bytes;
    if (lane == PB_LANE_READ)
        insn.extent = (uint32_t)from;
    else
        insn.from = from;
    if (lane == PB_LANE_WRITE)
        insn.extent = (uint32_t)to;
    else
        insn.to = to;
    return insn;
}

static pb_insn update(const fixture *f, pb_lane lane, uint64_t at, int64_t count) {
    const pb_node *node = &f->graph->nodes[f->adamw];
    pb_insn insn = blank(PB_INSN_UPDATE, lane);
    insn.node = f->adamw;
    insn.count = count;
    for (int i = 0, k = 0; i < PB_MAX_INPUTS; i++) {
        if (node->in[i] == PB_NONE) continue;
        const bool small = i == 1 || i == 2;
        insn.in[i] = (pb_operand){node->in[i], small ? SLAB + (uint64_t)i * UNIT : at + (uint64_t)k++ * UNIT};
    }
    for (int o = 0; o < PB_MAX_OUTPUTS; o++)
        if (node->out[o] != PB_NONE) insn.out[o] = (pb_operand){node->out[o], insn.in[3 + o].offset};
    return insn;
}

typedef struct outcome {
    double simulated, bound, plain;
} outcome;

// The list, given its WAITs.
static outcome judge(const fixture *f, const pb_machine *m, pb_insn *insns, uint32_t count, uint64_t device) {
    outcome o = {0};
    pb_arena *arena = pb_arena_create();
    pb_program program = {.arena = arena,
                          .insns = insns,
                          .insn_count = count,
                          .extent_count = EXTENTS,
                          .tier_bytes = {[PB_TIER_DEVICE] = device, [PB_TIER_HOST] = SLAB}};
    pb_prediction p;
    pb_step_bound bound;
    CHECK_OK(pb_program_synchronize(arena, f->graph, &program));
    CHECK_OK(pb_program_predict(f->graph, &program, m, &p, NULL));
    CHECK_OK(pb_program_bound(f->graph, &program, m, &bound));
    double sum = 0;
    for (int k = 0; k < PB_BOUND_COUNT; k++) sum += bound.held[k];
    CHECK(fabs(sum - bound.seconds) <= 1e-9 * sum);
    o = (outcome){p.seconds, bound.seconds, p.lower_bound};
    pb_arena_destroy(arena);
    return o;
}
#define JUDGE(f, m, device, ...) \
    judge((f), (m), (pb_insn[]){__VA_ARGS__}, sizeof((pb_insn[]){__VA_ARGS__}) / sizeof(pb_insn), (device))

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-9 * (fabs(a) + fabs(b));
}

static void test_by_hand(const fixture *f) {
    const pb_machine m = make_machine();
    // Comes, is worked on, goes: nothing of it can overlap, and the plain bound does not know.
    outcome o =
        JUDGE(f, &m, SLAB, move(PB_LANE_UPLOAD, 0, 0, UNIT), run(f, 0, UNIT), move(PB_LANE_DOWNLOAD, UNIT, UNIT, UNIT));
    CHECK_THAT(near(o.plain, 4.0 / 3) && near(o.bound, 3) && near(o.simulated, 3), "%g %g %g", o.plain, o.bound,
               o.simulated);
    // What two ops in a row want comes one after another. Where there is room for both, the second one hides behind
    // nothing but the first op: 1 s, 1 s beside the next arrival, 1 s.
    o = JUDGE(f, &m, SLAB, move(PB_LANE_UPLOAD, 0, 0, UNIT), run(f, 0, UNIT), move(PB_LANE_UPLOAD, UNIT, 512, UNIT),
              run(f, 512, 768));
    CHECK_THAT(near(o.plain, 2) && near(o.bound, 3) && near(o.simulated, 3), "%g %g %g", o.plain, o.bound, o.simulated);
    // Three ops, then two that want a unit each, and one that wants what the third has made. Where the device has room
    // for two units, the second arrives when the fourth op is done; with room for three, behind the ops.
    pb_insn insns[16];
    for (int room = 0; room < 2; room++) {
        const uint64_t second = room ? 2 * UNIT : UNIT;
        uint32_t count = 0;
        for (int i = 0; i < 3; i++) insns[count++] = run(f, 0, 0);
        insns[count++] = move(PB_LANE_UPLOAD, 0, UNIT, UNIT);
        insns[count++] = run(f, UNIT, UNIT);
        insns[count++] = move(PB_LANE_UPLOAD, UNIT, second, UNIT);
        insns[count++] = run(f, second, second);
        insns[count++] = run(f, 0, 0);
        o = judge(f, &m, insns, count, room ? 3 * UNIT : 2 * UNIT);
        CHECK_THAT(near(o.simulated, room ? 6 : 7) && near(o.bound, o.simulated), "room %d: %g s, bound %g", room,
                   o.simulated, o.bound);
    }
    // Three results have one place after another: the first two are gone before the next op begins.
    insns[0] = run(f, 0, UNIT);
    insns[1] = move(PB_LANE_DOWNLOAD, UNIT, 0, UNIT);
    insns[2] = run(f, 0, UNIT);
    insns[3] = move(PB_LANE_DOWNLOAD, UNIT, UNIT, UNIT);
    insns[4] = run(f, 0, UNIT);
    o = judge(f, &m, insns, 5, 2 * UNIT);
    CHECK_THAT(near(o.simulated, 5) && near(o.bound, 5), "%g s, bound %g", o.simulated, o.bound);
}

// Mostly whole units; some ranges lie over others in part.
static pb_insn random_insn(const fixture *f, uint64_t *random) {
    const pb_lane lane = (pb_lane)support_random(random, PB_LANE_COUNT);
    const bool whole = support_random(random, 8) > 0;
    const uint64_t step = whole ? UNIT : UNIT / 4;
    const uint64_t a = support_random(random, (uint32_t)(SLAB / step - 4 * UNIT / step)) * step;
    const uint64_t b = support_random(random, (uint32_t)(SLAB / step - 4 * UNIT / step)) * step;
    const uint64_t bytes = whole ? UNIT : UNIT / 4 * (1 + support_random(random, 16));
    const uint64_t extent = support_random(random, EXTENTS);
    const uint32_t some = support_random(random, 8);
    if (lane == PB_LANE_HOST) return update(f, lane, a, whole ? COUNT : 1 + support_random(random, COUNT));
    if (lane == PB_LANE_COMPUTE && !some) return update(f, lane, a, 1 + support_random(random, COUNT));
    if (lane == PB_LANE_COMPUTE) return run(f, a, some < 5 ? b : a);
    if (lane == PB_LANE_READ) return move(lane, extent, b, bytes);
    return move(lane, a, lane == PB_LANE_WRITE ? extent : b, bytes);
}

static void test_random(const fixture *f) {
    static pb_insn insns[MOST];
    int closer = 0;
    for (uint64_t seed = 1; seed <= PROGRAMS; seed++) {
        uint64_t random = seed;
        pb_machine m = make_machine();
        double *const speeds[] = {&m.upload, &m.download, &m.nvme_read, &m.nvme_write};
        for (size_t i = 0; i < sizeof speeds / sizeof *speeds; i++) *speeds[i] *= 0.3 + support_random(&random, 20);
        m.copy_both = m.upload + m.download / (1 + support_random(&random, 3));
        m.nvme_both = m.nvme_read + m.nvme_write / (1 + support_random(&random, 3));
        m.nvme_processors = support_random(&random, 2) ? 0 : 4 * UNIT;
        m.dram = support_random(&random, 2) ? 1e9 : 20 * UNIT;
        m.shared_cores = support_random(&random, 2);
        m.overhead = support_random(&random, 2) ? 0.01 : 0;
        const uint32_t count = 1 + support_random(&random, MOST);
        for (uint32_t i = 0; i < count; i++) insns[i] = random_insn(f, &random);
        const outcome o = judge(f, &m, insns, count, SLAB + 3 * UNIT);
        CHECK_THAT(o.simulated >= o.bound * (1 - 1e-9), "seed %llu: %g s beat the bound of %g s",
                   (unsigned long long)seed, o.simulated, o.bound);
        CHECK_THAT(o.bound >= o.plain * (1 - 1e-9), "seed %llu: %g s is less than %g s", (unsigned long long)seed,
                   o.bound, o.plain);
        closer += o.bound > 1.05 * o.plain;
    }
    printf("%d of %d random programs have a closer bound\n", closer, PROGRAMS);
    CHECK(closer > PROGRAMS / 10);
}

int main(void) {
    const fixture f = make_fixture();
    test_by_hand(&f);
    test_random(&f);
    pb_graph_destroy(f.graph);
    return CHECK_DONE();
}
