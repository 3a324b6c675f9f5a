#include "exec/support_runs.h"

#include <stdlib.h>
#include <string.h>

#include "plan/support_graphs.h"

static bool is_written_once(const pb_value *v) {
    return v->producer == PB_NONE && v->persistent;
}

static bool is_input(const pb_value *v) {
    return v->producer == PB_NONE && v->class_ == PB_CLASS_INPUT;
}

uint64_t support_result_bytes(const pb_graph *g) {
    uint64_t bytes = 0;
    for (pb_vid v = 0; v < g->value_count; v++) {
        if (g->values[v].output) bytes += RUN_STEPS * pb_value_bytes(&g->values[v]);
        if (is_written_once(&g->values[v])) bytes += pb_value_bytes(&g->values[v]);
    }
    return bytes;
}

// In two parts, so that offsets into a value are used as well.
static pb_status move_value(pb_executor *e, const pb_graph *g, pb_vid v, unsigned char *data, bool write) {
    const uint64_t bytes = pb_value_bytes(&g->values[v]), first = bytes / 3;
    if (write) {
        PB_RETURN_IF(pb_executor_write(e, v, first, data + first, bytes - first));
        return pb_executor_write(e, v, 0, data, first);
    }
    PB_RETURN_IF(pb_executor_read(e, v, first, data + first, bytes - first));
    return pb_executor_read(e, v, 0, data, first);
}

static pb_status fill(pb_executor *e, const pb_graph *g, bool (*which)(const pb_value *), uint64_t seed) {
    pb_status status = PB_OK;
    for (pb_vid v = 0; v < g->value_count && status == PB_OK; v++) {
        if (!which(&g->values[v])) continue;
        unsigned char *data = malloc(pb_value_bytes(&g->values[v]));
        support_fill(g, v, seed, data);
        status = move_value(e, g, v, data, true);
        free(data);
    }
    return status;
}

static pb_status collect(pb_executor *e, const pb_graph *g, bool outputs, unsigned char **to) {
    for (pb_vid v = 0; v < g->value_count; v++) {
        if (outputs ? !g->values[v].output : !is_written_once(&g->values[v])) continue;
        PB_RETURN_IF(move_value(e, g, v, *to, false));
        *to += pb_value_bytes(&g->values[v]);
    }
    return PB_OK;
}

unsigned char *support_run_steps(pb_executor *e, const pb_graph *g, uint64_t seed, pb_status *status) {
    unsigned char *result = malloc(support_result_bytes(g) + 1), *to = result;
    *status = fill(e, g, is_written_once, seed);
    for (int step = 0; step < RUN_STEPS && *status == PB_OK; step++) {
        *status = fill(e, g, is_input, seed + (uint64_t)step);
        if (*status == PB_OK) *status = pb_executor_run(e);
        if (*status == PB_OK) *status = collect(e, g, true, &to);
    }
    if (*status == PB_OK) *status = collect(e, g, false, &to);
    if (*status == PB_OK) return result;
    free(result);
    return NULL;
}

unsigned char *support_run_resident(const pb_graph *g, const pb_backend *backend, uint64_t seed) {
    pb_program *program = NULL;
    pb_executor *executor = NULL;
    unsigned char *result = NULL;
    pb_status status = pb_compile(g, backend, NULL, &program);
    if (status == PB_OK) status = pb_executor_create(backend, g, program, NULL, &executor);
    if (status == PB_OK) result = support_run_steps(executor, g, seed, &status);
    pb_executor_destroy(executor);
    pb_program_destroy(program);
    return result;
}

unsigned char *support_run_paged(const pb_graph *g, const pb_backend *backend, const pb_program *program,
                                 const paged_run *how, uint64_t seed, pb_status *status) {
    const pb_memory_options options = {.nvme = how->directory, .engine = how->engine, .hook = how->hook};
    pb_memory *memory = NULL;
    pb_executor *executor = NULL;
    unsigned char *result = NULL;
    *status = pb_memory_create_for(backend, &program, 1, &options, &memory);
    if (*status == PB_OK) *status = pb_executor_create(backend, g, program, memory, &executor);
    if (*status == PB_OK && how->stress) *status = pb_executor_stress(executor, how->stress);
    if (*status == PB_OK && how->times) pb_executor_trace(executor, how->times);
    if (*status == PB_OK) result = support_run_steps(executor, g, seed, status);
    pb_executor_destroy(executor);
    pb_memory_destroy(memory);
    return result;
}
