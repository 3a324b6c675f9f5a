#include "plan/plan.h"

#include <stdlib.h>
#include <string.h>

#include "plan/place.h"
#include "plan/storage.h"

static uint64_t aligned(uint64_t bytes) {
    return (bytes + PB_ALIGNMENT - 1) / PB_ALIGNMENT * PB_ALIGNMENT;
}

// Step s of the plan is node s; everything that exists before the step is alive from step 0, outputs to the last one.
typedef struct planner {
    const pb_graph *graph;
    const pb_plan_request *request;
    pb_vid *storage;      // by value: the value whose block holds it
    uint32_t *last_read;  // by value
    pb_block *blocks;     // by value (roots only), then by node: its workspace
    uint32_t block_count;
} planner;

static uint64_t node_workspace(const planner *p, uint32_t n) {
    const pb_node *node = &p->graph->nodes[n];
    if (!p->request->workspaces || !p->request->workspaces[node->op]) return 0;
    pb_kernel_args args;
    pb_node_kernel_args(p->graph, node, &args);
    return p->request->workspaces[node->op](&args);
}

static void find_lifetimes(planner *p) {
    const pb_graph *g = p->graph;
    const uint32_t end = g->node_count;
    for (pb_vid v = 0; v < g->value_count; v++) p->blocks[v].first = UINT32_MAX;
    for (pb_vid v = 0; v < g->value_count; v++) {
        const pb_value *value = &g->values[v];
        const bool exists_before = value->producer == PB_NONE;
        // Values that pruning left without a producer and a reader take no room.
        if (exists_before && value->class_ == PB_CLASS_ACTIVATION) continue;
        pb_block *b = &p->blocks[p->storage[v]];
        const uint32_t first = exists_before ? 0 : value->producer;
        uint32_t last = value->output || value->persistent ? end : p->last_read[v];
        if (last < first) last = first;
        if (b->first == UINT32_MAX) *b = (pb_block){.first = first, .last = last};
        if (first < b->first) b->first = first;
        if (last > b->last) b->last = last;
        const uint64_t bytes = aligned(pb_value_bytes(value));
        if (bytes > b->bytes) b->bytes = bytes;
        if (value->class_ == PB_CLASS_GRADIENT) b->top = true;
    }
    for (uint32_t n = 0; n < g->node_count; n++)
        p->blocks[g->value_count + n] = (pb_block){.bytes = aligned(node_workspace(p, n)), .first = n, .last = n};
    p->block_count = g->value_count + g->node_count;
}

// What lives from step to step comes first, in the order of declaration, so that the programs of several batch sizes
// agree on where it is. Returns its bytes and takes it out of the blocks still to be placed.
static uint64_t place_persistent(planner *p, pb_program *program) {
    uint64_t used = 0;
    uint32_t pieces = 0;
    for (pb_vid v = 0; v < p->graph->value_count; v++) {
        pb_block *b = &p->blocks[v];
        program->first_piece[v] = pieces;
        if (p->storage[v] != v || !p->graph->values[v].persistent || b->first == UINT32_MAX) continue;
        program->pieces[pieces++] =
            (pb_piece){.bytes = pb_value_bytes(&p->graph->values[v]), .tier = PB_TIER_DEVICE, .offset = used};
        program->home[v] = used;
        used += b->bytes;
        b->bytes = 0;
    }
    program->first_piece[p->graph->value_count] = pieces;
    return used;
}

static void count_alive(const planner *p, pb_program *program, uint64_t persistent) {
    const pb_graph *g = p->graph;
    uint64_t fixed[PB_CLASS_COUNT] = {0};
    for (pb_vid v = 0; v < g->value_count; v++)
        if (p->storage[v] == v && g->values[v].persistent && p->blocks[v].first != UINT32_MAX)
            fixed[g->values[v].class_] += aligned(pb_value_bytes(&g->values[v]));
    int64_t(*change)[PB_CLASS_COUNT] = calloc((size_t)g->node_count + 2, sizeof *change);
    if (!change) return;  // the figures stay 0: they are for people only
    for (uint32_t i = 0; i < p->block_count; i++) {
        const pb_block *b = &p->blocks[i];
        if (b->first == UINT32_MAX || !b->bytes) continue;
        const pb_class class_ = i < g->value_count ? g->values[i].class_ : PB_CLASS_WORKSPACE;
        change[b->first][class_] += (int64_t)b->bytes;
        change[b->last + 1][class_] -= (int64_t)b->bytes;
    }
    uint32_t backward = 0;
    while (backward < g->node_count && g->nodes[backward].phase == PB_PHASE_FORWARD) backward++;
    int64_t alive[PB_CLASS_COUNT] = {0};
    uint64_t most = 0;
    for (uint32_t s = 0; s <= g->node_count; s++) {
        uint64_t sum = 0;
        for (int c = 0; c < PB_CLASS_COUNT; c++) {
            alive[c] += change[s][c];
            sum += (uint64_t)alive[c];
        }
        if (sum >= most) {
            most = sum;
            for (int c = 0; c < PB_CLASS_COUNT; c++) program->peak_by_class[PB_TIER_DEVICE][c] = fixed[c] + (uint64_t)alive[c];
        }
    }
    // What was made before the backward pass and is read in it.
    for (pb_vid v = 0; v < g->value_count && backward < g->node_count; v++) {
        const pb_block *b = &p->blocks[v];
        if (g->values[v].class_ == PB_CLASS_ACTIVATION && b->bytes && b->first < backward && b->last >= backward)
            program->kept_activations += b->bytes;
    }
    free(change);
    program->lower_bound = persistent + most;
    program->padding_bytes[PB_TIER_DEVICE] = program->tier_bytes[PB_TIER_DEVICE] - program->lower_bound;
}

static void emit(const planner *p, pb_program *program, uint64_t base) {
    const pb_graph *g = p->graph;
    for (pb_vid v = 0; v < g->value_count; v++) {
        const pb_vid s = p->storage[v];
        if (p->blocks[s].first == UINT32_MAX) continue;
        if (program->home[s] == UINT64_MAX) program->home[s] = base + p->blocks[s].offset;
        program->home[v] = program->home[s];
    }
    for (uint32_t n = 0; n < g->node_count; n++) {
        pb_insn *insn = &program->insns[program->insn_count++];
        *insn = (pb_insn){.kind = PB_INSN_RUN, .lane = PB_LANE_COMPUTE, .node = n};
        const pb_block *scratch = &p->blocks[g->value_count + n];
        insn->workspace_bytes = scratch->bytes;
        insn->workspace_offset = scratch->bytes ? base + scratch->offset : 0;
        for (int i = 0; i < PB_MAX_INPUTS; i++) {
            const pb_vid v = g->nodes[n].in[i];
            insn->in[i] = (pb_operand){v, v == PB_NONE ? 0 : program->home[v]};
        }
        for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
            const pb_vid v = g->nodes[n].out[i];
            insn->out[i] = (pb_operand){v, v == PB_NONE ? 0 : program->home[v]};
        }
    }
    // The host has no business with the rest.
    for (pb_vid v = 0; v < g->value_count; v++) {
        const pb_value *value = &g->values[v];
        if (value->persistent || (value->producer != PB_NONE && !value->output)) program->home[v] = UINT64_MAX;
    }
}

pb_status pb_plan(const pb_graph *graph, const pb_plan_request *request, pb_program **result) {
    if (graph->status != PB_OK) return graph->status;
    pb_status status = PB_OK;
    planner p = {.graph = graph, .request = request};
    pb_program *program = NULL;
    p.storage = calloc(graph->value_count + 1, sizeof *p.storage);
    p.last_read = calloc(graph->value_count + 1, sizeof *p.last_read);
    p.blocks = calloc((size_t)graph->value_count + graph->node_count + 1, sizeof *p.blocks);
    pb_arena *arena = pb_arena_create();
    if (arena) program = pb_arena_alloc(arena, sizeof *program);
    if (!p.storage || !p.last_read || !p.blocks || !program) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    program->arena = arena;
    program->insns = pb_arena_array(arena, graph->node_count + 1, sizeof *program->insns);
    program->home = pb_arena_array(arena, graph->value_count + 1, sizeof *program->home);
    program->pieces = pb_arena_array(arena, graph->value_count + 1, sizeof *program->pieces);
    program->first_piece = pb_arena_array(arena, graph->value_count + 1, sizeof *program->first_piece);
    if (!program->insns || !program->home || !program->pieces || !program->first_piece) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    for (pb_vid v = 0; v < graph->value_count; v++) program->home[v] = UINT64_MAX;

    pb_storage_find(graph, p.storage, p.last_read);
    find_lifetimes(&p);
    const uint64_t persistent = place_persistent(&p, program);
    uint64_t height;
    PB_TRY(pb_blocks_place(p.blocks, p.block_count, graph->node_count, &height));
    program->tier_bytes[PB_TIER_DEVICE] = persistent + height;
    count_alive(&p, program, persistent);
    emit(&p, program, persistent);
    if (program->tier_bytes[PB_TIER_DEVICE] > request->budget[PB_TIER_DEVICE])
        PB_FAIL(PB_ERR_BUDGET,
                "the step needs %.3f GiB of device memory, and memory.device allows %.3f GiB; the smallest "
                "budget that works is %llu bytes (a smaller train_batch_size or resolution needs less)",
                (double)program->tier_bytes[PB_TIER_DEVICE] / 0x1p30, (double)request->budget[PB_TIER_DEVICE] / 0x1p30,
                (unsigned long long)program->tier_bytes[PB_TIER_DEVICE]);
    *result = program;
    arena = NULL;
fail:
    pb_arena_destroy(arena);
    free(p.storage);
    free(p.last_read);
    free(p.blocks);
    return status;
}
