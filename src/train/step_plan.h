// What an optimizer step will need and how long it will take, as data: the programs that `train` runs, summed up over
// the passes of a step. Needs no weights, no pictures and no GPU.
#ifndef PB_TRAIN_STEP_PLAN_H
#define PB_TRAIN_STEP_PLAN_H

#include "plan/predict.h"
#include "train/memory_limits.h"
#include "train/step_graph.h"

struct pb_programs;
struct pb_batching;

// The link that the copies of a lane go over.
static inline int pb_link_of(pb_lane lane) {
    switch (lane) {
    case PB_LANE_UPLOAD: return PB_LINK_UPLOAD;
    case PB_LANE_DOWNLOAD: return PB_LINK_DOWNLOAD;
    case PB_LANE_READ: return PB_LINK_NVME_READ;
    default: return PB_LINK_NVME_WRITE;
    }
}

// Of one optimizer step in the middle of a run: all of its passes, one after another.
typedef struct pb_step_forecast {
    int64_t passes;
    double seconds;
    double busy[PB_LANE_COUNT];
    // What no step is faster than that runs the passes' ops in their order in these slabs and moves these bytes
    // (pb_step_bound): the passes' bounds, one after another.
    double lower_bound;
    double held[PB_BOUND_COUNT];  // of it, what each of these is responsible for
    pb_bound bound;               // for most of it
    uint64_t moved[PB_LINK_COUNT];
} pb_step_forecast;

typedef struct pb_step_plan {
    struct pb_programs *programs;
    struct pb_batching *batching;
    // The pass that takes the most device memory.
    const pb_graph *graph;
    const pb_program *program;
    uint64_t parameters;                   // trained
    double flops_forward, flops_backward;  // of the step
    // Per tier those of the program that takes most of it. The tier's size is the sum of its classes and the padding.
    uint64_t peak[PB_TIER_COUNT], by_class[PB_TIER_COUNT][PB_CLASS_COUNT], padding[PB_TIER_COUNT];
    uint64_t kept_activations, lower_bound_bytes;
    bool deferred;  // updates are made at the beginning of the next step
    pb_step_forecast step;
    double plan_seconds;  // that making this took
    pb_tier lacking;      // of a refusal: see pb_programs
    uint64_t smallest;
} pb_step_plan;

// Whether anything moves between tiers: a deferred step may have all of it on the device.
static inline bool pb_step_plan_moves(const pb_step_plan *plan) {
    for (int l = 0; l < PB_LINK_COUNT; l++)
        if (plan->step.moved[l]) return true;
    return false;
}

// Plans one step of gradient_accumulation_steps full batches. `request`: as pb_architecture_step fills it in, and like
// `limits` it must outlive the plan. Errors: those of pb_programs_compile; the plan is then empty but for `lacking` and
// `smallest`, which PB_ERR_BUDGET fills in.
pb_status pb_step_plan_create(const pb_config *config, const pb_step_request *request, const pb_memory_limits *limits,
                              pb_step_plan *plan);
void pb_step_plan_deinit(pb_step_plan *plan);

// Where the bytes of each class are between two steps, of what lives on.
void pb_step_plan_homes(const pb_step_plan *plan, uint64_t bytes[PB_TIER_COUNT][PB_CLASS_COUNT]);
// What a step moves over each link, by class. The sums are step.moved. Errors: PB_ERR_MEMORY.
pb_status pb_step_plan_moved(const pb_step_plan *plan, uint64_t bytes[PB_LINK_COUNT][PB_CLASS_COUNT]);

// Ops that run twice, their seconds, and the bytes of results that need not be kept from the one to the other.
typedef struct pb_repeated {
    uint32_t ops;
    double seconds;
    uint64_t bytes;
} pb_repeated;

// Of the pass `program`, or of the one that updates.
typedef struct pb_step_work {
    pb_repeated cheap;                           // forward ops, run again in the backward pass
    pb_repeated contractions;                    // the same: linears, convolutions, attention
    pb_repeated gradients;                       // made again just before their update (graph/carry.h), of
    uint64_t carried;                            // so many bytes, which are kept instead
    pb_repeated copies;                          // working copies that are made again of their masters: elements' casts
    int64_t updated_on_device, updated_on_host;  // parameters
} pb_step_work;
void pb_step_plan_work(const pb_step_plan *plan, const pb_machine *machine, pb_step_work *work);

// The first batches.accumulation batches of an epoch, on `machine`. Errors: those of pb_program_predict.
pb_status pb_programs_predict(const struct pb_programs *programs, const struct pb_batching *batching,
                              const pb_machine *machine, pb_step_forecast *forecast);

#endif
