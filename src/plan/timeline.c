// What lies where, instruction by instruction. Every tier is a line of addresses (NVMe: the extents one behind the
// other), covered by spans: bytes that were written together, with the class of their value, by whom, and who read them
// last. A write puts a new span over what was there, a move gives its destination the classes of its source. A span
// that is covered, or left at the end, becomes two changes of its class's count: where its life begins and where it
// ends.
#include "plan/timeline.h"

#include <stdlib.h>
#include <string.h>

static const char *const class_names[PB_CLASS_COUNT] = {
    [PB_CLASS_INPUT] = "inputs",       [PB_CLASS_WEIGHT] = "weights",         [PB_CLASS_STATE] = "optimizer state",
    [PB_CLASS_GRADIENT] = "gradients", [PB_CLASS_ACTIVATION] = "activations", [PB_CLASS_WORKSPACE] = "workspace",
};
static const char *const tier_names[PB_TIER_COUNT] = {"device", "host", "NVMe"};
static const char *const lane_names[PB_LANE_COUNT] = {"compute", "upload", "download", "host", "read", "write"};

const char *pb_timeline_class_name(pb_class class_) {
    return class_names[class_];
}

const char *pb_timeline_tier_name(pb_tier tier) {
    return tier_names[tier];
}

const char *pb_timeline_lane_name(pb_lane lane) {
    return lane_names[lane];
}

enum { BEFORE = UINT32_MAX };  // as an instruction: before the first one

typedef struct span {
    uint64_t begin, end;
    pb_vid value;
    pb_class class_;
    uint32_t born, read;  // instructions
} span;

// Sorted, without overlaps.
typedef struct tier_spans {
    span *items;
    size_t count, capacity;
} tier_spans;

typedef struct change {
    double at;
    int64_t bytes;
    pb_tier tier;
    pb_class class_;
} change;

typedef struct walk {
    pb_timeline *timeline;
    tier_spans tiers[PB_TIER_COUNT];
    uint64_t *extent_at;  // where each extent begins on the line of its tier
    change *changes;
    size_t change_count, change_capacity;
    span *carried;  // scratch of a move
    size_t carried_capacity;
    bool failed;  // no memory
} walk;

// Room for `count` items; false (and failed) without memory.
static bool reserve(walk *w, void **items, size_t *capacity, size_t count, size_t size) {
    if (count <= *capacity) return !w->failed;
    const size_t wanted = count + count / 2 + 64;
    void *larger = realloc(*items, wanted * size);
    if (!larger) {
        w->failed = true;
        return false;
    }
    *items = larger;
    *capacity = wanted;
    return true;
}

static void add_change(walk *w, double at, pb_tier tier, pb_class class_, int64_t bytes) {
    if (!reserve(w, (void **)&w->changes, &w->change_capacity, w->change_count + 1, sizeof *w->changes)) return;
    w->changes[w->change_count++] = (change){at, bytes, tier, class_};
}

// The life of a span is over: at the end of its last reader, but no later than `limit`, or at `limit` itself.
static void bury(walk *w, pb_tier tier, const span *s, double limit, bool until_limit) {
    const pb_insn_times *t = w->timeline->times;
    const double begin = s->born == BEFORE ? 0 : t[s->born].begin;
    double end = s->read == BEFORE ? 0 : t[s->read].end;
    if (end > limit || until_limit) end = limit;
    if (end <= begin) return;
    add_change(w, begin, tier, s->class_, (int64_t)(s->end - s->begin));
    add_change(w, end, tier, s->class_, -(int64_t)(s->end - s->begin));
}

// The first span that ends behind `at`.
static size_t find(const tier_spans *t, uint64_t at) {
    size_t low = 0, high = t->count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (t->items[middle].end <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Takes spans first..last of [begin, end) out and puts `insert` (0 to 3) in their place.
static void splice(walk *w, tier_spans *t, size_t first, size_t last, const span *insert, size_t count) {
    if (!reserve(w, (void **)&t->items, &t->capacity, t->count + count, sizeof *t->items)) return;
    memmove(t->items + first + count, t->items + last, (t->count - last) * sizeof *t->items);
    memcpy(t->items + first, insert, count * sizeof *insert);
    t->count += count - (last - first);
}

// Whether a new version of something that persists takes the old one's place: nobody else could have had it in between.
static bool replaces(const walk *w, const span *fresh, const span *old) {
    const pb_graph *g = w->timeline->graph;
    if (fresh->value == PB_NONE || old->value == PB_NONE || !g->values[old->value].persistent) return false;
    return pb_graph_root(g, fresh->value) == pb_graph_root(g, old->value);
}

static void put(walk *w, pb_tier tier, span fresh) {
    tier_spans *t = &w->tiers[tier];
    if (fresh.end <= fresh.begin || w->failed) return;
    const size_t first = find(t, fresh.begin);
    const double now = fresh.born == BEFORE ? 0 : w->timeline->times[fresh.born].begin;
    span insert[3];
    size_t count = 0, last = first;
    for (; last < t->count && t->items[last].begin < fresh.end; last++) {
        span covered = t->items[last];
        if (covered.begin < fresh.begin) {
            insert[count] = covered;
            insert[count++].end = fresh.begin;
            covered.begin = fresh.begin;
        }
        if (covered.end > fresh.end) covered.end = fresh.end;
        bury(w, tier, &covered, now, replaces(w, &fresh, &covered));
    }
    insert[count++] = fresh;
    if (last > first && t->items[last - 1].end > fresh.end) {
        insert[count] = t->items[last - 1];
        insert[count++].begin = fresh.end;
    }
    splice(w, t, first, last, insert, count);
}

// Instruction `reader` needs [begin, end). What lies over the edges is needed as a whole: lives of parts are not told
// apart by who reads them. The last reader is the one that ends last, which need not be the last in the list.
static void need(walk *w, pb_tier tier, uint64_t begin, uint64_t end, uint32_t reader) {
    tier_spans *t = &w->tiers[tier];
    const pb_insn_times *times = w->timeline->times;
    for (size_t i = find(t, begin); i < t->count && t->items[i].begin < end; i++)
        if (t->items[i].read == BEFORE || times[reader].end >= times[t->items[i].read].end) t->items[i].read = reader;
}

static uint64_t operand_bytes(const walk *w, const pb_insn *insn, const pb_operand *o) {
    const pb_value *v = &w->timeline->graph->values[o->value];
    if (insn->kind == PB_INSN_RUN) return pb_value_bytes(v);
    const pb_node *node = &w->timeline->graph->nodes[insn->node];
    const pb_shape shape = w->timeline->graph->values[node->in[3]].shape;
    if (o->value == node->in[PB_ADAMW_CONTROL] || o->value == node->in[PB_ADAMW_HYPER]) return pb_value_bytes(v);
    const int64_t entries = pb_adamw_entries(pb_shape_count(v->shape), pb_shape_count(shape), insn->count);
    return (uint64_t)entries * pb_dtype_size(v->dtype);
}

static void do_op(walk *w, uint32_t i) {
    const pb_graph *g = w->timeline->graph;
    const pb_insn *insn = &w->timeline->program->insns[i];
    const pb_tier tier = insn->lane == PB_LANE_HOST ? PB_TIER_HOST : PB_TIER_DEVICE;
    for (int k = 0; k < PB_MAX_INPUTS; k++)
        if (insn->in[k].value != PB_NONE)
            need(w, tier, insn->in[k].offset, insn->in[k].offset + operand_bytes(w, insn, &insn->in[k]), i);
    put(w, tier,
        (span){insn->workspace_offset, insn->workspace_offset + insn->workspace_bytes, PB_NONE, PB_CLASS_WORKSPACE, i,
               i});
    for (int k = 0; k < PB_MAX_OUTPUTS; k++) {
        const pb_operand *o = &insn->out[k];
        if (o->value != PB_NONE)
            put(w, tier,
                (span){o->offset, o->offset + operand_bytes(w, insn, o), o->value, g->values[o->value].class_, i, i});
    }
}

static uint64_t place_of(const walk *w, pb_tier tier, uint64_t offset, uint32_t extent) {
    return tier == PB_TIER_NVME ? w->extent_at[extent] + offset : offset;
}

static void do_move(walk *w, uint32_t i) {
    const pb_insn *insn = &w->timeline->program->insns[i];
    const uint64_t from = place_of(w, insn->from_tier, insn->from, insn->extent);
    const uint64_t to = place_of(w, insn->to_tier, insn->to, insn->extent);
    const tier_spans *source = &w->tiers[insn->from_tier];
    need(w, insn->from_tier, from, from + insn->bytes, i);
    size_t count = 0;
    for (size_t k = find(source, from); k < source->count && source->items[k].begin < from + insn->bytes; k++) {
        if (!reserve(w, (void **)&w->carried, &w->carried_capacity, count + 1, sizeof *w->carried)) return;
        span s = source->items[k];
        if (w->timeline->moved[i] == PB_NONE) w->timeline->moved[i] = s.value;
        s.begin = s.begin > from ? s.begin - from + to : to;
        s.end = s.end < from + insn->bytes ? s.end - from + to : to + insn->bytes;
        s.born = s.read = i;
        w->carried[count++] = s;
    }
    for (size_t k = 0; k < count; k++) put(w, insn->to_tier, w->carried[k]);
}

static pb_vid first_of_piece(const pb_program *p, uint32_t piece, pb_vid v) {
    while (piece >= p->first_piece[v + 1]) v++;
    return v;
}

static void begin_step(walk *w) {
    const pb_graph *g = w->timeline->graph;
    const pb_program *p = w->timeline->program;
    pb_vid v = 0;
    const uint32_t pieces = p->first_piece ? p->first_piece[g->value_count] : 0;
    for (uint32_t i = 0; i < pieces; i++) {
        v = first_of_piece(p, i, v);
        const uint64_t at = place_of(w, p->pieces[i].tier, p->pieces[i].offset, p->pieces[i].extent);
        put(w, p->pieces[i].tier, (span){at, at + p->pieces[i].bytes, v, g->values[v].class_, BEFORE, BEFORE});
    }
    for (v = 0; v < g->value_count; v++)
        if (p->home && p->home[v] != UINT64_MAX && g->values[v].producer == PB_NONE && !g->values[v].persistent)
            put(w, PB_TIER_DEVICE,
                (span){p->home[v], p->home[v] + pb_value_bytes(&g->values[v]), v, g->values[v].class_, BEFORE, BEFORE});
}

// What persists and what is read after the step lives to its end.
static void end_step(walk *w, uint32_t last) {
    const pb_graph *g = w->timeline->graph;
    const pb_program *p = w->timeline->program;
    const uint32_t pieces = p->first_piece ? p->first_piece[g->value_count] : 0;
    for (uint32_t i = 0; i < pieces; i++) {
        const uint64_t at = place_of(w, p->pieces[i].tier, p->pieces[i].offset, p->pieces[i].extent);
        need(w, p->pieces[i].tier, at, at + p->pieces[i].bytes, last);
    }
    for (pb_vid v = 0; v < g->value_count; v++)
        if (p->home && p->home[v] != UINT64_MAX && g->values[v].output)
            need(w, PB_TIER_DEVICE, p->home[v], p->home[v] + pb_value_bytes(&g->values[v]), last);
    for (int t = 0; t < PB_TIER_COUNT; t++)
        for (size_t i = 0; i < w->tiers[t].count; i++)
            bury(w, (pb_tier)t, &w->tiers[t].items[i], w->timeline->seconds, false);
}

static int by_time(const void *a, const void *b) {
    const double x = ((const change *)a)->at, y = ((const change *)b)->at;
    return (x > y) - (x < y);
}

// Adds the changes up to samples, one for each time at which anything changes.
static pb_status sum_up(walk *w) {
    pb_timeline *t = w->timeline;
    if (w->change_count) qsort(w->changes, w->change_count, sizeof *w->changes, by_time);
    t->samples = pb_arena_array(t->arena, w->change_count + 1, sizeof *t->samples);
    if (!t->samples) return pb_error(PB_ERR_MEMORY, "no memory for a timeline");
    pb_timeline_sample now = {0};
    for (size_t i = 0; i < w->change_count; i++) {
        const change *c = &w->changes[i];
        now.at = c->at;
        now.bytes[c->tier][c->class_] += (uint64_t)c->bytes;
        if (i + 1 < w->change_count && w->changes[i + 1].at == c->at) continue;
        t->samples[t->sample_count++] = now;
    }
    return PB_OK;
}

pb_status pb_timeline_create(const pb_graph *graph, const pb_program *program, const pb_insn_times *times,
                             pb_timeline **timeline) {
    pb_status status = PB_OK;
    walk w = {0};
    uint32_t last = 0;
    pb_arena *arena = pb_arena_create();
    pb_timeline *t = w.timeline = arena ? pb_arena_alloc(arena, sizeof *t) : NULL;
    if (!t) PB_FAIL(PB_ERR_MEMORY, "no memory for a timeline");
    *t = (pb_timeline){.arena = arena, .graph = graph, .program = program, .times = times};
    t->moved = pb_arena_array(arena, program->insn_count + 1, sizeof *t->moved);
    w.extent_at = pb_arena_array(arena, program->extent_count + 1, sizeof *w.extent_at);
    if (!t->moved || !w.extent_at) PB_FAIL(PB_ERR_MEMORY, "no memory for a timeline");
    for (uint32_t e = 0; e < program->extent_count; e++) w.extent_at[e + 1] = w.extent_at[e] + program->extent_bytes[e];
    for (uint32_t i = 0; i < program->insn_count; i++) {
        t->moved[i] = PB_NONE;
        if (times[i].end > t->seconds) {
            t->seconds = times[i].end;
            last = i;
        }
    }
    begin_step(&w);
    for (uint32_t i = 0; i < program->insn_count; i++) {
        if (pb_insn_is_op(&program->insns[i]))
            do_op(&w, i);
        else if (program->insns[i].kind != PB_INSN_WAIT)
            do_move(&w, i);
    }
    if (program->insn_count) end_step(&w, last);
    if (w.failed) PB_FAIL(PB_ERR_MEMORY, "no memory for a timeline");
    PB_TRY(sum_up(&w));
    *timeline = t;
    arena = NULL;
fail:
    for (int i = 0; i < PB_TIER_COUNT; i++) free(w.tiers[i].items);
    free(w.changes);
    free(w.carried);
    pb_arena_destroy(arena);
    return status;
}

void pb_timeline_destroy(pb_timeline *timeline) {
    if (timeline) pb_arena_destroy(timeline->arena);
}
