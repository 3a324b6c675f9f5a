// Kernels that follow one another in a stream, captured once into a CUDA graph and launched as one from then on. What a
// launcher puts into the stream is a function of its arguments alone (cuda_kernels.h), so a graph stays right for as
// long as they do.
#ifndef PB_KERNELS_CUDA_GRAPHS_H
#define PB_KERNELS_CUDA_GRAPHS_H

#include <cuda_runtime_api.h>

#include "kernels/backend.h"

// Captures what the launchers of ops[count] put into `stream`, which is idle and runs none of it. Every kernel must
// have run before: CUDA loads code at its first launch, which a capture may not. PB_ERR_UNSUPPORTED where CUDA, a
// library or a launcher refuses; then nothing is captured and the stream is as it was.
pb_status pb_cuda_graph_capture(cudaStream_t stream, uint32_t count, const pb_opcode *ops,
                                const pb_kernel_args *const *args, pb_captured **captured);
cudaError_t pb_cuda_graph_launch(const pb_captured *captured, cudaStream_t stream);
void pb_cuda_graph_release(pb_captured *captured);  // NULL is allowed

#endif
