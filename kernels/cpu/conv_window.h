// The pixels that a convolution's window touches, as rows for the matrix product.
#ifndef PB_KERNELS_CPU_CONV_WINDOW_H
#define PB_KERNELS_CPU_CONV_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

// Row r is place (n, y, x) of a grid over images of height x width pixels, segment s is tap (s / taps_x, s % taps_x):
// the channels of pixel (y step + first_y + ty direction, ...), or zeros where that is outside. The pixels may be those
// of a smaller image of in_h x in_w, resized (nearest, PyTorch's indices).
typedef struct pb_conv_window {
    const char *data;  // [N, in_h, in_w, channels]
    int64_t pixel_bytes;
    int64_t grid_h, grid_w;
    int64_t height, width, in_h, in_w;
    int64_t step, first_y, first_x;
    int64_t taps_x;
    int64_t direction;  // +1 or -1
} pb_conv_window;

// A pb_gemm_locate.
void pb_conv_window_locate(const void *window, int64_t segment, int64_t first, int64_t count, const char **rows);

// The source of index i of `out` when `in` are resized to them: min(floor(i * (float)in / out), in - 1) in fp32, as
// PyTorch's nearest interpolation has it.
static inline int64_t pb_nearest_index(int64_t i, int64_t in, int64_t out) {
    if (in == out) return i;
    const int64_t source = (int64_t)((float)i * ((float)in / (float)out));
    return source < in ? source : in - 1;
}

#endif
