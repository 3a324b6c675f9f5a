// Golden pictures, and PNGs made to order. What cannot be had ends the test. Links io and base.
#ifndef PB_TESTS_PICTURES_H
#define PB_TESTS_PICTURES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "io/image.h"

static inline void *picture_must(void *pointer) {
    if (pointer) return pointer;
    fprintf(stderr, "no memory for the test's data\n");
    exit(1);
}

// A file of tests/golden/images in a buffer of exactly its size, so that a sanitizer sees a read beyond it; free() it.
static inline uint8_t *picture_read(const char *name, size_t *bytes) {
    char path[1024];
    snprintf(path, sizeof path, "%s/golden/images/%s", PB_TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        perror(path);
        exit(1);
    }
    const long size = ftell(file);
    rewind(file);
    uint8_t *data = picture_must(malloc((size_t)size + !size));
    *bytes = fread(data, 1, (size_t)size, file);
    fclose(file);
    return data;
}

static inline pb_image picture_load(const char *name) {
    char path[1024];
    pb_image image = {0};
    snprintf(path, sizeof path, "%s/golden/images/%s", PB_TEST_DATA, name);
    if (pb_image_load(path, NULL, &image) == PB_OK) return image;
    fprintf(stderr, "%s\n", pb_error_message());
    exit(1);
}

// Numbers that differ from pixel to pixel.
static inline pb_image picture_make(int32_t width, int32_t height) {
    pb_image image = {0};
    if (pb_image_create(width, height, &image) != PB_OK) picture_must(NULL);
    uint32_t state = 12345;
    for (int64_t i = 0; i < (int64_t)width * height * 3; i++) {
        state = state * 1664525 + 1013904223;
        image.rgb[i] = (uint8_t)(state >> 24);
    }
    return image;
}

// --- PNG, from chunks of any content, for what no writer makes ---

typedef struct png_builder {
    uint8_t *bytes;
    size_t n;
} png_builder;

static inline void png_put_number(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (24 - 8 * i));
}

static inline void png_append(png_builder *png, const char *type, const void *data, size_t n) {
    png->bytes = picture_must(realloc(png->bytes, png->n + n + 12));
    uint8_t *chunk = png->bytes + png->n;
    png_put_number(chunk, (uint32_t)n);
    memcpy(chunk + 4, type, 4);
    if (n) memcpy(chunk + 8, data, n);
    png_put_number(chunk + 8 + n, (uint32_t)crc32(0, chunk + 4, (uInt)n + 4));
    png->n += n + 12;
}

static inline void png_begin(png_builder *png, uint32_t width, uint32_t height, uint8_t depth, uint8_t color,
                             uint8_t interlaced) {
    uint8_t header[13] = {0};
    png_put_number(header, width);
    png_put_number(header + 4, height);
    header[8] = depth;
    header[9] = color;
    header[12] = interlaced;
    *png = (png_builder){.bytes = picture_must(malloc(8)), .n = 8};
    memcpy(png->bytes, "\x89PNG\r\n\x1a\n", 8);
    png_append(png, "IHDR", header, sizeof header);
}

// IDAT with `rows` rows of `row_bytes` zeros, compressed, and IEND.
static inline void png_end_with_zeros(png_builder *png, size_t rows, size_t row_bytes) {
    uint8_t *row = picture_must(calloc(1, row_bytes + 1));
    const size_t capacity = rows * (row_bytes + 1) / 500 + 4096;
    uint8_t *data = picture_must(malloc(capacity));
    z_stream stream = {0};
    if (deflateInit(&stream, 6) != Z_OK) picture_must(NULL);
    stream.next_out = data;
    stream.avail_out = (uInt)capacity;
    for (size_t y = 0; y <= rows; y++) {
        stream.next_in = row;
        stream.avail_in = y < rows ? (uInt)row_bytes + 1 : 0;
        deflate(&stream, y < rows ? Z_NO_FLUSH : Z_FINISH);
    }
    png_append(png, "IDAT", data, capacity - stream.avail_out);
    deflateEnd(&stream);
    png_append(png, "IEND", NULL, 0);
    free(row);
    free(data);
}

#endif
