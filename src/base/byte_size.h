// Amounts of memory as people write them.
#ifndef PB_BASE_BYTE_SIZE_H
#define PB_BASE_BYTE_SIZE_H

#include <stdbool.h>
#include <stdint.h>

// "16GiB", "16G", "512 MiB" (powers of 1024), "16GB" (powers of 1000), "17179869184"; units in capitals or not. False
// for anything else, and beyond 2^62.
bool pb_byte_size_parse(const char *text, int64_t *bytes);

#endif
