#include "plan/plan.h"

bool pb_smallest_budgets(pb_plan_probe probe, void *context, pb_plan_request *limits, pb_tier t) {
    enum { TRIES = 8, CLOSE = 64 };
    const pb_plan_refusal *lacks = limits->refusal;
    uint64_t *budget = limits->budget, fails = budget[t], step = 0;
    pb_status status = PB_ERR_BUDGET;
    int tries = 0;
    for (; status == PB_ERR_BUDGET && lacks->needed; tries++) {
        uint64_t *raised = &budget[lacks->tier];
        if (tries == TRIES || *raised == UINT64_MAX) return false;
        step += *raised / 256 + PB_EXTENT_ALIGNMENT;
        *raised = pb_aligned(lacks->needed > *raised + step ? lacks->needed : *raised + step, PB_EXTENT_ALIGNMENT);
        status = probe(context, limits);
        if (status == PB_ERR_BUDGET && lacks->tier == t) fails = budget[t];
    }
    uint64_t fits = budget[t], next = fits - fits / CLOSE;
    for (; status == PB_OK && tries < TRIES && next > fails; tries++) {
        budget[t] = next / PB_EXTENT_ALIGNMENT * PB_EXTENT_ALIGNMENT;
        const pb_status lower = probe(context, limits);
        if (lower != PB_OK && (lower != PB_ERR_BUDGET || tries == 0)) break;
        *(lower == PB_OK ? &fits : &fails) = budget[t];
        if (fits - fails <= fits / CLOSE) break;
        next = (fits + fails) / 2;
    }
    budget[t] = fits;
    return status == PB_OK;
}
