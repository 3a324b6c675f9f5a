#include "plan/support_hand_built.h"

#include <stdlib.h>
#include <string.h>

#include "graph/optimizer.h"

static support_parts make_graph(void) {
    support_parts p;
    if (pb_graph_create(&p.g) != PB_OK) abort();
    pb_graph *g = p.g;
    const pb_shape shape = PB_SHAPE1(ELEMENTS);
    p.gradient = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, shape, false, "gradient");
    p.norm = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F64, PB_SHAPE1(1), false, "norm");
    p.hyper = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(PB_HYPER_COUNT), false, "hyper");
    p.wide = pb_graph_add_value(g, PB_CLASS_INPUT, PB_F32, PB_SHAPE2(4, 64), false, "wide");
    p.master = pb_graph_add_value(g, PB_CLASS_WEIGHT, PB_F32, shape, true, "master");
    p.m = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, shape, true, "m");
    p.v = pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, shape, true, "v");
    p.lonely_node = g->node_count;
    p.narrow = pb_geglu(g, p.wide);
    g->phase = PB_PHASE_UPDATE;
    p.control_node = g->node_count;
    p.control = pb_step_control(g, p.norm, p.hyper);
    p.update_node = g->node_count;
    pb_adamw(g, p.gradient, p.control, p.hyper, p.master, p.m, p.v, PB_NONE);
    return p;
}

static pb_insn *emit(support_bench *b, pb_insn_kind kind, pb_lane lane) {
    pb_insn *insn = &b->insns[b->program.insn_count++];
    *insn = (pb_insn){.kind = kind, .lane = lane};
    return insn;
}

// Returns the instruction's index.
uint32_t support_move(support_bench *b, pb_lane lane, uint64_t from, uint64_t to, uint64_t bytes, uint32_t extent) {
    static const struct {
        pb_insn_kind kind;
        pb_tier from, to;
        int link;
    } sides[PB_LANE_COUNT] = {
        [PB_LANE_UPLOAD] = {PB_INSN_FETCH, PB_TIER_HOST, PB_TIER_DEVICE, PB_LINK_UPLOAD},
        [PB_LANE_DOWNLOAD] = {PB_INSN_EVICT, PB_TIER_DEVICE, PB_TIER_HOST, PB_LINK_DOWNLOAD},
        [PB_LANE_READ] = {PB_INSN_FETCH, PB_TIER_NVME, PB_TIER_HOST, PB_LINK_NVME_READ},
        [PB_LANE_WRITE] = {PB_INSN_EVICT, PB_TIER_HOST, PB_TIER_NVME, PB_LINK_NVME_WRITE},
    };
    pb_insn *insn = emit(b, sides[lane].kind, lane);
    insn->from_tier = sides[lane].from;
    insn->to_tier = sides[lane].to;
    insn->from = from;
    insn->to = to;
    insn->bytes = bytes;
    insn->extent = extent;
    b->program.moved[sides[lane].link] += bytes;
    return b->program.insn_count - 1;
}

void support_wait(support_bench *b, pb_lane lane, uint32_t on) {
    emit(b, PB_INSN_WAIT, lane)->on = on;
}

static void set_operands(support_bench *b, pb_insn *insn, uint32_t node, const uint64_t *in, const uint64_t *out) {
    insn->node = node;
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        insn->in[i] = (pb_operand){b->p.g->nodes[node].in[i], b->p.g->nodes[node].in[i] == PB_NONE ? 0 : in[i]};
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        insn->out[i] = (pb_operand){b->p.g->nodes[node].out[i], b->p.g->nodes[node].out[i] == PB_NONE ? 0 : out[i]};
}

// An update of elements [first, first + count) of the chunk's copy at `chunk`.
uint32_t support_update(support_bench *b, uint64_t chunk, int64_t first, int64_t count) {
    const uint64_t at = chunk + 4 * (uint64_t)first;
    const uint64_t in[] = {GRADIENT + 4 * (uint64_t)first, CONTROL, HYPER, at, at + 1024, at + 2048};
    const uint64_t out[] = {at, at + 1024, at + 2048, 0};
    pb_insn *insn = emit(b, PB_INSN_UPDATE, PB_LANE_COMPUTE);
    set_operands(b, insn, b->p.update_node, in, out);
    insn->first = first;
    insn->count = count;
    return b->program.insn_count - 1;
}

void support_make_program(support_bench *b) {
    memset(b, 0, sizeof *b);
    b->p = make_graph();
    pb_graph *g = b->p.g;
    pb_program *p = &b->program;
    *p = (pb_program){.insns = b->insns, .home = b->home, .pieces = b->pieces, .first_piece = b->first_piece};
    p->extent_bytes = b->extent_bytes;
    p->extent_count = 2;
    b->extent_bytes[0] = b->extent_bytes[1] = 4096;
    p->tier_bytes[PB_TIER_DEVICE] = DEVICE;
    p->tier_bytes[PB_TIER_HOST] = HOST;
    p->tier_bytes[PB_TIER_NVME] = 8192;
    memcpy(b->request.budget, p->tier_bytes, sizeof b->request.budget);
    memset(b->home, 0xff, sizeof b->home);
    b->home[b->p.gradient] = GRADIENT;
    b->home[b->p.norm] = NORM;
    b->home[b->p.hyper] = HYPER;
    b->home[b->p.wide] = WIDE;
    uint32_t pieces = 0;
    for (pb_vid v = 0; v <= g->value_count; v++) {
        b->first_piece[v] = pieces;
        if (v != b->p.master && v != b->p.m && v != b->p.v) continue;
        b->pieces[pieces] = (pb_piece){.bytes = 1024, .tier = PB_TIER_NVME, .offset = 1024 * pieces};
        pieces++;
    }
    set_operands(b, emit(b, PB_INSN_RUN, PB_LANE_COMPUTE), b->p.lonely_node, (uint64_t[6]){WIDE},
                 (uint64_t[4]){NARROW});
    set_operands(b, emit(b, PB_INSN_RUN, PB_LANE_COMPUTE), b->p.control_node, (uint64_t[6]){NORM, HYPER},
                 (uint64_t[4]){CONTROL});
    support_move(b, PB_LANE_READ, 0, STAGE, 4096, 0);
    support_wait(b, PB_LANE_UPLOAD, READ_CHUNK);
    support_move(b, PB_LANE_UPLOAD, STAGE, FIRST, CHUNK, 0);
    support_wait(b, PB_LANE_COMPUTE, UPLOAD_CHUNK);
    support_update(b, FIRST, 0, 128);
    support_update(b, FIRST, 128, 128);
    support_wait(b, PB_LANE_DOWNLOAD, UPDATE_HIGH);
    support_move(b, PB_LANE_DOWNLOAD, FIRST, STAGE, CHUNK, 0);
    support_wait(b, PB_LANE_WRITE, DOWNLOAD_CHUNK);
    support_move(b, PB_LANE_WRITE, STAGE, 0, 4096, 0);
    support_move(b, PB_LANE_WRITE, STAGE, 0, 4096, 1);
    support_wait(b, PB_LANE_WRITE, WRITE_OTHER);
    support_move(b, PB_LANE_WRITE, STAGE, 0, 3072, 1);
    support_wait(b, PB_LANE_READ, WRITE_OTHER_AGAIN);
    support_move(b, PB_LANE_READ, 0, SPARE, 3072, 1);
    support_wait(b, PB_LANE_READ, READ_OTHER);
    support_move(b, PB_LANE_READ, 0, SPARE, 3072, 1);
}
