// Writing pictures: encoded in memory, then put in place as a whole.
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include <spng.h>
#include <zlib.h>

#include "base/fs.h"
#include "io/image.h"

enum { JPEG_QUALITY = 75, MAX_JPEG_SIDE = 65500, MAX_KEY = 79, MAX_VALUE = 1 << 20 };
enum { HEADER_BYTES = 8 + 25 };  // of a PNG: signature and IHDR, which texts follow

// --- PNG ---

static pb_status check_key(const char *key) {
    const size_t n = strlen(key);
    bool good = n >= 1 && n <= MAX_KEY && key[0] != ' ' && key[n - 1] != ' ';
    for (size_t i = 0; i < n; i++) good = good && key[i] >= ' ' && key[i] <= '~';
    if (good && !strstr(key, "  ")) return PB_OK;
    return pb_error(PB_ERR_USAGE,
                    "'%s' cannot be the key of a PNG's text: 1 to %d printable ASCII characters, no two "
                    "spaces in a row and none at the ends",
                    key, MAX_KEY);
}

// tEXt is Latin-1, in which line feeds are the only control characters; iTXt is UTF-8.
static bool is_plain_ascii(const char *value) {
    for (const char *p = value; *p; p++) {
        if ((*p < ' ' || *p > '~') && *p != '\n') return false;
    }
    return true;
}

static void put_big_endian_32(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (24 - 8 * i));
}

// One text as a chunk: length, type, data, checksum of type and data. The data is the key, a NUL, in iTXt four more
// (not compressed, method 0, no language, no translated key), and the value. Returns the chunk's bytes; writes nothing
// where `to` is NULL. (libspng writes texts as well, but none that are empty, as a negative prompt often is.)
static size_t put_text(const pb_image_text *text, uint8_t *to) {
    const bool ascii = is_plain_ascii(text->value);
    const size_t key_bytes = strlen(text->key) + (ascii ? 1 : 5), value_bytes = strlen(text->value);
    const size_t data_bytes = key_bytes + value_bytes;
    if (to) {
        put_big_endian_32(to, (uint32_t)data_bytes);
        memcpy(to + 4, ascii ? "tEXt" : "iTXt", 4);
        memset(to + 8, 0, key_bytes);
        memcpy(to + 8, text->key, strlen(text->key));
        memcpy(to + 8 + key_bytes, text->value, value_bytes);
        put_big_endian_32(to + 8 + data_bytes, (uint32_t)crc32_z(crc32_z(0, NULL, 0), to + 4, data_bytes + 4));
    }
    return data_bytes + 12;
}

// The PNG of `n` bytes with texts behind its header, in a new buffer.
static pb_status insert_texts(const uint8_t *png, size_t n, const pb_image_text *texts, size_t n_texts,
                              uint8_t **result, size_t *result_bytes) {
    size_t bytes = n;
    for (size_t i = 0; i < n_texts; i++) {
        PB_RETURN_IF(check_key(texts[i].key));
        if (strlen(texts[i].value) > MAX_VALUE)
            return pb_error(PB_ERR_USAGE, "the text '%s' of a PNG is longer than %d bytes", texts[i].key, MAX_VALUE);
        bytes += put_text(&texts[i], NULL);
    }
    uint8_t *to = malloc(bytes);
    if (!to) return pb_error(PB_ERR_MEMORY, "no memory for a PNG's texts");
    *result = to;
    *result_bytes = bytes;
    memcpy(to, png, HEADER_BYTES);
    to += HEADER_BYTES;
    for (size_t i = 0; i < n_texts; i++) to += put_text(&texts[i], to);
    memcpy(to, png + HEADER_BYTES, n - HEADER_BYTES);
    return PB_OK;
}

pb_status pb_image_write_png(const char *path, const pb_image *image, const pb_image_text *texts, size_t n_texts) {
    pb_status status = PB_OK;
    uint8_t *encoded = NULL, *bytes = NULL;
    size_t n = 0;
    int result;
    struct spng_ihdr header = {.width = (uint32_t)image->width,
                               .height = (uint32_t)image->height,
                               .bit_depth = 8,
                               .color_type = SPNG_COLOR_TYPE_TRUECOLOR};
    const size_t image_bytes = (size_t)image->width * (size_t)image->height * 3;
    spng_ctx *encoder = spng_ctx_new(SPNG_CTX_ENCODER);
    if (!encoder) PB_FAIL(PB_ERR_MEMORY, "%s: no memory for a PNG encoder", path);
    result = spng_set_option(encoder, SPNG_ENCODE_TO_BUFFER, 1);
    if (!result) result = spng_set_ihdr(encoder, &header);
    if (!result) result = spng_encode_image(encoder, image->rgb, image_bytes, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    if (!result) encoded = spng_get_png_buffer(encoder, &n, &result);
    if (!encoded) PB_FAIL(PB_ERR_MEMORY, "%s: cannot be encoded as PNG: %s", path, spng_strerror(result));
    PB_TRY(insert_texts(encoded, n, texts, n_texts, &bytes, &n));
    PB_TRY(pb_fs_write_file(path, bytes, n));
fail:
    free(bytes);
    free(encoded);
    if (encoder) spng_ctx_free(encoder);
    return status;
}

// --- JPEG ---

pb_status pb_image_write_jpeg(const char *path, const pb_image *image) {
    pb_status status = PB_OK;
    uint8_t *bytes = NULL;
    unsigned long n = 0;
    tjhandle encoder = NULL;
    if (image->width > MAX_JPEG_SIDE || image->height > MAX_JPEG_SIDE)
        PB_FAIL(PB_ERR_USAGE, "%s: %" PRId32 " x %" PRId32 " pixels are too many a side for JPEG; write a PNG", path,
                image->width, image->height);
    encoder = tjInitCompress();
    if (!encoder) PB_FAIL(PB_ERR_MEMORY, "%s: no memory for a JPEG encoder", path);
    if (tjCompress2(encoder, image->rgb, image->width, image->width * 3, image->height, TJPF_RGB, &bytes, &n,
                    TJSAMP_420, JPEG_QUALITY, TJFLAG_ACCURATEDCT))
        PB_FAIL(PB_ERR_MEMORY, "%s: cannot be encoded as JPEG: %s", path, tjGetErrorStr2(encoder));
    PB_TRY(pb_fs_write_file(path, bytes, n));
fail:
    tjFree(bytes);
    if (encoder) tjDestroy(encoder);
    return status;
}
