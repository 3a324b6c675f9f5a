// Writes an attempt down as instructions, in an order in which they could be executed one by one. In each slot: what
// leaves the device, what leaves the host, what arrives on the host, what arrives on the device, and then the node or
// the update itself.
#include <stdlib.h>
#include <string.h>

#include "plan/pager.h"

typedef enum move_kind { MOVE_DOWNLOAD, MOVE_WRITE, MOVE_READ, MOVE_UPLOAD, MOVES } move_kind;

typedef struct move {
    uint32_t slot;
    move_kind kind;
    uint32_t urgency;  // the slot in which it is wanted
    uint32_t segment;  // of the device's problem
    uint32_t block;    // or the unit whose part of the gradients it is
    bool part;
} move;

static int by_slot(const void *left, const void *right) {
    const move *a = left, *b = right;
    if (a->slot != b->slot) return a->slot < b->slot ? -1 : 1;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    if (a->urgency != b->urgency) return a->urgency < b->urgency ? -1 : 1;
    return a->segment < b->segment ? -1 : a->segment > b->segment;
}

static uint32_t list_tier_moves(const pb_tier_problem *t, const uint32_t *device_segment, move_kind away,
                                move_kind towards, move *list, uint32_t count) {
    for (uint32_t i = 0; i < t->block_count; i++) {
        const pb_tier_block *b = &t->blocks[i];
        const uint32_t s = device_segment ? device_segment[b->segment] : b->segment;
        if (!t->segments[b->segment].bytes) continue;
        if (b->fetched) list[count++] = (move){b->first, towards, b->needed, s, i, false};
        if (b->evicted) list[count++] = (move){pb_tier_eviction_slot(t, b), away, b->last, s, i, false};
    }
    return count;
}

// Gradients that are sent in parts: those moves instead of one of the whole.
static uint32_t list_parts(const pb_pager *p, move *list, uint32_t count) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!pb_sends_parts(p, list[i].segment)) list[kept++] = list[i];
    for (uint32_t u = 0; u < p->layout->unit_count; u++) {
        const uint32_t slot = p->update_slot[u];
        if (p->part_segment[u] != UINT32_MAX)
            list[kept++] = (move){
                slot - PB_PART_AHEAD, MOVE_DOWNLOAD, slot, p->gradient_segment + p->layout->units[u].chunk, u, true};
    }
    return kept;
}

typedef struct writer {
    pb_pager *p;
    pb_program *program;
} writer;

static pb_insn *add(writer *w, pb_insn_kind kind, pb_lane lane) {
    pb_insn *insn = &w->program->insns[w->program->insn_count++];
    *insn = (pb_insn){.kind = kind, .lane = lane};
    for (int i = 0; i < PB_MAX_INPUTS; i++) insn->in[i].value = PB_NONE;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) insn->out[i].value = PB_NONE;
    return insn;
}

static void add_copy(writer *w, bool fetch, pb_lane lane, pb_tier from_tier, uint64_t from, pb_tier to_tier,
                     uint64_t to, uint64_t bytes, uint32_t extent) {
    pb_insn *insn = add(w, fetch ? PB_INSN_FETCH : PB_INSN_EVICT, lane);
    insn->from_tier = from_tier;
    insn->from = from;
    insn->to_tier = to_tier;
    insn->to = to;
    insn->bytes = bytes;
    insn->extent = extent;
}

static void add_part(writer *w, const move *m) {
    const pb_pager *p = w->p;
    uint64_t begin, bytes;
    pb_pager_find_part(p, m->block, &begin, &bytes);
    // It is still there in the slot before.
    const pb_tier_block *from = pb_tier_find(&p->device, m->segment, m->slot - 1);
    const pb_tier_block *to = pb_tier_find(&p->host, p->part_segment[m->block], m->slot);
    add_copy(w, false, PB_LANE_DOWNLOAD, PB_TIER_DEVICE, from->offset + begin, PB_TIER_HOST, to->offset, bytes, 0);
    w->program->moved[PB_LINK_DOWNLOAD] += bytes;
}

static void add_move(writer *w, const move *m) {
    if (m->part) {
        add_part(w, m);
        return;
    }
    const pb_pager *p = w->p;
    const uint32_t h = p->host_segment[m->segment];
    const uint64_t bytes = p->device.segments[m->segment].bytes;
    const pb_tier_block *host =
        m->kind == MOVE_WRITE || m->kind == MOVE_READ ? &p->host.blocks[m->block] : pb_tier_find(&p->host, h, m->slot);
    switch (m->kind) {
    case MOVE_DOWNLOAD:
        add_copy(w, false, PB_LANE_DOWNLOAD, PB_TIER_DEVICE, p->device.blocks[m->block].offset, PB_TIER_HOST,
                 host->offset, bytes, 0);
        w->program->moved[PB_LINK_DOWNLOAD] += bytes;
        break;
    case MOVE_UPLOAD:
        add_copy(w, true, PB_LANE_UPLOAD, PB_TIER_HOST, host->offset, PB_TIER_DEVICE, p->device.blocks[m->block].offset,
                 bytes, 0);
        w->program->moved[PB_LINK_UPLOAD] += bytes;
        break;
    case MOVE_WRITE:
        add_copy(w, false, PB_LANE_WRITE, PB_TIER_HOST, host->offset, PB_TIER_NVME, 0, p->host.segments[h].bytes,
                 p->extent[m->segment]);
        w->program->moved[PB_LINK_NVME_WRITE] += p->host.segments[h].bytes;
        break;
    default:
        add_copy(w, true, PB_LANE_READ, PB_TIER_NVME, 0, PB_TIER_HOST, host->offset, p->host.segments[h].bytes,
                 p->extent[m->segment]);
        w->program->moved[PB_LINK_NVME_READ] += p->host.segments[h].bytes;
    }
}

// Where a value is in a slot, on the device.
static uint64_t device_offset(const pb_pager *p, pb_vid v, uint32_t slot) {
    const pb_place_of at = p->place[v];
    const pb_tier_block *b = pb_tier_find(&p->device, at.segment, slot);
    return (b ? b->offset : 0) + at.offset;
}

static void add_node(writer *w, uint32_t slot, uint32_t n) {
    const pb_pager *p = w->p;
    const pb_node *node = &p->graph->nodes[n];
    pb_insn *insn = add(w, PB_INSN_RUN, PB_LANE_COMPUTE);
    insn->node = n;
    insn->workspace_bytes = p->scratch[slot];
    insn->workspace_offset = p->scratch[slot] ? p->scratch_offset[slot] : 0;
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (node->in[i] != PB_NONE) insn->in[i] = (pb_operand){node->in[i], device_offset(p, node->in[i], slot)};
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (node->out[i] != PB_NONE) insn->out[i] = (pb_operand){node->out[i], device_offset(p, node->out[i], slot)};
}

// --- Updates ---

// Where element `slice->first` of an update's operand is.
static uint64_t update_offset(const pb_pager *p, pb_vid v, uint32_t slot, uint32_t unit, const pb_layout_slice *slice,
                              bool on_host) {
    const pb_layout_param *param = &p->layout->params[slice->param];
    const pb_vid root = pb_graph_root(p->graph, v);
    const uint64_t skipped = pb_layout_slice_bytes(&p->graph->values[v], param->elements, slice->first);
    uint32_t segment = p->place[v].segment;
    uint64_t within = p->place[v].offset + skipped;
    for (uint32_t k = 0; k < param->state_count; k++) {
        if (param->state[k] != root) continue;
        segment = p->state_segment + unit;
        within = slice->state_offset[k];
    }
    if (on_host && pb_sends_parts(p, segment)) {
        uint64_t begin, bytes;
        pb_pager_find_part(p, unit, &begin, &bytes);
        const pb_tier_block *part = pb_tier_find(&p->host, p->part_segment[unit], slot);
        return (part ? part->offset : 0) + within - begin;
    }
    const pb_tier_block *b =
        on_host ? pb_tier_find(&p->host, p->host_segment[segment], slot) : pb_tier_find(&p->device, segment, slot);
    return (b ? b->offset : 0) + within;
}

static bool of_parameter(const pb_pager *p, pb_vid v) {
    const pb_class class_ = p->graph->values[v].class_;
    return class_ == PB_CLASS_WEIGHT || class_ == PB_CLASS_STATE || class_ == PB_CLASS_GRADIENT;
}

static uint64_t operand_offset(const pb_pager *p, pb_vid v, uint32_t slot, uint32_t unit, const pb_layout_slice *slice,
                               bool on_host) {
    if (of_parameter(p, v)) return update_offset(p, v, slot, unit, slice, on_host);
    if (!on_host) return device_offset(p, v, slot);
    return v == p->hyper ? p->hyper_offset : p->control_offset;
}

static void add_unit(writer *w, uint32_t slot, uint32_t unit) {
    const pb_pager *p = w->p;
    const pb_chunking *l = p->layout;
    const pb_layout_unit *u = &l->units[unit];
    const bool on_host = p->device.segments[p->gradient_segment + u->chunk].alternate;
    for (uint32_t i = u->first_slice; i < u->first_slice + u->slice_count; i++) {
        const pb_layout_slice *slice = &l->slices[i];
        const pb_layout_param *param = &l->params[slice->param];
        const pb_node *node = &p->graph->nodes[param->node];
        const bool whole = slice->count == param->elements;
        pb_insn *insn = add(w, whole ? PB_INSN_RUN : PB_INSN_UPDATE, on_host ? PB_LANE_HOST : PB_LANE_COMPUTE);
        insn->node = param->node;
        if (!whole) {
            insn->first = slice->first;
            insn->count = slice->count;
        }
        for (int k = 0; k < PB_MAX_INPUTS; k++)
            if (node->in[k] != PB_NONE)
                insn->in[k] = (pb_operand){node->in[k], operand_offset(p, node->in[k], slot, unit, slice, on_host)};
        for (int k = 0; k < PB_MAX_OUTPUTS; k++)
            if (node->out[k] != PB_NONE)
                insn->out[k] = (pb_operand){node->out[k], operand_offset(p, node->out[k], slot, unit, slice, on_host)};
    }
}

// --- Working copies that are made again ---

// What is done about them in a slot, before the node that reads them: of chunks, lists that UINT32_MAX ends.
typedef struct remakes {
    uint32_t *saved, *made;            // by slot
    uint32_t *next_saved, *next_made;  // by chunk
} remakes;

static bool list_remakes(const pb_pager *p, remakes *r) {
    const uint32_t chunks = p->layout->chunk_count, slots = p->slot_count;
    r->saved = malloc(2 * ((size_t)slots + chunks + 1) * sizeof *r->saved);
    if (!r->saved) return false;
    r->made = r->saved + slots;
    r->next_saved = r->made + slots;
    r->next_made = r->next_saved + chunks;
    memset(r->saved, 0xff, 2 * (size_t)slots * sizeof *r->saved);
    for (uint32_t c = chunks; c-- > 0;) {
        const pb_tier_segment *weights = &p->device.segments[p->weight_segment + c];
        if (!pb_tier_is_remade(weights)) continue;
        const pb_access *reads = weights->use[0].items + weights->remake_gap;
        r->next_saved[c] = r->saved[reads[0].slot];
        r->saved[reads[0].slot] = c;
        r->next_made[c] = r->made[reads[1].slot];
        r->made[reads[1].slot] = c;
    }
    return true;
}

// A unit's part of the weights: put aside into its stand-in, or made again of that or of its state.
static void add_recasts(writer *w, uint32_t slot, uint32_t unit, bool make) {
    const pb_pager *p = w->p;
    const pb_layout_unit *u = &p->layout->units[unit];
    const pb_tier_block *aside = pb_tier_find(&p->device, p->stand_in_segment + unit, slot);
    uint64_t place = aside ? aside->offset : 0;
    if (!aside && !make) return;
    for (uint32_t i = u->first_slice; i < u->first_slice + u->slice_count; i++) {
        const pb_layout_slice *slice = &p->layout->slices[i];
        const uint32_t n = p->layout->params[slice->param].node;
        const pb_vid master = p->graph->nodes[n].out[PB_ADAMW_NEW_MASTER];
        const pb_vid copy = p->graph->nodes[n].out[PB_ADAMW_NEW_WORK];
        const pb_operand whole = {copy, update_offset(p, copy, slot, unit, slice, false)}, part = {copy, place};
        pb_insn *insn = add(w, PB_INSN_RECAST, PB_LANE_COMPUTE);
        insn->node = n;
        insn->first = slice->first;
        insn->count = slice->count;
        insn->in[0] = !make   ? whole
                      : aside ? part
                              : (pb_operand){master, update_offset(p, master, slot, unit, slice, false)};
        insn->out[0] = make ? whole : part;
        place += pb_aligned((uint64_t)slice->count * pb_dtype_size(p->graph->values[copy].dtype), PB_ALIGNMENT);
    }
}

static void add_remakes(writer *w, uint32_t slot, const remakes *r, bool make) {
    const pb_layout_chunk *chunks = w->p->layout->chunks;
    for (uint32_t c = make ? r->made[slot] : r->saved[slot]; c != UINT32_MAX;
         c = make ? r->next_made[c] : r->next_saved[c])
        for (uint32_t u = chunks[c].first_unit; u < chunks[c].first_unit + chunks[c].unit_count; u++)
            add_recasts(w, slot, u, make);
}

// The step's small inputs, for the updates on the host.
static void copy_hyper(writer *w) {
    const pb_pager *p = w->p;
    if (p->last_host_update == UINT32_MAX) return;
    const pb_vid values[] = {p->control, p->hyper};
    const uint64_t offsets[] = {p->control_offset, p->hyper_offset};
    for (int i = 0; i < 2; i++) {
        const uint64_t bytes = pb_value_bytes(&p->graph->values[values[i]]);
        add_copy(w, false, PB_LANE_DOWNLOAD, PB_TIER_DEVICE, device_offset(p, values[i], 0), PB_TIER_HOST, offsets[i],
                 bytes, 0);
        w->program->moved[PB_LINK_DOWNLOAD] += bytes;
    }
}

static pb_status write_insns(writer *w) {
    pb_pager *p = w->p;
    uint32_t *device_segment = malloc((p->host.segment_count + 1) * sizeof *device_segment);
    const size_t most = 2 * ((size_t)p->device.block_count + p->host.block_count) + p->layout->unit_count + 1;
    move *moves = malloc(most * sizeof *moves);
    remakes again = {0};
    if (!device_segment || !moves || !list_remakes(p, &again)) {
        free(device_segment);
        free(moves);
        return NO_MEMORY;
    }
    memset(device_segment, 0xff, (p->host.segment_count + 1) * sizeof *device_segment);
    for (uint32_t s = 0; s < p->device.segment_count; s++)
        if (p->host_segment[s] != UINT32_MAX) device_segment[p->host_segment[s]] = s;
    uint32_t count = list_tier_moves(&p->device, NULL, MOVE_DOWNLOAD, MOVE_UPLOAD, moves, 0);
    count = list_parts(p, moves, count);
    count = list_tier_moves(&p->host, device_segment, MOVE_WRITE, MOVE_READ, moves, count);
    qsort(moves, count, sizeof *moves, by_slot);
    w->program->insns = pb_arena_array(
        w->program->arena, (size_t)p->slot_count + 3 * (size_t)p->layout->slice_count + count + 3, sizeof(pb_insn));
    if (w->program->insns) {
        copy_hyper(w);
        for (uint32_t s = 0, m = 0; s <= p->slot_count; s++) {
            while (m < count && moves[m].slot == s) add_move(w, &moves[m++]);
            if (s == p->slot_count) break;
            for (int make = 1; make >= 0; make--) add_remakes(w, s, &again, make);
            if (p->slots[s].node != UINT32_MAX)
                add_node(w, s, p->slots[s].node);
            else if (p->slots[s].unit != UINT32_MAX)
                add_unit(w, s, p->slots[s].unit);
        }
    }
    free(device_segment);
    free(moves);
    free(again.saved);
    return w->program->insns ? PB_OK : NO_MEMORY;
}

// --- What lies where between two steps ---

static pb_piece piece_at(pb_home home, uint64_t within, uint64_t begin, uint64_t bytes) {
    return (pb_piece){.begin = begin,
                      .bytes = bytes,
                      .tier = home.tier,
                      .extent = home.tier == PB_TIER_NVME ? home.extent : 0,
                      .offset = home.offset + within};
}

// The pieces of each parameter's states, and one piece for everything else, by ordinal of the root.
static pb_status write_pieces(writer *w) {
    pb_pager *p = w->p;
    const pb_graph *g = p->graph;
    const pb_chunking *l = p->layout;
    pb_program *program = w->program;
    uint32_t *count = calloc(g->value_count + 2, sizeof *count);
    program->pieces = pb_arena_array(
        program->arena, (size_t)l->root_count + (size_t)l->slice_count * PB_LAYOUT_STATES + 1, sizeof *program->pieces);
    program->first_piece = pb_arena_array(program->arena, g->value_count + 2, sizeof *program->first_piece);
    if (!count || !program->pieces || !program->first_piece) {
        free(count);
        return NO_MEMORY;
    }
    for (uint32_t i = 0; i < l->root_count; i++) count[l->roots[i]] = 1;
    for (uint32_t i = 0; i < l->param_count; i++)
        for (uint32_t k = 0; k < l->params[i].state_count; k++) count[l->params[i].state[k]] = 0;
    for (uint32_t i = 0; i < l->slice_count; i++) {
        const pb_layout_param *param = &l->params[l->slices[i].param];
        for (uint32_t k = 0; k < param->state_count; k++) count[param->state[k]]++;
    }
    uint32_t total = 0;
    for (pb_vid v = 0; v <= g->value_count; v++) {
        program->first_piece[v] = total;
        total += count[v];
        count[v] = 0;
    }
    for (uint32_t u = 0; u < l->unit_count; u++) {
        for (uint32_t i = l->units[u].first_slice; i < l->units[u].first_slice + l->units[u].slice_count; i++) {
            const pb_layout_slice *slice = &l->slices[i];
            const pb_layout_param *param = &l->params[slice->param];
            for (uint32_t k = 0; k < param->state_count; k++) {
                const pb_vid v = param->state[k];
                const uint64_t begin = pb_layout_slice_bytes(&g->values[v], param->elements, slice->first);
                const uint64_t bytes = pb_layout_slice_bytes(&g->values[v], param->elements, slice->count);
                program->pieces[program->first_piece[v] + count[v]++] =
                    piece_at(l->state_home[u], slice->state_offset[k], begin, bytes);
            }
        }
    }
    for (uint32_t i = 0; i < l->param_count; i++) {
        const pb_layout_param *param = &l->params[i];
        const pb_vid values[] = {param->weight, param->gradient};
        const pb_home homes[] = {l->weight_home[param->chunk], l->gradient_home[param->chunk]};
        const uint64_t within[] = {param->weight_offset, param->gradient_offset};
        for (int k = 0; k < 2; k++)
            if (values[k] != PB_NONE && g->values[values[k]].persistent)
                program->pieces[program->first_piece[values[k]]] =
                    piece_at(homes[k], within[k], 0, pb_value_bytes(&g->values[values[k]]));
    }
    for (uint32_t i = 0; i < l->other_count; i++)
        program->pieces[program->first_piece[l->others[i]]] =
            piece_at(l->other_home[i], 0, 0, pb_value_bytes(&g->values[l->others[i]]));
    free(count);
    return PB_OK;
}

static pb_status write_homes(writer *w) {
    pb_pager *p = w->p;
    const pb_graph *g = p->graph;
    pb_program *program = w->program;
    program->home = pb_arena_array(program->arena, g->value_count + 1, sizeof *program->home);
    if (!program->home) return NO_MEMORY;
    for (pb_vid v = 0; v < g->value_count; v++) {
        const pb_value *value = &g->values[v];
        const uint32_t s = p->place[v].segment;
        const bool input = value->producer == PB_NONE && value->class_ == PB_CLASS_INPUT;
        program->home[v] = UINT64_MAX;
        if (s == UINT32_MAX || value->persistent || (!input && !value->output)) continue;
        const pb_tier_segment *segment = &p->device.segments[s];
        if (!segment->block_count) continue;  // an input that nothing reads
        const uint32_t b = segment->first_block + (input ? 0 : segment->block_count - 1);
        program->home[v] = p->device.blocks[b].offset;
    }
    return PB_OK;
}

// --- Reports ---

static void report_tier(const pb_pager *p, const pb_tier_problem *t, pb_tier tier, pb_program *program) {
    int64_t(*change)[PB_CLASS_COUNT] = calloc((size_t)t->slot_count + 1, sizeof *change);
    if (!change) return;  // the figures stay 0: they are for people only
    for (uint32_t i = 0; i < t->block_count; i++) {
        const pb_tier_segment *s = &t->segments[t->blocks[i].segment];
        change[t->blocks[i].first][s->class_] += (int64_t)s->bytes;
        change[t->blocks[i].last + 1][s->class_] -= (int64_t)s->bytes;
    }
    int64_t alive[PB_CLASS_COUNT] = {0};
    uint64_t most = 0;
    for (uint32_t s = 0; s < t->slot_count; s++) {
        uint64_t sum = 0;
        for (int c = 0; c < PB_CLASS_COUNT; c++) alive[c] += change[s][c];
        alive[PB_CLASS_WORKSPACE] = tier == PB_TIER_DEVICE ? (int64_t)p->scratch[s] : 0;
        for (int c = 0; c < PB_CLASS_COUNT; c++) sum += (uint64_t)alive[c];
        if (sum < most) continue;
        most = sum;
        for (int c = 0; c < PB_CLASS_COUNT; c++) program->peak_by_class[tier][c] = (uint64_t)alive[c];
    }
    free(change);
    program->padding_bytes[tier] = program->tier_bytes[tier] - most;
    if (tier == PB_TIER_DEVICE) program->lower_bound = most;
}

// Whether it is made before a slot and needed from there on. What lives on from the step before is of no account until
// it is made anew.
static bool is_kept(const pb_tier_segment *s, uint32_t slot) {
    const pb_accesses *use = &s->use[0];
    bool made = false;
    for (uint32_t i = 0; i < use->count && use->items[i].slot < slot; i++)
        made = made || !s->live_in || use->items[i].kind == PB_ACCESS_WRITE;
    return made && (use->items[use->count - 1].slot >= slot || s->live_out);
}

static void report_kept(const pb_pager *p, pb_program *program) {
    const uint32_t backward = pb_pager_first_backward(p);
    for (uint32_t s = p->other_segment; s < p->device.segment_count && backward < p->slot_count; s++) {
        const pb_tier_segment *segment = &p->device.segments[s];
        if (segment->class_ == PB_CLASS_ACTIVATION && is_kept(segment, backward))
            program->kept_activations += segment->bytes;
    }
}

static void report_nvme(const pb_pager *p, pb_program *program) {
    for (uint32_t s = 0; s < p->device.segment_count; s++)
        if (p->extent[s] != UINT32_MAX)
            program->peak_by_class[PB_TIER_NVME][p->device.segments[s].class_] += p->extent_bytes[p->extent[s]];
}

pb_status pb_pager_emit(pb_pager *p, pb_program **result) {
    pb_status status = PB_OK;
    pb_program *program = NULL;
    pb_arena *arena = pb_arena_create();
    if (arena) program = pb_arena_alloc(arena, sizeof *program);
    if (!program) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    program->arena = arena;
    writer w = {.p = p, .program = program};
    PB_TRY(write_insns(&w));
    PB_TRY(write_pieces(&w));
    PB_TRY(write_homes(&w));
    program->extent_count = p->extent_count;
    program->extent_bytes = pb_arena_array(arena, p->extent_count + 1, sizeof *program->extent_bytes);
    if (!program->extent_bytes) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    memcpy(program->extent_bytes, p->extent_bytes, p->extent_count * sizeof *program->extent_bytes);
    program->tier_bytes[PB_TIER_DEVICE] = p->device_bytes;
    program->tier_bytes[PB_TIER_HOST] = p->host_bytes;
    for (uint32_t e = 0; e < p->extent_count; e++) program->tier_bytes[PB_TIER_NVME] += p->extent_bytes[e];
    report_tier(p, &p->device, PB_TIER_DEVICE, program);
    report_tier(p, &p->host, PB_TIER_HOST, program);
    report_nvme(p, program);
    report_kept(p, program);
    PB_TRY(pb_program_synchronize(arena, p->graph, program));
    pb_chunking *layout = pb_arena_alloc(arena, sizeof *layout);
    if (!layout) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    PB_TRY(pb_layout_adopt(arena, p->layout, p->graph, layout));
    program->layout = layout;
    *result = program;
    arena = NULL;
fail:
    pb_arena_destroy(arena);
    return status;
}
