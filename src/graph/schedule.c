// Where a node may run earlier than it was added: what consumes a gradient (its norm, its addition to a sum) runs as
// soon as the gradient is there, while it is in the cache, and lets go of it.
#include <stdlib.h>
#include <string.h>

#include "graph/rules.h"

static bool consumes_gradient(const pb_graph *g, const pb_node *node) {
    if (node->op == PB_OP_ACCUMULATE || node->op == PB_OP_GRAD_NORM) return true;
    return node->op == PB_OP_CAST && node->out[0] != PB_NONE && g->values[node->out[0]].alias != PB_NONE;
}

pb_status pb_graph_hoist(pb_graph *g) {
    if (g->status != PB_OK) return g->status;
    const uint32_t count = g->node_count;
    pb_status status = PB_OK;
    // Nodes by the node that they are to follow: next[] lists them in their old order.
    uint32_t *after = malloc((count + 1) * sizeof *after), *next = malloc((count + 1) * sizeof *next);
    uint32_t *head = malloc((count + 1) * sizeof *head), *tail = malloc((count + 1) * sizeof *tail);
    pb_node *nodes = malloc((count + 1) * sizeof *nodes);
    if (!after || !next || !head || !tail || !nodes) PB_FAIL(PB_ERR_MEMORY, "no memory for a graph");
    for (uint32_t n = 0; n < count; n++) {
        after[n] = next[n] = head[n] = tail[n] = UINT32_MAX;
        if (!consumes_gradient(g, &g->nodes[n])) continue;
        uint32_t latest = UINT32_MAX;
        for (int i = 0; i < PB_MAX_INPUTS; i++) {
            const pb_vid v = g->nodes[n].in[i];
            uint32_t p = v == PB_NONE ? UINT32_MAX : g->values[v].producer;
            if (p == UINT32_MAX) continue;
            // A hoisted producer stands where it was hoisted to.
            if (after[p] != UINT32_MAX) p = after[p];
            if (latest == UINT32_MAX || p > latest) latest = p;
        }
        if (latest == UINT32_MAX) continue;
        after[n] = latest;
        if (tail[latest] == UINT32_MAX)
            head[latest] = n;
        else
            next[tail[latest]] = n;
        tail[latest] = n;
    }
    uint32_t placed = 0;
    for (uint32_t n = 0; n < count; n++) {
        if (after[n] != UINT32_MAX) continue;
        nodes[placed++] = g->nodes[n];
        for (uint32_t h = head[n]; h != UINT32_MAX; h = next[h]) nodes[placed++] = g->nodes[h];
    }
    memcpy(g->nodes, nodes, count * sizeof *nodes);
    pb_graph_renumber(g);
fail:
    free(after);
    free(next);
    free(head);
    free(tail);
    free(nodes);
    return status;
}
