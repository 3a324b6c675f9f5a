#include "train/denoise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/transpose.h"

pb_status pb_denoise_init(pb_denoise *d) {
    d->elements = d->channels * d->rows * d->columns;
    const size_t batch = (size_t)d->batch, images = (size_t)d->copies * batch, elements = (size_t)d->elements;
    const size_t picture = (size_t)d->width * (size_t)d->height * 3;
    const size_t most = images * elements > picture ? images * elements : picture;
    d->x = malloc(batch * elements * sizeof *d->x);
    d->output = malloc(images * elements * sizeof *d->output);
    d->wide = malloc(most * sizeof *d->wide);
    d->narrow = malloc(most * pb_dtype_size(d->dtype));
    d->times = malloc(images * sizeof *d->times);
    const bool complete = d->x && d->output && d->wide && d->narrow && d->times;
    return complete ? PB_OK : pb_error(PB_ERR_MEMORY, "no memory for pictures of %dx%d", d->width, d->height);
}

void pb_denoise_deinit(pb_denoise *d) {
    free(d->x);
    free(d->output);
    free(d->wide);
    free(d->narrow);
    free(d->times);
    d->x = d->output = d->wide = d->times = NULL;
    d->narrow = NULL;
}

// The model's output for `x` (batch,C,h,w), with guidance: u + guidance * (c - u).
static pb_status call_unet(pb_denoise *d, int call) {
    pb_executor *const executor = d->unet;
    const int images = d->copies * d->batch;
    const size_t group = (size_t)d->batch * (size_t)d->elements, size = pb_dtype_size(d->dtype);
    const int64_t pixels = d->rows * d->columns;
    pb_sampler_input(d->sampler, call, d->x, d->output);
    pb_transpose(d->wide, d->output, d->batch, d->channels, pixels);
    pb_convert(d->dtype, d->narrow, PB_F32, d->wide, group);
    for (int i = 0; i < d->copies; i++)
        PB_RETURN_IF(pb_executor_write(executor, d->sample, (uint64_t)i * group * size, d->narrow, group * size));
    for (int i = 0; i < images; i++) d->times[i] = pb_sampler_timestep(d->sampler, call);
    PB_RETURN_IF(pb_executor_write(executor, d->timesteps, 0, d->times, (uint64_t)images * sizeof *d->times));
    PB_RETURN_IF(pb_executor_write(executor, d->condition, 0, d->texts, d->text_bytes));
    if (d->before_unet) PB_RETURN_IF(d->before_unet(d->context));
    PB_RETURN_IF(pb_executor_run(executor));
    const size_t all = (size_t)d->copies * group;
    PB_RETURN_IF(pb_executor_read(executor, d->prediction, 0, d->narrow, all * size));
    pb_convert(PB_F32, d->wide, d->dtype, d->narrow, all);
    pb_transpose(d->output, d->wide, images, pixels, d->channels);
    const float guidance = (float)d->guidance;
    for (size_t i = 0; d->copies == 2 && i < group; i++) {
        const float unconditioned = d->output[i];
        d->output[i] = unconditioned + guidance * (d->output[group + i] - unconditioned);
    }
    return PB_OK;
}

static pb_status decode(pb_denoise *d, const float *latents, pb_image *image) {
    pb_executor *const executor = d->decoder;
    const size_t size = pb_dtype_size(d->dtype), count = (size_t)d->elements;
    const size_t values = (size_t)d->width * (size_t)d->height * 3;
    pb_transpose(d->wide, latents, 1, d->channels, d->rows * d->columns);
    for (size_t i = 0; i < count; i++) d->wide[i] /= d->scaling_factor;
    pb_convert(d->dtype, d->narrow, PB_F32, d->wide, count);
    PB_RETURN_IF(pb_executor_write(executor, d->latents, 0, d->narrow, count * size));
    if (d->before_decoder) PB_RETURN_IF(d->before_decoder(d->context));
    PB_RETURN_IF(pb_executor_run(executor));
    PB_RETURN_IF(pb_executor_read(executor, d->pixels, 0, d->narrow, values * size));
    pb_convert(PB_F32, d->wide, d->dtype, d->narrow, values);
    PB_RETURN_IF(pb_image_create(d->width, d->height, image));
    for (size_t i = 0; i < values; i++) d->overflowed |= !isfinite(d->wide[i]);
    for (size_t i = 0; i < values; i++) image->rgb[i] = (uint8_t)rintf(255 * fminf(fmaxf(d->wide[i] / 2 + 0.5f, 0), 1));
    return PB_OK;
}

pb_status pb_denoise_run(pb_denoise *d, float *latents, int count, pb_image *images, pb_denoise_progress progress,
                         void *context) {
    pb_status status = PB_OK;
    const int batch = d->batch, calls = pb_sampler_calls(d->sampler);
    const int64_t groups = (count + batch - 1) / batch;
    int64_t done = 0;
    for (int i = 0; images && i < count; i++) images[i] = (pb_image){0};
    for (int first = 0; first < count; first += batch) {
        const int used = count - first < batch ? count - first : batch;
        const size_t values = (size_t)used * (size_t)d->elements, all = (size_t)batch * (size_t)d->elements;
        float *const group = latents + (size_t)first * (size_t)d->elements;
        const float sigma = pb_sampler_init_sigma(d->sampler);
        for (size_t i = 0; i < all; i++) d->x[i] = i < values ? group[i] * sigma : 0;  // a short group is filled up
        for (int call = 0; call < calls; call++) {
            PB_TRY(call_unet(d, call));
            pb_sampler_step(d->sampler, call, d->output, d->x);
            if (progress) PB_TRY(progress(context, ++done, groups * calls));
        }
        memcpy(group, d->x, values * sizeof *group);
        for (int i = 0; images && i < used; i++)
            PB_TRY(decode(d, group + (size_t)i * (size_t)d->elements, &images[first + i]));
    }
fail:
    for (int i = 0; status != PB_OK && images && i < count; i++) pb_image_deinit(&images[i]);
    return status;
}
