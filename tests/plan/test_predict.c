// test: links=exec,ref,plan,graph,base
// Seconds of ops, updates and hand-made programs against figures worked out by hand; random programs never beat their
// bounds and keep the order that lanes and waits ask for.
#include <stdlib.h>
#include <time.h>

#include "check.h"
#include "graph/optimizer.h"
#include "plan/predict.h"
#include "plan/support_graphs.h"

enum { COUNT = 1000000, SIDE = 1000, PROGRAMS = 400, INSNS = 300, LARGE = 30000 };

// Nodes: 0 a linear of 2e9 FLOPs in fp32, 1 one in fp16, 2 adamw of 1e6 parameters without and 3 with a working copy.
typedef struct fixture {
    pb_graph *graph;
    uint32_t linear, linear16, adamw, adamw16;
} fixture;

static fixture make_fixture(void) {
    fixture f = {0};
    CHECK_OK(pb_graph_create(&f.graph));
    pb_graph *g = f.graph;
    for (int half = 0; half < 2; half++) {
        const pb_dtype dtype = half ? PB_F16 : PB_F32;
        const pb_shape square = PB_SHAPE2(SIDE, SIDE);
        const pb_vid x = pb_graph_add_value(g, PB_CLASS_INPUT, dtype, square, false, "x");
        const pb_vid w = pb_graph_add_value(g, PB_CLASS_WEIGHT, dtype, square, true, "w");
        *(half ? &f.linear16 : &f.linear) = g->node_count;
        pb_graph_mark_output(g, pb_linear(g, x, w, PB_NONE, PB_NONE));
    }
    const pb_shape one = PB_SHAPE1(COUNT);
    const pb_vid control = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT), false, "control");
    const pb_vid hyper = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(PB_HYPER_COUNT), false, "hyper");
    for (int half = 0; half < 2; half++) {
        const pb_vid gradient = pb_graph_add_value(g, PB_CLASS_GRADIENT, half ? PB_F16 : PB_F32, one, false, "g");
        const pb_vid master = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, one, true, "master");
        const pb_vid m = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, one, true, "m");
        const pb_vid v = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, one, true, "v");
        const pb_vid work = half ? pb_graph_add_value(g, PB_CLASS_WEIGHT, PB_F16, one, true, "work") : PB_NONE;
        *(half ? &f.adamw16 : &f.adamw) = g->node_count;
        pb_adamw(g, gradient, control, hyper, master, m, v, work);
    }
    CHECK_THAT(g->status == PB_OK, "%s", pb_error_message());
    return f;
}

// A linear takes 1 s in fp32 and 0.5 s in fp16; a link moves 100 bytes a second, both ways 150.
static pb_machine make_machine(void) {
    pb_machine m = {.name = "test",
                    .upload = 100,
                    .download = 100,
                    .copy_both = 150,
                    .dram = 1e9,
                    .nvme_read = 50,
                    .nvme_write = 25,
                    .nvme_both = 60,
                    .host_adamw = 14e6};
    for (int op = 0; op < PB_OP_COUNT; op++)
        for (int d = 0; d < PB_SPEED_DTYPES; d++)
            m.op[op][d] = (pb_op_speed){.flops = d ? 4e9 : 2e9, .bandwidth = 28e6};
    return m;
}

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-9 * (fabs(a) + fabs(b)) + 1e-12;
}
#define CHECK_NEAR(value, expected) \
    CHECK_THAT(near((value), (expected)), "%s is %.12g, not %.12g", #value, (value), (double)(expected))

static pb_insn run(uint32_t node) {
    return (pb_insn){.kind = PB_INSN_RUN, .lane = PB_LANE_COMPUTE, .node = node};
}

static pb_insn move(pb_lane lane, uint64_t bytes) {
    const bool fetch = lane == PB_LANE_UPLOAD || lane == PB_LANE_READ;
    return (pb_insn){.kind = fetch ? PB_INSN_FETCH : PB_INSN_EVICT, .lane = lane, .bytes = bytes};
}

static pb_insn wait_for(pb_lane lane, uint32_t on) {
    return (pb_insn){.kind = PB_INSN_WAIT, .lane = lane, .on = on};
}

static pb_insn update(pb_lane lane, uint32_t node, int64_t count) {
    return (pb_insn){.kind = PB_INSN_UPDATE, .lane = lane, .node = node, .count = count};
}

static pb_prediction predict(const fixture *f, const pb_machine *m, pb_insn *insns, uint32_t count,
                             pb_insn_times *times) {
    const pb_program program = {.insns = insns, .insn_count = count};
    pb_prediction p;
    CHECK_OK(pb_program_predict(f->graph, &program, m, &p, times));
    CHECK_THAT(p.seconds >= p.lower_bound * (1 - 1e-9), "%g s beat the bound of %g s", p.seconds, p.lower_bound);
    return p;
}
#define PREDICT(f, m, times, ...) \
    predict((f), (m), (pb_insn[]){__VA_ARGS__}, sizeof((pb_insn[]){__VA_ARGS__}) / sizeof(pb_insn), (times))

static void test_single_costs(const fixture *f) {
    pb_machine m = make_machine();
    CHECK_NEAR(pb_node_flops(f->graph, &f->graph->nodes[f->linear]), 2e9);
    CHECK(pb_node_bytes(f->graph, &f->graph->nodes[f->linear]) == 12000000);
    CHECK(pb_node_bytes(f->graph, &f->graph->nodes[f->linear16]) == 6000000);
    CHECK_NEAR(pb_node_seconds(&m, f->graph, f->linear), 1.0);
    CHECK_NEAR(pb_node_seconds(&m, f->graph, f->linear16), 0.5);
    m.overhead = 0.25;
    m.op[PB_OP_LINEAR][PB_SPEED_F32].bandwidth = 6e6;  // bound by memory: 12 MB
    CHECK_NEAR(pb_node_seconds(&m, f->graph, f->linear), 2.25);
    CHECK_NEAR(pb_node_seconds(&m, f->graph, f->linear16), 0.75);
    // 28 bytes a parameter, with and without a working copy in fp16.
    CHECK(pb_update_bytes(f->graph, f->adamw) == 28);
    CHECK(pb_update_bytes(f->graph, f->adamw16) == 28);
    CHECK_NEAR(pb_machine_update_seconds(&m, f->graph, f->adamw, COUNT, PB_LANE_COMPUTE), 1.25);
    CHECK_NEAR(pb_machine_update_seconds(&m, f->graph, f->adamw16, COUNT / 2, PB_LANE_HOST), 1.0);
}

static void test_lanes(const fixture *f) {
    const pb_machine m = make_machine();
    pb_insn_times t[8];
    pb_prediction p = PREDICT(f, &m, NULL, run(f->linear), run(f->linear16), run(f->linear));
    CHECK_NEAR(p.seconds, 2.5);
    CHECK_NEAR(p.lower_bound, 2.5);
    CHECK(p.bound == PB_BOUND_COMPUTE);
    // One after another: 2 s up, 1 s of work, 1 s down.
    p = PREDICT(f, &m, t, move(PB_LANE_UPLOAD, 200), wait_for(PB_LANE_COMPUTE, 0), run(f->linear),
                wait_for(PB_LANE_DOWNLOAD, 2), move(PB_LANE_DOWNLOAD, 100));
    CHECK_NEAR(p.seconds, 4);
    CHECK_NEAR(p.lower_bound, 2);
    CHECK(p.bound == PB_BOUND_UPLOAD || p.bound == PB_BOUND_COPIES);
    CHECK_NEAR(t[1].begin, 0);
    CHECK_NEAR(t[1].end, 2);
    CHECK_NEAR(t[2].begin, 2);
    CHECK_NEAR(t[4].begin, 3);
    CHECK_NEAR(t[4].end, 4);
    CHECK_NEAR(p.busy[PB_LANE_UPLOAD], 2);
    CHECK_NEAR(p.busy[PB_LANE_COMPUTE], 1);
    // Beside one another: the next upload hides behind the work.
    p = PREDICT(f, &m, NULL, move(PB_LANE_UPLOAD, 100), wait_for(PB_LANE_COMPUTE, 0), run(f->linear),
                move(PB_LANE_UPLOAD, 100), wait_for(PB_LANE_COMPUTE, 3), run(f->linear));
    CHECK_NEAR(p.seconds, 3);
}

static void test_sharing(const fixture *f) {
    pb_machine m = make_machine();
    // Up and down at once: 75 bytes a second each until the 150 bytes down are through at 2 s; the 50 that are left of
    // 200 up take another 0.5 s.
    pb_prediction p = PREDICT(f, &m, NULL, move(PB_LANE_UPLOAD, 200), move(PB_LANE_DOWNLOAD, 150));
    CHECK_NEAR(p.seconds, 2.5);
    CHECK_NEAR(p.bounds[PB_BOUND_COPIES], 350.0 / 150);
    CHECK(p.bound == PB_BOUND_COPIES);
    // As many bytes read and written at once go at 60: each at 30, of 50 and 25 alone, so this is as good as 1.8 drives
    // that do one thing, and each gets 0.9 of one. 90 read at 45 in 2 s, with 45 written; the other 5 at 25.
    p = PREDICT(f, &m, NULL, move(PB_LANE_READ, 90), move(PB_LANE_WRITE, 50));
    CHECK_NEAR(p.seconds, 2.2);
    CHECK_NEAR(p.bounds[PB_BOUND_NVME], (90 / 50.0 + 50 / 25.0) / 1.8);
    CHECK(p.bound == PB_BOUND_NVME);
    // What waits for a transfer goes on when it is complete: later, by twice as long as it takes alone. The drive does
    // not.
    p = PREDICT(f, &m, NULL, move(PB_LANE_READ, 100), move(PB_LANE_READ, 50), wait_for(PB_LANE_COMPUTE, 0),
                run(f->linear));
    CHECK_NEAR(p.seconds, 2 + 4 + 1);
    CHECK_NEAR(p.busy[PB_LANE_READ], 3);
    // The host's memory: an update asks for 14e6 bytes a second, an upload for 100.
    p = PREDICT(f, &m, NULL, update(PB_LANE_HOST, f->adamw, COUNT));
    CHECK_NEAR(p.seconds, 2);
    CHECK(p.bound == PB_BOUND_UPDATES);
    m.dram = 7e6;
    p = PREDICT(f, &m, NULL, update(PB_LANE_HOST, f->adamw, COUNT));
    CHECK_NEAR(p.seconds, 4);
    CHECK(p.bound == PB_BOUND_DRAM);
}

static void test_shared_cores(const fixture *f) {
    pb_machine m = make_machine();
    m.shared_cores = true;
    m.copy_both = 100;
    // A copy that needs all processors: nothing is won by going beside the work.
    pb_prediction p = PREDICT(f, &m, NULL, run(f->linear), run(f->linear), move(PB_LANE_UPLOAD, 100));
    CHECK_NEAR(p.seconds, 3);
    CHECK_NEAR(p.lower_bound, 3);
    CHECK(p.bound == PB_BOUND_COMPUTE);
    // One that needs half of them: 1 s alone is half a second of all.
    m.copy_both = 200;
    p = PREDICT(f, &m, NULL, run(f->linear), run(f->linear), move(PB_LANE_UPLOAD, 100));
    CHECK_NEAR(p.seconds, 2.5);
    // The drive's transfers take no processor.
    p = PREDICT(f, &m, NULL, run(f->linear), run(f->linear), move(PB_LANE_READ, 100));
    CHECK_NEAR(p.seconds, 2);
    // Updates do.
    p = PREDICT(f, &m, NULL, run(f->linear), update(PB_LANE_HOST, f->adamw, COUNT));
    CHECK_NEAR(p.seconds, 3);
}

static void test_malformed(const fixture *f) {
    const pb_machine m = make_machine();
    pb_prediction p;
    const pb_insn bad[] = {
        {.kind = PB_INSN_WAIT, .lane = PB_LANE_COMPUTE, .on = 1},  // for itself
        {.kind = PB_INSN_WAIT, .lane = PB_LANE_COMPUTE, .on = 7},
        {.kind = PB_INSN_RUN, .lane = PB_LANE_UPLOAD},
        {.kind = PB_INSN_FETCH, .lane = PB_LANE_COMPUTE, .bytes = 1},
        {.kind = PB_INSN_RUN, .lane = PB_LANE_COMPUTE, .node = 1000},
        {.kind = PB_INSN_RUN, .lane = PB_LANE_COUNT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pb_insn insns[] = {run(f->linear), bad[i]};
        const pb_program program = {.insns = insns, .insn_count = 2};
        CHECK_THAT(pb_program_predict(f->graph, &program, &m, &p, NULL) == PB_ERR_INTERNAL, "case %zu was taken", i);
        CHECK(strstr(pb_error_message(), "instruction 1"));
    }
    pb_insn insns[] = {move(PB_LANE_READ, 10)};
    const pb_program program = {.insns = insns, .insn_count = 1};
    pb_machine no_drive = m;
    no_drive.nvme_read = no_drive.nvme_write = no_drive.nvme_both = 0;
    CHECK(pb_program_predict(f->graph, &program, &no_drive, &p, NULL) == PB_ERR_INTERNAL);
}

static pb_insn random_insn(const fixture *f, const pb_insn *insns, uint32_t i, uint64_t *random) {
    const pb_lane lane = (pb_lane)support_random(random, PB_LANE_COUNT);
    if (i > 0 && support_random(random, 3) == 0) {
        const uint32_t on = i - 1 - support_random(random, i < 20 ? i : 20);
        if (insns[on].kind != PB_INSN_WAIT) return wait_for(lane, on);
    }
    if (lane == PB_LANE_HOST) return update(lane, f->adamw16, 1 + support_random(random, COUNT / 10));
    if (lane != PB_LANE_COMPUTE) return move(lane, support_random(random, 5) ? 1 + support_random(random, 100) : 0);
    if (support_random(random, 3) == 0) return update(lane, f->adamw, 1 + support_random(random, COUNT));
    return run(support_random(random, 2) ? f->linear : f->linear16);
}

static void random_machine(pb_machine *m, uint64_t *random) {
    *m = make_machine();
    double *const speeds[] = {&m->upload, &m->download, &m->nvme_read, &m->nvme_write};
    for (size_t i = 0; i < sizeof speeds / sizeof *speeds; i++) *speeds[i] = 10 + support_random(random, 90);
    m->copy_both = 100 + support_random(random, 100);
    m->nvme_both = 50 + support_random(random, 100);
    m->nvme_processors = support_random(random, 2) ? 0 : 100 + support_random(random, 400);
    m->dram = support_random(random, 2) ? 1e6 + support_random(random, 20000000) : 50 + support_random(random, 300);
    m->shared_cores = support_random(random, 2);
    m->overhead = support_random(random, 2) ? 0.01 : 0;
}

static void check_order(const pb_insn *insns, uint32_t count, const pb_insn_times *t, double seconds) {
    double lane_end[PB_LANE_COUNT] = {0};
    for (uint32_t i = 0; i < count; i++) {
        CHECK(t[i].begin >= 0 && t[i].end >= t[i].begin && t[i].end <= seconds);
        CHECK_THAT(t[i].begin >= lane_end[insns[i].lane], "%u begins before its lane is free", i);
        if (insns[i].kind == PB_INSN_WAIT)
            CHECK_THAT(t[i].end >= t[insns[i].on].end, "%u goes on before %u is complete", i, insns[i].on);
        lane_end[insns[i].lane] = t[i].end;
    }
}

static void test_random(const fixture *f) {
    static pb_insn insns[INSNS];
    static pb_insn_times times[INSNS];
    int waited = 0;
    for (uint64_t seed = 1; seed <= PROGRAMS; seed++) {
        uint64_t random = seed;
        pb_machine m;
        random_machine(&m, &random);
        const uint32_t count = 1 + support_random(&random, INSNS);
        for (uint32_t i = 0; i < count; i++) insns[i] = random_insn(f, insns, i, &random);
        const pb_prediction p = predict(f, &m, insns, count, times), again = predict(f, &m, insns, count, NULL);
        CHECK(p.seconds == again.seconds);
        check_order(insns, count, times, p.seconds);
        for (uint32_t i = 0; i < count; i++) waited += times[i].end > times[i].begin && insns[i].kind == PB_INSN_WAIT;
        for (int b = 0; b < PB_BOUND_COUNT; b++) CHECK(p.seconds >= p.bounds[b] * (1 - 1e-9));
        for (int l = 0; l < PB_LANE_COUNT; l++) CHECK(p.busy[l] <= p.seconds * (1 + 1e-9));
    }
    CHECK_THAT(waited > PROGRAMS, "only %d waits took time", waited);
}

static void test_large(const fixture *f) {
    pb_insn *insns = calloc(LARGE, sizeof *insns);
    uint64_t random = 1;
    pb_machine m;
    random_machine(&m, &random);
    for (uint32_t i = 0; i < LARGE; i++) insns[i] = random_insn(f, insns, i, &random);
    const clock_t begin = clock();
    predict(f, &m, insns, LARGE, NULL);
    printf("%d instructions simulated in %.1f ms\n", LARGE, 1e3 * (double)(clock() - begin) / CLOCKS_PER_SEC);
    free(insns);
}

static void test_builtin(void) {
    const pb_machine *m;
    int count = 0;
    for (const char *name; (name = pb_machine_builtin_name(count)); count++) {
        CHECK((m = pb_machine_builtin(name)) && strcmp(m->name, name) == 0);
        CHECK(m->copy_both >= m->upload && m->copy_both <= m->upload + m->download && m->copy_both <= m->dram);
        CHECK(m->nvme_both >= m->nvme_read && m->host_bytes > m->device_bytes && !m->shared_cores);
        for (int op = 0; op < PB_OP_COUNT; op++)
            for (int d = 0; d < PB_SPEED_DTYPES; d++) CHECK(m->op[op][d].flops > 1e12 && m->op[op][d].bandwidth > 1e11);
    }
    CHECK(count == 5 && !pb_machine_builtin("rtx2060") && !pb_machine_builtin(""));
    CHECK((m = pb_machine_builtin("generic")) && m->upload == pb_machine_builtin("rtx3090")->upload);
}

int main(void) {
    const fixture f = make_fixture();
    test_single_costs(&f);
    test_lanes(&f);
    test_sharing(&f);
    test_shared_cores(&f);
    test_malformed(&f);
    test_random(&f);
    test_large(&f);
    test_builtin();
    pb_graph_destroy(f.graph);
    return CHECK_DONE();
}
