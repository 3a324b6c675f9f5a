// Layers with their parameters, shared by the builders of this room. `path` is the layer's name in the part's file
// ("mid_block.resnets.0.conv1"); the number of input channels is read from x. All return PB_NONE once the graph has
// failed. Activations are [N,h,w,C] or [..,C]; outputs have `out` channels.
#ifndef PB_NN_LAYERS_H
#define PB_NN_LAYERS_H

#include "nn/module.h"

// printf into the graph's arena; "" (and graph->status) when there is no memory.
const char *pb_module_path(pb_module *m, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Shape of x; all ones once the graph has failed.
pb_shape pb_module_shape(const pb_module *m, pb_vid x);

// Checks what the caller handed in: rank, channels (0: any). Sets graph->status to PB_ERR_FORMAT, naming `name`.
void pb_module_expect(pb_module *m, pb_vid x, int rank, int64_t channels, const char *name);

// Linear with bias, without one, and a 1x1 convolution, which is the same product. residual like the output or PB_NONE.
pb_vid pb_layer_linear(pb_module *m, const char *path, pb_vid x, int64_t out, pb_vid residual);
pb_vid pb_layer_project(pb_module *m, const char *path, pb_vid x, int64_t out);
pb_vid pb_layer_pointwise(pb_module *m, const char *path, pb_vid x, int64_t out, pb_vid residual);

// 3x3 with bias, same size. rowbias[N,out] or PB_NONE.
pb_vid pb_layer_conv(pb_module *m, const char *path, pb_vid x, int64_t out, pb_vid rowbias, pb_vid residual);
// 3x3 with stride 2 and bias, channels kept. pad_before: 1 (UNet) or 0 (VAE encoder); behind it is always 1.
pb_vid pb_layer_downsample(pb_module *m, const char *path, pb_vid x, int pad_before);
// Nearest resize to height x width, then 3x3 with bias, channels kept.
pb_vid pb_layer_upsample(pb_module *m, const char *path, pb_vid x, int64_t height, int64_t width);

pb_vid pb_layer_group_norm(pb_module *m, const char *path, pb_vid x, int groups, float eps, bool silu);
pb_vid pb_layer_layer_norm(pb_module *m, const char *path, pb_vid x, float eps);

// diffusers' ResnetBlock2D. temb[N,E]: SiLU of the time embedding, or PB_NONE for a block without one.
pb_vid pb_layer_resnet(pb_module *m, const char *path, pb_vid x, int64_t out, int groups, float eps, pb_vid temb);

// 1 / sqrt(channels of a head)
float pb_attention_scale(int64_t channels, int heads);

#endif
