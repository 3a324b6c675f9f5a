// test: links=train,nn,exec,io,cpu,plan,graph,base timeout=300
// The plans of published models against figures that were computed elsewhere: parameters and FLOPs by PyTorch's counter
// (tests/golden/unet_flops.py), bytes by the table in docs/design.md.
#include "check.h"
#include "plan/plan.h"
#include "train/architecture.h"

typedef struct figures {
    const char *preset;
    uint64_t parameters;
    double flops_forward, flops_backward;  // of one 512x512 picture
} figures;

static const figures models[] = {
    {"sd14", 859520964, 803273441280.0, 1666525757440.0},
    {"sd21", 865910724, 804257464320.0, 1667509780480.0},
};

// fp16 with fp32 master and moments, everything on the device, in GiB (docs/design.md), 64x64 latents.
static const struct {
    int batch;
    double device;
} sd14_table[] = {{1, 12.9}, {2, 13.1}, {4, 13.4}, {8, 15.1}, {16, 18.9}, {32, 26.6}};

static pb_program *plan(pb_step_graph **step, const pb_architecture *a, int batch) {
    const pb_step_request request = {
        .unet = &a->unet, .compute = PB_F16, .batch = batch, .latent_h = 64, .latent_w = 64, .tokens = 77};
    const pb_plan_request limits = {.budget = {UINT64_MAX}};
    pb_program *program = NULL;
    CHECK_OK(pb_step_graph_create(&request, step));
    CHECK_OK(pb_plan((*step)->graph, &limits, &program));
    CHECK_OK(pb_program_check((*step)->graph, program, &limits));
    return program;
}

// With updates deferred, on an RTX 3090 with less of its memory: what moves each way, held against the independent
// model's fewest (scripts/cost_model.py). Without copies that are made again it would be 4.3 GB, and 2.9 GB.
static const struct {
    int batch;
    double device, recompute, fewest;  // GiB, FLOPs per byte, bytes
} paged_table[] = {{4, 8, 650, 3.48e9}, {16, 14, 650, 0}};

static void check_paged(const pb_architecture *a, int batch, double device, double recompute, double fewest) {
    const pb_step_request request = {.unet = &a->unet,
                                     .compute = PB_F16,
                                     .batch = batch,
                                     .latent_h = 64,
                                     .latent_w = 64,
                                     .tokens = 77,
                                     .deferred = true,
                                     .recompute = recompute};
    const pb_plan_request limits = {.budget = {(uint64_t)(device * 0x1p30), (uint64_t)48 << 30, 0},
                                    .machine = pb_machine_builtin("rtx3090")};
    pb_step_graph *step = NULL;
    pb_program *program = NULL;
    CHECK_OK(pb_step_graph_create(&request, &step));
    CHECK_OK(pb_plan(step->graph, &limits, &program));
    if (!program) return;
    CHECK_OK(pb_program_check(step->graph, program, &limits));
    uint64_t again = 0;
    for (uint32_t i = 0; i < program->insn_count; i++)
        if (program->insns[i].kind == PB_INSN_RECAST) again += (uint64_t)program->insns[i].count;
    CHECK_THAT(again > 100000000, "batch %d: only %llu elements are cast again", batch, (unsigned long long)again);
    for (int link = PB_LINK_UPLOAD; link <= PB_LINK_DOWNLOAD; link++)
        CHECK_THAT((double)program->moved[link] <= 1.15 * fewest, "batch %d in %.0f GiB moves %llu bytes", batch,
                   device, (unsigned long long)program->moved[link]);
    pb_program_destroy(program);
    pb_step_graph_destroy(step);
}

int main(void) {
    pb_arena *arena = pb_arena_create();
    pb_architecture a;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const figures *f = &models[i];
        CHECK_OK(pb_architecture_preset(arena, f->preset, &a));
        pb_step_graph *step = NULL;
        pb_program *program = plan(&step, &a, 1);
        CHECK(pb_step_graph_parameters(step) == f->parameters);
        const double forward = pb_graph_flops(step->graph, PB_PHASE_FORWARD);
        const double backward = pb_graph_flops(step->graph, PB_PHASE_BACKWARD);
        CHECK_THAT(forward == f->flops_forward, "%s: %.0f FLOPs forward, not %.0f", f->preset, forward,
                   f->flops_forward);
        CHECK_THAT(backward == f->flops_backward, "%s: %.0f FLOPs backward, not %.0f", f->preset, backward,
                   f->flops_backward);
        CHECK_THAT(program->kept_activations > 500000000 && program->kept_activations < 520000000,
                   "%s keeps %llu bytes", f->preset, (unsigned long long)program->kept_activations);
        pb_program_destroy(program);
        pb_step_graph_destroy(step);
    }
    CHECK_OK(pb_architecture_preset(arena, "sd14", &a));
    for (size_t i = 0; i < sizeof sd14_table / sizeof *sd14_table; i++) {
        pb_step_graph *step = NULL;
        pb_program *program = plan(&step, &a, sd14_table[i].batch);
        const double device = (double)program->tier_bytes[PB_TIER_DEVICE] / 0x1p30;
        // Less is fine: weights make room for gradients between their last use and their update.
        CHECK_THAT(device < 1.015 * sd14_table[i].device && device > 0.9 * sd14_table[i].device,
                   "batch %d takes %.3f GiB, not %.1f", sd14_table[i].batch, device, sd14_table[i].device);
        uint64_t classes = program->padding_bytes[PB_TIER_DEVICE];
        for (int c = 0; c < PB_CLASS_COUNT; c++) classes += program->peak_by_class[PB_TIER_DEVICE][c];
        CHECK(classes == program->tier_bytes[PB_TIER_DEVICE]);
        pb_program_destroy(program);
        pb_step_graph_destroy(step);
    }
    for (size_t i = 0; i < sizeof paged_table / sizeof *paged_table; i++)
        check_paged(&a, paged_table[i].batch, paged_table[i].device, paged_table[i].recompute, paged_table[i].fewest);
    pb_arena_destroy(arena);
    return CHECK_DONE();
}
