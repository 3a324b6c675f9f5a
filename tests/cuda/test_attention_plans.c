// test: links=cuda,train,nn,graph,io,cpu,base timeout=900
// cuDNN's plans for attention and its gradient, for all shapes of the steps and VAEs of SD 1.4, SD 2.1 and SDXL, on
// cards that are not here: which exist, and that their scratch is what the planner sets aside. cuDNN compiles these
// kernels, with a driver that only pretends (pretended_driver.c). Skipped where there is no cuDNN.
#include <dlfcn.h>

#include "check.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_attention_op.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_target.h"
#include "kernels/cuda/cudnn_attention.h"
#include "nn/module.h"
#include "train/architecture.h"

enum { MOST_SHAPES = 256 };

typedef struct card {
    const char *name;
    bool all;  // else one shape for each size of head: its kernels are another card's
    pb_cudnn_descriptor properties;
    int plans, none, chosen;
    uint64_t scratch;  // the most of those that are chosen
} card;
static card cards[] = {{.name = "rtx3060"},
                       {.name = "rtx3090", .all = true},
                       {.name = "rtx4090", .all = true},
                       {.name = "h200", .all = true}};
enum { CARDS = sizeof cards / sizeof *cards };

static const pb_cudnn_api *api;

static struct {
    pb_cudnn_attention_shape shape;
    bool first;  // of its size of head, gradient or not
} shapes[MOST_SHAPES];
static int shape_count;

static bool is_same(const pb_cudnn_attention_shape *a, const pb_cudnn_attention_shape *b) {
    return a->gradient == b->gradient && a->dtype == b->dtype && a->lse == b->lse && a->images == b->images &&
           a->heads == b->heads && a->width == b->width && a->queries == b->queries && a->keys == b->keys;
}

// Every attention op that is cuDNN's to do where it can.
static void collect(const pb_graph *g) {
    CHECK_OK(g->status);
    for (uint32_t n = 0; n < g->node_count; n++) {
        const pb_node *node = &g->nodes[n];
        if (node->op != PB_OP_ATTENTION && node->op != PB_OP_ATTENTION_BWD) continue;
        pb_kernel_args args;
        pb_node_kernel_args(g, node, &args);
        const pb_cudnn_attention_shape s = pb_cuda_attention_shape_of(node->op, &args);
        bool known = false, first = true;
        for (int i = 0; i < shape_count; i++) {
            known = known || is_same(&shapes[i].shape, &s);
            first = first && !(shapes[i].shape.width == s.width && shapes[i].shape.gradient == s.gradient);
        }
        // The planner's scratch is our kernel's, and on cards where cuDNN is asked cuDNN's beside it.
        for (int c = 0; c < CARDS; c++) {
            pb_cuda_target_set(pb_cuda_target_named(cards[c].name));
            const int capability = pb_cuda_target_get()->capability;
            const uint64_t cudnns =
                pb_cuda_attention_is_cudnns(node->op, &args, capability) ? pb_cudnn_attention_scratch(&s) : 0;
            cards[c].chosen += pb_cuda_attention_is_cudnns(node->op, &args, capability);
            if (cudnns > cards[c].scratch) cards[c].scratch = cudnns;
            CHECK(cudnns <= UINT64_C(32) << 20);
            const uint64_t own = s.gradient ? pb_cuda_attention_own_bwd_workspace(&args) : 0;
            CHECK(pb_backend_cuda()->workspaces[node->op](&args) >= own + cudnns);
        }
        if (known) continue;
        CHECK(shape_count < MOST_SHAPES);
        if (shape_count == MOST_SHAPES) return;
        shapes[shape_count].shape = s;
        shapes[shape_count++].first = first;
    }
}

// What cuDNN has: the forward op for every size of head from sm_80 on, its gradient to 128 channels, on sm_90 to 256.
static bool is_expected(const card *c, const pb_cudnn_attention_shape *s) {
    const int capability = pb_cuda_target_named(c->name)->capability;
    return !s->gradient || s->width <= (capability == 90 ? 256 : 128);
}

static void check_plan(card *c, const pb_cudnn_attention_shape *s) {
    const pb_cudnn_place place = {.properties = c->properties};
    pb_cudnn_plan plan = {0};
    char what[160];
    snprintf(what, sizeof what, "%s, %s%s, %lld images, %lld heads of %lld, %lld x %lld", c->name,
             pb_dtype_name(s->dtype), s->gradient ? ", gradient" : "", (long long)s->images, (long long)s->heads,
             (long long)s->width, (long long)s->queries, (long long)s->keys);
    const pb_status status = pb_cudnn_attention_plan_create(api, place, s, INT64_MAX, &plan);
    CHECK_THAT(status == PB_OK, "%s: %s", what, pb_error_message());
    CHECK_THAT((plan.plan != NULL) == is_expected(c, s), "%s: %s plan", what, plan.plan ? "a" : "no");
    c->plans += plan.plan != NULL;
    c->none += plan.plan == NULL;
    if (plan.plan) {
        const uint64_t set_aside = pb_cudnn_attention_scratch(s);
        CHECK_THAT((uint64_t)plan.workspace_bytes <= set_aside, "%s: %lld bytes of scratch, %llu set aside", what,
                   (long long)plan.workspace_bytes, (unsigned long long)set_aside);
        CHECK_THAT(set_aside <= (uint64_t)plan.workspace_bytes * 3 / 2 + 1024,
                   "%s: %lld bytes of scratch, %llu set aside", what, (long long)plan.workspace_bytes,
                   (unsigned long long)set_aside);
        CHECK(plan.tensor_core);
    }
    pb_cudnn_plan_destroy(&plan);
}

// A call's pointers are taken by every plan: no address is left out, none is too many.
static void check_pack(const pb_cudnn_attention_shape *s) {
    const pb_cudnn_place place = {.properties = cards[2].properties};
    pb_cudnn_plan plan = {0};
    pb_cudnn_descriptor pack = NULL;
    static char memory[12][64] __attribute__((aligned(16)));
    float scale = 1, one = 1;
    const pb_cudnn_attention_pointers p = {memory[0], memory[1], memory[2], memory[3], memory[4], memory[5],
                                           memory[6], memory[7], memory[8], memory[9], &scale,    &one};
    CHECK_OK(pb_cudnn_attention_plan_create(api, place, s, INT64_MAX, &plan));
    CHECK(plan.plan != NULL);
    if (!plan.plan) return;
    CHECK_OK(pb_cudnn_attention_pack_create(&plan, s, &p, memory[10], &pack));
    if (pack) api->destroy_descriptor(pack);
    // With less scratch than it wants there is no plan, and our kernel does it.
    if (plan.workspace_bytes > 0) {
        pb_cudnn_plan less = {0};
        CHECK_OK(pb_cudnn_attention_plan_create(api, place, s, plan.workspace_bytes - 1, &less));
        CHECK(!less.plan);
        pb_cudnn_plan_destroy(&less);
    }
    pb_cudnn_plan_destroy(&plan);
}

static void collect_step(pb_arena *arena, const char *preset, pb_dtype dtype, int size, bool vae) {
    pb_architecture a;
    CHECK_OK(pb_architecture_preset(arena, preset, &a));
    const pb_step_request request = {
        .unet = &a.unet, .compute = dtype, .batch = 1, .latent_h = size / 8, .latent_w = size / 8, .tokens = 77};
    pb_step_graph *step = NULL;
    CHECK_OK(pb_step_graph_create(&request, &step));
    if (step) collect(step->graph);
    pb_step_graph_destroy(step);
    if (!vae) return;
    pb_graph *g = NULL;
    CHECK_OK(pb_graph_create(&g));
    pb_module *module = pb_module_create(g, dtype, false);
    pb_vae_decode(module, &a.vae,
                  pb_graph_add_value(g, PB_CLASS_INPUT, dtype, PB_SHAPE4(1, size / 8, size / 8, 4), false, "latents"));
    collect(g);
    pb_graph_destroy(g);
}

int main(void) {
    // The name that cuDNN will look for is taken from here on.
    if (!dlopen(PB_PRETENDED_DRIVER, RTLD_NOW | RTLD_GLOBAL)) {
        printf("failed: %s\n", dlerror());
        return 1;
    }
    if (pb_cudnn_load(&api) != PB_OK || api->version() < 91600) {
        printf("skipped: %s\n", api ? "cuDNN before 9.16" : pb_error_message());
        return 77;
    }
    pb_arena *arena = pb_arena_create();
    if (!arena) return 1;
    collect_step(arena, "sd14", PB_F16, 512, true);
    collect_step(arena, "sd21", PB_F16, 768, false);
    collect_step(arena, "sdxl", PB_F16, 1024, false);
    for (int c = 0; c < CARDS; c++) {
        char json[1024];
        pb_cuda_target_json(pb_cuda_target_named(cards[c].name), json, sizeof json);
        CHECK_OK(pb_cudnn_properties_create(api, json, &cards[c].properties));
        for (int i = 0; i < shape_count; i++)
            if (cards[c].all || shapes[i].first) check_plan(&cards[c], &shapes[i].shape);
    }
    const pb_cudnn_attention_shape forward = {
        .dtype = PB_BF16, .images = 2, .heads = 8, .width = 80, .queries = 1024, .keys = 77, .lse = true};
    pb_cudnn_attention_shape s = forward;
    check_pack(&s);
    s.lse = false;
    check_pack(&s);
    s.lse = s.gradient = true;
    check_pack(&s);
    for (int c = 0; c < CARDS; c++) {
        printf("%s: %d plans, none for %d; preferred to our kernels for %d ops, with at most %.1f MiB of scratch\n",
               cards[c].name, cards[c].plans, cards[c].none, cards[c].chosen, (double)cards[c].scratch / 0x1p20);
        api->destroy_descriptor(cards[c].properties);
    }
    pb_arena_destroy(arena);
    return CHECK_DONE();
}
