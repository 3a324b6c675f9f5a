// Kernels that follow one another on lane COMPUTE, with no WAIT between them and no mark that others wait for, are one
// thing to a device that can capture them: a resident program is one such segment, a paged one has one between every
// two meetings with its other lanes. Since a segment holds nothing of any other lane, and marks stay outside, the order
// that the program asks for is kept as it is, whatever the device makes of the inside.
//
// Nothing about a segment changes from run to run: operands lie at fixed places, and what differs between two steps
// (batches, the learning rate, the count of steps, the loss scale) lies in the slab.
#include <stdatomic.h>
#include <stdlib.h>

#include "exec/executor_parts.h"

// Below this many kernels one launch of a graph costs as much as the launches that it replaces.
enum { LEAST = 4 };

static atomic_bool captures = true;

void pb_executor_captures(bool on) {
    atomic_store(&captures, on);
}

// The kernels from `at` in lane COMPUTE's list on that belong together; *next is where to go on.
static uint32_t find_segment(const pb_executor *e, uint32_t at, uint32_t *next, uint32_t *insns) {
    const uint32_t *list = e->list[PB_LANE_COMPUTE], end = e->count[PB_LANE_COMPUTE];
    uint32_t count = 0;
    for (; at < end; at++) {
        const pb_insn *insn = &e->program->insns[list[at]];
        if (insn->kind == PB_INSN_WAIT) {
            if (e->program->insns[insn->on].lane == PB_LANE_COMPUTE) continue;  // the lane's own order
            if (count) break;
            continue;
        }
        insns[count++] = list[at];
        if (e->behind[list[at]] & PB_RECORD) {
            at++;
            break;
        }
    }
    *next = at;
    return count;
}

static pb_status capture_segment(pb_executor *e, const uint32_t *insns, uint32_t count, pb_opcode *ops,
                                 const pb_kernel_args **args) {
    const pb_memory *m = e->memory;
    pb_captured *captured = NULL;
    for (uint32_t k = 0; k < count; k++) {
        ops[k] = pb_insn_op(e->graph, &e->program->insns[insns[k]]);
        args[k] = &e->args[insns[k]];
    }
    PB_RETURN_IF(m->calls->capture(m->device, count, ops, args, &captured));
    e->segments[e->segment_count++] = (pb_segment){.first = insns[0], .captured = captured};
    for (uint32_t k = 0; k < count; k++) e->segment[insns[k]] = e->segment_count;
    return PB_OK;
}

pb_status pb_executor_capture(pb_executor *e) {
    const uint32_t most = e->count[PB_LANE_COMPUTE];
    if (e->segment || !e->memory->calls->capture || !atomic_load(&captures)) return PB_OK;
    pb_status status = PB_OK;
    uint32_t *insns = calloc((size_t)most + 1, sizeof *insns);
    pb_opcode *ops = calloc((size_t)most + 1, sizeof *ops);
    const pb_kernel_args **args = calloc((size_t)most + 1, sizeof *args);
    e->segment = calloc((size_t)e->program->insn_count + 1, sizeof *e->segment);
    e->segments = calloc((size_t)most / LEAST + 1, sizeof *e->segments);
    if (!insns || !ops || !args || !e->segment || !e->segments)
        PB_FAIL(PB_ERR_MEMORY, "no memory to capture a program");
    for (uint32_t at = 0; at < most;) {
        const uint32_t count = find_segment(e, at, &at, insns);
        if (count < LEAST) continue;
        PB_TRY(capture_segment(e, insns, count, ops, args));
    }
fail:
    free(insns);
    free(ops);
    free(args);
    if (status != PB_ERR_UNSUPPORTED) return status;
    // What has been captured so far stays so; a device that refuses one segment is not asked for others.
    pb_error_clear();
    return PB_OK;
}

void pb_executor_release_captured(pb_executor *e) {
    for (uint32_t s = 0; s < e->segment_count; s++)
        e->memory->calls->captured_release(e->memory->device, e->segments[s].captured);
    free(e->segments);
    free(e->segment);
    e->segments = NULL;
    e->segment = NULL;
    e->segment_count = 0;
}
