#include "kernels/backend.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_kernels.h"
#include "base/isa.h"

static const pb_kernel kernels[PB_OP_COUNT] = {
#define PB_OP(name, NAME, gradient, kind, inplace) pb_cpu_##name,
#include "base/ops.def"
#undef PB_OP
};

static const pb_kernel_workspace workspaces[PB_OP_COUNT] = {
    [PB_OP_LINEAR] = pb_cpu_linear_workspace,
    [PB_OP_LINEAR_BWD_DATA] = pb_cpu_linear_bwd_data_workspace,
    [PB_OP_LINEAR_BWD_WEIGHT] = pb_cpu_linear_bwd_weight_workspace,
    [PB_OP_CONV2D] = pb_cpu_conv2d_workspace,
    [PB_OP_CONV2D_BWD_DATA] = pb_cpu_conv2d_bwd_data_workspace,
    [PB_OP_CONV2D_BWD_WEIGHT] = pb_cpu_conv2d_bwd_weight_workspace,
    [PB_OP_GROUP_NORM] = pb_cpu_group_norm_workspace,
    [PB_OP_GROUP_NORM_BWD] = pb_cpu_group_norm_bwd_workspace,
    [PB_OP_LAYER_NORM] = pb_cpu_layer_norm_workspace,
    [PB_OP_LAYER_NORM_BWD] = pb_cpu_layer_norm_bwd_workspace,
    [PB_OP_ATTENTION] = pb_cpu_attention_workspace,
    [PB_OP_ATTENTION_BWD] = pb_cpu_attention_bwd_workspace,
    [PB_OP_SUM_PIXELS] = pb_cpu_sum_pixels_workspace,
    [PB_OP_MSE_LOSS] = pb_cpu_mse_loss_workspace,
    [PB_OP_GRAD_NORM] = pb_cpu_grad_norm_workspace,
};

// The dtype that ops.def fixes for an argument, or PB_DTYPE_COUNT: any dtype of activations.
static pb_dtype fixed_dtype(pb_opcode op, bool output, int i) {
    bool fp32 = false;
    switch (op) {
    case PB_OP_LINEAR:
    case PB_OP_CONV2D: fp32 = !output && i == 2; break;
    case PB_OP_LINEAR_BWD_WEIGHT:
    case PB_OP_CONV2D_BWD_WEIGHT: fp32 = output && i == 1; break;
    case PB_OP_GROUP_NORM:
    case PB_OP_LAYER_NORM: fp32 = i > 0; break;
    case PB_OP_GROUP_NORM_BWD: fp32 = output ? i > 0 : i >= 2 && i <= 4; break;
    case PB_OP_LAYER_NORM_BWD: fp32 = output ? i > 0 : i == 2 || i == 3; break;
    case PB_OP_ATTENTION: fp32 = output && i == 1; break;
    case PB_OP_ATTENTION_BWD: fp32 = !output && i == 5; break;
    case PB_OP_TIMESTEP_EMBEDDING: fp32 = !output; break;
    case PB_OP_MSE_LOSS: fp32 = output || i == 1; break;
    case PB_OP_MSE_LOSS_BWD: fp32 = !output && i > 0; break;
    case PB_OP_ACCUMULATE: fp32 = output || i == 1; break;
    case PB_OP_ADAMW:
        fp32 = output ? i > PB_ADAMW_NEW_WORK : i == PB_ADAMW_CONTROL || i == PB_ADAMW_HYPER || i > PB_ADAMW_WORK;
        break;
    case PB_OP_DECODE8: return output ? PB_DTYPE_COUNT : i == 0 ? PB_U8 : PB_F32;
    case PB_OP_EMBEDDING: return !output && i == 0 ? PB_I32 : PB_DTYPE_COUNT;
    case PB_OP_EMBEDDING_BWD: return !output && i == 1 ? PB_I32 : PB_DTYPE_COUNT;
    case PB_OP_GRAD_NORM: return output || i == 1 ? PB_F64 : PB_DTYPE_COUNT;
    case PB_OP_STEP_CONTROL: return !output && i == 0 ? PB_F64 : PB_F32;
    default: break;
    }
    return fp32 ? PB_F32 : PB_DTYPE_COUNT;
}

// These convert from and to any pair; all others want one dtype for all their activations.
static bool mixes_dtypes(pb_opcode op) {
    return op == PB_OP_CAST || op == PB_OP_EMBEDDING_BWD || op == PB_OP_ADAMW;
}

// Of the operands of adamw whose dtype says how the optimizer's state is kept.
static bool is_state_format(bool output, int i, pb_dtype dtype) {
    const int slot = output ? i + PB_ADAMW_MASTER : i;  // master, m, v, work in a row in both
    if (slot == PB_ADAMW_MASTER) return dtype == PB_F32 || dtype == PB_BF16 || dtype == PB_I16 || dtype == PB_I8;
    if (slot == PB_ADAMW_M || slot == PB_ADAMW_V) return dtype == PB_F32 || dtype == PB_BF16 || dtype == PB_U8;
    return dtype == PB_F16 || dtype == PB_BF16 || dtype == PB_F32;
}

static pb_status supports(pb_opcode op, const pb_kernel_args *args) {
    pb_dtype storage = PB_DTYPE_COUNT;
    for (int i = 0; i < PB_MAX_INPUTS + PB_MAX_OUTPUTS; i++) {
        const bool output = i >= PB_MAX_INPUTS;
        const int index = output ? i - PB_MAX_INPUTS : i;
        const pb_tensor *t = output ? &args->out[index] : &args->in[index];
        if (!t->shape.rank) continue;  // absent
        const pb_dtype fixed = fixed_dtype(op, output, index);
        bool known =
            t->dtype == PB_F32 || t->dtype == PB_F16 || t->dtype == PB_BF16 || (op == PB_OP_CAST && t->dtype == PB_F64);
        if (fixed != PB_DTYPE_COUNT)
            known = t->dtype == fixed;
        else if (op == PB_OP_ADAMW)
            known = is_state_format(output, index, t->dtype);
        else if (storage == PB_DTYPE_COUNT || mixes_dtypes(op))
            storage = t->dtype;
        else
            known = known && t->dtype == storage;
        if (!known)
            return pb_error(PB_ERR_UNSUPPORTED, "the CPU backend has no %s with %s %d of dtype %s", pb_op_name(op),
                            output ? "output" : "input", index, pb_dtype_name(t->dtype));
    }
    return PB_OK;
}

pb_status pb_cpu_device_open_default(int ordinal, pb_device **device) {
    (void)ordinal;  // there is one
    return pb_cpu_device_open(kernels, device);
}

const pb_backend *pb_backend_cpu(void) {
    static const pb_backend backend = {"cpu", kernels, workspaces, supports, &pb_cpu_device_calls, 0};
    pb_cpu_isa();  // found out here, by one thread
    return &backend;
}
