#include "plan/layout.h"

#include <stdlib.h>
#include <string.h>

uint64_t pb_layout_slice_bytes(const pb_value *value, int64_t elements, int64_t count) {
    return (uint64_t)pb_adamw_entries(pb_shape_count(value->shape), elements, count) * pb_dtype_size(value->dtype);
}

static pb_status find_roots(pb_arena *arena, const pb_graph *g, pb_chunking *l) {
    l->roots = pb_arena_array(arena, g->value_count + 1, sizeof *l->roots);
    if (!l->roots) return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    for (pb_vid v = 0; v < g->value_count; v++)
        if (g->values[v].persistent && g->values[v].alias == PB_NONE) l->roots[l->root_count++] = v;
    return PB_OK;
}

// What an adamw node says of its parameter.
static pb_layout_param describe(const pb_graph *g, uint32_t n) {
    const pb_node *node = &g->nodes[n];
    pb_layout_param p = {.weight = PB_NONE, .gradient = PB_NONE, .node = n};
    p.gradient = pb_graph_root(g, node->in[0]);
    p.key = pb_graph_root(g, node->in[3]);
    p.elements = pb_shape_count(g->values[node->in[0]].shape);
    for (int i = 1; i < PB_MAX_INPUTS; i++) {
        if (node->in[i] == PB_NONE) continue;
        const pb_vid root = pb_graph_root(g, node->in[i]);
        if (g->values[root].class_ == PB_CLASS_WEIGHT) {
            p.weight = root;
            p.reads_weight = true;
        }
        if (g->values[root].class_ == PB_CLASS_STATE && p.state_count < PB_LAYOUT_STATES)
            p.state[p.state_count++] = root;
    }
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (node->out[i] != PB_NONE && g->values[node->out[i]].class_ == PB_CLASS_WEIGHT)
            p.weight = pb_graph_root(g, node->out[i]);
    return p;
}

typedef struct ranked {
    uint32_t first_use;
    pb_layout_param param;
} ranked;

static int by_use(const void *left, const void *right) {
    const ranked *a = left, *b = right;
    if (a->first_use != b->first_use) return a->first_use < b->first_use ? -1 : 1;
    return a->param.node < b->param.node ? -1 : a->param.node > b->param.node;
}

// Parameters in the order in which ops (not updates) first read them.
static pb_status rank(const pb_graph *g, ranked **result, uint32_t *count) {
    uint32_t *first_use = malloc((g->value_count + 1) * sizeof *first_use);
    ranked *items = calloc(g->node_count + 1, sizeof *items);
    if (!first_use || !items) {
        free(first_use);
        free(items);
        return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    }
    memset(first_use, 0xff, (g->value_count + 1) * sizeof *first_use);
    for (uint32_t n = g->node_count; n-- > 0;) {
        if (g->nodes[n].op == PB_OP_ADAMW) continue;
        for (int i = 0; i < PB_MAX_INPUTS; i++)
            if (g->nodes[n].in[i] != PB_NONE) first_use[pb_graph_root(g, g->nodes[n].in[i])] = n;
    }
    *count = 0;
    for (uint32_t n = 0; n < g->node_count; n++) {
        if (g->nodes[n].op != PB_OP_ADAMW) continue;
        ranked *item = &items[(*count)++];
        item->param = describe(g, n);
        item->first_use = item->param.weight == PB_NONE ? UINT32_MAX : first_use[item->param.weight];
    }
    qsort(items, *count, sizeof *items, by_use);
    free(first_use);
    *result = items;
    return PB_OK;
}

static uint64_t state_bytes(const pb_graph *g, const pb_layout_param *p, int64_t count) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < p->state_count; i++)
        bytes += pb_aligned(pb_layout_slice_bytes(&g->values[p->state[i]], p->elements, count), PB_ALIGNMENT);
    return bytes;
}

// Elements per slice so that its state takes at most `unit_bytes`.
static int64_t slice_elements(const pb_graph *g, const pb_layout_param *p, uint64_t unit_bytes) {
    if (!unit_bytes) return p->elements;
    const uint64_t block = state_bytes(g, p, PB_SLICE_ELEMENTS);
    const uint64_t blocks = block ? unit_bytes / block : UINT64_MAX;
    const int64_t most = (p->elements + PB_SLICE_ELEMENTS - 1) / PB_SLICE_ELEMENTS;
    return (blocks < 1 ? 1 : blocks > (uint64_t)most ? most : (int64_t)blocks) * PB_SLICE_ELEMENTS;
}

// Adds elements [first, first + count) of a parameter to the newest unit.
static void add_slice(pb_chunking *l, const pb_graph *g, uint32_t param, int64_t first, int64_t count) {
    pb_layout_unit *unit = &l->units[l->unit_count - 1];
    const pb_layout_param *p = &l->params[param];
    pb_layout_slice *slice = &l->slices[l->slice_count++];
    *slice = (pb_layout_slice){.param = param, .first = first, .count = count};
    unit->slice_count++;
    for (uint32_t i = 0; i < p->state_count; i++) {
        slice->state_offset[i] = unit->state_bytes;
        unit->state_bytes +=
            pb_aligned(pb_layout_slice_bytes(&g->values[p->state[i]], p->elements, count), PB_ALIGNMENT);
    }
}

static void begin_unit(pb_chunking *l) {
    pb_layout_chunk *chunk = &l->chunks[l->chunk_count - 1];
    if (!chunk->unit_count++) chunk->first_unit = l->unit_count;
    l->units[l->unit_count++] = (pb_layout_unit){.chunk = l->chunk_count - 1, .first_slice = l->slice_count};
}

// Weights and gradients of a parameter join the newest chunk's segments.
static void join_chunk(pb_chunking *l, const pb_graph *g, uint32_t param) {
    pb_layout_chunk *chunk = &l->chunks[l->chunk_count - 1];
    pb_layout_param *p = &l->params[param];
    chunk->param_count++;
    p->chunk = l->chunk_count - 1;
    p->weight_offset = chunk->weight_bytes;
    p->gradient_offset = chunk->gradient_bytes;
    if (p->weight != PB_NONE) chunk->weight_bytes += pb_aligned(pb_value_bytes(&g->values[p->weight]), PB_ALIGNMENT);
    chunk->gradient_bytes += pb_aligned(pb_value_bytes(&g->values[p->gradient]), PB_ALIGNMENT);
}

enum { KINDS = 8 };

// A segment lives on as a whole or not at all, and is read before an update writes it or not, so a chunk's parameters
// agree about their weights (a working copy beside the state need not live on, nor be there before it is made anew) and
// about their gradients (of this step, or held from one to the next).
static int kind_of(const pb_graph *g, const pb_layout_param *p) {
    const bool copy = p->weight == PB_NONE || !g->values[p->weight].persistent;
    return (p->reads_weight ? 4 : 0) + (copy ? 2 : 0) + (g->values[p->gradient].persistent ? 1 : 0);
}

// Chunks of one kind.
static void cut(pb_chunking *l, const pb_graph *g, uint64_t unit_bytes, uint32_t begin, uint32_t end) {
    uint64_t filled = UINT64_MAX;  // of the newest chunk, if it is one of several parameters
    for (uint32_t i = begin; i < end; i++) {
        const pb_layout_param *p = &l->params[i];
        uint64_t bytes = state_bytes(g, p, p->elements);
        if (bytes < pb_value_bytes(&g->values[p->gradient])) bytes = pb_value_bytes(&g->values[p->gradient]);
        if (!unit_bytes || filled == UINT64_MAX || bytes > unit_bytes || filled + bytes > unit_bytes) {
            l->chunks[l->chunk_count++] = (pb_layout_chunk){.first_param = i};
            filled = 0;
            if (!unit_bytes || bytes <= unit_bytes) begin_unit(l);
        }
        join_chunk(l, g, i);
        if (!unit_bytes || bytes <= unit_bytes) {
            filled += bytes;
            add_slice(l, g, i, 0, p->elements);
            continue;
        }
        const int64_t step = slice_elements(g, p, unit_bytes);
        for (int64_t first = 0; first < p->elements; first += step) {
            begin_unit(l);
            add_slice(l, g, i, first, p->elements - first < step ? p->elements - first : step);
        }
        filled = UINT64_MAX;
    }
}

static pb_status find_others(pb_arena *arena, const pb_graph *g, pb_chunking *l) {
    bool *taken = calloc(g->value_count + 1, sizeof *taken);
    l->others = pb_arena_array(arena, l->root_count + 1, sizeof *l->others);
    if (!taken || !l->others) {
        free(taken);
        return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    }
    for (uint32_t i = 0; i < l->param_count; i++) {
        const pb_layout_param *p = &l->params[i];
        if (p->weight != PB_NONE) taken[p->weight] = true;
        if (p->gradient != PB_NONE) taken[p->gradient] = true;
        for (uint32_t k = 0; k < p->state_count; k++) taken[p->state[k]] = true;
    }
    for (uint32_t i = 0; i < l->root_count; i++)
        if (!taken[l->roots[i]]) l->others[l->other_count++] = l->roots[i];
    free(taken);
    return PB_OK;
}

static bool allocate(pb_arena *arena, pb_chunking *l, uint32_t params, uint32_t slices) {
    l->params = pb_arena_array(arena, params + 1, sizeof *l->params);
    l->slices = pb_arena_array(arena, slices + 1, sizeof *l->slices);
    l->units = pb_arena_array(arena, slices + 1, sizeof *l->units);
    l->chunks = pb_arena_array(arena, params + 1, sizeof *l->chunks);
    l->weight_home = pb_arena_array(arena, params + 1, sizeof *l->weight_home);
    l->gradient_home = pb_arena_array(arena, params + 1, sizeof *l->gradient_home);
    l->state_home = pb_arena_array(arena, slices + 1, sizeof *l->state_home);
    l->other_home = pb_arena_array(arena, l->root_count + 1, sizeof *l->other_home);
    return l->params && l->slices && l->units && l->chunks && l->weight_home && l->gradient_home && l->state_home &&
           l->other_home;
}

pb_status pb_layout_create(pb_arena *arena, const pb_graph *g, uint64_t unit_bytes, pb_chunking *l) {
    pb_status status = PB_OK;
    ranked *items = NULL;
    uint32_t count = 0, slices = 0;
    *l = (pb_chunking){0};
    PB_TRY(find_roots(arena, g, l));
    PB_TRY(rank(g, &items, &count));
    for (uint32_t i = 0; i < count; i++) {
        const int64_t step = slice_elements(g, &items[i].param, unit_bytes);
        if (step) slices += (uint32_t)((items[i].param.elements + step - 1) / step);
    }
    if (!allocate(arena, l, count, slices)) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    for (int kind = 0; kind < KINDS; kind++) {
        const uint32_t begin = l->param_count;
        for (uint32_t i = 0; i < count; i++)
            if (kind_of(g, &items[i].param) == kind) l->params[l->param_count++] = items[i].param;
        cut(l, g, unit_bytes, begin, l->param_count);
    }
    PB_TRY(find_others(arena, g, l));
fail:
    free(items);
    return status;
}

static pb_vid mapped(const pb_chunking *from, const pb_chunking *to, pb_vid v) {
    for (uint32_t low = 0, high = from->root_count; low < high;) {
        const uint32_t middle = (low + high) / 2;
        if (from->roots[middle] == v) return to->roots[middle];
        if (from->roots[middle] < v)
            low = middle + 1;
        else
            high = middle;
    }
    return PB_NONE;  // a value that does not live on: it is found again from the node that makes it
}

static pb_status adopt_params(const pb_chunking *from, const pb_graph *g, pb_chunking *l) {
    uint32_t *param_of = malloc((g->value_count + 1) * sizeof *param_of);
    if (!param_of) return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    memset(param_of, 0xff, (g->value_count + 1) * sizeof *param_of);
    for (uint32_t i = 0; i < l->param_count; i++) {
        pb_layout_param *p = &l->params[i];
        const pb_layout_param *old = &from->params[i];
        p->key = mapped(from, l, old->key);
        p->weight = old->weight == PB_NONE ? PB_NONE : mapped(from, l, old->weight);
        p->gradient = mapped(from, l, old->gradient);
        for (uint32_t k = 0; k < p->state_count; k++) p->state[k] = mapped(from, l, old->state[k]);
        p->node = UINT32_MAX;
        if (p->key != PB_NONE) param_of[p->key] = i;
    }
    for (uint32_t n = 0; n < g->node_count; n++) {
        if (g->nodes[n].op != PB_OP_ADAMW) continue;
        const pb_layout_param found = describe(g, n);
        const uint32_t i = param_of[found.key];
        if (i == UINT32_MAX || l->params[i].elements != found.elements) {
            free(param_of);
            return pb_error(PB_ERR_INTERNAL, "two programs of a step have different parameters");
        }
        l->params[i].node = n;
        l->params[i].gradient = found.gradient;
        if (l->params[i].weight == PB_NONE) l->params[i].weight = found.weight;
    }
    free(param_of);
    return PB_OK;
}

static void *copy(pb_arena *arena, const void *data, size_t bytes) {
    void *made = pb_arena_alloc(arena, bytes);
    if (made) memcpy(made, data, bytes);
    return made;
}

pb_status pb_layout_adopt(pb_arena *arena, const pb_chunking *from, const pb_graph *g, pb_chunking *l) {
    *l = (pb_chunking){.param_count = from->param_count,
                       .slice_count = from->slice_count,
                       .unit_count = from->unit_count,
                       .chunk_count = from->chunk_count,
                       .paged = from->paged,
                       .host_updates = from->host_updates,
                       .extent_count = from->extent_count};
    PB_RETURN_IF(find_roots(arena, g, l));
    if (l->root_count != from->root_count)
        return pb_error(PB_ERR_INTERNAL, "two programs of a step have different persistent values");
    l->params = copy(arena, from->params, from->param_count * sizeof *l->params);
    l->slices = copy(arena, from->slices, from->slice_count * sizeof *l->slices);
    l->units = copy(arena, from->units, from->unit_count * sizeof *l->units);
    l->chunks = copy(arena, from->chunks, from->chunk_count * sizeof *l->chunks);
    l->weight_home = copy(arena, from->weight_home, from->chunk_count * sizeof *l->weight_home);
    l->gradient_home = copy(arena, from->gradient_home, from->chunk_count * sizeof *l->gradient_home);
    l->state_home = copy(arena, from->state_home, from->unit_count * sizeof *l->state_home);
    l->other_home = copy(arena, from->other_home, from->other_count * sizeof *l->other_home);
    if (!l->params || !l->slices || !l->units || !l->chunks || !l->weight_home || !l->gradient_home || !l->state_home ||
        !l->other_home)
        return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    PB_RETURN_IF(adopt_params(from, g, l));
    return find_others(arena, g, l);
}
