// test: links=exec,cpu,ref,plan,graph,base timeout=300
// Working copies that are cast again from their masters, or put aside: the same bits at random budgets, as the lanes
// please; what is tampered with is rejected, or harmless in the eyes of another judge; and a cast gives AdamW's bits.
#include "check.h"
#include "exec/executor.h"
#include "graph/optimizer.h"
#include "plan/support_graphs.h"
#include "plan/support_lanes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GRAPHS = 20, BUDGETS = 10, WIDE = 32, MOST = 16, ORDERS = 2, MUTATIONS = 200 };

// A chain of linears on 16-bit copies that the update of the step before makes at first; every other layer's output
// lives to the end. The copies that are their masters rounded are `format` 0; else they are split, or not copies.
static pb_graph *make_graph(uint64_t seed, int format) {
    uint64_t random = seed;
    pb_graph *g = NULL;
    CHECK_OK(pb_graph_create(&g));
    const pb_dtype compute = format || seed % 2 ? PB_BF16 : PB_F16;
    const int layers = 6 + (int)support_random(&random, MOST - 6);
    const int64_t rows = 64 << support_random(&random, 2);
    pb_vid w[MOST], kept[MOST], grads[MOST], y[MOST];
    const pb_vid x = pb_graph_add_value(g, PB_CLASS_INPUT, compute, PB_SHAPE2(rows, WIDE), false, "x");
    for (int i = 0; i < layers; i++) {
        const int64_t in = i ? pb_shape_last(g->values[y[i - 1]].shape) : WIDE;
        const int64_t out = i + 1 < layers ? WIDE << support_random(&random, 3) : WIDE;
        w[i] = pb_graph_add_value(g, PB_CLASS_WEIGHT, compute, PB_SHAPE2(out, in), format != 0, "w%d", i);
        y[i] = pb_linear(g, i ? y[i - 1] : x, w[i], PB_NONE, PB_NONE);
        if (i % 2) y[i] = pb_unary(g, y[i], PB_UNARY_SILU);
    }
    const pb_vid last = y[layers - 1];
    const pb_vid target = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE2(rows, WIDE), false, "target");
    const pb_vid weight = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(rows), false, "weight");
    const pb_vid scale = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(1), false, "scale");
    pb_graph_mark_output(g, pb_mse_loss(g, last, target));
    g->phase = PB_PHASE_BACKWARD;
    const pb_vid seed_gradient = pb_mse_loss_bwd(g, last, target, weight, scale);
    CHECK_OK(pb_graph_differentiate(g, &last, &seed_gradient, 1, w, grads, (uint32_t)layers));
    const pb_vid control = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT), false, "control");
    const pb_vid hyper = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(PB_HYPER_COUNT), false, "hyper");
    for (int i = 0; i < layers; i++) {
        const pb_value like = g->values[w[i]];
        kept[i] = pb_graph_add_value(g, PB_CLASS_GRADIENT, compute, like.shape, true, "kept%d", i);
        pb_keep_gradient(g, grads[i], kept[i]);
    }
    pb_vid renamed[1024];
    CHECK(g->value_count + 20 * MOST < 1024);
    memset(renamed, 0xff, sizeof renamed);
    g->phase = PB_PHASE_UPDATE;
    for (int i = 0; i < layers; i++) {
        static const pb_dtype masters[] = {PB_F32, PB_I16, PB_BF16};
        const pb_shape shape = g->values[w[i]].shape;
        pb_adamw_state s = {.work = w[i], .m_scales = PB_NONE, .v_scales = PB_NONE, .stream = (uint32_t)i};
        s.master =
            format == 2 ? w[i] : pb_graph_add_value(g, PB_CLASS_STATE, masters[format], shape, true, "master%d", i);
        s.m = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, shape, true, "m%d", i);
        s.v = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, shape, true, "v%d", i);
        renamed[w[i]] = pb_adamw_on(g, kept[i], control, hyper, &s);
    }
    CHECK_OK(pb_graph_update_first(g, renamed));
    CHECK_OK(pb_graph_prune(g));
    CHECK_OK(pb_graph_recompute(g, 0));
    return g;
}

static int programs, with_recasts, of_masters, put_aside, on_host;

static bool is_of_master(const pb_graph *g, const pb_insn *insn) {
    return insn->kind == PB_INSN_RECAST && g->values[insn->in[0].value].dtype == PB_F32;
}

static int count(const pb_graph *g, const pb_program *p) {
    int recasts = 0, host = 0;
    for (uint32_t i = 0; i < p->insn_count; i++) {
        const pb_insn *insn = &p->insns[i];
        recasts += insn->kind == PB_INSN_RECAST;
        of_masters += is_of_master(g, insn);
        put_aside += insn->kind == PB_INSN_RECAST && !is_of_master(g, insn);
        host += insn->lane == PB_LANE_HOST && insn->kind != PB_INSN_WAIT;
    }
    programs++;
    with_recasts += recasts > 0;
    on_host += recasts && host;
    return recasts;
}

// --- Tampering ---

static bool judge(support_lanes *lanes, const pb_program *p, int orders, uint64_t *random) {
    for (int i = 0; i < orders; i++)
        if (!support_lanes_run(lanes, p, random)) return false;
    return true;
}

static uint32_t find_recast(const pb_graph *g, const pb_program *p, bool master, uint64_t *random) {
    uint32_t chosen = UINT32_MAX, seen = 0;
    for (uint32_t i = 0; i < p->insn_count; i++)
        if (p->insns[i].kind == PB_INSN_RECAST && is_of_master(g, &p->insns[i]) == master &&
            support_random(random, ++seen) == 0)
            chosen = i;
    return chosen;
}

// What may not be: by name and message.
static const struct {
    const char *what, *message;
} rules[] = {
    {"the master of before the update", "is neither the new master nor the working copy"},
    {"a moment in place of the master", "is neither the new master nor the working copy"},
    {"what is no working copy", "is not the working copy"},
    {"on the host", "on a lane that is not compute"},
    {"of no node", "which is not there"},
    {"of a node that makes no copy", "makes no working copy that is its master rounded"},
    {"more elements than there are", "casts elements"},
    {"before the beginning", "casts elements"},
    {"no element", "casts elements"},
    {"a further input", "input 1 is neither"},
    {"a further output", "output 1 is not"},
    {"past the end", "leaves the device slab"},
    {"at an odd place", "not aligned"},
    {"onto what it reads", "while it is read"},
    {"with scratch over the master", "its scratch covers input 0"},
    {"other elements than it says", "reads value"},
    {"before the update", "reads value"},
    {"not at all", "reads value"},
};
enum { RULES = sizeof rules / sizeof *rules };

static void break_rule(const pb_graph *g, pb_program *p, uint32_t at, int rule) {
    pb_insn *insn = &p->insns[at];
    const pb_node *node = &g->nodes[insn->node];
    const pb_insn keep = *insn;
    switch (rule) {
    case 0: insn->in[0].value = node->in[PB_ADAMW_MASTER]; break;
    case 1: insn->in[0].value = node->out[PB_ADAMW_NEW_M]; break;
    case 2: insn->out[0].value = node->out[PB_ADAMW_NEW_MASTER]; break;
    case 3: insn->lane = PB_LANE_HOST; break;
    case 4: insn->node = g->node_count; break;
    case 5:
        for (uint32_t n = 0; n < g->node_count; n++)
            if (g->nodes[n].op == PB_OP_LINEAR) insn->node = n;
        break;
    case 6: insn->count = pb_shape_count(g->values[insn->out[0].value].shape) - insn->first + 1; break;
    case 7: insn->first = -64; break;
    case 8: insn->count = 0; break;
    case 9: insn->in[1] = insn->in[0]; break;
    case 10: insn->out[1] = insn->out[0]; break;
    case 11: insn->out[0].offset = p->tier_bytes[PB_TIER_DEVICE]; break;
    case 12: insn->out[0].offset += 32; break;
    case 13: insn->out[0].offset = insn->in[0].offset; break;
    case 14:
        insn->workspace_offset = insn->in[0].offset / PB_ALIGNMENT * PB_ALIGNMENT;
        insn->workspace_bytes = PB_ALIGNMENT;
        break;
    case 15: insn->in[0].offset += 64; break;
    case 16:
        memmove(p->insns + 1, p->insns, at * sizeof *p->insns);
        p->insns[0] = keep;
        for (uint32_t i = 1; i <= at; i++)
            if (p->insns[i].kind == PB_INSN_WAIT) p->insns[i].on++;
        break;
    default:  // a WAIT in its place
        *insn = (pb_insn){.kind = PB_INSN_WAIT, .lane = PB_LANE_DOWNLOAD, .on = 0};
        while (p->insns[insn->on].kind == PB_INSN_WAIT || p->insns[insn->on].lane == PB_LANE_DOWNLOAD) insn->on++;
    }
}

static pb_program copy_of(const pb_program *p) {
    pb_program copy = *p;
    copy.insns = malloc((p->insn_count + 1) * sizeof *p->insns);
    memcpy(copy.insns, p->insns, p->insn_count * sizeof *p->insns);
    return copy;
}

static int broken[RULES];

static void try_rules(const pb_graph *g, const pb_program *p, const pb_plan_request *request, support_lanes *lanes,
                      uint64_t *random) {
    for (int r = 0; r < RULES; r++) {
        const uint32_t at = find_recast(g, p, true, random);
        if (at == UINT32_MAX) return;
        pb_program bad = copy_of(p);
        break_rule(g, &bad, at, r);
        broken[r]++;
        if (pb_program_check(g, &bad, request) == PB_OK)
            // A copy that is not made again may still lie where it did, if nothing has come there since.
            CHECK_THAT(r == RULES - 1 && judge(lanes, &bad, ORDERS, random), "accepted: %s", rules[r].what);
        else
            CHECK_THAT(strstr(pb_error_message(), rules[r].message), "%s: %s", rules[r].what, pb_error_message());
        free(bad.insns);
    }
}

static int mutated, rejected;

// A RECAST that is changed at random, or what surrounds it.
static void try_mutation(const pb_graph *g, const pb_program *p, const pb_plan_request *request, support_lanes *lanes,
                         uint64_t *random) {
    const uint32_t at = find_recast(g, p, support_random(random, 2), random);
    if (at == UINT32_MAX) return;
    pb_program bad = copy_of(p);
    pb_insn *insn = &bad.insns[at];
    const uint64_t by = (support_random(random, 2) ? 1 : -1) * (uint64_t)(64 << support_random(random, 6));
    const uint32_t other = find_recast(g, p, support_random(random, 2), random);
    switch (support_random(random, 7)) {
    case 0: insn->in[0].offset += by; break;
    case 1: insn->out[0].offset += by; break;
    case 2: insn->first += (int64_t)by; break;
    case 3: insn->count += (int64_t)by; break;
    case 4:
        if (other != UINT32_MAX) insn->in[0] = p->insns[other].in[0];
        break;
    case 5: {  // later or earlier, among its neighbours
        const uint32_t to = at + support_random(random, 8);
        if (to >= bad.insn_count) break;
        for (uint32_t i = at; i <= to; i++)
            if (bad.insns[i].kind == PB_INSN_WAIT) goto done;  // what waits would have to be renumbered
        const pb_insn keep = *insn;
        memmove(insn, insn + 1, (to - at) * sizeof *insn);
        bad.insns[to] = keep;
        for (uint32_t i = to; i < bad.insn_count; i++)
            if (bad.insns[i].kind == PB_INSN_WAIT && bad.insns[i].on >= at && bad.insns[i].on <= to) goto done;
        break;
    }
    default:  // a WAIT before it is not there
        for (uint32_t i = at; i-- > 0 && at - i < 60;)
            if (bad.insns[i].kind == PB_INSN_WAIT && bad.insns[i].lane == PB_LANE_COMPUTE) {
                bad.insns[i].on = 0;
                if (bad.insns[0].kind == PB_INSN_WAIT || bad.insns[0].lane == PB_LANE_COMPUTE) goto done;
                break;
            }
    }
    mutated++;
    if (pb_program_check(g, &bad, request) != PB_OK)
        rejected++;
    else
        CHECK_THAT(judge(lanes, &bad, ORDERS, random), "a change of instruction %u was accepted, and is wrong", at);
done:
    free(bad.insns);
}

// --- Random budgets ---

static void try_graph(uint64_t seed, const char *folder) {
    pb_graph *g = make_graph(seed, 0);
    void **expected = support_run_plainly(g, seed);
    support_lanes *lanes = support_lanes_create(g);
    pb_plan_request request = {.workspaces = pb_backend_reference()->workspaces, .budget = {UINT64_MAX}};
    pb_program *resident = NULL;
    pb_plan_refusal refusal;
    uint64_t random = seed * 7, budgets = seed * 13;
    CHECK_OK(pb_plan(g, &request, &resident));
    const uint64_t all = resident->tier_bytes[PB_TIER_DEVICE];
    // Whose processors take so long that state comes to the device.
    pb_machine streams = *pb_machine_builtin("generic");
    streams.host_adamw /= 1000;
    for (int b = 0; b < BUDGETS; b++) {
        pb_program *p = NULL;
        request.budget[PB_TIER_DEVICE] = all * (350 + support_random(&budgets, 600)) / 1000;
        request.machine = b % 3 ? &streams : NULL;
        request.refusal = &refusal;
        request.budget[PB_TIER_HOST] = b % 4 == 3 ? all / 2 : UINT64_MAX;
        request.budget[PB_TIER_NVME] = b % 4 == 3 ? UINT64_MAX : 0;
        if (pb_plan(g, &request, &p) != PB_OK) continue;
        CHECK_OK(pb_program_check(g, p, &request));
        if (count(g, p)) {
            CHECK_THAT(judge(lanes, p, ORDERS, &random), "seed %llu: the plan is no good", (unsigned long long)seed);
            // In the adversarial mode every other time.
            CHECK_THAT(support_program_agrees(g, p, seed, expected, folder, with_recasts % 2 ? seed : 0),
                       "seed %llu: the plan changes the results", (unsigned long long)seed);
            try_rules(g, p, &request, lanes, &random);
            for (int m = 0; m < MUTATIONS / BUDGETS; m++) try_mutation(g, p, &request, lanes, &random);
        }
        pb_program_destroy(p);
    }
    pb_program_destroy(resident);
    support_lanes_destroy(lanes);
    support_free(g, expected);
    pb_graph_destroy(g);
}

// Split masters, and masters that are the working weights, are never cast again.
static void try_other_formats(void) {
    for (int format = 1; format < 3; format++)
        for (uint64_t seed = 1; seed <= 4; seed++) {
            pb_graph *g = make_graph(seed, format);
            pb_plan_request request = {.workspaces = pb_backend_reference()->workspaces, .budget = {UINT64_MAX}};
            pb_program *p = NULL;
            CHECK_OK(pb_plan(g, &request, &p));
            request.budget[PB_TIER_DEVICE] = p->tier_bytes[PB_TIER_DEVICE] * 3 / 4;
            request.budget[PB_TIER_HOST] = UINT64_MAX;
            pb_program_destroy(p);
            p = NULL;
            CHECK_OK(pb_plan(g, &request, &p));
            if (p) CHECK(p->moved[PB_LINK_UPLOAD] > 0 && !count(g, p));
            pb_program_destroy(p);
            pb_graph_destroy(g);
        }
}

// --- Bits ---

// A master after an update of nothing but weight decay, of all kinds of numbers: what AdamW makes of it, and a cast.
static void compare_bits(const pb_backend *backend, pb_dtype dtype, bool skip) {
    enum { COUNT = 1 << 16 };
    static float master[COUNT], m[COUNT], v[COUNT], gradient[COUNT];
    static uint16_t work[COUNT], again[COUNT];
    uint64_t random = 99;
    for (int i = 0; i < COUNT; i++) {
        const uint32_t bits = (uint32_t)i << 16 | support_random(&random, 1 << 16);
        memcpy(&master[i], &bits, sizeof bits);
        if (i % 3 == 0) {  // halfway between two numbers of 16 bits
            const uint32_t half = (uint32_t)i << 16 | (dtype == PB_F16 ? 0x1000 : 0x8000);
            memcpy(&master[i], &half, sizeof half);
        }
        m[i] = v[i] = gradient[i] = 0;
    }
    float hyper[PB_HYPER_COUNT] = {0}, control[PB_CONTROL_COUNT] = {0};
    hyper[PB_HYPER_DECAY] = 1;
    hyper[PB_HYPER_SQRT_BIAS2] = hyper[PB_HYPER_EPS] = 1;
    control[PB_CONTROL_SKIP] = skip;
    pb_attr attr = {0};
    const pb_shape shape = PB_SHAPE1(COUNT);
    pb_kernel_args update = {
        .attr = &attr,
        .in = {{gradient, PB_F32, shape},
               {control, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT)},
               {hyper, PB_F32, PB_SHAPE1(PB_HYPER_COUNT)},
               {master, PB_F32, shape},
               {m, PB_F32, shape},
               {v, PB_F32, shape}},
        .out = {{master, PB_F32, shape}, {m, PB_F32, shape}, {v, PB_F32, shape}, {work, dtype, shape}}};
    backend->kernels[PB_OP_ADAMW](&update);
    attr.cast.dtype = dtype;
    const pb_kernel_args cast = {.attr = &attr, .in = {{master, PB_F32, shape}}, .out = {{again, dtype, shape}}};
    backend->kernels[PB_OP_CAST](&cast);
    for (int i = 0; i < COUNT; i++)
        CHECK_THAT(work[i] == again[i], "%s, %s%s: %a is %04x and cast again %04x", backend->name, pb_dtype_name(dtype),
                   skip ? ", skipped" : "", (double)master[i], work[i], again[i]);
}

int main(int argc, char **argv) {
    char folder[] = "/tmp/pagebooth-recasts-XXXXXX";
    if (!mkdtemp(folder)) return 1;
    for (int skip = 0; skip < 2; skip++)
        for (int d = 0; d < 2; d++) {
            compare_bits(pb_backend_cpu(), d ? PB_BF16 : PB_F16, skip);
            compare_bits(pb_backend_reference(), d ? PB_BF16 : PB_F16, skip);
        }
    const uint64_t graphs = argc > 1 ? strtoull(argv[1], NULL, 10) : GRAPHS;
    for (uint64_t seed = 1; seed <= graphs; seed++) try_graph(seed, folder);
    try_other_formats();
    rmdir(folder);
    printf(
        "%d programs, %d of them with recasts: %d of masters, %d of what was put aside; %d with updates on the host\n",
        programs, with_recasts, of_masters, put_aside, on_host);
    printf("%d changes at random, %d rejected\n", mutated, rejected);
    for (int r = 0; r < RULES; r++) CHECK_THAT(broken[r] > 5, "never tried: %s", rules[r].what);
    CHECK(with_recasts > 30 && of_masters > 100 && put_aside > 10 && mutated > 400 && rejected > mutated / 2);
    return CHECK_DONE();
}
