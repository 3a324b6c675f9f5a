// test: links=nn,graph,base
// The forward graphs of the presets: parameters as published, shapes of outputs, wrong inputs refused.
#include "check.h"
#include "nn/module.h"
#include "nn/preset.h"

typedef struct fixture {
    pb_arena *arena;
    pb_graph *graph;
    pb_module *module;
} fixture;

static fixture make_fixture(void) {
    fixture f = {.arena = pb_arena_create()};
    CHECK_OK(pb_graph_create(&f.graph));
    f.module = pb_module_create(f.graph, PB_F16, false);
    return f;
}

static void drop_fixture(fixture *f) {
    pb_graph_destroy(f->graph);
    pb_arena_destroy(f->arena);
}

static const pb_json *preset(fixture *f, const char *name, const char *part) {
    const char *text = pb_preset_json(name, part);
    const pb_json *json = NULL;
    CHECK(text);
    if (text) CHECK_OK(pb_json_parse(f->arena, text, strlen(text), name, &json));
    return json;
}

static pb_vid input(fixture *f, pb_dtype dtype, pb_shape shape) {
    return pb_graph_add_value(f->graph, PB_CLASS_INPUT, dtype, shape, false, "input");
}

static bool has_shape(const fixture *f, pb_vid v, pb_shape shape) {
    CHECK_OK(f->graph->status);
    return f->graph->status == PB_OK && pb_shape_equal(pb_graph_value(f->graph, v)->shape, shape);
}

static pb_vid build_unet(fixture *f, const pb_unet_config *c, pb_shape sample) {
    const int64_t n = sample.dim[0];
    pb_vid added = PB_NONE;
    if (c->addition_input_dim) {
        pb_vid ids[PB_TIME_IDS];
        for (int i = 0; i < PB_TIME_IDS; i++) ids[i] = input(f, PB_F32, PB_SHAPE1(n));
        const int pooled = c->addition_input_dim - PB_TIME_IDS * c->addition_time_embed_dim;
        added = pb_unet_added(f->module, c, input(f, PB_F16, PB_SHAPE2(n, pooled)), ids, PB_TIME_IDS);
    }
    return pb_unet_forward(f->module, c, input(f, PB_F16, sample), input(f, PB_F32, PB_SHAPE1(n)),
                           input(f, PB_F16, PB_SHAPE3(n, 77, c->cross_attention_dim)), added);
}

// Published sizes: sums of the shapes in the models' safetensors headers.
static void check_unet(const char *name, uint64_t elements, uint32_t tensors) {
    fixture f = make_fixture();
    pb_unet_config c;
    CHECK_OK(pb_unet_config_read(preset(&f, name, "unet"), name, &c));
    // 9 and 11 are no multiples of 8: each level's size is what the skip connection has.
    CHECK(has_shape(&f, build_unet(&f, &c, PB_SHAPE4(2, 9, 11, 4)), PB_SHAPE4(2, 9, 11, 4)));
    CHECK_THAT(pb_module_param_elements(f.module) == elements, "%s has %llu elements", name,
               (unsigned long long)pb_module_param_elements(f.module));
    CHECK_THAT(f.module->param_count == tensors, "%s has %u tensors", name, f.module->param_count);
    drop_fixture(&f);
}

static void check_clip(const char *name, uint64_t elements) {
    fixture f = make_fixture();
    pb_clip_config c;
    CHECK_OK(pb_clip_config_read(preset(&f, name, "text_encoder"), name, &c));
    const pb_vid y = pb_clip_forward(f.module, &c, input(&f, PB_I32, PB_SHAPE2(3, 77)));
    CHECK(has_shape(&f, y, PB_SHAPE3(3, 77, c.hidden)));
    CHECK_THAT(pb_module_param_elements(f.module) == elements, "%s's text encoder has %llu elements", name,
               (unsigned long long)pb_module_param_elements(f.module));
    drop_fixture(&f);
}

static void check_vae(const char *name, uint64_t elements) {
    fixture f = make_fixture();
    pb_vae_config c;
    CHECK_OK(pb_vae_config_read(preset(&f, name, "vae"), name, &c));
    const int factor = pb_vae_factor(&c);
    const pb_vid moments = pb_vae_encode(f.module, &c, input(&f, PB_F16, PB_SHAPE4(2, 8 * factor, 6 * factor + 1, 3)));
    CHECK(has_shape(&f, moments, PB_SHAPE4(2, 8, 6, 8)));
    const pb_vid pixels = pb_vae_decode(f.module, &c, input(&f, PB_F16, PB_SHAPE4(1, 5, 3, 4)));
    CHECK(has_shape(&f, pixels, PB_SHAPE4(1, 5 * factor, 3 * factor, 3)));
    CHECK_THAT(pb_module_param_elements(f.module) == elements, "%s's VAE has %llu elements", name,
               (unsigned long long)pb_module_param_elements(f.module));
    drop_fixture(&f);
}

// What a caller hands in is checked where it enters, with its name.
static void check_inputs(void) {
    static const struct {
        int64_t channels, width;
        const char *name;
    } wrong[] = {{5, 768, "sample"}, {4, 767, "encoder_hidden_states"}};
    for (int i = 0; i < 2; i++) {
        fixture f = make_fixture();
        pb_unet_config c;
        CHECK_OK(pb_unet_config_read(preset(&f, "sd14", "unet"), "sd14", &c));
        pb_unet_forward(f.module, &c, input(&f, PB_F16, PB_SHAPE4(1, 8, 8, wrong[i].channels)),
                        input(&f, PB_F32, PB_SHAPE1(1)), input(&f, PB_F16, PB_SHAPE3(1, 77, wrong[i].width)), PB_NONE);
        CHECK(f.graph->status == PB_ERR_FORMAT);
        CHECK_THAT(strstr(pb_error_message(), wrong[i].name), "message: %s", pb_error_message());
        drop_fixture(&f);
    }
    fixture f = make_fixture();
    pb_clip_config c;
    CHECK_OK(pb_clip_config_read(preset(&f, "sd14", "text_encoder"), "sd14", &c));
    pb_clip_forward(f.module, &c, input(&f, PB_I32, PB_SHAPE2(1, 78)));
    CHECK(f.graph->status == PB_ERR_FORMAT);
    drop_fixture(&f);
}

int main(void) {
    check_unet("sd14", 859520964, 686);
    check_unet("sd21", 865910724, 686);
    check_unet("sdxl", 2567463684, 1680);
    check_clip("sd14", 123060480);
    check_clip("sd21", 340387840);
    check_vae("sd14", 83653863);
    check_inputs();
    CHECK(pb_preset_json("tiny", "unet") && !pb_preset_json("sdxl", "vae") && !pb_preset_json("sd9", "unet"));
    return CHECK_DONE();
}
