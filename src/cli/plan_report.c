// The figures of a plan, as text and as JSON.
#include "cli/plan_report.h"

#include <stdlib.h>
#include <string.h>

#include "plan/timeline.h"

const char *const pb_plan_class_keys[PB_CLASS_COUNT] = {
    [PB_CLASS_INPUT] = "inputs",       [PB_CLASS_WEIGHT] = "weights",         [PB_CLASS_STATE] = "optimizer_state",
    [PB_CLASS_GRADIENT] = "gradients", [PB_CLASS_ACTIVATION] = "activations", [PB_CLASS_WORKSPACE] = "workspace",
};
const char *const pb_plan_tier_keys[PB_TIER_COUNT] = {"device", "host", "nvme"};
const char *const pb_plan_link_keys[PB_LINK_COUNT] = {"h2d", "d2h", "nvme_read", "nvme_write"};

static const char *const link_names[PB_LINK_COUNT] = {"host to device", "device to host", "NVMe read", "NVMe write"};

const char *pb_bytes_text(uint64_t bytes, char text[32]) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && unit < 4; unit++) value /= 1024;
    snprintf(text, 32, unit == 0 || value >= 100 ? "%.0f %s" : value >= 10 ? "%.1f %s" : "%.2f %s", value, units[unit]);
    return text;
}

const char *pb_seconds_text(double seconds, char text[32]) {
    if (seconds >= 1)
        snprintf(text, 32, "%.2f s", seconds);
    else if (seconds >= 1e-3)
        snprintf(text, 32, "%.3g ms", 1e3 * seconds);
    else
        snprintf(text, 32, "%.3g us", 1e6 * seconds);
    return text;
}

pb_status pb_plan_subject_limits(const pb_plan_subject *s, uint64_t device, pb_memory_limits *limits) {
    pb_config config = *s->config;
    if (device) config.memory.device = (int64_t)device;
    PB_RETURN_IF(pb_memory_limits_find(s->arena, &config, s->machine, limits));
    if (s->unlimited && !device) {
        limits->request.budget[PB_TIER_DEVICE] = UINT64_MAX;
        // `auto` gave the host what the device would have left.
        if (config.memory.host == PB_SIZE_AUTO) limits->request.budget[PB_TIER_HOST] = limits->machine.host_bytes;
        limits->shared = false;
    }
    return PB_OK;
}

int64_t pb_plan_run_steps(const pb_config *config) {
    return config->max_train_steps.set ? config->max_train_steps.value : 0;
}

const char *pb_plan_machine_name(const pb_memory_limits *limits) {
    const char *name = limits->machine.name;
    return strcmp(name, "this") ? name : "this machine, by a guess (`pagebooth bench --profile` measures it)";
}

// --- Text ---

static void print_row(FILE *file, const char *name, uint64_t bytes) {
    fprintf(file, "  %-18s %17llu bytes %10.3f GiB\n", name, (unsigned long long)bytes, (double)bytes / 0x1p30);
}

static void print_tier(FILE *file, const pb_step_plan *p, pb_tier t, uint64_t budget) {
    static const char *const titles[] = {"Device memory", "Host memory", "NVMe"};
    char allowed[32];
    fprintf(file, "%s at the step's peak", titles[t]);
    if (budget != UINT64_MAX) fprintf(file, ", of %s allowed", pb_bytes_text(budget, allowed));
    fputc('\n', file);
    for (int c = 0; c < PB_CLASS_COUNT; c++)
        if (t == PB_TIER_DEVICE || p->by_class[t][c]) print_row(file, pb_plan_class_keys[c], p->by_class[t][c]);
    print_row(file, "padding", p->padding[t]);
    print_row(file, "in all", p->peak[t]);
}

static void print_written(FILE *file, const pb_step_plan *p, int64_t steps) {
    const double written = (double)p->step.moved[PB_LINK_NVME_WRITE];
    if (written <= 0) return;
    if (steps)
        fprintf(file, "  written to NVMe in the run's %lld steps: %.3f TB\n", (long long)steps,
                written * (double)steps * 1e-12);
    else
        fprintf(file, "  written to NVMe in 1000 steps: %.3f TB\n", written * 1e-9);
}

void pb_plan_print_text(const pb_plan_subject *s, const pb_memory_limits *limits, const pb_step_plan *p, FILE *file) {
    const pb_step_forecast *f = &p->step;
    char seconds[32], bound[32], bytes[32];
    fprintf(file, "Trained parameters   %llu\n", (unsigned long long)p->parameters);
    fprintf(file, "FLOPs per step       %.3f T forward, %.3f T backward\n", p->flops_forward / 1e12,
            p->flops_backward / 1e12);
    for (int t = 0; t < PB_TIER_COUNT; t++)
        if (t == PB_TIER_DEVICE || p->peak[t]) print_tier(file, p, (pb_tier)t, limits->request.budget[t]);
    fprintf(file, "Activations kept for the backward pass\n");
    print_row(file, "", p->kept_activations);
    fprintf(file, "No placement of this schedule could do with less than %.3f GiB of device memory.\n",
            (double)p->lower_bound_bytes / 0x1p30);
    fprintf(file, "Bytes moved per step\n");
    for (int l = 0; l < PB_LINK_COUNT; l++) print_row(file, link_names[l], f->moved[l]);
    print_written(file, p, pb_plan_run_steps(s->config));
    fprintf(file, "Time per step on %s\n", pb_plan_machine_name(limits));
    fprintf(file, "  predicted          %s, bound by %s\n", pb_seconds_text(f->seconds, seconds),
            pb_bound_name(f->bound));
    fprintf(file, "  lower bound        %s; the gap is %.1f%%\n", pb_seconds_text(f->lower_bound, bound),
            f->lower_bound > 0 ? 100 * (f->seconds / f->lower_bound - 1) : 0);
    for (int i = 0; i < PB_BOUND_COUNT; i++)
        if (f->held[i] > 0 && f->held[i] < f->lower_bound)
            fprintf(file, "    of it            %s, %s\n", pb_seconds_text(f->held[i], bound),
                    pb_bound_name((pb_bound)i));
    if (f->passes > 1) fprintf(file, "  passes             %lld\n", (long long)f->passes);
    for (int l = 0; l < PB_LANE_COUNT; l++)
        if (f->busy[l] > 0)
            fprintf(file, "  busy %-13s %s, %.0f%%\n", pb_timeline_lane_name((pb_lane)l),
                    pb_seconds_text(f->busy[l], bytes), 100 * f->busy[l] / f->seconds);
    fprintf(file, "Planned in %s.\n", pb_seconds_text(p->plan_seconds, seconds));
    if (pb_step_plan_moves(p))
        fprintf(file, "Not all of it fits on the device; --formats shows what fewer bytes of state would buy.\n");
}

// --- The table ---

static const uint64_t table_budgets[PB_PLAN_ROWS] = {24, 16, 12, 8, 6, 4, 2, 1};

pb_status pb_plan_rows(const pb_plan_subject *s, pb_plan_row rows[PB_PLAN_ROWS]) {
    bool device_lacks = false;
    for (int i = 0; i < PB_PLAN_ROWS; i++) {
        pb_plan_row *r = &rows[i];
        *r = (pb_plan_row){.budget = table_budgets[i] << 30};
        // What did not fit into more of the device does not fit here.
        if (device_lacks) {
            memcpy(r->refusal, rows[i - 1].refusal, sizeof r->refusal);
            r->smallest = rows[i - 1].smallest;
            continue;
        }
        pb_memory_limits limits;
        pb_step_plan plan;
        pb_status status = pb_plan_subject_limits(s, r->budget, &limits);
        const bool limited = status == PB_OK;
        if (limited) status = pb_step_plan_create(s->config, s->request, &limits, &plan);
        if (status == PB_ERR_BUDGET) {
            snprintf(r->refusal, sizeof r->refusal, "%s", pb_error_message());
            device_lacks = limited && plan.lacking == PB_TIER_DEVICE;
            if (device_lacks) r->smallest = plan.smallest;
            pb_error_clear();
            continue;
        }
        PB_RETURN_IF(status);
        r->fits = true;
        memcpy(r->peak, plan.peak, sizeof r->peak);
        r->step = plan.step;
        pb_step_plan_deinit(&plan);
    }
    return PB_OK;
}

void pb_plan_print_rows(const pb_plan_row rows[PB_PLAN_ROWS], FILE *file) {
    char seconds[32], smallest[32];
    fprintf(file, "Device budgets\n  %6s %11s %11s %11s %11s  %-10s %s\n", "budget", "device", "host", "NVMe", "moved",
            "step", "bound by");
    for (int i = 0; i < PB_PLAN_ROWS; i++) {
        const pb_plan_row *r = &rows[i];
        fprintf(file, "  %2.0f GiB", (double)r->budget / 0x1p30);
        if (!r->fits) {
            if (r->smallest)
                fprintf(file, "  does not fit; the smallest that works is %llu bytes (%s)\n",
                        (unsigned long long)r->smallest, pb_bytes_text(r->smallest, smallest));
            else
                fprintf(file, "  does not fit: %s\n",
                        i > 0 && !strcmp(rows[i - 1].refusal, r->refusal) ? "likewise" : r->refusal);
            continue;
        }
        uint64_t moved = 0;
        for (int l = 0; l < PB_LINK_COUNT; l++) moved += r->step.moved[l];
        for (int t = 0; t < PB_TIER_COUNT; t++) fprintf(file, " %7.3f GiB", (double)r->peak[t] / 0x1p30);
        fprintf(file, " %7.3f GiB  %-10s %s\n", (double)moved / 0x1p30, pb_seconds_text(r->step.seconds, seconds),
                pb_bound_name(r->step.bound));
    }
}

// --- JSON ---

static void append_bytes(pb_text *text, const char *const *keys, const uint64_t *bytes, int count) {
    for (int i = 0; i < count; i++)
        pb_text_append(text, "%s\"%s\": %llu", i ? ", " : "", keys[i], (unsigned long long)bytes[i]);
}

static void append_classes(pb_text *text, const char *key, const pb_step_plan *p, pb_tier t) {
    pb_text_append(text, " \"%s\": {", key);
    append_bytes(text, pb_plan_class_keys, p->by_class[t], PB_CLASS_COUNT);
    pb_text_append(text, ", \"padding\": %llu},\n", (unsigned long long)p->padding[t]);
}

static void append_step(pb_text *text, const pb_step_forecast *f) {
    pb_text_append(text, "\"moved\": {");
    append_bytes(text, pb_plan_link_keys, f->moved, PB_LINK_COUNT);
    pb_text_append(text, "},\n \"seconds\": %.9g, \"lower_bound\": %.9g, \"bound\": \"%s\", \"bound_parts\": {",
                   f->seconds, f->lower_bound, pb_bound_name(f->bound));
    const char *between = "";
    for (int i = 0; i < PB_BOUND_COUNT; i++) {
        if (!(f->held[i] > 0)) continue;
        pb_text_append(text, "%s\"%s\": %.9g", between, pb_bound_name((pb_bound)i), f->held[i]);
        between = ", ";
    }
    pb_text_append(text, "}");
}

void pb_plan_append_outcome(pb_text *text, const uint64_t peak[PB_TIER_COUNT], const pb_step_forecast *step) {
    pb_text_append(text, "\"peak\": {");
    append_bytes(text, pb_plan_tier_keys, peak, PB_TIER_COUNT);
    pb_text_append(text, "}, ");
    append_step(text, step);
}

static void append_rows(pb_text *text, const pb_plan_row *rows) {
    pb_text_append(text, ",\n \"table\": [");
    for (int i = 0; i < PB_PLAN_ROWS; i++) {
        const pb_plan_row *r = &rows[i];
        pb_text_append(text, "%s\n  {\"budget\": %llu, \"fits\": %s", i ? "," : "", (unsigned long long)r->budget,
                       r->fits ? "true" : "false");
        if (r->fits) {
            pb_text_append(text, ", ");
            pb_plan_append_outcome(text, r->peak, &r->step);
        } else {
            if (r->smallest) pb_text_append(text, ", \"smallest\": %llu", (unsigned long long)r->smallest);
            pb_text_append(text, ", \"refusal\": ");
            pb_text_append_json_string(text, r->refusal, strlen(r->refusal));
        }
        pb_text_append(text, "}");
    }
    pb_text_append(text, "]");
}

pb_status pb_plan_print_json(const pb_plan_subject *s, const pb_memory_limits *limits, const pb_step_plan *p,
                             const pb_plan_row *rows, const pb_plan_formats *formats, FILE *file) {
    pb_text text = {0};
    const int64_t steps = pb_plan_run_steps(s->config);
    pb_text_append(
        &text, "{\"parameters\": %llu, \"flops\": %.0f, \"flops_forward\": %.0f, \"flops_backward\": %.0f,\n",
        (unsigned long long)p->parameters, p->flops_forward + p->flops_backward, p->flops_forward, p->flops_backward);
    pb_text_append(&text, " \"peak\": {");
    append_bytes(&text, pb_plan_tier_keys, p->peak, PB_TIER_COUNT);
    pb_text_append(&text, "},\n");
    append_classes(&text, "peak_by_class", p, PB_TIER_DEVICE);
    append_classes(&text, "peak_by_class_host", p, PB_TIER_HOST);
    append_classes(&text, "peak_by_class_nvme", p, PB_TIER_NVME);
    pb_text_append(&text, " \"kept_activations\": %llu, \"lower_bound_bytes\": %llu,\n ",
                   (unsigned long long)p->kept_activations, (unsigned long long)p->lower_bound_bytes);
    pb_step_work work;
    pb_step_plan_work(p, &limits->machine, &work);
    pb_text_append(&text, "\"gradients_again\": %llu, \"carried\": %llu,\n ", (unsigned long long)work.gradients.bytes,
                   (unsigned long long)work.carried);
    append_step(&text, &p->step);
    pb_text_append(&text, ",\n \"passes\": %lld, \"deferred\": %s, \"machine\": ", (long long)p->step.passes,
                   p->deferred ? "true" : "false");
    pb_text_append_json_string(&text, limits->machine.name, strlen(limits->machine.name));
    // Unlimited is null; so is what depends on the number of pictures.
    pb_text_append(&text, ",\n \"budget\": {");
    for (int t = 0; t < PB_TIER_COUNT; t++)
        if (limits->request.budget[t] == UINT64_MAX)
            pb_text_append(&text, "%s\"%s\": null", t ? ", " : "", pb_plan_tier_keys[t]);
        else
            pb_text_append(&text, "%s\"%s\": %llu", t ? ", " : "", pb_plan_tier_keys[t],
                           (unsigned long long)limits->request.budget[t]);
    pb_text_append(&text, "},\n \"steps\": ");
    if (steps)
        pb_text_append(&text, "%lld, \"nvme_written\": %.0f", (long long)steps,
                       (double)p->step.moved[PB_LINK_NVME_WRITE] * (double)steps);
    else
        pb_text_append(&text, "null, \"nvme_written\": null");
    pb_text_append(&text, ",\n \"plan_seconds\": %.6f", p->plan_seconds);
    if (rows) append_rows(&text, rows);
    if (formats) {
        pb_text_append(&text, ",\n ");
        pb_plan_append_formats(&text, formats);
    }
    pb_text_append(&text, "}\n");
    if (!text.failed) fwrite(text.data, 1, text.bytes, file);
    const pb_status status = text.failed ? pb_error(PB_ERR_MEMORY, "no memory to print a plan") : PB_OK;
    pb_text_deinit(&text);
    return status;
}
