#include "io/safetensors_dtype.h"

#include <string.h>

// clang-format off
static const pb_safetensors_dtype table[] = {
    {"BOOL", 8, PB_DTYPE_COUNT},    {"F4", 4, PB_DTYPE_COUNT},      {"F6_E2M3", 6, PB_DTYPE_COUNT},
    {"F6_E3M2", 6, PB_DTYPE_COUNT}, {"U8", 8, PB_U8},               {"I8", 8, PB_I8},
    {"F8_E5M2", 8, PB_DTYPE_COUNT}, {"F8_E4M3", 8, PB_DTYPE_COUNT}, {"F8_E8M0", 8, PB_DTYPE_COUNT},
    {"I16", 16, PB_I16},           {"U16", 16, PB_DTYPE_COUNT},    {"F16", 16, PB_F16},
    {"BF16", 16, PB_BF16},          {"I32", 32, PB_I32},            {"U32", 32, PB_DTYPE_COUNT},
    {"F32", 32, PB_F32},            {"C64", 64, PB_DTYPE_COUNT},    {"F64", 64, PB_F64},
    {"I64", 64, PB_I64},            {"U64", 64, PB_DTYPE_COUNT},
};
// clang-format on

const pb_safetensors_dtype *pb_safetensors_dtype_find(const char *name, size_t name_bytes) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strlen(table[i].name) == name_bytes && memcmp(table[i].name, name, name_bytes) == 0) return &table[i];
    return NULL;
}

bool pb_safetensors_tensor_bytes(const pb_safetensors_dtype *type, int rank, const int64_t *shape, uint64_t *elements,
                                 uint64_t *bytes) {
    int64_t count = 1, bits;
    bool empty = false;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0) return false;
        if (shape[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(count, shape[i], &count))
            return false;
    }
    if (__builtin_mul_overflow(count, (int64_t)type->bits, &bits)) return false;
    if (empty) count = bits = 0;
    if (bits % 8) return false;
    *elements = (uint64_t)count;
    *bytes = (uint64_t)bits / 8;
    return true;
}

bool pb_safetensors_is_float(pb_dtype dtype) {
    return dtype == PB_F32 || dtype == PB_F16 || dtype == PB_BF16 || dtype == PB_F64;
}
