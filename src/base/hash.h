// XXH3-128 of bytes and files: integrity against accidents (a bad disk, a torn write), not against people.
#ifndef PB_BASE_HASH_H
#define PB_BASE_HASH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { PB_HASH_TEXT = 33 };  // 32 hexadecimal digits and a NUL

// Of a regular file's content, as xxh128sum prints it, and the file's size. `drop_cache` asks the system to forget the
// pages first, so that what is hashed comes from the disk. Errors: PB_ERR_IO, PB_ERR_MEMORY.
pb_status pb_hash_file(const char *path, bool drop_cache, char hex[PB_HASH_TEXT], uint64_t *bytes);
// The same of `bytes` bytes of an open file, beginning at `offset`. `path` is for messages.
pb_status pb_hash_range(int fd, uint64_t offset, uint64_t bytes, const char *path, char hex[PB_HASH_TEXT]);
// The text of an XXH3-128, low half first.
void pb_hash_text(const uint64_t hash[2], char hex[PB_HASH_TEXT]);
// And back; false where it is no 32 hexadecimal digits.
bool pb_hash_parse(const char *hex, uint64_t hash[2]);

#endif
