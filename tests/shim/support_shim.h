// The CUDA kernels under the shim as a backend for the op harness.
#ifndef PB_TESTS_SHIM_SUPPORT_SHIM_H
#define PB_TESTS_SHIM_SUPPORT_SHIM_H

#include "kernels/backend.h"
#include "shim_control.h"

const pb_backend *shim_backend(void);  // aborts when a launcher refuses
bool shim_has(pb_opcode op);           // false: the op is a library's, not a kernel of ours

extern unsigned pb_cuda_threads;

#endif
