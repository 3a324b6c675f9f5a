// fuzz: links=io,base
// Any bytes as a picture: sniffed, decoded under small limits, and what comes out resized and cut. A PNG is read once
// more with its checksums set right, since hardly a mutation gets past them.
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "io/image.h"

enum { SIGNATURE_BYTES = 8, CHUNK_OVERHEAD = 12 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_picture(const uint8_t *data, size_t size) {
    static const pb_image_limits limits = {
        .side = 4096, .pixels = 1 << 18, .file_bytes = 1 << 20, .memory_bytes = 16 << 20};
    pb_image image = {0}, other = {0};
    if (pb_image_decode(data, size, "input", &limits, &image) != PB_OK) {
        if (image.rgb || !*pb_error_message()) abort();  // a failure leaves no image, and says why
        return;
    }
    // Every pixel is read, so that a sanitizer sees one that was never written.
    volatile unsigned sum = 0;
    for (size_t i = 0; i < (size_t)image.width * (size_t)image.height * 3; i++) sum += image.rgb[i];
    if (pb_image_resize_shorter(&image, 1 + (int32_t)(data[size - 1] % 40), &other) == PB_OK) pb_image_deinit(&other);
    if (pb_image_crop_center(&image, 20, 30, &other) == PB_OK) pb_image_deinit(&other);
    pb_image_deinit(&image);
}

static uint32_t big_endian_32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void set_checksums(uint8_t *png, size_t n) {
    for (size_t at = SIGNATURE_BYTES; n - at >= CHUNK_OVERHEAD;) {
        uint8_t *chunk = png + at;
        const size_t length = big_endian_32(chunk);
        if (n - at - CHUNK_OVERHEAD < length) return;
        const uint32_t checksum = (uint32_t)crc32_z(0, chunk + 4, length + 4);
        for (int i = 0; i < 4; i++) chunk[8 + length + (size_t)i] = (uint8_t)(checksum >> (24 - 8 * i));
        at += CHUNK_OVERHEAD + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_picture(data, size);
    if (pb_image_sniff(data, size) != PB_IMAGE_PNG) return 0;
    uint8_t *copy = malloc(size);
    if (!copy) return 0;
    memcpy(copy, data, size);
    set_checksums(copy, size);
    read_picture(copy, size);
    free(copy);
    return 0;
}
