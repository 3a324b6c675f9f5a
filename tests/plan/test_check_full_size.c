// test: links=train,nn,exec,ref,plan,graph,base timeout=300
// Paged programs of full-size models are accepted; how long that takes is printed, not asserted.
#include "base/clock.h"
#include "check.h"
#include "plan/support_paged.h"
#include "train/architecture.h"
#include "train/step_graph.h"

static void try_model(const char *preset, int size) {
    pb_arena *arena = pb_arena_create();
    pb_architecture a;
    CHECK_OK(pb_architecture_preset(arena, preset, &a));
    const pb_step_request step_request = {
        .unet = &a.unet, .compute = PB_F16, .batch = 1, .latent_h = size, .latent_w = size, .tokens = 77};
    pb_step_graph *step = NULL;
    CHECK_OK(pb_step_graph_create(&step_request, &step));
    pb_plan_request request = {.budget = {UINT64_MAX}};
    pb_program *resident = NULL;
    CHECK_OK(pb_plan(step->graph, &request, &resident));
    const support_paging paging = {.seed = 1, .chain = true};
    pb_program *paged = support_page(step->graph, resident, &paging);
    memcpy(request.budget, paged->tier_bytes, sizeof request.budget);
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        const double start = pb_seconds_now();
        CHECK_OK(pb_program_check(step->graph, paged, &request));
        if (pb_seconds_now() - start < best) best = pb_seconds_now() - start;
    }
    uint32_t waits = 0, updates = 0;
    for (uint32_t i = 0; i < paged->insn_count; i++) {
        waits += paged->insns[i].kind == PB_INSN_WAIT;
        updates += paged->insns[i].kind == PB_INSN_UPDATE;
    }
    printf("%s: %u instructions, %u of them WAITs and %u UPDATEs, %u extents: checked in %.0f ms\n", preset,
           paged->insn_count, waits, updates, paged->extent_count, best * 1e3);
    // Without a single WAIT it is none.
    uint32_t kept = 0;
    for (uint32_t i = 0; i < paged->insn_count; i++)
        if (paged->insns[i].kind != PB_INSN_WAIT) paged->insns[kept++] = paged->insns[i];
    paged->insn_count = kept;
    CHECK(pb_program_check(step->graph, paged, &request) == PB_ERR_INTERNAL);
    pb_program_destroy(paged);
    pb_program_destroy(resident);
    pb_step_graph_destroy(step);
    pb_arena_destroy(arena);
}

int main(void) {
    try_model("sd14", 64);
    try_model("sdxl", 128);
    return CHECK_DONE();
}
