// What a step takes in its parts: the same programs run again with nothing done on some lanes, once the run is over and
// nobody needs its state any more. Only for runs that are measured (pagebooth bench --memory).
#include <stdlib.h>

#include "base/clock.h"
#include "train/trainer_parts.h"

enum { ROUNDS = 2 };  // of each part; the mean counts
static const uint32_t io_lanes = 1u << PB_LANE_READ | 1u << PB_LANE_WRITE;

static bool is_input(const pb_pass_program *p, pb_vid v) {
    const pb_value *value = &p->step->graph->values[v];
    return value->class_ == PB_CLASS_INPUT && value->producer == PB_NONE && !value->persistent &&
           p->program->home[v] != UINT64_MAX;
}

// Calls `each` for every input with its place in the program's buffer; returns the bytes of all of them.
static pb_status walk_inputs(pb_trainer *t, const pb_pass_program *p,
                             pb_status (*each)(const pb_pass_program *p, pb_vid v, unsigned char *at),
                             uint64_t *bytes) {
    unsigned char *buffer = t->record.inputs[p - t->programs.items];
    *bytes = 0;
    for (pb_vid v = 0; v < p->step->graph->value_count; v++) {
        if (!is_input(p, v)) continue;
        if (each) PB_RETURN_IF(each(p, v, buffer + *bytes));
        *bytes += pb_value_bytes(&p->step->graph->values[v]);
    }
    return PB_OK;
}

static pb_status read_input(const pb_pass_program *p, pb_vid v, unsigned char *at) {
    return pb_executor_read(p->executor, v, 0, at, pb_value_bytes(&p->step->graph->values[v]));
}

static pb_status write_input(const pb_pass_program *p, pb_vid v, unsigned char *at) {
    return pb_executor_write(p->executor, v, 0, at, pb_value_bytes(&p->step->graph->values[v]));
}

pb_status pb_alone_begin(pb_trainer *t) {
    for (int i = 0; i < t->programs.count; i++) {
        uint64_t bytes;
        PB_RETURN_IF(walk_inputs(t, &t->programs.items[i], NULL, &bytes));
        t->record.inputs[i] = calloc(1, bytes + 1);
        if (!t->record.inputs[i]) return pb_error(PB_ERR_MEMORY, "no memory to time a step");
    }
    return PB_OK;
}

pb_status pb_alone_keep_inputs(pb_trainer *t, const pb_pass_program *p) {
    uint64_t bytes;
    return walk_inputs(t, p, read_input, &bytes);
}

// Seconds of a step's programs without what is on some lanes.
static pb_status run_without(pb_trainer *t, uint32_t lanes, double *seconds) {
    pb_status status = PB_OK;
    *seconds = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (pb_pass_walk w = {0}; pb_pass_walk_next(&t->programs, &t->batching, &w);) {
            uint64_t bytes;
            PB_TRY(walk_inputs(t, w.pass, write_input, &bytes));
            pb_executor_skip(w.pass->executor, lanes);
            const double begun = pb_seconds_now();
            status = pb_executor_run(w.pass->executor);
            *seconds += (pb_seconds_now() - begun) / ROUNDS;
            pb_executor_skip(w.pass->executor, 0);
            if (status != PB_OK) goto fail;
        }
    }
fail:
    return status;
}

pb_status pb_alone_measure(pb_trainer *t, pb_train_report *report) {
    uint64_t moved = 0;
    for (int l = 0; l < PB_LINK_COUNT; l++) moved += report->forecast.moved[l];
    if (!moved || !report->steps) return PB_OK;
    PB_RETURN_IF(run_without(t, io_lanes, &report->compute_alone));
    if (!report->forecast.moved[PB_LINK_NVME_READ] && !report->forecast.moved[PB_LINK_NVME_WRITE]) return PB_OK;
    return run_without(t, ~io_lanes, &report->io_alone);
}
