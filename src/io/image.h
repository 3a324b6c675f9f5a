// Pictures: read JPEG and PNG as PIL's Image.open(p).convert("RGB") does, bit for bit; resize and crop as PIL and
// torchvision do, bit for bit; write PNG with texts, and JPEG. Everything works on 8-bit RGB, rows from the top.
// Files come from strangers: sizes are judged before anything of their order is allocated.
#ifndef PB_IO_IMAGE_H
#define PB_IO_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct pb_image {
    int32_t width, height;
    uint8_t *rgb;  // (height, width, 3), rows without gaps; NULL in an empty image
} pb_image;

// Pixels are not initialised. PB_ERR_USAGE unless both sides are 1 .. 2^20 with at most 2^28 pixels; PB_ERR_MEMORY.
pb_status pb_image_create(int32_t width, int32_t height, pb_image *image);
void pb_image_deinit(pb_image *image);  // frees and empties; an empty image is allowed

// --- Reading ---
typedef struct pb_image_limits {
    int32_t side;          // width and height at most; default 16,384
    int64_t pixels;        // width * height at most; default 64,000,000
    int64_t file_bytes;    // default 64 MiB
    int64_t memory_bytes;  // what reading a picture may take in all, the file included; default 256 MiB
} pb_image_limits;
extern const pb_image_limits pb_image_default_limits;

typedef enum pb_image_kind {
    PB_IMAGE_NONE,  // not a picture that is known here
    PB_IMAGE_JPEG,
    PB_IMAGE_PNG,
    PB_IMAGE_WEBP,  // from here on: recognised, and refused with the remedy
    PB_IMAGE_HEIC,
    PB_IMAGE_AVIF,
    PB_IMAGE_GIF,
    PB_IMAGE_BMP,
    PB_IMAGE_TIFF,
    PB_IMAGE_JXL,
    PB_IMAGE_JP2
} pb_image_kind;

// By the first bytes; 32 are enough for every kind.
pb_image_kind pb_image_sniff(const uint8_t *bytes, size_t n);
// "JPEG", "PNG", ...; "unknown" for PB_IMAGE_NONE.
const char *pb_image_kind_name(pb_image_kind kind);
// The same of a file. A folder, a pipe or another thing that is no regular file is PB_IMAGE_NONE. PB_ERR_IO.
pb_status pb_image_sniff_file(const char *path, pb_image_kind *kind);

// Decodes `n` bytes to RGB: grey is copied to three channels, alpha and tRNS are dropped, not composited, CMYK is taken
// as Adobe's (inverted), 16-bit channels keep their high byte but 16-bit grey is clipped to 255; PIL does so. EXIF's
// orientation is applied as PIL.ImageOps.exif_transpose does. `name` (a path) is for messages; `limits` may be NULL
// (the defaults). `image` is written on success only; release it with pb_image_deinit.
// Errors: PB_ERR_FORMAT (corrupt, truncated, or no picture), PB_ERR_UNSUPPORTED (another kind, or beyond a limit),
// PB_ERR_MEMORY.
pb_status pb_image_decode(const uint8_t *bytes, size_t n, const char *name, const pb_image_limits *limits,
                          pb_image *image);
// The same from a regular file; also PB_ERR_IO.
pb_status pb_image_load(const char *path, const pb_image_limits *limits, pb_image *image);

// --- Geometry; `result` is a new image ---
// PIL's Image.resize((width, height), BILINEAR): a triangle filter widened when shrinking, coefficients of 22 bits, one
// pass over rows and one over columns, each rounded to 8 bits (Pillow 13, libImaging/Resample.c; earlier versions
// order the passes of tall pictures otherwise, which shows in the last bit). PB_ERR_USAGE, PB_ERR_MEMORY.
pb_status pb_image_resize_bilinear(const pb_image *image, int32_t width, int32_t height, pb_image *result);
// torchvision's Resize(size): the shorter side becomes `size`, the other floor(size * long / short).
pb_status pb_image_resize_shorter(const pb_image *image, int32_t size, pb_image *result);
// The rectangle must lie within the image: PB_ERR_USAGE otherwise.
pb_status pb_image_crop(const pb_image *image, int32_t left, int32_t top, int32_t width, int32_t height,
                        pb_image *result);
// torchvision's CenterCrop: offsets are half the difference, halves rounded to even; an image that is smaller than the
// rectangle is padded with black first.
pb_status pb_image_crop_center(const pb_image *image, int32_t width, int32_t height, pb_image *result);
// Images of one size, row by row, `columns` in a row; cells without an image are black.
pb_status pb_image_grid(const pb_image *images, size_t n, int32_t columns, pb_image *result);

// --- Writing: to a temporary name in the same folder, synced, then renamed, so that `path` is whole or untouched ---
typedef struct pb_image_text {
    const char *key;    // 1 to 79 printable ASCII characters, no spaces at the ends
    const char *value;  // UTF-8, at most 1 MiB, may be empty; written as tEXt where it is ASCII, else as iTXt
} pb_image_text;

// Errors: PB_ERR_USAGE (a bad key), PB_ERR_IO, PB_ERR_MEMORY. What is at `path` must be a regular file or nothing.
pb_status pb_image_write_png(const char *path, const pb_image *image, const pb_image_text *texts, size_t n_texts);
// Baseline, 4:2:0, quality 75, as PIL's Image.save does: decoded again, the pixels are the same as PIL's.
pb_status pb_image_write_jpeg(const char *path, const pb_image *image);

// SHA-1 of the pixels in hexadecimal, as hashlib.sha1(image.tobytes()) gives it: 40 digits and a NUL.
void pb_image_sha1(const pb_image *image, char hex[41]);

#endif
