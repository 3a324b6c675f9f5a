// Which updates one launch may do. Instructions come one after another, and a plan may give what one of them writes the
// place of what an earlier one used up: those keep their order by being two launches.
#include "kernels/cuda/cuda_kernels.h"

typedef struct byte_range {
    uintptr_t begin, end;
} byte_range;

static byte_range range_of(const pb_tensor *t) {
    const uintptr_t at = (uintptr_t)t->data;
    return (byte_range){at, t->data ? at + (uintptr_t)pb_shape_count(t->shape) * pb_dtype_size(t->dtype) : at};
}

static bool meet(byte_range a, byte_range b) {
    return a.begin < b.end && b.begin < a.end;
}

// Whether what `writer` writes lies apart from all that the other one reads and writes.
static bool spares(const pb_kernel_args *writer, const pb_kernel_args *other) {
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) {
        const byte_range written = range_of(&writer->out[o]);
        for (int k = 0; k < PB_MAX_INPUTS; k++)
            if (meet(written, range_of(&other->in[k]))) return false;
        for (int k = 0; k < PB_MAX_OUTPUTS; k++)
            if (meet(written, range_of(&other->out[k]))) return false;
    }
    return true;
}

bool pb_cuda_adamw_is_float(const pb_kernel_args *args) {
    for (int i = PB_ADAMW_MASTER; i <= PB_ADAMW_V; i++)
        if (args->in[i].dtype != PB_F32) return false;
    return true;
}

uint32_t pb_cuda_adamws_at_once(const pb_kernel_args *const *args, uint32_t count) {
    bool floats = true;
    uint32_t n = 0;
    for (; n < count; n++) {
        floats = floats && pb_cuda_adamw_is_float(args[n]);
        if (n >= (uint32_t)(floats ? PB_CUDA_ADAMWS_OF_FLOATS : PB_CUDA_ADAMWS)) break;
        bool apart = args[n]->in[PB_ADAMW_CONTROL].data == args[0]->in[PB_ADAMW_CONTROL].data &&
                     args[n]->in[PB_ADAMW_HYPER].data == args[0]->in[PB_ADAMW_HYPER].data;
        for (uint32_t k = 0; apart && k < n; k++) apart = spares(args[n], args[k]) && spares(args[k], args[n]);
        if (!apart) break;
    }
    return n;
}
