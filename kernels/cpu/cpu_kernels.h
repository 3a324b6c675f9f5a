// The CPU kernels, one per op of ops.def, which gives their arguments. Activations are F32, F16 or BF16 and computed
// with in fp32. A kernel gives the same bits in every run on one machine with one number of threads.
#ifndef PB_KERNELS_CPU_CPU_KERNELS_H
#define PB_KERNELS_CPU_CPU_KERNELS_H

#include "base/op.h"

// The workspace queries exist for the ops that backend_cpu.c lists with one.
#define PB_OP(name, NAME, gradient, kind, inplace)  \
    void pb_cpu_##name(const pb_kernel_args *args); \
    uint64_t pb_cpu_##name##_workspace(const pb_kernel_args *args);
#include "base/ops.def"
#undef PB_OP

// adamw where master or moments are not all fp32.
void pb_cpu_adamw_states(const pb_kernel_args *args);

#endif
