// The test cases of every op: pb_case_<name> for each row of ops.def, so that an op without cases does not link.
#ifndef PB_TESTS_OPS_SUPPORT_CASES_H
#define PB_TESTS_OPS_SUPPORT_CASES_H

#include "kernels/backend.h"

typedef enum arg_role {
    ARG_NONE,
    ARG_DATA,  // the storage dtype that is tested
    ARG_WIDE,  // fp32; double when the storage dtype is double
    ARG_IDS,   // int32
    ARG_F64,
    ARG_CODES,  // uint8
} arg_role;

typedef struct op_case {
    const char *label;
    pb_attr attr;
    pb_shape in[PB_MAX_INPUTS], out[PB_MAX_OUTPUTS];  // rank 0: absent
    bool converts;                                    // the ARG_DATA outputs have dtype `to`
    pb_dtype to;
    // Replaces inputs that cannot be random: ids, variances, statistics (computed by the reference). May be NULL.
    void (*prepare)(const pb_backend *reference, pb_kernel_args *args);
} op_case;

typedef struct op_cases {
    arg_role in[PB_MAX_INPUTS], out[PB_MAX_OUTPUTS];
    unsigned optional_in, optional_out;  // bit i: argument i may be absent
    int alias[PB_MAX_OUTPUTS];           // 1 + the input whose storage the output may take over
    unsigned by_norm;                    // bit i: output i, a long sum, is judged by its mean square error
    int inner_roundings;                 // to a 16-bit storage dtype, before the last one; each may go the other way
    const op_case *cases;
    int count;
} op_cases;

#define PB_OP(name, NAME, gradient, kind, inplace) extern const op_cases pb_case_##name;
#include "base/ops.def"
#undef PB_OP

const op_cases *op_cases_of(pb_opcode op);

// Of attention's gradient: y and lse as the reference's forward pass leaves them.
void op_prepare_attention_bwd(const pb_backend *reference, pb_kernel_args *args);

// For the tables.
#define SHAPE(...)                                                   \
    {                                                                \
        (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), { \
            __VA_ARGS__                                              \
        }                                                            \
    }
#define CASES(table) .cases = (table), .count = (int)(sizeof(table) / sizeof((table)[0]))
#define BIT(i) (1u << (i))

#endif
