#include "base/sha1.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK = 64 };

static uint32_t rotate_left(uint32_t value, int bits) {
    return value << bits | value >> (32 - bits);
}

// FIPS 180-4, section 6.1.2.
static void hash_block(uint32_t state[5], const uint8_t block[BLOCK]) {
    uint32_t w[80];
    for (int t = 0; t < 16; t++) {
        const uint8_t *p = block + 4 * t;
        w[t] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    }
    for (int t = 16; t < 80; t++) w[t] = rotate_left(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);

    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int t = 0; t < 80; t++) {
        uint32_t f, k;
        if (t < 20) {
            f = (b & c) | (~b & d);
            k = 0x5a827999;
        } else if (t < 40) {
            f = b ^ c ^ d;
            k = 0x6ed9eba1;
        } else if (t < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8f1bbcdc;
        } else {
            f = b ^ c ^ d;
            k = 0xca62c1d6;
        }
        const uint32_t next = rotate_left(a, 5) + f + e + k + w[t];
        e = d;
        d = c;
        c = rotate_left(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

void pb_sha1(const void *bytes, size_t n, uint8_t digest[PB_SHA1_BYTES]) {
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    const uint8_t *p = bytes;
    size_t left = n;
    for (; left >= BLOCK; left -= BLOCK, p += BLOCK) hash_block(state, p);

    // The rest, a one bit, zeros, and the length in bits, which may need a second block.
    uint8_t tail[2 * BLOCK] = {0};
    if (left) memcpy(tail, p, left);
    tail[left] = 0x80;
    const size_t tail_bytes = left + 9 > BLOCK ? 2 * BLOCK : BLOCK;
    const uint64_t bits = (uint64_t)n * 8;
    for (int i = 0; i < 8; i++) tail[tail_bytes - 1 - i] = (uint8_t)(bits >> (8 * i));
    for (size_t at = 0; at < tail_bytes; at += BLOCK) hash_block(state, tail + at);

    for (int i = 0; i < PB_SHA1_BYTES; i++) digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

void pb_sha1_hex(const void *bytes, size_t n, char hex[2 * PB_SHA1_BYTES + 1]) {
    uint8_t digest[PB_SHA1_BYTES];
    pb_sha1(bytes, n, digest);
    for (int i = 0; i < PB_SHA1_BYTES; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}
