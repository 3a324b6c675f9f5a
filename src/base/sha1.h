// SHA-1 (FIPS 180-4): names of class images are made with it, as in diffusers. Nothing relies on it for security.
#ifndef PB_BASE_SHA1_H
#define PB_BASE_SHA1_H

#include <stddef.h>
#include <stdint.h>

enum { PB_SHA1_BYTES = 20 };

void pb_sha1(const void *bytes, size_t n, uint8_t digest[PB_SHA1_BYTES]);
// 40 hexadecimal digits and a NUL.
void pb_sha1_hex(const void *bytes, size_t n, char hex[2 * PB_SHA1_BYTES + 1]);

#endif
