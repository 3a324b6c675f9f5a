// Names for profilers (NVTX): what the executor's thread issues, op by op within a run, and which stream is which.
// Until a profiler has put itself into the process, each call ends at a comparison.
#ifndef PB_KERNELS_CUDA_RANGES_H
#define PB_KERNELS_CUDA_RANGES_H

#include <cuda_runtime_api.h>

#include "base/op.h"

void pb_cuda_range_begin(const char *name);
void pb_cuda_range_begin_op(pb_opcode op);
void pb_cuda_range_end(void);
void pb_cuda_range_name_stream(cudaStream_t stream, const char *name);

#endif
