// test: links=io,base
// Decoding against PIL's pixels (tests/golden/make_images.py), and what must be refused: every prefix of a file, every
// byte of a PNG changed, other formats, and single faults that each have an answer of their own.
#include <stdlib.h>

#include "check.h"
#include "io/image.h"
#include "pictures.h"

static void test_golden_pictures(void) {
    FILE *list = fopen(PB_TEST_DATA "/golden/images/decoded.txt", "r");
    CHECK(list != NULL);
    if (!list) return;
    char name[128], expected[41], actual[41];
    int width, height, count = 0;
    while (fscanf(list, "%127s %d %d %40s", name, &width, &height, expected) == 4) {
        size_t n;
        uint8_t *bytes = picture_read(name, &n);
        pb_image image = {0};
        CHECK_OK(pb_image_decode(bytes, n, name, NULL, &image));
        CHECK_THAT(image.width == width && image.height == height, "%s: %d x %d", name, image.width, image.height);
        if (image.rgb) {
            pb_image_sha1(&image, actual);
            CHECK_THAT(!strcmp(actual, expected), "%s: pixels differ from PIL's", name);
        }
        pb_image_deinit(&image);
        free(bytes);
        count++;
    }
    fclose(list);
    CHECK(count >= 70);
}

// Only the whole file is a picture: what is cut off anywhere is an error, and nothing is read beyond the end.
static void test_prefixes(const char *name, size_t step) {
    size_t n;
    uint8_t *bytes = picture_read(name, &n);
    for (size_t length = 0; length < n; length += step) {
        uint8_t *prefix = malloc(length + !length);
        if (!prefix) exit(1);
        memcpy(prefix, bytes, length);
        pb_image image = {0};
        const pb_status status = pb_image_decode(prefix, length, name, NULL, &image);
        CHECK_THAT(status == PB_ERR_FORMAT && !image.rgb, "%s: %zu of %zu bytes give %d", name, length, n, (int)status);
        pb_image_deinit(&image);
        free(prefix);
    }
    free(bytes);
}

// A PNG is checksummed: one changed byte gives an error or, in what pixels do not depend on, the same picture.
static void test_changed_bytes(const char *name) {
    size_t n;
    uint8_t *bytes = picture_read(name, &n);
    pb_image whole = picture_load(name);
    int errors = 0;
    for (size_t at = 0; at < n; at++) {
        for (int bit = 0; bit < 8; bit++) {
            pb_image image = {0};
            bytes[at] ^= (uint8_t)(1 << bit);
            const pb_status status = pb_image_decode(bytes, n, name, NULL, &image);
            bytes[at] ^= (uint8_t)(1 << bit);
            if (status != PB_OK)
                errors++;
            else
                CHECK_THAT(image.width == whole.width && image.height == whole.height &&
                               !memcmp(image.rgb, whole.rgb, (size_t)whole.width * (size_t)whole.height * 3),
                           "%s: bit %d of byte %zu changes the picture", name, bit, at);
            pb_image_deinit(&image);
        }
    }
    CHECK_THAT(errors > 8 * 60, "%s: only %d changes were errors", name, errors);
    pb_image_deinit(&whole);
    free(bytes);
}

// JPEG has no checksums: any outcome but a crash, a leak or an unexpected kind of error is right.
static void test_changed_jpeg(const char *name) {
    size_t n;
    uint8_t *bytes = picture_read(name, &n);
    int errors = 0, pictures = 0;
    for (size_t at = 0; at < n; at++) {
        for (int bit = 0; bit < 8; bit++) {
            pb_image image = {0};
            bytes[at] ^= (uint8_t)(1 << bit);
            const pb_status status = pb_image_decode(bytes, n, name, NULL, &image);
            bytes[at] ^= (uint8_t)(1 << bit);
            CHECK_THAT(status == PB_OK || status == PB_ERR_FORMAT || status == PB_ERR_UNSUPPORTED, "%s: %d", name,
                       (int)status);
            CHECK((status == PB_OK) == (image.rgb != NULL));
            errors += status != PB_OK;
            pictures += status == PB_OK;
            pb_image_deinit(&image);
        }
    }
    CHECK_THAT(errors > 100 && pictures > 100, "%s: %d errors, %d pictures", name, errors, pictures);
    free(bytes);
}

// Each seed of the fuzz target that is called bad_..., and what is said about it.
static const struct refusal {
    const char *name;
    pb_status status;
    const char *message;  // NULL: it is a picture after all,
    int32_t width;        // this wide (that is, not turned) where the number is not 0
} refusals[] = {
    {"two_frames.jpg", PB_ERR_FORMAT, "two frame headers", 0},
    {"lossless.jpg", PB_ERR_UNSUPPORTED, "lossless", 0},
    {"twelve_bits.jpg", PB_ERR_UNSUPPORTED, "12 bits", 0},
    {"huge.jpg", PB_ERR_UNSUPPORTED, "65535 x 65535", 0},
    {"flat.jpg", PB_ERR_FORMAT, "without pixels", 0},
    {"sampling.jpg", PB_ERR_FORMAT, "sampling factors", 0},
    {"two_components.jpg", PB_ERR_UNSUPPORTED, "2 components", 0},
    {"short_frame.jpg", PB_ERR_FORMAT, "too short", 0},
    {"short_segment.jpg", PB_ERR_FORMAT, "length 1", 0},
    {"cut_segment.jpg", PB_ERR_FORMAT, "truncated", 0},
    {"cut_length.jpg", PB_ERR_FORMAT, "truncated", 0},
    {"cut_scan.jpg", PB_ERR_FORMAT, "truncated", 0},
    {"no_frame.jpg", PB_ERR_FORMAT, "no picture", 0},
    {"two_starts.jpg", PB_ERR_FORMAT, "two start markers", 0},
    {"no_scan_data.jpg", PB_ERR_FORMAT, "premature end", 0},
    {"many_scans.jpg", PB_ERR_UNSUPPORTED, "scans", 0},
    {"no_huffman_table.jpg", PB_OK, NULL, 16},
    {"exif_short.jpg", PB_OK, NULL, 16},
    {"exif_far.jpg", PB_OK, NULL, 16},
    {"exif_end.jpg", PB_OK, NULL, 16},
    {"cut_chunk.png", PB_ERR_FORMAT, "truncated", 0},
    {"cut_header.png", PB_ERR_FORMAT, "truncated", 0},
    {"no_end.png", PB_ERR_FORMAT, "truncated", 0},
    {"no_data.png", PB_ERR_FORMAT, "PNG", 0},
    {"not_a_chunk.png", PB_ERR_FORMAT, "no chunk at byte 33", 0},
    {"bad_checksum.png", PB_ERR_FORMAT, "checksum of the chunk IHDR", 0},
    {"bad_data_checksum.png", PB_ERR_FORMAT, "checksum of the chunk IDAT", 0},
    {"bad_deflate.png", PB_ERR_FORMAT, "PNG", 0},
    {"short_deflate.png", PB_ERR_FORMAT, "too short", 0},
    {"bad_filter.png", PB_ERR_FORMAT, "filter", 0},
    {"first_chunk.png", PB_ERR_FORMAT, "does not begin with a header", 0},
    {"no_palette.png", PB_ERR_FORMAT, "PLTE", 0},
    {"unknown_critical.png", PB_ERR_FORMAT, "unknown critical", 0},
    {"depth.png", PB_ERR_FORMAT, "bit depth", 0},
    {"huge.png", PB_ERR_UNSUPPORTED, "65535 x 65535", 0},
    {"flat.png", PB_ERR_FORMAT, "without pixels", 0},
    {"exif_checksum.png", PB_OK, NULL, 9},
    {"xmp_compressed.png", PB_OK, NULL, 9},
    {"xmp_twice.png", PB_OK, NULL, 5},
    {"webp", PB_ERR_UNSUPPORTED, "dwebp", 0},
    {"gif", PB_ERR_UNSUPPORTED, "GIF", 0},
    {"bmp", PB_ERR_UNSUPPORTED, "BMP", 0},
    {"tiff", PB_ERR_UNSUPPORTED, "TIFF", 0},
    {"heic", PB_ERR_UNSUPPORTED, "heif-convert", 0},
    {"avif", PB_ERR_UNSUPPORTED, "AVIF", 0},
    {"jxl", PB_ERR_UNSUPPORTED, "djxl", 0},
    {"jp2", PB_ERR_UNSUPPORTED, "JPEG 2000", 0},
    {"mp4", PB_ERR_FORMAT, "not a picture", 0},
    {"text", PB_ERR_FORMAT, "not a picture", 0},
    {"empty", PB_ERR_FORMAT, "empty", 0},
    {"short.png", PB_ERR_FORMAT, "truncated", 0},
    {"short.jpg", PB_ERR_FORMAT, "truncated", 0},
};

static void test_refusals(void) {
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const struct refusal *expected = &refusals[i];
        char path[1024];
        pb_image image = {0};
        snprintf(path, sizeof path, "%s/fuzz/corpus/image/bad_%s", PB_TEST_DATA, expected->name);
        pb_error_clear();
        const pb_status status = pb_image_load(path, NULL, &image);
        CHECK_THAT(status == expected->status, "%s: %d, %s", expected->name, (int)status, pb_error_message());
        if (expected->message)
            CHECK_THAT(strstr(pb_error_message(), expected->message) && strstr(pb_error_message(), path),
                       "%s: says '%s'", expected->name, pb_error_message());
        CHECK((status == PB_OK) == (image.rgb != NULL));
        CHECK_THAT(!expected->width || image.width == expected->width, "%s: %d wide", expected->name, image.width);
        pb_image_deinit(&image);
    }
}

static void test_sniffing(void) {
    static const struct {
        const char *name;
        pb_image_kind kind;
    } files[] = {{"golden/images/grey.jpg", PB_IMAGE_JPEG},
                 {"golden/images/tall.png", PB_IMAGE_PNG},
                 {"fuzz/corpus/image/bad_webp", PB_IMAGE_WEBP},
                 {"fuzz/corpus/image/bad_heic", PB_IMAGE_HEIC},
                 {"fuzz/corpus/image/bad_avif", PB_IMAGE_AVIF},
                 {"fuzz/corpus/image/bad_gif", PB_IMAGE_GIF},
                 {"fuzz/corpus/image/bad_bmp", PB_IMAGE_BMP},
                 {"fuzz/corpus/image/bad_tiff", PB_IMAGE_TIFF},
                 {"fuzz/corpus/image/bad_jxl", PB_IMAGE_JXL},
                 {"fuzz/corpus/image/bad_jp2", PB_IMAGE_JP2},
                 {"fuzz/corpus/image/bad_mp4", PB_IMAGE_NONE},
                 {"fuzz/corpus/image/bad_text", PB_IMAGE_NONE},
                 {"fuzz/corpus/image/bad_empty", PB_IMAGE_NONE},
                 {"golden", PB_IMAGE_NONE},
                 {"check.h", PB_IMAGE_NONE}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[1024];
        pb_image_kind kind = PB_IMAGE_JP2;
        snprintf(path, sizeof path, "%s/%s", PB_TEST_DATA, files[i].name);
        CHECK_OK(pb_image_sniff_file(path, &kind));
        CHECK_THAT(kind == files[i].kind, "%s: %s", path, pb_image_kind_name(kind));
    }
    pb_image_kind kind;
    CHECK(pb_image_sniff_file(PB_TEST_DATA "/there is no such file", &kind) == PB_ERR_IO);
    CHECK(pb_image_sniff_file("/dev/zero", &kind) == PB_OK && kind == PB_IMAGE_NONE);
    pb_image image = {0};
    CHECK(pb_image_load("/dev/zero", NULL, &image) == PB_ERR_IO && !image.rgb);
    CHECK(pb_image_load(PB_TEST_DATA, NULL, &image) == PB_ERR_IO && !image.rgb);
    CHECK(pb_image_load(PB_TEST_DATA "/there is no such file", NULL, &image) == PB_ERR_IO && !image.rgb);
}

int main(void) {
    test_golden_pictures();
    static const char *const cut[] = {"rgb_420.jpg",         "rgb_progressive.jpg", "cmyk.jpg",
                                      "exif_6.jpg",          "png_2_8.png",         "png_3_4_interlaced.png",
                                      "png_xmp_and_exif.png"};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) test_prefixes(cut[i], 1);
    test_prefixes("png_many_idat.png", 97);
    static const char *const changed[] = {"png_0_16.png", "png_2_8.png", "png_3_4_interlaced.png"};
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++) test_changed_bytes(changed[i]);
    test_changed_jpeg("rgb_restart.jpg");
    test_changed_jpeg("cmyk_progressive.jpg");
    test_refusals();
    test_sniffing();
    return CHECK_DONE();
}
