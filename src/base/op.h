// The op enumeration and the attributes of an op, made from ops.def.
#ifndef PB_BASE_OP_H
#define PB_BASE_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"

typedef enum pb_opcode {
#define PB_OP(name, NAME, gradient, kind, inplace) PB_OP_##NAME,
#include "base/ops.def"
#undef PB_OP
    PB_OP_COUNT
} pb_opcode;

typedef enum pb_op_kind { PB_KIND_MATMUL, PB_KIND_CHEAP, PB_KIND_OTHER } pb_op_kind;

const char *pb_op_name(pb_opcode op);
pb_op_kind pb_op_kind_of(pb_opcode op);
int pb_op_inplace(pb_opcode op);  // index of an input or -1

enum { PB_MAX_RANK = 4, PB_MAX_INPUTS = 9, PB_MAX_OUTPUTS = 6 };
enum { PB_STATE_BLOCK = 256 };  // elements that share a scale in 8-bit optimizer states

typedef struct pb_shape {
    int rank;
    int64_t dim[PB_MAX_RANK];
} pb_shape;

int64_t pb_shape_count(pb_shape shape);  // elements
int64_t pb_shape_rows(pb_shape shape);   // elements / last dimension
int64_t pb_shape_last(pb_shape shape);   // last dimension
bool pb_shape_equal(pb_shape a, pb_shape b);
pb_shape pb_shape_make(int rank, int64_t a, int64_t b, int64_t c, int64_t d);
#define PB_SHAPE1(a) pb_shape_make(1, (a), 0, 0, 0)
#define PB_SHAPE2(a, b) pb_shape_make(2, (a), (b), 0, 0)
#define PB_SHAPE3(a, b, c) pb_shape_make(3, (a), (b), (c), 0)
#define PB_SHAPE4(a, b, c, d) pb_shape_make(4, (a), (b), (c), (d))

typedef enum pb_unary_kind { PB_UNARY_SILU, PB_UNARY_GELU, PB_UNARY_QUICK_GELU } pb_unary_kind;

typedef union pb_attr {
    struct {
        int32_t kh, kw, stride;
        int32_t pad_top, pad_left, pad_bottom, pad_right;
        int32_t up_h, up_w;  // resize the input to this before the convolution (nearest, PyTorch's indices), or 0
        int32_t in_h, in_w;  // of x, before the resize
    } conv;                  // used by conv2d and its backward ops
    struct {
        float eps;
        int32_t groups;  // group_norm only
        bool silu;       // group_norm only
    } norm;
    struct {
        int32_t heads;
        bool causal;
        float scale;
    } attention;
    struct {
        pb_unary_kind kind;
    } unary;
    struct {
        int64_t begin, length;
    } slice;
    struct {
        int32_t channels;
        bool flip_sin_to_cos;  // true: cosines first
        float freq_shift, max_period;
        pb_dtype dtype;  // of the output; computed in fp32
    } timestep;
    struct {
        int64_t rows, positions;  // embedding_bwd: entries of the two tables
        pb_dtype dtype;           // embedding_bwd: of both gradients
    } embedding;
    struct {
        pb_dtype dtype;  // cast, decode8: of the output
    } cast;
    struct {
        uint32_t stream;  // of random bits: the parameter's own, see pb_adamw_stream
        int64_t first;    // 0 in a graph; in an UPDATE, which element of the parameter the operands begin with
    } adamw;
} pb_attr;

// What a kernel sees of a value. data is NULL where an optional argument is absent.
typedef struct pb_tensor {
    void *data;
    pb_dtype dtype;
    pb_shape shape;
} pb_tensor;

typedef struct pb_kernel_args {
    const pb_attr *attr;
    pb_tensor in[PB_MAX_INPUTS];
    pb_tensor out[PB_MAX_OUTPUTS];
    void *workspace;  // 64-byte aligned
    uint64_t workspace_bytes;
} pb_kernel_args;

// A kernel cannot fail: everything that could go wrong was checked when the program was made.
typedef void (*pb_kernel)(const pb_kernel_args *args);
// Scratch bytes for these shapes (data pointers are not set). Depends on shapes, dtypes, machine and thread count only.
typedef uint64_t (*pb_kernel_workspace)(const pb_kernel_args *args);

// Hyperparameters of one optimizer step, the float tensor `hyper` of step_control and adamw. Scalars are computed by
// the host in double and rounded once.
typedef enum pb_hyper {
    PB_HYPER_LR,
    PB_HYPER_BETA1,
    PB_HYPER_BETA2,
    PB_HYPER_EPS,
    PB_HYPER_DECAY,           // 1 - lr * weight_decay
    PB_HYPER_STEP_SIZE,       // lr / (1 - beta1^t)
    PB_HYPER_SQRT_BIAS2,      // sqrt(1 - beta2^t)
    PB_HYPER_INV_LOSS_SCALE,  // 1 / loss scale
    PB_HYPER_MAX_NORM,        // global clipping, or infinity for none
    PB_HYPER_ONE_MINUS_BETA1,
    PB_HYPER_ONE_MINUS_BETA2,
    // For stochastic rounding, 16 bits each so that a float holds them: the run's seed and the step's number.
    PB_HYPER_SEED_LOW,
    PB_HYPER_SEED_HIGH,
    PB_HYPER_STEP_LOW,
    PB_HYPER_STEP_HIGH,
    PB_HYPER_COUNT = 16
} pb_hyper;

// Slots of adamw's inputs and outputs (ops.def).
enum {
    PB_ADAMW_GRADIENT,
    PB_ADAMW_CONTROL,
    PB_ADAMW_HYPER,
    PB_ADAMW_MASTER,
    PB_ADAMW_M,
    PB_ADAMW_V,
    PB_ADAMW_WORK,
    PB_ADAMW_M_SCALES,
    PB_ADAMW_V_SCALES,
    PB_ADAMW_NEW_MASTER = 0,
    PB_ADAMW_NEW_M,
    PB_ADAMW_NEW_V,
    PB_ADAMW_NEW_WORK,
    PB_ADAMW_NEW_M_SCALES,
    PB_ADAMW_NEW_V_SCALES,
};

// How many of an adamw operand's `entries` belong to the first `count` of its parameter's `elements` elements: as many,
// or, of scales, one per PB_STATE_BLOCK. (Slices begin with whole blocks.)
static inline int64_t pb_adamw_entries(int64_t entries, int64_t elements, int64_t count) {
    return entries == elements ? count : (count + PB_STATE_BLOCK - 1) / PB_STATE_BLOCK;
}

// What step_control found, the float tensor `control`.
typedef enum pb_control {
    PB_CONTROL_NORM,   // global norm of the unscaled gradients
    PB_CONTROL_SCALE,  // factor for each gradient: 1 / loss scale * min(1, max_norm / (norm + 1e-6))
    PB_CONTROL_SKIP,   // 1 when the norm is not finite: adamw then writes nothing but the working copy's present value
    PB_CONTROL_COUNT = 4
} pb_control;

#endif
