// Private to src/plan: which attempts are made, and which of them is kept.
#ifndef PB_PLAN_SEARCH_H
#define PB_PLAN_SEARCH_H

#include "plan/attempt.h"

typedef struct pb_outcome {
    pb_program *program;  // the best so far, or NULL
    double seconds;
    uint32_t way;                    // which of the graphs it is of
    bool unplaced;                   // some attempt only failed to find offsets
    bool slower;                     // some attempt was not made, for it would take longer than is of use
    uint64_t needed[PB_TIER_COUNT];  // the least that some attempt asked for; UINT64_MAX: none did
} pb_outcome;

// What an attempt has come to: its program is taken over where it is better, and destroyed where not.
void pb_outcome_add(pb_outcome *outcome, uint32_t way, pb_made *made);

// Tries what is worth trying when not everything fits, of all graphs but those that are `done` (by graph). Makes some
// of it on other threads; what comes of it does not depend on how many those are, nor on how fast. `request` has a
// machine. PB_OK also where nothing fits.
pb_status pb_search(const pb_graph *const *graphs, uint32_t count, const bool *done, const pb_plan_request *request,
                    pb_outcome *outcome);

#endif
