// linear and its gradients. cuBLASLt is column-major: a row-major matrix is its own transpose there, so the product is
// asked for as out^T = b^T a^T, with b as cuBLASLt's A and a as its B.
//
// The roundings of ops.def: matrix product and bias are rounded once, together. A residual or addend goes in before
// that rounding (beta = 1) rather than after it: one rounding less than the separate ops, no scratch, and the same bits
// whether or not the result takes the addend's place.
#include "kernels/cuda/cuda_linear.h"

#include <stdlib.h>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_target.h"

enum { ALIGNMENT = 256, CANDIDATES = 8 };

typedef struct gemm_plan {
    const pb_cublas_api *api;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, out;
    cublasLtMatmulAlgo_t algorithm;
} gemm_plan;

static uint64_t align_up(uint64_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

bool pb_cuda_is_pixelwise(const pb_attr *attr) {
    return attr->conv.kh == 1 && attr->conv.kw == 1 && attr->conv.stride == 1 && !attr->conv.pad_top &&
           !attr->conv.pad_left && !attr->conv.pad_bottom && !attr->conv.pad_right && !attr->conv.up_h &&
           !attr->conv.up_w;
}

// Of a weight [O,I] or [O,1,1,I].
static int64_t outputs_of(pb_shape w) {
    return w.dim[0];
}

pb_cuda_gemm pb_cuda_gemm_of(pb_opcode op, const pb_kernel_args *args) {
    const pb_tensor *in = args->in, *out = args->out;
    pb_cuda_gemm g = {.dtype = in[0].dtype, .out = out[0].data, .workspace = args->workspace};
    switch (op) {
    case PB_OP_LINEAR:  // in: x w bias? residual?
    case PB_OP_CONV2D:  // in: x w bias? rowbias? residual?
        g.m = pb_shape_rows(in[0].shape);
        g.n = outputs_of(in[1].shape);
        g.k = pb_shape_last(in[0].shape);
        g.b_transposed = true;
        g.a = in[0].data;
        g.b = in[1].data;
        g.bias = in[2].data;
        g.addend = in[op == PB_OP_LINEAR ? 3 : 4].data;
        break;
    case PB_OP_LINEAR_BWD_DATA:  // in: dy w addend?
    case PB_OP_CONV2D_BWD_DATA:
        g.m = pb_shape_rows(in[0].shape);
        g.n = pb_shape_last(in[1].shape);
        g.k = pb_shape_last(in[0].shape);
        g.a = in[0].data;
        g.b = in[1].data;
        g.addend = in[2].data;
        break;
    default:  // in: dy x
        g.m = pb_shape_last(in[0].shape);
        g.n = pb_shape_last(in[1].shape);
        g.k = pb_shape_rows(in[0].shape);
        g.a_transposed = true;
        g.a = in[0].data;
        g.b = in[1].data;
        break;
    }
    return g;
}

// The bias in the product's dtype, at the head of the workspace.
static uint64_t bias_bytes(const pb_cuda_gemm *g) {
    return g->dtype == PB_F32 ? 0 : align_up((uint64_t)g->n * pb_dtype_size(g->dtype));
}

uint64_t pb_cuda_gemm_workspace(const pb_cuda_gemm *g, int capability) {
    return bias_bytes(g) + pb_cuda_gemm_scratch(capability);
}

static cudaDataType_t data_type(pb_dtype dtype) {
    return dtype == PB_F16 ? CUDA_R_16F : dtype == PB_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static pb_status check(const pb_cublas_api *api, cublasStatus_t result, const pb_cuda_gemm *g) {
    if (result == CUBLAS_STATUS_SUCCESS) return PB_OK;
    return pb_error(result == CUBLAS_STATUS_ALLOC_FAILED ? PB_ERR_MEMORY : PB_ERR_UNSUPPORTED,
                    "cuBLASLt %zu, product of %lld x %lld x %lld in %s: %s", api->version(), (long long)g->m,
                    (long long)g->n, (long long)g->k, pb_dtype_name(g->dtype), api->status_string(result));
}

void pb_cuda_gemm_plan_destroy(void *value) {
    gemm_plan *p = value;
    if (!p) return;
    if (p->desc) p->api->desc_destroy(p->desc);
    if (p->a) p->api->layout_destroy(p->a);
    if (p->b) p->api->layout_destroy(p->b);
    if (p->out) p->api->layout_destroy(p->out);
    free(p);
}

static pb_plan_key key_of(const pb_cuda_gemm *g) {
    return (pb_plan_key){{g->m, g->n, g->k, g->dtype, g->a_transposed, g->b_transposed, g->bias != NULL}};
}

static pb_status describe(const pb_cuda_gemm *g, gemm_plan *p) {
    const pb_cublas_api *api = p->api;
    const cudaDataType_t type = data_type(g->dtype);
    const cublasOperation_t op_a = g->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = g->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = g->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    const uint64_t n = (uint64_t)g->n, m = (uint64_t)g->m, k = (uint64_t)g->k;
    cublasStatus_t result = api->desc_create(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = api->desc_set(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = api->desc_set(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = api->desc_set(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (result == CUBLAS_STATUS_SUCCESS && g->bias)
        result = api->desc_set(p->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = g->b_transposed ? api->layout_create(&p->a, type, k, n, (int64_t)k)
                                 : api->layout_create(&p->a, type, n, k, (int64_t)n);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = g->a_transposed ? api->layout_create(&p->b, type, m, k, (int64_t)m)
                                 : api->layout_create(&p->b, type, k, m, (int64_t)k);
    if (result == CUBLAS_STATUS_SUCCESS) result = api->layout_create(&p->out, type, n, m, (int64_t)n);
    return check(api, result, g);
}

// The first candidate: no atomics, partial sums in fp32, within the scratch. The order is cuBLASLt's, by expected
// speed, and the same in every run.
static pb_status choose(const pb_cuda_math *math, const pb_cuda_gemm *g, gemm_plan *p) {
    const pb_cublas_api *api = p->api;
    const uint64_t scratch = pb_cuda_gemm_scratch(math->capability);
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t alignment = ALIGNMENT;
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count = 0;
    pb_status status = PB_OK;
    cublasLtMatmulPreference_t preference = NULL;
    PB_TRY(check(api, api->preference_create(&preference), g));
    PB_TRY(check(
        api, api->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &scratch, sizeof scratch), g));
    PB_TRY(check(
        api, api->preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes), g));
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++)
        PB_TRY(check(api, api->preference_set(preference, alignments[i], &alignment, sizeof alignment), g));
    PB_TRY(check(
        api,
        api->heuristic(math->blas_handle, p->desc, p->a, p->b, p->out, p->out, preference, CANDIDATES, found, &count),
        g));
    for (int i = 0; i < count; i++) {
        if (found[i].state != CUBLAS_STATUS_SUCCESS || found[i].workspaceSize > scratch) continue;
        p->algorithm = found[i].algo;
        goto fail;
    }
    PB_FAIL(PB_ERR_UNSUPPORTED, "cuBLASLt %zu has no deterministic product of %lld x %lld x %lld in %s", api->version(),
            (long long)g->m, (long long)g->n, (long long)g->k, pb_dtype_name(g->dtype));
fail:
    if (preference) api->preference_destroy(preference);
    return status;
}

typedef struct wanted_plan {
    const pb_cuda_math *math;
    const pb_cuda_gemm *gemm;
} wanted_plan;

static pb_status make_plan(const void *context, void **value) {
    const wanted_plan *w = context;
    pb_status status = PB_OK;
    gemm_plan *plan = calloc(1, sizeof *plan);
    if (!plan) PB_FAIL(PB_ERR_MEMORY, "no memory for a matrix product's plan");
    plan->api = w->math->blas;
    PB_TRY(describe(w->gemm, plan));
    PB_TRY(choose(w->math, w->gemm, plan));
    *value = plan;
    plan = NULL;
fail:
    pb_cuda_gemm_plan_destroy(plan);
    return status;
}

static pb_status plan_of(pb_cuda_math *math, const pb_cuda_gemm *g, gemm_plan **result) {
    const pb_plan_key key = key_of(g);
    const wanted_plan how = {math, g};
    void *plan;
    PB_RETURN_IF(pb_cuda_math_blas(math));
    PB_RETURN_IF(pb_plan_cache_get(&math->gemms, &key, make_plan, &how, pb_cuda_gemm_plan_destroy, &plan));
    *result = plan;
    return PB_OK;
}

pb_status pb_cuda_gemm_prepare(pb_cuda_math *math, const pb_cuda_gemm *g) {
    const void *const pointers[] = {g->a, g->b, g->addend, g->out, g->workspace, g->dtype == PB_F32 ? g->bias : NULL};
    gemm_plan *unused;
    for (size_t i = 0; i < sizeof pointers / sizeof *pointers; i++)  // the algorithm is asked for with it
        if ((uintptr_t)pointers[i] % ALIGNMENT)
            return pb_error(PB_ERR_INTERNAL, "an operand of a matrix product does not begin at a multiple of %d bytes",
                            ALIGNMENT);
    return plan_of(math, g, &unused);
}

// Rounds the bias into the workspace, where the product's dtype is not fp32; *bias says where it is.
static pb_status cast_bias(pb_cuda_math *math, const pb_cuda_gemm *g, const void **bias) {
    *bias = g->bias;
    if (!g->bias || g->dtype == PB_F32) return PB_OK;
    const pb_attr attr = {.cast = {.dtype = g->dtype}};
    const pb_kernel_args cast = {.attr = &attr,
                                 .in = {{(void *)g->bias, PB_F32, PB_SHAPE1(g->n)}},
                                 .out = {{g->workspace, g->dtype, PB_SHAPE1(g->n)}}};
    *bias = g->workspace;
    return pb_cuda_cast(&cast, math->stream);
}

pb_status pb_cuda_gemm_run(pb_cuda_math *math, const pb_cuda_gemm *g) {
    const void *bias;
    gemm_plan *p;
    PB_RETURN_IF(plan_of(math, g, &p));
    PB_RETURN_IF(cast_bias(math, g, &bias));
    const cublasLtMatmulDescAttributes_t pointer = CUBLASLT_MATMUL_DESC_BIAS_POINTER;
    if (bias) PB_RETURN_IF(check(p->api, p->api->desc_set(p->desc, pointer, &bias, sizeof bias), g));
    const float alpha = 1, beta = g->addend ? 1 : 0;
    char *scratch = (char *)g->workspace + bias_bytes(g);
    return check(p->api,
                 p->api->matmul(math->blas_handle, p->desc, &alpha, g->b, p->a, g->a, p->b, &beta,
                                g->addend ? g->addend : g->out, p->out, g->out, p->out, &p->algorithm, scratch,
                                (size_t)pb_cuda_gemm_scratch(math->capability), math->stream),
                 g);
}

// --- The ops ---

static uint64_t workspace_of(pb_opcode op, const pb_kernel_args *args) {
    const pb_cuda_gemm g = pb_cuda_gemm_of(op, args);
    return pb_cuda_gemm_workspace(&g, pb_cuda_target_get()->capability);
}

static pb_status run(pb_opcode op, const pb_kernel_args *args, void *stream) {
    pb_cuda_math *math;
    PB_RETURN_IF(pb_cuda_math_of(stream, &math));
    const pb_cuda_gemm g = pb_cuda_gemm_of(op, args);
    return pb_cuda_gemm_run(math, &g);
}

uint64_t pb_cuda_linear_workspace(const pb_kernel_args *args) {
    return workspace_of(PB_OP_LINEAR, args);
}

uint64_t pb_cuda_linear_bwd_data_workspace(const pb_kernel_args *args) {
    return workspace_of(PB_OP_LINEAR_BWD_DATA, args);
}

uint64_t pb_cuda_linear_bwd_weight_workspace(const pb_kernel_args *args) {
    const pb_shape dy = args->in[0].shape;
    const uint64_t product = workspace_of(PB_OP_LINEAR_BWD_WEIGHT, args);
    const uint64_t sums = pb_cuda_column_sums_workspace(1, pb_shape_rows(dy), pb_shape_last(dy));
    return product > sums ? product : sums;
}

pb_status pb_cuda_prepare_linear(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args) {
    const pb_cuda_gemm g = pb_cuda_gemm_of(op, args);
    return g.out ? pb_cuda_gemm_prepare(math, &g) : PB_OK;
}

pb_status pb_cuda_linear(const pb_kernel_args *args, void *stream) {
    return run(PB_OP_LINEAR, args, stream);
}

pb_status pb_cuda_linear_bwd_data(const pb_kernel_args *args, void *stream) {
    return run(PB_OP_LINEAR_BWD_DATA, args, stream);
}

// in: dy[.., O] x[.., I]   out: dw[O, I]? db[O]?
pb_status pb_cuda_linear_bwd_weight(const pb_kernel_args *args, void *stream) {
    const pb_shape dy = args->in[0].shape;
    if (args->out[0].data) PB_RETURN_IF(run(PB_OP_LINEAR_BWD_WEIGHT, args, stream));
    if (!args->out[1].data) return PB_OK;
    const pb_cuda_column_sums_args sums = {.x = args->in[0].data,
                                           .dtype = args->in[0].dtype,
                                           .sums_dtype = PB_F32,
                                           .sums = args->out[1].data,
                                           .images = 1,
                                           .rows = pb_shape_rows(dy),
                                           .channels = pb_shape_last(dy),
                                           .workspace = args->workspace};
    return pb_cuda_column_sums(&sums, stream);
}
