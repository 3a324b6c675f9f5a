#include "kernels/backend.h"
#include "kernels/ref/reference_kernels.h"

static const pb_kernel kernels[PB_OP_COUNT] = {
#define PB_OP(name, NAME, gradient, kind, inplace) pb_ref_##name,
#include "base/ops.def"
#undef PB_OP
};

static const pb_kernel_workspace workspaces[PB_OP_COUNT] = {
    [PB_OP_CONV2D_BWD_DATA] = pb_ref_conv2d_bwd_data_workspace,
    [PB_OP_ATTENTION] = pb_ref_attention_workspace,
    [PB_OP_ATTENTION_BWD] = pb_ref_attention_bwd_workspace,
};

// Every kernel loads and stores through pb_dtype_load and pb_dtype_store, which know every dtype.
static pb_status supports_everything(pb_opcode op, const pb_kernel_args *args) {
    (void)op;
    (void)args;
    return PB_OK;
}

const pb_backend *pb_backend_reference(void) {
    static const pb_backend backend = {"reference", kernels, workspaces, supports_everything, NULL, 0};
    return &backend;
}
