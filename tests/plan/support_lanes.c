#include "plan/support_lanes.h"

#include <stdlib.h>
#include <string.h>

#include "plan/support_graphs.h"

// Four bytes of something: 0 for nobody knows what, else the value and which of its words.
typedef uint64_t word;

static word word_of(pb_vid v, uint64_t index) {
    return ((uint64_t)v + 1) << 36 | index;
}

typedef enum state { WAITING, RUNNING, DONE } state;

struct support_lanes {
    const pb_graph *g;
    const pb_program *p;
    word *memory;  // device, host, then the extents, in words
    uint64_t words, base[2];
    uint64_t *extent_base, *extent_held;  // bytes that were written last
    uint32_t extent_capacity;
    state *states;  // by instruction
    uint32_t insn_capacity;
    uint32_t *queue[PB_LANE_COUNT];                                                 // indices of its instructions
    uint32_t queued[PB_LANE_COUNT], begun[PB_LANE_COUNT], complete[PB_LANE_COUNT];  // complete: a prefix of the queue
    word **carried;     // by instruction: what a move has read
    uint64_t *covered;  // by node: elements
    bool broken;
};

support_lanes *support_lanes_create(const pb_graph *g) {
    support_lanes *s = calloc(1, sizeof *s);
    s->g = g;
    s->covered = calloc(g->node_count + 1, sizeof *s->covered);
    return s;
}

void support_lanes_destroy(support_lanes *s) {
    free(s->memory);
    free(s->extent_base);
    free(s->extent_held);
    free(s->states);
    free(s->carried);
    for (int l = 0; l < PB_LANE_COUNT; l++) free(s->queue[l]);
    free(s->covered);
    free(s);
}

// The words at an offset of a slab, or of an extent; NULL and broken where they are not there.
static word *words_at(support_lanes *s, pb_tier tier, uint32_t extent, uint64_t offset, uint64_t bytes) {
    const uint64_t size = tier == PB_TIER_NVME ? s->p->extent_bytes[extent] : s->p->tier_bytes[tier];
    if (offset > size || bytes > size - offset || offset % 4 || bytes % 4) {
        s->broken = true;
        return NULL;
    }
    return s->memory + (tier == PB_TIER_NVME ? s->extent_base[extent] : s->base[tier]) + offset / 4;
}

static void fill(support_lanes *s, word *at, uint64_t bytes, pb_vid v, uint64_t from) {
    for (uint64_t i = 0; at && i < bytes / 4; i++) {
        if (at[i] && v == PB_NONE) at[i] = 0;
        if (v != PB_NONE) at[i] = word_of(v, from / 4 + i);
    }
    (void)s;
}

static void expect(support_lanes *s, const word *at, uint64_t bytes, pb_vid v, uint64_t from) {
    for (uint64_t i = 0; at && i < bytes / 4; i++)
        if (at[i] != word_of(v, from / 4 + i)) s->broken = true;
}

static void prepare(support_lanes *s, const pb_program *p) {
    s->p = p;
    s->broken = false;
    if (p->insn_count > s->insn_capacity) {
        s->insn_capacity = p->insn_count;
        s->states = realloc(s->states, s->insn_capacity * sizeof *s->states);
        s->carried = realloc(s->carried, s->insn_capacity * sizeof *s->carried);
        for (int l = 0; l < PB_LANE_COUNT; l++)
            s->queue[l] = realloc(s->queue[l], s->insn_capacity * sizeof *s->queue[l]);
    }
    if (p->extent_count > s->extent_capacity) {
        s->extent_capacity = p->extent_count;
        s->extent_base = realloc(s->extent_base, s->extent_capacity * sizeof *s->extent_base);
        s->extent_held = realloc(s->extent_held, s->extent_capacity * sizeof *s->extent_held);
    }
    uint64_t words = 0;
    for (int t = 0; t < 2; t++) {
        s->base[t] = words;
        words += (p->tier_bytes[t] + 3) / 4;
    }
    for (uint32_t e = 0; e < p->extent_count; e++) {
        s->extent_base[e] = words;
        s->extent_held[e] = 0;
        words += p->extent_bytes[e] / 4;
    }
    if (words > s->words) s->memory = realloc(s->memory, (s->words = words) * sizeof *s->memory);
    memset(s->memory, 0, words * sizeof *s->memory);
    memset(s->states, 0, p->insn_count * sizeof *s->states);
    memset(s->carried, 0, p->insn_count * sizeof *s->carried);
    memset(s->queued, 0, sizeof s->queued);
    memset(s->begun, 0, sizeof s->begun);
    memset(s->complete, 0, sizeof s->complete);
    memset(s->covered, 0, s->g->node_count * sizeof *s->covered);
    for (uint32_t i = 0; i < p->insn_count; i++) s->queue[p->insns[i].lane][s->queued[p->insns[i].lane]++] = i;
    for (pb_vid v = 0; v < s->g->value_count; v++) {
        const pb_value *value = &s->g->values[v];
        if (value->alias != PB_NONE || value->producer != PB_NONE) continue;
        if (value->persistent) {
            for (uint32_t i = p->first_piece[v]; i < p->first_piece[v + 1]; i++) {
                const pb_piece *piece = &p->pieces[i];
                fill(s, words_at(s, piece->tier, piece->extent, piece->offset, piece->bytes), piece->bytes, v,
                     piece->begin);
                if (piece->tier == PB_TIER_NVME) s->extent_held[piece->extent] = p->extent_bytes[piece->extent];
            }
        } else if (value->class_ == PB_CLASS_INPUT) {
            fill(s, words_at(s, PB_TIER_DEVICE, 0, p->home[v], pb_value_bytes(value)), pb_value_bytes(value), v, 0);
        }
    }
}

// The stretch of operand k (inputs, then outputs) that an instruction touches.
static word *operand(support_lanes *s, const pb_insn *insn, int k, uint64_t *bytes, uint64_t *from) {
    const pb_operand *o = k < PB_MAX_INPUTS ? &insn->in[k] : &insn->out[k - PB_MAX_INPUTS];
    if (o->value == PB_NONE) return NULL;
    const pb_value *v = &s->g->values[o->value];
    *bytes = pb_value_bytes(v);
    *from = 0;
    if (insn->kind != PB_INSN_RUN && k != 1 && k != 2) {
        *bytes = (uint64_t)insn->count * pb_dtype_size(v->dtype);
        *from = (uint64_t)insn->first * pb_dtype_size(v->dtype);
    }
    return words_at(s, insn->lane == PB_LANE_HOST ? PB_TIER_HOST : PB_TIER_DEVICE, 0, o->offset, *bytes);
}

static void expect_inputs(support_lanes *s, const pb_insn *insn) {
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        uint64_t bytes, from;
        const word *at = operand(s, insn, i, &bytes, &from);
        if (at) expect(s, at, bytes, insn->in[i].value, from);
    }
}

static void write_outputs(support_lanes *s, const pb_insn *insn, bool end) {
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) {
        uint64_t bytes, from;
        word *at = operand(s, insn, PB_MAX_INPUTS + o, &bytes, &from);
        if (!at) continue;
        const pb_vid v = insn->out[o].value, old = s->g->values[v].alias;
        // An output may be written while inputs are still read, unless the op works in place.
        const int slot = pb_op_inplace(pb_insn_op(s->g, insn));
        bool in_place =
            o == 0 && slot >= 0 && insn->in[slot].value != PB_NONE && insn->in[slot].offset == insn->out[o].offset;
        for (int i = 0; i < PB_MAX_INPUTS; i++)
            if (old != PB_NONE && insn->in[i].value == old && insn->in[i].offset == insn->out[o].offset)
                in_place = true;
        if (end)
            fill(s, at, bytes, v, from);
        else if (!in_place)
            fill(s, at, bytes, PB_NONE, 0);
    }
}

static void spoil_scratch(support_lanes *s, const pb_insn *insn) {
    const pb_tier tier = insn->lane == PB_LANE_HOST ? PB_TIER_HOST : PB_TIER_DEVICE;
    if (!insn->workspace_bytes) return;
    fill(s, words_at(s, tier, 0, insn->workspace_offset, insn->workspace_bytes), insn->workspace_bytes, PB_NONE, 0);
}

static word *move_side(support_lanes *s, const pb_insn *insn, bool target) {
    return words_at(s, target ? insn->to_tier : insn->from_tier, insn->extent, target ? insn->to : insn->from,
                    insn->bytes);
}

static void begin(support_lanes *s, uint32_t i, bool early) {
    const pb_insn *insn = &s->p->insns[i];
    s->states[i] = RUNNING;
    if (pb_insn_is_op(insn)) {
        expect_inputs(s, insn);
        spoil_scratch(s, insn);
        write_outputs(s, insn, false);
        return;
    }
    if (insn->from_tier == PB_TIER_NVME && s->extent_held[insn->extent] != insn->bytes) s->broken = true;
    if (insn->to_tier == PB_TIER_NVME) s->extent_held[insn->extent] = insn->bytes;
    const word *from = move_side(s, insn, false);
    word *to = move_side(s, insn, true);
    if (!from || !to) return;
    if (early) {
        s->carried[i] = malloc(insn->bytes * 2);
        memcpy(s->carried[i], from, insn->bytes * 2);
    }
    fill(s, to, insn->bytes, PB_NONE, 0);
}

static void end(support_lanes *s, uint32_t i) {
    const pb_insn *insn = &s->p->insns[i];
    s->states[i] = DONE;
    for (uint32_t *done = &s->complete[insn->lane];
         *done < s->queued[insn->lane] && s->states[s->queue[insn->lane][*done]] == DONE; (*done)++)
        ;
    if (insn->kind == PB_INSN_WAIT) return;
    if (pb_insn_is_op(insn)) {
        expect_inputs(s, insn);
        spoil_scratch(s, insn);
        write_outputs(s, insn, true);
        if (insn->kind == PB_INSN_RECAST) return;  // no part of the update
        const pb_node *node = &s->g->nodes[insn->node];
        const bool part = insn->kind == PB_INSN_UPDATE;
        s->covered[insn->node] += part                      ? (uint64_t)insn->count
                                  : node->op == PB_OP_ADAMW ? (uint64_t)pb_shape_count(s->g->values[node->in[3]].shape)
                                                            : 1;
        return;
    }
    const word *from = s->carried[i] ? s->carried[i] : move_side(s, insn, false);
    word *to = move_side(s, insn, true);
    if (from && to) memcpy(to, from, insn->bytes * 2);
    free(s->carried[i]);
    s->carried[i] = NULL;
}

// Whether everything up to instruction `on` of its lane is complete.
static bool is_complete(const support_lanes *s, uint32_t on) {
    const pb_lane lane = s->p->insns[on].lane;
    const uint32_t done = s->complete[lane];
    return done == s->queued[lane] || s->queue[lane][done] > on;
}

// Lets something happen on a lane: an instruction begins, one ends, or a WAIT is over. False: nothing can.
static bool step(support_lanes *s, int lane, uint64_t *random) {
    const uint32_t *queue = s->queue[lane];
    const uint32_t next = s->begun[lane], done = s->complete[lane];
    const bool in_order = lane != PB_LANE_READ && lane != PB_LANE_WRITE;
    const bool may_end = done < next;
    bool may_begin = next < s->queued[lane] && (!in_order || done == next);
    if (may_begin && s->p->insns[queue[next]].kind == PB_INSN_WAIT)
        may_begin = is_complete(s, s->p->insns[queue[next]].on);
    if (!may_begin && !may_end) return false;
    if (may_begin && (!may_end || support_random(random, 2))) {
        s->begun[lane]++;
        if (s->p->insns[queue[next]].kind == PB_INSN_WAIT)
            end(s, queue[next]);
        else
            begin(s, queue[next], support_random(random, 2));
        return true;
    }
    // One that is under way; the oldest always is.
    uint32_t chosen = done;
    for (uint32_t k = done; k < next && k < done + 8; k++)
        if (s->states[queue[k]] == RUNNING && support_random(random, 2)) chosen = k;
    end(s, queue[chosen]);
    return true;
}

static void expect_left(support_lanes *s) {
    const pb_graph *g = s->g;
    for (uint32_t n = 0; n < g->node_count; n++) {
        const pb_node *node = &g->nodes[n];
        const uint64_t whole = node->op == PB_OP_ADAMW ? (uint64_t)pb_shape_count(g->values[node->in[3]].shape) : 1;
        if (s->covered[n] != whole) s->broken = true;
    }
    bool *replaced = calloc(g->value_count + 1, sizeof *replaced);
    for (pb_vid v = 0; v < g->value_count; v++)
        if (g->values[v].alias != PB_NONE) replaced[g->values[v].alias] = true;
    for (pb_vid v = 0; v < g->value_count; v++) {
        const pb_value *value = &g->values[v];
        const uint64_t bytes = pb_value_bytes(value);
        if (value->persistent && !replaced[v]) {
            uint32_t count;
            const pb_piece *pieces = pb_program_pieces(s->p, g, v, &count);
            for (uint32_t i = 0; i < count; i++)
                expect(s, words_at(s, pieces[i].tier, pieces[i].extent, pieces[i].offset, pieces[i].bytes),
                       pieces[i].bytes, v, pieces[i].begin);
        } else if (value->output) {
            expect(s, words_at(s, PB_TIER_DEVICE, 0, s->p->home[v], bytes), bytes, v, 0);
        }
    }
    free(replaced);
}

bool support_lanes_run(support_lanes *s, const pb_program *program, uint64_t *random) {
    prepare(s, program);
    // Some lanes are slow, some fast.
    uint32_t pace[PB_LANE_COUNT], sum = 0;
    static const uint32_t paces[] = {1, 8, 64};
    for (int l = 0; l < PB_LANE_COUNT; l++) sum += pace[l] = paces[support_random(random, 3)];
    while (!s->broken) {
        uint32_t dice = support_random(random, sum);
        int lane = 0;
        while (dice >= pace[lane]) dice -= pace[lane++];
        bool moved = false;
        for (int l = 0; l < PB_LANE_COUNT && !moved; l++) moved = step(s, (lane + l) % PB_LANE_COUNT, random);
        if (moved) continue;
        for (int l = 0; l < PB_LANE_COUNT; l++)
            if (s->complete[l] < s->queued[l]) s->broken = true;  // they wait for each other
        break;
    }
    if (!s->broken) expect_left(s);
    for (uint32_t i = 0; i < program->insn_count; i++) free(s->carried[i]);
    return !s->broken;
}
