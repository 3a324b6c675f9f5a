#include "base/hash.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fs.h"

enum { HASH_BUFFER = 1 << 20 };

void pb_hash_text(const uint64_t hash[2], char hex[PB_HASH_TEXT]) {
    snprintf(hex, PB_HASH_TEXT, "%016llx%016llx", (unsigned long long)hash[1], (unsigned long long)hash[0]);
}

bool pb_hash_parse(const char *hex, uint64_t hash[2]) {
    if (strspn(hex, "0123456789abcdef") != PB_HASH_TEXT - 1 || hex[PB_HASH_TEXT - 1]) return false;
    char half[17] = "";
    memcpy(half, hex, 16);
    hash[1] = strtoull(half, NULL, 16);
    hash[0] = strtoull(hex + 16, NULL, 16);
    return true;
}

pb_status pb_hash_range(int fd, uint64_t offset, uint64_t bytes, const char *path, char hex[PB_HASH_TEXT]) {
    pb_status status = PB_OK;
    XXH3_state_t *state = XXH3_createState();
    unsigned char *buffer = malloc(HASH_BUFFER);
    if (!state || !buffer) PB_FAIL(PB_ERR_MEMORY, "no memory to read %s", path);
    XXH3_128bits_reset(state);
    for (uint64_t at = 0; at < bytes; at += HASH_BUFFER) {
        const size_t part = bytes - at < HASH_BUFFER ? (size_t)(bytes - at) : HASH_BUFFER;
        PB_TRY(pb_fs_pread(fd, buffer, part, offset + at, path));
        XXH3_128bits_update(state, buffer, part);
    }
    const XXH128_hash_t hash = XXH3_128bits_digest(state);
    pb_hash_text((const uint64_t[2]){hash.low64, hash.high64}, hex);
fail:
    free(buffer);
    XXH3_freeState(state);
    return status;
}

pb_status pb_hash_file(const char *path, bool drop_cache, char hex[PB_HASH_TEXT], uint64_t *bytes) {
    int fd = -1;
    PB_RETURN_IF(pb_fs_open_read(path, &fd, bytes));
    // Only advice: what the system keeps is then hashed from memory.
    if (drop_cache) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    const pb_status status = pb_hash_range(fd, 0, *bytes, path, hex);
    close(fd);
    return status;
}
