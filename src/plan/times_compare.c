// Predicted against actual, as a table.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/timeline.h"

enum { MOST_OPS = 12 };

// Seconds of one lane, or of all nodes of one op.
typedef struct sums {
    double seconds, bytes;
    uint32_t count;
} sums;

typedef struct run {
    double step;
    sums lane[PB_LANE_COUNT], op[PB_OP_COUNT];
} run;

static run sum_up(const pb_graph *graph, const pb_program *program, const pb_insn_times *times) {
    run r = {0};
    double free_at[PB_LANE_COUNT] = {0};
    for (uint32_t i = 0; i < program->insn_count; i++) {
        const pb_insn *insn = &program->insns[i];
        const double seconds = times[i].end - times[i].begin;
        if (times[i].end > r.step) r.step = times[i].end;
        if (insn->kind == PB_INSN_WAIT) continue;
        // Transfers of a lane that go side by side share their time.
        sums *lane = &r.lane[insn->lane];
        const double begin = times[i].begin > free_at[insn->lane] ? times[i].begin : free_at[insn->lane];
        if (times[i].end > begin) {
            lane->seconds += times[i].end - begin;
            free_at[insn->lane] = times[i].end;
        }
        lane->count++;
        if (pb_insn_is_op(insn)) {
            sums *op = &r.op[pb_insn_op(graph, insn)];
            op->seconds += seconds;
            op->count++;
        } else {
            lane->bytes += (double)insn->bytes;
        }
    }
    return r;
}

static void append_row(pb_text *text, const char *name, double predicted, double actual) {
    pb_text_append(text, "%-24s %10.4f s %10.4f s", name, predicted, actual);
    if (predicted > 0)
        pb_text_append(text, "  %6.2f", actual / predicted);
    else
        pb_text_append(text, "       -");
}

static int by_actual(const void *a, const void *b) {
    const double x = (*(const sums *const *)a)->seconds, y = (*(const sums *const *)b)->seconds;
    return (x < y) - (x > y);
}

pb_status pb_times_compare(const pb_graph *graph, const pb_program *program, const pb_insn_times *predicted,
                           const pb_insn_times *actual, pb_text *text) {
    const run p = sum_up(graph, program, predicted), a = sum_up(graph, program, actual);
    pb_text_append(text, "%-24s %12s %12s  %6s\n", "", "predicted", "actual", "ratio");
    append_row(text, "step", p.step, a.step);
    pb_text_append(text, "\n");
    for (int l = 0; l < PB_LANE_COUNT; l++) {
        if (!p.lane[l].count) continue;
        append_row(text, pb_timeline_lane_name((pb_lane)l), p.lane[l].seconds, a.lane[l].seconds);
        if (a.lane[l].bytes > 0 && p.lane[l].seconds > 0 && a.lane[l].seconds > 0)
            pb_text_append(text, "   %.2f GiB at %.1f and %.1f GB/s", a.lane[l].bytes / 0x1p30,
                           1e-9 * p.lane[l].bytes / p.lane[l].seconds, 1e-9 * a.lane[l].bytes / a.lane[l].seconds);
        pb_text_append(text, "\n");
    }
    append_row(text, "compute idle", p.step - p.lane[PB_LANE_COMPUTE].seconds,
               a.step - a.lane[PB_LANE_COMPUTE].seconds);
    pb_text_append(text, "\n");
    const sums *order[PB_OP_COUNT];
    int count = 0;
    for (int op = 0; op < PB_OP_COUNT; op++)
        if (a.op[op].count) order[count++] = &a.op[op];
    qsort(order, (size_t)count, sizeof *order, by_actual);
    for (int i = 0; i < count && i < MOST_OPS; i++) {
        const ptrdiff_t op = order[i] - a.op;
        char name[64];
        snprintf(name, sizeof name, "  %s x %u", pb_op_name((pb_opcode)op), a.op[op].count);
        append_row(text, name, p.op[op].seconds, a.op[op].seconds);
        pb_text_append(text, "\n");
    }
    return text->failed ? pb_error(PB_ERR_MEMORY, "no memory for a table") : PB_OK;
}
