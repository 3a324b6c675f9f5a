// The format's dtypes in the order of the official writer, which is by width; ours are a part of them.
#ifndef PB_IO_SAFETENSORS_DTYPE_H
#define PB_IO_SAFETENSORS_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/dtype.h"

typedef struct pb_safetensors_dtype {
    const char *name;
    int bits;
    pb_dtype dtype;  // PB_DTYPE_COUNT where this program has none
} pb_safetensors_dtype;

// NULL for a name that the format does not have. A row's address orders it: a later one is written earlier.
const pb_safetensors_dtype *pb_safetensors_dtype_find(const char *name, size_t name_bytes);

// Bytes of a tensor of `rank` sizes; false where a size is negative, the product does not fit int64, or (types below a
// byte) the end is not on a byte. A zero among the sizes does not excuse an overflow among the others.
bool pb_safetensors_tensor_bytes(const pb_safetensors_dtype *type, int rank, const int64_t *shape, uint64_t *elements,
                                 uint64_t *bytes);

bool pb_safetensors_is_float(pb_dtype dtype);

#endif
