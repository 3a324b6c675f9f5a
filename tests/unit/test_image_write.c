// test: links=io,base
// Writing: PNG comes back bit for bit with its texts, JPEG is what PIL writes; nothing is half written, nothing written
// through a link.
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sha1.h"
#include "check.h"
#include "io/image.h"
#include "pictures.h"
#include "scratch.h"

static uint8_t *read_all(const char *path, size_t *n) {
    static uint8_t bytes[1 << 20];
    FILE *file = fopen(path, "rb");
    *n = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    if (file) fclose(file);
    return bytes;
}

static int count_files(void) {
    pb_arena *arena = pb_arena_create();
    const char **names;
    size_t count = 0;
    CHECK_OK(pb_fs_list(arena, scratch_directory, &names, &count));
    pb_arena_destroy(arena);
    return (int)count;
}

static void test_png_round_trip(void) {
    static const int32_t sizes[][2] = {{1, 1}, {1, 40}, {40, 1}, {33, 21}, {64, 64}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pb_image image = picture_make(sizes[i][0], sizes[i][1]), back = {0};
        CHECK_OK(pb_image_write_png(scratch_path("a.png"), &image, NULL, 0));
        CHECK_OK(pb_image_load(scratch_path("a.png"), NULL, &back));
        CHECK(back.width == image.width && back.height == image.height &&
              !memcmp(back.rgb, image.rgb, (size_t)image.width * (size_t)image.height * 3));
        pb_image_deinit(&back);
        pb_image_deinit(&image);
    }
}

// The chunks as the PNG specification (section 11.3.4) and zlib's checksum have them.
static void test_png_texts(void) {
    pb_image image = picture_make(5, 4), back = {0};
    const pb_image_text texts[] = {
        {"prompt", "a fox"}, {"negative prompt", ""}, {"lines", "a\nb"}, {"note", "gr\xc3\xbc"}};
    CHECK_OK(pb_image_write_png(scratch_path("t.png"), &image, texts, 4));
    png_builder expected;
    png_begin(&expected, 5, 4, 8, 2, 0);
    png_append(&expected, "tEXt", "prompt\0a fox", 12);
    png_append(&expected, "tEXt", "negative prompt\0", 16);
    png_append(&expected, "tEXt", "lines\0a\nb", 9);
    png_append(&expected, "iTXt", "note\0\0\0\0\0gr\xc3\xbc", 13);
    size_t n;
    const uint8_t *bytes = read_all(scratch_path("t.png"), &n);
    CHECK(n > expected.n && !memcmp(bytes, expected.bytes, expected.n));
    CHECK_OK(pb_image_load(scratch_path("t.png"), NULL, &back));
    CHECK(back.rgb && !memcmp(back.rgb, image.rgb, 5 * 4 * 3));
    free(expected.bytes);
    pb_image_deinit(&back);

    char too_long[81];
    memset(too_long, 'k', 80);
    too_long[80] = 0;
    const char *const bad_keys[] = {"", " a", "a ", "a  b", "gr\xc3\xbc", "a\nb", too_long};
    for (size_t i = 0; i < sizeof bad_keys / sizeof *bad_keys; i++) {
        const pb_image_text text = {bad_keys[i], "value"};
        CHECK_THAT(pb_image_write_png(scratch_path("bad.png"), &image, &text, 1) == PB_ERR_USAGE, "'%s'", bad_keys[i]);
    }
    const pb_image_text longest = {too_long + 1, "value"};
    CHECK_OK(pb_image_write_png(scratch_path("t.png"), &image, &longest, 1));
    CHECK(access(scratch_path("bad.png"), F_OK) != 0);
    pb_image_deinit(&image);
}

// PIL writes the picture "tall.png" as these bytes (Image.save(..., "JPEG"), Pillow 13 with libjpeg-turbo).
static void test_jpeg(void) {
    pb_image image = picture_load("tall.png"), back = {0};
    CHECK_OK(pb_image_write_jpeg(scratch_path("a.jpg"), &image));
    size_t n;
    char hex[41];
    const uint8_t *bytes = read_all(scratch_path("a.jpg"), &n);
    pb_sha1_hex(bytes, n, hex);
    CHECK_THAT(!strcmp(hex, "b1707c243398d5c8daaee33b5d0ac51f0cf20bd0"), "%s, %zu bytes", hex, n);
    CHECK_OK(pb_image_load(scratch_path("a.jpg"), NULL, &back));
    CHECK(back.width == image.width && back.height == image.height);
    pb_image_deinit(&back);
    pb_image_deinit(&image);

    pb_image wide = picture_make(65501, 1);
    CHECK(pb_image_write_jpeg(scratch_path("wide.jpg"), &wide) == PB_ERR_USAGE);
    CHECK(access(scratch_path("wide.jpg"), F_OK) != 0);
    pb_image_deinit(&wide);
}

// A write that fails leaves the old picture and no other file.
static void test_failures(void) {
    pb_image first = picture_make(40, 40), second = picture_make(200, 200), back = {0};
    const char *path = scratch_path("kept.png");
    CHECK_OK(pb_image_write_png(path, &first, NULL, 0));
    const int files = count_files();

    const struct rlimit small = {.rlim_cur = 10000, .rlim_max = RLIM_INFINITY};
    struct rlimit before;
    getrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    const pb_status png = pb_image_write_png(path, &second, NULL, 0);
    const pb_status jpeg = pb_image_write_jpeg(path, &second);
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK(png == PB_ERR_IO && jpeg == PB_ERR_IO);
    CHECK_THAT(strstr(pb_error_message(), path) != NULL, "says '%s'", pb_error_message());
    CHECK_OK(pb_image_load(path, NULL, &back));
    CHECK(back.width == 40 && back.rgb && !memcmp(back.rgb, first.rgb, 40 * 40 * 3));
    CHECK(count_files() == files);

    CHECK(pb_image_write_png(scratch_path("no such folder/a.png"), &first, NULL, 0) == PB_ERR_IO);
    CHECK_OK(pb_fs_make_directories(scratch_path("folder")));
    CHECK(pb_image_write_png(scratch_path("folder"), &first, NULL, 0) == PB_ERR_IO);
    CHECK(symlink(path, scratch_path("link.png")) == 0 && mkfifo(scratch_path("pipe.png"), 0600) == 0);
    CHECK(pb_image_write_png(scratch_path("link.png"), &second, NULL, 0) == PB_ERR_IO);
    CHECK(pb_image_write_jpeg(scratch_path("pipe.png"), &second) == PB_ERR_IO);
    CHECK(count_files() == files + 3);
    pb_image_deinit(&back);
    CHECK_OK(pb_image_load(scratch_path("link.png"), NULL, &back));
    CHECK(back.width == 40);
    pb_image_deinit(&back);
    pb_image_deinit(&first);
    pb_image_deinit(&second);
}

int main(void) {
    test_png_round_trip();
    test_png_texts();
    test_jpeg();
    test_failures();
    scratch_remove();
    return CHECK_DONE();
}
