#include "base/json_reader.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

enum { NUMBER_BYTES = 400 };

pb_json_reader pb_json_reader_make(const char *text, size_t bytes, const char *name) {
    return (pb_json_reader){.text = text, .end = text + bytes, .name = name, .at = text, .token = text};
}

pb_status pb_json_reader_error(const pb_json_reader *reader, const char *format, ...) {
    size_t line = 1, column = 1;
    for (const char *c = reader->text; c < reader->token; c++) {
        column = *c == '\n' ? 1 : column + 1;
        line += *c == '\n';
    }
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return pb_error(PB_ERR_FORMAT, "%s:%zu:%zu: %s", reader->name, line, column, message);
}

// An error at `at` rather than at the beginning of the token.
static pb_status fail_at(pb_json_reader *reader, const char *at, const char *message) {
    reader->token = at;
    return pb_json_reader_error(reader, "%s", message);
}

static bool is_digit(const char *at, const char *end) {
    return at < end && *at >= '0' && *at <= '9';
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// The four hexadecimal digits of \uXXXX as a number; -1 where they are not there.
static int32_t hex_four(const char *at, const char *end) {
    if (end - at < 4) return -1;
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        const int digit = hex_digit(at[i]);
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

static bool is_high_surrogate(int32_t unit) {
    return unit >= 0xd800 && unit < 0xdc00;
}

// The code point that an escape stands for, and the bytes of the escape with its backslash, given that it is a valid
// one.
static int32_t escape_value(const char *at, size_t *bytes) {
    *bytes = 2;
    switch (at[1]) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'u': break;
    default: return at[1];  // the quote, the backslash, the slash
    }
    const int32_t unit = hex_four(at + 2, at + 6);
    *bytes = 6;
    if (!is_high_surrogate(unit)) return unit;
    *bytes = 12;
    return 0x10000 + ((unit - 0xd800) << 10) + (hex_four(at + 8, at + 12) - 0xdc00);
}

static size_t utf8_encode(int32_t point, char *out) {
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    const size_t bytes = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = bytes - 1; i > 0; i--, point >>= 6) out[i] = (char)(0x80 | (point & 0x3f));
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[bytes] | point);
    return bytes;
}

// Checks the escape at `at`, which is a backslash. NULL or what is wrong with it.
static const char *escape_fault(const char *at, const char *end) {
    if (end - at < 2) return "the string does not end";
    if (at[1] != 'u') return at[1] && strchr("\"\\/bfnrt", at[1]) ? NULL : "unknown escape in a string";
    const int32_t unit = hex_four(at + 2, end);
    if (unit < 0) return "\\u needs four hexadecimal digits";
    if (unit >= 0xdc00 && unit < 0xe000) return "a low surrogate without a high one before it";
    if (!is_high_surrogate(unit)) return NULL;
    const int32_t low = end - at >= 12 && at[6] == '\\' && at[7] == 'u' ? hex_four(at + 8, end) : -1;
    return low >= 0xdc00 && low < 0xe000 ? NULL : "a high surrogate without a low one behind it";
}

// `at` is the opening quote.
static pb_status scan_string(pb_json_reader *reader, const char *at) {
    const char *const begin = ++at;
    size_t decoded = 0;
    for (;; decoded++) {
        if (at == reader->end) return fail_at(reader, begin - 1, "the string does not end");
        if (*at == '"') break;
        if ((unsigned char)*at < 0x20) return fail_at(reader, at, "a control character in a string: escape it");
        if (*at == '\\') {
            const char *fault = escape_fault(at, reader->end);
            if (fault) return fail_at(reader, at, fault);
            size_t bytes;
            char encoded[4];
            decoded += utf8_encode(escape_value(at, &bytes), encoded) - 1;
            at += bytes;
        } else {
            const size_t bytes = pb_utf8_sequence(at, reader->end);
            if (bytes == 0) return fail_at(reader, at, "a string is not valid UTF-8");
            decoded += bytes - 1;
            at += bytes;
        }
    }
    reader->token = begin;
    reader->token_bytes = (size_t)(at - begin);
    reader->string_bytes = decoded;
    reader->at = at + 1;
    return PB_OK;
}

void pb_json_reader_string(const pb_json_reader *reader, char *text) {
    const char *const end = reader->token + reader->token_bytes;
    for (const char *at = reader->token; at < end;) {
        const char *const escape = memchr(at, '\\', (size_t)(end - at));
        const size_t plain = (size_t)((escape ? escape : end) - at);
        memcpy(text, at, plain);
        text += plain;
        at += plain;
        if (escape) {
            size_t bytes;
            text += utf8_encode(escape_value(at, &bytes), text);
            at += bytes;
        }
    }
    *text = '\0';
}

static const char *skip_digits(const char *at, const char *end) {
    while (is_digit(at, end)) at++;
    return at;
}

static pb_status scan_number(pb_json_reader *reader) {
    const char *at = reader->at, *const end = reader->end;
    if (*at == '-') at++;
    if (!is_digit(at, end)) return fail_at(reader, reader->at, "expected a value");
    if (*at == '0' && is_digit(at + 1, end)) return fail_at(reader, reader->at, "a number with a leading zero");
    at = skip_digits(at, end);
    if (at < end && *at == '.') {
        if (!is_digit(++at, end)) return fail_at(reader, reader->at, "a number without digits behind the point");
        at = skip_digits(at, end);
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        if (!is_digit(at, end)) return fail_at(reader, reader->at, "a number without digits in its exponent");
        at = skip_digits(at, end);
    }
    reader->token_bytes = (size_t)(at - reader->at);
    reader->at = at;
    return PB_OK;
}

pb_status pb_json_reader_number(const pb_json_reader *reader, bool *is_integer, int64_t *integer, double *number) {
    if (reader->token_bytes > NUMBER_BYTES)
        return pb_json_reader_error(reader, "a number of over %d characters", NUMBER_BYTES);
    char digits[NUMBER_BYTES + 1];
    memcpy(digits, reader->token, reader->token_bytes);
    digits[reader->token_bytes] = '\0';
    *number = strtod(digits, NULL);
    if (!isfinite(*number)) return pb_json_reader_error(reader, "the number %.40s is out of range", digits);
    const bool negative = digits[0] == '-';
    *is_integer = true;
    *integer = 0;
    // Counted downwards, where the range is larger by one.
    for (const char *d = digits + negative; *d; d++) {
        if (*d < '0' || *d > '9' || __builtin_mul_overflow(*integer, 10, integer) ||
            __builtin_sub_overflow(*integer, *d - '0', integer)) {
            *is_integer = false;
            break;
        }
    }
    if (*is_integer && !negative && __builtin_sub_overflow(0, *integer, integer)) *is_integer = false;
    if (!*is_integer) *integer = 0;
    return PB_OK;
}

static pb_status scan_word(pb_json_reader *reader, const char *word) {
    const size_t bytes = strlen(word);
    if ((size_t)(reader->end - reader->at) < bytes || memcmp(reader->at, word, bytes) != 0)
        return fail_at(reader, reader->at, "expected a value");
    reader->token_bytes = bytes;
    reader->at += bytes;
    return PB_OK;
}

static pb_status open_level(pb_json_reader *reader, bool object) {
    if (reader->depth == PB_JSON_DEPTH) return fail_at(reader, reader->at, "nested more than 32 levels deep");
    const uint64_t bit = UINT64_C(1) << reader->depth++;
    reader->objects = object ? reader->objects | bit : reader->objects & ~bit;
    reader->want = PB_JSON_WANT_FIRST;
    reader->token_bytes = 1;
    reader->at++;
    return PB_OK;
}

static pb_status next_value(pb_json_reader *reader, pb_json_token *token) {
    if (reader->at == reader->end) return fail_at(reader, reader->at, "the text ends where a value is due");
    reader->want = PB_JSON_WANT_MORE;
    switch (*reader->at) {
    case '{': *token = PB_JSON_OBJECT_BEGIN; return open_level(reader, true);
    case '[': *token = PB_JSON_ARRAY_BEGIN; return open_level(reader, false);
    case '"': *token = PB_JSON_VALUE_STRING; return scan_string(reader, reader->at);
    case 't': *token = PB_JSON_VALUE_TRUE; return scan_word(reader, "true");
    case 'f': *token = PB_JSON_VALUE_FALSE; return scan_word(reader, "false");
    case 'n': *token = PB_JSON_VALUE_NULL; return scan_word(reader, "null");
    case '-':
        if (reader->end - reader->at > 1 && reader->at[1] == 'I') {
            *token = PB_JSON_VALUE_NULL;
            return scan_word(reader, "-Infinity");
        }
        __attribute__((fallthrough));
    default: *token = PB_JSON_VALUE_NUMBER; return scan_number(reader);
    }
}

static void skip_space(pb_json_reader *reader) {
    while (reader->at < reader->end &&
           (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\r' || *reader->at == '\t'))
        reader->at++;
    reader->token = reader->at;
}

static pb_status next_key(pb_json_reader *reader, pb_json_token *token) {
    if (reader->at == reader->end || *reader->at != '"') return fail_at(reader, reader->at, "expected a key in quotes");
    PB_RETURN_IF(scan_string(reader, reader->at));
    const char *const key = reader->token;
    skip_space(reader);
    if (reader->at == reader->end || *reader->at != ':')
        return fail_at(reader, reader->at, "expected `:` behind the key");
    reader->at++;
    reader->token = key;
    reader->want = PB_JSON_WANT_VALUE;
    *token = PB_JSON_KEY;
    return PB_OK;
}

pb_status pb_json_reader_next(pb_json_reader *reader, pb_json_token *token) {
    skip_space(reader);
    if (reader->want == PB_JSON_WANT_VALUE) return next_value(reader, token);
    const bool at_end = reader->at == reader->end;
    if (reader->depth == 0) {
        *token = PB_JSON_FINISHED;
        return at_end ? PB_OK : fail_at(reader, reader->at, "something behind the end of the value");
    }
    const bool object = reader->objects >> (reader->depth - 1) & 1;
    if (!at_end && *reader->at == (object ? '}' : ']')) {
        *token = object ? PB_JSON_OBJECT_END : PB_JSON_ARRAY_END;
        reader->depth--;
        reader->want = PB_JSON_WANT_MORE;
        reader->at++;
        return PB_OK;
    }
    if (reader->want == PB_JSON_WANT_MORE) {
        if (at_end || *reader->at != ',')
            return fail_at(reader, reader->at, object ? "expected `,` or `}`" : "expected `,` or `]`");
        reader->at++;
        skip_space(reader);
    }
    return object ? next_key(reader, token) : next_value(reader, token);
}
