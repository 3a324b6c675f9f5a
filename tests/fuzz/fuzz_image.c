// fuzz: links=io,base
// Any bytes as a picture: sniffed, decoded under small limits, and what comes out resized and cut. A PNG is read once
// more with its checksums set right, since hardly a mutation gets past them.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "io/image.h"

enum { SIGNATURE_BYTES = 8, CHUNK_OVERHEAD = 12 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const pb_image_limits limits = {
    .side = 4096, .pixels = 1 << 18, .file_bytes = 32 << 10, .memory_bytes = 1 << 20};

// Sizes from the input's bytes, impossible ones among them, so that every way through the resizing is gone.
static void reshape(const pb_image *image, const uint8_t *data, size_t size) {
    const int32_t a = (int8_t)data[size / 3], b = (int8_t)data[size / 2];
    const int32_t width = a ? a : image->width, height = b ? b : image->height;
    pb_image pair[2] = {*image, *image};
    if (size % 5 == 0 && image->height > 1) pair[1].height--;
    pb_image other = {0};
    if (pb_image_resize_bilinear(image, width, height, &other) == PB_OK) pb_image_deinit(&other);
    if (pb_image_resize_shorter(image, a, &other) == PB_OK) pb_image_deinit(&other);
    if (pb_image_crop(image, a + 9, b + 9, b, a, &other) == PB_OK) pb_image_deinit(&other);
    if (pb_image_crop_center(image, a, b, &other) == PB_OK) pb_image_deinit(&other);
    if (pb_image_grid(pair, size % 3, a, &other) == PB_OK) pb_image_deinit(&other);
}

// The same by way of a file, which never touches a disk.
static pb_status load(const uint8_t *data, size_t size, pb_image *image) {
    char path[64];
    pb_image_kind kind;
    const int file = memfd_create("input", MFD_CLOEXEC);
    if (file < 0 || write(file, data, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (pb_image_sniff_file(path, &kind) != PB_OK || kind != pb_image_sniff(data, size)) abort();
    const pb_status status = pb_image_load(path, &limits, image);
    close(file);
    return status;
}

static void read_picture(const uint8_t *data, size_t size) {
    pb_image image = {0};
    const bool from_file = size % 8 == 0;
    const pb_status status =
        from_file ? load(data, size, &image) : pb_image_decode(data, size, "input", &limits, &image);
    if (status == PB_OK)
        reshape(&image, data, size);
    else if (image.rgb || !*pb_error_message())
        abort();  // a failure leaves no image, and says why
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
