#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 2048 };
static _Thread_local char message[MESSAGE_BYTES];

pb_status pb_error(pb_status code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return code;
}

pb_status pb_error_context(pb_status code, const char *format, ...) {
    char before[MESSAGE_BYTES], joined[2 * MESSAGE_BYTES + 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(before, sizeof before, format, arguments);
    va_end(arguments);
    snprintf(joined, sizeof joined, "%s: %s", before, message);
    joined[MESSAGE_BYTES - 1] = '\0';
    memcpy(message, joined, MESSAGE_BYTES);
    return code;
}

const char *pb_error_message(void) {
    return message;
}

void pb_error_clear(void) {
    message[0] = '\0';
}
