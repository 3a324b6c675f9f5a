// Sums over the pixels of each image, channel by channel, in an order that depends on the shape only: the pixels of an
// image fall into fixed blocks, each block is summed by one thread, and the blocks' sums are added in order.
#ifndef PB_KERNELS_CPU_COLUMN_BLOCKS_H
#define PB_KERNELS_CPU_COLUMN_BLOCKS_H

#include "base/parallel.h"
#include "kernels/cpu/tiles.h"

enum {
    STRIP = 512,  // channels that are worked on together; their sums live on the stack
    AREA = 2048,  // elements of a two-dimensional tile, STRIP or more
};

typedef struct column_blocks {
    int64_t images, pixels, channels;
    int64_t size;   // pixels of a block; the last of an image may have fewer
    int64_t count;  // blocks of an image
} column_blocks;

// Blocks of at least 16k elements, at most 64 per image.
static inline column_blocks column_blocks_of(int64_t images, int64_t pixels, int64_t channels) {
    const int64_t size = tile_max((16 * 1024 + channels - 1) / channels, (pixels + 63) / 64);
    return (column_blocks){images, pixels, channels, size, (pixels + size - 1) / size};
}

// The rows of block `i` of all images' blocks as one area, all channels wide.
static inline tile_area column_block_area(const column_blocks *b, int64_t i) {
    const int64_t first = i % b->count * b->size;
    return (tile_area){i / b->count * b->pixels + first, tile_min(b->size, b->pixels - first), 0, b->channels,
                       b->channels};
}

// Cuts an area into tiles of at most STRIP columns and AREA elements, strip by strip: for (tile = tile_first(&area);
// tile.width; tile_next(&area, &tile)).
static inline tile_area tile_cut(const tile_area *area, int64_t column, int64_t row) {
    tile_area tile = *area;
    tile.column = column;
    tile.width = tile_max(0, tile_min(STRIP, area->width - column));
    tile.row = row;
    tile.count = tile.width ? tile_min(AREA / tile.width, area->row + area->count - row) : 0;
    return tile;
}

static inline tile_area tile_first(const tile_area *area) {
    return tile_cut(area, 0, area->row);
}

static inline void tile_next(const tile_area *area, tile_area *tile) {
    const int64_t row = tile->row + tile->count;
    *tile = row < area->row + area->count ? tile_cut(area, tile->column, row)
                                          : tile_cut(area, tile->column + STRIP, area->row);
}

// Calls pb_parallel_for over all blocks.
void column_blocks_run(const column_blocks *b, pb_parallel_body body, void *context);

// sums[image][block][width]: adds the blocks of each image onto its block 0.
void column_blocks_combine(const column_blocks *b, double *sums, int64_t width);

#endif
