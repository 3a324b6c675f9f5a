// Well-formed UTF-8 (Unicode, table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF.
#ifndef PB_BASE_UTF8_H
#define PB_BASE_UTF8_H

#include <stddef.h>

// Bytes of the well-formed sequence at `at` (1 to 4), or 0 where there is none before `end`.
static inline size_t pb_utf8_sequence(const char *at, const char *end) {
    const unsigned char *u = (const unsigned char *)at;
    const size_t left = (size_t)(end - at);
    if (left == 0) return 0;
    if (u[0] < 0x80) return 1;
    const size_t bytes = u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : u[0] < 0xf5 ? 4 : 0;
    if (bytes == 0 || left < bytes) return 0;
    // The second byte's range excludes overlong forms, surrogates and what lies beyond the last code point.
    const unsigned char low = u[0] == 0xe0 ? 0xa0 : u[0] == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = u[0] == 0xed ? 0x9f : u[0] == 0xf4 ? 0x8f : 0xbf;
    if (u[1] < low || u[1] > high) return 0;
    for (size_t i = 2; i < bytes; i++)
        if ((u[i] & 0xc0) != 0x80) return 0;
    return bytes;
}

#endif
