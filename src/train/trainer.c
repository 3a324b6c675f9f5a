#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/parallel.h"
#include "io/tokenizer.h"
#include "train/checkpoint.h"
#include "train/generate.h"
#include "train/state_fixed.h"
#include "train/trainer_parts.h"
#include "train/weights.h"

// Of GradScaler: what the loss is multiplied by in fp16, and how it moves.
static const double first_scale = 65536, least_scale = 1;
enum { GROWTH_INTERVAL = 2000 };

// --- Before anything is read but text ---

static pb_status draw_seed(pb_config *config) {
    uint32_t seed;
    if (config->seed.set) return PB_OK;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) return pb_error(PB_ERR_IO, "the system gives no random seed");
    config->seed.set = true;
    config->seed.value = seed;
    return PB_OK;
}

static pb_status tokenize(pb_trainer *t) {
    const pb_config *c = t->config;
    pb_status status = PB_OK;
    pb_tokenizer *tokenizer = NULL;
    if (!c->tokenizer_name) PB_TRY(pb_model_dir_require(t->model, PB_PART_TOKENIZER));
    status = pb_tokenizer_create(c->tokenizer_name ? c->tokenizer_name : t->model->parts[PB_PART_TOKENIZER].path,
                                 &tokenizer);
    if (status != PB_OK && c->tokenizer_name) pb_error_context(status, "tokenizer_name");
    PB_TRY(status);
    if (pb_tokenizer_size(tokenizer) > t->architecture.clip.vocabulary)
        PB_FAIL(PB_ERR_FORMAT,
                "the tokenizer has %d ids, and the text encoder's vocab_size is %d: they are not of one model",
                pb_tokenizer_size(tokenizer), t->architecture.clip.vocabulary);
    t->tokens = c->tokenizer_max_length.set ? (int)c->tokenizer_max_length.value : pb_tokenizer_length(tokenizer);
    if (t->tokens > t->architecture.clip.positions)
        PB_FAIL(PB_ERR_USAGE, "prompts have %d ids, and the text encoder takes %d; set tokenizer_max_length: %d",
                t->tokens, t->architecture.clip.positions, t->architecture.clip.positions);
    const bool validates = pb_config_validates(c);
    const char *const prompts[PB_PROMPTS] = {[PB_SIDE_INSTANCE] = c->instance_prompt,
                                             [PB_SIDE_CLASS] = c->with_prior_preservation ? c->class_prompt : NULL,
                                             [PB_PROMPT_NONE] = validates ? "" : NULL,
                                             [PB_PROMPT_VALIDATION] = validates ? c->validation_prompt : NULL};
    static const char *const keys[PB_PROMPTS] = {[PB_SIDE_INSTANCE] = "instance_prompt",
                                                 [PB_SIDE_CLASS] = "class_prompt",
                                                 [PB_PROMPT_NONE] = "the empty prompt",
                                                 [PB_PROMPT_VALIDATION] = "validation_prompt"};
    for (int i = 0; i < PB_PROMPTS; i++) {
        if (!prompts[i]) continue;
        t->ids[i] = pb_arena_array(t->arena, (size_t)t->tokens, sizeof *t->ids[i]);
        if (!t->ids[i]) PB_FAIL(PB_ERR_MEMORY, "no memory for the prompts");
        status = pb_tokenizer_encode(tokenizer, prompts[i], strlen(prompts[i]), t->tokens, t->ids[i]);
        if (status != PB_OK) PB_TRY(pb_error_context(status, "%s", keys[i]));
    }
fail:
    pb_tokenizer_destroy(tokenizer);
    return status;
}

static pb_status open_model(pb_trainer *t) {
    const pb_config *c = t->config;
    PB_RETURN_IF(pb_model_dir_open(c->pretrained_model_name_or_path, c->revision, &t->model));
    PB_RETURN_IF(pb_model_dir_require_variant(t->model, c->variant));
    PB_RETURN_IF(pb_architecture_read(t->model, &t->architecture));
    PB_RETURN_IF(pb_model_dir_require(t->model, PB_PART_SCHEDULER));
    const pb_model_part_dir *scheduler = &t->model->parts[PB_PART_SCHEDULER];
    PB_RETURN_IF(pb_noise_schedule_init(t->arena, scheduler->config, scheduler->config_path, true, &t->noise));
    const pb_unet_config *unet = &t->architecture.unet;
    if (unet->in_channels != t->architecture.vae.latent_channels || unet->out_channels != unet->in_channels)
        return pb_error(PB_ERR_UNSUPPORTED,
                        "%s: in_channels is %d and out_channels %d; only UNets that take and give the %d "
                        "channels of the latents can be trained",
                        t->model->parts[PB_PART_UNET].config_path, unet->in_channels, unet->out_channels,
                        t->architecture.vae.latent_channels);
    return tokenize(t);
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static pb_status make_schedule(const pb_config *c, int64_t steps, pb_lr_schedule *schedule) {
    *schedule = (pb_lr_schedule){.base = c->learning_rate,
                                 .warmup = c->lr_warmup_steps,
                                 .total = steps,
                                 .cycles = (double)c->lr_num_cycles,
                                 .power = c->lr_power};
    if (c->scale_lr) schedule->base *= (double)(c->gradient_accumulation_steps * c->train_batch_size);
    PB_RETURN_IF(pb_lr_kind_parse(c->lr_scheduler, &schedule->kind));
    return pb_lr_schedule_check(schedule);
}

static pb_status plan(pb_trainer *t) {
    const pb_config *c = t->config;
    PB_RETURN_IF(pb_training_data_list(t->arena, c, &t->data));
    PB_RETURN_IF(pb_architecture_step(&t->architecture, c, &t->request));
    t->request.tokens = t->tokens;
    const int64_t classes = c->with_prior_preservation ? c->num_class_images : 0;
    t->batching = pb_batching_of(c, larger(t->data.set[PB_SIDE_INSTANCE].count, classes));
    const int64_t epoch = pb_batching_steps(&t->batching);
    t->max_steps = c->max_train_steps.set ? c->max_train_steps.value : c->num_train_epochs * epoch;
    PB_RETURN_IF(make_schedule(c, t->max_steps, &t->schedule));
    t->loss_scale = t->request.compute == PB_F16 ? (pb_loss_scale){.scale = first_scale, .dynamic = true}
                                                 : (pb_loss_scale){.scale = 1};
    PB_RETURN_IF(pb_memory_limits_find(t->arena, c, NULL, &t->limits));
    return pb_programs_compile(&t->request, &t->batching, &t->limits, &t->programs);
}

static void describe_validation(const pb_trainer *t, FILE *file) {
    const pb_validation_request *v = &t->request.validation;
    const int factor = pb_vae_factor(&t->architecture.vae);
    if (!v->vae) return;
    fprintf(file, "validation: %lld pictures of %dx%d every %lld steps, in %s/validation; predicted to take %.1f s\n",
            (long long)t->config->num_validation_images, v->latent_w * factor, v->latent_h * factor,
            (long long)t->config->validation_steps, t->config->output_dir, pb_validation_seconds(t));
}

static void describe(const pb_trainer *t, FILE *file) {
    const pb_config *c = t->config;
    const pb_picture_set *sets = t->data.set;
    fprintf(file, "pictures: %lld of the subject in %s", (long long)sets[PB_SIDE_INSTANCE].count,
            sets[PB_SIDE_INSTANCE].folder);
    if (c->with_prior_preservation)
        fprintf(file, ", %lld of %lld of the class in %s", (long long)sets[PB_SIDE_CLASS].count,
                (long long)c->num_class_images, sets[PB_SIDE_CLASS].folder);
    fprintf(file, "\nsteps: %lld, %lld to an epoch, %lld picture%s to a pass\n", (long long)t->max_steps,
            (long long)pb_batching_steps(&t->batching), (long long)pb_batching_images(&t->batching, 0),
            pb_batching_images(&t->batching, 0) == 1 ? "" : "s");
    const uint64_t *const bytes = t->programs.tier_bytes;
    fprintf(file,
            "trained: %.1fM parameters, computed in %s on %s\n"
            "memory: %.3f GiB on the device, %.3f GiB of the host, %.3f GiB on NVMe\n",
            (double)pb_step_graph_parameters(t->programs.items[0].step) / 1e6, pb_dtype_name(t->request.compute),
            strcmp(t->limits.machine.name, "this") ? t->limits.machine.name : "this machine",
            (double)bytes[PB_TIER_DEVICE] / 0x1p30, (double)bytes[PB_TIER_HOST] / 0x1p30,
            (double)bytes[PB_TIER_NVME] / 0x1p30);
    describe_validation(t, file);
}

static void name_one_skipped(pb_trainer *t, const char *folder, const char *name) {
    const char *path = pb_fs_join(t->arena, folder, name);
    pb_progress_note(&t->progress, "skipped %s/%s: it is %s", folder, name,
                     path && pb_fs_kind_of(path) == PB_FS_DIRECTORY ? "a folder" : "no picture");
}

static void name_skipped(pb_trainer *t) {
    for (int side = 0; side < PB_SIDES; side++)
        for (int64_t i = 0; i < t->data.set[side].skipped_count; i++)
            name_one_skipped(t, t->data.set[side].folder, t->data.set[side].skipped[i]);
}

// --- Setting up ---

static pb_status encode_prompts(pb_trainer *t) {
    uint64_t device_bytes = 0;
    int count = 0;
    if (t->request.clip) return PB_OK;  // trained: the step itself runs it
    const size_t tokens = (size_t)t->tokens;
    const size_t bytes = tokens * (size_t)t->architecture.clip.hidden * pb_dtype_size(t->request.compute);
    int32_t *ids = pb_arena_array(t->arena, PB_PROMPTS * tokens, sizeof *ids);
    char *hidden = pb_arena_array(t->arena, PB_PROMPTS, bytes);
    if (!ids || !hidden) return pb_error(PB_ERR_MEMORY, "no memory for the prompts");
    for (int i = 0; i < PB_PROMPTS; i++) {
        if (!t->ids[i]) continue;
        memcpy(ids + (size_t)count * tokens, t->ids[i], tokens * sizeof *ids);
        t->context[i] = hidden + (size_t)count++ * bytes;
    }
    const pb_encoding encoding = pb_trainer_encoding(t);
    PB_RETURN_IF(pb_encode_prompts(&encoding, &t->architecture.clip, ids, count, t->tokens, hidden, &device_bytes));
    pb_progress_note(&t->progress, "the prompts are encoded; the text encoder took %.1f MiB of the device",
                     (double)device_bytes / 0x1p20);
    return PB_OK;
}

static pb_status make_draws(pb_trainer *t, const pb_rng *rng) {
    const bool crops = !t->config->center_crop;
    const pb_draws_options options = {.instances = t->data.set[PB_SIDE_INSTANCE].count,
                                      .classes = t->data.set[PB_SIDE_CLASS].count,
                                      .batch = t->config->train_batch_size,
                                      .instance = crops ? t->data.slack[PB_SIDE_INSTANCE] : NULL,
                                      .class_ = crops ? t->data.slack[PB_SIDE_CLASS] : NULL};
    return pb_draws_create(&options, rng, &t->draws);
}

static pb_status load_weights(pb_trainer *t, const char *checkpoint) {
    pb_pass_program *p = pb_programs_any(&t->programs);
    for (pb_part part = 0; part < PB_PART_COUNT; part++) {
        const pb_module *module = pb_step_graph_trained(p->step, part);
        if (!module) continue;
        PB_RETURN_IF(pb_model_dir_weights(t->model, part, t->config->variant, &t->sources[part]));
        if (!checkpoint) PB_RETURN_IF(pb_weights_load(module, t->sources[part], p->executor));
    }
    if (!checkpoint) return PB_OK;
    PB_RETURN_IF(pb_state_load(t, checkpoint));
    pb_progress_note(&t->progress, "goes on from %s", checkpoint);
    const char *before = pb_fs_join(t->arena, checkpoint, "config.yaml");
    if (before) pb_fixed_note_changes(t, before);
    return PB_OK;
}

static pb_status show_sampling(void *context, int64_t done, int64_t total) {
    pb_trainer *t = context;
    pb_progress_count(&t->progress, "sampling class pictures", done, total);
    return pb_signals_caught() ? pb_error(PB_ERR_INTERRUPTED, "interrupted while class pictures were made") : PB_OK;
}

// The model's own, or DDIM where we do not have that: few models differ from their scheduler's neighbours in 50 steps.
static pb_sampler_kind class_picture_sampler(pb_trainer *t, int steps) {
    const pb_model_part_dir *const scheduler = &t->model->parts[PB_PART_SCHEDULER];
    pb_sampler *sampler = NULL;
    const pb_status status = pb_sampler_create(PB_SAMPLER_MODEL, scheduler->class_name, scheduler->config,
                                               scheduler->config_path, steps, 1, &sampler);
    pb_sampler_destroy(sampler);
    if (status != PB_ERR_UNSUPPORTED) return PB_SAMPLER_MODEL;
    pb_progress_note(&t->progress, "class pictures will be sampled with DDIM: %s", pb_error_message());
    pb_error_clear();
    return PB_SAMPLER_DDIM;
}

// Draws from the run's generator, before the first epoch, as diffusers does it.
static pb_status make_class_pictures(pb_trainer *t, pb_rng *rng) {
    const pb_config *c = t->config;
    pb_picture_set *set = &t->data.set[PB_SIDE_CLASS];
    const int64_t missing = c->with_prior_preservation ? c->num_class_images - set->count : 0;
    if (missing <= 0) return PB_OK;
    enum { STEPS = 50 };
    const pb_generate_options options = {.model = t->model,
                                         .variant = c->variant,
                                         .dtype = c->prior_generation_precision,
                                         .prompt = c->class_prompt,
                                         .negative = "",
                                         .guidance = 7.5,
                                         .sampler = class_picture_sampler(t, STEPS),
                                         .steps = STEPS,
                                         .batch = (int)c->sample_batch_size,
                                         .backend = t->limits.backend,
                                         .smaller = "for class pictures a smaller sample_batch_size, or "
                                                    "prior_generation_precision: bf16,"};
    pb_progress_note(&t->progress, "making %lld class pictures in %s", (long long)missing, c->class_data_dir);
    PB_RETURN_IF(pb_generate_class_images(&options, c->class_data_dir, set->count, missing, rng, show_sampling, t));
    pb_progress_end(&t->progress);
    PB_RETURN_IF(pb_picture_set_list(t->arena, c->class_data_dir, c->num_class_images, c->strict_images, set));
    if (set->count < c->num_class_images)
        return pb_error(PB_ERR_IO, "%s has %lld pictures after %lld were made: something else works in this folder",
                        set->folder, (long long)set->count, (long long)missing);
    return PB_OK;
}

static pb_status prepare(pb_trainer *t, const char *checkpoint) {
    pb_rng rng;
    pb_rng_seed(&rng, (uint64_t)t->config->seed.value);
    PB_RETURN_IF(make_class_pictures(t, &rng));
    PB_RETURN_IF(pb_training_data_load(t));
    PB_RETURN_IF(encode_prompts(t));
    PB_RETURN_IF(make_draws(t, &rng));
    PB_RETURN_IF(pb_batch_buffers_init(t));
    PB_RETURN_IF(pb_validation_init(t));
    pb_record_own_memory(t);
    PB_RETURN_IF(pb_programs_start(&t->programs));
    PB_RETURN_IF(load_weights(t, checkpoint));
    return pb_record_begin(t);
}

// --- The loop ---

// Where fp16 overflowed, the update was not made: the scale sinks, and the step is tried again with the next pictures.
static pb_status after_overflow(pb_trainer *t) {
    PB_RETURN_IF(pb_metrics_write_overflow(t->metrics, t->step + 1, t->loss_scale.scale));
    t->loss_scale.scale /= 2;
    t->loss_scale.good_steps = 0;
    if (t->loss_scale.scale < least_scale)
        return pb_error(PB_ERR_NUMERIC,
                        "step %lld: the gradients are not finite at any loss scale; the run is stopped, and the "
                        "last checkpoint is kept (mixed_precision: bf16 has fp32's range)",
                        (long long)t->step + 1);
    return PB_OK;
}

static pb_status not_finite(const pb_trainer *t, double loss) {
    return pb_error(PB_ERR_NUMERIC,
                    "step %lld: the loss or its gradients are not finite (loss %g); the run is stopped%s; %s",
                    (long long)t->step + 1, loss, t->saved_step ? ", and the last checkpoint is kept" : "",
                    t->step ? "a smaller learning_rate may help"
                            : "nothing was learned before it: weights of the model are damaged, or too large for "
                              "mixed_precision");
}

static void after_good_step(pb_trainer *t) {
    t->step++;
    if (!t->loss_scale.dynamic || ++t->loss_scale.good_steps < GROWTH_INTERVAL) return;
    t->loss_scale.scale *= 2;
    t->loss_scale.good_steps = 0;
}

// One optimizer step: as many batches as it accumulates.
static pb_status run_step(pb_trainer *t) {
    const double begun = pb_seconds_now();
    const bool accumulates = t->config->gradient_accumulation_steps > 1;
    double *losses = t->buffers.micro_losses;
    pb_metrics_step line = {.step = t->step + 1, .lr = pb_lr_at(&t->schedule, t->step)};
    float control[PB_CONTROL_COUNT] = {0};
    t->record.images = 0;
    t->record.in_programs = 0;
    for (bool closes = false; !closes; line.micro_count++) {
        const pb_draws_batch batch = pb_draws_next(t->draws);
        closes = pb_batching_closes(&t->batching, batch.number);
        line.epoch = batch.epoch;
        PB_RETURN_IF(pb_trainer_batch(t, &batch, line.lr, &losses[line.micro_count], control));
        line.loss += losses[line.micro_count];
    }
    line.loss /= (double)line.micro_count;
    line.micro_losses = accumulates ? losses : NULL;
    line.grad_norm = (double)control[PB_CONTROL_NORM];
    line.loss_scale = t->loss_scale.dynamic ? t->loss_scale.scale : 0;
    if (control[PB_CONTROL_SKIP] != 0 && t->loss_scale.dynamic) return after_overflow(t);
    if (control[PB_CONTROL_SKIP] != 0 || !isfinite(line.loss)) return not_finite(t, line.loss);
    after_good_step(t);
    line.seconds = pb_seconds_now() - begun;
    PB_RETURN_IF(pb_metrics_write(t->metrics, &line));
    pb_record_step(t, &line);
    pb_progress_step(&t->progress, t->step, line.loss, line.lr, line.seconds);
    return PB_OK;
}

// A signal asked for it, between two steps.
static pb_status stop(pb_trainer *t) {
    if (t->measuring) return pb_error(PB_ERR_INTERRUPTED, "interrupted");
    if (!t->step) return pb_error(PB_ERR_INTERRUPTED, "interrupted before the first step was done");
    if (t->saved_step != t->step) PB_RETURN_IF(pb_state_save(t));
    return pb_error(PB_ERR_INTERRUPTED,
                    "interrupted: step %lld of %lld is in %s/checkpoint-%lld; go on with --set "
                    "resume_from_checkpoint=latest",
                    (long long)t->step, (long long)t->max_steps, t->config->output_dir, (long long)t->step);
}

static pb_status loop(pb_trainer *t) {
    pb_progress_begin(&t->progress, t->step, t->max_steps);
    while (t->step < t->max_steps) {
        const int64_t before = t->step;
        PB_RETURN_IF(run_step(t));
        const bool due = !t->measuring && t->step > before && t->step % t->config->checkpointing_steps == 0;
        if (due) PB_RETURN_IF(pb_state_save(t));
        if (t->step > before) PB_RETURN_IF(pb_validation_run(t));
        if (pb_signals_caught() && t->step < t->max_steps) return stop(t);
    }
    pb_progress_end(&t->progress);
    return PB_OK;
}

// The result could not be written: what was trained goes into a checkpoint, where that is possible. Returns `status`.
static pb_status keep_trained(pb_trainer *t, pb_status status) {
    const char *why = pb_arena_string(t->arena, pb_error_message());
    if (t->saved_step != t->step && pb_state_save(t) != PB_OK) return pb_error(status, "%s", why ? why : "no memory");
    return pb_error(status,
                    "%s; what was trained is in %s/checkpoint-%lld: with resume_from_checkpoint: latest the same "
                    "command writes the result from it",
                    why ? why : "no memory", t->config->output_dir, (long long)t->step);
}

static pb_status run(pb_trainer *t, const char *checkpoint) {
    const char *folder = t->config->output_dir;
    PB_RETURN_IF(prepare(t, checkpoint));
    PB_RETURN_IF(pb_output_write_config(t, pb_fs_join(t->arena, folder, "config.yaml")));
    const char *metrics = pb_fs_join(t->arena, folder, "metrics.jsonl");
    if (!metrics) return pb_error(PB_ERR_MEMORY, "no memory to train");
    PB_RETURN_IF(pb_metrics_open(metrics, t->step, t->config->gradient_accumulation_steps, &t->metrics));
    PB_RETURN_IF(pb_output_write_run(t, false));
    PB_RETURN_IF(loop(t));
    PB_RETURN_IF(pb_trainer_flush(t));
    PB_RETURN_IF(pb_metrics_sync(t->metrics));
    PB_RETURN_IF(pb_record_finish(t));
    if (t->measuring) return pb_record_timeline(t);
    pb_status status = pb_output_write_model(t);
    if (status != PB_OK) return keep_trained(t, status);
    PB_RETURN_IF(pb_output_write_run(t, true));
    status = pb_record_timeline(t);
    if (status != PB_OK) return pb_error_context(status, "%s is the fine-tuned pipeline, but its timeline", folder);
    pb_progress_note(&t->progress, "done: %s is the fine-tuned pipeline", folder);
    return PB_OK;
}

// --- All of it ---

static pb_status train_into(pb_trainer *t) {
    pb_beginning begins;
    PB_RETURN_IF(pb_output_open(t));
    PB_RETURN_IF(pb_checkpoint_prune(t->config->output_dir, 0));
    PB_RETURN_IF(pb_trainer_begin(t, true, &begins));
    if (begins.nothing) {
        pb_progress_note(&t->progress, "%s: this run has done its %lld steps; nothing is left to do",
                         t->config->output_dir, (long long)begins.step);
        return PB_OK;
    }
    if (begins.checkpoints && !begins.checkpoint && !t->measuring) pb_beginning_describe(t, &begins, stderr);
    if (t->config->memory.timeline) PB_RETURN_IF(pb_fs_make_directories(t->config->memory.timeline));
    t->run = larger((int64_t)time(NULL), begins.earlier + 1);
    pb_signals_catch();
    return run(t, begins.checkpoint);
}

static void deinit(pb_trainer *t) {
    pb_metrics_close(t->metrics);
    pb_record_deinit(t);
    pb_draws_destroy(t->draws);
    pb_validation_deinit(t);
    pb_programs_deinit(&t->programs);
    pb_training_data_deinit(&t->data);
    for (int part = 0; part < PB_PART_COUNT; part++) pb_weights_close(t->sources[part]);
    pb_model_dir_close(t->model);
    pb_output_close(t);
    pb_arena_destroy(t->arena);
}

static pb_status train(pb_config *config, bool check, pb_train_report *report) {
    pb_status status = PB_OK;
    pb_trainer t = {
        .config = config, .arena = pb_arena_create(), .lock = -1, .report = report, .measuring = report != NULL};
    if (!t.arena) PB_FAIL(PB_ERR_MEMORY, "no memory to train");
    if (config->threads) pb_threads_set((int)config->threads);
    pb_executor_captures(config->cuda_graphs);
    if (!check) pb_signals_outlive_reader();
    if (t.measuring) config->validation_prompt = NULL;  // of a run that is only measured nothing is written
    PB_TRY(draw_seed(config));
    t.rounding_seed = config->seed.value;
    PB_TRY(open_model(&t));
    PB_TRY(plan(&t));
    name_skipped(&t);
    describe(&t, check ? stdout : stderr);
    PB_TRY(check ? pb_trainer_look(&t) : train_into(&t));
fail:
    pb_progress_end(&t.progress);
    if (status != PB_OK && t.arena) status = pb_output_withdraw(&t, status);
    deinit(&t);
    return status;
}

pb_status pb_train(pb_config *config, bool check) {
    return train(config, check, NULL);
}

pb_status pb_train_measure(pb_config *config, pb_train_report *report) {
    *report = (pb_train_report){0};
    return train(config, false, report);
}
