#include "train/step_graph.h"

#include <stdlib.h>
#include <string.h>

#include "graph/optimizer.h"

static pb_vid input(pb_graph *g, pb_dtype dtype, pb_shape shape, const char *name) {
    return pb_graph_add_value(g, PB_CLASS_INPUT, dtype, shape, false, "%s", name);
}

static pb_status build_forward(const pb_step_request *r, pb_step_graph *s, pb_vid *prediction) {
    pb_graph *g = s->graph;
    const int64_t n = r->batch;
    s->latents = input(g, r->compute, PB_SHAPE4(n, r->latent_h, r->latent_w, r->unet->in_channels), "latents");
    s->timesteps = input(g, PB_F32, PB_SHAPE1(n), "timesteps");
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
    return g->status;
}

static pb_status build_loss(const pb_step_request *r, pb_step_graph *s, pb_vid prediction) {
    pb_graph *g = s->graph;
    s->target = input(g, PB_F32, PB_SHAPE4(r->batch, r->latent_h, r->latent_w, r->unet->out_channels), "target");
    s->weight = input(g, PB_F32, PB_SHAPE1(r->batch), "weight");
    s->scale = input(g, PB_F32, PB_SHAPE1(1), "scale");
    s->loss = pb_mse_loss(g, prediction, s->target);
    pb_graph_mark_output(g, s->loss);
    return g->status;
}

// Sampling does where working copies are made by updates alone: with none due, nothing else comes of it.
static bool begins_with_update(const pb_step_request *r, const pb_graph *g, pb_param *const *params, uint32_t count) {
    bool passing = false;
    for (uint32_t i = 0; i < count; i++) passing = passing || !g->values[params[i]->work].persistent;
    switch (r->pass) {
    case PB_PASS_WHOLE:
    case PB_PASS_FIRST:
    case PB_PASS_FLUSH: return r->deferred;
    case PB_PASS_SAMPLE: return passing;
    default: return false;
    }
}

static bool ends_with_norm(const pb_step_request *r) {
    return r->pass == PB_PASS_WHOLE || r->pass == PB_PASS_LAST;
}

// Master weights, moments, and what is kept of the gradients: all that the optimizer keeps of a parameter. `stream` is
// the number of the module's first parameter in the model.
static void declare_state(const pb_step_request *r, pb_module *m, uint32_t stream) {
    pb_graph *g = m->graph;
    for (uint32_t i = 0; i < m->param_count && g->status == PB_OK; i++) {
        pb_param *p = &m->params[i];
        const pb_shape shape = g->values[p->work].shape;
        const pb_dtype dtype = g->values[p->work].dtype;
        pb_optimizer_declare(g, p, &r->optimizer, stream + i);
        p->grad_sum = PB_NONE;
        if (r->sums)
            p->grad_sum = pb_graph_add_value(g, PB_CLASS_GRADIENT, PB_F32, shape, true, "%s (sum)", p->name);
        else if (r->deferred)
            p->grad_sum = pb_graph_add_value(g, PB_CLASS_GRADIENT, dtype, shape, true, "%s (gradient)", p->name);
        // Every step makes its working copies anew from the masters, and no pass of another kind reads them.
        if (r->deferred && !r->sums && g->status == PB_OK && p->master != p->work && !pb_optimizer_is_split(g, p))
            g->values[p->work].persistent = false;
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
    default:
        // In a run that accumulates, one pass alone is a sum of one: all its programs update from the sums.
        if (r->sums) return pb_store_gradient(g, p->grad, p->grad_sum);
        if (r->deferred) pb_keep_gradient(g, p->grad, p->grad_sum);
        return p->grad;
    }
}

// params[] of all trained modules, `count` of them; sorted here by when their gradient is made, which is the order in
// which the norm adds them up. gradients[]: what the update works with, in that order.
static pb_status build_norm(const pb_step_request *r, pb_step_graph *s, pb_param **params, uint32_t count,
                            pb_vid *gradients) {
    pb_graph *g = s->graph;
    const bool update = ends_with_norm(r);
    qsort_r(params, count, sizeof *params, by_producer, g);
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
    if (r->deferred) g->phase = PB_PHASE_BACKWARD;  // what it finds is for the next step
    s->control = pb_step_control(g, norm, s->hyper);
    pb_graph_mark_output(g, s->control);
    return g->status;
}

static void build_update(pb_step_graph *s, pb_param **params, uint32_t count, const pb_vid *gradients) {
    pb_graph *g = s->graph;
    g->phase = PB_PHASE_UPDATE;
    for (uint32_t i = 0; i < count; i++) pb_optimizer_update(g, params[i], gradients[i], s->control, s->hyper);
}

// The update that the step before has left due: from the gradients that were kept, before anything reads a weight.
static pb_status build_due_update(pb_step_graph *s, pb_param **params, uint32_t count) {
    pb_graph *g = s->graph;
    s->due_control = input(g, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT), "due control");
    s->due_hyper = input(g, PB_F32, PB_SHAPE1(PB_HYPER_COUNT), "due hyper");
    const uint32_t values = g->value_count;
    const size_t room = (size_t)values + (PB_MAX_OUTPUTS + 1) * (size_t)count + 1;
    pb_vid *renamed = pb_arena_array(g->arena, room, sizeof *renamed);
    if (!renamed) return pb_error(PB_ERR_MEMORY, "no memory for a step");
    memset(renamed, 0xff, room * sizeof *renamed);  // PB_NONE
    g->phase = PB_PHASE_UPDATE;
    for (uint32_t i = 0; i < count; i++)
        renamed[params[i]->work] = pb_optimizer_update(g, params[i], params[i]->grad_sum, s->due_control, s->due_hyper);
    return pb_graph_update_first(g, renamed);
}

// Only the due update, or not even that; a copy that no op reads is not made.
static void drop_nodes(pb_graph *g, bool updates) {
    uint32_t count = 0;
    for (uint32_t n = 0; n < g->node_count; n++) {
        pb_node *node = &g->nodes[n];
        const bool update = updates && node->phase == PB_PHASE_UPDATE;
        for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
            const pb_vid v = node->out[i];
            if (v == PB_NONE || (update && g->values[v].persistent)) continue;
            g->values[v].producer = PB_NONE;
            g->values[v].output = false;
            node->out[i] = PB_NONE;
        }
        if (update) g->nodes[count++] = *node;
    }
    g->node_count = count;
}

static pb_status build_backward(const pb_step_request *r, pb_step_graph *s, pb_vid prediction, pb_param **params,
                                uint32_t count) {
    pb_graph *g = s->graph;
    pb_vid *wanted = pb_arena_array(g->arena, count, sizeof *wanted),
           *grads = pb_arena_array(g->arena, count, sizeof *grads);
    if (!wanted || !grads) return pb_error(PB_ERR_MEMORY, "no memory for a step");
    for (uint32_t i = 0; i < count; i++) wanted[i] = params[i]->work;
    g->phase = PB_PHASE_BACKWARD;
    const pb_vid seed = pb_mse_loss_bwd(g, prediction, s->target, s->weight, s->scale);
    PB_RETURN_IF(pb_graph_differentiate(g, &prediction, &seed, 1, wanted, grads, count));
    for (uint32_t i = 0; i < count; i++) {
        if (grads[i] == PB_NONE)
            return pb_error(PB_ERR_INTERNAL, "the loss does not depend on parameter %s", params[i]->name);
        params[i]->grad = grads[i];
    }
    PB_RETURN_IF(build_norm(r, s, params, count, grads));
    if (ends_with_norm(r) && !r->deferred) build_update(s, params, count, grads);
    return g->status;
}

// In place of the forward pass. The weights are inputs: nothing of the decoder stays in the run's memory.
static pb_status build_decoder(const pb_step_request *r, pb_step_graph *s) {
    pb_graph *g = s->graph;
    drop_nodes(g, false);
    const pb_vid unread[] = {s->latents, s->timesteps, s->context, s->ids};
    for (size_t i = 0; i < sizeof unread / sizeof *unread; i++)
        if (unread[i] != PB_NONE) g->values[unread[i]].class_ = PB_CLASS_ACTIVATION;  // takes no room
    s->timesteps = s->context = s->ids = PB_NONE;
    const int channels = r->validation.vae->latent_channels;
    s->latents = input(g, r->compute, PB_SHAPE4(1, r->latent_h, r->latent_w, channels), "latents");
    s->decoder = pb_module_create(g, r->compute, false);
    if (!s->decoder) return pb_error(PB_ERR_MEMORY, "no memory for the VAE");
    s->result = pb_vae_decode(s->decoder, r->validation.vae, s->latents);
    for (uint32_t i = 0; g->status == PB_OK && i < s->decoder->param_count; i++) {
        pb_value *weight = &g->values[s->decoder->params[i].work];
        weight->class_ = PB_CLASS_INPUT;
        weight->persistent = false;
    }
    pb_graph_mark_output(g, s->result);
    return g->status;
}

// What is kept of each parameter's gradient, in the order of the modules' parameters. Returns how many.
static uint32_t list_kept(const pb_step_graph *s, pb_vid *kept) {
    const pb_module *const modules[] = {s->unet, s->clip};
    uint32_t count = 0;
    for (int m = 0; m < 2; m++)
        for (uint32_t i = 0; modules[m] && i < modules[m]->param_count; i++)
            kept[count++] = modules[m]->params[i].grad_sum;
    return count;
}

static uint32_t param_count(const pb_step_graph *s) {
    return s->unet->param_count + (s->clip ? s->clip->param_count : 0);
}

static pb_status apply_carry(const pb_step_request *r, pb_step_graph *s) {
    pb_vid *kept = pb_arena_array(s->graph->arena, param_count(s) + 1, sizeof *kept);
    if (!kept) return pb_error(PB_ERR_MEMORY, "no memory for a step");
    list_kept(s, kept);
    return pb_carry_apply(s->graph, r->carry, kept, r->pass == PB_PASS_WHOLE);
}

pb_status pb_step_graph_carry(pb_arena *arena, const pb_step_graph *whole, const double *seconds,
                              double seconds_per_byte, pb_carry *carry) {
    pb_vid *kept = pb_arena_array(arena, param_count(whole) + 1, sizeof *kept);
    if (!kept) return pb_error(PB_ERR_MEMORY, "no memory for a step");
    const uint32_t count = list_kept(whole, kept);
    return pb_carry_choose(arena, whole->graph, kept, count, seconds, seconds_per_byte, carry);
}

static pb_status build(const pb_step_request *r, pb_step_graph *s) {
    pb_graph *g = s->graph;
    pb_vid prediction;
    PB_RETURN_IF(build_forward(r, s, &prediction));
    if (r->pass < PB_PASS_FLUSH) PB_RETURN_IF(build_loss(r, s, prediction));
    if (r->pass == PB_PASS_SAMPLE) pb_graph_mark_output(s->graph, s->result = prediction);
    pb_module *const modules[] = {s->unet, s->clip};
    uint32_t count = 0;
    for (int m = 0; m < 2; m++) {
        if (!modules[m]) continue;
        declare_state(r, modules[m], count);
        count += modules[m]->param_count;
    }
    PB_RETURN_IF(g->status);
    pb_param **params = pb_arena_array(g->arena, count, sizeof *params);
    if (!params) return pb_error(PB_ERR_MEMORY, "no memory for a step");
    uint32_t at = 0;
    for (int m = 0; m < 2; m++)
        for (uint32_t i = 0; modules[m] && i < modules[m]->param_count; i++) params[at++] = &modules[m]->params[i];
    if (r->pass < PB_PASS_FLUSH) PB_RETURN_IF(build_backward(r, s, prediction, params, count));
    if (begins_with_update(r, g, params, count)) PB_RETURN_IF(build_due_update(s, params, count));
    if (r->pass == PB_PASS_FLUSH) drop_nodes(g, true);
    if (r->pass == PB_PASS_DECODE) PB_RETURN_IF(build_decoder(r, s));
    PB_RETURN_IF(pb_graph_prune(g));
    PB_RETURN_IF(pb_graph_recompute(g, r->recompute));
    return r->carry ? apply_carry(r, s) : PB_OK;
}

pb_status pb_step_graph_create(const pb_step_request *request, pb_step_graph **result) {
    pb_step_graph *s = calloc(1, sizeof *s);
    if (!s) return pb_error(PB_ERR_MEMORY, "no memory for a step");
    s->context = s->ids = s->hyper = s->norm = s->control = s->due_hyper = s->due_control = PB_NONE;
    s->target = s->weight = s->scale = s->loss = s->result = PB_NONE;
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
