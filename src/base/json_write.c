#include "base/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

// Room for `bytes` more and the NUL.
static bool reserve(pb_text *text, size_t bytes) {
    if (text->failed) return false;
    if (text->data && text->capacity - text->bytes > bytes) return true;
    size_t capacity = text->capacity ? text->capacity : 256;
    while (capacity - text->bytes <= bytes) {
        if (__builtin_mul_overflow(capacity, 2, &capacity)) {
            text->failed = true;
            return false;
        }
    }
    char *data = realloc(text->data, capacity);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

static void append_bytes(pb_text *text, const char *bytes, size_t count) {
    if (!reserve(text, count)) return;
    memcpy(text->data + text->bytes, bytes, count);
    text->bytes += count;
    text->data[text->bytes] = '\0';
}

void pb_text_append(pb_text *text, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    const int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0)
        text->failed = true;
    else if (reserve(text, (size_t)length)) {
        vsnprintf(text->data + text->bytes, (size_t)length + 1, format, again);
        text->bytes += (size_t)length;
    }
    va_end(again);
}

void pb_text_append_json_string(pb_text *text, const char *string, size_t bytes) {
    const char *const end = string + bytes;
    append_bytes(text, "\"", 1);
    while (string < end) {
        const unsigned char c = (unsigned char)*string;
        const size_t sequence = pb_utf8_sequence(string, end);
        if (c == '"' || c == '\\')
            pb_text_append(text, "\\%c", c);
        else if (c == '\n')
            append_bytes(text, "\\n", 2);
        else if (c == '\r')
            append_bytes(text, "\\r", 2);
        else if (c == '\t')
            append_bytes(text, "\\t", 2);
        else if (c == '\b')
            append_bytes(text, "\\b", 2);
        else if (c == '\f')
            append_bytes(text, "\\f", 2);
        else if (c < 0x20 || c == 0x7f)
            pb_text_append(text, "\\u%04x", c);
        else if (sequence == 2 && c == 0xc2 && (unsigned char)string[1] < 0xa0)  // C1 controls: YAML wants them escaped
            pb_text_append(text, "\\u%04x", (unsigned char)string[1]);
        else if (sequence == 0)
            append_bytes(text, "\xef\xbf\xbd", 3);  // U+FFFD for a byte that is not UTF-8
        else
            append_bytes(text, string, sequence);
        string += sequence ? sequence : 1;
    }
    append_bytes(text, "\"", 1);
}

void pb_text_append_json_number(pb_text *text, double value) {
    if (!isfinite(value)) {
        append_bytes(text, "null", 4);
        return;
    }
    char digits[40];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value) break;
    }
    append_bytes(text, digits, strlen(digits));
}

void pb_text_append_json(pb_text *text, const pb_json *value) {
    switch (value->type) {
    case PB_JSON_NULL: append_bytes(text, "null", 4); return;
    case PB_JSON_BOOL: pb_text_append(text, value->boolean ? "true" : "false"); return;
    case PB_JSON_STRING: pb_text_append_json_string(text, value->string, value->string_bytes); return;
    case PB_JSON_NUMBER:
        if (value->is_integer && value->integer)
            pb_text_append(text, "%lld", (long long)value->integer);
        else
            pb_text_append_json_number(text, value->number);  // also 0 and -0
        return;
    case PB_JSON_ARRAY:
    case PB_JSON_OBJECT: break;
    }
    const bool object = value->type == PB_JSON_OBJECT;
    append_bytes(text, object ? "{" : "[", 1);
    for (const pb_json *child = value->first; child; child = child->next) {
        if (object) {
            pb_text_append_json_string(text, child->key, child->key_bytes);
            append_bytes(text, ":", 1);
        }
        pb_text_append_json(text, child);
        if (child->next) append_bytes(text, ",", 1);
    }
    append_bytes(text, object ? "}" : "]", 1);
}

void pb_text_deinit(pb_text *text) {
    free(text->data);
    *text = (pb_text){0};
}
