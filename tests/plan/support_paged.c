#include "plan/support_paged.h"

#include <stdlib.h>
#include <string.h>

#include "plan/support_graphs.h"

enum { FRAMES = 2, STAGES = 3 };

// A stretch of a value between its uses.
typedef struct fragment {
    uint64_t begin, bytes;
    pb_tier tier;  // HOST or NVME
    uint64_t offset;
    uint32_t extent;
} fragment;

// Where a value and its later versions live: on the device as in the resident plan (no fragments), or elsewhere.
typedef struct storage {
    fragment fragments[2];
    int count;
} storage;

typedef struct pager {
    const pb_graph *g;
    uint64_t random;
    pb_program *p;
    uint32_t capacity, lasting_extents;
    uint64_t *at;       // by value: its device offset in the resident plan
    uint64_t *scratch;  // by node: its workspace
    storage *storages;  // by value, of roots
    uint64_t extent_fill;
    uint64_t frame[PB_TIER_NVME][FRAMES], stage[STAGES];  // device and host; areas for one op's operands
    uint64_t cursor[PB_TIER_NVME];                        // next free byte of the present frame
    int turn[PB_TIER_NVME], stage_turn;
} pager;

static uint64_t round_up(uint64_t bytes, uint64_t to) {
    return (bytes + to - 1) / to * to;
}

static uint64_t value_bytes(const pager *b, pb_vid v) {
    return pb_value_bytes(&b->g->values[v]);
}

static uint64_t take(pager *b, pb_tier tier, uint64_t bytes) {
    uint64_t *top = &b->p->tier_bytes[tier];
    *top = round_up(*top, tier == PB_TIER_HOST ? PB_EXTENT_ALIGNMENT : PB_ALIGNMENT);
    const uint64_t offset = *top;
    *top += tier == PB_TIER_HOST ? round_up(bytes, PB_EXTENT_ALIGNMENT) : bytes;
    return offset;
}

// --- Where values live ---

static void add_fragment(pager *b, pb_vid v, uint64_t begin, uint64_t bytes, pb_tier tier) {
    pb_program *p = b->p;
    fragment f = {.begin = begin, .bytes = bytes, .tier = tier};
    if (tier == PB_TIER_HOST) {
        f.offset = take(b, tier, bytes);
    } else {
        // What lasts shares extents now and then.
        const bool lasts = b->g->values[v].persistent;
        if (!lasts || !p->extent_count || b->extent_fill > (1 << 20) || support_random(&b->random, 3) == 0) {
            p->extent_count++;
            b->extent_fill = 0;
        }
        f.extent = p->extent_count - 1;
        f.offset = b->extent_fill;
        b->extent_fill = round_up(f.offset + bytes, PB_ALIGNMENT);
        p->extent_bytes[f.extent] = round_up(b->extent_fill, PB_EXTENT_ALIGNMENT);
        if (lasts) b->lasting_extents = p->extent_count;
    }
    storage *s = &b->storages[v];
    s->fragments[s->count++] = f;
}

static void settle(pager *b, pb_vid v) {
    const uint64_t bytes = value_bytes(b, v);
    const uint32_t dice = support_random(&b->random, 10);
    const pb_tier tier = support_random(&b->random, 3) ? PB_TIER_HOST : PB_TIER_NVME;
    if (dice < 2) return;
    const uint64_t half = bytes / 2 / PB_ALIGNMENT * PB_ALIGNMENT;
    if (dice < 4 && half && b->g->values[v].persistent) {
        add_fragment(b, v, 0, half, PB_TIER_HOST);
        add_fragment(b, v, half, bytes - half, tier);
    } else {
        add_fragment(b, v, 0, bytes, tier);
    }
}

static void settle_all(pager *b, const pb_program *resident) {
    const pb_graph *g = b->g;
    bool *pinned = calloc(g->value_count + 1, sizeof *pinned);
    for (pb_vid v = 0; v < g->value_count; v++) {
        const pb_value *value = &g->values[v];
        if (!value->persistent && (value->output || value->producer == PB_NONE)) pinned[pb_graph_root(g, v)] = true;
    }
    uint32_t pieces = 0;
    for (int lasting = 1; lasting >= 0; lasting--)
        for (pb_vid v = 0; v < g->value_count; v++)
            if (g->values[v].alias == PB_NONE && !pinned[v] && g->values[v].persistent == lasting) settle(b, v);
    for (pb_vid v = 0; v < g->value_count; v++) {
        b->p->first_piece[v] = pieces;
        if (g->values[v].alias != PB_NONE || !g->values[v].persistent) continue;
        const storage *s = &b->storages[v];
        if (!s->count) b->p->pieces[pieces++] = resident->pieces[resident->first_piece[v]];
        for (int i = 0; i < s->count; i++) {
            const fragment *f = &s->fragments[i];
            b->p->pieces[pieces++] = (pb_piece){f->begin, f->bytes, f->tier, f->extent, f->offset};
        }
    }
    b->p->first_piece[g->value_count] = pieces;
    free(pinned);
}

static void lay_out_frames(pager *b) {
    uint64_t frame = 0, stage = 0;
    for (uint32_t n = 0; n < b->g->node_count; n++) {
        const pb_node *node = &b->g->nodes[n];
        uint64_t bytes = round_up(b->scratch[n], PB_ALIGNMENT);
        for (int i = 0; i < PB_MAX_INPUTS; i++)
            if (node->in[i] != PB_NONE) bytes += round_up(value_bytes(b, node->in[i]), PB_ALIGNMENT);
        for (int o = 0; o < PB_MAX_OUTPUTS; o++)
            if (node->out[o] != PB_NONE) bytes += round_up(value_bytes(b, node->out[o]), PB_ALIGNMENT);
        if (bytes > frame) frame = bytes;
    }
    for (uint32_t e = 0; e < b->p->extent_count; e++) {
        b->p->tier_bytes[PB_TIER_NVME] += b->p->extent_bytes[e];
        if (b->p->extent_bytes[e] > stage) stage = b->p->extent_bytes[e];
    }
    for (int t = 0; t < PB_TIER_NVME; t++)
        for (int i = 0; i < FRAMES; i++) b->frame[t][i] = take(b, (pb_tier)t, frame);
    for (int i = 0; i < STAGES; i++) b->stage[i] = take(b, PB_TIER_HOST, stage);
}

// --- Instructions ---

static pb_insn *emit(pager *b, pb_insn_kind kind, pb_lane lane) {
    pb_program *p = b->p;
    if (p->insn_count == b->capacity) {
        b->capacity = b->capacity * 2 + 64;
        p->insns = realloc(p->insns, b->capacity * sizeof *p->insns);
    }
    pb_insn *insn = &p->insns[p->insn_count++];
    *insn = (pb_insn){.kind = kind, .lane = lane};
    return insn;
}

static void move(pager *b, pb_lane lane, uint64_t from, uint64_t to, uint64_t bytes, uint32_t extent) {
    const bool fetch = lane == PB_LANE_UPLOAD || lane == PB_LANE_READ;
    pb_insn *insn = emit(b, fetch ? PB_INSN_FETCH : PB_INSN_EVICT, lane);
    insn->from_tier = lane == PB_LANE_DOWNLOAD ? PB_TIER_DEVICE : lane == PB_LANE_READ ? PB_TIER_NVME : PB_TIER_HOST;
    insn->to_tier = lane == PB_LANE_UPLOAD ? PB_TIER_DEVICE : lane == PB_LANE_WRITE ? PB_TIER_NVME : PB_TIER_HOST;
    insn->from = from;
    insn->to = to;
    insn->bytes = bytes;
    insn->extent = extent;
    b->p->moved[lane == PB_LANE_UPLOAD     ? PB_LINK_UPLOAD
                : lane == PB_LANE_DOWNLOAD ? PB_LINK_DOWNLOAD
                : lane == PB_LANE_READ     ? PB_LINK_NVME_READ
                                           : PB_LINK_NVME_WRITE] += bytes;
}

// Bytes [begin, begin + bytes) of a value between where they live and the device.
static void carry(pager *b, const storage *s, uint64_t begin, uint64_t bytes, uint64_t device, bool store) {
    for (int i = 0; i < s->count; i++) {
        const fragment *f = &s->fragments[i];
        const uint64_t low = f->begin > begin ? f->begin : begin;
        const uint64_t f_end = f->begin + f->bytes, end = f_end < begin + bytes ? f_end : begin + bytes;
        if (low >= end) continue;
        uint64_t host = f->offset + low - f->begin, stage = 0;
        const bool lasts = f->extent < b->lasting_extents;
        const uint64_t held = lasts && f->tier == PB_TIER_NVME ? b->p->extent_bytes[f->extent] : f->bytes;
        if (f->tier == PB_TIER_NVME) {
            stage = b->stage[b->stage_turn++ % STAGES];
            host += stage;
            if (!store || lasts) move(b, PB_LANE_READ, 0, stage, held, f->extent);
        }
        if (!store) {
            move(b, PB_LANE_UPLOAD, host, device + low - begin, end - low, 0);
            continue;
        }
        move(b, PB_LANE_DOWNLOAD, device + low - begin, host, end - low, 0);
        if (f->tier == PB_TIER_NVME) move(b, PB_LANE_WRITE, stage, 0, held, f->extent);
    }
}

static uint64_t bump(pager *b, pb_tier tier, uint64_t bytes) {
    const uint64_t offset = b->cursor[tier];
    b->cursor[tier] += round_up(bytes, PB_ALIGNMENT);
    return offset;
}

static storage *storage_of(const pager *b, pb_vid v) {
    return &b->storages[pb_graph_root(b->g, v)];
}

// What has its bytes in the host slab in one stretch, or can be brought there.
static bool host_can(const pager *b, const pb_node *node) {
    for (int i = 0; i < PB_MAX_INPUTS + PB_MAX_OUTPUTS; i++) {
        const pb_vid v = i < PB_MAX_INPUTS ? node->in[i] : node->out[i - PB_MAX_INPUTS];
        if (v == PB_NONE) continue;
        const storage *s = storage_of(b, v);
        if (s->count > 1 || (s->count && s->fragments[0].tier != PB_TIER_HOST)) return false;
    }
    return true;
}

static bool sliced(const pb_node *node, int i) {
    return node->op == PB_OP_ADAMW && i != 1 && i != 2;
}

typedef struct slice {
    int64_t first, count;  // elements; of an op that is no adamw: 0, 0
} slice;

// Bytes of operand i that the slice touches.
static void range_of(const pager *b, const pb_node *node, int i, slice s, uint64_t *begin, uint64_t *bytes) {
    const pb_vid v = i < PB_MAX_INPUTS ? node->in[i] : node->out[i - PB_MAX_INPUTS];
    *begin = 0;
    *bytes = value_bytes(b, v);
    if (!s.count || !sliced(node, i)) return;
    const uint64_t size = pb_dtype_size(b->g->values[v].dtype);
    *begin = (uint64_t)s.first * size;
    *bytes = (uint64_t)s.count * size;
}

// Brings the inputs to `tier`, runs, and takes the outputs back to where they live.
static void run_slice(pager *b, uint32_t n, pb_tier tier, slice s) {
    const pb_node *node = &b->g->nodes[n];
    const pb_lane lane = tier == PB_TIER_DEVICE ? PB_LANE_COMPUTE : PB_LANE_HOST;
    pb_insn run = {.kind = s.count ? PB_INSN_UPDATE : PB_INSN_RUN, .lane = lane, .node = n};
    run.first = s.first;
    run.count = s.count;
    b->cursor[tier] = b->frame[tier][b->turn[tier]++ % FRAMES];
    for (int i = 0; i < PB_MAX_INPUTS + PB_MAX_OUTPUTS; i++) {
        const bool output = i >= PB_MAX_INPUTS;
        const pb_vid v = output ? node->out[i - PB_MAX_INPUTS] : node->in[i];
        pb_operand *operand = output ? &run.out[i - PB_MAX_INPUTS] : &run.in[i];
        *operand = (pb_operand){v, 0};
        if (v == PB_NONE) continue;
        uint64_t begin, bytes;
        range_of(b, node, i, s, &begin, &bytes);
        const storage *home = storage_of(b, v);
        if (tier == PB_TIER_DEVICE ? !home->count : home->count) {
            operand->offset = begin + (home->count ? home->fragments[0].offset : b->at[v]);
            continue;
        }
        int same = -1;  // an input that is there already, or that this output replaces
        for (int k = 0; k < PB_MAX_INPUTS && k < i; k++)
            if (node->in[k] != PB_NONE && node->in[k] == (output ? b->g->values[v].alias : v)) same = k;
        operand->offset = same >= 0 ? run.in[same].offset : bump(b, tier, bytes);
        if (same >= 0 || output) continue;
        if (tier == PB_TIER_DEVICE)
            carry(b, home, begin, bytes, operand->offset, false);
        else
            move(b, PB_LANE_DOWNLOAD, b->at[v] + begin, operand->offset, bytes, 0);
    }
    run.workspace_bytes = b->scratch[n];
    if (run.workspace_bytes) run.workspace_offset = bump(b, tier, run.workspace_bytes);
    *emit(b, run.kind, lane) = run;
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) {
        if (node->out[o] == PB_NONE) continue;
        const storage *home = storage_of(b, node->out[o]);
        uint64_t begin, bytes;
        range_of(b, node, PB_MAX_INPUTS + o, s, &begin, &bytes);
        if (tier == PB_TIER_DEVICE)
            carry(b, home, begin, bytes, run.out[o].offset, true);
        else if (!home->count)
            move(b, PB_LANE_UPLOAD, run.out[o].offset, b->at[node->out[o]] + begin, bytes, 0);
    }
}

static void run_node(pager *b, uint32_t n) {
    const pb_node *node = &b->g->nodes[n];
    const bool host = host_can(b, node);
    if (node->op != PB_OP_ADAMW || support_random(&b->random, 4) == 0) {
        run_slice(b, n, host && support_random(&b->random, 3) == 0 ? PB_TIER_HOST : PB_TIER_DEVICE, (slice){0, 0});
        return;
    }
    const int64_t elements = pb_shape_count(b->g->values[node->in[3]].shape);
    for (int64_t first = 0; first < elements;) {
        int64_t count = 128 * (1 + (int64_t)support_random(&b->random, 3) * (1 + elements / 2048));
        if (count > elements - first) count = elements - first;
        run_slice(b, n, host && support_random(&b->random, 2) ? PB_TIER_HOST : PB_TIER_DEVICE, (slice){first, count});
        first += count;
    }
}

// --- Waits ---

static void access_add(support_access *accesses, int *count, uint64_t where, uint64_t begin, uint64_t bytes,
                       bool writes) {
    if (bytes) accesses[(*count)++] = (support_access){where, begin, begin + bytes, writes};
}

int support_accesses(const pb_graph *g, const pb_insn *insn, support_access *accesses) {
    int count = 0;
    if (insn->kind == PB_INSN_WAIT) return 0;
    if (insn->kind == PB_INSN_FETCH || insn->kind == PB_INSN_EVICT) {
        const bool nvme = insn->from_tier == PB_TIER_NVME || insn->to_tier == PB_TIER_NVME;
        const uint64_t bytes = nvme ? round_up(insn->bytes, PB_EXTENT_ALIGNMENT) : insn->bytes;
        const uint64_t from = insn->from_tier, to = insn->to_tier;
        access_add(accesses, &count, from == PB_TIER_NVME ? from + insn->extent : from, insn->from, bytes, false);
        access_add(accesses, &count, to == PB_TIER_NVME ? to + insn->extent : to, insn->to, bytes, true);
        return count;
    }
    const uint64_t tier = insn->lane == PB_LANE_HOST ? PB_TIER_HOST : PB_TIER_DEVICE;
    for (int i = 0; i < PB_MAX_INPUTS + PB_MAX_OUTPUTS; i++) {
        const pb_operand *o = i < PB_MAX_INPUTS ? &insn->in[i] : &insn->out[i - PB_MAX_INPUTS];
        if (o->value == PB_NONE) continue;
        const pb_value *v = &g->values[o->value];
        const bool part = insn->kind == PB_INSN_UPDATE && i != 1 && i != 2;
        const uint64_t bytes = part ? (uint64_t)insn->count * pb_dtype_size(v->dtype) : pb_value_bytes(v);
        access_add(accesses, &count, tier, o->offset, bytes, i >= PB_MAX_INPUTS);
    }
    access_add(accesses, &count, tier, insn->workspace_offset, insn->workspace_bytes, true);
    return count;
}

static bool conflict(const support_access *a, int a_count, const support_access *b, int b_count) {
    for (int i = 0; i < a_count; i++)
        for (int j = 0; j < b_count; j++)
            if (a[i].where == b[j].where && a[i].begin < b[j].end && b[j].begin < a[i].end &&
                (a[i].writes || b[j].writes))
                return true;
    return false;
}

// Puts a WAIT before each instruction for each lane that it has a conflict with, unless its lane has waited so far.
static void add_waits(pager *b, bool chain) {
    const uint32_t count = b->p->insn_count;
    pb_insn *plain = b->p->insns;
    uint32_t *now_at = calloc(count + 1, sizeof *now_at);
    support_access(*accesses)[SUPPORT_ACCESSES] = calloc(count + 1, sizeof *accesses);
    int *access_count = calloc(count + 1, sizeof *access_count);
    int64_t waited[PB_LANE_COUNT][PB_LANE_COUNT];
    memset(waited, 0xff, sizeof waited);
    b->p->insns = NULL;
    b->p->insn_count = b->capacity = 0;
    for (uint32_t i = 0; i < count; i++) {
        const pb_lane lane = plain[i].lane;
        access_count[i] = support_accesses(b->g, &plain[i], accesses[i]);
        for (int64_t j = (int64_t)i - 1; j >= 0 && (!chain || j + 1 == i); j--) {
            const pb_lane on = plain[j].lane;
            if (on == lane && lane != PB_LANE_READ && lane != PB_LANE_WRITE) continue;
            if (waited[lane][on] >= j) continue;
            if (!chain && !conflict(accesses[i], access_count[i], accesses[j], access_count[j])) continue;
            emit(b, PB_INSN_WAIT, lane)->on = now_at[j];
            waited[lane][on] = j;
        }
        now_at[i] = b->p->insn_count;
        *emit(b, plain[i].kind, lane) = plain[i];
    }
    free(plain);
    free(now_at);
    free(accesses);
    free(access_count);
}

pb_program *support_page(const pb_graph *g, const pb_program *resident, const support_paging *paging) {
    pb_arena *arena = pb_arena_create();
    pb_program *p = pb_arena_alloc(arena, sizeof *p);
    pager b = {.g = g, .random = paging->seed, .p = p};
    p->arena = arena;
    p->home = pb_arena_array(arena, g->value_count + 1, sizeof *p->home);
    p->pieces = pb_arena_array(arena, 2 * g->value_count + 1, sizeof *p->pieces);
    p->first_piece = pb_arena_array(arena, g->value_count + 1, sizeof *p->first_piece);
    p->extent_bytes = pb_arena_array(arena, 2 * g->value_count + 1, sizeof *p->extent_bytes);
    p->tier_bytes[PB_TIER_DEVICE] = resident->tier_bytes[PB_TIER_DEVICE];
    memcpy(p->home, resident->home, g->value_count * sizeof *p->home);
    b.at = calloc(g->value_count + 1, sizeof *b.at);
    b.scratch = calloc(g->node_count + 1, sizeof *b.scratch);
    b.storages = calloc(g->value_count + 1, sizeof *b.storages);
    for (uint32_t i = 0; i < resident->insn_count; i++) {
        const pb_insn *insn = &resident->insns[i];
        b.scratch[insn->node] = insn->workspace_bytes;
        for (int k = 0; k < PB_MAX_INPUTS; k++)
            if (insn->in[k].value != PB_NONE) b.at[insn->in[k].value] = insn->in[k].offset;
        for (int k = 0; k < PB_MAX_OUTPUTS; k++)
            if (insn->out[k].value != PB_NONE) b.at[insn->out[k].value] = insn->out[k].offset;
    }
    settle_all(&b, resident);
    lay_out_frames(&b);
    for (uint32_t i = 0; i < resident->insn_count; i++) run_node(&b, resident->insns[i].node);
    add_waits(&b, paging->chain);
    pb_insn *insns = p->insns;
    p->insns = pb_arena_array(arena, p->insn_count + 1, sizeof *insns);
    memcpy(p->insns, insns, p->insn_count * sizeof *insns);
    free(insns);
    free(b.at);
    free(b.scratch);
    free(b.storages);
    return p;
}
