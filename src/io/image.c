#include "io/image.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/sha1.h"
#include "io/image_internal.h"

enum { SNIFF_BYTES = 32, MAX_SIDE = 1 << 20, MAX_PIXELS = 1 << 28 };

const pb_image_limits pb_image_default_limits = {
    .side = 16384, .pixels = 64000000, .file_bytes = 64 << 20, .memory_bytes = 256 << 20};

pb_status pb_image_create(int32_t width, int32_t height, pb_image *image) {
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || (int64_t)width * height > MAX_PIXELS)
        return pb_error(PB_ERR_USAGE, "an image of %" PRId32 " x %" PRId32 " pixels cannot be made", width, height);
    uint8_t *rgb = malloc((size_t)width * (size_t)height * 3);
    if (!rgb) return pb_error(PB_ERR_MEMORY, "no memory for an image of %" PRId32 " x %" PRId32, width, height);
    *image = (pb_image){.width = width, .height = height, .rgb = rgb};
    return PB_OK;
}

void pb_image_deinit(pb_image *image) {
    free(image->rgb);
    *image = (pb_image){0};
}

void pb_image_sha1(const pb_image *image, char hex[41]) {
    pb_sha1_hex(image->rgb, (size_t)image->width * (size_t)image->height * 3, hex);
}

// --- Kinds ---

// The format's name, and a program from the distribution's `package` that converts it to PNG.
static const struct kind_entry {
    const char *name, *command, *package;
} kinds[] = {
    [PB_IMAGE_NONE] = {"unknown", NULL, NULL},
    [PB_IMAGE_JPEG] = {"JPEG", NULL, NULL},
    [PB_IMAGE_PNG] = {"PNG", NULL, NULL},
    [PB_IMAGE_WEBP] = {"WebP", "dwebp '%s' -o picture.png", "webp"},
    [PB_IMAGE_HEIC] = {"HEIC", "heif-convert '%s' picture.png", "libheif-examples"},
    [PB_IMAGE_AVIF] = {"AVIF", "heif-convert '%s' picture.png", "libheif-examples"},
    [PB_IMAGE_GIF] = {"GIF", "convert '%s[0]' picture.png", "imagemagick"},
    [PB_IMAGE_BMP] = {"BMP", "convert '%s' picture.png", "imagemagick"},
    [PB_IMAGE_TIFF] = {"TIFF", "convert '%s[0]' picture.png", "imagemagick"},
    [PB_IMAGE_JXL] = {"JPEG XL", "djxl '%s' picture.png", "libjxl-tools"},
    [PB_IMAGE_JP2] = {"JPEG 2000", "opj_decompress -i '%s' -o picture.png", "libopenjp2-tools"},
};

const char *pb_image_kind_name(pb_image_kind kind) {
    return kinds[kind].name;
}

static bool starts_with(const uint8_t *bytes, size_t n, size_t at, const char *magic, size_t magic_bytes) {
    return n >= at + magic_bytes && !memcmp(bytes + at, magic, magic_bytes);
}

#define STARTS(at, magic) starts_with(bytes, n, (at), (magic), sizeof(magic) - 1)

// "BM" alone begins many a text; the size of the header that follows is one of a few.
static bool is_bmp(const uint8_t *bytes, size_t n) {
    static const uint8_t header_sizes[] = {12, 16, 40, 52, 56, 64, 108, 124};
    return n >= 18 && STARTS(0, "BM") && !bytes[15] && memchr(header_sizes, bytes[14], sizeof header_sizes);
}

// ISO media files name their brand after "ftyp"; the ones that hold pictures.
static pb_image_kind iso_media_kind(const uint8_t *bytes, size_t n) {
    static const char heic[][5] = {"heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1"};
    if (!STARTS(4, "ftyp")) return PB_IMAGE_NONE;
    if (STARTS(8, "avif") || STARTS(8, "avis")) return PB_IMAGE_AVIF;
    for (size_t i = 0; i < sizeof heic / sizeof *heic; i++) {
        if (starts_with(bytes, n, 8, heic[i], 4)) return PB_IMAGE_HEIC;
    }
    return PB_IMAGE_NONE;
}

pb_image_kind pb_image_sniff(const uint8_t *bytes, size_t n) {
    if (STARTS(0, "\xff\xd8\xff")) return PB_IMAGE_JPEG;
    if (STARTS(0, "\x89PNG\r\n\x1a\n")) return PB_IMAGE_PNG;
    if (STARTS(0, "RIFF") && STARTS(8, "WEBP")) return PB_IMAGE_WEBP;
    if (STARTS(0, "GIF87a") || STARTS(0, "GIF89a")) return PB_IMAGE_GIF;
    if (STARTS(0, "II*\0") || STARTS(0, "MM\0*") || STARTS(0, "II+\0") || STARTS(0, "MM\0+")) return PB_IMAGE_TIFF;
    if (STARTS(0, "\xff\x0a") || STARTS(0, "\0\0\0\x0cJXL \r\n\x87\n")) return PB_IMAGE_JXL;
    if (STARTS(0, "\0\0\0\x0cjP  \r\n\x87\n")) return PB_IMAGE_JP2;
    if (is_bmp(bytes, n)) return PB_IMAGE_BMP;
    return iso_media_kind(bytes, n);
}

// --- Files ---

pb_status pb_image_sniff_file(const char *path, pb_image_kind *kind) {
    uint8_t start[SNIFF_BYTES];
    int file;
    uint64_t size;
    *kind = PB_IMAGE_NONE;
    const pb_fs_kind what = pb_fs_kind_of(path);
    if (what == PB_FS_DIRECTORY || what == PB_FS_OTHER) return PB_OK;
    PB_RETURN_IF(pb_fs_open_read(path, &file, &size));
    const size_t n = size < sizeof start ? (size_t)size : sizeof start;
    const pb_status status = pb_fs_pread(file, start, n, 0, path);
    close(file);
    if (status == PB_OK) *kind = pb_image_sniff(start, n);
    return status;
}

static pb_status judge_file_size(uint64_t bytes, const char *name, const pb_image_limits *limits) {
    if (!bytes) return pb_error(PB_ERR_FORMAT, "%s: the file is empty", name);
    if (bytes <= (uint64_t)limits->file_bytes) return PB_OK;
    return pb_error(PB_ERR_UNSUPPORTED,
                    "%s: %" PRIu64 " bytes; a picture may have at most %" PRId64 ": save it smaller", name, bytes,
                    limits->file_bytes);
}

pb_status pb_image_load(const char *path, const pb_image_limits *limits, pb_image *image) {
    pb_status status = PB_OK;
    uint8_t *bytes = NULL;
    int file;
    uint64_t size;
    if (!limits) limits = &pb_image_default_limits;
    PB_RETURN_IF(pb_fs_open_read(path, &file, &size));
    PB_TRY(judge_file_size(size, path, limits));
    if (!(bytes = malloc(size))) PB_FAIL(PB_ERR_MEMORY, "%s: no memory for its %" PRIu64 " bytes", path, size);
    PB_TRY(pb_fs_pread(file, bytes, size, 0, path));
    PB_TRY(pb_image_decode(bytes, size, path, limits, image));
fail:
    free(bytes);
    close(file);
    return status;
}

// --- Decoding ---

pb_status pb_image_admit(uint32_t width, uint32_t height, uint64_t decoder_bytes, size_t file_bytes, int orientation,
                         const char *name, const pb_image_limits *limits) {
    if (!width || !height) return pb_error(PB_ERR_FORMAT, "%s: a picture without pixels", name);
    const uint64_t pixels = (uint64_t)width * height;
    const uint64_t side = width > height ? width : height;
    if (side > (uint64_t)limits->side || pixels > (uint64_t)limits->pixels)
        return pb_error(PB_ERR_UNSUPPORTED,
                        "%s: %" PRIu32 " x %" PRIu32 " pixels; at most %" PRId32 " a side and %" PRId64
                        " in all are read: save it smaller",
                        name, width, height, limits->side, limits->pixels);
    const bool turned = orientation >= 5 && orientation <= 8;
    const uint64_t turning_bytes = turned ? pixels * 6 : 0;
    const uint64_t peak = file_bytes + (decoder_bytes > turning_bytes ? decoder_bytes : turning_bytes);
    if (peak > (uint64_t)limits->memory_bytes)
        return pb_error(PB_ERR_UNSUPPORTED,
                        "%s: reading %" PRIu32 " x %" PRIu32 " pixels%s takes %" PRIu64
                        " MiB of memory; at most %" PRId64 " are spent on a picture: save it smaller",
                        name, width, height, turned ? " that have to be turned" : "", peak >> 20,
                        limits->memory_bytes >> 20);
    return PB_OK;
}

static pb_status refuse(pb_image_kind kind, const char *name) {
    const struct kind_entry *entry = &kinds[kind];
    char command[512];
    if (!entry->command) return pb_error(PB_ERR_FORMAT, "%s: not a picture: it begins like neither JPEG nor PNG", name);
        // `command` comes from the table above, with one %s in it. A name with a quote could be another command.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(command, sizeof command, entry->command, strchr(name, '\'') || strlen(name) > 300 ? "FILE" : name);
#pragma GCC diagnostic pop
    return pb_error(PB_ERR_UNSUPPORTED,
                    "%s: this is %s, and only JPEG and PNG are read. Convert it, for example with "
                    "`%s` (package %s)",
                    name, entry->name, command, entry->package);
}

pb_status pb_image_decode(const uint8_t *bytes, size_t n, const char *name, const pb_image_limits *limits,
                          pb_image *image) {
    pb_status status = PB_OK;
    pb_image decoded = {0};
    int orientation = 1;
    if (!limits) limits = &pb_image_default_limits;
    PB_TRY(judge_file_size(n, name, limits));
    const pb_image_kind kind = pb_image_sniff(bytes, n);
    if (kind == PB_IMAGE_JPEG) {
        PB_TRY(pb_image_decode_jpeg(bytes, n, name, limits, &decoded, &orientation));
    } else if (kind == PB_IMAGE_PNG) {
        PB_TRY(pb_image_decode_png(bytes, n, name, limits, &decoded, &orientation));
    } else {
        PB_TRY(refuse(kind, name));
    }
    PB_TRY(pb_image_orient(&decoded, orientation));
    *image = decoded;
    decoded = (pb_image){0};
fail:
    pb_image_deinit(&decoded);
    return status;
}
