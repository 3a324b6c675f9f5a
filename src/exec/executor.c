#include "exec/executor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

struct pb_slab {
    unsigned char *data;
    uint64_t bytes;
};

struct pb_executor {
    const pb_backend *backend;
    const pb_graph *graph;
    const pb_program *program;
    pb_slab *slab, *own_slab;
    pb_kernel_args *args;  // by instruction, all pointers resolved
    bool profiled;
    double seconds[PB_OP_COUNT];
    uint64_t runs[PB_OP_COUNT];
};

pb_status pb_slab_create(uint64_t bytes, pb_slab **result) {
    pb_slab *slab = calloc(1, sizeof *slab);
    if (!slab) return pb_error(PB_ERR_MEMORY, "no memory for a slab");
    slab->bytes = bytes ? bytes : 1;
    slab->data = mmap(NULL, slab->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (slab->data == MAP_FAILED) {
        free(slab);
        return pb_error(PB_ERR_MEMORY,
                        "the machine has no %.3f GiB of memory for the device slab; set a smaller "
                        "train_batch_size or resolution",
                        (double)bytes / 0x1p30);
    }
    // Weights are streamed through: huge pages save a TLB miss every 4 KiB. Only advice; failure changes nothing.
    madvise(slab->data, slab->bytes, MADV_HUGEPAGE);
    *result = slab;
    return PB_OK;
}

void pb_slab_destroy(pb_slab *slab) {
    if (!slab) return;
    munmap(slab->data, slab->bytes);
    free(slab);
}

uint64_t pb_slab_bytes(const pb_slab *slab) {
    return slab->bytes;
}

pb_status pb_compile(const pb_graph *graph, const pb_backend *backend, uint64_t device_budget, pb_program **program) {
    if (graph->status != PB_OK) return graph->status;
    for (uint32_t n = 0; n < graph->node_count; n++) {
        pb_kernel_args args;
        pb_node_kernel_args(graph, &graph->nodes[n], &args);
        if (backend->supports) PB_RETURN_IF(backend->supports(graph->nodes[n].op, &args));
    }
    const pb_plan_request request = {.workspaces = backend->workspaces, .budget = {device_budget}};
    pb_program *made;
    PB_RETURN_IF(pb_plan(graph, &request, &made));
    const pb_status status = pb_program_check(graph, made, &request);
    if (status != PB_OK) {
        pb_program_destroy(made);
        return status;
    }
    *program = made;
    return PB_OK;
}

static void resolve(pb_executor *e, uint32_t i) {
    const pb_insn *insn = &e->program->insns[i];
    pb_kernel_args *args = &e->args[i];
    pb_node_kernel_args(e->graph, &e->graph->nodes[insn->node], args);
    for (int k = 0; k < PB_MAX_INPUTS; k++)
        if (insn->in[k].value != PB_NONE) args->in[k].data = e->slab->data + insn->in[k].offset;
    for (int k = 0; k < PB_MAX_OUTPUTS; k++)
        if (insn->out[k].value != PB_NONE) args->out[k].data = e->slab->data + insn->out[k].offset;
    args->workspace = insn->workspace_bytes ? e->slab->data + insn->workspace_offset : NULL;
    args->workspace_bytes = insn->workspace_bytes;
}

pb_status pb_executor_create(const pb_backend *backend, const pb_graph *graph, const pb_program *program,
                             pb_slab *shared, pb_executor **result) {
    pb_status status = PB_OK;
    pb_executor *e = calloc(1, sizeof *e);
    if (!e) return pb_error(PB_ERR_MEMORY, "no memory for an executor");
    e->backend = backend;
    e->graph = graph;
    e->program = program;
    if (!shared) PB_TRY(pb_slab_create(program->tier_bytes[PB_TIER_DEVICE], &e->own_slab));
    e->slab = shared ? shared : e->own_slab;
    if (e->slab->bytes < program->tier_bytes[PB_TIER_DEVICE]) PB_FAIL(PB_ERR_INTERNAL, "the shared slab is smaller than the program");
    e->args = calloc(program->insn_count + 1, sizeof *e->args);
    if (!e->args) PB_FAIL(PB_ERR_MEMORY, "no memory for an executor");
    for (uint32_t i = 0; i < program->insn_count; i++) resolve(e, i);
    *result = e;
    e = NULL;
fail:
    pb_executor_destroy(e);
    return status;
}

void pb_executor_destroy(pb_executor *e) {
    if (!e) return;
    pb_slab_destroy(e->own_slab);
    free(e->args);
    free(e);
}

// Where a value that the host may touch lies.
static pb_status locate(const pb_executor *e, pb_vid value, uint64_t offset, uint64_t bytes, unsigned char **at) {
    const pb_value *v = value < e->graph->value_count ? &e->graph->values[value] : NULL;
    uint32_t pieces = 0;
    const pb_piece *piece = v ? pb_program_pieces(e->program, e->graph, value, &pieces) : NULL;
    const uint64_t home = pieces ? piece->offset : v ? e->program->home[value] : UINT64_MAX;
    if (home == UINT64_MAX) return pb_error(PB_ERR_INTERNAL, "value %u has no home in the slab", value);
    if (offset > pb_value_bytes(v) || bytes > pb_value_bytes(v) - offset)
        return pb_error(PB_ERR_INTERNAL, "copy outside value %u (%s)", value, v->name);
    *at = e->slab->data + home + offset;
    return PB_OK;
}

pb_status pb_executor_write(pb_executor *e, pb_vid value, uint64_t offset, const void *data, uint64_t bytes) {
    unsigned char *at;
    PB_RETURN_IF(locate(e, value, offset, bytes, &at));
    memcpy(at, data, bytes);
    return PB_OK;
}

pb_status pb_executor_read(const pb_executor *e, pb_vid value, uint64_t offset, void *data, uint64_t bytes) {
    unsigned char *at;
    PB_RETURN_IF(locate(e, value, offset, bytes, &at));
    memcpy(data, at, bytes);
    return PB_OK;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void run_profiled(pb_executor *e, uint32_t i, pb_opcode op) {
    const double start = now();
    e->backend->kernels[op](&e->args[i]);
    e->seconds[op] += now() - start;
    e->runs[op]++;
}

pb_status pb_executor_run(pb_executor *e) {
    for (uint32_t i = 0; i < e->program->insn_count; i++) {
        const pb_opcode op = e->graph->nodes[e->program->insns[i].node].op;
        if (e->profiled)
            run_profiled(e, i, op);
        else
            e->backend->kernels[op](&e->args[i]);
    }
    return PB_OK;
}

void pb_executor_profile(pb_executor *e, bool on) {
    e->profiled = on;
}

void pb_executor_profile_print(const pb_executor *e, void (*line)(void *context, const char *text), void *context) {
    char text[160];
    for (int op = 0; op < PB_OP_COUNT; op++) {
        if (!e->runs[op]) continue;
        snprintf(text, sizeof text, "%-20s %8llu runs %10.3f ms", pb_op_name((pb_opcode)op),
                 (unsigned long long)e->runs[op], e->seconds[op] * 1e3);
        line(context, text);
    }
}
