// How fast a backend's kernels are on the shapes of a real step. A step has thousands of ops but only some
// hundred different ones; of each op the shapes that take most of its time are run, and the rest follow from the fit.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/bench_device.h"
#include "cli/bench_machine.h"
#include "kernels/backend.h"
#include "plan/predict.h"
#include "train/architecture.h"

enum { MOST_SHAPES = 6, MOST_RUNS = 15, LAUNCHES = 8, TOKENS = 77 };

static const double least_speed = 1e3;  // of a profile

// Nodes of one op, dtypes and shapes.
typedef struct kind {
    uint32_t node;   // one of them
    uint32_t count;  // in a step
    double flops, bytes, guess;
    double seconds;  // measured, without the overhead; 0: not run
} kind;

// Operands lie as they do in a step: what the op before has made is in the caches where it fits, parameters and their
// gradients are not, so theirs come from a region that is gone through from end to end.
typedef struct memory {
    unsigned char *warm, *cold;
    uint64_t warm_bytes, cold_bytes, cold_at;
} memory;

typedef struct bench {
    const pb_graph *graph;
    const pb_backend *backend;
    pb_bench_device *device;  // NULL: kernels run here, on the host's memory
    kind *kinds;              // by op, then the dearest first
    uint32_t kind_count;
    memory memory;
    double overhead;
    int least_runs;
    double least_seconds;
} bench;

// --- The kinds of nodes ---

static bool same_tensor(const pb_graph *g, pb_vid a, pb_vid b) {
    if (a == PB_NONE || b == PB_NONE) return a == b;
    return g->values[a].dtype == g->values[b].dtype && pb_shape_equal(g->values[a].shape, g->values[b].shape);
}

static bool same_kind(const pb_graph *g, const pb_node *a, const pb_node *b) {
    if (a->op != b->op || memcmp(&a->attr, &b->attr, sizeof a->attr) != 0) return false;
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (!same_tensor(g, a->in[i], b->in[i])) return false;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (!same_tensor(g, a->out[i], b->out[i])) return false;
    return true;
}

static const pb_graph *sorted_graph;  // qsort has no context; one benchmark at a time

static int by_op_and_cost(const void *x, const void *y) {
    const kind *a = x, *b = y;
    const int op_a = (int)sorted_graph->nodes[a->node].op, op_b = (int)sorted_graph->nodes[b->node].op;
    if (op_a != op_b) return op_a - op_b;
    const double cost_a = a->count * a->guess, cost_b = b->count * b->guess;
    return (cost_a < cost_b) - (cost_a > cost_b);
}

static void find_kinds(bench *b, const pb_machine *guess, int dtype) {
    const pb_graph *g = b->graph;
    for (uint32_t n = 0; n < g->node_count; n++) {
        uint32_t k = 0;
        if (pb_node_dtype(g, &g->nodes[n]) != dtype) continue;
        while (k < b->kind_count && !same_kind(g, &g->nodes[b->kinds[k].node], &g->nodes[n])) k++;
        if (k == b->kind_count) {
            b->kinds[b->kind_count++] = (kind){.node = n,
                                               .flops = pb_node_flops(g, &g->nodes[n]),
                                               .bytes = (double)pb_node_bytes(g, &g->nodes[n]),
                                               .guess = pb_node_seconds(guess, g, n)};
        }
        b->kinds[k].count++;
    }
    sorted_graph = g;
    qsort(b->kinds, b->kind_count, sizeof *b->kinds, by_op_and_cost);
}

// --- Running one ---

static bool is_cold(const pb_value *v) {
    return v->class_ == PB_CLASS_WEIGHT || v->class_ == PB_CLASS_STATE || v->class_ == PB_CLASS_GRADIENT;
}

static uint64_t workspace_bytes(const bench *b, const pb_node *node) {
    pb_kernel_args args;
    const pb_kernel_workspace query = b->backend->workspaces ? b->backend->workspaces[node->op] : NULL;
    pb_node_kernel_args(b->graph, node, &args);
    return query ? query(&args) : 0;
}

// Bytes of a node's operands in the two regions.
static void measure_operands(const bench *b, const pb_node *node, uint64_t *warm, uint64_t *cold) {
    *warm = pb_aligned(workspace_bytes(b, node), PB_ALIGNMENT);
    *cold = 0;
    for (int i = 0; i < PB_MAX_INPUTS + PB_MAX_OUTPUTS; i++) {
        const pb_vid v = i < PB_MAX_INPUTS ? node->in[i] : node->out[i - PB_MAX_INPUTS];
        if (v == PB_NONE) continue;
        const pb_value *value = &b->graph->values[v];
        *(is_cold(value) ? cold : warm) += pb_aligned(pb_value_bytes(value), PB_ALIGNMENT);
    }
}

static unsigned char *place(memory *m, const pb_value *v, uint64_t *warm_at) {
    uint64_t *at = is_cold(v) ? &m->cold_at : warm_at;
    unsigned char *data = (is_cold(v) ? m->cold : m->warm) + *at;
    *at += pb_aligned(pb_value_bytes(v), PB_ALIGNMENT);
    return data;
}

// Where a node's operands are this time.
static pb_status place_operands(bench *b, const pb_node *node, pb_kernel_args *args) {
    memory *m = &b->memory;
    const pb_graph *g = b->graph;
    uint64_t warm_at = 0, warm, cold;
    pb_node_kernel_args(g, node, args);
    measure_operands(b, node, &warm, &cold);
    if (m->cold_at + cold > m->cold_bytes) m->cold_at = 0;
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        if (node->in[i] == PB_NONE) continue;
        const uint64_t bytes = pb_value_bytes(&g->values[node->in[i]]);
        args->in[i].data = place(m, &g->values[node->in[i]], &warm_at);
        if (args->in[i].dtype != PB_I32) continue;
        // Indices must be some that there are.
        if (b->device)
            PB_RETURN_IF(pb_bench_device_clear(b->device, args->in[i].data, bytes));
        else
            memset(args->in[i].data, 0, bytes);
    }
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        if (node->out[i] == PB_NONE) continue;
        const pb_value *v = &g->values[node->out[i]];
        for (int k = 0; k < PB_MAX_INPUTS; k++)
            if (v->alias != PB_NONE && node->in[k] == v->alias) args->out[i].data = args->in[k].data;
        if (!args->out[i].data) args->out[i].data = place(m, v, &warm_at);
    }
    args->workspace_bytes = workspace_bytes(b, node);
    args->workspace = args->workspace_bytes ? m->warm + warm_at : NULL;
    return PB_OK;
}

static double run_once(bench *b, const pb_node *node) {
    pb_kernel_args args;
    place_operands(b, node, &args);
    const double begin = pb_seconds_now();
    b->backend->kernels[node->op](&args);
    return pb_seconds_now() - begin;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static pb_status time_on_device(bench *b, kind *k) {
    const pb_node *node = &b->graph->nodes[k->node];
    pb_kernel_args args[LAUNCHES];
    const uint32_t launches = b->least_runs == 1 ? 2 : LAUNCHES;
    double seconds = 0;
    for (uint32_t i = 0; i < launches; i++) PB_RETURN_IF(place_operands(b, node, &args[i]));
    PB_RETURN_IF(pb_bench_device_time(b->device, node->op, args, launches, b->least_runs, &seconds));
    k->seconds = fmax(seconds - b->overhead, 1e-8);
    return PB_OK;
}

// The lower quartile of some runs after one that is not counted: what a step meets when nothing else runs.
static pb_status time_kind(bench *b, kind *k) {
    const pb_node *node = &b->graph->nodes[k->node];
    double runs[MOST_RUNS], sum = 0;
    int count = 0;
    if (b->device) return time_on_device(b, k);
    run_once(b, node);
    while (count < b->least_runs || (count < MOST_RUNS && sum < b->least_seconds))
        sum += runs[count++] = run_once(b, node);
    qsort(runs, (size_t)count, sizeof *runs, by_value);
    k->seconds = fmax(runs[count / 4] - b->overhead, 1e-8);
    return PB_OK;
}

// --- The fit ---

static double fitted(const kind *k, pb_op_speed s) {
    return fmax(k->flops / s.flops, k->bytes / s.bandwidth);
}

static double misfit(const kind *kinds, uint32_t count, pb_op_speed s) {
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        if (kinds[i].seconds > 0)
            sum += kinds[i].count * kinds[i].seconds * fabs(log(fitted(&kinds[i], s) / kinds[i].seconds));
    return sum;
}

// Every shape says what the speed would be if it alone bound it; of all pairs of such speeds the one is taken that fits
// the step best, and scaled so that the sum over the step is as measured. Where all shapes are bound by arithmetic
// nothing is learnt of the bandwidth: `dram` then stands.
static pb_op_speed fit(const kind *kinds, uint32_t count, double dram) {
    pb_op_speed best = {0};
    double least = INFINITY, measured = 0, modelled = 0;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j <= count && kinds[i].seconds > 0; j++) {
            if (j < count && !(kinds[j].seconds > 0)) continue;
            const pb_op_speed s = {fmax(kinds[i].flops / kinds[i].seconds, least_speed),
                                   j == count ? dram : fmax(kinds[j].bytes / kinds[j].seconds, least_speed)};
            const double error = misfit(kinds, count, s);
            // What fits nearly as well with a higher bandwidth is the simpler explanation.
            if (error < 0.98 * least || (error < 1.02 * least && s.bandwidth > best.bandwidth)) {
                least = error < least ? error : least;
                best = s;
            }
        }
    for (uint32_t i = 0; i < count; i++) {
        if (!(kinds[i].seconds > 0)) continue;
        measured += kinds[i].count * kinds[i].seconds;
        modelled += kinds[i].count * fitted(&kinds[i], best);
    }
    best.flops = fmax(best.flops * modelled / measured, least_speed);
    best.bandwidth = fmax(best.bandwidth * modelled / measured, least_speed);
    return best;
}

// Of a list that is sorted by cost: the one with the least arithmetic per byte, which says most about bandwidth.
static uint32_t leanest(const kind *kinds, uint32_t count) {
    uint32_t found = 0;
    for (uint32_t i = 1; i < count; i++)
        if (kinds[i].flops / kinds[i].bytes < kinds[found].flops / kinds[found].bytes) found = i;
    return found;
}

static pb_status bench_op(bench *b, kind *kinds, uint32_t count, const char *dtype, pb_op_speed *speed, double dram,
                          void (*report)(void *context, const pb_bench_op *op), void *context) {
    pb_bench_op r = {
        .op = pb_op_name(b->graph->nodes[kinds[0].node].op), .dtype = dtype, .kinds = (int)count, .worst = 1};
    const uint32_t most = b->least_runs == 1 ? 3 : MOST_SHAPES;
    for (uint32_t i = 0; i < count && i < most; i++, r.shapes++) PB_RETURN_IF(time_kind(b, &kinds[i]));
    const uint32_t lean = leanest(kinds, count);
    if (kinds[lean].seconds == 0) {
        PB_RETURN_IF(time_kind(b, &kinds[lean]));
        r.shapes++;
    }
    r.speed = *speed = fit(kinds, count, dram);
    double seconds = 0, flops = 0, bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        r.seconds += kinds[i].count * (b->overhead + fitted(&kinds[i], r.speed));
        if (!(kinds[i].seconds > 0)) continue;
        const double ratio = kinds[i].seconds / fitted(&kinds[i], r.speed);
        r.worst = fmax(r.worst, fmax(ratio, 1 / ratio));
        seconds += kinds[i].count * kinds[i].seconds;
        flops += kinds[i].count * kinds[i].flops;
        bytes += kinds[i].count * kinds[i].bytes;
    }
    r.achieved_flops = flops / seconds;
    r.achieved_bandwidth = bytes / seconds;
    report(context, &r);
    return PB_OK;
}

static pb_status prepare_memory(bench *b, bool quick) {
    uint64_t warm, cold;
    b->memory = (memory){.cold_bytes = (uint64_t)(quick ? 128 : 384) << 20};
    for (uint32_t i = 0; i < b->kind_count; i++) {
        measure_operands(b, &b->graph->nodes[b->kinds[i].node], &warm, &cold);
        if (warm > b->memory.warm_bytes) b->memory.warm_bytes = warm;
        if (cold > b->memory.cold_bytes) b->memory.cold_bytes = cold;
    }
    // Small positive numbers in every floating dtype.
    if (b->device) {
        PB_RETURN_IF(pb_bench_device_memory(b->device, 0, b->memory.warm_bytes + 1, 0x3c, &b->memory.warm));
        return pb_bench_device_memory(b->device, 1, b->memory.cold_bytes, 0x3c, &b->memory.cold);
    }
    b->memory.warm = aligned_alloc(PB_ALIGNMENT, pb_aligned(b->memory.warm_bytes + 1, PB_ALIGNMENT));
    b->memory.cold = aligned_alloc(PB_ALIGNMENT, pb_aligned(b->memory.cold_bytes, PB_ALIGNMENT));
    if (!b->memory.warm || !b->memory.cold)
        return pb_error(PB_ERR_MEMORY, "no memory to run ops in; a smaller --resolution needs less");
    memset(b->memory.warm, 0x3c, b->memory.warm_bytes);
    memset(b->memory.cold, 0x3c, b->memory.cold_bytes);
    return PB_OK;
}

// All ops of a step in one dtype; have[op] is set for those that occur.
static pb_status bench_dtype(const pb_backend *backend, const pb_machine *guess, const pb_architecture *a,
                             int resolution, bool quick, int d, pb_machine *machine, bool have[PB_OP_COUNT],
                             void (*report)(void *context, const pb_bench_op *op), void *context) {
    static const pb_dtype dtypes[PB_SPEED_DTYPES] = {PB_F32, PB_F16, PB_BF16};
    static const char *const names[PB_SPEED_DTYPES] = {"fp32", "fp16", "bf16"};
    pb_status status = PB_OK;
    pb_step_graph *step = NULL;
    bench b = {.backend = backend,
               .overhead = machine->overhead,
               .least_runs = quick ? 1 : 3,
               .least_seconds = quick ? 0 : 0.02};
    const pb_step_request request = {.unet = &a->unet,
                                     .clip = &a->clip,
                                     .compute = dtypes[d],
                                     .batch = 1,
                                     .latent_h = resolution / 8,
                                     .latent_w = resolution / 8,
                                     .tokens = TOKENS};
    if (!backend->kernels) PB_TRY(pb_bench_device_open(backend, &b.device));
    PB_TRY(pb_step_graph_create(&request, &step));
    b.graph = step->graph;
    b.kinds = calloc(step->graph->node_count, sizeof *b.kinds);
    if (!b.kinds) PB_FAIL(PB_ERR_MEMORY, "no memory for a list of ops");
    find_kinds(&b, guess, d);
    PB_TRY(prepare_memory(&b, quick));
    for (uint32_t first = 0, last; first < b.kind_count; first = last) {
        const pb_opcode op = b.graph->nodes[b.kinds[first].node].op;
        for (last = first; last < b.kind_count && b.graph->nodes[b.kinds[last].node].op == op;) last++;
        PB_TRY(
            bench_op(&b, b.kinds + first, last - first, names[d], &machine->op[op][d], machine->dram, report, context));
        have[op] = true;
    }
fail:
    free(b.kinds);
    if (!b.device) {
        free(b.memory.warm);
        free(b.memory.cold);
    }
    pb_bench_device_close(b.device);
    pb_step_graph_destroy(step);
    return status;
}

pb_status pb_bench_ops(const pb_backend *backend, const pb_machine *guess, int resolution, bool quick,
                       pb_machine *machine, void (*report)(void *context, const pb_bench_op *op), void *context) {
    pb_status status = PB_OK;
    pb_architecture architecture;
    bool have[PB_SPEED_DTYPES][PB_OP_COUNT] = {{false}};
    pb_arena *arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "no memory for a model's sizes");
    PB_TRY(pb_architecture_preset(arena, "sd14", &architecture));
    for (int d = 0; d < PB_SPEED_DTYPES; d++)
        PB_TRY(bench_dtype(backend, guess, &architecture, resolution, quick, d, machine, have[d], report, context));
    // What such a step does not have goes as fast as in fp32 where that was measured, else as an addition does.
    for (int d = 0; d < PB_SPEED_DTYPES; d++)
        for (int op = 0; op < PB_OP_COUNT; op++) {
            if (!have[d][op])
                machine->op[op][d] =
                    machine->op[have[PB_SPEED_F32][op] ? op : PB_OP_ADD][have[PB_SPEED_F32][op] ? PB_SPEED_F32 : d];
            // No arithmetic of it is counted, so any number will do; one that reads as a sensible one.
            if (pb_op_kind_of((pb_opcode)op) != PB_KIND_MATMUL)
                machine->op[op][d].flops = machine->op[PB_OP_LINEAR][d].flops;
        }
fail:
    pb_arena_destroy(arena);
    return status;
}
