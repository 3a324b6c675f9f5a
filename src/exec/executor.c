#include "exec/executor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "exec/executor_parts.h"

static pb_status check_support(const pb_graph *graph, const pb_backend *backend) {
    if (graph->status != PB_OK) return graph->status;
    for (uint32_t n = 0; n < graph->node_count && backend->supports; n++) {
        pb_kernel_args args;
        pb_node_kernel_args(graph, &graph->nodes[n], &args);
        PB_RETURN_IF(backend->supports(graph->nodes[n].op, &args));
    }
    return PB_OK;
}

pb_status pb_compile_fastest(const pb_graph *const *graphs, uint32_t count, const pb_backend *backend,
                             const pb_plan_request *limits, uint32_t *chosen, pb_program **program) {
    for (uint32_t w = 0; w < count; w++) PB_RETURN_IF(check_support(graphs[w], backend));
    pb_plan_request request = limits ? *limits : (pb_plan_request){.budget = {UINT64_MAX}};
    request.workspaces = backend->workspaces;
    pb_program *made;
    PB_RETURN_IF(pb_plan_fastest(graphs, count, &request, chosen, &made));
    const pb_status status = pb_program_check(graphs[*chosen], made, &request);
    if (status != PB_OK) {
        pb_program_destroy(made);
        return status;
    }
    *program = made;
    return PB_OK;
}

pb_status pb_compile(const pb_graph *graph, const pb_backend *backend, const pb_plan_request *limits,
                     pb_program **program) {
    uint32_t chosen;
    return pb_compile_fastest(&graph, 1, backend, limits, &chosen, program);
}

pb_status pb_executor_create(const pb_backend *backend, const pb_graph *graph, const pb_program *program,
                             pb_memory *shared, pb_executor **result) {
    pb_status status = PB_OK;
    pb_executor *e = calloc(1, sizeof *e);
    if (!e) return pb_error(PB_ERR_MEMORY, "no memory for an executor");
    e->graph = graph;
    e->program = program;
    if (!shared) PB_TRY(pb_memory_create_for(backend, &program, 1, NULL, &e->own_memory));
    e->memory = shared ? shared : e->own_memory;
    PB_TRY(pb_executor_prepare(e));
    *result = e;
    e = NULL;
fail:
    pb_executor_destroy(e);
    return status;
}

void pb_executor_destroy(pb_executor *e) {
    if (!e) return;
    pb_executor_release_captured(e);
    free(e->args);
    free(e->attrs);
    free(e->mark);
    free(e->behind);
    free(e->first_reads);
    for (int l = 0; l < PB_LANE_COUNT; l++) free(e->list[l]);
    free(e->kept);
    pb_memory_destroy(e->own_memory);
    free(e);
}

// --- Issuing ---

static pb_status run_kernel(pb_executor *e, uint32_t i) {
    const pb_insn *insn = &e->program->insns[i];
    const pb_opcode op = pb_insn_op(e->graph, insn);
    const pb_memory *m = e->memory;
    // A lane that failed has let everybody pass: kernels are not given what was to come.
    if (m->io && pb_io_failed(m->io)) return PB_OK;
    // What is captured is issued as a whole where its first instruction stands; times are of single instructions.
    if (e->segment && e->segment[i] && !e->times) {
        const pb_segment *s = &e->segments[e->segment[i] - 1];
        return s->first == i ? m->calls->replay(m->device, s->captured) : PB_OK;
    }
    if (!e->profiled) return m->calls->run(m->device, insn->lane, op, &e->args[i]);
    const double start = pb_seconds_now();
    PB_RETURN_IF(m->calls->run(m->device, insn->lane, op, &e->args[i]));
    e->seconds[op] += pb_seconds_now() - start;
    e->runs[op]++;
    return PB_OK;
}

static pb_status issue_wait(const pb_executor *e, const pb_insn *insn) {
    const pb_memory *m = e->memory;
    const pb_lane on = e->program->insns[insn->on].lane;
    const uint64_t mark = m->mark[on] + e->mark[insn->on];
    if (on == insn->lane) return PB_OK;  // in order as it is
    // A device may load a kernel's code when it is first launched, and for that wait for all that is under way, with
    // the I/O thread shut out. So in the first run no lane is left waiting for that thread: this one waits in its
    // place.
    const bool patient = m->calls->signal && (e->has_run || m->calls->room);
    if (!pb_is_io_lane(on) || patient) return m->calls->lane_wait(m->device, insn->lane, on, mark);
    pb_io_wait(m->io, on, mark);
    return PB_OK;
}

static pb_status issue(pb_executor *e, uint32_t i) {
    const pb_insn *insn = &e->program->insns[i];
    const pb_memory *m = e->memory;
    if (insn->kind == PB_INSN_WAIT) return issue_wait(e, insn);
    const bool skipped = e->job.skipped >> insn->lane & 1;
    if (e->times && m->calls->time && !skipped)
        PB_RETURN_IF(m->calls->time(m->device, insn->lane, &e->times[i].begin, &e->times[i].end));
    if (!skipped && pb_insn_is_op(insn))
        PB_RETURN_IF(run_kernel(e, i));
    else if (!skipped)
        PB_RETURN_IF(m->calls->copy(m->device, insn->lane, m->slab[insn->to_tier] + insn->to,
                                    m->slab[insn->from_tier] + insn->from, insn->bytes));
    if (!(e->behind[i] & PB_RECORD)) return PB_OK;
    const uint64_t mark = m->mark[insn->lane] + e->mark[i];
    PB_RETURN_IF(m->calls->record(m->device, insn->lane, mark));
    return e->behind[i] & PB_TELL_IO ? pb_io_issued(m->io, insn->lane, mark) : PB_OK;
}

static bool is_copy_lane(pb_lane lane) {
    return lane == PB_LANE_UPLOAD || lane == PB_LANE_DOWNLOAD;
}

// Whether an instruction of no I/O lane has been issued, in its turn or ahead of it.
static bool is_passed(const pb_executor *e, uint32_t i) {
    const pb_lane lane = e->program->insns[i].lane;
    return e->issued[lane] == e->count[lane] || i < e->list[lane][e->issued[lane]];
}

// Whether what instruction i stands for has been issued, so that a lane can be told to wait for it.
static bool is_issued(const pb_executor *e, uint32_t i) {
    return pb_is_io_lane(e->program->insns[i].lane) ? e->memory->calls->signal != NULL : is_passed(e, i);
}

// Copies need not stand back behind kernels that happen to come first in the list: before the executor's thread is busy
// with one, it issues what its lane's WAITs permit. Never more than the lane takes at once, and never a wait for what
// is not issued yet, so that this cannot block.
static pb_status issue_ahead(pb_executor *e) {
    static const pb_lane lanes[] = {PB_LANE_UPLOAD, PB_LANE_DOWNLOAD};
    const pb_memory *m = e->memory;
    for (bool moved = m->calls->room != NULL; moved;) {
        moved = false;
        for (int k = 0; k < 2; k++) {
            const pb_lane lane = lanes[k];
            while (e->issued[lane] < e->count[lane] && m->calls->room(m->device, lane) >= 3) {
                const uint32_t i = e->list[lane][e->issued[lane]];
                const pb_insn *insn = &e->program->insns[i];
                if (insn->kind == PB_INSN_WAIT && !is_issued(e, insn->on)) break;
                PB_RETURN_IF(issue(e, i));
                e->issued[lane]++;
                moved = true;
            }
        }
    }
    return PB_OK;
}

// Whether lane COMPUTE or HOST would go on past a WAIT at once.
static pb_status is_over(const pb_executor *e, const pb_insn *wait, bool *over) {
    const pb_memory *m = e->memory;
    const pb_lane on = e->program->insns[wait->on].lane;
    *over = on == wait->lane;
    return *over ? PB_OK : m->calls->reached(m->device, on, m->mark[on] + e->mark[wait->on], over);
}

// Where kernels run in the executor's thread, lanes COMPUTE and HOST take turns in it, and one that has to wait would
// stop the other. So before that the other one goes on, as far as it need not wait itself.
static pb_status work_meanwhile(pb_executor *e, const pb_insn *wait) {
    const pb_lane other = wait->lane == PB_LANE_COMPUTE ? PB_LANE_HOST : PB_LANE_COMPUTE;
    while (e->issued[other] < e->count[other]) {
        bool over;
        PB_RETURN_IF(issue_ahead(e));
        PB_RETURN_IF(is_over(e, wait, &over));
        if (over) return PB_OK;
        const uint32_t i = e->list[other][e->issued[other]];
        const pb_insn *insn = &e->program->insns[i];
        if (insn->kind == PB_INSN_WAIT) {
            PB_RETURN_IF(is_over(e, insn, &over));
            if (!over) return PB_OK;
        } else {
            PB_RETURN_IF(issue(e, i));
        }
        e->issued[other]++;
    }
    return PB_OK;
}

// The next instruction of the list, in whose order everything can be issued without waiting for what is not issued.
static pb_status issue_next(pb_executor *e) {
    const pb_insn *insn = &e->program->insns[e->now];
    if (pb_is_io_lane(insn->lane) || is_passed(e, e->now)) return PB_OK;  // the I/O thread's, or issued ahead
    if (!is_copy_lane(insn->lane)) {
        PB_RETURN_IF(issue_ahead(e));
        if (insn->kind == PB_INSN_WAIT && e->memory->calls->room) PB_RETURN_IF(work_meanwhile(e, insn));
    }
    PB_RETURN_IF(issue(e, e->now));
    e->issued[insn->lane]++;
    return PB_OK;
}

// --- A run ---

// Extents that are read before they are written must have been written, and what is staged must be in place.
static pb_status settle_store(pb_executor *e) {
    const bool filled = e->filled && e->filled_at == e->memory->forgotten;
    PB_RETURN_IF(pb_memory_flush(e->memory));
    for (uint32_t i = 0; i < e->first_read_count && !filled; i++)
        PB_RETURN_IF(pb_memory_fill(e->memory, e->first_reads[i]));
    if (e->count[PB_LANE_WRITE]) PB_RETURN_IF(pb_memory_writable(e->memory));
    e->filled = true;
    e->filled_at = e->memory->forgotten;
    pb_memory_unstage(e->memory);
    return PB_OK;
}

static void begin_io(pb_executor *e) {
    memcpy(e->job.base, e->memory->mark, sizeof e->job.base);
    e->job.step = e->memory->runs;
    e->job.times = e->times;
    pb_io_begin(e->memory->io, &e->job);
}

static void remember_failure(pb_memory *m, pb_status status) {
    if (m->failed) return;
    m->failed = status;
    snprintf(m->failure, sizeof m->failure, "%s", pb_error_message());
}

// Brings every lane to rest, whatever has happened. The first error.
static pb_status finish(pb_executor *e, bool io, pb_status status) {
    pb_memory *m = e->memory;
    if (status != PB_OK) remember_failure(m, status);
    if (status != PB_OK && io) pb_io_abandon(m->io);
    status = m->calls->synchronize(m->device);
    if (status != PB_OK) {
        remember_failure(m, status);
        if (io) pb_io_abandon(m->io);
    }
    if (io && (status = pb_io_end(m->io)) != PB_OK) remember_failure(m, status);
    for (int l = 0; l < PB_LANE_COUNT; l++) m->mark[l] += e->total[l];
    m->runs++;
    return m->failed ? pb_error(m->failed, "%s", m->failure) : PB_OK;
}

pb_status pb_executor_run(pb_executor *e) {
    pb_memory *m = e->memory;
    if (m->failed) return pb_error(m->failed, "%s", m->failure);
    PB_RETURN_IF(settle_store(e));
    if (e->stress) pb_executor_poison(e);
    const bool io = e->count[PB_LANE_READ] || e->count[PB_LANE_WRITE];
    const double start = e->times ? pb_seconds_now() : 0;
    if (e->times) memset(e->times, 0, e->program->insn_count * sizeof *e->times);
    if (io) begin_io(e);
    if (m->calls->range) m->calls->range(m->device, "a run of a program");
    pb_status status = PB_OK;
    memset(e->issued, 0, sizeof e->issued);
    for (e->now = 0; e->now < e->program->insn_count && status == PB_OK; e->now++) {
        if (io && pb_io_failed(m->io)) break;
        status = issue_next(e);
    }
    status = finish(e, io, status);
    if (m->calls->range) m->calls->range(m->device, NULL);
    // Of a run without some lanes not every kernel's code is there yet.
    if (status == PB_OK && !e->job.skipped) e->has_run = true;
    if (status == PB_OK && e->has_run && !e->segment && (status = pb_executor_capture(e)) != PB_OK)
        remember_failure(m, status);
    for (uint32_t i = 0; e->times && i < e->program->insn_count; i++) {
        if (e->times[i].begin > 0) e->times[i].begin -= start;
        if (e->times[i].end > 0) e->times[i].end -= start;
    }
    return status;
}

void pb_executor_trace(pb_executor *e, pb_insn_times *times) {
    e->times = times;
}

void pb_executor_skip(pb_executor *e, uint32_t lanes) {
    e->job.skipped = lanes;
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
