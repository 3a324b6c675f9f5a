// test: links=io,base
// Resizing and cropping against PIL's and torchvision's pixels (tests/golden/make_images.py), orientation, grids.
#include <stdlib.h>

#include "check.h"
#include "io/image.h"
#include "pictures.h"

static pb_status operate(const pb_image *image, const char *operation, int32_t a, int32_t b, pb_image *result) {
    if (!strcmp(operation, "bilinear")) return pb_image_resize_bilinear(image, a, b, result);
    if (!strcmp(operation, "shorter")) return pb_image_resize_shorter(image, a, result);
    return pb_image_crop_center(image, a, b, result);
}

static void test_golden_sizes(void) {
    FILE *list = fopen(PB_TEST_DATA "/golden/images/resized.txt", "r");
    CHECK(list != NULL);
    if (!list) return;
    char name[128], operation[16], expected[41], actual[41];
    int a, b, width, height, count = 0;
    while (fscanf(list, "%127s %15s %d %d %d %d %40s", name, operation, &a, &b, &width, &height, expected) == 7) {
        pb_image image = picture_load(name), result = {0};
        CHECK_OK(operate(&image, operation, a, b, &result));
        CHECK_THAT(result.width == width && result.height == height, "%s %s %d %d: %d x %d", name, operation, a, b,
                   result.width, result.height);
        if (result.rgb) {
            pb_image_sha1(&result, actual);
            CHECK_THAT(!strcmp(actual, expected), "%s %s %d %d: pixels differ from PIL's", name, operation, a, b);
        }
        pb_image_deinit(&result);
        pb_image_deinit(&image);
        count++;
    }
    fclose(list);
    CHECK(count == 63);
}

// What is flat stays flat at every size: the weights of each output add up to one, and 255 does not run over.
static void test_flat(void) {
    pb_image image = picture_make(37, 29), result = {0};
    for (int value = 0; value < 256; value += 51) {
        memset(image.rgb, value, 37 * 29 * 3);
        for (int32_t size = 1; size < 90; size += 4) {
            CHECK_OK(pb_image_resize_bilinear(&image, size, 91 - size, &result));
            size_t wrong = 0;
            for (int32_t i = 0; i < size * (91 - size) * 3; i++) wrong += result.rgb[i] != value;
            CHECK_THAT(wrong == 0, "%d at %d x %d: %zu values differ", value, size, 91 - size, wrong);
            pb_image_deinit(&result);
        }
    }
    pb_image_deinit(&image);
}

static const uint8_t *pixel(const pb_image *image, int32_t x, int32_t y) {
    return image->rgb + ((int64_t)y * image->width + x) * 3;
}

// Every pixel of a crop is the source's at the offset; a half offset goes to the even side; what lies outside is black.
static void test_crops(void) {
    pb_image image = picture_make(11, 8), result = {0};
    CHECK_OK(pb_image_crop(&image, 3, 2, 5, 6, &result));
    int wrong = 0;
    for (int32_t y = 0; y < 6; y++) {
        for (int32_t x = 0; x < 5; x++) wrong += memcmp(pixel(&result, x, y), pixel(&image, x + 3, y + 2), 3) != 0;
    }
    CHECK(wrong == 0);
    pb_image_deinit(&result);

    // 11 - 8 = 3: 1.5 becomes 2; 8 - 7 = 1: 0.5 becomes 0.
    CHECK_OK(pb_image_crop_center(&image, 8, 7, &result));
    CHECK(!memcmp(pixel(&result, 0, 0), pixel(&image, 2, 0), 3));
    pb_image_deinit(&result);
    // 11 - 6 = 5: 2.5 becomes 2; 8 - 11 = -3: one black row above, two below.
    CHECK_OK(pb_image_crop_center(&image, 6, 11, &result));
    CHECK(!memcmp(pixel(&result, 0, 1), pixel(&image, 2, 0), 3));
    CHECK(!memcmp(pixel(&result, 5, 8), pixel(&image, 7, 7), 3));
    CHECK(!memcmp(pixel(&result, 0, 0), "\0\0\0", 3) && !memcmp(pixel(&result, 5, 9), "\0\0\0", 3));
    pb_image_deinit(&result);

    static const int32_t outside[][4] = {{-1, 0, 3, 3}, {0, -1, 3, 3}, {9, 0, 3, 3}, {0, 6, 3, 3},
                                         {0, 0, 12, 1}, {0, 0, 1, 9},  {0, 0, 0, 1}, {0, 0, 1, 0}};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        const int32_t *r = outside[i];
        CHECK_THAT(pb_image_crop(&image, r[0], r[1], r[2], r[3], &result) == PB_ERR_USAGE && !result.rgb, "%zu", i);
    }
    pb_image_deinit(&image);
}

static void test_impossible_sizes(void) {
    pb_image image = picture_make(3, 2), result = {0};
    CHECK(pb_image_resize_bilinear(&image, 0, 5, &result) == PB_ERR_USAGE);
    CHECK(pb_image_resize_bilinear(&image, 5, -1, &result) == PB_ERR_USAGE);
    CHECK(pb_image_resize_shorter(&image, 0, &result) == PB_ERR_USAGE);
    CHECK(pb_image_resize_shorter(&image, INT32_MAX, &result) == PB_ERR_USAGE);
    CHECK(pb_image_resize_bilinear(&image, 1 << 20, 1 << 20, &result) == PB_ERR_USAGE);
    CHECK(pb_image_resize_bilinear(&image, INT32_MAX, 2, &result) == PB_ERR_USAGE);
    CHECK(pb_image_resize_bilinear(&image, 2, INT32_MAX, &result) == PB_ERR_USAGE);
    CHECK(pb_image_crop_center(&image, 1 << 21, 1, &result) == PB_ERR_USAGE);
    CHECK(pb_image_create(0, 1, &result) == PB_ERR_USAGE && pb_image_create(1, -1, &result) == PB_ERR_USAGE);
    CHECK(!result.rgb);
    pb_image_deinit(&image);
}

// Where the stored picture's corner (0, 0) and its right neighbour are shown, for EXIF's eight orientations.
static void test_orientations(void) {
    static const struct {
        int32_t width, height, x, y, dx, dy;
    } shown[9] = {{0, 0, 0, 0, 0, 0},    {13, 7, 0, 0, 1, 0},   {13, 7, 12, 0, -1, 0},
                  {13, 7, 12, 6, -1, 0}, {13, 7, 0, 6, 1, 0},   {7, 13, 0, 0, 0, 1},
                  {7, 13, 6, 0, 0, 1},   {7, 13, 6, 12, 0, -1}, {7, 13, 0, 12, 0, -1}};
    pb_image plain = picture_load("exif_1.jpg");
    for (int orientation = 1; orientation <= 8; orientation++) {
        char name[32];
        snprintf(name, sizeof name, "exif_%d.jpg", orientation);
        pb_image image = picture_load(name);
        CHECK_THAT(image.width == shown[orientation].width && image.height == shown[orientation].height, "%s", name);
        int wrong = 0;
        for (int32_t i = 0; i < 13; i++) {
            const int32_t x = shown[orientation].x + i * shown[orientation].dx;
            const int32_t y = shown[orientation].y + i * shown[orientation].dy;
            wrong += memcmp(pixel(&image, x, y), pixel(&plain, i, 0), 3) != 0;
        }
        CHECK_THAT(wrong == 0, "%s: %d pixels of the first row are elsewhere", name, wrong);
        pb_image_deinit(&image);
    }
    pb_image_deinit(&plain);
}

static void test_grid(void) {
    pb_image images[5], result = {0};
    for (int i = 0; i < 5; i++) {
        images[i] = picture_make(4, 3);
        memset(images[i].rgb, 40 + i, 4 * 3 * 3);
    }
    CHECK_OK(pb_image_grid(images, 5, 3, &result));
    CHECK(result.width == 12 && result.height == 6);
    int wrong = 0;
    for (int32_t y = 0; y < 6; y++) {
        for (int32_t x = 0; x < 12; x++) {
            const int cell = y / 3 * 3 + x / 4;
            wrong += *pixel(&result, x, y) != (cell < 5 ? 40 + cell : 0);
        }
    }
    CHECK(wrong == 0);
    pb_image_deinit(&result);
    CHECK_OK(pb_image_grid(images, 2, 7, &result));
    CHECK(result.width == 8 && result.height == 3);
    pb_image_deinit(&result);
    CHECK(pb_image_grid(images, 0, 3, &result) == PB_ERR_USAGE && pb_image_grid(images, 5, 0, &result) == PB_ERR_USAGE);
    images[4].height = 2;
    CHECK(pb_image_grid(images, 5, 3, &result) == PB_ERR_USAGE && !result.rgb);
    for (int i = 0; i < 5; i++) pb_image_deinit(&images[i]);
}

int main(void) {
    test_golden_sizes();
    test_flat();
    test_crops();
    test_impossible_sizes();
    test_orientations();
    test_grid();
    return CHECK_DONE();
}
