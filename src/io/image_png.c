// PNG: a walk over the chunks that judges the file before anything is allocated and finds EXIF and XMP, then libspng
// row by row. libspng sees the critical chunks only: profiles, texts and the like are nothing that pixels depend on.
#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <spng.h>
#include <zlib.h>

#include "io/image_internal.h"

enum { SIGNATURE_BYTES = 8, CHUNK_OVERHEAD = 12, IHDR_BYTES = 13 };  // length, type and checksum are 12 bytes

typedef struct png_facts {
    uint32_t width, height;
    int exif_orientation, xmp_orientation;  // 0: none
} png_facts;

static uint32_t big_endian_32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool is_chunk(const uint8_t *chunk, const char *type) {
    return !memcmp(chunk + 4, type, 4);
}

static bool is_critical(const uint8_t *chunk) {
    return !(chunk[4] & 0x20);  // an upper-case first letter
}

// iTXt: keyword, NUL, compressed or not, method, language, NUL, translated keyword, NUL, text.
static int itxt_orientation(const uint8_t *data, size_t n) {
    static const char keyword[] = "XML:com.adobe.xmp";
    if (n <= sizeof keyword || memcmp(data, keyword, sizeof keyword) || data[sizeof keyword]) return 0;
    return pb_xmp_orientation(data + sizeof keyword, n - sizeof keyword);
}

static bool is_intact(const uint8_t *chunk, size_t length) {
    return crc32_z(crc32_z(0, NULL, 0), chunk + 4, length + 4) == big_endian_32(chunk + 8 + length);
}

static void read_ancillary(const uint8_t *chunk, size_t length, png_facts *facts) {
    if ((!is_chunk(chunk, "eXIf") && !is_chunk(chunk, "iTXt")) || !is_intact(chunk, length)) return;
    if (is_chunk(chunk, "eXIf"))
        facts->exif_orientation = pb_exif_orientation(chunk + 8, length);
    else if (!facts->xmp_orientation)
        facts->xmp_orientation = itxt_orientation(chunk + 8, length);
}

// Up to IEND. Checks what the reader of critical chunks relies on: every chunk lies within the file. libspng stops when
// it has the last row, and with it the checksum of the last chunk of data, so that all checksums are verified here.
static pb_status read_chunks(const uint8_t *bytes, size_t n, const char *name, png_facts *facts) {
    for (size_t at = SIGNATURE_BYTES;;) {
        const uint8_t *chunk = bytes + at;
        const size_t left = n - at;
        if (left < CHUNK_OVERHEAD)
            return pb_error(PB_ERR_FORMAT, "%s: truncated PNG: the file ends at byte %zu", name, n);
        const size_t length = big_endian_32(chunk);
        for (int i = 4; i < 8; i++) {
            if (!isalpha(chunk[i])) return pb_error(PB_ERR_FORMAT, "%s: corrupt PNG: no chunk at byte %zu", name, at);
        }
        if (left - CHUNK_OVERHEAD < length)
            return pb_error(PB_ERR_FORMAT, "%s: truncated PNG: the file ends at byte %zu, within the chunk %.4s", name,
                            n, (const char *)chunk + 4);
        if (at == SIGNATURE_BYTES) {
            if (!is_chunk(chunk, "IHDR") || length != IHDR_BYTES)
                return pb_error(PB_ERR_FORMAT, "%s: corrupt PNG: it does not begin with a header", name);
            facts->width = big_endian_32(chunk + 8);
            facts->height = big_endian_32(chunk + 12);
        }
        if (!is_critical(chunk)) {
            read_ancillary(chunk, length, facts);
        } else if (!is_intact(chunk, length)) {
            return pb_error(PB_ERR_FORMAT, "%s: corrupt PNG: the checksum of the chunk %.4s at byte %zu is wrong", name,
                            (const char *)chunk + 4, at);
        }
        if (is_chunk(chunk, "IEND")) return PB_OK;
        at += CHUNK_OVERHEAD + length;
    }
}

// The critical chunks as one stream; `end` is where the current run of them ends.
typedef struct critical_chunks {
    const uint8_t *bytes;
    size_t at, end;
    bool finished;
} critical_chunks;

static void next_critical(critical_chunks *stream) {
    for (;;) {
        const uint8_t *chunk = stream->bytes + stream->at;
        const size_t bytes = CHUNK_OVERHEAD + (size_t)big_endian_32(chunk);
        stream->finished = is_chunk(chunk, "IEND");
        if (is_critical(chunk)) {
            stream->end = stream->at + bytes;
            return;
        }
        stream->at += bytes;
    }
}

static int read_critical(spng_ctx *decoder, void *user, void *to, size_t n) {
    critical_chunks *stream = user;
    uint8_t *out = to;
    (void)decoder;
    while (n) {
        if (stream->at == stream->end) {
            if (stream->finished) return SPNG_IO_EOF;
            next_critical(stream);
        }
        const size_t left = stream->end - stream->at;
        const size_t count = n < left ? n : left;
        memcpy(out, stream->bytes + stream->at, count);
        stream->at += count;
        out += count;
        n -= count;
    }
    return 0;
}

// --- Pixels ---

typedef struct rgb8 {
    uint8_t channel[3];
} rgb8;

// The colour of every value that a sample of a palette or grey picture of up to 8 bits can have. A palette's missing
// entries are black.
static void fill_colours(const struct spng_ihdr *header, const struct spng_plte *palette, rgb8 colours[256]) {
    const int values = header->bit_depth <= 8 ? 1 << header->bit_depth : 0;
    for (int i = 0; i < values; i++) {
        const uint8_t grey = (uint8_t)(i * 255 / (values - 1));
        colours[i] = (rgb8){{grey, grey, grey}};
        if (header->color_type != SPNG_COLOR_TYPE_INDEXED) continue;
        const struct spng_plte_entry *entry = &palette->entries[i];
        colours[i] = (uint32_t)i < palette->n_entries ? (rgb8){{entry->red, entry->green, entry->blue}} : (rgb8){{0}};
    }
}

static int channel_count(int color_type) {
    switch (color_type) {
    case SPNG_COLOR_TYPE_TRUECOLOR: return 3;
    case SPNG_COLOR_TYPE_GRAYSCALE_ALPHA: return 2;
    case SPNG_COLOR_TYPE_TRUECOLOR_ALPHA: return 4;
    default: return 1;
    }
}

// `count` pixels of a scanline as stored, to every `step`-th pixel of `rgb`.
static void convert_scanline(const struct spng_ihdr *header, const rgb8 colours[256], const uint8_t *line, size_t count,
                             uint8_t *rgb, size_t step) {
    const size_t depth = header->bit_depth;
    const size_t channels = (size_t)channel_count(header->color_type), sample_bytes = depth / 8;
    const size_t per_byte = depth < 8 ? 8 / depth : 1;
    for (size_t i = 0; i < count; i++, rgb += 3 * step) {
        if (channels == 1 && depth <= 8) {
            const size_t shift = 8 - depth * (i % per_byte + 1);
            memcpy(rgb, colours[line[i / per_byte] >> shift & ((1u << depth) - 1)].channel, 3);
            continue;
        }
        const uint8_t *pixel = line + i * channels * sample_bytes;
        if (channels == 1) {
            memset(rgb, pixel[0] ? 255 : pixel[1], 3);  // PIL clips 16-bit grey
        } else if (channels == 2) {
            memset(rgb, pixel[0], 3);
        } else {
            for (size_t c = 0; c < 3; c++) rgb[c] = pixel[c * sample_bytes];  // PIL keeps the high byte
        }
    }
}

// PNG specification, section 8.2: where a pass begins and how far apart its pixels are. A picture that is not
// interlaced is one pass of all pixels.
static const struct adam7_pass { uint8_t x, dx; } adam7[7] = {{0, 8}, {4, 8}, {0, 4}, {2, 4}, {0, 2}, {1, 2}, {0, 1}};

static int decode_rows(spng_ctx *decoder, const struct spng_ihdr *header, uint8_t *line, size_t line_bytes,
                       pb_image *image) {
    rgb8 colours[256] = {0};
    struct spng_plte palette = {0};
    const size_t width = header->width;
    int result = spng_decode_image(decoder, NULL, 0, SPNG_FMT_RAW, SPNG_DECODE_PROGRESSIVE);
    if (!result && header->color_type == SPNG_COLOR_TYPE_INDEXED) result = spng_get_plte(decoder, &palette);
    fill_colours(header, &palette, colours);
    while (!result) {
        struct spng_row_info row;
        if ((result = spng_get_row_info(decoder, &row))) break;
        result = spng_decode_scanline(decoder, line, line_bytes);
        if (result && result != SPNG_EOI) break;
        const struct adam7_pass pass = header->interlace_method ? adam7[row.pass] : adam7[6];
        const size_t count = (width - pass.x + pass.dx - 1) / pass.dx;
        convert_scanline(header, colours, line, count, image->rgb + (row.row_num * width + pass.x) * 3, pass.dx);
    }
    return result == SPNG_EOI ? 0 : result;
}

static pb_status report(int result, const char *name) {
    if (result == SPNG_EMEM || result == SPNG_EZLIB_INIT)
        return pb_error(PB_ERR_MEMORY, "%s: no memory to decode it: %s", name, spng_strerror(result));
    return pb_error(PB_ERR_FORMAT, "%s: corrupt or truncated PNG: %s", name, spng_strerror(result));
}

pb_status pb_image_decode_png(const uint8_t *bytes, size_t n, const char *name, const pb_image_limits *limits,
                              pb_image *image, int *orientation) {
    pb_status status = PB_OK;
    png_facts facts = {0};
    critical_chunks stream = {.bytes = bytes, .end = SIGNATURE_BYTES};
    struct spng_ihdr header;
    spng_ctx *decoder = NULL;
    pb_image decoded = {0};
    uint8_t *line = NULL;
    size_t image_bytes;
    PB_TRY(read_chunks(bytes, n, name, &facts));
    *orientation = facts.exif_orientation ? facts.exif_orientation : facts.xmp_orientation;
    PB_TRY(pb_image_admit(facts.width, facts.height, (uint64_t)facts.width * facts.height * 3, n, *orientation, name,
                          limits));

    if (!(decoder = spng_ctx_new(0))) PB_FAIL(PB_ERR_MEMORY, "%s: no memory for a PNG decoder", name);
    int result = spng_set_image_limits(decoder, (uint32_t)limits->side, (uint32_t)limits->side);
    if (!result) result = spng_set_crc_action(decoder, SPNG_CRC_USE, SPNG_CRC_USE);
    if (!result) result = spng_set_png_stream(decoder, read_critical, &stream);
    if (!result) result = spng_get_ihdr(decoder, &header);
    if (!result) result = spng_decoded_image_size(decoder, SPNG_FMT_RAW, &image_bytes);
    if (result) PB_TRY(report(result, name));
    const size_t line_bytes = image_bytes / header.height;
    if (!(line = malloc(line_bytes))) PB_FAIL(PB_ERR_MEMORY, "%s: no memory for a row", name);
    PB_TRY(pb_image_create((int32_t)header.width, (int32_t)header.height, &decoded));
    result = decode_rows(decoder, &header, line, line_bytes, &decoded);
    if (result) PB_TRY(report(result, name));
    *image = decoded;
    decoded = (pb_image){0};
fail:
    pb_image_deinit(&decoded);
    free(line);
    if (decoder) spng_ctx_free(decoder);
    return status;
}
