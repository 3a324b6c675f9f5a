// XXH3-128 with this machine's vectors: a distribution's library is built for the oldest processor, and hashes at half
// the speed.
#include <xxhash.h>

#include "offload/hash_extent.h"

void pb_hash_bytes(const void *data, size_t bytes, uint64_t hash[2]) {
    XXH128_hash_t value;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
        value = pb_hash_avx512(data, bytes);
    else if (__builtin_cpu_supports("avx2"))
        value = pb_hash_avx2(data, bytes);
    else
#endif
        value = XXH3_128bits(data, bytes);
    hash[0] = value.low64;
    hash[1] = value.high64;
}
