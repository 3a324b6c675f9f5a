// EXIF's orientation: where it is written, and what it means for the pixels.
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "io/image_internal.h"

enum { ORIENTATION_TAG = 0x0112, IFD_ENTRY_BYTES = 12 };

// A TIFF file within `n` bytes; numbers in its byte order.
typedef struct tiff {
    const uint8_t *bytes;
    size_t n;
    bool big_endian;
} tiff;

static uint32_t tiff_number(const tiff *t, size_t at, size_t width) {
    uint32_t value = 0;
    for (size_t i = 0; i < width; i++) {
        const size_t shift = 8 * (t->big_endian ? width - 1 - i : i);
        value |= (uint32_t)t->bytes[at + i] << shift;
    }
    return value;
}

// Bytes of the integer types in which an orientation is found (TIFF 6.0, section 2); 0 for all others.
static size_t integer_width(uint32_t type) {
    switch (type) {
    case 3:
    case 8: return 2;  // SHORT, SSHORT
    case 4:
    case 9: return 4;  // LONG, SLONG
    default: return 0;
    }
}

int pb_exif_orientation(const uint8_t *bytes, size_t n) {
    if (n >= 6 && !memcmp(bytes, "Exif\0\0", 6)) {
        bytes += 6;
        n -= 6;
    }
    if (n < 8) return 0;
    const tiff t = {.bytes = bytes, .n = n, .big_endian = bytes[0] == 'M'};
    if (memcmp(bytes, t.big_endian ? "MM\0*" : "II*\0", 4)) return 0;
    const size_t directory = tiff_number(&t, 4, 4);
    if (directory > n - 2) return 0;
    const size_t entries = tiff_number(&t, directory, 2);
    int orientation = 0;
    size_t at = directory + 2;
    for (size_t i = 0; i < entries && n - at >= IFD_ENTRY_BYTES; i++, at += IFD_ENTRY_BYTES) {
        const size_t width = integer_width(tiff_number(&t, at + 2, 2));
        if (tiff_number(&t, at, 2) != ORIENTATION_TAG || !width || tiff_number(&t, at + 4, 4) != 1) continue;
        const uint32_t value = tiff_number(&t, at + 8, width);
        orientation = value >= 1 && value <= 8 ? (int)value : 1;
    }
    return orientation;
}

int pb_xmp_orientation(const uint8_t *bytes, size_t n) {
    static const char name[] = "tiff:Orientation";
    const uint8_t *const end = bytes + n;
    for (const uint8_t *p = bytes; (p = memmem(p, (size_t)(end - p), name, sizeof name - 1));) {
        p += sizeof name - 1;
        if (end - p >= 2 && p[0] == '=' && p[1] == '"')
            p += 2;
        else if (end - p >= 1 && p[0] == '>')
            p += 1;
        else
            continue;
        if (p < end && *p >= '0' && *p <= '9') return *p - '0';
    }
    return 0;
}

// --- Pixels ---

static void swap_pixels(uint8_t *a, uint8_t *b) {
    uint8_t kept[3];
    memcpy(kept, a, 3);
    memcpy(a, b, 3);
    memcpy(b, kept, 3);
}

static void mirror_rows(pb_image *image) {
    const size_t width = (size_t)image->width;
    for (int32_t y = 0; y < image->height; y++) {
        uint8_t *row = image->rgb + (size_t)y * width * 3;
        for (size_t x = 0; x < width / 2; x++) swap_pixels(row + 3 * x, row + 3 * (width - 1 - x));
    }
}

static void flip_columns(pb_image *image) {
    const size_t width = (size_t)image->width, height = (size_t)image->height;
    for (size_t y = 0; y < height / 2; y++) {
        uint8_t *top = image->rgb + y * width * 3, *bottom = image->rgb + (height - 1 - y) * width * 3;
        for (size_t x = 0; x < width; x++) swap_pixels(top + 3 * x, bottom + 3 * x);
    }
}

// Swaps the axes, reading the source from its far end where `x_reversed` or `y_reversed` (the source's axes) say so.
// In tiles, so that both the rows read and the rows written stay in the cache.
static pb_status transpose(pb_image *image, bool x_reversed, bool y_reversed) {
    enum { TILE = 32 };
    const int32_t width = image->width, height = image->height;
    pb_image turned;
    PB_RETURN_IF(pb_image_create(height, width, &turned));
    for (int32_t tile_y = 0; tile_y < height; tile_y += TILE) {
        for (int32_t tile_x = 0; tile_x < width; tile_x += TILE) {
            for (int32_t x = tile_x; x < tile_x + TILE && x < width; x++) {
                for (int32_t y = tile_y; y < tile_y + TILE && y < height; y++) {
                    const size_t to_y = (size_t)(x_reversed ? width - 1 - x : x);
                    const size_t to_x = (size_t)(y_reversed ? height - 1 - y : y);
                    memcpy(turned.rgb + (to_y * (size_t)height + to_x) * 3,
                           image->rgb + ((size_t)y * (size_t)width + (size_t)x) * 3, 3);
                }
            }
        }
    }
    pb_image_deinit(image);
    *image = turned;
    return PB_OK;
}

// The table of EXIF 2.3, section 4.6.4: what the top row and the left column of the stored picture show.
pb_status pb_image_orient(pb_image *image, int orientation) {
    switch (orientation) {
    case 2: mirror_rows(image); return PB_OK;
    case 3:
        mirror_rows(image);
        flip_columns(image);
        return PB_OK;
    case 4: flip_columns(image); return PB_OK;
    case 5: return transpose(image, false, false);
    case 6: return transpose(image, false, true);
    case 7: return transpose(image, true, true);
    case 8: return transpose(image, true, false);
    default: return PB_OK;
    }
}
