#include "train/noise_schedule.h"

#include <assert.h>
#include <math.h>
#include <string.h>

// torch.linspace(start, end, count) in float: the second half is counted from the end, each value with one rounding.
static void linspace(float start, float end, int count, float *values) {
    const float step = count > 1 ? (end - start) / (float)(count - 1) : 0;
    for (int i = 0; i < count; i++)
        values[i] = i < count / 2 ? fmaf(step, (float)i, start) : fmaf(-step, (float)(count - 1 - i), end);
}

static double cosine_bar(double t) {
    const double c = cos((t + 0.008) / 1.008 * M_PI / 2);
    return c * c;
}

// torch.cumprod(1 - betas): the product is kept in double.
static void accumulate(const float *betas, int count, float *alphas_cumprod) {
    double product = 1;
    for (int i = 0; i < count; i++) {
        product *= (double)(1 - betas[i]);
        alphas_cumprod[i] = (float)product;
    }
}

// Shifts and scales sqrt(alphas_cumprod) so that it ends at 0 and begins as it was (Lin et al. 2023, algorithm 1), by
// way of the betas as diffusers does it.
static void rescale_to_zero_snr(float *betas, int count, float *spare) {
    accumulate(betas, count, spare);
    for (int i = 0; i < count; i++) spare[i] = sqrtf(spare[i]);
    const float first = spare[0], last = spare[count - 1], scale = first / (first - last);
    for (int i = 0; i < count; i++) {
        const float root = (spare[i] - last) * scale;
        spare[i] = root * root;
    }
    for (int i = count - 1; i > 0; i--) betas[i] = 1 - spare[i] / spare[i - 1];
    betas[0] = 1 - spare[0];
}

static pb_status read_trained(const pb_json *list, const char *name, int count, float *betas) {
    if (list->type != PB_JSON_ARRAY || list->count != (size_t)count)
        return pb_error(PB_ERR_FORMAT, "%s: trained_betas is not a list of num_train_timesteps numbers", name);
    for (const pb_json *entry = list->first; entry; entry = entry->next) {
        if (entry->type != PB_JSON_NUMBER || !(entry->number >= 0 && entry->number <= 1))
            return pb_error(PB_ERR_FORMAT, "%s: trained_betas has an entry that is not a number from 0 to 1", name);
        *betas++ = (float)entry->number;
    }
    return PB_OK;
}

static pb_status read_betas(const pb_json *config, const char *name, int count, float *betas) {
    double start, end;
    const char *kind;
    PB_RETURN_IF(pb_json_get_double(config, "beta_start", 0.0001, name, &start));
    PB_RETURN_IF(pb_json_get_double(config, "beta_end", 0.02, name, &end));
    PB_RETURN_IF(pb_json_get_string(config, "beta_schedule", "linear", name, &kind));
    const pb_json *const trained = pb_json_get(config, "trained_betas");
    if (trained && trained->type != PB_JSON_NULL) return read_trained(trained, name, count, betas);
    if (!(start >= 0 && start <= end && end <= 1))
        return pb_error(PB_ERR_FORMAT, "%s: beta_start and beta_end are not 0 <= beta_start <= beta_end <= 1", name);
    if (strcmp(kind, "linear") == 0) {
        linspace((float)start, (float)end, count, betas);
    } else if (strcmp(kind, "scaled_linear") == 0) {
        linspace((float)sqrt(start), (float)sqrt(end), count, betas);
        for (int i = 0; i < count; i++) betas[i] *= betas[i];
    } else if (strcmp(kind, "squaredcos_cap_v2") == 0) {
        for (int i = 0; i < count; i++) {
            const double ratio = cosine_bar((double)(i + 1) / count) / cosine_bar((double)i / count);
            betas[i] = (float)fmin(1 - ratio, 0.999);
        }
    } else {
        return pb_error(PB_ERR_UNSUPPORTED,
                        "%s: beta_schedule \"%s\" is not one of linear, scaled_linear, "
                        "squaredcos_cap_v2",
                        name, kind);
    }
    return PB_OK;
}

pb_status pb_noise_schedule_init(pb_arena *arena, const pb_json *config, const char *name, bool rescales,
                                 pb_noise_schedule *schedule) {
    int64_t count;
    bool zero_snr;
    const char *prediction;
    PB_RETURN_IF(pb_json_get_int(config, "num_train_timesteps", 1, 1000000, 1000, name, &count));
    PB_RETURN_IF(pb_json_get_bool(config, "rescale_betas_zero_snr", false, name, &zero_snr));
    PB_RETURN_IF(pb_json_get_string(config, "prediction_type", "epsilon", name, &prediction));
    const bool velocity = strcmp(prediction, "v_prediction") == 0;
    if (!velocity && strcmp(prediction, "epsilon") != 0)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: prediction_type \"%s\" is not supported (epsilon, v_prediction)", name,
                        prediction);
    float *const betas = pb_arena_array(arena, (size_t)count, sizeof *betas);
    float *const alphas_cumprod = pb_arena_array(arena, (size_t)count, sizeof *alphas_cumprod);
    if (!betas || !alphas_cumprod) return pb_error(PB_ERR_MEMORY, "out of memory for the noise schedule");
    PB_RETURN_IF(read_betas(config, name, (int)count, betas));
    if (zero_snr && rescales) rescale_to_zero_snr(betas, (int)count, alphas_cumprod);
    accumulate(betas, (int)count, alphas_cumprod);
    *schedule =
        (pb_noise_schedule){.timesteps = (int)count, .v_prediction = velocity, .alphas_cumprod = alphas_cumprod};
    return PB_OK;
}

// out = a * x + b * y, where `a` and `b` are of x_dtype or y_dtype's kin: torch rounds each product to its operands'
// common type and the sum to the common type of the products.
typedef struct mix {
    pb_dtype sample_dtype, noise_dtype;
    float sample_scale, noise_scale;
} mix;

static mix mix_of(const pb_noise_schedule *schedule, int t, const pb_noise_operands *operands) {
    assert(t >= 0 && t < schedule->timesteps);
    const pb_dtype dtype = operands->dtype;
    assert(operands->noise_dtype == dtype || operands->noise_dtype == PB_F32);
    const float a = pb_rounded(dtype, schedule->alphas_cumprod[t]);
    return (mix){.sample_dtype = dtype,
                 .noise_dtype = operands->noise_dtype,
                 .sample_scale = pb_rounded(dtype, sqrtf(a)),
                 .noise_scale = pb_rounded(dtype, sqrtf(pb_rounded(dtype, 1 - a)))};
}

void pb_noise_add(const pb_noise_schedule *schedule, int t, const pb_noise_operands *operands, float *out) {
    const mix m = mix_of(schedule, t, operands);
    for (size_t i = 0; i < operands->count; i++) {
        const float sample = pb_rounded(m.sample_dtype, m.sample_scale * operands->sample[i]);
        const float noise = pb_rounded(m.noise_dtype, m.noise_scale * operands->noise[i]);
        out[i] = pb_rounded(m.noise_dtype, sample + noise);
    }
}

void pb_noise_velocity(const pb_noise_schedule *schedule, int t, const pb_noise_operands *operands, float *out) {
    const mix m = mix_of(schedule, t, operands);
    for (size_t i = 0; i < operands->count; i++) {
        const float noise = pb_rounded(m.noise_dtype, m.sample_scale * operands->noise[i]);
        const float sample = pb_rounded(m.sample_dtype, m.noise_scale * operands->sample[i]);
        out[i] = pb_rounded(m.noise_dtype, noise - sample);
    }
}

float pb_noise_snr(const pb_noise_schedule *schedule, int t) {
    assert(t >= 0 && t < schedule->timesteps);
    const float a = schedule->alphas_cumprod[t];
    const float ratio = sqrtf(a) / sqrtf(1 - a);
    return ratio * ratio;
}

float pb_noise_min_snr_weight(const pb_noise_schedule *schedule, int t, float gamma) {
    const float snr = pb_noise_snr(schedule, t);
    const float least = snr < gamma ? snr : gamma;
    if (schedule->v_prediction) return least / (snr + 1);
    return snr > 0 ? least / snr : 1;
}
