// A model part (UNet, CLIP text encoder, VAE encoder or decoder) as parameters and a forward graph.
#ifndef PB_NN_MODULE_H
#define PB_NN_MODULE_H

#include "nn/config.h"
#include "graph/graph.h"

// How a file's tensor becomes the program's: conv weights are stored OIHW and used as [O,kh,kw,I].
typedef enum pb_layout {
    PB_LAYOUT_PLAIN,  // same order of elements (a [O,I,1,1] convolution used as a linear [O,I] is plain, too)
    PB_LAYOUT_OIHW    // transpose to O,H,W,I when loading, back when saving
} pb_layout;

typedef struct pb_param {
    const char *name;      // diffusers' name within the part's file: "down_blocks.0.resnets.0.conv1.weight"
    pb_shape file_shape;   // as in the file
    pb_layout layout;
    bool narrow;           // a matrix or kernel, held in the compute dtype; else (norms, biases) kept in fp32
    pb_vid work;           // what the ops read
    pb_vid master, m, v;   // when trained; master == work where the working copy is the fp32 master itself
    pb_vid grad, grad_sum; // when trained: this pass's gradient; the fp32 sum over micro-batches or PB_NONE
} pb_param;

typedef struct pb_module {
    pb_graph *graph;
    pb_dtype compute;  // PB_F32, PB_F16 or PB_BF16 (PB_F64 with the reference backend)
    bool trained;      // gradients for the parameters
    pb_param *params;
    uint32_t param_count, param_capacity;
} pb_module;

// Empty module over `graph`; its arrays live in the graph's arena.
pb_module *pb_module_create(pb_graph *graph, pb_dtype compute, bool trained);

// Declares a parameter and its working value (dtype: compute if narrow, else fp32; fp64 everywhere if compute is).
pb_vid pb_module_param(pb_module *m, bool narrow, pb_layout layout, pb_shape file_shape, const char *name_format, ...)
    __attribute__((format(printf, 5, 6)));

uint64_t pb_module_param_elements(const pb_module *m);  // sum over parameters

// --- UNet2DConditionModel ---


// sample[N,h,w,in_channels], timesteps[N] (fp32), context[N,T,cross_attention_dim] in the compute dtype ->
// [N,h,w,out_channels] in the compute dtype. Errors are in graph->status.
pb_vid pb_unet_forward(pb_module *m, const pb_unet_config *config, pb_vid sample, pb_vid timesteps, pb_vid context);

// ids[N,T] (i32) -> hidden states [N,T,hidden] after the final layer norm.
pb_vid pb_clip_forward(pb_module *m, const pb_clip_config *config, pb_vid ids);

// pixels[N,H,W,3] in -1..1 -> moments [N,H/f,W/f,2*latent_channels] (mean, log variance), quant_conv applied.
pb_vid pb_vae_encode(pb_module *m, const pb_vae_config *config, pb_vid pixels);
// latents[N,h,w,latent_channels], already divided by the scaling factor -> pixels [N,h*f,w*f,3].
pb_vid pb_vae_decode(pb_module *m, const pb_vae_config *config, pb_vid latents);

#endif
