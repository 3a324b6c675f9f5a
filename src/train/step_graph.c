#include "train/step_graph.h"

#include <stdlib.h>

#include "graph/optimizer.h"

static pb_vid input(pb_graph *g, pb_dtype dtype, pb_shape shape, const char *name) {
    return pb_graph_add_value(g, PB_CLASS_INPUT, dtype, shape, false, "%s", name);
}

static pb_status build_forward(const pb_step_request *r, pb_step_graph *s, pb_vid *prediction) {
    pb_graph *g = s->graph;
    const int64_t n = r->batch;
    s->latents = input(g, r->compute, PB_SHAPE4(n, r->latent_h, r->latent_w, r->unet->in_channels), "latents");
    s->timesteps = input(g, PB_F32, PB_SHAPE1(n), "timesteps");
    s->target = input(g, PB_F32, PB_SHAPE4(n, r->latent_h, r->latent_w, r->unet->out_channels), "target");
    s->weight = input(g, PB_F32, PB_SHAPE1(n), "weight");
    s->scale = input(g, PB_F32, PB_SHAPE1(1), "scale");
    s->unet = pb_module_create(g, r->compute, true);
    if (!s->unet) return pb_error(PB_ERR_MEMORY, "no memory for a step");
    pb_vid context;
    if (r->clip) {
        s->ids = input(g, PB_I32, PB_SHAPE2(n, r->tokens), "ids");
        s->clip = pb_module_create(g, r->compute, true);
        if (!s->clip) return pb_error(PB_ERR_MEMORY, "no memory for a step");
        context = pb_clip_forward(s->clip, r->clip, s->ids);
    } else {
        context = s->context = input(g, r->compute, PB_SHAPE3(n, r->tokens, r->unet->cross_attention_dim), "context");
    }
    const int extra = r->unet->addition_input_dim;  // SDXL: plans know what it takes, training does not do it
    const pb_vid added = extra ? input(g, r->compute, PB_SHAPE2(n, extra), "added") : PB_NONE;
    *prediction = pb_unet_forward(s->unet, r->unet, s->latents, s->timesteps, context, added);
    s->loss = pb_mse_loss(g, *prediction, s->target);
    pb_graph_mark_output(g, s->loss);
    return g->status;
}

// Master weights, moments and sums: what the optimizer keeps of a parameter.
static void declare_state(pb_module *m, bool sums, const pb_optimizer_format *format, uint32_t stream) {
    pb_graph *g = m->graph;
    for (uint32_t i = 0; i < m->param_count && g->status == PB_OK; i++) {
        pb_param *p = &m->params[i];
        const pb_shape shape = g->values[p->work].shape;
        pb_optimizer_declare(g, p, format, stream + i);
        p->grad_sum =
            sums ? pb_graph_add_value(g, PB_CLASS_GRADIENT, PB_F32, shape, true, "%s (sum)", p->name) : PB_NONE;
    }
}

static int by_producer(const void *left, const void *right, void *context) {
    const pb_graph *g = context;
    const pb_param *a = *(pb_param *const *)left, *b = *(pb_param *const *)right;
    const uint32_t pa = g->values[a->grad].producer, pb = g->values[b->grad].producer;
    return pa != pb ? (pa < pb ? -1 : 1) : (a->grad > b->grad) - (a->grad < b->grad);
}

static pb_vid gather(const pb_step_request *r, pb_graph *g, const pb_param *p) {
    switch (r->pass) {
    case PB_PASS_FIRST: return pb_store_gradient(g, p->grad, p->grad_sum);
    case PB_PASS_NEXT:
    case PB_PASS_LAST: return pb_accumulate(g, p->grad, p->grad_sum);
    default: return p->grad;
    }
}

// params[] of all trained modules, `count` of them; sorted here by when their gradient is made, which is the order in
// which the norm adds them up.
static pb_status build_update(const pb_step_request *r, pb_step_graph *s, pb_param **params, uint32_t count) {
    pb_graph *g = s->graph;
    const bool update = r->pass == PB_PASS_WHOLE || r->pass == PB_PASS_LAST;
    qsort_r(params, count, sizeof *params, by_producer, g);
    pb_vid *gradients = pb_arena_array(g->arena, count, sizeof *gradients);
    if (!gradients) return pb_error(PB_ERR_MEMORY, "no memory for a step");
    pb_vid norm = PB_NONE;
    if (update) {
        norm = s->norm = input(g, PB_F64, PB_SHAPE1(1), "norm");
        s->hyper = input(g, PB_F32, PB_SHAPE1(PB_HYPER_COUNT), "hyper");
    }
    for (uint32_t i = 0; i < count; i++) {
        gradients[i] = gather(r, g, params[i]);
        if (update) norm = pb_grad_norm(g, gradients[i], norm);
    }
    PB_RETURN_IF(pb_graph_hoist(g));
    if (!update) return PB_OK;
    g->phase = PB_PHASE_UPDATE;
    s->control = pb_step_control(g, norm, s->hyper);
    pb_graph_mark_output(g, s->control);
    for (uint32_t i = 0; i < count; i++)
        pb_optimizer_update(g, params[i], gradients[i], s->control, s->hyper);
    return g->status;
}

static pb_status build(const pb_step_request *r, pb_step_graph *s) {
    pb_graph *g = s->graph;
    pb_vid prediction;
    PB_RETURN_IF(build_forward(r, s, &prediction));
    pb_module *const modules[] = {s->unet, s->clip};
    uint32_t count = 0;
    for (int m = 0; m < 2; m++) {
        if (!modules[m]) continue;
        declare_state(modules[m], r->sums, &r->optimizer, count);
        count += modules[m]->param_count;
    }
    PB_RETURN_IF(g->status);
    pb_param **params = pb_arena_array(g->arena, count, sizeof *params);
    pb_vid *wanted = pb_arena_array(g->arena, count, sizeof *wanted),
           *grads = pb_arena_array(g->arena, count, sizeof *grads);
    if (!params || !wanted || !grads) return pb_error(PB_ERR_MEMORY, "no memory for a step");
    uint32_t at = 0;
    for (int m = 0; m < 2; m++)
        for (uint32_t i = 0; modules[m] && i < modules[m]->param_count; i++, at++) {
            params[at] = &modules[m]->params[i];
            wanted[at] = params[at]->work;
        }
    g->phase = PB_PHASE_BACKWARD;
    const pb_vid seed = pb_mse_loss_bwd(g, prediction, s->target, s->weight, s->scale);
    PB_RETURN_IF(pb_graph_differentiate(g, &prediction, &seed, 1, wanted, grads, count));
    for (uint32_t i = 0; i < count; i++) {
        if (grads[i] == PB_NONE)
            return pb_error(PB_ERR_INTERNAL, "the loss does not depend on parameter %s", params[i]->name);
        params[i]->grad = grads[i];
    }
    PB_RETURN_IF(build_update(r, s, params, count));
    PB_RETURN_IF(pb_graph_prune(g));
    return pb_graph_recompute(g);
}

pb_status pb_step_graph_create(const pb_step_request *request, pb_step_graph **result) {
    pb_step_graph *s = calloc(1, sizeof *s);
    if (!s) return pb_error(PB_ERR_MEMORY, "no memory for a step");
    s->context = s->ids = s->hyper = s->norm = s->control = PB_NONE;
    pb_status status = pb_graph_create(&s->graph);
    if (status == PB_OK) status = build(request, s);
    if (status != PB_OK) {
        pb_step_graph_destroy(s);
        return status;
    }
    *result = s;
    return PB_OK;
}

void pb_step_graph_destroy(pb_step_graph *s) {
    if (!s) return;
    pb_graph_destroy(s->graph);
    free(s);
}

uint64_t pb_step_graph_parameters(const pb_step_graph *s) {
    return pb_module_param_elements(s->unet) + (s->clip ? pb_module_param_elements(s->clip) : 0);
}
