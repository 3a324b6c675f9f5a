// What the files of the picture reader share; not for other rooms.
#ifndef PB_IO_IMAGE_INTERNAL_H
#define PB_IO_IMAGE_INTERNAL_H

#include "io/image.h"

// The decoders return pixels as stored; `orientation` is EXIF's 1 .. 8, to be applied by pb_image_orient.
pb_status pb_image_decode_jpeg(const uint8_t *bytes, size_t n, const char *name, const pb_image_limits *limits,
                               pb_image *image, int *orientation);
pb_status pb_image_decode_png(const uint8_t *bytes, size_t n, const char *name, const pb_image_limits *limits,
                              pb_image *image, int *orientation);

// Judges a picture by its header, before anything is allocated for it. `decoder_bytes` is what decoding takes at its
// peak, pixels included; `file_bytes` and the copy that a turn by 90 degrees needs are added here.
// PB_ERR_FORMAT (a side of 0), PB_ERR_UNSUPPORTED (beyond a limit).
pb_status pb_image_admit(uint32_t width, uint32_t height, uint64_t decoder_bytes, size_t file_bytes, int orientation,
                         const char *name, const pb_image_limits *limits);

// Turns and mirrors as PIL.ImageOps.exif_transpose does; values outside 2 .. 8 leave the image as it is.
pb_status pb_image_orient(pb_image *image, int orientation);

// The orientation in an EXIF block (a TIFF file, after an optional "Exif\0\0"; 1 .. 8) or in an XMP packet (0 .. 9);
// 0 where there is none or the block is corrupt.
int pb_exif_orientation(const uint8_t *bytes, size_t n);
int pb_xmp_orientation(const uint8_t *bytes, size_t n);

#endif
