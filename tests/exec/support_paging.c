#include "exec/support_paging.h"

#include <stdlib.h>
#include <string.h>

enum { FRAMES = 2, MOST_INSNS = 1 << 14, MOST_ACCESSES = 1 << 17, BLOCK = PB_EXTENT_ALIGNMENT };

typedef struct access_range {
    uint32_t insn;
    pb_lane lane;
    int space;  // a pb_tier; extents count as bytes of NVMe
    uint64_t begin, end;
    bool write;
} access_range;

// Where the bytes of a root value are while no node works on them.
typedef struct home {
    pb_piece piece[2];
    uint32_t count;
} home;

typedef struct paging {
    const pb_graph *g;
    const pb_backend *backend;
    pb_program *p;
    uint64_t random;
    bool resident;
    home *places;  // by root
    uint64_t used[PB_TIER_COUNT];
    uint64_t frame_bytes[2];    // of the device, of the host
    uint64_t frame[2], top[2];  // the present node's, and where it is filled up to
    uint64_t *at[2];            // by root: where the present node has it in a frame, or UINT64_MAX
    access_range *accesses, *fresh;
    uint32_t access_count, fresh_count;
    int64_t known[PB_LANE_COUNT][PB_LANE_COUNT];  // by lane: what is complete for certain when its next one begins
    int64_t (*known_at)[PB_LANE_COUNT];           // by instruction
} paging;

static uint32_t draw(paging *b, uint32_t below) {
    b->random = b->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((b->random >> 33) % below);
}

static uint64_t up(uint64_t bytes, uint64_t to) {
    return (bytes + to - 1) / to * to;
}

static uint64_t bytes_of(const paging *b, pb_vid v) {
    return pb_value_bytes(&b->g->values[v]);
}

// --- Instructions, hazards ---

static void touches(paging *b, int space, uint64_t begin, uint64_t bytes, bool write) {
    b->fresh[b->fresh_count++] = (access_range){.space = space, .begin = begin, .end = begin + bytes, .write = write};
}

static void raise(int64_t *known, int64_t to) {
    if (to > *known) *known = to;
}

static void push(paging *b, pb_insn insn) {
    memcpy(b->known_at[b->p->insn_count], b->known[insn.lane], sizeof b->known[0]);
    b->p->insns[b->p->insn_count++] = insn;
}

static bool in_order(pb_lane lane) {
    return lane != PB_LANE_READ && lane != PB_LANE_WRITE;
}

// Adds an instruction that does what was said with `touches`, behind the WAITs that it needs.
static void emit(paging *b, pb_insn insn) {
    int64_t last[PB_LANE_COUNT];
    memset(last, 0xff, sizeof last);
    for (uint32_t i = 0; i < b->access_count; i++)
        for (uint32_t k = 0; k < b->fresh_count; k++) {
            const access_range *old = &b->accesses[i], *new = &b->fresh[k];
            if (old->space != new->space || old->end <= new->begin || new->end <= old->begin) continue;
            if (old->write || new->write) raise(&last[old->lane], old->insn);
        }
    for (int lane = 0; lane < PB_LANE_COUNT; lane++) {
        if (last[lane] < 0 || (lane == (int)insn.lane && in_order(insn.lane))) continue;
        if (last[lane] <= b->known[insn.lane][lane]) continue;
        push(b, (pb_insn){.kind = PB_INSN_WAIT, .lane = insn.lane, .on = (uint32_t)last[lane]});
        for (int k = 0; k < PB_LANE_COUNT; k++) raise(&b->known[insn.lane][k], b->known_at[last[lane]][k]);
        raise(&b->known[insn.lane][lane], last[lane]);
    }
    for (uint32_t k = 0; k < b->fresh_count; k++) {
        b->fresh[k].insn = b->p->insn_count;
        b->fresh[k].lane = insn.lane;
        b->accesses[b->access_count++] = b->fresh[k];
    }
    b->fresh_count = 0;
    push(b, insn);
}

static void copy(paging *b, pb_lane lane, uint64_t from, uint64_t to, uint64_t bytes) {
    const bool towards = lane == PB_LANE_UPLOAD;
    const pb_tier from_tier = towards ? PB_TIER_HOST : PB_TIER_DEVICE;
    const pb_tier to_tier = towards ? PB_TIER_DEVICE : PB_TIER_HOST;
    touches(b, from_tier, from, bytes, false);
    touches(b, to_tier, to, bytes, true);
    emit(b, (pb_insn){.kind = towards ? PB_INSN_FETCH : PB_INSN_EVICT,
                      .lane = lane,
                      .from_tier = from_tier,
                      .to_tier = to_tier,
                      .from = from,
                      .to = to,
                      .bytes = bytes});
}

static uint64_t blocks_of(const pb_piece *piece) {
    return up(piece->offset + piece->bytes, BLOCK);
}

static void read_extent(paging *b, const pb_piece *piece, uint64_t to) {
    touches(b, PB_TIER_NVME, piece->extent, 1, false);
    touches(b, PB_TIER_HOST, to, blocks_of(piece), true);
    emit(b, (pb_insn){.kind = PB_INSN_FETCH,
                      .lane = PB_LANE_READ,
                      .from_tier = PB_TIER_NVME,
                      .to_tier = PB_TIER_HOST,
                      .to = to,
                      .bytes = blocks_of(piece),
                      .extent = piece->extent});
}

static void write_extent(paging *b, const pb_piece *piece, uint64_t from) {
    touches(b, PB_TIER_HOST, from, blocks_of(piece), false);
    touches(b, PB_TIER_NVME, piece->extent, 1, true);
    emit(b, (pb_insn){.kind = PB_INSN_EVICT,
                      .lane = PB_LANE_WRITE,
                      .from_tier = PB_TIER_HOST,
                      .to_tier = PB_TIER_NVME,
                      .from = from,
                      .bytes = blocks_of(piece),
                      .extent = piece->extent});
}

// --- Places ---

static void settle(paging *b, pb_vid root, pb_tier tier, uint64_t begin, uint64_t bytes) {
    home *place = &b->places[root];
    pb_piece *piece = &place->piece[place->count++];
    *piece = (pb_piece){.begin = begin, .bytes = bytes, .tier = tier, .offset = b->used[tier]};
    if (tier == PB_TIER_NVME) {
        piece->extent = b->p->extent_count++;
        piece->offset = PB_ALIGNMENT * draw(b, 3);
        b->p->extent_bytes[piece->extent] = blocks_of(piece) + BLOCK * draw(b, 2);
    } else {
        b->used[tier] += up(bytes, PB_ALIGNMENT);
    }
}

static void settle_anywhere(paging *b, pb_vid root) {
    const pb_value *v = &b->g->values[root];
    const uint64_t bytes = bytes_of(b, root), half = bytes / 2 / pb_dtype_size(v->dtype) * pb_dtype_size(v->dtype);
    const uint32_t kind = b->resident ? 0 : draw(b, 5);
    if (kind == 0) settle(b, root, PB_TIER_DEVICE, 0, bytes);
    if (kind == 1 || kind == 2) settle(b, root, PB_TIER_HOST, 0, bytes);
    if (kind == 3 || (kind == 4 && !half)) settle(b, root, PB_TIER_NVME, 0, bytes);
    if (kind == 4 && half) {
        settle(b, root, PB_TIER_HOST, 0, half);
        settle(b, root, PB_TIER_NVME, half, bytes - half);
    }
}

static bool lies_in(const paging *b, pb_vid root, pb_tier tier) {
    return b->places[root].count == 1 && b->places[root].piece[0].tier == tier;
}

// Persistent values first, then what the host writes and reads, then everything else.
static void settle_all(paging *b) {
    const pb_graph *g = b->g;
    pb_program *p = b->p;
    uint32_t pieces = 0;
    for (pb_vid v = 0; v < g->value_count; v++) {
        p->first_piece[v] = pieces;
        p->home[v] = UINT64_MAX;
        if (!g->values[v].persistent || g->values[v].alias != PB_NONE) continue;
        settle_anywhere(b, v);
        for (uint32_t k = 0; k < b->places[v].count; k++) p->pieces[pieces++] = b->places[v].piece[k];
    }
    p->first_piece[g->value_count] = pieces;
    for (pb_vid v = 0; v < g->value_count; v++) {
        const pb_value *value = &g->values[v];
        if (value->persistent || value->alias != PB_NONE) continue;
        if (value->producer == PB_NONE ? value->class_ == PB_CLASS_INPUT : value->output) {
            settle(b, v, PB_TIER_DEVICE, 0, bytes_of(b, v));
            p->home[v] = b->places[v].piece[0].offset;
        } else {
            settle_anywhere(b, v);
        }
    }
}

// --- Nodes ---

static uint64_t take(paging *b, int tier, uint64_t bytes) {
    const uint64_t at = b->frame[tier] + b->top[tier];
    b->top[tier] += up(bytes, BLOCK);
    return at;
}

// Where the present node finds a value that it reads, on the device or on the host.
static uint64_t bring(paging *b, pb_vid v, pb_tier tier) {
    const pb_vid root = pb_graph_root(b->g, v);
    if (lies_in(b, root, tier)) return b->places[root].piece[0].offset;
    if (b->at[tier][root] != UINT64_MAX) return b->at[tier][root];
    const home *place = &b->places[root];
    const bool in_frame = tier == PB_TIER_DEVICE || place->piece[0].tier == PB_TIER_DEVICE;
    uint64_t to = in_frame ? take(b, tier, bytes_of(b, root)) : 0;
    for (uint32_t i = 0; i < place->count; i++) {
        const pb_piece *piece = &place->piece[i];
        uint64_t from = piece->offset;
        if (piece->tier == PB_TIER_NVME) {
            const uint64_t landing = take(b, PB_TIER_HOST, blocks_of(piece));
            read_extent(b, piece, landing);
            from += landing;
        }
        if (tier == PB_TIER_DEVICE)
            copy(b, PB_LANE_UPLOAD, from, to + piece->begin, piece->bytes);
        else if (piece->tier == PB_TIER_DEVICE)
            copy(b, PB_LANE_DOWNLOAD, from, to, piece->bytes);
        else
            to = from;
    }
    return b->at[tier][root] = to;
}

// Where it puts one that it makes.
static uint64_t make_room(paging *b, pb_vid v, pb_tier tier) {
    const pb_vid root = pb_graph_root(b->g, v);
    if (lies_in(b, root, tier)) return b->places[root].piece[0].offset;
    if (b->at[tier][root] != UINT64_MAX) return b->at[tier][root];
    const pb_piece *piece = &b->places[root].piece[0];
    // On the host it is made where the extent is written from.
    if (tier == PB_TIER_HOST && piece->tier == PB_TIER_NVME)
        return b->at[tier][root] = take(b, tier, blocks_of(piece)) + piece->offset;
    return b->at[tier][root] = take(b, tier, bytes_of(b, root));
}

static void send_away(paging *b, pb_vid v, pb_tier tier) {
    const pb_vid root = pb_graph_root(b->g, v);
    if (lies_in(b, root, tier)) return;
    const uint64_t at = b->at[tier][root];
    for (uint32_t i = 0; i < b->places[root].count; i++) {
        const pb_piece *piece = &b->places[root].piece[i];
        uint64_t to = piece->offset;
        if (tier == PB_TIER_HOST && piece->tier == PB_TIER_DEVICE) {
            copy(b, PB_LANE_UPLOAD, at, to, piece->bytes);
            continue;
        }
        // An update on the host has worked on the extent's bytes where they were read to.
        uint64_t start = at - piece->offset;
        if (tier == PB_TIER_DEVICE) {
            if (piece->tier == PB_TIER_NVME) to += start = take(b, PB_TIER_HOST, blocks_of(piece));
            copy(b, PB_LANE_DOWNLOAD, at + piece->begin, to, piece->bytes);
        }
        if (piece->tier == PB_TIER_NVME) write_extent(b, piece, start);
    }
}

// Bytes of an adamw operand that come before element `element` of the parameter: of scales, before its block.
static uint64_t slice_begin(const paging *b, const pb_insn *insn, pb_vid v, int64_t element) {
    const pb_value *values = b->g->values;
    const int64_t elements = pb_shape_count(values[insn->in[PB_ADAMW_MASTER].value].shape);
    return (uint64_t)pb_adamw_entries(pb_shape_count(values[v].shape), elements, element) *
           pb_dtype_size(values[v].dtype);
}

static bool is_whole(int input) {
    return input == PB_ADAMW_CONTROL || input == PB_ADAMW_HYPER;
}

static void touch_operands(paging *b, const pb_insn *insn, pb_tier tier) {
    for (int i = 0; i < PB_MAX_INPUTS + PB_MAX_OUTPUTS; i++) {
        const bool written = i >= PB_MAX_INPUTS;
        const pb_operand *o = written ? &insn->out[i - PB_MAX_INPUTS] : &insn->in[i];
        if (o->value == PB_NONE) continue;
        uint64_t bytes = bytes_of(b, o->value);
        if (insn->kind == PB_INSN_UPDATE && !is_whole(i))
            bytes =
                slice_begin(b, insn, o->value, insn->first + insn->count) - slice_begin(b, insn, o->value, insn->first);
        touches(b, tier, o->offset, bytes, written);
    }
    if (insn->workspace_bytes) touches(b, tier, insn->workspace_offset, insn->workspace_bytes, true);
}

// The update in two pieces, cut at a random block of states, in a random order.
static void emit_updates(paging *b, pb_insn whole, pb_tier tier) {
    const int64_t elements = pb_shape_count(b->g->values[whole.in[PB_ADAMW_MASTER].value].shape);
    const int64_t cut = PB_STATE_BLOCK * draw(b, (uint32_t)(elements / PB_STATE_BLOCK) + 1);
    const bool backwards = draw(b, 2);
    for (int part = 0; part < 2; part++) {
        pb_insn insn = whole;
        insn.kind = PB_INSN_UPDATE;
        insn.first = (part == 0) != backwards ? 0 : cut;
        insn.count = (part == 0) != backwards ? cut : elements - cut;
        if (!insn.count) continue;
        for (int i = 0; i < PB_MAX_INPUTS; i++)
            if (insn.in[i].value != PB_NONE && !is_whole(i))
                insn.in[i].offset += slice_begin(b, &insn, insn.in[i].value, insn.first);
        for (int i = 0; i < PB_MAX_OUTPUTS; i++)
            if (insn.out[i].value != PB_NONE)
                insn.out[i].offset += slice_begin(b, &insn, insn.out[i].value, insn.first);
        touch_operands(b, &insn, tier);
        emit(b, insn);
    }
}

static uint64_t workspace_of(const paging *b, const pb_node *node) {
    if (!b->backend->workspaces[node->op]) return 0;
    pb_kernel_args args;
    pb_node_kernel_args(b->g, node, &args);
    return b->backend->workspaces[node->op](&args);
}

static bool can_update_on_host(const paging *b, const pb_node *node) {
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (node->in[i] != PB_NONE && b->places[pb_graph_root(b->g, node->in[i])].count != 1) return false;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (node->out[i] != PB_NONE && b->places[pb_graph_root(b->g, node->out[i])].count != 1) return false;
    return true;
}

static void emit_node(paging *b, uint32_t n) {
    const pb_node *node = &b->g->nodes[n];
    const bool update = node->op == PB_OP_ADAMW;
    const bool host = update && !b->resident && can_update_on_host(b, node) && draw(b, 2);
    const pb_tier tier = host ? PB_TIER_HOST : PB_TIER_DEVICE;
    pb_insn insn = {.kind = PB_INSN_RUN, .lane = host ? PB_LANE_HOST : PB_LANE_COMPUTE, .node = n};
    for (int t = 0; t < 2; t++) {
        b->frame[t] = b->used[t] + n % FRAMES * b->frame_bytes[t];
        b->top[t] = 0;
        memset(b->at[t], 0xff, b->g->value_count * sizeof **b->at);
    }
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        insn.in[i] = (pb_operand){node->in[i], node->in[i] == PB_NONE ? 0 : bring(b, node->in[i], tier)};
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        insn.out[i] = (pb_operand){node->out[i], node->out[i] == PB_NONE ? 0 : make_room(b, node->out[i], tier)};
    if (update && !b->resident && (host || draw(b, 2))) {
        emit_updates(b, insn, tier);
    } else {
        insn.workspace_bytes = workspace_of(b, node);
        if (insn.workspace_bytes) insn.workspace_offset = take(b, PB_TIER_DEVICE, insn.workspace_bytes);
        touch_operands(b, &insn, tier);
        emit(b, insn);
    }
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (node->out[i] != PB_NONE) send_away(b, node->out[i], tier);
}

static void find_frame_bytes(paging *b) {
    for (uint32_t n = 0; n < b->g->node_count; n++) {
        const pb_node *node = &b->g->nodes[n];
        uint64_t bytes = up(workspace_of(b, node), BLOCK);
        for (int i = 0; i < PB_MAX_INPUTS + PB_MAX_OUTPUTS; i++) {
            const pb_vid v = i < PB_MAX_INPUTS ? node->in[i] : node->out[i - PB_MAX_INPUTS];
            if (v != PB_NONE) bytes += up(bytes_of(b, v) + 3 * PB_ALIGNMENT, BLOCK) + 2 * BLOCK;
        }
        for (int t = 0; t < 2; t++)
            if (bytes > b->frame_bytes[t]) b->frame_bytes[t] = bytes;
    }
    // On the host a node both reads and writes through its frame.
    b->frame_bytes[PB_TIER_HOST] *= 2;
}

pb_program *support_paging_program(const pb_graph *g, const pb_backend *backend, uint64_t seed) {
    paging b = {.g = g, .backend = backend, .random = seed * 7919 + 3, .resident = !seed};
    pb_arena *arena = pb_arena_create();
    if (!arena) return NULL;
    pb_program *p = b.p = pb_arena_alloc(arena, sizeof *p);
    p->arena = arena;
    p->insns = pb_arena_array(arena, MOST_INSNS, sizeof *p->insns);
    p->home = pb_arena_array(arena, g->value_count + 1, sizeof *p->home);
    p->pieces = pb_arena_array(arena, 2 * (size_t)g->value_count + 1, sizeof *p->pieces);
    p->first_piece = pb_arena_array(arena, g->value_count + 1, sizeof *p->first_piece);
    p->extent_bytes = pb_arena_array(arena, g->value_count + 1, sizeof *p->extent_bytes);
    b.places = calloc(g->value_count, sizeof *b.places);
    for (int t = 0; t < 2; t++) b.at[t] = calloc(g->value_count, sizeof **b.at);
    b.accesses = calloc(MOST_ACCESSES, sizeof *b.accesses);
    b.fresh = calloc(64, sizeof *b.fresh);
    b.known_at = calloc(MOST_INSNS, sizeof *b.known_at);
    memset(b.known, 0xff, sizeof b.known);
    settle_all(&b);
    for (int t = 0; t < 2; t++) b.used[t] = up(b.used[t], BLOCK);
    find_frame_bytes(&b);
    for (uint32_t n = 0; n < g->node_count; n++) emit_node(&b, n);
    for (int t = 0; t < 2; t++) p->tier_bytes[t] = b.used[t] + FRAMES * b.frame_bytes[t];
    for (uint32_t x = 0; x < p->extent_count; x++) p->tier_bytes[PB_TIER_NVME] += p->extent_bytes[x];
    free(b.places);
    for (int t = 0; t < 2; t++) free(b.at[t]);
    free(b.accesses);
    free(b.fresh);
    free(b.known_at);
    return p;
}

pb_program *support_program_without(const pb_program *program, uint32_t without) {
    pb_arena *arena = pb_arena_create();
    if (!arena) return NULL;
    pb_program *p = pb_arena_alloc(arena, sizeof *p);
    *p = *program;
    p->arena = arena;
    p->insns = pb_arena_array(arena, program->insn_count, sizeof *p->insns);
    p->insn_count = 0;
    for (uint32_t i = 0; i < program->insn_count; i++) {
        if (i == without) continue;
        p->insns[p->insn_count] = program->insns[i];
        if (p->insns[p->insn_count].kind == PB_INSN_WAIT && p->insns[p->insn_count].on > without)
            p->insns[p->insn_count].on--;
        p->insn_count++;
    }
    return p;
}
