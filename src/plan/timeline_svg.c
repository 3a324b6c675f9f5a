// A timeline as a picture: for every tier in use the bytes of each class, stacked; below, how busy every lane is. Time
// is cut into columns; a column shows its fullest instant, so that no peak is lost, and of a lane the part of the time
// that it was busy.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "plan/timeline.h"

enum {
    COLUMNS = 880,
    LEFT = 84,
    WIDTH = LEFT + COLUMNS + 236,
    TOP = 78,
    PANEL = 172,       // height of a tier's plot
    PANEL_STEP = 226,  // with its heading
    ROW = 24,          // height of a lane's bar
    ROW_STEP = 36
};

// From the bottom up: what lies still, then what comes and goes.
static const pb_class stack[PB_CLASS_COUNT] = {PB_CLASS_WEIGHT,     PB_CLASS_STATE,     PB_CLASS_GRADIENT,
                                               PB_CLASS_ACTIVATION, PB_CLASS_WORKSPACE, PB_CLASS_INPUT};
static const char *const class_colours[PB_CLASS_COUNT] = {
    [PB_CLASS_INPUT] = "#8a94a0",    [PB_CLASS_WEIGHT] = "#3f6fb5",     [PB_CLASS_STATE] = "#8f7cc3",
    [PB_CLASS_GRADIENT] = "#e08b4a", [PB_CLASS_ACTIVATION] = "#46a58a", [PB_CLASS_WORKSPACE] = "#e3c655",
};

// What a lane is busy with.
typedef enum work { FORWARD, BACKWARD, AGAIN, UPDATE, MOVE, WORKS } work;
static const char *const work_names[WORKS] = {"forward", "backward", "recomputed", "update", "moves"};
static const char *const work_colours[WORKS] = {"#86aede", "#2f5d92", "#b7c3d0", "#a674b5", "#c0617a"};

typedef struct picture {
    const pb_timeline *t;
    pb_text *text;
    double span;  // seconds that the columns stand for: the step's, or those of a longer one beside it
    double columns_per_second;
} picture;

static void append_xml(pb_text *text, const char *string) {
    for (const char *c = string; *c; c++) {
        if (*c == '<')
            pb_text_append(text, "&lt;");
        else if (*c == '&')
            pb_text_append(text, "&amp;");
        else if ((unsigned char)*c >= ' ')
            pb_text_append(text, "%c", *c);
    }
}

static const char *bytes_text(double bytes, char text[32]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    while (bytes >= 1024 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, 32, bytes >= 100 || unit == 0 ? "%.0f %s" : bytes >= 10 ? "%.1f %s" : "%.2f %s", bytes, units[unit]);
    return text;
}

static double total_of(const uint64_t bytes[PB_CLASS_COUNT]) {
    uint64_t sum = 0;
    for (int c = 0; c < PB_CLASS_COUNT; c++) sum += bytes[c];
    return (double)sum;
}

// --- Memory ---

// For every column the fullest sample in it. Returns the fullest of all.
static const pb_timeline_sample *find_columns(const picture *p, pb_tier tier, const pb_timeline_sample **columns) {
    const pb_timeline *t = p->t;
    const pb_timeline_sample *peak = NULL;
    for (size_t i = 0; i < t->sample_count; i++) {
        const pb_timeline_sample *s = &t->samples[i];
        const double end = i + 1 < t->sample_count ? t->samples[i + 1].at : t->seconds;
        int first = (int)(s->at * p->columns_per_second);
        const int last = (int)fmin(ceil(end * p->columns_per_second), COLUMNS) - 1;
        const double total = total_of(s->bytes[tier]);
        if (first > last) first = last < 0 ? 0 : last;
        for (int c = first; c <= last; c++)
            if (!columns[c] || total > total_of(columns[c]->bytes[tier])) columns[c] = s;
        if (end > s->at && (!peak || total > total_of(peak->bytes[tier]))) peak = s;
    }
    return peak;
}

// A power of two of bytes that divides `most` into 3 to 6 parts.
static double tick_of_bytes(double most) {
    double tick = 1;
    while (most / tick > 6) tick *= 2;
    return tick;
}

static void append_area(const picture *p, pb_tier tier, const pb_timeline_sample *const *columns, int level, double top,
                        double scale) {
    double edges[2][COLUMNS];  // below and above
    double most = 0;
    for (int c = 0; c < COLUMNS; c++) {
        double below = 0;
        for (int k = 0; k < level && columns[c]; k++) below += (double)columns[c]->bytes[tier][stack[k]];
        const double own = columns[c] ? (double)columns[c]->bytes[tier][stack[level]] : 0;
        edges[0][c] = top + PANEL - below * scale;
        edges[1][c] = top + PANEL - (below + own) * scale;
        most = fmax(most, own);
    }
    if (most <= 0) return;
    pb_text_append(p->text, "<path fill=\"%s\" d=\"M%d %.2f", class_colours[stack[level]], LEFT, edges[1][0]);
    for (int c = 1; c < COLUMNS; c++)
        if (edges[1][c] != edges[1][c - 1]) pb_text_append(p->text, "H%dV%.2f", LEFT + c, edges[1][c]);
    pb_text_append(p->text, "H%dV%.2f", LEFT + COLUMNS, edges[0][COLUMNS - 1]);
    for (int c = COLUMNS - 1; c > 0; c--)
        if (edges[0][c] != edges[0][c - 1]) pb_text_append(p->text, "H%dV%.2f", LEFT + c, edges[0][c - 1]);
    pb_text_append(p->text, "H%dZ\"/>\n", LEFT);
}

static void append_bytes_axis(const picture *p, double top, double most, double scale) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    const double tick = tick_of_bytes(most);
    int unit = 0;
    while (unit < 4 && most >= ldexp(1, 10 * (unit + 1))) unit++;
    for (double at = 0; at <= most; at += tick) {
        const double y = top + PANEL - at * scale;
        pb_text_append(
            p->text, "<path class=\"grid\" d=\"M%d %.2fh%d\"/><text class=\"tick\" x=\"%d\" y=\"%.2f\">%g%s%s</text>\n",
            LEFT, y, COLUMNS, LEFT - 8, y + 4, ldexp(at, -10 * unit), at > 0 ? " " : "", at > 0 ? units[unit] : "");
    }
}

// Beside the plot: the classes, as they are stacked, with their bytes at the fullest instant.
static void append_peak(const picture *p, pb_tier tier, const pb_timeline_sample *peak, double top) {
    char size[32];
    const int x = LEFT + COLUMNS + 22;
    double y = top + 10;
    pb_text_append(p->text, "<text class=\"note\" x=\"%d\" y=\"%.0f\">at the peak</text>\n", x, y);
    for (int k = PB_CLASS_COUNT - 1; k >= 0; k--) {
        const uint64_t bytes = peak->bytes[tier][stack[k]];
        bool ever = false;
        for (size_t i = 0; i < p->t->sample_count && !ever; i++) ever = p->t->samples[i].bytes[tier][stack[k]] > 0;
        if (!ever) continue;
        y += 21;
        pb_text_append(p->text,
                       "<rect x=\"%d\" y=\"%.0f\" width=\"12\" height=\"12\" rx=\"2\" fill=\"%s\"/>"
                       "<text x=\"%d\" y=\"%.0f\">%s</text><text class=\"end\" x=\"%d\" y=\"%.0f\">%s</text>\n",
                       x, y - 10, class_colours[stack[k]], x + 19, y, pb_timeline_class_name(stack[k]), WIDTH - 20, y,
                       bytes_text((double)bytes, size));
    }
}

static void append_tier(const picture *p, pb_tier tier, double top) {
    const pb_timeline_sample *columns[COLUMNS] = {NULL};
    const pb_timeline_sample *peak = find_columns(p, tier, columns);
    const double slab = (double)p->t->program->tier_bytes[tier];
    char size[32], of[32];
    if (!peak) return;
    const double most = 1.06 * fmax(slab, total_of(peak->bytes[tier])), scale = PANEL / most;
    pb_text_append(p->text, "<text class=\"heading\" x=\"%d\" y=\"%.0f\">%s</text>", LEFT, top - 14,
                   tier == PB_TIER_DEVICE ? "Device memory"
                   : tier == PB_TIER_HOST ? "Host memory"
                                          : "NVMe");
    pb_text_append(p->text, "<text class=\"note end\" x=\"%d\" y=\"%.0f\">at most %s of %s</text>\n", LEFT + COLUMNS,
                   top - 14, bytes_text(total_of(peak->bytes[tier]), size), bytes_text(slab, of));
    append_bytes_axis(p, top, most, scale);
    for (int level = 0; level < PB_CLASS_COUNT; level++) append_area(p, tier, columns, level, top, scale);
    const double x = LEFT + fmin(peak->at * p->columns_per_second, COLUMNS);
    pb_text_append(p->text,
                   "<path class=\"slab\" d=\"M%d %.2fh%d\"/><path class=\"peak\" d=\"M%.1f %.1fl-5 -8h10z\"/>\n", LEFT,
                   top + PANEL - slab * scale, COLUMNS, x, top + PANEL - total_of(peak->bytes[tier]) * scale);
    append_peak(p, tier, peak, top);
}

// --- Lanes ---

static work work_of(const pb_timeline *t, const pb_insn *insn) {
    if (insn->kind == PB_INSN_FETCH || insn->kind == PB_INSN_EVICT) return MOVE;
    const pb_node *node = &t->graph->nodes[insn->node];
    if (insn->kind == PB_INSN_RECAST) return AGAIN;
    if (insn->kind == PB_INSN_UPDATE || node->phase == PB_PHASE_UPDATE) return UPDATE;
    return node->recompute ? AGAIN : node->phase == PB_PHASE_FORWARD ? FORWARD : BACKWARD;
}

typedef double columns_of_work[WORKS][COLUMNS];

// Busy time by column, in columns. Transfers of a lane may go side by side and then share their time.
static void find_busy(const picture *p, pb_lane lane, columns_of_work busy, double *seconds, double *bytes) {
    double free_at = 0;
    for (uint32_t i = 0; i < p->t->program->insn_count; i++) {
        const pb_insn *insn = &p->t->program->insns[i];
        if (insn->lane != lane || insn->kind == PB_INSN_WAIT) continue;
        const double begin = fmax(p->t->times[i].begin, free_at), end = p->t->times[i].end;
        if (insn->kind == PB_INSN_FETCH || insn->kind == PB_INSN_EVICT) *bytes += (double)insn->bytes;
        if (end <= begin) continue;
        free_at = end;
        *seconds += end - begin;
        const double from = begin * p->columns_per_second, to = end * p->columns_per_second;
        double *row = busy[work_of(p->t, insn)];
        for (int c = (int)from; c < COLUMNS && c < to; c++) row[c] += fmin(to, c + 1) - fmax(from, c);
    }
}

static void append_bar(const picture *p, columns_of_work busy, double top) {
    pb_text_append(p->text, "<rect x=\"%d\" y=\"%.0f\" width=\"%d\" height=\"%d\" fill=\"#f0f2f4\"/>\n", LEFT, top,
                   COLUMNS, ROW);
    double below[COLUMNS] = {0};
    for (int w = 0; w < WORKS; w++) {
        bool open = false;
        for (int c = 0; c < COLUMNS;) {
            int end = c + 1;
            while (end < COLUMNS && busy[w][end] == busy[w][c] && below[end] == below[c]) end++;
            if (busy[w][c] > 0.004) {
                if (!open) pb_text_append(p->text, "<path fill=\"%s\" d=\"", work_colours[w]);
                open = true;
                pb_text_append(p->text, "M%d %.2fh%dv%.2fh-%dz", LEFT + c, top + ROW - below[c] * ROW, end - c,
                               -busy[w][c] * ROW, end - c);
            }
            c = end;
        }
        if (open) pb_text_append(p->text, "\"/>\n");
        for (int c = 0; c < COLUMNS; c++) below[c] += busy[w][c];
    }
}

// False where nothing ever ran on the lane, or without memory.
static bool append_lane(const picture *p, pb_lane lane, double top) {
    double seconds = 0, bytes = 0;
    char size[32];
    columns_of_work *busy = calloc(1, sizeof *busy);
    if (!busy) {
        p->text->failed = true;
        return false;
    }
    find_busy(p, lane, *busy, &seconds, &bytes);
    if (seconds > 0) {
        append_bar(p, *busy, top);
        pb_text_append(p->text, "<text class=\"tick\" x=\"%d\" y=\"%.0f\">%s</text><text x=\"%d\" y=\"%.0f\">",
                       LEFT - 8, top + 17, pb_timeline_lane_name(lane), LEFT + COLUMNS + 22, top + 17);
        pb_text_append(p->text, "%.0f%%", 100 * seconds / p->t->seconds);
        if (bytes > 0) pb_text_append(p->text, " · %s at %.1f GB/s", bytes_text(bytes, size), 1e-9 * bytes / seconds);
        pb_text_append(p->text, "</text>\n");
    }
    free(busy);
    return seconds > 0;
}

static void append_work_key(const picture *p, double y) {
    double x = LEFT + COLUMNS;
    for (int w = WORKS - 1; w >= 0; w--) {
        x -= 8.0 * (double)strlen(work_names[w]) + 30;
        pb_text_append(p->text,
                       "<rect x=\"%.0f\" y=\"%.0f\" width=\"12\" height=\"12\" rx=\"2\" fill=\"%s\"/>"
                       "<text x=\"%.0f\" y=\"%.0f\">%s</text>\n",
                       x, y - 10, work_colours[w], x + 18, y, work_names[w]);
    }
}

// --- Time ---

// Ticks below `bottom` and lines up to `top`.
static void append_time_axis(const picture *p, double top, double bottom) {
    const double seconds = p->span, unit = seconds >= 2 ? 1 : seconds >= 2e-3 ? 1e-3 : 1e-6;
    double tick = pow(10, floor(log10(seconds / 5)));
    if (seconds / tick > 25)
        tick *= 5;
    else if (seconds / tick > 10)
        tick *= 2;
    for (int i = 0; i * tick <= seconds * (1 + 1e-9); i++) {
        const double x = LEFT + i * tick * p->columns_per_second;
        pb_text_append(
            p->text,
            "<path class=\"grid\" d=\"M%.2f %.0fV%.0f\"/><text class=\"middle\" x=\"%.2f\" y=\"%.0f\">%g</text>\n", x,
            top, bottom + 5, x, bottom + 21, i * tick / unit);
    }
    pb_text_append(p->text, "<text class=\"note\" x=\"%d\" y=\"%.0f\">%s</text>\n", LEFT + COLUMNS + 22, bottom + 21,
                   unit == 1      ? "seconds"
                   : unit == 1e-3 ? "milliseconds"
                                  : "microseconds");
}

static const char style[] =
    "<style>text{font:13px system-ui,'Segoe UI','DejaVu Sans',sans-serif;fill:#222b33}"
    ".title{font-size:19px;font-weight:600}.heading{font-size:14px;font-weight:600}.note{fill:#66717c}"
    ".tick{text-anchor:end;fill:#66717c}.end{text-anchor:end}.middle{text-anchor:middle;fill:#66717c}"
    ".grid{stroke:#e3e7ea;fill:none}.slab{stroke:#222b33;stroke-dasharray:5 4;fill:none}.peak{fill:#222b33}</style>\n";

typedef struct extent {
    double lanes_top, bottom, height;
    bool used[PB_LANE_COUNT];
} extent;

static extent measure(const pb_timeline *t) {
    extent e = {0};
    int tiers = 0, lanes = 0;
    for (uint32_t i = 0; i < t->program->insn_count; i++)
        if (t->program->insns[i].kind != PB_INSN_WAIT) e.used[t->program->insns[i].lane] = true;
    for (int l = 0; l < PB_LANE_COUNT; l++) lanes += e.used[l];
    for (int k = 0; k < PB_TIER_COUNT; k++) tiers += t->program->tier_bytes[k] > 0;
    e.lanes_top = TOP + 24 + tiers * PANEL_STEP;
    e.bottom = e.lanes_top + lanes * ROW_STEP - (ROW_STEP - ROW);
    e.height = e.bottom + 44;
    return e;
}

static void begin_svg(pb_text *text, double width, double height) {
    pb_text_append(text,
                   "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f "
                   "%.0f\">\n%s<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
                   width, height, width, height, style);
}

// All of one timeline, from its title down.
static void append_timeline(const pb_timeline *t, const extent *e, const char *title, double span, pb_text *text) {
    const picture p = {t, text, span, span > 0 ? COLUMNS / span : 0};
    pb_text_append(text, "<text class=\"title\" x=\"%d\" y=\"34\">", LEFT);
    append_xml(text, title);
    pb_text_append(text, "</text>\n<text class=\"note end\" x=\"%d\" y=\"34\">%.4g s, %u instructions</text>\n",
                   WIDTH - 20, t->seconds, t->program->insn_count);
    if (t->seconds <= 0) return;
    append_time_axis(&p, TOP, e->bottom);
    double top = TOP;
    for (int k = 0; k < PB_TIER_COUNT; k++) {
        if (!t->program->tier_bytes[k]) continue;
        append_tier(&p, (pb_tier)k, top);
        top += PANEL_STEP;
    }
    pb_text_append(text, "<text class=\"heading\" x=\"%d\" y=\"%.0f\">Lanes</text>", LEFT, e->lanes_top - 14);
    append_work_key(&p, e->lanes_top - 14);
    top = e->lanes_top;
    for (int l = 0; l < PB_LANE_COUNT; l++)
        if (e->used[l] && append_lane(&p, (pb_lane)l, top)) top += ROW_STEP;
}

void pb_timeline_print_svg(const pb_timeline *timeline, const char *title, pb_text *text) {
    const extent e = measure(timeline);
    begin_svg(text, WIDTH, e.height);
    append_timeline(timeline, &e, title, timeline->seconds, text);
    pb_text_append(text, "</svg>\n");
}

static pb_status write_svg(pb_text *text, const char *path) {
    const pb_status status = text->failed ? pb_error(PB_ERR_MEMORY, "%s: no memory for the picture", path)
                                          : pb_fs_write_file(path, text->data, text->bytes);
    pb_text_deinit(text);
    return status;
}

pb_status pb_timeline_write_svg(const pb_timeline *timeline, const char *title, const char *path) {
    pb_text text = {0};
    pb_timeline_print_svg(timeline, title, &text);
    return write_svg(&text, path);
}

pb_status pb_timeline_write_svg_pair(const pb_timeline *predicted, const pb_timeline *actual, const char *title,
                                     const char *path) {
    pb_text text = {0};
    char heading[160];
    const extent e = measure(predicted);
    // On one scale of time, unless one of them would hardly be seen on it.
    const double longer = fmax(predicted->seconds, actual->seconds);
    const bool one_scale = longer <= 3 * fmin(predicted->seconds, actual->seconds);
    const char *note = one_scale ? "" : " (on its own scale of time)";
    begin_svg(&text, 2 * WIDTH, e.height);
    snprintf(heading, sizeof heading, "Predicted: %s%s", title, note);
    append_timeline(predicted, &e, heading, one_scale ? longer : predicted->seconds, &text);
    pb_text_append(&text, "<g transform=\"translate(%d 0)\">\n", WIDTH);
    snprintf(heading, sizeof heading, "Actual: %s%s", title, note);
    append_timeline(actual, &e, heading, one_scale ? longer : actual->seconds, &text);
    pb_text_append(&text, "</g>\n</svg>\n");
    return write_svg(&text, path);
}
