// A timeline as a trace in Chrome's JSON format, which Perfetto reads.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "plan/timeline.h"

enum { SLOTS = 32 };

static const char *const phase_names[] = {
    [PB_PHASE_FORWARD] = "forward", [PB_PHASE_BACKWARD] = "backward", [PB_PHASE_UPDATE] = "update"};

static const char *const track_names[PB_LANE_COUNT] = {
    [PB_LANE_COMPUTE] = "compute",
    [PB_LANE_UPLOAD] = "upload (host to device)",
    [PB_LANE_DOWNLOAD] = "download (device to host)",
    [PB_LANE_HOST] = "updates on the host",
    [PB_LANE_READ] = "NVMe read",
    [PB_LANE_WRITE] = "NVMe write",
};

// Slices of a track must not overlap, and transfers of one lane may: each takes the first track of its lane that is
// free. Returns its number there.
static int find_slot(double free_at[SLOTS], double begin, double end) {
    int slot = 0;
    while (slot < SLOTS - 1 && free_at[slot] > begin + 1e-9) slot++;
    free_at[slot] = end;
    return slot;
}

static int track_of(pb_lane lane, int slot) {
    return (int)lane * SLOTS + slot + 1;
}

static void append_tracks(const char *title, int process, const int slots[PB_LANE_COUNT], pb_text *text) {
    pb_text_append(text, "{\"ph\":\"M\",\"pid\":%d,\"name\":\"process_name\",\"args\":{\"name\":", process);
    pb_text_append_json_string(text, title, strlen(title));
    pb_text_append(text, "}}");
    for (int l = 0; l < PB_LANE_COUNT; l++)
        for (int s = 0; s < slots[l]; s++) {
            const int track = track_of((pb_lane)l, s);
            pb_text_append(
                text, ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":\"%s\"}}",
                process, track, track_names[l]);
            pb_text_append(
                text,
                ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_sort_index\",\"args\":{\"sort_index\":%d}}",
                process, track, track);
        }
}

// The name of what an op or a move is about: its first named operand.
static const char *subject(const pb_timeline *t, uint32_t i) {
    const pb_insn *insn = &t->program->insns[i];
    if (t->moved[i] != PB_NONE) return t->graph->values[t->moved[i]].name;
    if (!pb_insn_is_op(insn)) return "";
    const pb_node *node = &t->graph->nodes[insn->node];
    for (int k = 0; k < PB_MAX_INPUTS; k++)
        if (node->in[k] != PB_NONE && t->graph->values[node->in[k]].persistent && *t->graph->values[node->in[k]].name)
            return t->graph->values[node->in[k]].name;
    return "";
}

static void append_name(const pb_timeline *t, uint32_t i, pb_text *text) {
    const pb_insn *insn = &t->program->insns[i];
    char name[256] = "workspace";
    const char *about = subject(t, i);
    switch (insn->kind) {
    case PB_INSN_RUN: {
        const pb_node *node = &t->graph->nodes[insn->node];
        snprintf(name, sizeof name, "%s%s", pb_op_name(node->op), node->recompute ? " again" : "");
        break;
    }
    case PB_INSN_WAIT:
        snprintf(name, sizeof name, "wait for %s", pb_timeline_lane_name(t->program->insns[insn->on].lane));
        break;
    case PB_INSN_UPDATE: snprintf(name, sizeof name, "%s", about); break;
    case PB_INSN_RECAST: snprintf(name, sizeof name, "cast again"); break;
    default: snprintf(name, sizeof name, "%s", *about ? about : pb_timeline_tier_name(insn->from_tier));
    }
    pb_text_append_json_string(text, name, strlen(name));
}

static void append_slice(const pb_timeline *t, int process, uint32_t i, int track, pb_text *text) {
    const pb_insn *insn = &t->program->insns[i];
    const bool op = pb_insn_is_op(insn);
    const double begin = t->times[i].begin, seconds = t->times[i].end - begin;
    pb_text_append(text,
                   ",\n{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"cat\":\"%s\",\"name\":", process,
                   track, 1e6 * begin, 1e6 * seconds,
                   insn->kind == PB_INSN_RECAST ? phase_names[PB_PHASE_BACKWARD]
                   : op                         ? phase_names[t->graph->nodes[insn->node].phase]
                   : insn->kind == PB_INSN_WAIT ? "wait"
                                                : "move");
    append_name(t, i, text);
    pb_text_append(text, ",\"args\":{\"instruction\":%u", i);
    if (op) {
        const char *about = subject(t, i);
        if (*about) {
            pb_text_append(text, ",\"of\":");
            pb_text_append_json_string(text, about, strlen(about));
        }
    }
    if (insn->kind == PB_INSN_RUN)
        pb_text_append(text, ",\"gflop\":%.3f", 1e-9 * pb_node_flops(t->graph, &t->graph->nodes[insn->node]));
    if (insn->kind == PB_INSN_UPDATE || insn->kind == PB_INSN_RECAST)
        pb_text_append(text, ",\"first\":%lld,\"count\":%lld", (long long)insn->first, (long long)insn->count);
    if (insn->kind == PB_INSN_WAIT) pb_text_append(text, ",\"on\":%u", insn->on);
    if (!op && insn->kind != PB_INSN_WAIT) {
        pb_text_append(text, ",\"bytes\":%llu", (unsigned long long)insn->bytes);
        if (seconds > 0) pb_text_append(text, ",\"gb_per_s\":%.3f", 1e-9 * (double)insn->bytes / seconds);
    }
    pb_text_append(text, "}}");
}

static void append_slices(const pb_timeline *t, const char *title, int process, pb_text *text) {
    double free_at[PB_LANE_COUNT][SLOTS] = {{0}};
    int slots[PB_LANE_COUNT] = {0};
    // Twice: the tracks must be known before they are named.
    for (int pass = 0; pass < 2; pass++) {
        memset(free_at, 0, sizeof free_at);
        for (uint32_t i = 0; i < t->program->insn_count; i++) {
            const pb_insn *insn = &t->program->insns[i];
            if (insn->kind == PB_INSN_WAIT && t->times[i].end - t->times[i].begin < 1e-9) continue;
            const int slot = find_slot(free_at[insn->lane], t->times[i].begin, t->times[i].end);
            if (slot >= slots[insn->lane]) slots[insn->lane] = slot + 1;
            if (pass == 1) append_slice(t, process, i, track_of(insn->lane, slot), text);
        }
        if (pass == 0) append_tracks(title, process, slots, text);
    }
}

static void append_memory(const pb_timeline *t, int process, pb_text *text) {
    const pb_timeline_sample *before = NULL;
    for (size_t i = 0; i < t->sample_count; before = &t->samples[i++])
        for (int tier = 0; tier < PB_TIER_COUNT; tier++) {
            const pb_timeline_sample *s = &t->samples[i];
            if (!t->program->tier_bytes[tier]) continue;
            if (before && !memcmp(s->bytes[tier], before->bytes[tier], sizeof s->bytes[tier])) continue;
            pb_text_append(text, ",\n{\"ph\":\"C\",\"pid\":%d,\"ts\":%.3f,\"name\":\"%s bytes\",\"args\":{", process,
                           1e6 * s->at, pb_timeline_tier_name((pb_tier)tier));
            for (int c = 0; c < PB_CLASS_COUNT; c++)
                pb_text_append(text, "%s\"%s\":%llu", c ? "," : "", pb_timeline_class_name((pb_class)c),
                               (unsigned long long)s->bytes[tier][c]);
            pb_text_append(text, "}}");
        }
}

typedef struct edge {
    double at, rate;
} edge;

static int by_time(const void *a, const void *b) {
    const double x = ((const edge *)a)->at, y = ((const edge *)b)->at;
    return (x > y) - (x < y);
}

// A counter per link: the rates of the moves that are under way, each taken as even over its time.
static bool append_links(const pb_timeline *t, int process, pb_text *text) {
    edge *edges = malloc((2 * (size_t)t->program->insn_count + 1) * sizeof *edges);
    if (!edges) return false;
    for (int l = 0; l < PB_LANE_COUNT; l++) {
        size_t count = 0, under_way = 0;
        for (uint32_t i = 0; i < t->program->insn_count; i++) {
            const pb_insn *insn = &t->program->insns[i];
            const double seconds = t->times[i].end - t->times[i].begin;
            if ((int)insn->lane != l || (insn->kind != PB_INSN_FETCH && insn->kind != PB_INSN_EVICT)) continue;
            if (seconds < 1e-9 || !insn->bytes) continue;
            const double rate = 1e-9 * (double)insn->bytes / seconds;
            edges[count++] = (edge){t->times[i].begin, rate};
            edges[count++] = (edge){t->times[i].end, -rate};
        }
        if (count) qsort(edges, count, sizeof *edges, by_time);
        double rate = 0;
        for (size_t i = 0; i < count; i++) {
            rate += edges[i].rate;
            // Nothing under way is exactly nothing, whatever rounding has left.
            if (edges[i].rate > 0)
                under_way++;
            else if (--under_way == 0)
                rate = 0;
            if (i + 1 < count && edges[i + 1].at == edges[i].at) continue;
            pb_text_append(text,
                           ",\n{\"ph\":\"C\",\"pid\":%d,\"ts\":%.3f,\"name\":\"%s GB/s\",\"args\":{\"GB/s\":%.4f}}",
                           process, 1e6 * edges[i].at, pb_timeline_lane_name((pb_lane)l), rate);
        }
    }
    free(edges);
    return true;
}

static void append_process(const pb_timeline *t, const char *title, int process, pb_text *text) {
    append_slices(t, title, process, text);
    append_memory(t, process, text);
    if (!append_links(t, process, text)) text->failed = true;
}

static void begin_trace(pb_text *text) {
    pb_text_append(text, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
}

void pb_timeline_print_trace(const pb_timeline *timeline, const char *title, pb_text *text) {
    begin_trace(text);
    append_process(timeline, title, 1, text);
    pb_text_append(text, "\n]}\n");
}

static pb_status write_trace(pb_text *text, const char *path) {
    const pb_status status = text->failed ? pb_error(PB_ERR_MEMORY, "%s: no memory for the trace", path)
                                          : pb_fs_write_file(path, text->data, text->bytes);
    pb_text_deinit(text);
    return status;
}

pb_status pb_timeline_write_trace(const pb_timeline *timeline, const char *title, const char *path) {
    pb_text text = {0};
    pb_timeline_print_trace(timeline, title, &text);
    return write_trace(&text, path);
}

pb_status pb_timeline_write_trace_pair(const pb_timeline *predicted, const pb_timeline *actual, const char *path) {
    pb_text text = {0};
    begin_trace(&text);
    append_process(predicted, "predicted", 1, &text);
    pb_text_append(&text, ",\n");
    append_process(actual, "actual", 2, &text);
    pb_text_append(&text, "\n]}\n");
    return write_trace(&text, path);
}
