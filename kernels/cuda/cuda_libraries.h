// cuDNN and cuBLASLt, found when they are first needed. Neither is linked: a binary runs where they are missing, and
// says so when something needs them. The headers give types at build time and nothing else.
#ifndef PB_KERNELS_CUDA_LIBRARIES_H
#define PB_KERNELS_CUDA_LIBRARIES_H

#include <cublasLt.h>
#include <cudnn.h>

#include "base/error.h"

// field, symbol
// clang-format off
#define PB_CUDNN_SYMBOLS(symbol)                                    \
    symbol(version, cudnnGetVersion)                                \
    symbol(error_string, cudnnGetErrorString)                       \
    symbol(last_error_string, cudnnGetLastErrorString)              \
    symbol(create, cudnnCreate)                                     \
    symbol(destroy, cudnnDestroy)                                   \
    symbol(set_stream, cudnnSetStream)                              \
    symbol(create_descriptor, cudnnBackendCreateDescriptor)         \
    symbol(destroy_descriptor, cudnnBackendDestroyDescriptor)       \
    symbol(finalize, cudnnBackendFinalize)                          \
    symbol(set_attribute, cudnnBackendSetAttribute)                 \
    symbol(get_attribute, cudnnBackendGetAttribute)                 \
    symbol(execute, cudnnBackendExecute)

#define PB_CUBLAS_SYMBOLS(symbol)                                   \
    symbol(version, cublasLtGetVersion)                             \
    symbol(status_string, cublasLtGetStatusString)                  \
    symbol(create, cublasLtCreate)                                  \
    symbol(destroy, cublasLtDestroy)                                \
    symbol(matmul, cublasLtMatmul)                                  \
    symbol(layout_create, cublasLtMatrixLayoutCreate)               \
    symbol(layout_destroy, cublasLtMatrixLayoutDestroy)             \
    symbol(desc_create, cublasLtMatmulDescCreate)                   \
    symbol(desc_destroy, cublasLtMatmulDescDestroy)                 \
    symbol(desc_set, cublasLtMatmulDescSetAttribute)                \
    symbol(preference_create, cublasLtMatmulPreferenceCreate)       \
    symbol(preference_destroy, cublasLtMatmulPreferenceDestroy)     \
    symbol(preference_set, cublasLtMatmulPreferenceSetAttribute)    \
    symbol(heuristic, cublasLtMatmulAlgoGetHeuristic)
// clang-format on

#define PB_CUDA_SYMBOL_FIELD(field, symbol) __typeof__(symbol) *field;
typedef struct pb_cudnn_api {
    PB_CUDNN_SYMBOLS(PB_CUDA_SYMBOL_FIELD)
} pb_cudnn_api;
typedef struct pb_cublas_api {
    PB_CUBLAS_SYMBOLS(PB_CUDA_SYMBOL_FIELD)
} pb_cublas_api;
#undef PB_CUDA_SYMBOL_FIELD

// The libraries' functions; found once and kept while the process lives. PB_ERR_UNSUPPORTED with what is missing,
// where it was looked for and how to get it, or with a version that is too old (cuDNN before 9.8). From one thread.
pb_status pb_cudnn_load(const pb_cudnn_api **api);
pb_status pb_cublas_load(const pb_cublas_api **api);

// Where they were found, or NULL before a load that worked.
const char *pb_cudnn_path(void);
const char *pb_cublas_path(void);

#endif
