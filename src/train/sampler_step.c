// One step of each sampler. Scalars are floats, as the 0-dimensional tensors are with which diffusers computes them.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "train/sampler_internal.h"

static float alpha_at(const pb_sampler *s, int t) {
    return t >= 0 ? s->noise.alphas_cumprod[t] : s->final_alpha;
}

void pb_sampler_input(const pb_sampler *s, int call, const float *x, float *input) {
    assert(call >= 0 && call < s->calls);
    float divisor = 1;
    if (s->kind == PB_SAMPLER_EULER) divisor = sqrtf(s->sigmas[call] * s->sigmas[call] + 1);
    for (size_t i = 0; i < s->count; i++) input[i] = x[i] / divisor;
}

// Song et al. 2021, formula (12) with eta 0.
static void step_ddim(const pb_sampler *s, int call, const float *output, float *x) {
    const int t = (int)s->timesteps[call];
    const float a = alpha_at(s, t), previous = alpha_at(s, t - s->stride);
    const float root = sqrtf(a), noise_root = sqrtf(1 - a);
    const float previous_root = sqrtf(previous), direction = sqrtf(1 - previous);
    for (size_t i = 0; i < s->count; i++) {
        float original, epsilon;
        if (s->noise.v_prediction) {
            original = root * x[i] - noise_root * output[i];
            epsilon = root * output[i] + noise_root * x[i];
        } else {
            original = (x[i] - noise_root * output[i]) / root;
            epsilon = output[i];
        }
        original = fminf(fmaxf(original, -s->clip), s->clip);
        x[i] = previous_root * original + direction * epsilon;
    }
}

// Makes room for the newest output at the front.
static void remember(pb_sampler *s, const float *output, int most) {
    float *const oldest = s->history[most - 1];
    for (int i = most - 1; i > 0; i--) s->history[i] = s->history[i - 1];
    s->history[0] = oldest;
    memcpy(oldest, output, s->count * sizeof *output);
    if (s->history_count < most) s->history_count++;
}

// Liu et al. 2022, formula (9): x at `previous` from x at `t` and the (combined) model output.
static void transfer(const pb_sampler *s, int t, int previous, const float *from, const float *output, float *x) {
    const float a = alpha_at(s, t), a_previous = alpha_at(s, previous);
    const float b = 1 - a, b_previous = 1 - a_previous;
    const float root = sqrtf(a), noise_root = sqrtf(b);
    const float scale = sqrtf(a_previous / a);
    const float divisor = a * sqrtf(b_previous) + sqrtf(a * b * a_previous);
    for (size_t i = 0; i < s->count; i++) {
        const float epsilon = s->noise.v_prediction ? root * output[i] + noise_root * from[i] : output[i];
        x[i] = scale * from[i] - (a_previous - a) * epsilon / divisor;
    }
}

// The four calls of a Runge-Kutta step start from the same x; the fourth uses their weighted mean.
static void step_runge_kutta(pb_sampler *s, int call, const float *output, float *x) {
    static const float weights[] = {1.f / 6, 1.f / 3, 1.f / 3, 1.f / 6};
    const int part = call % 4, t = (int)s->timesteps[call - part];
    const int previous = (int)s->timesteps[call] - (call % 2 ? 0 : s->stride / 2);
    if (part == 0) {
        remember(s, output, PB_SAMPLER_HISTORY);
        memcpy(s->kept_sample, x, s->count * sizeof *x);
        memset(s->sum, 0, s->count * sizeof *s->sum);
    }
    for (size_t i = 0; i < s->count; i++) s->sum[i] += weights[part] * output[i];
    transfer(s, t, previous, s->kept_sample, part == 3 ? s->sum : output, x);
}

// Adams-Bashforth of as many orders as there are outputs. Without a Runge-Kutta start the first step is made again from
// the same x with the mean of two outputs, the second of them not being kept.
static void step_plms(pb_sampler *s, int call, const float *output, float *x) {
    int t = (int)s->timesteps[call], previous = t - s->stride;
    const bool again = call == 1 && !s->runge_kutta;
    if (again) {
        previous = t;
        t += s->stride;
    } else {
        remember(s, output, PB_SAMPLER_HISTORY);
    }
    if (call == 0) memcpy(s->kept_sample, x, s->count * sizeof *x);
    const float *const *const h = (const float *const *)s->history;
    const float *const e0 = h[0], *const e1 = h[1], *const e2 = h[2], *const e3 = h[3];
    for (size_t i = 0; i < s->count; i++) {
        if (again)
            s->sum[i] = (output[i] + e0[i]) / 2;
        else if (s->history_count == 1)
            s->sum[i] = e0[i];
        else if (s->history_count == 2)
            s->sum[i] = (3 * e0[i] - e1[i]) / 2;
        else if (s->history_count == 3)
            s->sum[i] = (23 * e0[i] - 16 * e1[i] + 5 * e2[i]) / 12;
        else
            s->sum[i] = (1.f / 24) * (55 * e0[i] - 59 * e1[i] + 37 * e2[i] - 9 * e3[i]);
    }
    transfer(s, t, previous, again ? s->kept_sample : x, s->sum, x);
}

// Karras et al. 2022, algorithm 1: one step along d x / d sigma.
static void step_euler(const pb_sampler *s, int call, const float *output, float *x) {
    const float sigma = s->sigmas[call], delta = s->sigmas[call + 1] - sigma;
    const float square = sigma * sigma + 1, output_scale = -sigma / sqrtf(square);
    for (size_t i = 0; i < s->count; i++) {
        const float original =
            s->noise.v_prediction ? output[i] * output_scale + x[i] / square : x[i] - sigma * output[i];
        x[i] += (x[i] - original) / sigma * delta;
    }
}

// Lu et al. 2022 (DPM-Solver++ 2M). Everything is written in lambda = log(alpha / sigma).
static void step_dpmpp2m(pb_sampler *s, int call, const float *output, float *x) {
    float alpha[3], sigma[3], lambda[3];  // at the next timestep, at this one, at the one before
    for (int i = 0; i < 3; i++) {
        const float ratio = s->sigmas[call + 1 - i > 0 ? call + 1 - i : 0];
        alpha[i] = 1 / sqrtf(ratio * ratio + 1);
        sigma[i] = ratio * alpha[i];
        lambda[i] = logf(alpha[i]) - logf(sigma[i]);
    }
    remember(s, output, 2);
    float *const now = s->history[0];
    for (size_t i = 0; i < s->count; i++) {
        const float noise = sigma[1] * output[i];
        now[i] = s->noise.v_prediction ? alpha[1] * x[i] - noise : (x[i] - noise) / alpha[1];
    }
    const float h = lambda[0] - lambda[1];
    const float scale = sigma[0] / sigma[1], shift = alpha[0] * (expf(-h) - 1);
    const bool last = call == s->calls - 1;
    if (call == 0 || (last && s->first_order_last)) {
        for (size_t i = 0; i < s->count; i++) x[i] = scale * x[i] - shift * now[i];
        return;
    }
    const float *const before = s->history[1];
    const float ratio = (lambda[1] - lambda[2]) / h;
    for (size_t i = 0; i < s->count; i++) {
        const float change = (1 / ratio) * (now[i] - before[i]);
        x[i] = scale * x[i] - shift * now[i] - 0.5f * shift * change;
    }
}

void pb_sampler_step(pb_sampler *s, int call, const float *output, float *x) {
    assert(call >= 0 && call < s->calls);
    if (call == 0) s->history_count = 0;
    switch (s->kind) {
    case PB_SAMPLER_DDIM: step_ddim(s, call, output, x); break;
    case PB_SAMPLER_EULER: step_euler(s, call, output, x); break;
    case PB_SAMPLER_DPMPP2M: step_dpmpp2m(s, call, output, x); break;
    default:
        if (s->runge_kutta && call < PB_RUNGE_KUTTA_CALLS)
            step_runge_kutta(s, call, output, x);
        else
            step_plms(s, call, output, x);
    }
}
