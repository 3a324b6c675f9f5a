// Resizing as Pillow does it, and cropping as torchvision does it.
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "io/image.h"

// Pillow's fixed point for 8-bit channels: 8 bits for the result, 2 to spare for filters with negative lobes.
enum { PRECISION_BITS = 32 - 8 - 2, HALF = 1 << (PRECISION_BITS - 1) };

// How one axis is resampled: output i is the sum of `count[i]` inputs from `first[i]` on, weighted by
// weights[i * taps ...], which add up to about 2^PRECISION_BITS.
typedef struct axis_filter {
    int32_t *first, *count;  // (outputs)
    int32_t *weights;        // (outputs, taps)
    int32_t taps;
} axis_filter;

static void axis_filter_deinit(axis_filter *filter) {
    free(filter->first);
    free(filter->count);
    free(filter->weights);
}

static double triangle(double x) {
    const double distance = fabs(x);
    return distance < 1.0 ? 1.0 - distance : 0.0;
}

// The arithmetic, in double and in this order, is Pillow's, so that the same weights round the same way.
static pb_status axis_filter_init(int32_t inputs, int32_t outputs, axis_filter *filter) {
    pb_status status = PB_OK;
    const double scale = (double)inputs / outputs;
    const double support = scale < 1.0 ? 1.0 : scale;  // the triangle's half width, in inputs
    const int32_t taps = (int32_t)ceil(support) * 2 + 1;
    double *exact = malloc((size_t)taps * sizeof *exact);
    *filter = (axis_filter){.first = malloc((size_t)outputs * sizeof(int32_t)),
                            .count = malloc((size_t)outputs * sizeof(int32_t)),
                            .weights = calloc((size_t)outputs * (size_t)taps, sizeof(int32_t)),
                            .taps = taps};
    if (!exact || !filter->first || !filter->count || !filter->weights)
        PB_FAIL(PB_ERR_MEMORY, "no memory to resize an image to %" PRId32 " pixels", outputs);
    for (int32_t i = 0; i < outputs; i++) {
        const double center = (i + 0.5) * scale;
        int32_t first = (int32_t)(center - support + 0.5), last = (int32_t)(center + support + 0.5);
        if (first < 0) first = 0;
        if (last > inputs) last = inputs;
        double sum = 0.0;
        for (int32_t x = 0; x < last - first; x++) {
            exact[x] = triangle((x + first - center + 0.5) * (1.0 / support));
            sum += exact[x];
        }
        for (int32_t x = 0; x < last - first; x++)
            filter->weights[(int64_t)i * taps + x] = (int32_t)(0.5 + exact[x] / sum * (1 << PRECISION_BITS));
        filter->first[i] = first;
        filter->count[i] = last - first;
    }
fail:
    free(exact);
    return status;
}

static uint8_t round_sum(int32_t sum) {
    const int32_t value = sum >> PRECISION_BITS;
    return (uint8_t)(value > 255 ? 255 : value);
}

static void resize_row(const uint8_t *row, const axis_filter *filter, int32_t outputs, uint8_t *out) {
    for (int32_t i = 0; i < outputs; i++) {
        const int32_t *weights = filter->weights + (int64_t)i * filter->taps;
        const uint8_t *in = row + (int64_t)filter->first[i] * 3;
        int32_t red = HALF, green = HALF, blue = HALF;
        for (int32_t x = 0; x < filter->count[i]; x++) {
            red += in[3 * x] * weights[x];
            green += in[3 * x + 1] * weights[x];
            blue += in[3 * x + 2] * weights[x];
        }
        out[3 * i] = round_sum(red);
        out[3 * i + 1] = round_sum(green);
        out[3 * i + 2] = round_sum(blue);
    }
}

static pb_status resize_rows(const pb_image *image, int32_t width, pb_image *result) {
    pb_status status = PB_OK;
    axis_filter filter = {0};
    pb_image resized = {0};
    PB_TRY(pb_image_create(width, image->height, &resized));  // refuses impossible sizes, so it comes first
    PB_TRY(axis_filter_init(image->width, width, &filter));
    for (int64_t y = 0; y < image->height; y++)
        resize_row(image->rgb + y * image->width * 3, &filter, width, resized.rgb + y * width * 3);
    *result = resized;
    resized = (pb_image){0};
fail:
    pb_image_deinit(&resized);
    axis_filter_deinit(&filter);
    return status;
}

static pb_status resize_columns(const pb_image *image, int32_t height, pb_image *result) {
    pb_status status = PB_OK;
    axis_filter filter = {0};
    pb_image resized = {0};
    const int64_t samples = (int64_t)image->width * 3;
    int32_t *sums = malloc((size_t)samples * sizeof *sums);
    if (!sums) PB_FAIL(PB_ERR_MEMORY, "no memory to resize an image");
    PB_TRY(pb_image_create(image->width, height, &resized));
    PB_TRY(axis_filter_init(image->height, height, &filter));
    for (int64_t i = 0; i < height; i++) {
        for (int64_t x = 0; x < samples; x++) sums[x] = HALF;
        for (int64_t y = 0; y < filter.count[i]; y++) {
            const uint8_t *in = image->rgb + (filter.first[i] + y) * samples;
            const int32_t weight = filter.weights[i * filter.taps + y];
            for (int64_t x = 0; x < samples; x++) sums[x] += in[x] * weight;
        }
        for (int64_t x = 0; x < samples; x++) resized.rgb[i * samples + x] = round_sum(sums[x]);
    }
    *result = resized;
    resized = (pb_image){0};
fail:
    pb_image_deinit(&resized);
    free(sums);
    axis_filter_deinit(&filter);
    return status;
}

// Every pass rounds to 8 bits, so that the order shows. Rows go first, unless the height loses more than twice the
// pixels that the width loses: so in Pillow since 13.0.
static bool starts_with_columns(const pb_image *image, int32_t width, int32_t height) {
    return height < image->height && image->height - height > 2 * ((int64_t)image->width - width);
}

pb_status pb_image_resize_bilinear(const pb_image *image, int32_t width, int32_t height, pb_image *result) {
    if (width < 1 || height < 1)
        return pb_error(PB_ERR_USAGE, "an image cannot be resized to %" PRId32 " x %" PRId32, width, height);
    // An axis that keeps its length is not filtered.
    if (width == image->width && height == image->height) return pb_image_crop(image, 0, 0, width, height, result);
    if (height == image->height) return resize_rows(image, width, result);
    if (width == image->width) return resize_columns(image, height, result);
    pb_image between = {0};
    pb_status status = PB_OK;
    if (starts_with_columns(image, width, height)) {
        PB_RETURN_IF(resize_columns(image, height, &between));
        status = resize_rows(&between, width, result);
    } else {
        PB_RETURN_IF(resize_rows(image, width, &between));
        status = resize_columns(&between, height, result);
    }
    pb_image_deinit(&between);
    return status;
}

pb_status pb_image_resize_shorter(const pb_image *image, int32_t size, pb_image *result) {
    const bool upright = image->width <= image->height;
    const int64_t shorter = upright ? image->width : image->height, longer = upright ? image->height : image->width;
    const int64_t other = size * longer / shorter;
    if (other > INT32_MAX) return pb_error(PB_ERR_USAGE, "an image cannot be resized to %" PRId64 " pixels", other);
    return pb_image_resize_bilinear(image, upright ? size : (int32_t)other, upright ? (int32_t)other : size, result);
}

// --- Cutting and pasting ---

// Copies a rectangle of `from` to (left, top) of `to`; both hold it.
static void paste(const pb_image *from, int32_t from_left, int32_t from_top, int32_t width, int32_t height,
                  pb_image *to, int32_t left, int32_t top) {
    for (int32_t y = 0; y < height; y++) {
        const uint8_t *in = from->rgb + ((size_t)(from_top + y) * (size_t)from->width + (size_t)from_left) * 3;
        memcpy(to->rgb + ((size_t)(top + y) * (size_t)to->width + (size_t)left) * 3, in, (size_t)width * 3);
    }
}

static pb_status create_black(int32_t width, int32_t height, pb_image *image) {
    PB_RETURN_IF(pb_image_create(width, height, image));
    memset(image->rgb, 0, (size_t)width * (size_t)height * 3);
    return PB_OK;
}

pb_status pb_image_crop(const pb_image *image, int32_t left, int32_t top, int32_t width, int32_t height,
                        pb_image *result) {
    if (left < 0 || top < 0 || width < 1 || height < 1 || width > image->width - left || height > image->height - top)
        return pb_error(PB_ERR_USAGE,
                        "%" PRId32 " x %" PRId32 " pixels at (%" PRId32 ", %" PRId32
                        ") are not within an image of %" PRId32 " x %" PRId32,
                        width, height, left, top, image->width, image->height);
    PB_RETURN_IF(pb_image_create(width, height, result));
    paste(image, left, top, width, height, result, 0, 0);
    return PB_OK;
}

// Python's round(difference / 2.0): a half goes to the even neighbour.
static int32_t half_to_even(int32_t difference) {
    const int32_t floor = difference / 2;
    return floor + (difference % 2 && floor % 2);
}

// Along one axis: from where, to where, and how many pixels are copied.
static void center(int32_t size, int32_t wanted, int32_t *from, int32_t *to, int32_t *count) {
    *from = size > wanted ? half_to_even(size - wanted) : 0;
    *to = size < wanted ? (wanted - size) / 2 : 0;
    *count = size < wanted ? size : wanted;
}

pb_status pb_image_crop_center(const pb_image *image, int32_t width, int32_t height, pb_image *result) {
    int32_t from_x, from_y, to_x, to_y, columns, rows;
    PB_RETURN_IF(create_black(width, height, result));
    center(image->width, width, &from_x, &to_x, &columns);
    center(image->height, height, &from_y, &to_y, &rows);
    paste(image, from_x, from_y, columns, rows, result, to_x, to_y);
    return PB_OK;
}

pb_status pb_image_grid(const pb_image *images, size_t n, int32_t columns, pb_image *result) {
    if (!n || n > INT32_MAX || columns < 1) return pb_error(PB_ERR_USAGE, "a grid needs images and columns");
    const int32_t width = images[0].width, height = images[0].height, count = (int32_t)n;
    for (int32_t i = 1; i < count; i++) {
        if (images[i].width != width || images[i].height != height)
            return pb_error(PB_ERR_USAGE,
                            "the images of a grid must have one size: %" PRId32 " x %" PRId32 " and %" PRId32
                            " x %" PRId32,
                            width, height, images[i].width, images[i].height);
    }
    const int32_t wide = columns < count ? columns : count, high = (count - 1) / wide + 1;
    if (width > INT32_MAX / wide || height > INT32_MAX / high)
        return pb_error(PB_ERR_USAGE, "a grid of %" PRId32 " x %" PRId32 " images is too large", wide, high);
    PB_RETURN_IF(create_black(wide * width, high * height, result));
    for (int32_t i = 0; i < count; i++)
        paste(&images[i], 0, 0, width, height, result, i % wide * width, i / wide * height);
    return PB_OK;
}
