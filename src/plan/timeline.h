// What a run of a program looks like over time: the bytes of each class in each tier, and what every lane does. From
// the program and the times of its instructions, predicted (pb_program_predict) or measured; what lies where is found
// by walking the program, which must be one that pb_program_check accepts.
#ifndef PB_PLAN_TIMELINE_H
#define PB_PLAN_TIMELINE_H

#include "base/json.h"
#include "plan/program.h"

// From `at` (seconds) until the next sample.
typedef struct pb_timeline_sample {
    double at;
    uint64_t bytes[PB_TIER_COUNT][PB_CLASS_COUNT];
} pb_timeline_sample;

typedef struct pb_timeline {
    pb_arena *arena;
    const pb_graph *graph;
    const pb_program *program;
    const pb_insn_times *times;
    double seconds;  // the last end of an instruction
    pb_timeline_sample *samples;
    size_t sample_count;
    pb_vid *moved;  // by instruction: of a FETCH or EVICT the (first) value that it moves, else PB_NONE
} pb_timeline;

// Keeps graph, program and times by reference. Bytes are alive from the begin of the instruction that makes them to the
// end of the last one that reads them; what persists, from step to step. Errors: PB_ERR_MEMORY.
pb_status pb_timeline_create(const pb_graph *graph, const pb_program *program, const pb_insn_times *times,
                             pb_timeline **timeline);
void pb_timeline_destroy(pb_timeline *timeline);  // NULL is allowed

// A trace for ui.perfetto.dev or chrome://tracing: a track per lane, a counter per tier with its classes. `title`
// names the process in it. Written whole or not at all. Errors: PB_ERR_IO, PB_ERR_MEMORY.
pb_status pb_timeline_write_trace(const pb_timeline *timeline, const char *title, const char *path);
void pb_timeline_print_trace(const pb_timeline *timeline, const char *title, pb_text *text);
// A picture of the same: memory by class for every tier in use, and the use of every lane.
pb_status pb_timeline_write_svg(const pb_timeline *timeline, const char *title, const char *path);
void pb_timeline_print_svg(const pb_timeline *timeline, const char *title, pb_text *text);

// Both of the same program, side by side: two processes of one trace; two pictures, on one scale of time where both
// can be seen on it.
pb_status pb_timeline_write_trace_pair(const pb_timeline *predicted, const pb_timeline *actual, const char *path);
pb_status pb_timeline_write_svg_pair(const pb_timeline *predicted, const pb_timeline *actual, const char *title,
                                     const char *path);

// A table for people, predicted beside actual: the step, each lane's busy seconds and rates, and the ops that take the
// most time.
pb_status pb_times_compare(const pb_graph *graph, const pb_program *program, const pb_insn_times *predicted,
                           const pb_insn_times *actual, pb_text *text);

// Names for people: "activations", "device", "upload".
const char *pb_timeline_class_name(pb_class class_);
const char *pb_timeline_tier_name(pb_tier tier);
const char *pb_timeline_lane_name(pb_lane lane);

#endif
