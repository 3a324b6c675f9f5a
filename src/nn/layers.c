#include "nn/layers.h"

#include <math.h>

static int64_t channels_of(const pb_module *m, pb_vid x) {
    return pb_shape_last(pb_module_shape(m, x));
}

static pb_vid bias_param(pb_module *m, const char *path, int64_t out) {
    return pb_module_param(m, false, PB_LAYOUT_PLAIN, PB_SHAPE1(out), "%s.bias", path);
}

pb_vid pb_layer_linear(pb_module *m, const char *path, pb_vid x, int64_t out, pb_vid residual) {
    const pb_shape shape = PB_SHAPE2(out, channels_of(m, x));
    const pb_vid w = pb_module_param(m, true, PB_LAYOUT_PLAIN, shape, "%s.weight", path);
    return pb_linear(m->graph, x, w, bias_param(m, path, out), residual);
}

pb_vid pb_layer_project(pb_module *m, const char *path, pb_vid x, int64_t out) {
    const pb_shape shape = PB_SHAPE2(out, channels_of(m, x));
    const pb_vid w = pb_module_param(m, true, PB_LAYOUT_PLAIN, shape, "%s.weight", path);
    return pb_linear(m->graph, x, w, PB_NONE, PB_NONE);
}

pb_vid pb_layer_pointwise(pb_module *m, const char *path, pb_vid x, int64_t out, pb_vid residual) {
    const pb_shape shape = PB_SHAPE4(out, channels_of(m, x), 1, 1);
    const pb_vid w = pb_module_param(m, true, PB_LAYOUT_PLAIN, shape, "%s.weight", path);
    return pb_linear(m->graph, x, w, bias_param(m, path, out), residual);
}

static pb_vid conv3x3(pb_module *m, const char *path, pb_vid x, int64_t out, pb_vid rowbias, pb_vid residual,
                      pb_attr attr) {
    const pb_shape shape = PB_SHAPE4(out, channels_of(m, x), 3, 3);
    const pb_vid w = pb_module_param(m, true, PB_LAYOUT_OIHW, shape, "%s.weight", path);
    return pb_conv2d(m->graph, x, w, bias_param(m, path, out), rowbias, residual, attr);
}

static pb_attr conv_attr(int stride, int pad_before) {
    pb_attr attr = {.conv = {.stride = stride, .pad_bottom = 1, .pad_right = 1}};
    attr.conv.pad_top = attr.conv.pad_left = pad_before;
    return attr;
}

pb_vid pb_layer_conv(pb_module *m, const char *path, pb_vid x, int64_t out, pb_vid rowbias, pb_vid residual) {
    return conv3x3(m, path, x, out, rowbias, residual, conv_attr(1, 1));
}

pb_vid pb_layer_downsample(pb_module *m, const char *path, pb_vid x, int pad_before) {
    return conv3x3(m, path, x, channels_of(m, x), PB_NONE, PB_NONE, conv_attr(2, pad_before));
}

pb_vid pb_layer_upsample(pb_module *m, const char *path, pb_vid x, int64_t height, int64_t width) {
    pb_attr attr = conv_attr(1, 1);
    attr.conv.up_h = (int32_t)height;
    attr.conv.up_w = (int32_t)width;
    return conv3x3(m, path, x, channels_of(m, x), PB_NONE, PB_NONE, attr);
}

pb_vid pb_layer_group_norm(pb_module *m, const char *path, pb_vid x, int groups, float eps, bool silu) {
    const pb_shape shape = PB_SHAPE1(channels_of(m, x));
    const pb_vid gamma = pb_module_param(m, false, PB_LAYOUT_PLAIN, shape, "%s.weight", path);
    const pb_vid beta = pb_module_param(m, false, PB_LAYOUT_PLAIN, shape, "%s.bias", path);
    return pb_group_norm(m->graph, x, gamma, beta, groups, eps, silu);
}

pb_vid pb_layer_layer_norm(pb_module *m, const char *path, pb_vid x, float eps) {
    const pb_shape shape = PB_SHAPE1(channels_of(m, x));
    const pb_vid gamma = pb_module_param(m, false, PB_LAYOUT_PLAIN, shape, "%s.weight", path);
    const pb_vid beta = pb_module_param(m, false, PB_LAYOUT_PLAIN, shape, "%s.bias", path);
    return pb_layer_norm(m->graph, x, gamma, beta, eps);
}

pb_vid pb_layer_resnet(pb_module *m, const char *path, pb_vid x, int64_t out, int groups, float eps, pb_vid temb) {
    // The shortcut comes first, so that x is dead (without a backward pass) once norm1 has read it.
    pb_vid shortcut = x;
    if (channels_of(m, x) != out)
        shortcut = pb_layer_pointwise(m, pb_module_path(m, "%s.conv_shortcut", path), x, out, PB_NONE);
    pb_vid h = pb_layer_group_norm(m, pb_module_path(m, "%s.norm1", path), x, groups, eps, true);
    pb_vid shift = PB_NONE;
    if (temb != PB_NONE) shift = pb_layer_linear(m, pb_module_path(m, "%s.time_emb_proj", path), temb, out, PB_NONE);
    h = pb_layer_conv(m, pb_module_path(m, "%s.conv1", path), h, out, shift, PB_NONE);
    h = pb_layer_group_norm(m, pb_module_path(m, "%s.norm2", path), h, groups, eps, true);
    return pb_layer_conv(m, pb_module_path(m, "%s.conv2", path), h, out, PB_NONE, shortcut);
}

float pb_attention_scale(int64_t channels, int heads) {
    return (float)(1.0 / sqrt((double)(channels / heads)));
}
