#include "kernels/cpu/column_blocks.h"

void column_blocks_run(const column_blocks *b, pb_parallel_body body, void *context) {
    pb_parallel_for(b->images * b->count, tile_grain(tile_min(b->size, b->pixels) * b->channels), body, context);
}

typedef struct combination {
    const column_blocks *blocks;
    double *sums;
    int64_t width;
} combination;

static void combine_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const combination *k = context;
    for (int64_t n = 0; n < k->blocks->images; n++) {
        double *first = k->sums + n * k->blocks->count * k->width;
        for (int64_t b = 1; b < k->blocks->count; b++)
            for (int64_t c = begin; c < end; c++) first[c] += first[b * k->width + c];
    }
}

void column_blocks_combine(const column_blocks *b, double *sums, int64_t width) {
    combination k = {b, sums, width};
    pb_parallel_for(width, tile_grain(b->images * b->count), combine_range, &k);
}
