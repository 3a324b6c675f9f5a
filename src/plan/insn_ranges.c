#include "plan/insn_ranges.h"

#include "plan/layout.h"

static uint64_t operand_bytes(const pb_graph *g, const pb_insn *insn, pb_vid v) {
    const pb_value *value = &g->values[v];
    if (insn->kind == PB_INSN_RUN || value->class_ == PB_CLASS_INPUT || value->class_ == PB_CLASS_ACTIVATION)
        return pb_value_bytes(value);
    const int64_t elements = pb_shape_count(g->values[insn->in[0].value].shape);
    return pb_layout_slice_bytes(value, elements, insn->count);
}

static pb_insn_range range_of(const pb_graph *g, const pb_insn *insn, pb_operand operand, bool write) {
    const uint64_t bytes = operand_bytes(g, insn, operand.value);
    return (pb_insn_range){insn->lane == PB_LANE_HOST, operand.offset, operand.offset + bytes, write};
}

int pb_insn_ranges(const pb_graph *g, const pb_insn *insn, pb_insn_range ranges[PB_INSN_RANGES]) {
    int count = 0;
    if (insn->kind == PB_INSN_FETCH || insn->kind == PB_INSN_EVICT) {
        if (insn->from_tier != PB_TIER_NVME)
            ranges[count++] =
                (pb_insn_range){insn->from_tier == PB_TIER_HOST, insn->from, insn->from + insn->bytes, false};
        if (insn->to_tier != PB_TIER_NVME)
            ranges[count++] = (pb_insn_range){insn->to_tier == PB_TIER_HOST, insn->to, insn->to + insn->bytes, true};
        return count;
    }
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (insn->in[i].value != PB_NONE) ranges[count++] = range_of(g, insn, insn->in[i], false);
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (insn->out[i].value != PB_NONE) ranges[count++] = range_of(g, insn, insn->out[i], true);
    if (insn->workspace_bytes)
        ranges[count++] = (pb_insn_range){insn->lane == PB_LANE_HOST, insn->workspace_offset,
                                          insn->workspace_offset + insn->workspace_bytes, true};
    return count;
}
