// The checker's RUN, UPDATE and RECAST: operands are the graph's, in place, and apart from each other.
#include "plan/check_internal.h"

enum { UPDATE_ALIGNMENT = 64 };  // of an UPDATE's operands, in bytes

// Slots of adamw's inputs (base/ops.def).
enum { ADAMW_CONTROL = 1, ADAMW_HYPER = 2, ADAMW_MASTER = 3 };

// What an instruction touches of a value: all of it, or the slice of an UPDATE or RECAST.
typedef struct part {
    pb_vid value;  // PB_NONE: absent
    uint64_t offset, bytes, from;
} part;

typedef struct parts {
    part in[PB_MAX_INPUTS], out[PB_MAX_OUTPUTS], scratch;
} parts;

// Whether a value of an UPDATE has one element for each block of the parameter's.
static bool has_scales(const pb_checker *c, const pb_insn *insn, pb_vid v) {
    const pb_node *node = &c->graph->nodes[insn->node];
    return v == node->in[PB_ADAMW_M_SCALES] || v == node->in[PB_ADAMW_V_SCALES] ||
           v == node->out[PB_ADAMW_NEW_M_SCALES] || v == node->out[PB_ADAMW_NEW_V_SCALES];
}

static part part_of(const pb_checker *c, const pb_insn *insn, const pb_operand *operand, bool whole) {
    if (operand->value == PB_NONE) return (part){.value = PB_NONE};
    const pb_value *value = &c->graph->values[operand->value];
    if (whole) return (part){operand->value, operand->offset, pb_value_bytes(value), 0};
    const uint64_t size = pb_dtype_size(value->dtype);
    uint64_t first = (uint64_t)insn->first, end = first + (uint64_t)insn->count;
    if (has_scales(c, insn, operand->value)) {
        first /= PB_STATE_BLOCK;
        end = (end + PB_STATE_BLOCK - 1) / PB_STATE_BLOCK;
    }
    return (part){operand->value, operand->offset, (end - first) * size, first * size};
}

// The operands are the graph's, and a slice is one of a parameter and of what has its shape.
static pb_status find_parts(const pb_checker *c, const pb_insn *insn, parts *p) {
    const pb_node *node = &c->graph->nodes[insn->node];
    const bool update = insn->kind == PB_INSN_UPDATE;
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (insn->in[i].value != node->in[i])
            PB_UNSAFE("instruction %u (%s): input %d is not the graph's", c->now, pb_op_name(node->op), i);
    for (int o = 0; o < PB_MAX_OUTPUTS; o++)
        if (insn->out[o].value != node->out[o])
            PB_UNSAFE("instruction %u (%s): output %d is not the graph's", c->now, pb_op_name(node->op), o);
    if (update) {
        const pb_shape shape = c->graph->values[node->in[ADAMW_MASTER]].shape;
        if (insn->first < 0 || insn->count <= 0 || insn->first > pb_shape_count(shape) ||
            insn->count > pb_shape_count(shape) - insn->first)
            PB_UNSAFE("instruction %u updates elements %lld+%lld of value %u (%s), which has %lld", c->now,
                      (long long)insn->first, (long long)insn->count, node->in[ADAMW_MASTER],
                      pb_check_name(c, node->in[ADAMW_MASTER]), (long long)pb_shape_count(shape));
        for (int i = 0; i < PB_MAX_INPUTS + PB_MAX_OUTPUTS; i++) {
            const pb_vid v = i < PB_MAX_INPUTS ? node->in[i] : node->out[i - PB_MAX_INPUTS];
            if (i == ADAMW_CONTROL || i == ADAMW_HYPER || v == PB_NONE) continue;
            if (has_scales(c, insn, v)) {
                if (insn->first % PB_STATE_BLOCK)
                    PB_UNSAFE("instruction %u begins within a block of value %u (%s)", c->now, v, pb_check_name(c, v));
                const int64_t end = insn->first + insn->count;
                if (end % PB_STATE_BLOCK && end != pb_shape_count(shape))
                    PB_UNSAFE("instruction %u ends within a block of value %u (%s)", c->now, v, pb_check_name(c, v));
                continue;
            }
            if (!pb_shape_equal(c->graph->values[v].shape, shape))
                PB_UNSAFE("instruction %u: value %u (%s) has not the parameter's shape", c->now, v,
                          pb_check_name(c, v));
        }
    }
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        p->in[i] = part_of(c, insn, &insn->in[i], !update || i == ADAMW_CONTROL || i == ADAMW_HYPER);
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) p->out[o] = part_of(c, insn, &insn->out[o], !update);
    p->scratch = (part){PB_NONE, insn->workspace_offset, insn->workspace_bytes, 0};
    return PB_OK;
}

static bool disjoint(const part *a, const part *b) {
    return a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset || !a->bytes || !b->bytes;
}

// Output `o` may share bytes with input `i` only where the op works in place or the output replaces that very value.
static bool may_share(const pb_checker *c, const pb_insn *insn, const parts *p, int i, int o) {
    if (p->in[i].offset != p->out[o].offset || p->in[i].bytes != p->out[o].bytes) return false;
    if (c->graph->values[p->out[o].value].alias == p->in[i].value) return true;
    return o == 0 && pb_op_inplace(c->graph->nodes[insn->node].op) == i;
}

static pb_status check_overlap(const pb_checker *c, const pb_insn *insn, const parts *p) {
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (!disjoint(&p->in[i], &p->scratch))
            PB_UNSAFE("instruction %u: its scratch covers input %d, value %u (%s)", c->now, i, p->in[i].value,
                      pb_check_name(c, p->in[i].value));
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) {
        const part *out = &p->out[o];
        if (!disjoint(out, &p->scratch))
            PB_UNSAFE("instruction %u: its scratch covers output %d, value %u (%s)", c->now, o, out->value,
                      pb_check_name(c, out->value));
        for (int i = 0; i < PB_MAX_INPUTS; i++)
            if (!disjoint(&p->in[i], out) && !may_share(c, insn, p, i, o))
                PB_UNSAFE(
                    "instruction %u: output %d (value %u, %s) overwrites input %d (value %u, %s) while it is read",
                    c->now, o, out->value, pb_check_name(c, out->value), i, p->in[i].value,
                    pb_check_name(c, p->in[i].value));
        for (int other = 0; other < o; other++)
            if (!disjoint(&p->out[other], out))
                PB_UNSAFE("instruction %u: outputs %d and %d (values %u and %u) overlap", c->now, other, o,
                          p->out[other].value, out->value);
    }
    return PB_OK;
}

static pb_status check_bounds(const pb_checker *c, const pb_insn *insn, const parts *p, pb_tier tier) {
    const uint64_t alignment = insn->kind == PB_INSN_RUN ? PB_ALIGNMENT : UPDATE_ALIGNMENT;
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        PB_RETURN_IF(
            pb_check_within(c, tier, p->in[i].offset, p->in[i].bytes, alignment, "an input of instruction", c->now));
    for (int o = 0; o < PB_MAX_OUTPUTS; o++)
        PB_RETURN_IF(
            pb_check_within(c, tier, p->out[o].offset, p->out[o].bytes, alignment, "an output of instruction", c->now));
    if (!p->scratch.bytes) return PB_OK;
    return pb_check_within(c, tier, p->scratch.offset, p->scratch.bytes, PB_ALIGNMENT, "the scratch of instruction",
                           c->now);
}

static pb_status count_run(pb_checker *c, const pb_insn *insn) {
    const pb_node *node = &c->graph->nodes[insn->node];
    uint8_t *runs = &c->runs[insn->node];
    if (insn->kind == PB_INSN_UPDATE) {
        if (node->op != PB_OP_ADAMW)
            PB_UNSAFE("instruction %u updates node %u (%s), which is no adamw", c->now, insn->node,
                      pb_op_name(node->op));
        if (*runs == PB_RAN) PB_UNSAFE("instruction %u updates node %u, which has run", c->now, insn->node);
        *runs = PB_UPDATED;
        c->updates[c->update_count++] = (pb_update){insn->node, c->now, insn->first, insn->count};
    } else {
        if (*runs) PB_UNSAFE("instruction %u: node %u (%s) runs twice", c->now, insn->node, pb_op_name(node->op));
        *runs = PB_RAN;
    }
    return PB_OK;
}

// Scratch as large as the kernel asks for.
static pb_status check_scratch(const pb_checker *c, const pb_insn *insn, pb_opcode op, const pb_kernel_args *args) {
    const pb_kernel_workspace *workspaces = c->request->workspaces;
    const uint64_t needed = workspaces && workspaces[op] ? workspaces[op](args) : 0;
    if (insn->workspace_bytes < needed)
        PB_UNSAFE("instruction %u (%s) has %llu bytes of scratch and needs %llu", c->now, pb_check_deed(c, c->now),
                  (unsigned long long)insn->workspace_bytes, (unsigned long long)needed);
    return PB_OK;
}

// All inputs are there, and nothing that is still needed is overwritten.
static pb_status touch(pb_checker *c, const pb_insn *insn, const parts *p) {
    const pb_tier tier = insn->lane == PB_LANE_COMPUTE ? PB_TIER_DEVICE : PB_TIER_HOST;
    PB_RETURN_IF(check_bounds(c, insn, p, tier));
    PB_RETURN_IF(check_overlap(c, insn, p));
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (p->in[i].bytes)
            PB_RETURN_IF(pb_check_read(c, tier, p->in[i].offset, p->in[i].bytes, p->in[i].value, p->in[i].from));
    if (p->scratch.bytes) PB_RETURN_IF(pb_check_write(c, tier, p->scratch.offset, p->scratch.bytes, PB_NONE, 0));
    for (int o = 0; o < PB_MAX_OUTPUTS; o++)
        if (p->out[o].bytes)
            PB_RETURN_IF(pb_check_write(c, tier, p->out[o].offset, p->out[o].bytes, p->out[o].value, p->out[o].from));
    return PB_OK;
}

pb_status pb_check_node(pb_checker *c, const pb_insn *insn) {
    if (insn->lane != PB_LANE_COMPUTE && insn->lane != PB_LANE_HOST)
        PB_UNSAFE("instruction %u runs a node on a lane for moves", c->now);
    if (insn->node >= c->graph->node_count)
        PB_UNSAFE("instruction %u runs node %u, which is not there", c->now, insn->node);
    PB_RETURN_IF(count_run(c, insn));
    const pb_node *node = &c->graph->nodes[insn->node];
    pb_kernel_args args;
    pb_node_kernel_args(c->graph, node, &args);
    PB_RETURN_IF(check_scratch(c, insn, node->op, &args));
    parts p;
    PB_RETURN_IF(find_parts(c, insn, &p));
    return touch(c, insn, &p);
}

// What it writes counts as the very version that the node's update makes. It is: the update's copy is its new master
// rounded to nearest, and the new master, no other version of it, has to be there, byte for byte; or else the copy.
pb_status pb_check_recast(pb_checker *c, const pb_insn *insn) {
    if (insn->lane != PB_LANE_COMPUTE) PB_UNSAFE("instruction %u casts again on a lane that is not compute", c->now);
    if (insn->node >= c->graph->node_count)
        PB_UNSAFE("instruction %u casts again for node %u, which is not there", c->now, insn->node);
    const pb_node *node = &c->graph->nodes[insn->node];
    if (!pb_can_recast(c->graph, node))
        PB_UNSAFE("instruction %u: node %u (%s) makes no working copy that is its master rounded", c->now, insn->node,
                  pb_op_name(node->op));
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (insn->in[i].value != (i ? PB_NONE : node->out[PB_ADAMW_NEW_MASTER]) &&
            (i || insn->in[i].value != node->out[PB_ADAMW_NEW_WORK]))
            PB_UNSAFE("instruction %u (RECAST): input %d is neither the new master nor the working copy", c->now, i);
    for (int o = 0; o < PB_MAX_OUTPUTS; o++)
        if (insn->out[o].value != (o ? PB_NONE : node->out[PB_ADAMW_NEW_WORK]))
            PB_UNSAFE("instruction %u (RECAST): output %d is not the working copy", c->now, o);
    const pb_value *from = &c->graph->values[insn->in[0].value], *work = &c->graph->values[insn->out[0].value];
    const int64_t elements = pb_shape_count(work->shape);
    if (insn->first < 0 || insn->count <= 0 || insn->first > elements || insn->count > elements - insn->first ||
        !pb_shape_equal(from->shape, work->shape))
        PB_UNSAFE("instruction %u casts elements %lld+%lld of value %u (%s) again, which has %lld", c->now,
                  (long long)insn->first, (long long)insn->count, insn->in[0].value,
                  pb_check_name(c, insn->in[0].value), (long long)elements);
    const pb_kernel_args args = {.in[0] = {.dtype = from->dtype, .shape = PB_SHAPE1(insn->count)},
                                 .out[0] = {.dtype = work->dtype, .shape = PB_SHAPE1(insn->count)}};
    PB_RETURN_IF(check_scratch(c, insn, PB_OP_CAST, &args));
    parts p = {.scratch = {PB_NONE, insn->workspace_offset, insn->workspace_bytes, 0}};
    for (int i = 0; i < PB_MAX_INPUTS; i++) p.in[i] = part_of(c, insn, &insn->in[i], false);
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) p.out[o] = part_of(c, insn, &insn->out[o], false);
    return touch(c, insn, &p);
}
