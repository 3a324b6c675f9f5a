// The graph of one training step: forward, loss, backward, gradient norm, AdamW. Or, with the update deferred: AdamW
// with the gradients and the norm of the step before, and then forward, loss, backward, norm. The two compute the same;
// the second lets each parameter's state come and go just before its weight is used, while the norm of all gradients,
// and with it clipping and the overflow check, stays exact.
#ifndef PB_TRAIN_STEP_GRAPH_H
#define PB_TRAIN_STEP_GRAPH_H

#include "graph/carry.h"
#include "io/weights_file.h"
#include "nn/module.h"
#include "train/optimizer_state.h"

// With gradient accumulation a step is made of several passes over micro-batches; all share the persistent values.
typedef enum pb_pass {
    PB_PASS_WHOLE,  // the only one: backward and update
    PB_PASS_FIRST,  // of several: gradients are stored into the fp32 sums
    PB_PASS_NEXT,   // gradients are added to the sums
    PB_PASS_LAST,   // gradients are added to the sums, then norm and update
    PB_PASS_FLUSH,  // with deferred updates: makes the one that is due, and nothing else
    // For validation pictures, between two steps, with the run's weights and state where they are:
    PB_PASS_SAMPLE,  // forward alone: a sampler's call of the UNet
    PB_PASS_DECODE,  // the VAE's decoder, whose weights are inputs
} pb_pass;

// Validation pictures: what they need beside the steps.
typedef struct pb_validation_request {
    const pb_vae_config *vae;  // NULL: none are made
    int latent_h, latent_w;
    int pictures;  // that go through the UNet together, each once without and once with the prompt
} pb_validation_request;

typedef struct pb_step_request {
    const pb_unet_config *unet;
    const pb_clip_config *clip;  // the text encoder when it is trained, else NULL: the context is an input
    pb_dtype compute;            // F32, F16 or BF16
    int batch;                   // pictures in the pass: instance and class together
    int latent_h, latent_w;
    int tokens;  // of a prompt
    pb_pass pass;
    pb_optimizer_format optimizer;  // how the state is kept
    bool sums;                      // declare gradient sums (true for every pass of a run that accumulates)
    double recompute;               // FLOPs per byte, see pb_graph_recompute
    bool deferred;                  // the update of a step is made at the beginning of the next one
    const pb_carry *carry;          // with deferred updates: gradients that are made again, or NULL
    pb_validation_request validation;
} pb_step_request;

typedef struct pb_step_graph {
    pb_graph *graph;
    pb_module *unet, *clip;  // clip is NULL where it is frozen
    pb_module *decoder;      // of PB_PASS_DECODE: to be loaded before each run
    // Inputs, to be written before each run
    pb_vid latents;    // [N,h,w,C] compute: noisy
    pb_vid timesteps;  // [N] fp32
    pb_vid context;    // [N,T,cross_attention_dim] compute, or PB_NONE
    pb_vid ids;        // [N,T] i32, or PB_NONE
    pb_vid target;     // [N,h,w,C] fp32
    pb_vid weight;     // [N] fp32: of each picture's loss in the gradient
    pb_vid scale;      // [1] fp32: loss scale
    pb_vid hyper;      // [PB_HYPER_COUNT] fp32; PB_NONE in passes without an update
    pb_vid norm;       // [1] fp64: write 0; PB_NONE likewise
    // What the deferred update works with: `hyper` and `control` of the step before. Where no update is due (before the
    // first step, after a flush), control[PB_CONTROL_SKIP] is to be 1. PB_NONE in passes that do not begin with one.
    pb_vid due_hyper, due_control;
    // Outputs
    pb_vid loss;     // [N] fp32: mean squared error of each picture, unweighted
    pb_vid control;  // [PB_CONTROL_COUNT] fp32, or PB_NONE
    pb_vid result;   // of PB_PASS_SAMPLE [N,h,w,C], of PB_PASS_DECODE [1,H,W,3], compute; else PB_NONE
} pb_step_graph;

// Differentiated, with cheap ops recomputed; ready for pb_compile. Errors: PB_ERR_MEMORY, PB_ERR_UNSUPPORTED, ...
pb_status pb_step_graph_create(const pb_step_request *request, pb_step_graph **step);
void pb_step_graph_destroy(pb_step_graph *step);  // NULL is allowed

// Of a graph of PB_PASS_WHOLE without `carry`, the gradients that are worth making again, for all passes of a run whose
// steps are of this one size. See pb_carry_choose. Errors: PB_ERR_MEMORY.
pb_status pb_step_graph_carry(pb_arena *arena, const pb_step_graph *whole, const double *seconds,
                              double seconds_per_byte, pb_carry *carry);

// The module of a part of the model: NULL where it is not trained.
static inline const pb_module *pb_step_graph_trained(const pb_step_graph *step, pb_part part) {
    return part == PB_PART_UNET ? step->unet : part == PB_PART_TEXT_ENCODER ? step->clip : NULL;
}

// Trained parameters in all.
uint64_t pb_step_graph_parameters(const pb_step_graph *step);

#endif
