// test: links=base
// SHA-1 against the examples of FIPS 180-2, appendix A, and every length around a block's end.
#include <stdlib.h>

#include "base/sha1.h"
#include "check.h"

static void check_digest(const char *text, size_t n, const char *expected) {
    char hex[2 * PB_SHA1_BYTES + 1];
    pb_sha1_hex(text, n, hex);
    CHECK_THAT(!strcmp(hex, expected), "%zu bytes: %s instead of %s", n, hex, expected);
}

int main(void) {
    const char *two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    check_digest("", 0, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    check_digest("abc", 3, "a9993e364706816aba3e25717850c26c9cd0d89d");
    check_digest(two_blocks, strlen(two_blocks), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");

    const size_t million = 1000000;
    char *text = malloc(million);
    if (!text) return 1;
    memset(text, 'a', million);
    check_digest(text, million, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");

    // The digests of a, aa, ..., 130 times a, one behind the other; expected from hashlib.
    uint8_t digests[130 * PB_SHA1_BYTES];
    for (size_t n = 1; n <= 130; n++) pb_sha1(text, n, digests + (n - 1) * PB_SHA1_BYTES);
    check_digest((const char *)digests, sizeof digests, "66495bb9096733bf0e4d7663c1183e0caa945303");
    free(text);
    return CHECK_DONE();
}
