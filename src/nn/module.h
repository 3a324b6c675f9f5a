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
    const char *name;     // diffusers' name within the part's file: "down_blocks.0.resnets.0.conv1.weight"
    pb_shape file_shape;  // as in the file
    pb_layout layout;
    bool narrow;           // a matrix or kernel, held in the compute dtype; else (norms, biases) kept in fp32
    pb_vid work;           // what the ops read
    pb_vid codes, scales;  // what `work` is decoded from just before it is read, or PB_NONE
    pb_vid master, m, v;   // when trained; master == work where the working copy is the master itself. Their dtypes say
                           // how they are kept: see adamw in ops.def
    pb_vid m_scales, v_scales;  // of 8-bit moments, or PB_NONE
    uint32_t stream;            // of random bits, where something is rounded stochastically
    pb_vid grad, grad_sum;  // when trained: this pass's gradient; what is kept of it from pass to pass, the fp32 sum
                            // over micro-batches or a gradient whose update is due, or PB_NONE
} pb_param;

enum { PB_MAX_SIBLINGS = 4 };
enum { PB_CODED_ELEMENTS = 4096 };  // what has fewer is not worth codes

typedef struct pb_module {
    pb_graph *graph;
    pb_dtype compute;  // PB_F32, PB_F16 or PB_BF16 (PB_F64 with the reference backend)
    bool trained;      // gradients for the parameters
    bool codes;        // frozen matrices and kernels are kept as 8-bit codes (quant/block8.h); set before the first one
    pb_param *params;  // in the order in which the forward pass first reads them
    uint32_t param_count, param_capacity;
    // Prefixes of tensors that lie in the same file and belong to another part (the decoder beside the encoder).
    const char *siblings[PB_MAX_SIBLINGS];
    uint32_t sibling_count;
} pb_module;

// Empty module over `graph`; its arrays live in the graph's arena. NULL when there is no memory.
pb_module *pb_module_create(pb_graph *graph, pb_dtype compute, bool trained);

// Declares a parameter and its working value (dtype: compute if narrow, else fp32; fp64 everywhere if compute is).
// A plain [O,I,1,1] is worked with as [O,I]. PB_NONE once graph->status is set.
pb_vid pb_module_param(pb_module *m, bool narrow, pb_layout layout, pb_shape file_shape, const char *name_format, ...)
    __attribute__((format(printf, 5, 6)));

// The same for a table that is looked up: never in codes, for decoding all of it to read a few rows would take more
// room than it spares.
pb_vid pb_module_table(pb_module *m, pb_shape shape, const char *name);

// Says that tensors whose name starts with `prefix` (a literal) belong to another part of the same file.
void pb_module_sibling(pb_module *m, const char *prefix);

uint64_t pb_module_param_elements(const pb_module *m);  // sum over parameters

// The forward passes below take and give the compute dtype unless they say otherwise; errors are in graph->status.

// --- UNet2DConditionModel ---
// sample[N,h,w,in_channels], timesteps[N] (fp32), context[N,T,cross_attention_dim] -> [N,h,w,out_channels].
// added[N,addition_input_dim] where the configuration has "text_time" (SDXL), else PB_NONE; see pb_unet_added.
pb_vid pb_unet_forward(pb_module *m, const pb_unet_config *config, pb_vid sample, pb_vid timesteps, pb_vid context,
                       pb_vid added);

// SDXL's added condition: pooled text embedding [N,P] beside the sinusoids of `count` time ids, each [N] (fp32):
// original height and width, crop's top and left, target height and width.
pb_vid pb_unet_added(pb_module *m, const pb_unet_config *config, pb_vid pooled, const pb_vid *time_ids, int count);

// --- CLIPTextModel: ids[N,T] (i32), T <= positions -> hidden states [N,T,hidden] after the final layer norm.
pb_vid pb_clip_forward(pb_module *m, const pb_clip_config *config, pb_vid ids);

// --- AutoencoderKL ---
// pixels[N,H,W,3] in -1..1 -> moments [N,H/f,W/f,2*latent_channels] (mean, log variance), quant_conv applied.
pb_vid pb_vae_encode(pb_module *m, const pb_vae_config *config, pb_vid pixels);
// latents[N,h,w,latent_channels], already divided by the scaling factor -> pixels [N,h*f,w*f,3].
pb_vid pb_vae_decode(pb_module *m, const pb_vae_config *config, pb_vid latents);

#endif
