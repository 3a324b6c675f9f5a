#include "train/sampler.h"

#include <math.h>
#include <string.h>

#include "train/sampler_internal.h"

static const char *const names[] = {"model", "ddim", "pndm", "euler", "dpmpp2m"};
static const char *const classes[] = {NULL, "DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler",
                                      "DPMSolverMultistepScheduler"};
enum { KINDS = sizeof names / sizeof *names };

pb_status pb_sampler_kind_parse(const char *text, pb_sampler_kind *kind) {
    for (int i = 1; i < KINDS; i++) {
        if (strcmp(text, names[i]) != 0) continue;
        *kind = (pb_sampler_kind)i;
        return PB_OK;
    }
    return pb_error(PB_ERR_USAGE, "\"%s\" is not a sampler: ddim, pndm, euler or dpmpp2m", text);
}

const char *pb_sampler_kind_name(pb_sampler_kind kind) {
    return names[kind];
}

pb_sampler_kind pb_sampler_kind_of_class(const char *class_name) {
    for (int i = 1; i < KINDS; i++)
        if (!strcmp(class_name, classes[i])) return (pb_sampler_kind)i;
    return PB_SAMPLER_MODEL;
}

typedef enum spacing { LINSPACE, LEADING, TRAILING, SPACINGS } spacing;

typedef struct settings {
    const pb_json *config;
    const char *name;
    bool own;  // the model's own scheduler, as the pipeline loads it
    spacing spacing;
    int64_t offset;  // steps_offset
    bool karras, zero_snr, clip, alpha_to_one, skip_runge_kutta, sigma_min_last, euler_last, lower_order_last;
    bool cosine;  // beta_schedule squaredcos_cap_v2
    double clip_range;
} settings;

// Options of diffusers' schedulers that change the result and that we do not have: flags that must be off, and choices
// of which there is only one.
static pb_status refuse_others(const settings *s, pb_sampler_kind kind) {
    static const struct {
        unsigned kinds;
        const char *flag;
    } flags[] = {{1u << PB_SAMPLER_DDIM | 1u << PB_SAMPLER_DPMPP2M, "thresholding"},
                 {1u << PB_SAMPLER_EULER | 1u << PB_SAMPLER_DPMPP2M, "use_exponential_sigmas"},
                 {1u << PB_SAMPLER_EULER | 1u << PB_SAMPLER_DPMPP2M, "use_beta_sigmas"},
                 {1u << PB_SAMPLER_DPMPP2M, "use_lu_lambdas"},
                 {1u << PB_SAMPLER_DPMPP2M, "use_flow_sigmas"}};
    static const struct {
        unsigned kinds;
        const char *key, *only;
    } choices[] = {{1u << PB_SAMPLER_EULER, "interpolation_type", "linear"},
                   {1u << PB_SAMPLER_EULER, "timestep_type", "discrete"},
                   {1u << PB_SAMPLER_DPMPP2M, "algorithm_type", "dpmsolver++"},
                   {1u << PB_SAMPLER_DPMPP2M, "solver_type", "midpoint"}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool value;
        PB_RETURN_IF(pb_json_get_bool(s->config, flags[i].flag, false, s->name, &value));
        if (value && flags[i].kinds >> kind & 1)
            return pb_error(PB_ERR_UNSUPPORTED, "%s: %s is not supported", s->name, flags[i].flag);
    }
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        const char *value;
        PB_RETURN_IF(pb_json_get_string(s->config, choices[i].key, choices[i].only, s->name, &value));
        if (strcmp(value, choices[i].only) != 0 && choices[i].kinds >> kind & 1)
            return pb_error(PB_ERR_UNSUPPORTED, "%s: %s \"%s\" is not supported, only \"%s\"", s->name, choices[i].key,
                            value, choices[i].only);
    }
    if (kind != PB_SAMPLER_DPMPP2M) return PB_OK;
    int64_t order;
    PB_RETURN_IF(pb_json_get_int(s->config, "solver_order", 1, 3, 2, s->name, &order));
    if (order != 2) return pb_error(PB_ERR_UNSUPPORTED, "%s: solver_order %d is not supported", s->name, (int)order);
    const pb_json *const clipped = pb_json_get(s->config, "lambda_min_clipped");  // diffusers writes -Infinity: a null
    if (clipped && clipped->type == PB_JSON_NUMBER)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: lambda_min_clipped is not supported", s->name);
    return PB_OK;
}

static pb_status read_settings(pb_sampler_kind kind, settings *s) {
    static const char *const spacings[] = {[LINSPACE] = "linspace", [LEADING] = "leading", [TRAILING] = "trailing"};
    const bool by_sigma = kind == PB_SAMPLER_EULER || kind == PB_SAMPLER_DPMPP2M;
    const char *text;
    PB_RETURN_IF(refuse_others(s, kind));
    PB_RETURN_IF(pb_json_get_string(s->config, "timestep_spacing", by_sigma ? "linspace" : "leading", s->name, &text));
    s->spacing = LINSPACE;
    while (s->spacing < SPACINGS && strcmp(spacings[s->spacing], text) != 0) s->spacing++;
    if (s->spacing == SPACINGS)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: timestep_spacing \"%s\" is not linspace, leading or trailing", s->name,
                        text);
    const pb_json *const offset = pb_json_get(s->config, "steps_offset");
    PB_RETURN_IF(pb_json_get_int(s->config, "steps_offset", 0, 1000, 0, s->name, &s->offset));
    // The pipeline sets the offset to 1 when it loads the model; from_config drops this again where the key was absent.
    if (s->own || (offset && offset->type != PB_JSON_NULL)) s->offset = 1;
    const pb_json *const clip = pb_json_get(s->config, "clip_sample");
    PB_RETURN_IF(pb_json_get_bool(s->config, "clip_sample", true, s->name, &s->clip));
    if (s->own || (clip && clip->type != PB_JSON_NULL)) s->clip = false;  // likewise
    PB_RETURN_IF(pb_json_get_double(s->config, "clip_sample_range", 1, s->name, &s->clip_range));
    PB_RETURN_IF(pb_json_get_bool(s->config, "set_alpha_to_one", kind == PB_SAMPLER_DDIM, s->name, &s->alpha_to_one));
    PB_RETURN_IF(pb_json_get_bool(s->config, "skip_prk_steps", false, s->name, &s->skip_runge_kutta));
    PB_RETURN_IF(pb_json_get_bool(s->config, "rescale_betas_zero_snr", false, s->name, &s->zero_snr));
    PB_RETURN_IF(pb_json_get_bool(s->config, "use_karras_sigmas", false, s->name, &s->karras));
    PB_RETURN_IF(pb_json_get_string(s->config, "beta_schedule", "linear", s->name, &text));
    s->cosine = strcmp(text, "squaredcos_cap_v2") == 0;
    static const char *const limits[] = {"sigma_min", "sigma_max"};
    for (int i = 0; i < 2 && by_sigma && s->karras; i++) {
        const pb_json *const limit = pb_json_get(s->config, limits[i]);
        if (limit && limit->type != PB_JSON_NULL)
            return pb_error(PB_ERR_UNSUPPORTED, "%s: %s beside use_karras_sigmas is not supported", s->name, limits[i]);
    }
    PB_RETURN_IF(pb_json_get_bool(s->config, "lower_order_final", true, s->name, &s->lower_order_last));
    PB_RETURN_IF(pb_json_get_bool(s->config, "euler_at_final", false, s->name, &s->euler_last));
    PB_RETURN_IF(pb_json_get_string(s->config, "final_sigmas_type", "zero", s->name, &text));
    s->sigma_min_last = strcmp(text, "sigma_min") == 0;
    if (by_sigma && !s->sigma_min_last && strcmp(text, "zero") != 0)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: final_sigmas_type \"%s\" is not zero or sigma_min", s->name, text);
    return PB_OK;
}

static pb_status choose_kind(const settings *s, const char *class_name, pb_sampler_kind *kind) {
    if (*kind != PB_SAMPLER_MODEL) return PB_OK;
    if (!class_name) PB_RETURN_IF(pb_json_get_string(s->config, "_class_name", "", s->name, &class_name));
    *kind = pb_sampler_kind_of_class(class_name);
    if (*kind != PB_SAMPLER_MODEL) return PB_OK;
    return pb_error(PB_ERR_UNSUPPORTED,
                    "%s: the scheduler \"%s\" is not supported; choose ddim, pndm, euler or dpmpp2m", s->name,
                    class_name);
}

// The points of numpy's linspace, arange times a ratio, or arange downwards, from the highest; returns how many (where
// trailing, rounding may make one more than `steps`). `points` has room for steps + 1.
static int spread(const pb_sampler *s, const settings *set, float *points) {
    const int T = s->noise.timesteps, steps = s->steps;
    const bool whole = s->kind != PB_SAMPLER_EULER;
    // dpmpp2m spreads one more and leaves out the last.
    const int count = s->kind == PB_SAMPLER_DPMPP2M ? steps + 1 : steps;
    if (set->spacing == TRAILING) {
        const double ratio = (double)T / steps, delta = (T - ratio) - T;
        const int length = (int)ceil(T / ratio);
        for (int i = 0; i < length; i++) points[i] = (float)(rint(T + i * delta) - 1);
        return length;
    }
    for (int i = 0; i < steps; i++) {
        const int from_below = count - 1 - i;
        double point = from_below * (double)(T / count);
        if (set->spacing == LINSPACE) point = count > 1 ? from_below * ((double)(T - 1) / (count - 1)) : 0;
        if (set->spacing == LINSPACE && i == 0 && count > 1) point = T - 1;
        points[i] = (float)(whole ? rint(point) : point);
        if (set->spacing == LEADING) points[i] += (float)set->offset;
    }
    return steps;
}

// pndm's calls from the highest of `count` points on: a, b, b, c, d ... or, with the Runge-Kutta start and half a
// stride h, a, b+h, b+h, b, b, c+h, c+h, c, c, d+h, d+h, d and then d, e, ...
static pb_status arrange_pndm(pb_sampler *s, const float *points, int count) {
    if (!s->runge_kutta) {
        for (int i = 0; i < count; i++) {
            s->timesteps[s->calls++] = points[i];
            if (i == 1) s->timesteps[s->calls++] = points[i];
        }
        return PB_OK;
    }
    if (count < 4)
        return pb_error(PB_ERR_USAGE, "pndm takes 4 steps or more where the model's scheduler has no skip_prk_steps");
    s->timesteps[s->calls++] = points[0];
    for (int i = 1; i < 4; i++) {
        s->timesteps[s->calls] = s->timesteps[s->calls + 1] = points[i] + (float)(s->stride / 2);
        s->timesteps[s->calls + 2] = s->timesteps[s->calls + 3] = points[i];
        s->calls += 4;
    }
    s->calls = PB_RUNGE_KUTTA_CALLS;  // the last of them came once too often
    for (int i = 3; i < count; i++) s->timesteps[s->calls++] = points[i];
    return PB_OK;
}

// Karras et al. 2022, formula (5), from `high` to `low`; and the timesteps, in between those of `all` in log(sigma).
// Those of dpmpp2m are whole numbers: rounded, but for the cosine schedule cut off, as diffusers does it.
static void set_karras(pb_sampler *s, const settings *set, const float *all, double high, double low) {
    enum { RHO = 7 };
    const int T = s->noise.timesteps;
    const double high_root = pow(high, 1.0 / RHO), low_root = pow(low, 1.0 / RHO);
    s->calls = s->steps;
    for (int i = 0; i < s->calls; i++) {
        const double ramp = s->calls > 1 ? (double)i / (s->calls - 1) : 0;
        const double sigma = pow(high_root + ramp * (low_root - high_root), RHO), log_sigma = log(fmax(sigma, 1e-10));
        int below = 0;
        for (int t = 1; t < T - 1; t++)
            if (log_sigma >= (double)logf(all[t])) below = t;
        const double from = (double)logf(all[below]), to = (double)logf(all[below + 1]);
        const double part = fmin(fmax((from - log_sigma) / (from - to), 0), 1);
        const double t = (1 - part) * below + part * (below + 1);
        s->timesteps[i] = (float)(s->kind == PB_SAMPLER_EULER ? t : set->cosine ? trunc(t) : rint(t));
        s->sigmas[i] = (float)sigma;
    }
}

// sqrt((1 - a) / a) at the timesteps, in between by numpy's interp, in double; then the last.
static pb_status set_sigmas(pb_sampler *s, const settings *set) {
    const int T = s->noise.timesteps;
    s->sigmas = pb_arena_array(s->arena, (size_t)s->calls + 1, sizeof *s->sigmas);
    float *const all = pb_arena_array(s->arena, (size_t)T, sizeof *all);
    if (!s->sigmas || !all) return pb_error(PB_ERR_MEMORY, "out of memory for the sampler");
    for (int t = 0; t < T; t++) {
        const float a = s->noise.alphas_cumprod[t];
        all[t] = sqrtf((1 - a) / a);
    }
    float highest = 0;
    for (int i = 0; i < s->calls; i++) {
        const double t = fmin(fmax((double)s->timesteps[i], 0), T - 1);
        const int below = t < T - 1 ? (int)t : T - 1;
        const double slope = below < T - 1 ? (double)all[below + 1] - (double)all[below] : 0;
        s->sigmas[i] = (float)(slope * (t - below) + (double)all[below]);
        highest = fmaxf(highest, s->sigmas[i]);
    }
    if (set->karras && T > 1) {
        const bool whole_range = s->kind == PB_SAMPLER_DPMPP2M;
        set_karras(s, set, all, (double)(whole_range ? all[T - 1] : s->sigmas[0]),
                   (double)(whole_range ? all[0] : s->sigmas[s->calls - 1]));
        highest = s->sigmas[0];
    }
    s->sigmas[s->calls] = set->sigma_min_last ? all[0] : 0;
    if (s->kind != PB_SAMPLER_EULER) return PB_OK;
    s->init_sigma = set->spacing == LEADING ? sqrtf(highest * highest + 1) : highest;
    return PB_OK;
}

static pb_status check_timesteps(const pb_sampler *s, const settings *set) {
    for (int i = 0; i < s->calls; i++)
        if (!(s->timesteps[i] >= 0 && s->timesteps[i] <= (float)(s->noise.timesteps - 1)))
            return pb_error(PB_ERR_USAGE, "%s: %d steps need timestep %g, which does not exist; take fewer", set->name,
                            s->steps, (double)s->timesteps[i]);
    return PB_OK;
}

static pb_status build(pb_sampler *s, const settings *set) {
    const int T = s->noise.timesteps;
    const bool by_sigma = s->kind == PB_SAMPLER_EULER || s->kind == PB_SAMPLER_DPMPP2M;
    if (s->steps < 1 || s->steps > T) return pb_error(PB_ERR_USAGE, "the number of steps must be from 1 to %d", T);
    float *const points = pb_arena_array(s->arena, (size_t)s->steps + 1, sizeof *points);
    s->timesteps = pb_arena_array(s->arena, (size_t)s->steps + 1 + PB_RUNGE_KUTTA_CALLS, sizeof *s->timesteps);
    if (!points || !s->timesteps) return pb_error(PB_ERR_MEMORY, "out of memory for the sampler");
    const int count = spread(s, set, points);
    s->stride = T / s->steps;
    s->runge_kutta = s->kind == PB_SAMPLER_PNDM && !set->skip_runge_kutta;
    if (s->kind == PB_SAMPLER_PNDM) {
        PB_RETURN_IF(arrange_pndm(s, points, count));
    } else {
        memcpy(s->timesteps, points, (size_t)count * sizeof *points);
        s->calls = count;
    }
    if (by_sigma && set->zero_snr) s->noise.alphas_cumprod[T - 1] = 0x1p-24f;  // so that no sigma is infinite
    s->init_sigma = 1;
    s->final_alpha = set->alpha_to_one ? 1 : s->noise.alphas_cumprod[0];
    s->clip = set->clip ? (float)set->clip_range : INFINITY;
    s->first_order_last = set->euler_last || !set->sigma_min_last || (set->lower_order_last && s->calls < 15);
    PB_RETURN_IF(check_timesteps(s, set));
    if (by_sigma) PB_RETURN_IF(set_sigmas(s, set));
    const int history = s->kind == PB_SAMPLER_PNDM ? PB_SAMPLER_HISTORY : s->kind == PB_SAMPLER_DPMPP2M ? 2 : 0;
    bool complete = true;
    for (int i = 0; i < history; i++) complete &= !!(s->history[i] = pb_arena_array(s->arena, s->count, sizeof(float)));
    if (s->kind == PB_SAMPLER_PNDM) {
        complete &= !!(s->kept_sample = pb_arena_array(s->arena, s->count, sizeof(float)));
        complete &= !!(s->sum = pb_arena_array(s->arena, s->count, sizeof(float)));
    }
    return complete ? PB_OK : pb_error(PB_ERR_MEMORY, "out of memory for the sampler");
}

pb_status pb_sampler_create(pb_sampler_kind kind, const char *class_name, const pb_json *config, const char *name,
                            int steps, size_t count, pb_sampler **sampler) {
    pb_status status = PB_OK;
    pb_sampler *s = NULL;
    settings set = {.config = config, .name = name, .own = kind == PB_SAMPLER_MODEL};
    pb_arena *const arena = pb_arena_create();
    if (!arena || !(s = pb_arena_alloc(arena, sizeof *s))) PB_FAIL(PB_ERR_MEMORY, "out of memory");
    *s = (pb_sampler){.arena = arena, .kind = kind, .steps = steps, .count = count};
    if ((status = choose_kind(&set, class_name, &s->kind)) == PB_OK) status = read_settings(s->kind, &set);
    if (status == PB_ERR_UNSUPPORTED && set.own)
        pb_error_context(status, "the model's own sampler is not one that can be used here; ddim is (--sampler ddim)");
    PB_TRY(status);
    PB_TRY(pb_noise_schedule_init(arena, config, name, s->kind != PB_SAMPLER_PNDM, &s->noise));
    PB_TRY(build(s, &set));
    *sampler = s;
    return PB_OK;
fail:
    pb_arena_destroy(arena);
    return status;
}

void pb_sampler_destroy(pb_sampler *sampler) {
    if (sampler) pb_arena_destroy(sampler->arena);
}

pb_sampler_kind pb_sampler_kind_of(const pb_sampler *sampler) {
    return sampler->kind;
}

int pb_sampler_calls(const pb_sampler *sampler) {
    return sampler->calls;
}

float pb_sampler_timestep(const pb_sampler *sampler, int call) {
    return sampler->timesteps[call];
}

float pb_sampler_init_sigma(const pb_sampler *sampler) {
    return sampler->init_sigma;
}
