// What the tokenizer needs of Unicode, on code points (scalar values: no surrogates).
#ifndef PB_IO_UNICODE_H
#define PB_IO_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pb_unicode_class {
    PB_UNICODE_SIGN,
    PB_UNICODE_SPACE,
    PB_UNICODE_LETTER,
    PB_UNICODE_NUMBER
} pb_unicode_class;

// \s, \p{L}, \p{N}, or else.
pb_unicode_class pb_unicode_class_of(uint32_t point);

enum { PB_UNICODE_LOWER_MOST = 2 };  // code points that one becomes, at most

// Lower case without regard to its neighbours; returns how many (1 or 2) code points were written.
size_t pb_unicode_lower(uint32_t point, uint32_t lower[PB_UNICODE_LOWER_MOST]);

// Normalization form C (Unicode, section 3.11). `out` has room for PB_UNICODE_NFC_ROOM * count code points (one becomes
// four at most, and as many are used to sort); returns how many were written. Linear time, whatever the text.
enum { PB_UNICODE_NFC_ROOM = 8 };
size_t pb_unicode_nfc(const uint32_t *points, size_t count, uint32_t *out);

// Writes the 1 to 4 bytes of a code point; and reads well-formed UTF-8, advancing `at`.
size_t pb_unicode_encode(uint32_t point, unsigned char bytes[4]);
uint32_t pb_unicode_decode(const char **at);

#endif
