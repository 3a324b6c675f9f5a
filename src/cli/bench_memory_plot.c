// What `bench --memory` measured, as a picture and as JSON. The picture: for every budget a column; seconds of a step
// on top, then what each tier held by class, then the bytes that moved over each link.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "cli/bench_memory.h"
#include "cli/plan_report.h"
#include "plan/timeline.h"

enum { LEFT = 92, COLUMN = 124, KEY = 190, TOP = 84, PANEL = 190, STEP = 262, BAR = 24 };

static const pb_class stack[PB_CLASS_COUNT] = {PB_CLASS_WEIGHT,     PB_CLASS_STATE,     PB_CLASS_GRADIENT,
                                               PB_CLASS_ACTIVATION, PB_CLASS_WORKSPACE, PB_CLASS_INPUT};
static const char *const class_colours[PB_CLASS_COUNT] = {
    [PB_CLASS_INPUT] = "#8a94a0",    [PB_CLASS_WEIGHT] = "#3f6fb5",     [PB_CLASS_STATE] = "#8f7cc3",
    [PB_CLASS_GRADIENT] = "#e08b4a", [PB_CLASS_ACTIVATION] = "#46a58a", [PB_CLASS_WORKSPACE] = "#e3c655",
};
static const char *const link_colours[PB_LINK_COUNT] = {"#2f5d92", "#86aede", "#c0617a", "#e3a6b5"};
static const char *const link_names[PB_LINK_COUNT] = {"to the device", "to the host", "NVMe read", "NVMe written"};

static const char style[] =
    "<style>text{font:13px system-ui,'Segoe UI','DejaVu Sans',sans-serif;fill:#222b33}"
    ".title{font-size:19px;font-weight:600}.heading{font-size:14px;font-weight:600}.note{fill:#66717c}"
    ".small{font-size:11px;text-anchor:middle;fill:#66717c}.tick{text-anchor:end;fill:#66717c}"
    ".middle{text-anchor:middle}.grid{stroke:#e3e7ea;fill:none}.line{fill:none;stroke-width:2}</style>\n";

typedef struct plot {
    const pb_bench_memory_row *rows;
    int count;
    pb_text *text;
} plot;

static double column_at(int i) {
    return LEFT + COLUMN * (i + 0.5);
}

static double key_at(const plot *p) {
    return LEFT + COLUMN * p->count + 24;
}

static void append_xml(pb_text *text, const char *string) {
    for (const char *c = string; *c; c++) pb_text_append(text, *c == '<' ? "&lt;" : *c == '&' ? "&amp;" : "%c", *c);
}

// A round number that divides `most` into 3 to 6 parts; of bytes a power of two.
static double tick_of(double most, bool bytes) {
    double tick = bytes ? 1 : pow(10, floor(log10(most / 3)));
    if (bytes)
        while (most / tick > 6) tick *= 2;
    else if (most / tick > 6)
        tick *= most / tick > 15 ? 5 : 2;
    return tick;
}

// Heading, grid and scale. Returns pixels per unit.
static double append_axis(const plot *p, double top, const char *heading, double most, bool bytes) {
    char label[32];
    if (most <= 0) most = 1;
    const double scale = PANEL / (1.05 * most), tick = tick_of(most, bytes);
    pb_text_append(p->text, "<text class=\"heading\" x=\"%d\" y=\"%.0f\">%s</text>\n", LEFT, top - 14, heading);
    for (int i = 0; i * tick <= 1.05 * most; i++) {
        const double at = i * tick, y = top + PANEL - at * scale;
        if (!i)
            snprintf(label, sizeof label, "0");
        else if (bytes)
            pb_bytes_text((uint64_t)at, label);
        else
            pb_seconds_text(at, label);
        pb_text_append(p->text,
                       "<path class=\"grid\" d=\"M%d %.2fh%d\"/><text class=\"tick\" x=\"%d\" y=\"%.2f\">%s</text>\n",
                       LEFT, y, COLUMN * p->count, LEFT - 8, y + 4, label);
    }
    return scale;
}

static void append_key(const plot *p, double y, const char *colour, const char *name) {
    pb_text_append(p->text,
                   "<rect x=\"%.0f\" y=\"%.0f\" width=\"12\" height=\"12\" rx=\"2\" fill=\"%s\"/>"
                   "<text x=\"%.0f\" y=\"%.0f\">%s</text>\n",
                   key_at(p), y - 10, colour, key_at(p) + 19, y, name);
}

// --- Seconds ---

typedef enum curve { MEASURED, PREDICTED, BOUND, CURVES } curve;
static const char *const curve_names[CURVES] = {"measured", "predicted", "lower bound"};
static const char *const curve_colours[CURVES] = {"#b5443f", "#3f6fb5", "#8a94a0"};

static double seconds_of(const pb_bench_memory_row *row, curve c) {
    if (!row->ran) return 0;
    return c == MEASURED    ? row->report.program_seconds
           : c == PREDICTED ? row->report.forecast.seconds
                            : row->report.forecast.lower_bound;
}

static void append_seconds(const plot *p, double top) {
    double most = 0;
    for (int i = 0; i < p->count; i++)
        for (int c = 0; c < CURVES; c++) most = fmax(most, seconds_of(&p->rows[i], (curve)c));
    const double scale = append_axis(p, top, "Seconds of a step, in its programs", most, false);
    for (int c = CURVES - 1; c >= 0; c--) {
        bool open = false;
        append_key(p, top + 10 + 21 * c, curve_colours[c], curve_names[c]);
        pb_text_append(p->text, "<path class=\"line\" stroke=\"%s\"%s d=\"", curve_colours[c],
                       c == MEASURED ? "" : " stroke-dasharray=\"6 4\"");
        for (int i = 0; i < p->count; i++) {
            if (p->rows[i].ran)
                pb_text_append(p->text, "%s%.1f %.1f", open ? "L" : "M", column_at(i),
                               top + PANEL - scale * seconds_of(&p->rows[i], (curve)c));
            open = p->rows[i].ran;
        }
        pb_text_append(p->text, "\"/>\n");
        for (int i = 0; i < p->count; i++)
            if (p->rows[i].ran)
                pb_text_append(p->text, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", column_at(i),
                               top + PANEL - scale * seconds_of(&p->rows[i], (curve)c), curve_colours[c]);
    }
}

// --- Bytes ---

static void append_bar(const plot *p, double x, double y, double height, const char *colour) {
    if (height > 0.05)
        pb_text_append(p->text, "<rect x=\"%.1f\" y=\"%.2f\" width=\"%d\" height=\"%.2f\" fill=\"%s\"/>\n", x,
                       y - height, BAR, height, colour);
}

static void append_classes(const plot *p, double top) {
    static const char *const short_names[PB_TIER_COUNT] = {"device", "host", "NVMe"};
    double most = 0;
    bool any[PB_CLASS_COUNT] = {false};
    for (int i = 0; i < p->count; i++)
        for (int t = 0; t < PB_TIER_COUNT && p->rows[i].ran; t++) {
            most = fmax(most, (double)p->rows[i].report.tier_bytes[t]);
            for (int c = 0; c < PB_CLASS_COUNT; c++) any[c] |= p->rows[i].report.by_class[t][c] > 0;
        }
    const double scale = append_axis(p, top, "Bytes at the fullest instant of each tier, by class", most, true);
    for (int i = 0; i < p->count; i++)
        for (int t = 0; t < PB_TIER_COUNT && p->rows[i].ran; t++) {
            const pb_train_report *r = &p->rows[i].report;
            const double x = column_at(i) + (t - 1) * (BAR + 15) - BAR / 2.0;
            double y = top + PANEL;
            for (int k = 0; k < PB_CLASS_COUNT; k++) {
                const double height = scale * (double)r->by_class[t][stack[k]];
                append_bar(p, x, y, height, class_colours[stack[k]]);
                y -= height;
            }
            append_bar(p, x, y, scale * (double)r->padding[t], "#dfe3e6");
            pb_text_append(p->text, "<text class=\"small\" x=\"%.1f\" y=\"%.0f\">%s</text>\n", x + BAR / 2.0,
                           top + PANEL + 14, short_names[t]);
        }
    double y = top + 10;
    append_key(p, y, "#dfe3e6", "padding");
    for (int k = PB_CLASS_COUNT - 1; k >= 0; k--)
        if (any[stack[k]]) append_key(p, y += 21, class_colours[stack[k]], pb_timeline_class_name(stack[k]));
}

static void append_moved(const plot *p, double top) {
    double most = 0;
    for (int i = 0; i < p->count; i++)
        for (int l = 0; l < PB_LINK_COUNT && p->rows[i].ran; l++) most = fmax(most, (double)p->rows[i].report.moved[l]);
    const double scale = append_axis(p, top, "Bytes moved in a step", most, true);
    for (int i = 0; i < p->count; i++)
        for (int l = 0; l < PB_LINK_COUNT && p->rows[i].ran; l++)
            append_bar(p, column_at(i) + (l - 1.5) * (BAR + 2) - BAR / 2.0, top + PANEL,
                       scale * (double)p->rows[i].report.moved[l], link_colours[l]);
    for (int l = 0; l < PB_LINK_COUNT; l++) append_key(p, top + 10 + 21 * l, link_colours[l], link_names[l]);
}

static void append_budgets(const plot *p, double y) {
    char text[32];
    for (int i = 0; i < p->count; i++)
        pb_text_append(p->text,
                       "<text class=\"middle\" x=\"%.1f\" y=\"%.0f\">%s</text>\n<text class=\"small\" x=\"%.1f\" "
                       "y=\"%.0f\">%s</text>\n",
                       column_at(i), y, pb_bytes_text(p->rows[i].budget, text), column_at(i), y + 16,
                       p->rows[i].ran ? "" : "does not fit");
    pb_text_append(p->text, "<text class=\"note\" x=\"%.0f\" y=\"%.0f\">device budget</text>\n", key_at(p), y);
}

pb_status pb_bench_memory_write_svg(const pb_bench_memory_row *rows, int count, const char *title, const char *path) {
    pb_text text = {0};
    const plot p = {rows, count, &text};
    const double width = LEFT + COLUMN * count + KEY, height = TOP + 3 * STEP - 16;
    pb_text_append(
        &text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\">\n"
        "%s<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text class=\"title\" x=\"%d\" y=\"36\">",
        width, height, width, height, style, LEFT);
    append_xml(&text, title);
    pb_text_append(&text, "</text>\n");
    append_seconds(&p, TOP);
    append_classes(&p, TOP + STEP);
    append_moved(&p, TOP + 2 * STEP);
    append_budgets(&p, TOP + 2 * STEP + PANEL + 24);
    pb_text_append(&text, "</svg>\n");
    const pb_status status = text.failed ? pb_error(PB_ERR_MEMORY, "%s: no memory for the picture", path)
                                         : pb_fs_write_file(path, text.data, text.bytes);
    pb_text_deinit(&text);
    return status;
}

// --- JSON ---

static void append_object(pb_text *text, const char *key, const char *const *names, const uint64_t *bytes, int count) {
    pb_text_append(text, "\"%s\": {", key);
    for (int i = 0; i < count; i++)
        pb_text_append(text, "%s\"%s\": %llu", i ? ", " : "", names[i], (unsigned long long)bytes[i]);
    pb_text_append(text, "}");
}

static void append_report(pb_text *text, const pb_train_report *r) {
    pb_text_append(text,
                   "\"steps\": %lld, \"seconds\": %.9g, \"seconds_with_data\": %.9g, \"predicted_seconds\": %.9g, "
                   "\"lower_bound\": %.9g, \"bound\": \"%s\",\n   ",
                   (long long)r->steps, r->program_seconds, r->seconds, r->forecast.seconds, r->forecast.lower_bound,
                   pb_bound_name(r->forecast.bound));
    pb_text_append(text, "\"compute_alone\": %.9g, \"io_alone\": %.9g,\n   ", r->compute_alone, r->io_alone);
    append_object(text, "peak", pb_plan_tier_keys, r->slab_bytes, PB_TIER_COUNT);
    pb_text_append(text, ", ");
    append_object(text, "predicted_peak", pb_plan_tier_keys, r->tier_bytes, PB_TIER_COUNT);
    pb_text_append(text, ",\n   ");
    for (int t = 0; t < PB_TIER_COUNT; t++) {
        char key[32];
        snprintf(key, sizeof key, "peak_by_class_%s", pb_plan_tier_keys[t]);
        append_object(text, key, pb_plan_class_keys, r->by_class[t], PB_CLASS_COUNT);
        pb_text_append(text, ",\n   ");
    }
    append_object(text, "moved", pb_plan_link_keys, r->moved, PB_LINK_COUNT);
    pb_text_append(text, ", ");
    append_object(text, "predicted_moved", pb_plan_link_keys, r->forecast.moved, PB_LINK_COUNT);
    pb_text_append(text, ",\n   \"process\": {\"peak\": %llu, \"slabs\": %llu, \"overhead\": %llu},\n   \"losses\": [",
                   (unsigned long long)r->process_peak, (unsigned long long)r->process_slabs,
                   (unsigned long long)r->process_overhead);
    for (int64_t i = 0; i < r->losses; i++) pb_text_append(text, "%s%.17g", i ? ", " : "", r->loss[i]);
    pb_text_append(text, "]");
}

pb_status pb_bench_memory_write_json(const pb_bench_memory_row *rows, int count, const char *title, const char *path) {
    pb_text text = {0};
    pb_text_append(&text, "{\"title\": ");
    pb_text_append_json_string(&text, title, strlen(title));
    pb_text_append(&text, ",\n \"rows\": [");
    for (int i = 0; i < count; i++) {
        pb_text_append(&text, "%s\n  {\"budget\": %llu, \"fits\": %s, ", i ? "," : "",
                       (unsigned long long)rows[i].budget, rows[i].ran ? "true" : "false");
        if (rows[i].ran) {
            pb_text_append(&text, "\"same_bits\": %s, ", rows[i].same ? "true" : "false");
            append_report(&text, &rows[i].report);
        } else {
            pb_text_append(&text, "\"refusal\": ");
            pb_text_append_json_string(&text, rows[i].refusal, strlen(rows[i].refusal));
        }
        pb_text_append(&text, "}");
    }
    pb_text_append(&text, "\n ]}\n");
    const pb_status status = text.failed ? pb_error(PB_ERR_MEMORY, "%s: no memory for the data", path)
                                         : pb_fs_write_file(path, text.data, text.bytes);
    pb_text_deinit(&text);
    return status;
}
