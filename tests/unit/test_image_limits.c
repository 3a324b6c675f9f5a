// test: links=io,base timeout=300
// Pictures that are made to waste (reliability.md, C3): what exceeds a limit is refused by its header, at once; the
// most wasteful that is still read takes at most two seconds of processor time and 256 MiB.
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "check.h"
#include "io/image.h"
#include "pictures.h"

#ifdef __has_feature
#define HAS_FEATURE(name) __has_feature(name)
#else
#define HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS_FEATURE(address_sanitizer) || \
    HAS_FEATURE(thread_sanitizer) || defined(PB_COVERAGE)
enum { PLAIN_BUILD = 0 };  // a sanitizer's shadow memory and checks would be measured
#else
enum { PLAIN_BUILD = 1 };
#endif
enum { MAX_SECONDS = 2, MAX_REFUSAL_MILLISECONDS = 50, MAX_GROWTH_KIB = 256 << 10 };

static double processor_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static long peak_kib(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

static long peak_at_start;

static void check_refused(const uint8_t *bytes, size_t n, const char *name, const pb_image_limits *limits) {
    pb_image image = {0};
    const double start = processor_seconds();
    const long before = peak_kib();
    const pb_status status = pb_image_decode(bytes, n, name, limits, &image);
    const double milliseconds = (processor_seconds() - start) * 1e3;
    CHECK_THAT(status == PB_ERR_UNSUPPORTED && !image.rgb, "%s: %d %s", name, (int)status, pb_error_message());
    if (PLAIN_BUILD) {
        CHECK_THAT(milliseconds < MAX_REFUSAL_MILLISECONDS, "%s: refused after %.0f ms", name, milliseconds);
        CHECK_THAT(peak_kib() - before < 4096, "%s: refused after taking %ld KiB", name, peak_kib() - before);
    }
    pb_image_deinit(&image);
}

static void check_read(const uint8_t *bytes, size_t n, const char *name, int32_t width, int32_t height) {
    pb_image image = {0};
    const double start = processor_seconds();
    CHECK_OK(pb_image_decode(bytes, n, name, NULL, &image));
    const double seconds = processor_seconds() - start;
    CHECK_THAT(image.width == width && image.height == height, "%s: %d x %d", name, image.width, image.height);
    if (PLAIN_BUILD) {
        CHECK_THAT(seconds < MAX_SECONDS, "%s: takes %.2f s", name, seconds);
        CHECK_THAT(peak_kib() - peak_at_start < MAX_GROWTH_KIB, "%s: takes %ld KiB", name, peak_kib() - peak_at_start);
    }
    pb_image_deinit(&image);
}

static void test_png(void) {
    static const struct {
        uint32_t width, height;
        uint8_t depth, color, interlaced;
        size_t row_bytes;
        bool is_read;
    } cases[] = {
        {65535, 65535, 8, 2, 0, 0, false},      {2147483647, 1, 1, 0, 0, 0, false},
        {16385, 1, 8, 0, 0, 0, false},          {1, 16385, 8, 0, 0, 0, false},
        {8001, 8000, 8, 2, 0, 0, false},        {16384, 1, 8, 0, 0, 16384, true},
        {1, 16384, 8, 0, 0, 1, true},           {16000, 4000, 1, 0, 0, 2000, true},
        {1000, 1000, 1, 0, 0, 125, true},  // a megapixel in about a kilobyte
        {8000, 8000, 16, 6, 0, 8000 * 8, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        png_builder png;
        char name[64];
        png_begin(&png, cases[i].width, cases[i].height, cases[i].depth, cases[i].color, cases[i].interlaced);
        png_end_with_zeros(&png, cases[i].is_read ? cases[i].height : 1, cases[i].row_bytes);
        snprintf(name, sizeof name, "%u x %u, %d bits, color %d", cases[i].width, cases[i].height, cases[i].depth,
                 cases[i].color);
        if (cases[i].is_read)
            check_read(png.bytes, png.n, name, (int32_t)cases[i].width, (int32_t)cases[i].height);
        else
            check_refused(png.bytes, png.n, name, NULL);
        free(png.bytes);
    }
}

// A header of 64 megapixels in front of a small picture's data, with and without what makes it more expensive.
static void test_jpeg_memory(void) {
    static const struct {
        const char *name;
        uint32_t width, height;
    } cases[] = {
        {"rgb_progressive.jpg", 8000, 8000},  // 4:2:0: coefficients of 192 MB beside pixels of 192 MB
        {"cmyk_progressive.jpg", 5500, 5500},
        {"exif_6.jpg", 8000, 8000},  // turned: 384 MB
        {"rgb_420.jpg", 16384, 16384},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n;
        uint8_t *bytes = picture_read(cases[i].name, &n);
        size_t frame = 2;
        while (frame + 9 < n && (bytes[frame] != 0xff || (bytes[frame + 1] != 0xc0 && bytes[frame + 1] != 0xc2)))
            frame += 2 + (size_t)(bytes[frame + 2] << 8 | bytes[frame + 3]);
        CHECK(frame + 9 < n);
        bytes[frame + 5] = (uint8_t)(cases[i].height >> 8);
        bytes[frame + 6] = (uint8_t)cases[i].height;
        bytes[frame + 7] = (uint8_t)(cases[i].width >> 8);
        bytes[frame + 8] = (uint8_t)cases[i].width;
        check_refused(bytes, n, cases[i].name, NULL);
        free(bytes);
    }
}

static void test_scans(void) {
    size_t n;
    uint8_t *bytes = picture_read("rgb_progressive.jpg", &n);
    size_t scan = n;
    while (bytes[scan - 2] != 0xff || bytes[scan - 1] != 0xda) scan--;
    scan -= 2;
    const size_t scan_bytes = n - 2 - scan;
    enum { COPIES = 2000 };
    uint8_t *many = malloc(n + COPIES * scan_bytes);
    if (!many) exit(1);
    memcpy(many, bytes, n - 2);
    for (size_t i = 0; i < COPIES; i++) memcpy(many + n - 2 + i * scan_bytes, bytes + scan, scan_bytes);
    memcpy(many + n - 2 + COPIES * scan_bytes, bytes + n - 2, 2);
    check_refused(many, n + COPIES * scan_bytes, "2010 scans", NULL);
    free(many);
    free(bytes);
}

// Limits that a caller sets hold to the pixel and the byte.
static void test_own_limits(void) {
    size_t n;
    uint8_t *bytes = picture_read("rgb_420.jpg", &n);  // 23 x 17
    const struct {
        pb_image_limits limits;
        bool is_read;
    } cases[] = {
        {{23, 23 * 17, (int64_t)n, 1 << 20}, true},
        {{22, 23 * 17, (int64_t)n, 1 << 20}, false},
        {{23, 23 * 17 - 1, (int64_t)n, 1 << 20}, false},
        {{23, 23 * 17, (int64_t)n - 1, 1 << 20}, false},
        {{23, 23 * 17, (int64_t)n, (int64_t)n + 23 * 17 * 3}, true},
        {{23, 23 * 17, (int64_t)n, (int64_t)n + 23 * 17 * 3 - 1}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pb_image image = {0};
        const pb_status status = pb_image_decode(bytes, n, "picture", &cases[i].limits, &image);
        CHECK_THAT(status == (cases[i].is_read ? PB_OK : PB_ERR_UNSUPPORTED), "case %zu: %d", i, (int)status);
        pb_image_deinit(&image);
    }
    free(bytes);
}

int main(void) {
    peak_at_start = peak_kib();
    test_jpeg_memory();
    test_scans();
    test_own_limits();
    test_png();
    return CHECK_DONE();
}
