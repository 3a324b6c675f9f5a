#include "plan/program.h"

#include <stdio.h>

void pb_program_destroy(pb_program *program) {
    if (program) pb_arena_destroy(program->arena);
}

static int print_operands(char *text, size_t bytes, const pb_graph *graph, const pb_operand *operands, int count) {
    int used = 0;
    for (int i = 0; i < count && used < (int)bytes - 1; i++) {
        if (operands[i].value == PB_NONE) continue;
        const pb_value *v = &graph->values[operands[i].value];
        used += snprintf(text + used, bytes - (size_t)used, " %%%u:%s@%llu+%llu", operands[i].value,
                         pb_dtype_name(v->dtype), (unsigned long long)operands[i].offset,
                         (unsigned long long)pb_value_bytes(v));
    }
    return used < (int)bytes ? used : (int)bytes - 1;
}

void pb_program_print(const pb_program *program, const pb_graph *graph, void (*line)(void *context, const char *text),
                      void *context) {
    char text[1024];
    for (uint32_t i = 0; i < program->insn_count; i++) {
        const pb_insn *insn = &program->insns[i];
        const pb_node *node = &graph->nodes[insn->node];
        int used = snprintf(text, sizeof text, "%u RUN %s%s", i, pb_op_name(node->op), node->recompute ? " again" : "");
        used += print_operands(text + used, sizeof text - (size_t)used, graph, insn->in, PB_MAX_INPUTS);
        used += snprintf(text + used, sizeof text - (size_t)used, " ->");
        if (used < (int)sizeof text)
            used += print_operands(text + used, sizeof text - (size_t)used, graph, insn->out, PB_MAX_OUTPUTS);
        if (insn->workspace_bytes && used < (int)sizeof text)
            snprintf(text + used, sizeof text - (size_t)used, " scratch@%llu+%llu",
                     (unsigned long long)insn->workspace_offset, (unsigned long long)insn->workspace_bytes);
        line(context, text);
    }
}
