// What each format of the optimizer's state buys: the same step, the same memory, another `optimizer` group.
#include <string.h>

#include "cli/plan_report.h"

static const char *states_name(const pb_plan_format *row) {
    return pb_config_choice_name("optimizer.states", row->states);
}

static const char *master_name(const pb_plan_format *row) {
    return pb_config_choice_name("optimizer.master", row->master);
}

// What lasts from step to step: weights, and what the optimizer keeps of them.
static uint64_t lasting_bytes(const pb_step_plan *plan) {
    uint64_t home[PB_TIER_COUNT][PB_CLASS_COUNT], sum = 0;
    pb_step_plan_homes(plan, home);
    for (int t = 0; t < PB_TIER_COUNT; t++) sum += home[t][PB_CLASS_WEIGHT] + home[t][PB_CLASS_STATE];
    return sum;
}

static pb_status plan_format(const pb_plan_subject *s, pb_plan_format *row) {
    pb_config config = *s->config;
    pb_step_request request = *s->request;
    pb_memory_limits limits;
    pb_step_plan plan;
    config.optimizer.states = row->states;
    config.optimizer.master = row->master;
    request.optimizer = (pb_optimizer_format){.states = row->states, .master = row->master};
    PB_RETURN_IF(pb_plan_subject_limits(s, 0, &limits));
    const pb_status status = pb_step_plan_create(&config, &request, &limits, &plan);
    if (status == PB_ERR_BUDGET) {
        snprintf(row->refusal, sizeof row->refusal, "%s", pb_error_message());
        row->lacking = plan.lacking;
        row->smallest = plan.smallest;
        pb_error_clear();
        return PB_OK;
    }
    PB_RETURN_IF(status);
    row->fits = true;
    row->lasting = lasting_bytes(&plan);
    memcpy(row->peak, plan.peak, sizeof row->peak);
    row->step = plan.step;
    pb_step_plan_deinit(&plan);
    return PB_OK;
}

pb_status pb_plan_formats_make(const pb_plan_subject *s, pb_plan_formats *formats) {
    *formats = (pb_plan_formats){.count = 0};
    for (int m = PB_MASTER_FP32; m <= PB_MASTER_NONE; m++) {
        if (m != PB_MASTER_FP32 && s->config->mixed_precision == PB_F32) continue;
        if (m == PB_MASTER_NONE && s->config->mixed_precision != PB_BF16) continue;
        for (int k = PB_STATES_FP32; k <= PB_STATES_8BIT; k++) {
            pb_plan_format *row = &formats->rows[formats->count++];
            *row = (pb_plan_format){.states = (pb_optimizer_states)k, .master = (pb_optimizer_master)m};
            row->chosen = row->states == s->config->optimizer.states && row->master == s->config->optimizer.master;
            PB_RETURN_IF(plan_format(s, row));
        }
    }
    return PB_OK;
}

static void print_gib(FILE *file, uint64_t bytes) {
    fprintf(file, " %7.3f GiB", (double)bytes / 0x1p30);
}

void pb_plan_print_formats(const pb_plan_subject *s, const pb_plan_formats *formats, FILE *file) {
    char text[32];
    fprintf(file, "Formats of the optimizer's state, in the same memory (* is the configuration's)\n");
    fprintf(file, "  %-7s %-8s %11s %11s %11s %11s %11s  %-10s %s\n", "states", "master", "lasting", "device", "host",
            "NVMe", "moved", "step", "bound by");
    for (int i = 0; i < formats->count; i++) {
        const pb_plan_format *r = &formats->rows[i];
        fprintf(file, "%c %-7s %-8s", r->chosen ? '*' : ' ', states_name(r), master_name(r));
        if (!r->fits) {
            if (r->smallest)
                fprintf(file, "  does not fit; the smallest %s budget that works is %llu bytes (%s)\n",
                        pb_plan_tier_keys[r->lacking], (unsigned long long)r->smallest,
                        pb_bytes_text(r->smallest, text));
            else
                fprintf(file, "  does not fit\n");
            continue;
        }
        uint64_t moved = 0;
        for (int l = 0; l < PB_LINK_COUNT; l++) moved += r->step.moved[l];
        print_gib(file, r->lasting);
        for (int t = 0; t < PB_TIER_COUNT; t++) print_gib(file, r->peak[t]);
        print_gib(file, moved);
        fprintf(file, "  %-10s %s\n", pb_seconds_text(r->step.seconds, text), pb_bound_name(r->step.bound));
    }
    fprintf(file, "  \"lasting\" is what lives from step to step: weights and state. All but fp32 with fp32 change\n"
                  "  the result a little (docs/optimizer_state.md), so none is taken unless the configuration asks.\n");
    if (s->config->mixed_precision == PB_F32)
        fprintf(file, "  Split masters need mixed_precision: fp16 or bf16, and no master at all bf16.\n");
    else if (s->config->mixed_precision != PB_BF16)
        fprintf(file, "  No master at all (none) needs mixed_precision: bf16.\n");
}

void pb_plan_append_formats(pb_text *text, const pb_plan_formats *formats) {
    pb_text_append(text, "\"formats\": [");
    for (int i = 0; i < formats->count; i++) {
        const pb_plan_format *r = &formats->rows[i];
        pb_text_append(text, "%s\n  {\"states\": \"%s\", \"master\": \"%s\", ", i ? "," : "", states_name(r),
                       master_name(r));
        pb_text_append(text, "\"chosen\": %s, \"fits\": %s", r->chosen ? "true" : "false", r->fits ? "true" : "false");
        if (r->fits) {
            pb_text_append(text, ", \"lasting\": %llu, ", (unsigned long long)r->lasting);
            pb_plan_append_outcome(text, r->peak, &r->step);
        } else {
            if (r->smallest)
                pb_text_append(text, ", \"lacking\": \"%s\", \"smallest\": %llu", pb_plan_tier_keys[r->lacking],
                               (unsigned long long)r->smallest);
            pb_text_append(text, ", \"refusal\": ");
            pb_text_append_json_string(text, r->refusal, strlen(r->refusal));
        }
        pb_text_append(text, "}");
    }
    pb_text_append(text, "]");
}
