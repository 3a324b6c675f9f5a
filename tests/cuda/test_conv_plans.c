// test: links=cuda,train,nn,graph,io,cpu,base timeout=600
// cuDNN's plans for every convolution of the training steps and of the VAE of SD 1.4, SD 2.1 and SDXL, on cards that
// are not here: each has a deterministic plan within the scratch that a convolution may have; in 16 bits, on the
// tensor cores. Prints the most scratch per card. Skipped where there is no cuDNN.
#include "check.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_conv.h"
#include "kernels/cuda/cuda_target.h"
#include "nn/module.h"
#include "train/architecture.h"

static const char *const cards[] = {"rtx3060", "rtx3090", "rtx4090", "h200"};
enum { CARDS = sizeof cards / sizeof *cards };

// By card, and by 16-bit or fp32 storage.
static struct {
    uint64_t scratch;
    int plans, later;  // later: not cuDNN's first choice
} seen[CARDS][2];

static bool is_convolution(pb_opcode op) {
    return op == PB_OP_CONV2D || op == PB_OP_CONV2D_BWD_DATA || op == PB_OP_CONV2D_BWD_WEIGHT;
}

static void check_node(const pb_graph *g, const pb_node *node, int card, const char *what) {
    pb_kernel_args args;
    pb_cuda_conv_facts facts = {0};
    bool asked;
    pb_node_kernel_args(g, node, &args);
    const pb_status status = pb_cuda_conv_look_up(node->op, &args, &facts, &asked);
    CHECK_THAT(status == PB_OK, "%s, %s, %s: %s", cards[card], what, pb_op_name(node->op), pb_error_message());
    if (status != PB_OK || facts.product) return;
    // The planner's number holds the library's scratch, and the backend says that it can do the op.
    CHECK(pb_backend_cuda()->workspaces[node->op](&args) >= facts.scratch);
    CHECK_OK(pb_backend_cuda()->supports(node->op, &args));
    const bool wide = args.in[0].dtype == PB_F32;
    // The convolutions to and from pictures and latents have 3, 4 or 8 channels on one side, and little to do.
    const bool narrow = pb_shape_last(args.in[0].shape) < 16 || pb_shape_last(args.in[1].shape) < 16 ||
                        pb_shape_last(args.out[0].shape) < 16;
    CHECK_THAT(wide || narrow || facts.tensor_core, "%s, %s, %s: no tensor cores", cards[card], what,
               pb_op_name(node->op));
    seen[card][wide].plans++;
    seen[card][wide].later += facts.rank > 0;
    if (facts.scratch > seen[card][wide].scratch) seen[card][wide].scratch = facts.scratch;
}

static void check_graph(const pb_graph *g, const char *what) {
    CHECK_OK(g->status);
    for (int card = 0; card < CARDS; card++) {
        pb_cuda_target_set(pb_cuda_target_named(cards[card]));
        int found = 0;
        for (uint32_t n = 0; n < g->node_count; n++) {
            if (!is_convolution(g->nodes[n].op)) continue;
            check_node(g, &g->nodes[n], card, what);
            found++;
        }
        CHECK(found > 0);
    }
}

static void check_step(const pb_architecture *a, const char *preset, pb_dtype dtype, int size, int batch) {
    char what[64];
    snprintf(what, sizeof what, "%s at %d, batch %d, %s", preset, size, batch, pb_dtype_name(dtype));
    const pb_step_request request = {
        .unet = &a->unet, .compute = dtype, .batch = batch, .latent_h = size / 8, .latent_w = size / 8, .tokens = 77};
    pb_step_graph *step = NULL;
    CHECK_OK(pb_step_graph_create(&request, &step));
    if (step) check_graph(step->graph, what);
    pb_step_graph_destroy(step);
}

static void check_vae(const pb_architecture *a, pb_dtype dtype, int size) {
    pb_graph *g = NULL;
    CHECK_OK(pb_graph_create(&g));
    pb_module *module = pb_module_create(g, dtype, false);
    pb_vae_encode(module, &a->vae,
                  pb_graph_add_value(g, PB_CLASS_INPUT, dtype, PB_SHAPE4(1, size, size, 3), false, "pixels"));
    pb_vae_decode(module, &a->vae,
                  pb_graph_add_value(g, PB_CLASS_INPUT, dtype, PB_SHAPE4(1, size / 8, size / 8, 4), false, "latents"));
    check_graph(g, "the VAE");
    pb_graph_destroy(g);
}

static bool cudnn_is_here(void) {
    const pb_attr attr = {.conv = {.kh = 3,
                                   .kw = 3,
                                   .stride = 1,
                                   .pad_top = 1,
                                   .pad_left = 1,
                                   .pad_bottom = 1,
                                   .pad_right = 1,
                                   .in_h = 8,
                                   .in_w = 8}};
    const pb_tensor x = {NULL, PB_F16, PB_SHAPE4(1, 8, 8, 16)}, w = {NULL, PB_F16, PB_SHAPE4(16, 3, 3, 16)};
    const pb_kernel_args args = {.attr = &attr, .in = {x, w}, .out = {x}};
    pb_cuda_conv_facts facts;
    bool asked;
    pb_cuda_conv_look_up(PB_OP_CONV2D, &args, &facts, &asked);
    return asked;
}

int main(void) {
    static const struct {
        const char *preset;
        pb_dtype dtype;
        int size, batch;
    } steps[] = {
        {"sd14", PB_F16, 512, 1},  {"sd14", PB_F16, 512, 4},  {"sd14", PB_F16, 768, 1}, {"sd14", PB_BF16, 512, 2},
        {"sd14", PB_F32, 512, 1},  {"sd21", PB_F16, 512, 2},  {"sd21", PB_F16, 768, 1}, {"sd21", PB_BF16, 768, 1},
        {"sdxl", PB_F16, 1024, 1}, {"sdxl", PB_BF16, 768, 2}, {"sdxl", PB_F16, 512, 1},
    };
    if (!cudnn_is_here()) {
        printf("skipped: %s\n", pb_error_message());
        return 77;
    }
    pb_arena *arena = pb_arena_create();
    for (size_t i = 0; arena && i < sizeof steps / sizeof *steps; i++) {
        pb_architecture a;
        CHECK_OK(pb_architecture_preset(arena, steps[i].preset, &a));
        check_step(&a, steps[i].preset, steps[i].dtype, steps[i].size, steps[i].batch);
        if (strcmp(steps[i].preset, "sdxl") != 0) check_vae(&a, steps[i].dtype, steps[i].size);
    }
    pb_arena_destroy(arena);
    // What is set aside where cuDNN cannot be asked: enough for all, with any version.
    for (int card = 0; card < CARDS; card++)
        for (int wide = 0; wide < 2; wide++) {
            const int capability = pb_cuda_target_named(cards[card])->capability;
            const uint64_t unasked = pb_cuda_conv_scratch_unasked(capability, wide);
            CHECK_THAT(unasked >= seen[card][wide].scratch, "%s: %.1f MiB set aside, %.1f MiB wanted", cards[card],
                       (double)unasked / 0x1p20, (double)seen[card][wide].scratch / 0x1p20);
            CHECK(unasked < PB_CUDA_CONV_SCRATCH_MOST);
        }
    for (int card = 0; card < CARDS; card++)
        for (int wide = 0; wide < 2; wide++)
            printf("%s, %s: %d convolutions, at most %.1f MiB of scratch, %d not by cuDNN's first choice\n",
                   cards[card], wide ? "fp32" : "16 bit", seen[card][wide].plans,
                   (double)seen[card][wide].scratch / 0x1p20, seen[card][wide].later);
    return CHECK_DONE();
}
