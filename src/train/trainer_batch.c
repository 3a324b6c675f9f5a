#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/transpose.h"
#include "train/trainer_parts.h"

// (C,h,w) of one latent.
static int64_t latent_channels(const pb_trainer *t) {
    return t->architecture.vae.latent_channels;
}

static int64_t latent_pixels(const pb_trainer *t) {
    return (int64_t)t->request.latent_h * t->request.latent_w;
}

pb_status pb_batch_buffers_init(pb_trainer *t) {
    pb_batch_buffers *b = &t->buffers;
    const size_t n = (size_t)(t->batching.batch * t->batching.sides), c = (size_t)latent_channels(t);
    const size_t latent = c * (size_t)latent_pixels(t), micro = (size_t)pb_batching_longest(&t->batching);
    float **const latents[] = {&b->sample, &b->noise, &b->latents, &b->target};
    for (size_t i = 0; i < sizeof latents / sizeof *latents; i++) {
        *latents[i] = pb_arena_array(t->arena, n * latent, sizeof **latents[i]);
        if (!*latents[i]) return pb_error(PB_ERR_MEMORY, "no memory for a batch");
    }
    b->offset = pb_arena_array(t->arena, n * c, sizeof *b->offset);
    b->turned = pb_arena_array(t->arena, latent, sizeof *b->turned);
    b->narrow = pb_arena_array(t->arena, latent, sizeof *b->turned);
    b->timesteps = pb_arena_array(t->arena, n, sizeof *b->timesteps);
    b->times = pb_arena_array(t->arena, n, sizeof *b->times);
    b->weights = pb_arena_array(t->arena, n, sizeof *b->weights);
    b->losses = pb_arena_array(t->arena, n, sizeof *b->losses);
    b->micro_losses = pb_arena_array(t->arena, micro, sizeof *b->micro_losses);
    if (!b->offset || !b->turned || !b->narrow || !b->timesteps || !b->times || !b->weights || !b->losses ||
        !b->micro_losses)
        return pb_error(PB_ERR_MEMORY, "no memory for a batch");
    return PB_OK;
}

// Image n of a batch: its side and its item. All instance pictures come first.
static int side_of(const pb_draws_batch *batch, int64_t n, const pb_draws_item **item) {
    *item = &batch->items[n % batch->count];
    return n < batch->count ? PB_SIDE_INSTANCE : PB_SIDE_CLASS;
}

// (mean + deviation * sample) * scaling_factor, each operation rounded as torch does it in the VAE's type.
static pb_status sample_latents(pb_trainer *t, const pb_draws_batch *batch, int64_t images) {
    const pb_dtype dtype = t->request.compute;
    const int64_t count = latent_channels(t) * latent_pixels(t);
    const float scaling = t->architecture.vae.scaling_factor;
    for (int64_t n = 0; n < images; n++) {
        const pb_draws_item *item;
        const pb_moments *moments;
        if (side_of(batch, n, &item) == PB_SIDE_INSTANCE)
            PB_RETURN_IF(
                pb_training_data_moments(&t->data, PB_SIDE_INSTANCE, item->instance, item->instance_crop, &moments));
        else
            PB_RETURN_IF(pb_training_data_moments(&t->data, PB_SIDE_CLASS, item->class_, item->class_crop, &moments));
        const float *sample = t->buffers.sample + n * count;
        float *latent = t->buffers.latents + n * count;
        for (int64_t i = 0; i < count; i++) {
            const float spread = pb_rounded(dtype, moments->deviation[i] * sample[i]);
            latent[i] = pb_rounded(dtype, pb_rounded(dtype, moments->mean[i] + spread) * scaling);
        }
    }
    return PB_OK;
}

// Latents become noisy; the target is the noise or the velocity.
static void add_noise(pb_trainer *t, int64_t images) {
    pb_batch_buffers *b = &t->buffers;
    const bool offset = t->config->offset_noise;
    const int64_t channels = latent_channels(t), pixels = latent_pixels(t), count = channels * pixels;
    for (int64_t n = 0; n < images; n++) {
        float *noise = b->noise + n * count, *latent = b->latents + n * count, *target = b->target + n * count;
        for (int64_t i = 0; offset && i < count; i++) noise[i] += 0.1f * b->offset[n * channels + i / pixels];
        const pb_noise_operands operands = {.dtype = t->request.compute,
                                            .noise_dtype = offset ? PB_F32 : t->request.compute,
                                            .sample = latent,
                                            .noise = noise,
                                            .count = (size_t)count};
        if (t->noise.v_prediction)
            pb_noise_velocity(&t->noise, (int)b->timesteps[n], &operands, target);
        else
            memcpy(target, noise, (size_t)count * sizeof *target);
        pb_noise_add(&t->noise, (int)b->timesteps[n], &operands, latent);
    }
}

// Each picture's part in the loss: the mean over the instance pictures plus prior_loss_weight times that over the class
// pictures. Min-SNR weighs the instance pictures, as the repaired scripts of diffusers do it (pull request 6356).
static void weigh(pb_trainer *t, const pb_draws_batch *batch, int64_t images) {
    pb_batch_buffers *b = &t->buffers;
    for (int64_t n = 0; n < images; n++) {
        const bool instance = n < batch->count;
        double weight = (instance ? 1.0 : t->config->prior_loss_weight) / (double)batch->count;
        if (instance && t->config->snr_gamma.set)
            weight *=
                (double)pb_noise_min_snr_weight(&t->noise, (int)b->timesteps[n], (float)t->config->snr_gamma.value);
        b->weights[n] = (float)weight;
        b->times[n] = (float)b->timesteps[n];
    }
}

static pb_status prepare(pb_trainer *t, const pb_draws_batch *batch, int64_t images) {
    pb_batch_buffers *b = &t->buffers;
    const pb_draws_pass pass = {.dtype = t->request.compute,
                                .images = (size_t)images,
                                .channels = (size_t)latent_channels(t),
                                .pixels = (size_t)latent_pixels(t),
                                .vae_attention = t->architecture.vae.mid_attention,
                                .train_timesteps = t->noise.timesteps,
                                .sample = b->sample,
                                .noise = b->noise,
                                .offset = t->config->offset_noise ? b->offset : NULL,
                                .timesteps = b->timesteps};
    pb_draws_fill(t->draws, &pass);
    PB_RETURN_IF(sample_latents(t, batch, images));
    add_noise(t, images);
    weigh(t, batch, images);
    return PB_OK;
}

// (C,h,w) floats of one picture into entry `n` of a value (N,h,w,C).
static pb_status upload_turned(pb_trainer *t, const pb_pass_program *p, pb_vid value, int64_t n, const float *from) {
    const int64_t channels = latent_channels(t), pixels = latent_pixels(t);
    const pb_dtype dtype = pb_graph_value(p->step->graph, value)->dtype;
    pb_transpose(t->buffers.turned, from, 1, channels, pixels);
    const uint64_t bytes = (uint64_t)(channels * pixels) * pb_dtype_size(dtype);
    pb_convert(dtype, t->buffers.narrow, PB_F32, t->buffers.turned, (size_t)(channels * pixels));
    return pb_executor_write(p->executor, value, (uint64_t)n * bytes, t->buffers.narrow, bytes);
}

static pb_status upload_prompt(pb_trainer *t, const pb_pass_program *p, int64_t n, int side) {
    const pb_vid value = p->step->ids != PB_NONE ? p->step->ids : p->step->context;
    const void *data = p->step->ids != PB_NONE ? (const void *)t->ids[side] : t->context[side];
    const uint64_t bytes = pb_value_bytes(pb_graph_value(p->step->graph, value)) / (uint64_t)p->images;
    return pb_executor_write(p->executor, value, (uint64_t)n * bytes, data, bytes);
}

// torch.optim.AdamW's scalars for step number `count` (from 1), computed in double.
static void fill_hyper(const pb_trainer *t, double lr, int64_t count, float *hyper) {
    const pb_config *c = t->config;
    memset(hyper, 0, PB_HYPER_COUNT * sizeof *hyper);
    hyper[PB_HYPER_LR] = (float)lr;
    hyper[PB_HYPER_BETA1] = (float)c->adam_beta1;
    hyper[PB_HYPER_BETA2] = (float)c->adam_beta2;
    hyper[PB_HYPER_ONE_MINUS_BETA1] = (float)(1.0 - c->adam_beta1);
    hyper[PB_HYPER_ONE_MINUS_BETA2] = (float)(1.0 - c->adam_beta2);
    hyper[PB_HYPER_EPS] = (float)c->adam_epsilon;
    hyper[PB_HYPER_DECAY] = (float)(1.0 - lr * c->adam_weight_decay);
    hyper[PB_HYPER_STEP_SIZE] = (float)(lr / (1.0 - pow(c->adam_beta1, (double)count)));
    hyper[PB_HYPER_SQRT_BIAS2] = (float)sqrt(1.0 - pow(c->adam_beta2, (double)count));
    hyper[PB_HYPER_INV_LOSS_SCALE] = (float)(1.0 / t->loss_scale.scale);
    hyper[PB_HYPER_MAX_NORM] = (float)c->max_grad_norm;
    hyper[PB_HYPER_SEED_LOW] = (float)(t->rounding_seed & 0xffff);
    hyper[PB_HYPER_SEED_HIGH] = (float)(t->rounding_seed >> 16 & 0xffff);
    hyper[PB_HYPER_STEP_LOW] = (float)(count & 0xffff);
    hyper[PB_HYPER_STEP_HIGH] = (float)(count >> 16 & 0xffff);
}

pb_status pb_trainer_upload_due(pb_trainer *t, const pb_pass_program *p) {
    const pb_step_graph *s = p->step;
    if (s->due_control == PB_NONE) return PB_OK;
    pb_due_update *due = &t->due;
    if (!due->due) {
        memset(due, 0, sizeof *due);
        due->control[PB_CONTROL_SKIP] = 1;
    }
    due->due = false;
    PB_RETURN_IF(pb_executor_write(p->executor, s->due_control, 0, due->control, sizeof due->control));
    return pb_executor_write(p->executor, s->due_hyper, 0, due->hyper, sizeof due->hyper);
}

pb_status pb_trainer_flush(pb_trainer *t) {
    if (!t->due.due) return PB_OK;
    PB_RETURN_IF(pb_trainer_upload_due(t, &t->programs.flush));
    return pb_executor_run(t->programs.flush.executor);
}

static pb_status upload(pb_trainer *t, const pb_pass_program *p, const pb_draws_batch *batch, int64_t first,
                        double lr) {
    const pb_batch_buffers *b = &t->buffers;
    const pb_step_graph *s = p->step;
    const int64_t count = latent_channels(t) * latent_pixels(t);
    const uint64_t bytes = (uint64_t)p->images * sizeof(float);
    // The scale carries what divides the whole gradient; diffusers divides a short last step by the full number, too.
    const float scale = (float)(t->loss_scale.scale / (double)t->config->gradient_accumulation_steps);
    for (int64_t i = 0; i < p->images; i++) {
        const pb_draws_item *item;
        PB_RETURN_IF(upload_turned(t, p, s->latents, i, b->latents + (first + i) * count));
        PB_RETURN_IF(upload_turned(t, p, s->target, i, b->target + (first + i) * count));
        PB_RETURN_IF(upload_prompt(t, p, i, side_of(batch, first + i, &item)));
    }
    PB_RETURN_IF(pb_executor_write(p->executor, s->timesteps, 0, b->times + first, bytes));
    PB_RETURN_IF(pb_executor_write(p->executor, s->weight, 0, b->weights + first, bytes));
    PB_RETURN_IF(pb_executor_write(p->executor, s->scale, 0, &scale, sizeof scale));
    PB_RETURN_IF(pb_trainer_upload_due(t, p));
    if (s->hyper == PB_NONE) return PB_OK;
    const double zero = 0;
    float hyper[PB_HYPER_COUNT];
    fill_hyper(t, lr, t->step + 1, hyper);
    memcpy(t->next_hyper, hyper, sizeof hyper);
    PB_RETURN_IF(pb_executor_write(p->executor, s->norm, 0, &zero, sizeof zero));
    return pb_executor_write(p->executor, s->hyper, 0, hyper, sizeof hyper);
}

pb_status pb_trainer_batch(pb_trainer *t, const pb_draws_batch *batch, double lr, double *loss, float *control) {
    const int64_t images = batch->count * t->batching.sides;
    PB_RETURN_IF(prepare(t, batch, images));
    for (int64_t first = 0, part; first < images; first += part) {
        const pb_pass pass = pb_batching_pass(&t->batching, batch->number, first, &part);
        pb_pass_program *p = pb_programs_find(&t->programs, part, pass);
        if (!p) return pb_error(PB_ERR_INTERNAL, "no program for a pass of %lld pictures", (long long)part);
        PB_RETURN_IF(upload(t, p, batch, first, lr));
        PB_RETURN_IF(pb_record_run(t, p, part));
        PB_RETURN_IF(
            pb_executor_read(p->executor, p->step->loss, 0, t->buffers.losses + first, (uint64_t)part * sizeof(float)));
        if (p->step->control == PB_NONE) continue;
        PB_RETURN_IF(pb_executor_read(p->executor, p->step->control, 0, control, PB_CONTROL_COUNT * sizeof *control));
        if (!t->programs.deferred) continue;
        t->due.due = true;
        memcpy(t->due.control, control, sizeof t->due.control);
        memcpy(t->due.hyper, t->next_hyper, sizeof t->due.hyper);
    }
    *loss = 0;
    for (int64_t n = 0; n < images; n++) *loss += (double)t->buffers.weights[n] * (double)t->buffers.losses[n];
    return PB_OK;
}
