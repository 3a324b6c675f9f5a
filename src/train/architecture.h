// What a run's configuration makes of a model's config files: the sizes that its step is compiled for.
#ifndef PB_TRAIN_ARCHITECTURE_H
#define PB_TRAIN_ARCHITECTURE_H

#include "io/run_config.h"
#include "io/model_dir.h"
#include "nn/config.h"
#include "train/step_graph.h"

typedef struct pb_architecture {
    pb_unet_config unet;
    pb_clip_config clip;
    pb_vae_config vae;
    bool has_clip;  // false only for presets that are a UNet alone
} pb_architecture;

// Reads the parts' config.json; no weights. Errors name file and field.
pb_status pb_architecture_read(const pb_model_dir *model, pb_architecture *architecture);
// "tiny", "medium", "sd14", "sd21" or "sdxl"; the arena keeps the parsed text. PB_ERR_USAGE for another name.
pb_status pb_architecture_preset(pb_arena *arena, const char *preset, pb_architecture *architecture);

// Fills in everything of a step's request but the pass. The request points into `architecture`. PB_ERR_FORMAT where the
// resolution does not suit the model.
pb_status pb_architecture_step(const pb_architecture *architecture, const pb_config *config, pb_step_request *request);

#endif
