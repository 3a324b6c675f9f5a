// Files and diffusers keep pictures and latents channel by channel, (N,C,h,w); programs keep them pixel by pixel,
// (N,h,w,C).
#ifndef PB_TRAIN_TRANSPOSE_H
#define PB_TRAIN_TRANSPOSE_H

#include <stdint.h>

// to[image][column][row] = from[image][row][column]: from (C,h*w) to (h*w,C) and, with rows and columns exchanged,
// back.
static inline void pb_transpose(float *to, const float *from, int64_t images, int64_t rows, int64_t columns) {
    for (int64_t n = 0; n < images; n++, to += rows * columns, from += rows * columns)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < columns; c++) to[c * rows + r] = from[r * columns + c];
}

#endif
