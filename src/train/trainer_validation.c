// Validation pictures: what the weights of this moment make of validation_prompt, as train_dreambooth.py makes them (25
// steps, guidance 7.5, the same noise each time). Their programs are some of the run's: planned with the steps', over
// the same slabs, with weights and state where these are, so that they take no memory of their own.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fs.h"
#include "train/trainer_parts.h"
#include "train/weights.h"

enum { SAMPLING_STEPS = 25, TEXT_ROOM = 32 };
static const double guidance = 7.5;

// A link would lead the pictures elsewhere.
static pb_status judge_folder(const char *folder) {
    struct stat info;
    if (!lstat(folder, &info) && !S_ISDIR(info.st_mode))
        return pb_error(PB_ERR_IO, "%s, where validation pictures go, is no folder; remove it", folder);
    return PB_OK;
}

// The texts of a UNet call: first the empty one for each picture, then the prompt for each; as ids where the text
// encoder is trained and is in the program, else as what it makes of them.
static pb_status lay_out_texts(pb_trainer *t) {
    pb_validation *v = &t->validation;
    pb_denoise *d = &v->denoise;
    const pb_step_graph *step = t->programs.sample.step;
    const bool as_ids = step->ids != PB_NONE;
    d->condition = as_ids ? step->ids : step->context;
    d->text_bytes = pb_value_bytes(pb_graph_value(step->graph, d->condition));
    const int images = d->copies * d->batch;
    const size_t bytes = d->text_bytes / (size_t)images;
    char *texts = v->texts = malloc(d->text_bytes);
    if (!texts) return pb_error(PB_ERR_MEMORY, "no memory for validation_prompt");
    for (int i = 0; i < images; i++) {
        const int prompt = i < d->batch ? PB_PROMPT_NONE : PB_PROMPT_VALIDATION;
        memcpy(texts + (size_t)i * bytes, as_ids ? (const void *)t->ids[prompt] : t->context[prompt], bytes);
    }
    d->texts = texts;
    return PB_OK;
}

// The first call makes the update that is due; those after it make working copies again, and nothing else.
static pb_status before_unet(void *context) {
    pb_trainer *t = context;
    return pb_trainer_upload_due(t, &t->programs.sample);
}

static pb_status before_decoder(void *context) {
    pb_trainer *t = context;
    return pb_weights_load(t->programs.decode.step->decoder, t->validation.vae, t->programs.decode.executor);
}

pb_status pb_validation_init(pb_trainer *t) {
    pb_validation *v = &t->validation;
    pb_denoise *d = &v->denoise;
    const pb_step_graph *sample = t->programs.sample.step, *decode = t->programs.decode.step;
    if (!sample) return PB_OK;
    const pb_validation_request *r = &t->request.validation;
    const int factor = pb_vae_factor(r->vae);
    *d = (pb_denoise){.dtype = t->request.compute,
                      .batch = r->pictures,
                      .copies = 2,
                      .guidance = guidance,
                      .width = r->latent_w * factor,
                      .height = r->latent_h * factor,
                      .channels = r->vae->latent_channels,
                      .rows = r->latent_h,
                      .columns = r->latent_w,
                      .scaling_factor = r->vae->scaling_factor,
                      .sample = sample->latents,
                      .timesteps = sample->timesteps,
                      .prediction = sample->result,
                      .latents = decode->latents,
                      .pixels = decode->result,
                      .before_unet = before_unet,
                      .before_decoder = before_decoder,
                      .context = t};
    PB_RETURN_IF(pb_denoise_init(d));
    PB_RETURN_IF(lay_out_texts(t));
    const pb_model_part_dir *scheduler = &t->model->parts[PB_PART_SCHEDULER];
    PB_RETURN_IF(pb_sampler_create(pb_sampler_kind_of_class(t->config->validation_scheduler), scheduler->class_name,
                                   scheduler->config, scheduler->config_path, SAMPLING_STEPS,
                                   (size_t)d->batch * (size_t)d->elements, &d->sampler));
    PB_RETURN_IF(pb_model_dir_weights(t->model, PB_PART_VAE, t->config->variant, &v->vae));
    PB_RETURN_IF(pb_weights_check(decode->decoder, v->vae));
    v->folder = pb_fs_join(t->arena, t->config->output_dir, "validation");
    v->path_bytes = v->folder ? strlen(v->folder) + 64 : 0;
    v->path = pb_arena_alloc(t->arena, v->path_bytes + 1);
    v->latents = pb_arena_array(t->arena, (size_t)(d->batch * d->elements), sizeof *v->latents);
    if (!v->folder || !v->path || !v->latents) return pb_error(PB_ERR_MEMORY, "no memory for validation pictures");
    return judge_folder(v->folder);
}

void pb_validation_deinit(pb_trainer *t) {
    pb_validation *v = &t->validation;
    pb_sampler_destroy(v->denoise.sampler);
    pb_denoise_deinit(&v->denoise);
    pb_weights_close(v->vae);
    free(v->texts);
}

// pndm makes one call more.
double pb_validation_seconds(const pb_trainer *t) {
    const int64_t all = t->config->num_validation_images, batch = t->request.validation.pictures;
    const double calls = (double)((all + batch - 1) / batch) * SAMPLING_STEPS;
    return calls * t->programs.sample.program->seconds + (double)all * t->programs.decode.program->seconds;
}

typedef struct progress_part {
    pb_trainer *trainer;
    int64_t before, total;
} progress_part;

static pb_status show(void *context, int64_t done, int64_t total) {
    const progress_part *part = context;
    (void)total;
    pb_progress_count(&part->trainer->progress, "sampling validation pictures", part->before + done, part->total);
    return pb_signals_caught() ? PB_ERR_INTERRUPTED : PB_OK;
}

static pb_status write_picture(pb_trainer *t, const pb_image *image, int64_t index) {
    const pb_validation *v = &t->validation;
    char steps[TEXT_ROOM], scale[TEXT_ROOM], seed[TEXT_ROOM], size[TEXT_ROOM], step[TEXT_ROOM];
    snprintf(v->path, v->path_bytes, "%s/step-%lld-%lld.png", v->folder, (long long)t->step, (long long)index);
    snprintf(steps, sizeof steps, "%d", SAMPLING_STEPS);
    snprintf(scale, sizeof scale, "%g", guidance);
    snprintf(seed, sizeof seed, "%lld", (long long)t->rounding_seed);
    snprintf(size, sizeof size, "%dx%d", v->denoise.width, v->denoise.height);
    snprintf(step, sizeof step, "%lld", (long long)t->step);
    const pb_image_text texts[] = {{"Software", "pagebooth"},
                                   {"prompt", t->config->validation_prompt},
                                   {"training_step", step},
                                   {"sampler", pb_sampler_kind_name(pb_sampler_kind_of(v->denoise.sampler))},
                                   {"steps", steps},
                                   {"guidance_scale", scale},
                                   {"seed", seed},
                                   {"size", size}};
    return pb_image_write_png(v->path, image, texts, sizeof texts / sizeof *texts);
}

// `images`: room for a call's pictures.
static pb_status make_pictures(pb_trainer *t, pb_image *images) {
    pb_denoise *d = &t->validation.denoise;
    const int64_t all = t->config->num_validation_images, batch = d->batch, calls = pb_sampler_calls(d->sampler);
    progress_part part = {.trainer = t, .total = (all + batch - 1) / batch * calls};
    pb_rng rng;
    pb_rng_seed(&rng, (uint64_t)t->rounding_seed);
    for (int64_t first = 0; first < all; first += batch, part.before += calls) {
        const int64_t count = all - first < batch ? all - first : batch;
        // One draw for each picture, as the pipeline's calls draw with one generator.
        for (int64_t i = 0; i < count; i++)
            pb_rng_randn_as(&rng, d->dtype, t->validation.latents + i * d->elements, (size_t)d->elements);
        PB_RETURN_IF(pb_denoise_run(d, t->validation.latents, (int)count, images, show, &part));
        pb_status status = PB_OK;
        for (int64_t i = 0; i < count; i++) {
            if (status == PB_OK) status = write_picture(t, &images[i], first + i);
            pb_image_deinit(&images[i]);
        }
        PB_RETURN_IF(status);
    }
    return PB_OK;
}

pb_status pb_validation_run(pb_trainer *t) {
    pb_validation *v = &t->validation;
    if (!t->programs.sample.executor || t->step % t->config->validation_steps != 0) return PB_OK;
    if (pb_signals_caught()) return PB_OK;
    v->denoise.unet = t->programs.sample.executor;
    v->denoise.decoder = t->programs.decode.executor;
    const double begun = pb_seconds_now();
    // Where working copies persist, the program does not begin with the update that is due.
    if (t->programs.sample.step->due_control == PB_NONE) PB_RETURN_IF(pb_trainer_flush(t));
    PB_RETURN_IF(judge_folder(v->folder));
    PB_RETURN_IF(pb_fs_make_directories(v->folder));
    pb_image *images = calloc((size_t)v->denoise.batch, sizeof *images);
    if (!images) return pb_error(PB_ERR_MEMORY, "no memory for validation pictures");
    const pb_status status = make_pictures(t, images);
    free(images);
    if (status == PB_ERR_INTERRUPTED) return PB_OK;  // the loop sees the signal, and ends the run in good order
    PB_RETURN_IF(status);
    pb_progress_note(&t->progress, "step %lld: %lld validation pictures in %s (step-%lld-*.png), %.1f s",
                     (long long)t->step, (long long)t->config->num_validation_images, v->folder, (long long)t->step,
                     pb_seconds_now() - begun);
    return PB_OK;
}
