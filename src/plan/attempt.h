// Private to src/plan: one attempt at a program, and what all attempts of a strategy begin with.
#ifndef PB_PLAN_ATTEMPT_H
#define PB_PLAN_ATTEMPT_H

#include "plan/pager.h"

// Altered by no attempt, so that several can be made side by side.
typedef struct pb_setting {
    pb_pager pager;  // its arena is NULL until it is built
    pb_chunking layout;
    uint32_t gap_count;  // of all segments' accesses
} pb_setting;

// What an attempt has come to.
typedef struct pb_made {
    pb_program *program;             // NULL: it does not fit
    double seconds;                  // as it is predicted
    double bound;                    // which they cannot be below, with what it moves
    bool turning;                    // there is room on the device when the step ends: the turning point binds
    bool unplaced;                   // it only fits in bytes: no offsets were found
    uint64_t needed[PB_TIER_COUNT];  // where it does not fit: see pb_pager_solve
} pb_made;

// What is known of an attempt before anything has an offset.
typedef struct pb_estimate {
    bool fits;
    double bound;       // no program of it is faster
    bool host_matters;  // something has to leave the host, or that is what lacks
    uint64_t needed[PB_TIER_COUNT];
} pb_estimate;

// Units of at most `unit` bytes; 0: each parameter is one. Attempts keep to the request, which must outlive them.
pb_status pb_setting_build(const pb_graph *graph, const pb_plan_request *request, uint64_t unit, pb_strategy strategy,
                           pb_setting *setting);
void pb_setting_deinit(pb_setting *setting);

// Both return PB_OK for one that does not fit. `exhausted`: as in pb_pager.
pb_status pb_attempt_make(const pb_setting *setting, pb_attempt attempt, bool exhausted, pb_made *made);
pb_status pb_attempt_estimate(const pb_setting *setting, pb_attempt attempt, pb_estimate *estimate);

#endif
