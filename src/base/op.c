#include "base/op.h"

static const struct {
    const char *name;
    pb_op_kind kind;
    int inplace;
} table[PB_OP_COUNT] = {
#define PB_OP(name, NAME, gradient, kind, inplace) {#name, PB_KIND_##kind, inplace},
#include "base/ops.def"
#undef PB_OP
};

const char *pb_op_name(pb_opcode op) {
    return table[op].name;
}

pb_op_kind pb_op_kind_of(pb_opcode op) {
    return table[op].kind;
}

int pb_op_inplace(pb_opcode op) {
    return table[op].inplace;
}

int64_t pb_shape_count(pb_shape shape) {
    int64_t count = 1;
    for (int i = 0; i < shape.rank; i++) count *= shape.dim[i];
    return count;
}

int64_t pb_shape_last(pb_shape shape) {
    return shape.rank ? shape.dim[shape.rank - 1] : 1;
}

int64_t pb_shape_rows(pb_shape shape) {
    int64_t rows = 1;
    for (int i = 0; i + 1 < shape.rank; i++) rows *= shape.dim[i];
    return rows;
}

bool pb_shape_equal(pb_shape a, pb_shape b) {
    if (a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; i++)
        if (a.dim[i] != b.dim[i]) return false;
    return true;
}

pb_shape pb_shape_make(int rank, int64_t a, int64_t b, int64_t c, int64_t d) {
    return (pb_shape){rank, {a, b, c, d}};
}
