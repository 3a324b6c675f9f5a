// XXH3-128 of an extent's bytes: the same for every machine, at the speed of this one. Include xxhash.h before.
#ifndef PB_OFFLOAD_HASH_EXTENT_H
#define PB_OFFLOAD_HASH_EXTENT_H

#include "offload/record.h"

// Of the files of those names, which are compiled for these processors.
XXH128_hash_t pb_hash_avx2(const void *data, size_t bytes);
XXH128_hash_t pb_hash_avx512(const void *data, size_t bytes);

#endif
