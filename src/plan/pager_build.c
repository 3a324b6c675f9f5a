// From a graph to slots, segments and accesses.
#include <stdlib.h>
#include <string.h>

#include "plan/pager.h"
#include "plan/predict.h"
#include "plan/storage.h"

// An update on the host runs this many chunks before the weights are wanted, so that they can be on their way.
enum { CHUNKS_AHEAD = 2 };
// And what the device sends for it leaves this many slots before.
enum { SEND_AHEAD = PB_PART_AHEAD + 1 };

// --- Slots ---

// What the order of slots depends on, by value: the chunk whose update makes it (UINT32_MAX: none does), and a list of
// the chunks whose gradients are made again from what is in its place.
typedef struct wants {
    uint32_t *made_by, *first;
    struct source {
        uint32_t chunk, next;
    } * sources;
    bool *moved;  // by node: comes with an update
} wants;

// The node that makes a parameter's gradient again, just before its update (graph/carry.h), or UINT32_MAX.
static uint32_t made_again_by(const pb_graph *g, const pb_layout_param *param) {
    const uint32_t n = param->node == UINT32_MAX ? UINT32_MAX : g->values[param->gradient].producer;
    return n != UINT32_MAX && g->nodes[n].phase == PB_PHASE_UPDATE ? n : UINT32_MAX;
}

static pb_status find_wants(pb_pager *p, wants *w) {
    const pb_graph *g = p->graph;
    const pb_chunking *l = p->layout;
    uint32_t source_count = 0;
    w->made_by = pb_arena_array(p->arena, g->value_count + 1, sizeof *w->made_by);
    w->first = pb_arena_array(p->arena, g->value_count + 1, sizeof *w->first);
    w->sources = pb_arena_array(p->arena, (size_t)l->param_count * PB_MAX_INPUTS + 1, sizeof *w->sources);
    w->moved = pb_arena_array(p->arena, g->node_count + 1, sizeof *w->moved);
    if (!w->made_by || !w->first || !w->sources || !w->moved) return NO_MEMORY;
    memset(w->made_by, 0xff, g->value_count * sizeof *w->made_by);
    memset(w->first, 0xff, g->value_count * sizeof *w->first);
    for (uint32_t i = 0; i < l->param_count; i++) {
        const pb_layout_param *param = &l->params[i];
        if (param->node == UINT32_MAX) continue;
        const pb_node *update = &g->nodes[param->node];
        w->moved[param->node] = true;
        for (int o = 0; o < PB_MAX_OUTPUTS; o++)
            if (update->out[o] != PB_NONE) w->made_by[update->out[o]] = param->chunk;
        const uint32_t again = made_again_by(g, param);
        if (again == UINT32_MAX) continue;
        w->moved[again] = true;
        for (int k = 0; k < PB_MAX_INPUTS; k++) {
            const pb_vid v = g->nodes[again].in[k];
            if (v == PB_NONE) continue;
            w->sources[source_count] = (struct source){param->chunk, w->first[v]};
            w->first[v] = source_count++;
        }
    }
    return PB_OK;
}

// The chunks that have to be updated before a node runs: it reads what they make, or writes over what they work from.
// Each may come several times. Returns how many.
static uint32_t list_wanted(const pb_graph *g, const wants *w, const pb_node *node, uint32_t *chunks) {
    uint32_t count = 0;
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (node->in[i] != PB_NONE && w->made_by[node->in[i]] != UINT32_MAX) chunks[count++] = w->made_by[node->in[i]];
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) {
        if (node->out[o] == PB_NONE) continue;
        for (uint32_t s = w->first[pb_graph_root(g, node->out[o])]; s != UINT32_MAX; s = w->sources[s].next)
            chunks[count++] = w->sources[s].chunk;
    }
    return count;
}

// A chunk's update, and before it what makes its gradients again. The host needs those sent first.
static void add_updates(pb_pager *p, uint32_t chunk, bool *done) {
    const pb_layout_chunk *c = &p->layout->chunks[chunk];
    bool again = false;
    if (done[chunk] || p->layout->params[c->first_param].node == UINT32_MAX) return;
    done[chunk] = true;
    for (uint32_t i = c->first_param; i < c->first_param + c->param_count; i++) {
        const uint32_t n = made_again_by(p->graph, &p->layout->params[i]);
        if (n != UINT32_MAX) p->slots[p->slot_count++] = (pb_slot){.node = n, .unit = UINT32_MAX};
        again = again || n != UINT32_MAX;
    }
    for (int i = 0; i < SEND_AHEAD && again && p->attempt.strategy == PB_STRATEGY_HOST; i++)
        p->slots[p->slot_count++] = (pb_slot){UINT32_MAX, UINT32_MAX};
    for (uint32_t u = c->first_unit; u < c->first_unit + c->unit_count; u++)
        p->slots[p->slot_count++] = (pb_slot){.node = UINT32_MAX, .unit = u};
}

// Chunks in the order in which their updates are wanted. `listed` is clear. Returns how many.
static uint32_t order_chunks(const pb_graph *g, const wants *w, uint32_t *wanted, bool *listed, uint32_t *sequence) {
    uint32_t count = 0;
    for (uint32_t n = 0; n < g->node_count; n++) {
        if (w->moved[n]) continue;
        const uint32_t most = list_wanted(g, w, &g->nodes[n], wanted);
        for (uint32_t i = 0; i < most; i++) {
            if (listed[wanted[i]]) continue;
            listed[wanted[i]] = true;
            sequence[count++] = wanted[i];
        }
    }
    return count;
}

static pb_status find_parts(pb_pager *p) {
    const pb_chunking *l = p->layout;
    p->in_parts = pb_arena_array(p->arena, l->chunk_count + 1, sizeof *p->in_parts);
    if (!p->in_parts) return NO_MEMORY;
    for (uint32_t c = 0; c < l->chunk_count; c++) {
        const pb_layout_chunk *chunk = &l->chunks[c];
        p->in_parts[c] = chunk->unit_count > 0;
        for (uint32_t i = chunk->first_param; i < chunk->first_param + chunk->param_count; i++)
            if (made_again_by(p->graph, &l->params[i]) == UINT32_MAX) p->in_parts[c] = false;
    }
    return PB_OK;
}

// Every update stands just before the first op that wants it made, or, on the host, some chunks earlier; where nothing
// does any more (the update ends the step), behind everything else.
static pb_status order_slots(pb_pager *p) {
    const pb_graph *g = p->graph;
    const pb_chunking *l = p->layout;
    pb_status status = PB_OK;
    wants w;
    p->slots = pb_arena_array(p->arena, (size_t)g->node_count + l->unit_count + SEND_AHEAD * (l->chunk_count + 1) + 1,
                              sizeof *p->slots);
    uint32_t *sequence = malloc((l->chunk_count + 1) * sizeof *sequence);
    uint32_t *wanted = malloc(((size_t)l->param_count * PB_MAX_INPUTS + PB_MAX_INPUTS) * sizeof *wanted);
    bool *listed = calloc(l->chunk_count + 1, sizeof *listed), *done = calloc(l->chunk_count + 1, sizeof *done);
    uint32_t reached = 0;
    if (!p->slots || !sequence || !wanted || !listed || !done) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    PB_TRY(find_wants(p, &w));
    const uint32_t sequence_count = order_chunks(g, &w, wanted, listed, sequence);
    const bool on_host = p->attempt.strategy == PB_STRATEGY_HOST;
    const uint32_t ahead = on_host ? CHUNKS_AHEAD : 0;
    for (int i = 0; i < SEND_AHEAD && on_host; i++) p->slots[p->slot_count++] = (pb_slot){UINT32_MAX, UINT32_MAX};
    for (uint32_t n = 0; n < g->node_count; n++) {
        if (w.moved[n]) continue;
        const uint32_t most = list_wanted(g, &w, &g->nodes[n], wanted);
        for (uint32_t i = 0; i < most; i++) {
            if (done[wanted[i]]) continue;
            while (sequence[reached] != wanted[i]) reached++;
            for (uint32_t k = 0; k <= reached + ahead && k < sequence_count; k++) add_updates(p, sequence[k], done);
        }
        p->slots[p->slot_count++] = (pb_slot){.node = n, .unit = UINT32_MAX};
    }
    for (uint32_t c = 0; c < l->chunk_count; c++) add_updates(p, c, done);
fail:
    free(sequence);
    free(wanted);
    free(listed);
    free(done);
    return status;
}

static void time_slots(pb_pager *p) {
    const pb_chunking *l = p->layout;
    const pb_lane lane = p->attempt.strategy == PB_STRATEGY_HOST ? PB_LANE_HOST : PB_LANE_COMPUTE;
    double now = 0;
    for (uint32_t s = 0; s < p->slot_count; s++) {
        p->seconds[s] = now;
        if (p->slots[s].node != UINT32_MAX) {
            now += pb_node_seconds(p->machine, p->graph, p->slots[s].node);
            continue;
        }
        if (p->slots[s].unit == UINT32_MAX) continue;
        const pb_layout_unit *u = &l->units[p->slots[s].unit];
        for (uint32_t i = u->first_slice; i < u->first_slice + u->slice_count; i++)
            now += pb_machine_update_seconds(p->machine, p->graph, l->params[l->slices[i].param].node,
                                             l->slices[i].count, lane);
    }
    p->seconds[p->slot_count] = p->seconds[p->slot_count + 1] = now;
}

// --- Segments ---

static void declare(pb_pager *p, uint32_t segment, pb_class class_, uint64_t bytes, bool lives_on, pb_home home) {
    pb_tier_segment *s = &p->device.segments[segment];
    *s = (pb_tier_segment){.bytes = bytes, .class_ = class_, .live_in = lives_on, .live_out = lives_on, .home = true};
    if (!p->adopted || !lives_on) return;
    s->home = home.tier == PB_TIER_DEVICE;
    s->home_offset = home.offset;
}

static bool lives_on(const pb_pager *p, pb_vid v) {
    return v != PB_NONE && p->graph->values[v].persistent;
}

static void declare_chunks(pb_pager *p) {
    const pb_chunking *l = p->layout;
    for (uint32_t c = 0; c < l->chunk_count; c++) {
        const pb_layout_chunk *chunk = &l->chunks[c];
        const pb_layout_param *first = &l->params[chunk->first_param];
        declare(p, p->weight_segment + c, PB_CLASS_WEIGHT, chunk->weight_bytes, lives_on(p, first->weight),
                l->weight_home[c]);
        declare(p, p->gradient_segment + c, PB_CLASS_GRADIENT, chunk->gradient_bytes, lives_on(p, first->gradient),
                l->gradient_home[c]);
        for (uint32_t u = chunk->first_unit; u < chunk->first_unit + chunk->unit_count; u++)
            declare(p, p->state_segment + u, PB_CLASS_STATE, l->units[u].state_bytes, l->units[u].state_bytes > 0,
                    l->state_home[u]);
    }
    for (uint32_t i = 0; i < l->other_count; i++) {
        const pb_value *v = &p->graph->values[l->others[i]];
        declare(p, p->other_segment + i, v->class_, pb_aligned(pb_value_bytes(v), PB_ALIGNMENT), true,
                l->other_home[i]);
    }
}

static void set_place(pb_pager *p, pb_vid v, uint32_t segment, uint64_t offset) {
    if (v != PB_NONE) p->place[v] = (pb_place_of){segment, offset};
}

// Each value's segment. Values that are versions of one another, or of which one takes over the other's bytes, share
// one.
static pb_status place_values(pb_pager *p) {
    const pb_graph *g = p->graph;
    const pb_chunking *l = p->layout;
    pb_vid *storage = malloc((g->value_count + 1) * sizeof *storage);
    uint32_t *last_read = malloc((g->value_count + 1) * sizeof *last_read);
    bool *is_state = calloc(g->value_count + 1, sizeof *is_state);
    if (!storage || !last_read || !is_state) {
        free(storage);
        free(last_read);
        free(is_state);
        return NO_MEMORY;
    }
    pb_storage_find(g, storage, last_read);
    for (pb_vid v = 0; v < g->value_count; v++) p->place[v].segment = UINT32_MAX;
    for (uint32_t i = 0; i < l->param_count; i++) {
        const pb_layout_param *param = &l->params[i];
        set_place(p, param->weight, p->weight_segment + param->chunk, param->weight_offset);
        set_place(p, param->gradient, p->gradient_segment + param->chunk, param->gradient_offset);
        for (uint32_t k = 0; k < param->state_count; k++) is_state[param->state[k]] = true;
    }
    for (uint32_t i = 0; i < l->other_count; i++) set_place(p, l->others[i], p->other_segment + i, 0);
    uint32_t next = p->value_segment;
    for (pb_vid v = 0; v < g->value_count; v++) {
        const pb_value *value = &g->values[v];
        const pb_vid root = storage[v];
        if (is_state[root] || p->place[v].segment != UINT32_MAX) continue;
        // What pruning left without a producer and without a reader takes no room.
        if (value->producer == PB_NONE && value->class_ != PB_CLASS_INPUT && !value->persistent) continue;
        if (p->place[root].segment == UINT32_MAX) {
            declare(p, next, value->class_, 0, false, (pb_home){0});
            set_place(p, root, next++, 0);
        }
        p->place[v] = p->place[root];
        if (p->place[v].segment < p->value_segment) continue;
        pb_tier_segment *s = &p->device.segments[p->place[v].segment];
        const uint64_t bytes = pb_aligned(pb_value_bytes(value), PB_ALIGNMENT);
        if (bytes > s->bytes) s->bytes = bytes;
        if (value->producer == PB_NONE) s->live_in = true;
        if (value->output) s->live_out = true;
    }
    p->device.segment_count = next;
    free(storage);
    free(last_read);
    free(is_state);
    return PB_OK;
}

// --- Accesses ---

// Which of a segment's two lists an access is in.
typedef enum event_use {
    USE_ALWAYS,
    USE_DEVICE_UPDATES,  // not made by the device where the host does the updates
    USE_HOST_UPDATES,    // and only made there
} event_use;

typedef struct event {
    uint32_t segment, slot;
    pb_access_kind kind;
    event_use use;
} event;

typedef struct event_list {
    event *items;
    uint32_t count;
    bool *written;  // by segment
} event_list;

static void add_event(event_list *list, uint32_t segment, uint32_t slot, pb_access_kind kind, event_use use) {
    if (segment != UINT32_MAX) list->items[list->count++] = (event){segment, slot, kind, use};
}

static void node_events(pb_pager *p, event_list *list, uint32_t slot, const pb_node *node) {
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (node->in[i] != PB_NONE) add_event(list, p->place[node->in[i]].segment, slot, PB_ACCESS_READ, USE_ALWAYS);
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) {
        const uint32_t segment = node->out[o] == PB_NONE ? UINT32_MAX : p->place[node->out[o]].segment;
        if (segment == UINT32_MAX) continue;
        // The first of a chunk's gradients to be made finds nothing there that is still needed.
        add_event(list, segment, slot, list->written[segment] ? PB_ACCESS_MODIFY : PB_ACCESS_WRITE, USE_ALWAYS);
        list->written[segment] = true;
    }
}

// What the device sends of a unit's gradients, for the host's update in `slot`: all of the chunk's with the first unit;
// or, where each unit's part is sent by itself, with the last one what is then used up.
static void send_events(pb_pager *p, event_list *list, uint32_t slot, uint32_t unit) {
    const uint32_t c = p->layout->units[unit].chunk, gradients = p->gradient_segment + c;
    const pb_layout_chunk *chunk = &p->layout->chunks[c];
    const bool parts = p->in_parts[c];
    const uint32_t sent_with = chunk->first_unit + (parts ? chunk->unit_count - 1 : 0);
    if (unit == sent_with && slot >= SEND_AHEAD)
        add_event(list, gradients, slot - SEND_AHEAD, PB_ACCESS_SEND, USE_HOST_UPDATES);
    else if (parts && unit + 1 < sent_with)  // in the slot of the last but one it is sent
        add_event(list, gradients, slot - PB_PART_AHEAD, PB_ACCESS_READ, USE_HOST_UPDATES);
}

static void unit_events(pb_pager *p, event_list *list, uint32_t slot, uint32_t unit) {
    const pb_chunking *l = p->layout;
    const pb_layout_unit *u = &l->units[unit];
    const pb_layout_chunk *chunk = &l->chunks[u->chunk];
    const pb_layout_param *param = &l->params[chunk->first_param];
    const uint32_t weights = p->weight_segment + u->chunk;
    if (u->state_bytes) add_event(list, p->state_segment + unit, slot, PB_ACCESS_MODIFY, USE_DEVICE_UPDATES);
    send_events(p, list, slot, unit);
    add_event(list, p->gradient_segment + u->chunk, slot, PB_ACCESS_READ, USE_DEVICE_UPDATES);
    const pb_node *node = &p->graph->nodes[param->node];
    for (int i = 1; i < 3; i++) add_event(list, p->place[node->in[i]].segment, slot, PB_ACCESS_READ, USE_ALWAYS);
    if (param->weight == PB_NONE) return;
    add_event(list, weights, slot,
              !param->reads_weight && unit == chunk->first_unit ? PB_ACCESS_WRITE : PB_ACCESS_MODIFY,
              USE_DEVICE_UPDATES);
    list->written[weights] = true;
}

static bool belongs(const event *e, bool alternate) {
    return e->use == USE_ALWAYS || alternate == (e->use == USE_HOST_UPDATES);
}

// Sorted into each segment's two lists of accesses: with the updates on the device, and without.
static pb_status distribute(pb_pager *p, const event_list *list) {
    const uint32_t segments = p->device.segment_count;
    for (int alternate = 0; alternate < 2; alternate++) {
        pb_access *items = pb_arena_array(p->arena, list->count + 1, sizeof *items);
        bool *vacated = pb_arena_array(p->arena, list->count + 1, sizeof *vacated);
        uint32_t *begin = pb_arena_array(p->arena, segments + 2, sizeof *begin);
        if (!items || !vacated || !begin) return NO_MEMORY;
        for (uint32_t e = 0; e < list->count; e++)
            if (belongs(&list->items[e], alternate)) begin[list->items[e].segment + 2]++;
        for (uint32_t s = 0; s <= segments; s++) begin[s + 1] += begin[s];
        for (uint32_t s = 0; s < segments; s++) {
            pb_accesses *use = &p->device.segments[s].use[alternate];
            *use = (pb_accesses){.items = items + begin[s + 1], .vacated = vacated + begin[s + 1]};
        }
        for (uint32_t e = 0; e < list->count; e++) {
            const event *now = &list->items[e];
            if (!belongs(now, alternate)) continue;
            pb_accesses_add(&p->device.segments[now->segment].use[alternate], now->slot, now->kind);
        }
    }
    return PB_OK;
}

static pb_status find_accesses(pb_pager *p) {
    const size_t room = (size_t)p->slot_count * (PB_MAX_INPUTS + PB_MAX_OUTPUTS) + 1;
    event_list list = {.items = malloc(room * sizeof *list.items)};
    list.written = calloc(p->device.segment_count + 1, sizeof *list.written);
    pb_status status = list.items && list.written ? PB_OK : NO_MEMORY;
    for (uint32_t s = 0; s < p->slot_count && status == PB_OK; s++) {
        const pb_slot *slot = &p->slots[s];
        if (slot->node != UINT32_MAX)
            node_events(p, &list, s, &p->graph->nodes[slot->node]);
        else if (slot->unit != UINT32_MAX)
            unit_events(p, &list, s, slot->unit);
    }
    if (status == PB_OK) status = distribute(p, &list);
    free(list.items);
    free(list.written);
    return status;
}

// --- What can be made again ---

// A gap of fewer slots is not worth it.
enum { SHORTEST_REMAKE = 4 };

// The longest gap between two reads, or UINT32_MAX.
static uint32_t longest_gap(const pb_pager *p, const pb_accesses *use) {
    uint32_t longest = UINT32_MAX;
    double most = 0;
    for (uint32_t i = 0; i + 1 < use->count; i++) {
        const pb_access *a = &use->items[i], *b = &use->items[i + 1];
        const double seconds = p->seconds[b->slot] - p->seconds[a->slot];
        if (a->kind != PB_ACCESS_READ || b->kind != PB_ACCESS_READ) continue;
        if (b->slot - a->slot < SHORTEST_REMAKE || seconds <= most) continue;
        longest = i;
        most = seconds;
    }
    return longest;
}

// A working copy that passes with the step, and is its master rounded.
static bool is_copy(const pb_pager *p, const pb_layout_param *param) {
    return param->node != UINT32_MAX && !lives_on(p, param->weight) &&
           pb_can_recast(p->graph, &p->graph->nodes[param->node]);
}

static bool all_copies(const pb_pager *p, const pb_layout_chunk *chunk) {
    const pb_chunking *l = p->layout;
    for (uint32_t i = chunk->first_param; i < chunk->first_param + chunk->param_count; i++)
        if (!is_copy(p, &l->params[i])) return false;
    return chunk->unit_count > 0;
}

// A unit's part of the weights, by itself.
static uint64_t part_bytes(const pb_pager *p, const pb_layout_unit *u) {
    const pb_chunking *l = p->layout;
    uint64_t bytes = 0;
    for (uint32_t i = u->first_slice; i < u->first_slice + u->slice_count; i++)
        bytes += pb_aligned((uint64_t)l->slices[i].count *
                                pb_dtype_size(p->graph->values[l->params[l->slices[i].param].weight].dtype),
                            PB_ALIGNMENT);
    return bytes;
}

// Working copies that need not stay from their last use in the forward pass to their first in the backward pass: what
// they are made of are the units' states, and each has a stand-in.
static pb_status find_remakes(pb_pager *p) {
    const pb_chunking *l = p->layout;
    for (uint32_t c = 0; c < l->chunk_count; c++) {
        const pb_layout_chunk *chunk = &l->chunks[c];
        pb_tier_segment *weights = &p->device.segments[p->weight_segment + c];
        const uint32_t gap = all_copies(p, chunk) ? longest_gap(p, &weights->use[0]) : UINT32_MAX;
        if (gap == UINT32_MAX) continue;
        weights->remake_gap = gap;
        weights->stand_in = p->stand_in_segment + chunk->first_unit;
        weights->stand_in_count = chunk->unit_count;
        for (uint32_t u = chunk->first_unit; u < chunk->first_unit + chunk->unit_count; u++) {
            pb_tier_segment *state = &p->device.segments[p->state_segment + u];
            pb_tier_segment *part = &p->device.segments[p->stand_in_segment + u];
            pb_accesses *use = &part->use[0];
            state->stand_in = p->stand_in_segment + u;
            state->stand_in_count = 1;
            *part = (pb_tier_segment){.bytes = part_bytes(p, &l->units[u]), .class_ = PB_CLASS_WEIGHT, .home = true};
            use->items = pb_arena_array(p->arena, 2, sizeof *use->items);
            use->vacated = pb_arena_array(p->arena, 2, sizeof *use->vacated);
            if (!use->items || !use->vacated) return NO_MEMORY;
            pb_accesses_add(use, weights->use[0].items[gap].slot, PB_ACCESS_WRITE);
            pb_accesses_add(use, weights->use[0].items[gap + 1].slot, PB_ACCESS_READ);
        }
    }
    return PB_OK;
}

// Weights that the host updates come to the device after that.
static void find_earliest(pb_pager *p) {
    for (uint32_t s = 0; s < p->slot_count; s++) {
        if (p->slots[s].unit == UINT32_MAX) continue;
        const uint32_t chunk = p->layout->units[p->slots[s].unit].chunk;
        p->device.segments[p->weight_segment + chunk].earliest[1] = s + 1;
    }
}

static void find_scratch(pb_pager *p) {
    for (uint32_t s = 0; s < p->slot_count; s++) {
        if (p->slots[s].node == UINT32_MAX) continue;
        const pb_node *node = &p->graph->nodes[p->slots[s].node];
        if (!p->request->workspaces || !p->request->workspaces[node->op]) continue;
        pb_kernel_args args;
        pb_node_kernel_args(p->graph, node, &args);
        p->scratch[s] = pb_aligned(p->request->workspaces[node->op](&args), PB_ALIGNMENT);
        p->device.other[s] = p->scratch[s];
    }
}

// A step whose updates are deferred may be followed by a program that only makes those that are due (a flush), with
// everything else where the step has left it. So at the step's end there has to be room for what the update of any one
// chunk brings there.
static void leave_room(pb_pager *p) {
    const pb_chunking *l = p->layout;
    uint64_t most = 0, scratch = 0;
    if (p->adopted || !p->request->budget[PB_TIER_HOST]) return;
    for (uint32_t s = 0; s < p->slot_count; s++) {
        const uint32_t n = p->slots[s].node;
        if (n != UINT32_MAX && p->graph->nodes[n].phase == PB_PHASE_UPDATE && p->scratch[s] > scratch)
            scratch = p->scratch[s];
    }
    for (uint32_t u = 0; u < l->unit_count; u++) {
        const pb_layout_chunk *c = &l->chunks[l->units[u].chunk];
        // What the host updates comes no nearer than that.
        const uint64_t moved = pb_host_updates(p) ? 0 : l->units[u].state_bytes + c->weight_bytes;
        if (c->gradient_bytes + moved > most) most = c->gradient_bytes + moved;
    }
    p->scratch[p->slot_count] = p->device.other[p->slot_count] = most + scratch;
}

pb_status pb_pager_build(pb_pager *p) {
    const pb_chunking *l = p->layout;
    p->weight_segment = 0;
    p->gradient_segment = l->chunk_count;
    p->state_segment = p->gradient_segment + l->chunk_count;
    p->other_segment = p->state_segment + l->unit_count;
    p->stand_in_segment = p->other_segment + l->other_count;
    p->value_segment = p->stand_in_segment + l->unit_count;
    PB_RETURN_IF(order_slots(p));
    PB_RETURN_IF(find_parts(p));
    const uint32_t slots = p->slot_count + 1;
    const size_t most = (size_t)p->value_segment + p->graph->value_count + 1;
    p->seconds = pb_arena_array(p->arena, slots + 1, sizeof *p->seconds);
    p->place = pb_arena_array(p->arena, p->graph->value_count + 1, sizeof *p->place);
    p->scratch = pb_arena_array(p->arena, slots, sizeof *p->scratch);
    p->scratch_offset = pb_arena_array(p->arena, slots, sizeof *p->scratch_offset);
    p->device = (pb_tier_problem){.slot_count = slots,
                                  .brings_home = p->attempt.gradients_stay && !p->adopted,
                                  .seconds = p->seconds,
                                  .segments = pb_arena_array(p->arena, most, sizeof *p->device.segments),
                                  .other = pb_arena_array(p->arena, slots, sizeof *p->device.other),
                                  .used = pb_arena_array(p->arena, slots, sizeof *p->device.used),
                                  .fetch_rate = p->machine->upload,
                                  .evict_rate = p->machine->download,
                                  .both_rate = p->machine->copy_both,
                                  .drains = p->attempt.strategy == PB_STRATEGY_STREAM};
    if (!p->seconds || !p->place || !p->scratch || !p->scratch_offset || !p->device.segments || !p->device.other ||
        !p->device.used)
        return NO_MEMORY;
    time_slots(p);
    declare_chunks(p);
    PB_RETURN_IF(place_values(p));
    find_scratch(p);
    leave_room(p);
    PB_RETURN_IF(find_accesses(p));
    PB_RETURN_IF(find_remakes(p));
    find_earliest(p);
    return PB_OK;
}
