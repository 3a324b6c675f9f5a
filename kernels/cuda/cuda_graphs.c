#include "kernels/cuda/cuda_graphs.h"

#include <stdlib.h>

#include "kernels/cuda/cuda_kernels.h"

struct pb_captured {
    cudaGraphExec_t exec;
};

static pb_status refused(cudaError_t error, const char *what) {
    return error == cudaSuccess ? PB_OK : pb_error(PB_ERR_UNSUPPORTED, "%s: %s", what, cudaGetErrorString(error));
}

// Kernels from `at` on that one launcher does; *taken says how many.
static pb_status launch_some(cudaStream_t stream, uint32_t at, uint32_t count, const pb_opcode *ops,
                             const pb_kernel_args *const *args, uint32_t *taken) {
    const pb_opcode op = ops[at];
    uint32_t alike = 1;
    while (at + alike < count && ops[at + alike] == op) alike++;
    args += at;
    if (op == PB_OP_GRAD_NORM) {
        *taken = pb_cuda_grad_norms_at_once(args, alike);
        return pb_cuda_grad_norms(args, *taken, stream);
    }
    if (op == PB_OP_ADAMW) {
        *taken = pb_cuda_adamws_at_once(args, alike);
        return pb_cuda_adamws(args, *taken, stream);
    }
    *taken = 1;
    return pb_cuda_launchers[op](args[0], stream);
}

pb_status pb_cuda_graph_capture(cudaStream_t stream, uint32_t count, const pb_opcode *ops,
                                const pb_kernel_args *const *args, pb_captured **result) {
    pb_status status = PB_OK;
    cudaGraph_t graph = NULL;
    pb_captured *captured = calloc(1, sizeof *captured);
    if (!captured) return pb_error(PB_ERR_MEMORY, "no memory for a CUDA graph");
    // Of this thread alone: the I/O thread goes on asking for events. What allocates or waits in here is refused, so
    // that a launcher that does so is found out.
    PB_TRY(refused(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "the beginning of a capture"));
    uint32_t taken;
    for (uint32_t i = 0; i < count && status == PB_OK; i += taken) {
        status = launch_some(stream, i, count, ops, args, &taken);
        if (status != PB_OK) status = pb_error_context(PB_ERR_UNSUPPORTED, "%s", pb_op_name(ops[i]));
    }
    // The capture is ended in any case; after a launch that was refused this fails as well, and says less.
    const cudaError_t error = cudaStreamEndCapture(stream, &graph);
    if (status != PB_OK) goto fail;
    PB_TRY(refused(error, "the end of a capture"));
    PB_TRY(refused(cudaGraphInstantiate(&captured->exec, graph, 0), "a graph's instance"));
    PB_TRY(refused(cudaGraphUpload(captured->exec, stream), "a graph's upload"));
    *result = captured;
    captured = NULL;
fail:
    if (graph) cudaGraphDestroy(graph);
    pb_cuda_graph_release(captured);
    return status;
}

cudaError_t pb_cuda_graph_launch(const pb_captured *captured, cudaStream_t stream) {
    return cudaGraphLaunch(captured->exec, stream);
}

void pb_cuda_graph_release(pb_captured *captured) {
    if (!captured) return;
    if (captured->exec) cudaGraphExecDestroy(captured->exec);
    free(captured);
}
