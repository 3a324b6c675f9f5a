#include "base/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

enum { MESSAGE_BYTES = 3 * 4096 };  // the longest path that the system takes, and room for what is wrong with it
static _Thread_local char message[MESSAGE_BYTES];

// Bytes of the character at `at` that may be shown as they are; 0 for a control character or what is no UTF-8.
static size_t printable(const char *at, const char *end) {
    const unsigned char first = (unsigned char)at[0];
    const size_t bytes = pb_utf8_sequence(at, end);
    const bool control = first < 0x20 || first == 0x7f || (first == 0xc2 && bytes && (unsigned char)at[1] < 0xa0);
    return control ? 0 : bytes;
}

void pb_error_escape(const char *text, char *shown, size_t room) {
    const char *const end = text + strlen(text);
    size_t used = 0;
    while (text < end) {
        char code[8];
        size_t bytes = printable(text, end), taken = bytes;
        if (!bytes) {
            bytes = (size_t)snprintf(code, sizeof code, *text == '\n' ? "\\n" : "\\x%02x", (unsigned char)*text);
            taken = 1;
        }
        if (used + bytes >= room) break;
        memcpy(shown + used, printable(text, end) ? text : code, bytes);
        used += bytes;
        text += taken;
    }
    shown[used] = '\0';
}

pb_status pb_error(pb_status code, const char *format, ...) {
    char text[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pb_error_escape(text, message, sizeof message);
    return code;
}

pb_status pb_error_context(pb_status code, const char *format, ...) {
    char before[MESSAGE_BYTES], shown[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(before, sizeof before, format, arguments);
    va_end(arguments);
    pb_error_escape(before, shown, sizeof shown - 2);
    const size_t used = strlen(shown), left = strlen(message), room = sizeof message - used - 3;
    const size_t kept = left < room ? left : room;
    memmove(message + used + 2, message, kept);
    memcpy(message, shown, used);
    memcpy(message + used, ": ", 2);
    message[used + 2 + kept] = '\0';
    return code;
}

const char *pb_error_message(void) {
    return message;
}

void pb_error_clear(void) {
    message[0] = '\0';
}
