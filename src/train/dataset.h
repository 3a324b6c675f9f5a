// The pictures of a folder, in the order of their names: found, judged, read and resized.
#ifndef PB_TRAIN_DATASET_H
#define PB_TRAIN_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "io/image.h"

typedef struct pb_picture_set {
    const char *folder;
    const char **names;  // (count)
    int64_t count;
    pb_image *images;      // (count): EXIF applied, shorter side resized; empty before pb_picture_set_load
    const char **skipped;  // names of what is no picture
    int64_t skipped_count;
} pb_picture_set;

// Lists the JPEG and PNG files of `folder`, in byte order of the names, by their content, not by their endings. What is
// no picture is skipped, or refused where `strict` or where its name says that it is one. A picture of another kind
// (WebP, HEIC, ...) is refused with the remedy: a photo that is silently left out would be missed. `limit`: pictures at
// most, or 0. Texts live in `arena`. Errors: PB_ERR_IO (no such folder), PB_ERR_FORMAT, PB_ERR_UNSUPPORTED.
pb_status pb_picture_set_list(pb_arena *arena, const char *folder, int64_t limit, bool strict, pb_picture_set *set);
// Reads every picture. Errors name the file.
pb_status pb_picture_set_load(pb_picture_set *set, int32_t resolution);
typedef struct pb_picture_sizes {
    const char *smallest;  // the name of the picture with the shortest side ...
    int32_t side;          // ... of so many pixels
    int64_t enlarged;      // how many have a side below the resolution
} pb_picture_sizes;
// Reads every picture and keeps none: fails where pb_picture_set_load would.
pb_status pb_picture_set_try(const pb_picture_set *set, int32_t resolution, pb_picture_sizes *sizes);
void pb_picture_set_deinit(pb_picture_set *set);  // frees the images

// What torchvision's ToTensor and Normalize([0.5], [0.5]) make of the size x size pixels at (top, left): floats in
// -1..1, (size,size,3).
void pb_picture_pixels(const pb_image *image, int32_t top, int32_t left, int32_t size, float *pixels);

#endif
