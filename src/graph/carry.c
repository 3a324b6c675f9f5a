#include "graph/carry.h"

#include <stdlib.h>
#include <string.h>

#include "graph/rules.h"

#define NO_MEMORY pb_error(PB_ERR_MEMORY, "no memory for a graph")

// --- Which ---

enum { OPERANDS = 2 };  // dy, x

typedef struct candidate {
    uint32_t param, node;
    double bytes;  // of the gradient
    bool dropped;
} candidate;

static bool can_be_carried(const pb_graph *g, pb_vid v) {
    const pb_value *value = &g->values[v];
    if (value->persistent || value->output || value->alias != PB_NONE) return false;
    return value->producer != PB_NONE ? value->class_ == PB_CLASS_ACTIVATION : value->class_ == PB_CLASS_INPUT;
}

static bool is_candidate(const pb_graph *g, const pb_node *node) {
    if (node->op != PB_OP_LINEAR_BWD_WEIGHT && node->op != PB_OP_CONV2D_BWD_WEIGHT) return false;
    return can_be_carried(g, node->in[0]) && can_be_carried(g, node->in[1]);
}

// Of each kept gradient, the op that makes it, where it can run again. Returns how many there are.
static uint32_t list_candidates(const pb_graph *g, const pb_vid *kept, uint32_t count, uint32_t *param_of,
                                candidate *list) {
    uint32_t found = 0;
    memset(param_of, 0xff, (size_t)g->value_count * sizeof *param_of);
    for (uint32_t i = 0; i < count; i++)
        if (kept[i] != PB_NONE) param_of[kept[i]] = i;
    for (uint32_t n = 0; n < g->node_count; n++) {
        const pb_node *node = &g->nodes[n];
        const pb_vid made = node->out[0], root = made == PB_NONE ? PB_NONE : g->values[made].alias;
        if (root == PB_NONE || param_of[root] == UINT32_MAX || !is_candidate(g, node)) continue;
        list[found++] = (candidate){param_of[root], n, (double)pb_value_bytes(&g->values[made]), false};
    }
    return found;
}

// A value that several ops work from is carried once, and each gradient answers for a part of it. Drops what is not
// worth it; what was shared with it then weighs more on the others, so that goes on until nothing changes.
static void drop_dear(const pb_graph *g, candidate *list, uint32_t count, const double *seconds,
                      double seconds_per_byte, double *users) {
    bool changed = true;
    while (changed) {
        changed = false;
        for (uint32_t i = 0; i < count; i++)
            for (int k = 0; k < OPERANDS; k++) users[g->nodes[list[i].node].in[k]] = 0;
        for (uint32_t i = 0; i < count; i++)
            for (int k = 0; k < OPERANDS && !list[i].dropped; k++) users[g->nodes[list[i].node].in[k]] += list[i].bytes;
        for (uint32_t i = 0; i < count; i++) {
            candidate *c = &list[i];
            if (c->dropped) continue;
            double saved = c->bytes;
            for (int k = 0; k < OPERANDS; k++) {
                const pb_vid v = g->nodes[c->node].in[k];
                saved -= (double)pb_value_bytes(&g->values[v]) * c->bytes / users[v];
            }
            c->dropped = seconds[c->node] > saved * seconds_per_byte;
            changed = changed || c->dropped;
        }
    }
}

static uint32_t carry_value(pb_carry *carry, const pb_graph *g, pb_vid v, const char *name, uint32_t *index) {
    if (index[v] != UINT32_MAX) return index[v];
    const pb_value *value = &g->values[v];
    carry->carried[carry->carried_count] = (pb_carried){
        .shape = value->shape, .dtype = value->dtype, .name = name, .value = v, .copied = value->producer == PB_NONE};
    return index[v] = carry->carried_count++;
}

pb_status pb_carry_choose(pb_arena *arena, const pb_graph *g, const pb_vid *kept, uint32_t count, const double *seconds,
                          double seconds_per_byte, pb_carry *carry) {
    pb_status status = PB_OK;
    *carry = (pb_carry){0};
    uint32_t *index = malloc((g->value_count + 1) * sizeof *index);
    double *users = calloc(g->value_count + 1, sizeof *users);
    candidate *list = malloc((count + 1) * sizeof *list);
    carry->remade = pb_arena_array(arena, count + 1, sizeof *carry->remade);
    carry->carried = pb_arena_array(arena, OPERANDS * (size_t)count + 1, sizeof *carry->carried);
    if (!index || !users || !list || !carry->remade || !carry->carried) PB_FAIL(PB_ERR_MEMORY, "no memory for a graph");
    const uint32_t candidates = list_candidates(g, kept, count, index, list);
    drop_dear(g, list, candidates, seconds, seconds_per_byte, users);
    memset(index, 0xff, (size_t)g->value_count * sizeof *index);
    for (uint32_t i = 0; i < candidates; i++) {
        if (list[i].dropped) continue;
        const pb_node *node = &g->nodes[list[i].node];
        const char *name = pb_arena_string(arena, g->values[kept[list[i].param]].name);
        if (!name) PB_FAIL(PB_ERR_MEMORY, "no memory for a graph");
        carry->remade[carry->remade_count++] = (pb_remade){.param = list[i].param,
                                                           .op = node->op,
                                                           .attr = node->attr,
                                                           .dy = carry_value(carry, g, node->in[0], name, index),
                                                           .x = carry_value(carry, g, node->in[1], name, index)};
    }
fail:
    free(index);
    free(users);
    free(list);
    return status;
}

// --- The change ---

// The persistent values, and in a graph that makes them their new versions.
static pb_vid *declare_carried(pb_graph *g, const pb_carry *carry, bool makes) {
    pb_vid *roots = pb_arena_array(g->arena, carry->carried_count + 1, sizeof *roots);
    for (uint32_t k = 0; roots && k < carry->carried_count && g->status == PB_OK; k++) {
        const pb_carried *c = &carry->carried[k];
        roots[k] = pb_graph_add_value(g, PB_CLASS_ACTIVATION, c->dtype, c->shape, true, "%s is made of this", c->name);
        if (!makes || g->status != PB_OK) continue;
        pb_vid version = c->value;
        if (c->copied) {
            const pb_attr attr = {.cast = {.dtype = c->dtype}};
            g->phase = PB_PHASE_BACKWARD;
            version = pb_graph_add_single(g, PB_OP_CAST, &attr, c->value, PB_NONE, PB_NONE, PB_NONE, PB_NONE);
            if (version == PB_NONE) continue;
        }
        g->values[version].alias = roots[k];
        g->values[version].persistent = true;
    }
    return roots;
}

// Puts each op that makes a gradient again before the update that works from it.
static pb_status insert_again(pb_graph *g, const pb_carry *carry, const pb_vid *roots, const uint32_t *remade_of) {
    const uint32_t room = g->node_count + carry->remade_count + 1;
    pb_node *nodes = malloc(room * sizeof *nodes);
    if (!nodes) return NO_MEMORY;
    uint32_t count = 0;
    for (uint32_t n = 0; n < g->node_count; n++) {
        const pb_node *node = &g->nodes[n];
        const uint32_t again = node->op == PB_OP_ADAMW ? remade_of[node->in[0]] : UINT32_MAX;
        if (again != UINT32_MAX) {
            const pb_remade *r = &carry->remade[again];
            pb_node *made = &nodes[count++];
            *made = (pb_node){.op = r->op, .phase = PB_PHASE_UPDATE, .recompute = true, .attr = r->attr};
            for (int i = 0; i < PB_MAX_INPUTS; i++) made->in[i] = PB_NONE;
            for (int i = 0; i < PB_MAX_OUTPUTS; i++) made->out[i] = PB_NONE;
            made->in[0] = roots[r->dy];
            made->in[1] = roots[r->x];
            made->out[0] = node->in[0];
        }
        nodes[count++] = *node;
    }
    free(g->nodes);
    g->nodes = nodes;
    g->node_count = count;
    g->node_capacity = room;
    pb_graph_renumber(g);
    return PB_OK;
}

pb_status pb_carry_apply(pb_graph *g, const pb_carry *carry, const pb_vid *kept, bool makes) {
    if (g->status != PB_OK) return g->status;
    const pb_vid *roots = declare_carried(g, carry, makes);
    if (!roots) return NO_MEMORY;
    PB_RETURN_IF(g->status);
    uint32_t *remade_of = malloc((g->value_count + 1) * sizeof *remade_of);
    if (!remade_of) return NO_MEMORY;
    memset(remade_of, 0xff, (g->value_count + 1) * sizeof *remade_of);
    for (uint32_t i = 0; i < carry->remade_count; i++) remade_of[kept[carry->remade[i].param]] = i;
    for (pb_vid v = 0; v < g->value_count; v++) {
        pb_value *value = &g->values[v];
        const bool is_kept = remade_of[v] != UINT32_MAX;
        if (!is_kept && (value->alias == PB_NONE || remade_of[value->alias] == UINT32_MAX)) continue;
        value->persistent = false;
        value->alias = PB_NONE;
    }
    const pb_status status = insert_again(g, carry, roots, remade_of);
    free(remade_of);
    return status;
}
