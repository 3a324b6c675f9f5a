#include "kernels/cuda/cuda_math.h"

#include <stdlib.h>

#include "kernels/cuda/cuda_kernels.h"

// One per device in use, so a handful at most.
static pb_cuda_math *maths;

pb_status pb_cuda_math_create(cudaStream_t stream, int capability, pb_cuda_math **result) {
    pb_cuda_math *math = calloc(1, sizeof *math);
    if (!math) return pb_error(PB_ERR_MEMORY, "no memory for the libraries of a GPU");
    math->stream = stream;
    math->capability = capability;
    math->next = maths;
    maths = math;
    *result = math;
    return PB_OK;
}

pb_status pb_cuda_math_of(void *stream, pb_cuda_math **math) {
    for (*math = maths; *math; *math = (*math)->next)
        if ((void *)(*math)->stream == stream) return PB_OK;
    return pb_error(PB_ERR_INTERNAL, "a matrix product was launched into a stream of no device");
}

void pb_cuda_math_destroy(pb_cuda_math *math) {
    if (!math) return;
    for (pb_cuda_math **at = &maths; *at; at = &(*at)->next) {
        if (*at != math) continue;
        *at = math->next;
        break;
    }
    pb_plan_cache_deinit(&math->attention_calls, pb_cuda_attention_call_destroy);
    pb_plan_cache_deinit(&math->attentions, pb_cuda_attention_plan_destroy);
    pb_plan_cache_deinit(&math->packs, pb_cuda_pack_destroy);
    pb_plan_cache_deinit(&math->convolutions, pb_cuda_conv_plan_destroy);
    pb_plan_cache_deinit(&math->gemms, pb_cuda_gemm_plan_destroy);
    if (math->dnn_handle) math->dnn->destroy(math->dnn_handle);
    if (math->blas_handle) math->blas->destroy(math->blas_handle);
    free(math);
}

pb_status pb_cuda_math_blas(pb_cuda_math *math) {
    if (math->blas_handle) return PB_OK;
    PB_RETURN_IF(pb_cublas_load(&math->blas));
    const cublasStatus_t result = math->blas->create(&math->blas_handle);
    if (result == CUBLAS_STATUS_SUCCESS) return PB_OK;
    math->blas_handle = NULL;
    return pb_error(PB_ERR_UNSUPPORTED, "cuBLASLt (%s) does not start on this GPU: %s", pb_cublas_path(),
                    math->blas->status_string(result));
}

pb_status pb_cuda_math_dnn(pb_cuda_math *math) {
    if (math->dnn_handle) return PB_OK;
    PB_RETURN_IF(pb_cudnn_load(&math->dnn));
    cudnnStatus_t result = math->dnn->create(&math->dnn_handle);
    if (result != CUDNN_STATUS_SUCCESS) math->dnn_handle = NULL;
    if (result == CUDNN_STATUS_SUCCESS) result = math->dnn->set_stream(math->dnn_handle, math->stream);
    if (result == CUDNN_STATUS_SUCCESS) return PB_OK;
    if (math->dnn_handle) math->dnn->destroy(math->dnn_handle);
    math->dnn_handle = NULL;
    return pb_error(PB_ERR_UNSUPPORTED, "cuDNN (%s) does not start on this GPU: %s", pb_cudnn_path(),
                    math->dnn->error_string(result));
}

pb_status pb_cuda_prepare(pb_opcode op, const pb_kernel_args *args, void *stream) {
    pb_cuda_math *math;
    switch (op) {
    case PB_OP_LINEAR:
    case PB_OP_LINEAR_BWD_DATA:
    case PB_OP_LINEAR_BWD_WEIGHT:
        PB_RETURN_IF(pb_cuda_math_of(stream, &math));
        return pb_cuda_prepare_linear(math, op, args);
    case PB_OP_CONV2D:
    case PB_OP_CONV2D_BWD_DATA:
    case PB_OP_CONV2D_BWD_WEIGHT:
        PB_RETURN_IF(pb_cuda_math_of(stream, &math));
        return pb_cuda_prepare_conv(math, op, args);
    case PB_OP_ATTENTION:
    case PB_OP_ATTENTION_BWD:
        PB_RETURN_IF(pb_cuda_math_of(stream, &math));
        return pb_cuda_prepare_attention(math, op, args);
    default: return PB_OK;
    }
}
