// One forward pass of a model part on given tensors and, where a cotangent is given, the gradients of
// sum(output x cotangent): a door for porters and testers.
#ifndef PB_TRAIN_EVALUATE_H
#define PB_TRAIN_EVALUATE_H

#include "io/model_dir.h"
#include "kernels/backend.h"

typedef enum pb_eval_part {
    PB_EVAL_TEXT_ENCODER,
    PB_EVAL_VAE_ENCODER,
    PB_EVAL_VAE_DECODER,
    PB_EVAL_UNET,
    PB_EVAL_COUNT
} pb_eval_part;

const char *pb_eval_part_name(pb_eval_part part);  // "text_encoder", "vae_encoder", ...

typedef struct pb_eval_request {
    const pb_model_dir *model;
    pb_eval_part part;
    const char *variant;  // of the weights, or NULL
    pb_dtype dtype;       // to compute in
    const pb_backend *backend;
    // Tensors by diffusers' argument names and layouts: input_ids[N,T]; sample[N,C,H,W]; timestep[N], [1] or a scalar;
    // encoder_hidden_states[N,T,D]; text_embeds[N,P] and time_ids[N,6] where the UNet has them; cotangent (optional)
    // like the output.
    const char *inputs;
    // To write, all F32: output; with a cotangent grad.input.NAME of every floating input but the timestep and the time
    // ids, and grad.param.NAME of every parameter, in the names and shapes of the model's file.
    const char *outputs;
} pb_eval_request;

// Errors: PB_ERR_FORMAT where a tensor is missing or does not suit the model, and those of the rooms below.
pb_status pb_evaluate(const pb_eval_request *request);

#endif
