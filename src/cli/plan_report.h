// What `pagebooth plan` prints: text for people, JSON, an explanation in words, and the tables over
// budgets and over formats of the optimizer's state.
#ifndef PB_CLI_PLAN_REPORT_H
#define PB_CLI_PLAN_REPORT_H

#include <stdio.h>

#include "train/step_plan.h"

// What a plan is made of; for the table it is made anew with other budgets.
typedef struct pb_plan_subject {
    pb_arena *arena;
    const pb_config *config;
    const pb_step_request *request;
    const char *machine;  // of --machine, or NULL
    bool unlimited;       // memory.device: auto, and no --machine: as much as it takes
} pb_plan_subject;

// The limits that the subject is planned in. `device`: bytes in place of memory.device, or 0.
pb_status pb_plan_subject_limits(const pb_plan_subject *subject, uint64_t device, pb_memory_limits *limits);

enum { PB_PLAN_ROWS = 8 };

// One row of the table: the same step in another device budget.
typedef struct pb_plan_row {
    uint64_t budget;
    bool fits;
    char refusal[512];  // where it does not fit
    uint64_t smallest;  // the smallest device budget that works, where it does not fit and one does; else 0
    uint64_t peak[PB_TIER_COUNT];
    pb_step_forecast step;
} pb_plan_row;

// 24, 16, 12, 8, 6, 4, 2 and 1 GiB. Errors: those of planning, but for PB_ERR_BUDGET.
pb_status pb_plan_rows(const pb_plan_subject *subject, pb_plan_row rows[PB_PLAN_ROWS]);

enum { PB_PLAN_FORMATS = 12 };

// One row of the table of formats: the same step in the same memory, with another format of the optimizer's state.
typedef struct pb_plan_format {
    pb_optimizer_states states;
    pb_optimizer_master master;
    bool chosen;  // the configuration's own
    bool fits;
    char refusal[512];  // where it does not fit
    pb_tier lacking;    // and which tier lacks
    uint64_t smallest;  // its smallest budget that works, or 0
    uint64_t lasting;   // bytes of weights and optimizer state, wherever they live
    uint64_t peak[PB_TIER_COUNT];
    pb_step_forecast step;
} pb_plan_format;

typedef struct pb_plan_formats {
    pb_plan_format rows[PB_PLAN_FORMATS];
    int count;
} pb_plan_formats;

// Every format that the configuration's precision allows. Errors: those of planning, but for PB_ERR_BUDGET.
pb_status pb_plan_formats_make(const pb_plan_subject *subject, pb_plan_formats *formats);
void pb_plan_print_formats(const pb_plan_subject *subject, const pb_plan_formats *formats, FILE *file);
// `"formats": [...]`.
void pb_plan_append_formats(pb_text *text, const pb_plan_formats *formats);
// `"peak": {...}, "moved": {...}, "seconds": ...` of a row.
void pb_plan_append_outcome(pb_text *text, const uint64_t peak[PB_TIER_COUNT], const pb_step_forecast *step);

// Steps of the run, or 0 where that depends on the number of pictures.
int64_t pb_plan_run_steps(const pb_config *config);

void pb_plan_print_text(const pb_plan_subject *subject, const pb_memory_limits *limits, const pb_step_plan *plan,
                        FILE *file);
// `rows` and `formats` may be NULL.
pb_status pb_plan_print_json(const pb_plan_subject *subject, const pb_memory_limits *limits, const pb_step_plan *plan,
                             const pb_plan_row *rows, const pb_plan_formats *formats, FILE *file);
void pb_plan_print_rows(const pb_plan_row rows[PB_PLAN_ROWS], FILE *file);
// What is where, what moves when and why, what is computed twice, and what the time goes into. Errors: PB_ERR_MEMORY.
pb_status pb_plan_explain(const pb_memory_limits *limits, const pb_step_plan *plan, FILE *file);

// For people.
const char *pb_plan_machine_name(const pb_memory_limits *limits);
// "1.25 GiB"; `text` has room for 32 bytes.
const char *pb_bytes_text(uint64_t bytes, char text[32]);
// "1.25 s", "12.5 ms".
const char *pb_seconds_text(double seconds, char text[32]);

// Names as in JSON.
extern const char *const pb_plan_class_keys[PB_CLASS_COUNT];
extern const char *const pb_plan_tier_keys[PB_TIER_COUNT];
extern const char *const pb_plan_link_keys[PB_LINK_COUNT];

#endif
