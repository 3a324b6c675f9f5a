#include "train/lr_schedule.h"

#include <math.h>
#include <string.h>

#include "base/nearest.h"

static const double polynomial_end = 1e-7;

static const char *const names[] = {"constant", "constant_with_warmup", "linear",
                                    "cosine",   "cosine_with_restarts", "polynomial"};
enum { NAMES = sizeof names / sizeof *names };

pb_status pb_lr_kind_parse(const char *text, pb_lr_kind *kind) {
    for (int i = 0; i < NAMES; i++) {
        if (strcmp(text, names[i]) != 0) continue;
        *kind = (pb_lr_kind)i;
        return PB_OK;
    }
    return pb_error(PB_ERR_USAGE,
                    "lr_scheduler \"%s\" is not one of constant, constant_with_warmup, linear, cosine, "
                    "cosine_with_restarts, polynomial",
                    text);
}

const char *pb_lr_kind_name(pb_lr_kind kind) {
    return names[kind];
}

pb_status pb_lr_schedule_check(const pb_lr_schedule *s) {
    if (!(s->base >= 0) || !isfinite(s->base))
        return pb_error(PB_ERR_USAGE, "learning_rate must be a number from 0 on");
    if (s->warmup < 0) return pb_error(PB_ERR_USAGE, "lr_warmup_steps must not be negative");
    if (s->kind == PB_LR_POLYNOMIAL && s->base <= polynomial_end)
        return pb_error(PB_ERR_USAGE, "lr_scheduler polynomial needs a learning_rate above %g", polynomial_end);
    if (s->kind == PB_LR_POLYNOMIAL && !(s->power >= 0 && isfinite(s->power)))
        return pb_error(PB_ERR_USAGE, "lr_power must be a number from 0 on");
    if (s->kind == PB_LR_COSINE_WITH_RESTARTS && !(s->cycles > 0 && isfinite(s->cycles)))
        return pb_error(PB_ERR_USAGE, "lr_num_cycles must be above 0");
    return PB_OK;
}

static double cosine(double half_turns) {
    return fmax(0, 0.5 * (1 + cos(M_PI * half_turns)));
}

static double polynomial(const pb_lr_schedule *s, int64_t step) {
    if (step > s->total || s->total == s->warmup) return polynomial_end / s->base;
    const double remaining = 1 - (double)(step - s->warmup) / (double)(s->total - s->warmup);
    return ((s->base - polynomial_end) * pow(remaining, s->power) + polynomial_end) / s->base;
}

static double factor_at(const pb_lr_schedule *s, int64_t step) {
    if (s->kind == PB_LR_CONSTANT) return 1;  // it knows no warm-up
    if (step < s->warmup) return (double)step / (double)s->warmup;
    const double decay_steps = s->total > s->warmup ? (double)(s->total - s->warmup) : 1;
    const double progress = (double)(step - s->warmup) / decay_steps;
    switch (s->kind) {
    case PB_LR_LINEAR: return fmax(0, (double)(s->total - step) / decay_steps);
    case PB_LR_COSINE: return cosine(progress);
    case PB_LR_COSINE_WITH_RESTARTS: return progress >= 1 ? 0 : cosine(fmod(s->cycles * progress, 1));
    case PB_LR_POLYNOMIAL: return polynomial(s, step);
    default: return 1;
    }
}

double pb_lr_at(const pb_lr_schedule *schedule, int64_t step) {
    return schedule->base * factor_at(schedule, step);
}
