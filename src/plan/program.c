#include "plan/program.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const lane_names[PB_LANE_COUNT] = {
    [PB_LANE_COMPUTE] = "compute", [PB_LANE_UPLOAD] = "upload", [PB_LANE_DOWNLOAD] = "download",
    [PB_LANE_HOST] = "host",       [PB_LANE_READ] = "read",     [PB_LANE_WRITE] = "write",
};

void pb_program_destroy(pb_program *program) {
    if (program) pb_arena_destroy(program->arena);
}

// A line that is being written; what does not fit is cut off.
typedef struct line_text {
    char text[1024];
    int used;
} line_text;

static void append(line_text *line, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void append(line_text *line, const char *format, ...) {
    const int room = (int)sizeof line->text - line->used;
    va_list list;
    va_start(list, format);
    const int written = vsnprintf(line->text + line->used, (size_t)room, format, list);
    va_end(list);
    line->used += written < 0 ? 0 : written < room ? written : room - 1;
}

// Of an update's operands with the parameter's shape, only its elements are there.
static void append_operands(line_text *line, const pb_graph *graph, const pb_insn *insn, const pb_operand *operands,
                            int count) {
    const pb_node *node = &graph->nodes[insn->node];
    for (int i = 0; i < count; i++) {
        if (operands[i].value == PB_NONE) continue;
        const pb_value *v = &graph->values[operands[i].value];
        uint64_t bytes = pb_value_bytes(v);
        if (insn->kind != PB_INSN_RUN && pb_shape_equal(v->shape, graph->values[node->in[3]].shape))
            bytes = (uint64_t)insn->count * pb_dtype_size(v->dtype);
        append(line, " %%%u:%s@%llu+%llu", operands[i].value, pb_dtype_name(v->dtype),
               (unsigned long long)operands[i].offset, (unsigned long long)bytes);
    }
}

static void append_side(line_text *line, const pb_insn *insn, pb_tier tier, uint64_t offset) {
    if (tier == PB_TIER_NVME)
        append(line, " nvme#%u", insn->extent);
    else
        append(line, " %s@%llu", tier == PB_TIER_DEVICE ? "device" : "host", (unsigned long long)offset);
}

static void append_op(line_text *line, const pb_graph *graph, const pb_insn *insn) {
    const pb_node *node = &graph->nodes[insn->node];
    append(line, " %s%s", pb_op_name(pb_insn_op(graph, insn)), node->recompute ? " again" : "");
    if (insn->kind != PB_INSN_RUN)
        append(line, " [%lld, %lld)", (long long)insn->first, (long long)(insn->first + insn->count));
    append_operands(line, graph, insn, insn->in, PB_MAX_INPUTS);
    append(line, " ->");
    append_operands(line, graph, insn, insn->out, PB_MAX_OUTPUTS);
    if (insn->workspace_bytes)
        append(line, " scratch@%llu+%llu", (unsigned long long)insn->workspace_offset,
               (unsigned long long)insn->workspace_bytes);
}

void pb_program_print(const pb_program *program, const pb_graph *graph, void (*line)(void *context, const char *text),
                      void *context) {
    static const char *const kinds[] = {
        [PB_INSN_RUN] = "RUN",     [PB_INSN_UPDATE] = "UPDATE", [PB_INSN_RECAST] = "RECAST",
        [PB_INSN_FETCH] = "FETCH", [PB_INSN_EVICT] = "EVICT",   [PB_INSN_WAIT] = "WAIT"};
    for (uint32_t i = 0; i < program->insn_count; i++) {
        const pb_insn *insn = &program->insns[i];
        line_text text = {.used = 0};
        append(&text, "%u %s %s", i, lane_names[insn->lane], kinds[insn->kind]);
        switch (insn->kind) {
        case PB_INSN_RUN:
        case PB_INSN_UPDATE:
        case PB_INSN_RECAST: append_op(&text, graph, insn); break;
        case PB_INSN_WAIT: append(&text, " for %u (%s)", insn->on, lane_names[program->insns[insn->on].lane]); break;
        default:
            append_side(&text, insn, insn->from_tier, insn->from);
            append(&text, " ->");
            append_side(&text, insn, insn->to_tier, insn->to);
            append(&text, " %llu bytes", (unsigned long long)insn->bytes);
        }
        line(context, text.text);
    }
}
