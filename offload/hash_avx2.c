#ifdef __x86_64__
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "offload/hash_extent.h"

XXH128_hash_t pb_hash_avx2(const void *data, size_t bytes) {
    return XXH3_128bits(data, bytes);
}
#endif
