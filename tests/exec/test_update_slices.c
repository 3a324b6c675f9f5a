// test: links=exec,cpu,ref,plan,graph,offload,base with=plan/support_graphs.c
// Updates in slices, on the device and on the host, give the bits of whole ones in every format that AdamW keeps its
// state in: fp32, split masters, bf16 with stochastic rounding, 8-bit moments with their scales.
#include <stdlib.h>

#include "check.h"
#include "exec/support_paging.h"
#include "exec/support_runs.h"
#include "graph/optimizer.h"
#include "offload/store.h"
#include "scratch.h"

enum { PROGRAMS = 10 };

static pb_vid state(pb_graph *g, pb_dtype dtype, int64_t count, const char *name, uint32_t stream) {
    return pb_graph_add_value(g, PB_CLASS_STATE, dtype, PB_SHAPE1(count), true, "%s%u", name, stream);
}

// One parameter of `count` elements whose gradient is an input.
static void add_parameter(pb_graph *g, pb_vid control, pb_vid hyper, int64_t count, pb_dtype master, pb_dtype work,
                          pb_dtype moments, uint32_t stream) {
    const int64_t blocks = (count + PB_STATE_BLOCK - 1) / PB_STATE_BLOCK;
    const pb_vid gradient =
        pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(count), false, "gradient%u", stream);
    pb_adamw_state s = {.m_scales = PB_NONE, .v_scales = PB_NONE, .stream = stream};
    s.master = state(g, master, count, "master", stream);
    s.work = work == master ? s.master : state(g, work, count, "work", stream);
    s.m = state(g, moments, count, "m", stream);
    s.v = state(g, moments, count, "v", stream);
    if (moments == PB_U8) {
        s.m_scales = state(g, PB_F32, blocks, "m_scales", stream);
        s.v_scales = state(g, PB_F32, blocks, "v_scales", stream);
    }
    pb_adamw_on(g, gradient, control, hyper, &s);
}

static pb_graph *make_graph(void) {
    pb_graph *g = NULL;
    if (pb_graph_create(&g) != PB_OK) return NULL;
    g->phase = PB_PHASE_UPDATE;
    const pb_vid norm = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F64, PB_SHAPE1(1), false, "norm");
    const pb_vid hyper = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(PB_HYPER_COUNT), false, "hyper");
    const pb_vid control = pb_step_control(g, norm, hyper);
    pb_graph_mark_output(g, control);
    add_parameter(g, control, hyper, 1500, PB_F32, PB_F32, PB_F32, 0);
    add_parameter(g, control, hyper, 2048, PB_F32, PB_F16, PB_F32, 1);
    add_parameter(g, control, hyper, 1111, PB_I16, PB_BF16, PB_F32, 2);
    add_parameter(g, control, hyper, 5000, PB_BF16, PB_BF16, PB_BF16, 3);
    add_parameter(g, control, hyper, 3333, PB_F32, PB_F32, PB_U8, 4);
    add_parameter(g, control, hyper, 4096, PB_I8, PB_BF16, PB_U8, 5);
    add_parameter(g, control, hyper, 100, PB_I16, PB_F16, PB_U8, 6);
    return g;
}

int main(void) {
    pb_graph *g = make_graph();
    CHECK_THAT(g && g->status == PB_OK, "%s", pb_error_message());
    int slices[2] = {0};
    for (uint64_t seed = 1; seed <= PROGRAMS; seed++) {
        const pb_backend *backend = seed % 3 ? pb_backend_cpu() : pb_backend_reference();
        pb_status status;
        pb_program *whole = support_paging_program(g, backend, 0);
        unsigned char *expected = support_run_paged(g, backend, whole, &(paged_run){0}, seed, &status);
        CHECK_THAT(status == PB_OK && !whole->tier_bytes[PB_TIER_NVME], "%s", pb_error_message());
        pb_program *p = support_paging_program(g, backend, seed);
        CHECK(p);
        for (uint32_t i = 0; i < p->insn_count; i++)
            if (p->insns[i].kind == PB_INSN_UPDATE && p->insns[i].first) slices[p->insns[i].lane == PB_LANE_HOST]++;
        const paged_run how = {.directory = scratch_path("store"), .stress = seed % 2 ? 0 : seed};
        unsigned char *result = support_run_paged(g, backend, p, &how, seed, &status);
        CHECK_THAT(status == PB_OK, "%s", pb_error_message());
        CHECK(result && expected && !memcmp(result, expected, support_result_bytes(g)));
        free(result);
        free(expected);
        pb_program_destroy(p);
        pb_program_destroy(whole);
    }
    printf("%d slices on the device, %d on the host\n", slices[0], slices[1]);
    CHECK(slices[0] > 5 && slices[1] > 5);
    pb_graph_destroy(g);
    scratch_remove();
    return CHECK_DONE();
}
