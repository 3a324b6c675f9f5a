// JPEG: a walk over the file's markers that judges it before anything is allocated and finds EXIF and XMP, then
// libjpeg-turbo with its accurate inverse DCT and smooth chroma upsampling, which is what PIL decodes with.
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

#include "io/image_internal.h"

enum {
    SOF0 = 0xc0,
    SOF1 = 0xc1,
    SOF2 = 0xc2,
    SOF9 = 0xc9,
    SOF10 = 0xca,
    SOF15 = 0xcf,
    DHT = 0xc4,
    JPG = 0xc8,
    DAC = 0xcc,
    RST0 = 0xd0,
    RST7 = 0xd7,
    SOI = 0xd8,
    EOI = 0xd9,
    SOS = 0xda,
    APP1 = 0xe1,
    TEM = 0x01
};
// A progressive picture has about ten scans. Every scan passes over all coefficients, however few bytes it has, so
// that scans times pixels is held down too: at 64 megapixels 16 of them.
enum { MAX_SCANS = 100, MAX_SCANNED_PIXELS = 1024000000 };

typedef struct jpeg_facts {
    uint32_t width, height;
    int components;       // 0 until the frame header was seen
    uint8_t sampling[4];  // per component: horizontal and vertical factor, four bits each
    bool progressive;
    int scans;
    int exif_orientation, xmp_orientation;  // 0: none
} jpeg_facts;

static uint32_t big_endian_16(const uint8_t *p) {
    return (uint32_t)p[0] << 8 | p[1];
}

// ITU-T T.81, B.2.2: length, precision, height, width, components, and three bytes for each component.
static pb_status read_frame_header(const uint8_t *segment, size_t n, int marker, const char *name, jpeg_facts *facts) {
    if (marker != SOF0 && marker != SOF1 && marker != SOF2 && marker != SOF9 && marker != SOF10)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: lossless or hierarchical JPEG; convert it to PNG", name);
    if (facts->components) return pb_error(PB_ERR_FORMAT, "%s: corrupt JPEG: two frame headers", name);
    if (n < 6 || n < 6 + 3 * (size_t)segment[5])
        return pb_error(PB_ERR_FORMAT, "%s: corrupt JPEG: the frame header is too short", name);
    if (segment[0] != 8)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: JPEG with %d bits per sample; save it with 8", name, segment[0]);
    facts->height = big_endian_16(segment + 1);
    facts->width = big_endian_16(segment + 3);
    facts->components = segment[5];
    facts->progressive = marker == SOF2 || marker == SOF10;
    if (facts->components != 1 && facts->components != 3 && facts->components != 4)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: JPEG with %d components; grey, colour (3) and CMYK (4) are read", name,
                        facts->components);
    for (int i = 0; i < facts->components; i++) {
        const uint8_t factors = facts->sampling[i] = segment[6 + 3 * i + 1];
        if (!(factors >> 4) || factors >> 4 > 4 || !(factors & 15) || (factors & 15) > 4)
            return pb_error(PB_ERR_FORMAT, "%s: corrupt JPEG: sampling factors 0x%02x", name, factors);
    }
    return PB_OK;
}

// Where the last one of several segments counts, PIL keeps the last; of EXIF the first.
static void read_application_data(const uint8_t *segment, size_t n, jpeg_facts *facts) {
    static const char exif[] = "Exif\0", xmp[] = "http://ns.adobe.com/xap/1.0/";
    if (n >= sizeof exif && !memcmp(segment, exif, sizeof exif)) {
        if (!facts->exif_orientation) facts->exif_orientation = pb_exif_orientation(segment, n);
    } else if (n >= sizeof xmp && !memcmp(segment, xmp, sizeof xmp)) {
        facts->xmp_orientation = pb_xmp_orientation(segment + sizeof xmp, n - sizeof xmp);
    }
}

// The offset of the next marker's code, at or after `at`: what lies between is entropy-coded data (in which 0xff is
// followed by 0 or a restart marker) or garbage that libjpeg skips as well. `n` where there is none.
static size_t find_marker(const uint8_t *bytes, size_t n, size_t at) {
    while (at < n) {
        const uint8_t *found = memchr(bytes + at, 0xff, n - at);
        if (!found) return n;
        at = (size_t)(found - bytes) + 1;
        while (at < n && bytes[at] == 0xff) at++;
        if (at < n && bytes[at] && !(bytes[at] >= RST0 && bytes[at] <= RST7) && bytes[at] != TEM) return at;
    }
    return n;
}

static pb_status read_markers(const uint8_t *bytes, size_t n, const char *name, jpeg_facts *facts) {
    size_t at = 2;
    for (;;) {
        at = find_marker(bytes, n, at);
        if (at == n) return pb_error(PB_ERR_FORMAT, "%s: truncated JPEG: the end marker is missing", name);
        const int marker = bytes[at++];
        if (marker == EOI) break;
        if (marker == SOI) return pb_error(PB_ERR_FORMAT, "%s: corrupt JPEG: two start markers", name);
        const size_t length = n - at >= 2 ? big_endian_16(bytes + at) : 0;
        if (n - at < 2 || n - at < length)
            return pb_error(PB_ERR_FORMAT, "%s: truncated JPEG: the file ends at byte %zu, within segment 0xff%02x",
                            name, n, marker);
        if (length < 2)
            return pb_error(PB_ERR_FORMAT, "%s: corrupt JPEG: a segment of length %zu at byte %zu", name, length, at);
        const uint8_t *segment = bytes + at + 2;
        const size_t segment_bytes = length - 2;
        if (marker >= SOF0 && marker <= SOF15 && marker != DHT && marker != JPG && marker != DAC)
            PB_RETURN_IF(read_frame_header(segment, segment_bytes, marker, name, facts));
        if (marker == APP1 && !facts->scans) read_application_data(segment, segment_bytes, facts);
        if (marker == SOS) facts->scans++;
        at += length;
    }
    if (!facts->components || !facts->scans)
        return pb_error(PB_ERR_FORMAT, "%s: corrupt JPEG: no picture between its first and its last marker", name);
    return PB_OK;
}

static pb_status judge_scans(const jpeg_facts *facts, const char *name) {
    const uint64_t pixels = (uint64_t)facts->width * facts->height;
    if (facts->scans <= MAX_SCANS && pixels * (uint64_t)facts->scans <= MAX_SCANNED_PIXELS) return PB_OK;
    return pb_error(PB_ERR_UNSUPPORTED,
                    "%s: %d scans over %" PRIu32 " x %" PRIu32 " pixels take too long; save it as a baseline JPEG",
                    name, facts->scans, facts->width, facts->height);
}

// Several scans need all coefficients in memory, 16 bits each; their blocks are rounded up to the largest factor.
static uint64_t coefficient_bytes(const jpeg_facts *facts) {
    if (!facts->progressive && facts->scans == 1) return 0;
    uint32_t wide = 1, high = 1;
    for (int i = 0; i < facts->components; i++) {
        const uint32_t h = facts->sampling[i] >> 4, v = facts->sampling[i] & 15;
        if (h > wide) wide = h;
        if (v > high) high = v;
    }
    const uint64_t columns = (facts->width + 8 * wide - 1) / (8 * wide);
    const uint64_t rows = (facts->height + 8 * high - 1) / (8 * high);
    uint64_t blocks = 0;
    for (int i = 0; i < facts->components; i++)
        blocks += columns * rows * (uint64_t)(facts->sampling[i] >> 4) * (facts->sampling[i] & 15);
    return blocks * 64 * sizeof(int16_t);
}

// PIL's conversion of inverted CMYK, in place: c * k / 255 for each of the three, rounded as ((t >> 8) + t) >> 8 with
// t = product + 128 (libImaging, MULDIV255 and cmyk2rgb; PIL takes every CMYK JPEG as inverted, as Adobe writes it).
static void convert_cmyk(uint8_t *pixels, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const uint8_t *cmyk = pixels + 4 * i;
        const uint32_t k = cmyk[3];
        uint8_t rgb[3];
        for (int channel = 0; channel < 3; channel++) {
            const uint32_t product = (255u - cmyk[channel]) * k + 128;
            rgb[channel] = (uint8_t)(k - (((product >> 8) + product) >> 8));
        }
        memcpy(pixels + 3 * i, rgb, 3);
    }
}

// What libjpeg warns of and decodes well all the same; cameras and editors write such files. Every other warning
// means that pixels are made up.
static bool is_harmless(const char *warning) {
    static const char *const harmless[] = {"extraneous bytes before marker", "JFIF revision", "Adobe color transform",
                                           "Inconsistent progression"};
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
        if (strstr(warning, harmless[i])) return true;
    }
    return false;
}

// Only libjpeg's text says that a failure was not the file's fault.
static pb_status report(tjhandle decoder, const char *name, const char *what) {
    const char *text = tjGetErrorStr2(decoder);
    if (strstr(text, "emory")) return pb_error(PB_ERR_MEMORY, "%s: no memory to decode it: %s", name, text);
    return pb_error(PB_ERR_FORMAT, "%s: %s: %s", name, what, text);
}

// libjpeg must see the same picture as the walk did: the buffer is made from the walk's numbers.
static pb_status check_agreement(tjhandle decoder, const uint8_t *bytes, size_t n, const char *name,
                                 const jpeg_facts *facts) {
    int width = 0, height = 0, subsampling, colorspace = 0;
    // Unusual subsampling is an error here but not when decoding, so that only the sizes count.
    tjDecompressHeader3(decoder, bytes, n, &width, &height, &subsampling, &colorspace);
    if (width == (int)facts->width && height == (int)facts->height) return PB_OK;
    return report(decoder, name, "corrupt JPEG: its headers cannot be read");
}

pb_status pb_image_decode_jpeg(const uint8_t *bytes, size_t n, const char *name, const pb_image_limits *limits,
                               pb_image *image, int *orientation) {
    pb_status status = PB_OK;
    jpeg_facts facts = {0};
    tjhandle decoder = NULL;
    uint8_t *pixels = NULL;
    PB_TRY(read_markers(bytes, n, name, &facts));
    *orientation = facts.exif_orientation ? facts.exif_orientation : facts.xmp_orientation;
    const uint64_t area = (uint64_t)facts.width * facts.height;
    const size_t channels = facts.components == 4 ? 4 : 3;
    PB_TRY(pb_image_admit(facts.width, facts.height, area * channels + coefficient_bytes(&facts), n, *orientation, name,
                          limits));
    PB_TRY(judge_scans(&facts, name));

    if (!(decoder = tjInitDecompress())) PB_FAIL(PB_ERR_MEMORY, "%s: no memory for a JPEG decoder", name);
    PB_TRY(check_agreement(decoder, bytes, n, name, &facts));
    if (!(pixels = malloc(area * channels))) PB_FAIL(PB_ERR_MEMORY, "%s: no memory for %" PRIu64 " pixels", name, area);
    const int width = (int)facts.width, height = (int)facts.height;
    if (tjDecompress2(decoder, bytes, n, pixels, width, width * (int)channels, height,
                      channels == 4 ? TJPF_CMYK : TJPF_RGB, TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS) &&
        !(tjGetErrorCode(decoder) == TJERR_WARNING && is_harmless(tjGetErrorStr2(decoder))))
        PB_TRY(report(decoder, name, "corrupt or truncated JPEG"));
    if (channels == 4) {
        convert_cmyk(pixels, area);
        uint8_t *smaller = realloc(pixels, area * 3);
        if (smaller) pixels = smaller;
    }
    *image = (pb_image){.width = width, .height = height, .rgb = pixels};
    pixels = NULL;
fail:
    free(pixels);
    if (decoder) tjDestroy(decoder);
    return status;
}
