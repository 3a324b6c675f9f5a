// Which cheap forward results are not worth keeping for the backward pass, and dead code.
#include <stdlib.h>
#include <string.h>

#include "graph/rules.h"

// What may run again although it is no cheap op.
static bool is_contraction(pb_opcode op) {
    return op == PB_OP_LINEAR || op == PB_OP_CONV2D || op == PB_OP_ATTENTION;
}

// Walks the forward nodes from the last to the first. kept[v]: the backward pass reads v, or reads something that will
// be made again from v. A cheap op whose output is kept is run again if keeping its inputs instead costs fewer bytes;
// going backward, an input that is itself cheap gets its turn later.
static void choose(const pb_graph *g, double dearest, bool *kept, bool *again) {
    for (uint32_t n = g->node_count; n-- > 0;) {
        const pb_node *node = &g->nodes[n];
        const bool cheap = pb_op_kind_of(node->op) == PB_KIND_CHEAP;
        if (node->phase != PB_PHASE_FORWARD || (!cheap && (dearest <= 0 || !is_contraction(node->op)))) continue;
        if (!kept[node->out[0]] || g->values[node->out[0]].output) continue;
        uint64_t cost = 0;
        for (int i = 0; i < PB_MAX_INPUTS; i++) {
            const pb_vid v = node->in[i];
            if (v != PB_NONE && !kept[v] && !g->values[v].persistent) cost += pb_value_bytes(&g->values[v]);
        }
        const uint64_t bytes = pb_value_bytes(&g->values[node->out[0]]);
        if (cost >= bytes || (!cheap && pb_node_flops(g, node) > dearest * (double)(bytes - cost))) continue;
        again[n] = true;
        kept[node->out[0]] = false;
        for (int i = 0; i < PB_MAX_INPUTS; i++)
            if (node->in[i] != PB_NONE) kept[node->in[i]] = true;
    }
}

typedef struct rewrite {
    pb_graph *g;
    const bool *again;    // by forward node
    pb_vid *replacement;  // by forward value: its second self, once made
    pb_node *nodes;
    uint32_t count, capacity;
} rewrite;

static bool push(rewrite *r, const pb_node *node) {
    if (r->count == r->capacity) {
        const uint32_t capacity = r->capacity * 2;
        pb_node *grown = realloc(r->nodes, capacity * sizeof *grown);
        if (!grown) return false;
        r->nodes = grown;
        r->capacity = capacity;
    }
    r->nodes[r->count++] = *node;
    return true;
}

// The value that a backward node reads in place of v, after running its op again if need be.
static pb_vid second_run(rewrite *r, pb_vid v) {
    pb_graph *g = r->g;
    const uint32_t producer = g->values[v].producer;
    if (producer == PB_NONE || producer >= g->node_count || !r->again[producer]) return v;
    const pb_node *first = &g->nodes[producer];
    if (v != first->out[0]) return v;  // statistics and the like are small and stay
    if (r->replacement[v] != PB_NONE) return r->replacement[v];
    pb_node copy = *first;
    copy.phase = PB_PHASE_BACKWARD;
    copy.recompute = true;
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (copy.in[i] != PB_NONE) copy.in[i] = second_run(r, copy.in[i]);
    const pb_value value = g->values[v];
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) copy.out[i] = PB_NONE;
    copy.out[0] = pb_graph_new_value(g, &value);
    if (g->status != PB_OK) return v;
    r->replacement[v] = copy.out[0];
    if (!push(r, &copy)) g->status = pb_error(PB_ERR_MEMORY, "no memory for a graph");
    return copy.out[0];
}

pb_status pb_graph_recompute(pb_graph *g, double dearest) {
    if (g->status != PB_OK) return g->status;
    const uint32_t values = g->value_count;
    pb_status status = PB_OK;
    bool *kept = calloc(values + 1, sizeof *kept), *again = calloc(g->node_count + 1, sizeof *again);
    rewrite r = {.g = g, .again = again, .capacity = g->node_count + 64};
    r.replacement = malloc((size_t)(values + 1) * sizeof *r.replacement);
    r.nodes = malloc(r.capacity * sizeof *r.nodes);
    if (!kept || !again || !r.replacement || !r.nodes) PB_FAIL(PB_ERR_MEMORY, "no memory for a graph");
    memset(r.replacement, 0xff, (size_t)values * sizeof *r.replacement);

    for (uint32_t n = 0; n < g->node_count; n++) {
        if (g->nodes[n].phase == PB_PHASE_FORWARD) continue;
        for (int i = 0; i < PB_MAX_INPUTS; i++)
            if (g->nodes[n].in[i] != PB_NONE) kept[g->nodes[n].in[i]] = true;
    }
    choose(g, dearest, kept, again);
    for (uint32_t n = 0; n < g->node_count && g->status == PB_OK; n++) {
        pb_node node = g->nodes[n];
        if (node.phase != PB_PHASE_FORWARD)
            for (int i = 0; i < PB_MAX_INPUTS; i++)
                if (node.in[i] != PB_NONE && node.in[i] < values) node.in[i] = second_run(&r, node.in[i]);
        if (!push(&r, &node)) PB_FAIL(PB_ERR_MEMORY, "no memory for a graph");
    }
    PB_TRY(g->status);
    free(g->nodes);
    g->nodes = r.nodes;
    g->node_count = r.count;
    g->node_capacity = r.capacity;
    r.nodes = NULL;
    pb_graph_renumber(g);
fail:
    free(kept);
    free(again);
    free(r.replacement);
    free(r.nodes);
    return status;
}

uint64_t pb_graph_kept_bytes(const pb_graph *g) {
    uint64_t bytes = 0;
    bool *seen = calloc(g->value_count + 1, sizeof *seen);
    if (!seen) return 0;
    for (uint32_t n = 0; n < g->node_count; n++) {
        if (g->nodes[n].phase != PB_PHASE_BACKWARD) continue;
        for (int i = 0; i < PB_MAX_INPUTS; i++) {
            const pb_vid v = g->nodes[n].in[i];
            const uint32_t producer = v == PB_NONE ? PB_NONE : g->values[v].producer;
            if (producer == PB_NONE || seen[v] || g->nodes[producer].phase != PB_PHASE_FORWARD) continue;
            seen[v] = true;
            bytes += pb_value_bytes(&g->values[v]);
        }
    }
    free(seen);
    return bytes;
}

pb_status pb_graph_prune(pb_graph *g) {
    if (g->status != PB_OK) return g->status;
    bool *read = calloc(g->value_count + 1, sizeof *read);
    if (!read) return pb_error(PB_ERR_MEMORY, "no memory for a graph");
    bool *useful = calloc(g->node_count + 1, sizeof *useful);
    if (!useful) {
        free(read);
        return pb_error(PB_ERR_MEMORY, "no memory for a graph");
    }
    for (uint32_t n = g->node_count; n-- > 0;) {
        for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
            const pb_vid v = g->nodes[n].out[i];
            if (v != PB_NONE && (read[v] || g->values[v].output || g->values[v].persistent)) useful[n] = true;
        }
        for (int i = 0; i < PB_MAX_INPUTS; i++)
            if (useful[n] && g->nodes[n].in[i] != PB_NONE) read[g->nodes[n].in[i]] = true;
    }
    uint32_t kept = 0;
    for (uint32_t n = 0; n < g->node_count; n++) {
        if (!useful[n]) {
            for (int i = 0; i < PB_MAX_OUTPUTS; i++)
                if (g->nodes[n].out[i] != PB_NONE) g->values[g->nodes[n].out[i]].producer = PB_NONE;
            continue;
        }
        pb_node node = g->nodes[n];
        // An optional second output that nobody reads (statistics, log-sum-exp) need not be written.
        for (int i = 1; i < PB_MAX_OUTPUTS; i++) {
            const pb_vid v = node.out[i];
            if (v == PB_NONE || read[v] || g->values[v].output || g->values[v].persistent) continue;
            if (node.op == PB_OP_ATTENTION_BWD) continue;  // writes all three
            g->values[v].producer = PB_NONE;
            node.out[i] = PB_NONE;
        }
        g->nodes[kept++] = node;
    }
    g->node_count = kept;
    pb_graph_renumber(g);
    free(read);
    free(useful);
    return PB_OK;
}
