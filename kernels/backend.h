// What runs a program: a table of kernels and their scratch sizes. The CPU backend and the scalar reference offer
// the same table; a device backend adds memory, streams and copies in this interface.
#ifndef PB_KERNELS_BACKEND_H
#define PB_KERNELS_BACKEND_H

#include "base/error.h"
#include "base/op.h"

typedef struct pb_backend {
    const char *name;
    const pb_kernel *kernels;               // by pb_opcode
    const pb_kernel_workspace *workspaces;  // by pb_opcode; an entry may be NULL: none needed
    // PB_ERR_UNSUPPORTED where a kernel has no path for these dtypes; nothing falls back silently.
    pb_status (*supports)(pb_opcode op, const pb_kernel_args *args);
} pb_backend;

// Vector code for this machine (AVX-512, AVX2 or plain C, chosen at run time), all threads of pb_threads().
const pb_backend *pb_backend_cpu(void);

// Scalar loops in double for any storage dtype, PB_F64 among them: what every other kernel is held against.
const pb_backend *pb_backend_reference(void);

#endif
