#include "plan/storage.h"

// An op may write its output over an input that dies there. Both then live in one place.
static void take_over(const pb_graph *g, uint32_t n, pb_vid *storage, const uint32_t *last_read) {
    const pb_node *node = &g->nodes[n];
    const int slot = pb_op_inplace(node->op);
    if (slot < 0 || node->in[slot] == PB_NONE || node->out[0] == PB_NONE) return;
    const pb_vid from = node->in[slot], to = node->out[0];
    const pb_value *a = &g->values[from], *b = &g->values[to];
    if (a->persistent || a->output || b->persistent || b->alias != PB_NONE) return;
    if (last_read[from] != n || pb_value_bytes(a) != pb_value_bytes(b)) return;
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (i != slot && node->in[i] == from) return;
    storage[to] = storage[from];
}

void pb_storage_find(const pb_graph *g, pb_vid *storage, uint32_t *last_read) {
    for (pb_vid v = 0; v < g->value_count; v++) {
        storage[v] = v;
        last_read[v] = 0;
    }
    for (uint32_t n = 0; n < g->node_count; n++)
        for (int i = 0; i < PB_MAX_INPUTS; i++)
            if (g->nodes[n].in[i] != PB_NONE) last_read[g->nodes[n].in[i]] = n;
    for (uint32_t n = 0; n < g->node_count; n++) {
        take_over(g, n, storage, last_read);
        for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
            const pb_vid v = g->nodes[n].out[i];
            if (v != PB_NONE && g->values[v].alias != PB_NONE) storage[v] = storage[g->values[v].alias];
        }
    }
}
