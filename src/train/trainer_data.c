#include <stdlib.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "train/trainer_parts.h"

pb_status pb_training_data_list(pb_arena *arena, const pb_config *config, pb_training_data *data) {
    data->resolution = (int32_t)config->resolution;
    data->center_crop = config->center_crop;
    pb_picture_set *instances = &data->set[PB_SIDE_INSTANCE], *classes = &data->set[PB_SIDE_CLASS];
    if (pb_fs_kind_of(config->instance_data_dir) == PB_FS_NONE)
        return pb_error(PB_ERR_IO, "instance_data_dir: there is no folder %s", config->instance_data_dir);
    PB_RETURN_IF(pb_picture_set_list(arena, config->instance_data_dir, 0, config->strict_images, instances));
    if (!instances->count)
        return pb_error(PB_ERR_FORMAT, "instance_data_dir: there is no JPEG or PNG picture in %s%s", instances->folder,
                        instances->skipped_count ? ", only other things; its folders are not gone through" : "");
    if (!config->with_prior_preservation) return PB_OK;
    // Missing class pictures are made, and their folder with them.
    if (pb_fs_kind_of(config->class_data_dir) == PB_FS_NONE) {
        classes->folder = config->class_data_dir;
        return PB_OK;
    }
    PB_RETURN_IF(
        pb_picture_set_list(arena, config->class_data_dir, config->num_class_images, config->strict_images, classes));
    struct stat photos, made;
    if (classes->count >= config->num_class_images || stat(config->instance_data_dir, &photos) ||
        stat(config->class_data_dir, &made) || photos.st_dev != made.st_dev || photos.st_ino != made.st_ino)
        return PB_OK;
    return pb_error(PB_ERR_USAGE,
                    "class_data_dir is the same folder as instance_data_dir, %s: the pictures of the class that are "
                    "missing would be made among those of the subject",
                    config->instance_data_dir);
}

static bool cacheable(const pb_trainer *t, int side, int64_t picture) {
    const pb_crop_slack *slack = &t->data.slack[side][picture];
    return t->config->cache_latents && (t->data.center_crop || (!slack->rows && !slack->columns));
}

// torchvision's CenterCrop: int(round(x / 2.0)), where Python rounds a half to the even neighbour.
static int32_t center_offset(int32_t slack) {
    const int32_t half = slack / 2;
    return half + (slack % 2 && half % 2);
}

static pb_status make_room(pb_trainer *t, int side) {
    pb_training_data *d = &t->data;
    const pb_picture_set *set = &d->set[side];
    const int64_t elements = d->encoder->channels * d->encoder->latent_pixels;
    d->slack[side] = pb_arena_array(t->arena, (size_t)set->count + 1, sizeof *d->slack[side]);
    d->cached[side] = pb_arena_array(t->arena, (size_t)set->count + 1, sizeof *d->cached[side]);
    if (!d->slack[side] || !d->cached[side]) return pb_error(PB_ERR_MEMORY, "no memory for the latents");
    int64_t cached = 0;
    for (int64_t i = 0; i < set->count; i++) {
        d->slack[side][i] =
            (pb_crop_slack){set->images[i].height - d->resolution, set->images[i].width - d->resolution};
        cached += cacheable(t, side, i);
    }
    d->cache[side] = calloc((size_t)(cached * 2 * elements) + 1, sizeof *d->cache[side]);
    if (!d->cache[side])
        return pb_error(PB_ERR_MEMORY, "no memory for the latents of %lld pictures", (long long)cached);
    float *at = d->cache[side];
    for (int64_t i = 0; i < set->count; i++) {
        if (!cacheable(t, side, i)) continue;
        d->cached[side][i] = (pb_moments){.mean = at, .deviation = at + elements};
        at += 2 * elements;
    }
    return PB_OK;
}

static pb_status fill_cache(pb_trainer *t, int side) {
    pb_training_data *d = &t->data;
    for (int64_t i = 0; i < d->set[side].count; i++) {
        if (!d->cached[side][i].mean) continue;
        if (pb_signals_caught()) return pb_error(PB_ERR_INTERRUPTED, "interrupted before the first step");
        const pb_crop_slack slack = d->slack[side][i];
        const pb_crop crop = {center_offset(slack.rows), center_offset(slack.columns)};
        PB_RETURN_IF(pb_vae_encoder_run(d->encoder, &d->set[side].images[i], crop, &d->cached[side][i]));
        pb_image_deinit(&d->set[side].images[i]);
    }
    return PB_OK;
}

pb_encoding pb_trainer_encoding(const pb_trainer *t) {
    return (pb_encoding){.backend = t->limits.backend,
                         .model = t->model,
                         .variant = t->config->variant,
                         .dtype = t->request.compute,
                         .weights = t->config->frozen_weights};
}

static void say_what_is_encoded(pb_trainer *t, int64_t cached, int64_t all) {
    if (cached == all) return;
    const char *const why = t->config->cache_latents
                                ? "a random crop is another picture each time; center_crop: true, or "
                                  "pictures that already have the size, would be faster"
                                : "cache_latents is false";
    pb_progress_note(&t->progress, "%lld of %lld pictures are encoded by the VAE at each step: %s",
                     (long long)(all - cached), (long long)all, why);
}

pb_status pb_training_data_load(pb_trainer *t) {
    pb_training_data *d = &t->data;
    int64_t cached = 0, all = 0;
    const pb_encoding encoding = pb_trainer_encoding(t);
    PB_RETURN_IF(pb_vae_encoder_create(&encoding, &t->architecture.vae, d->resolution, &d->encoder));
    const int64_t elements = d->encoder->channels * d->encoder->latent_pixels;
    for (int side = 0; side < PB_SIDES; side++) {
        if (side == PB_SIDE_CLASS && !t->config->with_prior_preservation) break;
        PB_RETURN_IF(pb_picture_set_load(&d->set[side], d->resolution));
        PB_RETURN_IF(make_room(t, side));
        PB_RETURN_IF(fill_cache(t, side));
        for (int64_t i = 0; i < d->set[side].count; i++, all++) cached += d->cached[side][i].mean != NULL;
    }
    say_what_is_encoded(t, cached, all);
    pb_progress_note(&t->progress, "%lld picture%s encoded; the VAE %s %.1f MiB of the device", (long long)cached,
                     cached == 1 ? " is" : "s are", cached == all ? "took" : "stays, and takes",
                     (double)d->encoder->program->tier_bytes[PB_TIER_DEVICE] / 0x1p20);
    if (cached == all) {
        pb_vae_encoder_destroy(d->encoder);
        d->encoder = NULL;
        return PB_OK;
    }
    d->fresh.mean = malloc((size_t)(2 * elements) * sizeof *d->fresh.mean);
    if (!d->fresh.mean) return pb_error(PB_ERR_MEMORY, "no memory for the latents");
    d->fresh.deviation = d->fresh.mean + elements;
    return PB_OK;
}

void pb_training_data_deinit(pb_training_data *d) {
    for (int side = 0; side < PB_SIDES; side++) {
        pb_picture_set_deinit(&d->set[side]);
        free(d->cache[side]);
    }
    pb_vae_encoder_destroy(d->encoder);
    free(d->fresh.mean);
    *d = (pb_training_data){0};
}

pb_status pb_training_data_moments(pb_training_data *d, int side, int64_t picture, pb_crop crop,
                                   const pb_moments **moments) {
    if (d->cached[side][picture].mean) {
        *moments = &d->cached[side][picture];
        return PB_OK;
    }
    if (d->center_crop) {
        const pb_crop_slack slack = d->slack[side][picture];
        crop = (pb_crop){center_offset(slack.rows), center_offset(slack.columns)};
    }
    PB_RETURN_IF(pb_vae_encoder_run(d->encoder, &d->set[side].images[picture], crop, &d->fresh));
    *moments = &d->fresh;
    return PB_OK;
}
