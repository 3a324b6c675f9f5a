#include "kernels/cpu/conv_window.h"

#include <stddef.h>

void pb_conv_window_locate(const void *window, int64_t segment, int64_t first, int64_t count, const char **rows) {
    const pb_conv_window *w = window;
    const int64_t shift_y = w->first_y + segment / w->taps_x * w->direction;
    const int64_t shift_x = w->first_x + segment % w->taps_x * w->direction;
    int64_t x = first % w->grid_w, y = first / w->grid_w % w->grid_h, n = first / w->grid_w / w->grid_h;
    for (int64_t i = 0; i < count;) {
        // The places of one line of the grid, as far as they are wanted.
        const int64_t row = y * w->step + shift_y;
        const char *line = NULL;
        if (row >= 0 && row < w->height)
            line = w->data + (n * w->in_h + pb_nearest_index(row, w->in_h, w->height)) * w->in_w * w->pixel_bytes;
        for (; x < w->grid_w && i < count; x++, i++) {
            const int64_t column = x * w->step + shift_x;
            const bool inside = line && column >= 0 && column < w->width;
            rows[i] = inside ? line + pb_nearest_index(column, w->in_w, w->width) * w->pixel_bytes : NULL;
        }
        x = 0;
        if (++y == w->grid_h) {
            y = 0;
            n++;
        }
    }
}
