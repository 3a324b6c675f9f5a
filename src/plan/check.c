// The independent checker: a simulation of the slab that knows nothing of the planner's reasons. It keeps the list of
// byte ranges that hold an intact value; a write destroys whatever it touches, a read needs its value whole and in
// place. What a program computes is then what the graph says, whatever the offsets are.
#include <stdlib.h>
#include <string.h>

#include "plan/plan.h"

typedef struct range {
    uint64_t begin, end;
    pb_vid value;
} range;

typedef struct slab {
    range *ranges;  // disjoint, ascending
    uint32_t count;
    bool *intact;  // by value
} slab;

typedef struct checker {
    const pb_graph *graph;
    const pb_program *program;
    const pb_plan_request *request;
    slab slab;
    uint8_t *runs;  // by node
} checker;

static uint32_t first_ending_after(const slab *s, uint64_t offset) {
    uint32_t low = 0, high = s->count;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (s->ranges[middle].end <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Whatever holds a byte of [begin, end) is lost.
static void destroy(slab *s, uint64_t begin, uint64_t end) {
    const uint32_t from = first_ending_after(s, begin);
    uint32_t to = from;
    while (to < s->count && s->ranges[to].begin < end) s->intact[s->ranges[to++].value] = false;
    memmove(s->ranges + from, s->ranges + to, (s->count - to) * sizeof *s->ranges);
    s->count -= to - from;
}

static void write_value(slab *s, pb_vid value, uint64_t begin, uint64_t end) {
    destroy(s, begin, end);
    const uint32_t at = first_ending_after(s, begin);
    memmove(s->ranges + at + 1, s->ranges + at, (s->count - at) * sizeof *s->ranges);
    s->ranges[at] = (range){begin, end, value};
    s->count++;
    s->intact[value] = true;
}

static bool holds(const slab *s, pb_vid value, uint64_t begin) {
    if (!s->intact[value]) return false;
    const uint32_t at = first_ending_after(s, begin);
    return at < s->count && s->ranges[at].value == value && s->ranges[at].begin == begin;
}

#define WRONG(...) return pb_error(PB_ERR_INTERNAL, "unsafe program: " __VA_ARGS__)

static pb_status check_extent(const checker *c, const char *what, uint32_t id, uint64_t offset, uint64_t bytes) {
    if (offset % PB_ALIGNMENT) WRONG("%s %u is not aligned", what, id);
    if (offset > c->program->tier_bytes[PB_TIER_DEVICE] || bytes > c->program->tier_bytes[PB_TIER_DEVICE] - offset)
        WRONG("%s %u leaves the slab", what, id);
    return PB_OK;
}

static bool disjoint(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) {
    return a + a_bytes <= b || b + b_bytes <= a || !a_bytes || !b_bytes;
}

static uint64_t bytes_of(const checker *c, const pb_operand *operand) {
    return pb_value_bytes(&c->graph->values[operand->value]);
}

// Output `o` may share bytes with input `i` only where the op works in place or the output replaces that very value.
static bool may_share(const checker *c, const pb_insn *insn, int i, int o) {
    const pb_node *node = &c->graph->nodes[insn->node];
    if (insn->in[i].offset != insn->out[o].offset || bytes_of(c, &insn->in[i]) != bytes_of(c, &insn->out[o]))
        return false;
    if (c->graph->values[insn->out[o].value].alias == insn->in[i].value) return true;
    return o == 0 && pb_op_inplace(node->op) == i;
}

static pb_status check_operands(const checker *c, uint32_t at, const pb_insn *insn) {
    const pb_node *node = &c->graph->nodes[insn->node];
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        const pb_operand *in = &insn->in[i];
        if (in->value != node->in[i]) WRONG("instruction %u: input %d is not the graph's", at, i);
        if (in->value == PB_NONE) continue;
        PB_RETURN_IF(check_extent(c, "input of instruction", at, in->offset, bytes_of(c, in)));
        if (!holds(&c->slab, in->value, in->offset))
            WRONG("instruction %u (%s) reads value %u (%s), which is not at %llu", at, pb_op_name(node->op), in->value,
                  c->graph->values[in->value].name, (unsigned long long)in->offset);
        if (!disjoint(in->offset, bytes_of(c, in), insn->workspace_offset, insn->workspace_bytes))
            WRONG("instruction %u: its scratch covers input %d", at, i);
    }
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) {
        const pb_operand *out = &insn->out[o];
        if (out->value != node->out[o]) WRONG("instruction %u: output %d is not the graph's", at, o);
        if (out->value == PB_NONE) continue;
        PB_RETURN_IF(check_extent(c, "output of instruction", at, out->offset, bytes_of(c, out)));
        if (!disjoint(out->offset, bytes_of(c, out), insn->workspace_offset, insn->workspace_bytes))
            WRONG("instruction %u: its scratch covers output %d", at, o);
        for (int i = 0; i < PB_MAX_INPUTS; i++) {
            const pb_operand *in = &insn->in[i];
            if (in->value == PB_NONE || disjoint(in->offset, bytes_of(c, in), out->offset, bytes_of(c, out))) continue;
            if (!may_share(c, insn, i, o))
                WRONG("instruction %u: output %d overwrites input %d while it is read", at, o, i);
        }
        for (int other = 0; other < o; other++) {
            const pb_operand *before = &insn->out[other];
            if (before->value == PB_NONE) continue;
            if (!disjoint(before->offset, bytes_of(c, before), out->offset, bytes_of(c, out)))
                WRONG("instruction %u: outputs %d and %d overlap", at, other, o);
        }
    }
    return PB_OK;
}

static pb_status check_run(checker *c, uint32_t at, const pb_insn *insn) {
    if (insn->node >= c->graph->node_count) WRONG("instruction %u runs node %u, which is not there", at, insn->node);
    if (c->runs[insn->node]++) WRONG("node %u runs twice", insn->node);
    const pb_node *node = &c->graph->nodes[insn->node];
    uint64_t needed = 0;
    if (c->request->workspaces && c->request->workspaces[node->op]) {
        pb_kernel_args args;
        pb_node_kernel_args(c->graph, node, &args);
        needed = c->request->workspaces[node->op](&args);
    }
    if (insn->workspace_bytes < needed) WRONG("instruction %u has too little scratch", at);
    if (insn->workspace_bytes)
        PB_RETURN_IF(check_extent(c, "scratch of instruction", at, insn->workspace_offset, insn->workspace_bytes));
    PB_RETURN_IF(check_operands(c, at, insn));
    if (insn->workspace_bytes)
        destroy(&c->slab, insn->workspace_offset, insn->workspace_offset + insn->workspace_bytes);
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) {
        if (insn->out[o].value == PB_NONE) continue;
        const uint64_t begin = insn->out[o].offset;
        write_value(&c->slab, insn->out[o].value, begin, begin + bytes_of(c, &insn->out[o]));
    }
    return PB_OK;
}

static bool has_home(const pb_value *value) {
    return value->persistent || value->output || (value->producer == PB_NONE && value->class_ != PB_CLASS_ACTIVATION);
}

static uint64_t home_of(const checker *c, pb_vid v) {
    uint32_t count;
    if (!c->graph->values[v].persistent) return c->program->home[v];
    return pb_program_pieces(c->program, c->graph, v, &count)->offset;
}

// Before the first instruction: inputs and persistent values lie at home, apart from each other.
static pb_status load_initial(checker *c) {
    for (pb_vid v = 0; v < c->graph->value_count; v++) {
        const pb_value *value = &c->graph->values[v];
        if (!has_home(value)) continue;
        PB_RETURN_IF(check_extent(c, "home of value", v, home_of(c, v), pb_value_bytes(value)));
        if (value->producer != PB_NONE) continue;
        const uint32_t before = c->slab.count;
        write_value(&c->slab, v, home_of(c, v), home_of(c, v) + pb_value_bytes(value));
        if (c->slab.count != before + 1) WRONG("the home of value %u is taken", v);
    }
    return PB_OK;
}

// After the last: outputs are there to be read, and each persistent value is at home in its newest version.
static pb_status check_final(const checker *c) {
    const pb_graph *g = c->graph;
    for (uint32_t n = 0; n < g->node_count; n++)
        if (!c->runs[n]) WRONG("node %u (%s) never runs", n, pb_op_name(g->nodes[n].op));
    bool *replaced = calloc(g->value_count + 1, sizeof *replaced);
    if (!replaced) return pb_error(PB_ERR_MEMORY, "no memory to check a program");
    pb_status status = PB_OK;
    for (pb_vid v = 0; v < g->value_count; v++)
        if (g->values[v].alias != PB_NONE) replaced[g->values[v].alias] = true;
    for (pb_vid v = 0; v < g->value_count && status == PB_OK; v++) {
        const pb_value *value = &g->values[v];
        const bool wanted = value->output || (value->persistent && !replaced[v]);
        if (wanted && !holds(&c->slab, v, home_of(c, v)))
            status = pb_error(PB_ERR_INTERNAL, "unsafe program: value %u (%s) is not at home after the step", v,
                              value->name);
    }
    free(replaced);
    return status;
}

pb_status pb_program_check(const pb_graph *graph, const pb_program *program, const pb_plan_request *request) {
    pb_status status = PB_OK;
    checker c = {.graph = graph, .program = program, .request = request};
    // One more than the values: write_value inserts before it is known whether something was destroyed.
    c.slab.ranges = calloc(graph->value_count + 2, sizeof *c.slab.ranges);
    c.slab.intact = calloc(graph->value_count + 1, sizeof *c.slab.intact);
    c.runs = calloc(graph->node_count + 1, sizeof *c.runs);
    if (!c.slab.ranges || !c.slab.intact || !c.runs) PB_FAIL(PB_ERR_MEMORY, "no memory to check a program");
    if (program->tier_bytes[PB_TIER_DEVICE] > request->budget[PB_TIER_DEVICE]) PB_FAIL(PB_ERR_INTERNAL, "unsafe program: it exceeds its budget");
    PB_TRY(load_initial(&c));
    for (uint32_t i = 0; i < program->insn_count; i++) PB_TRY(check_run(&c, i, &program->insns[i]));
    PB_TRY(check_final(&c));
fail:
    free(c.slab.ranges);
    free(c.slab.intact);
    free(c.runs);
    return status;
}
