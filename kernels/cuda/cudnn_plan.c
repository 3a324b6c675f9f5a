#include "kernels/cuda/cudnn_plan.h"

#include <stdio.h>
#include <string.h>

enum { X = 'x', W = 'w', Y = 'y' };  // cuDNN's unique ids of the tensors
enum { MOST_CANDIDATES = 64, MOST_NOTES = CUDNN_NUMERICAL_NOTE_TYPE_COUNT, POINTER_ALIGNMENT = 16 };

bool pb_conv_shape_equal(const pb_conv_shape *a, const pb_conv_shape *b) {
    return a->kind == b->kind && a->dtype == b->dtype && a->n == b->n && a->h == b->h && a->w == b->w &&
           a->c == b->c && a->k == b->k && a->kh == b->kh && a->kw == b->kw && a->oh == b->oh && a->ow == b->ow &&
           a->stride == b->stride && a->top == b->top && a->left == b->left && a->bottom == b->bottom &&
           a->right == b->right && a->accumulate == b->accumulate;
}

static pb_status check(const pb_cudnn_api *api, cudnnStatus_t result, const char *what) {
    if (result == CUDNN_STATUS_SUCCESS) return PB_OK;
    char detail[512] = "";
    api->last_error_string(detail, sizeof detail);
    const bool memory = result == CUDNN_STATUS_ALLOC_FAILED;
    return pb_error(memory ? PB_ERR_MEMORY : PB_ERR_UNSUPPORTED, "cuDNN %zu, %s: %s%s%s", api->version(), what,
                    api->error_string(result), detail[0] ? ": " : "", detail);
}

typedef cudnnBackendDescriptor_t descriptor;

static void destroy(const pb_cudnn_api *api, descriptor *d) {
    if (*d) api->destroy_descriptor(*d);
    *d = NULL;
}

static pb_status create(const pb_cudnn_api *api, cudnnBackendDescriptorType_t type, descriptor *d) {
    return check(api, api->create_descriptor(type, d), "a descriptor");
}

static pb_status set(const pb_cudnn_api *api, descriptor d, cudnnBackendAttributeName_t name,
                     cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    const cudnnStatus_t result = api->set_attribute(d, name, type, count, values);
    char what[32];
    snprintf(what, sizeof what, "attribute %d", (int)name);
    return check(api, result, what);
}

static pb_status set_descriptor(const pb_cudnn_api *api, descriptor d, cudnnBackendAttributeName_t name,
                                descriptor value) {
    return set(api, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

pb_status pb_cudnn_properties_create(const pb_cudnn_api *api, const char *json, descriptor *properties) {
    pb_status status = PB_OK;
    descriptor d = NULL;
    PB_TRY(create(api, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &d));
    PB_TRY(set(api, d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json), json));
    PB_TRY(check(api, api->finalize(d), "a GPU's description"));
    *properties = d;
    d = NULL;
fail:
    destroy(api, &d);
    return status;
}

static cudnnDataType_t data_type(pb_dtype dtype) {
    return dtype == PB_F16 ? CUDNN_DATA_HALF : dtype == PB_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

// A tensor [a,h,w,c], all of it contiguous, in cuDNN's order of dimensions (a, c, h, w).
static pb_status make_tensor(const pb_cudnn_api *api, int64_t id, pb_dtype dtype, int64_t a, int64_t h, int64_t w,
                             int64_t c, descriptor *tensor) {
    const cudnnDataType_t type = data_type(dtype);
    const int64_t dims[] = {a, c, h, w}, strides[] = {h * w * c, 1, w * c, c}, alignment = POINTER_ALIGNMENT;
    PB_RETURN_IF(create(api, CUDNN_BACKEND_TENSOR_DESCRIPTOR, tensor));
    PB_RETURN_IF(set(api, *tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type));
    PB_RETURN_IF(set(api, *tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims));
    PB_RETURN_IF(set(api, *tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides));
    PB_RETURN_IF(set(api, *tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id));
    PB_RETURN_IF(set(api, *tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment));
    return check(api, api->finalize(*tensor), "a tensor");
}

static pb_status make_convolution(const pb_cudnn_api *api, const pb_conv_shape *s, descriptor *convolution) {
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t spatial = 2, dilations[] = {1, 1}, strides[] = {s->stride, s->stride};
    const int64_t before[] = {s->top, s->left}, after[] = {s->bottom, s->right};
    PB_RETURN_IF(create(api, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, convolution));
    PB_RETURN_IF(set(api, *convolution, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute));
    PB_RETURN_IF(set(api, *convolution, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode));
    PB_RETURN_IF(set(api, *convolution, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial));
    PB_RETURN_IF(set(api, *convolution, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations));
    PB_RETURN_IF(set(api, *convolution, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides));
    PB_RETURN_IF(set(api, *convolution, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before));
    PB_RETURN_IF(set(api, *convolution, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after));
    return check(api, api->finalize(*convolution), "a convolution");
}

// The names of one operation's attributes.
typedef struct operation_names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t x, w, y, convolution, alpha, beta;
} operation_names;

static const operation_names operations[] = {
    [PB_CONV_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [PB_CONV_BACKWARD_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [PB_CONV_BACKWARD_FILTER] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

// What a plan is made from; all of it is kept by reference inside cuDNN until the plan is final, and freed then.
typedef struct graph {
    descriptor x, w, y, convolution, operation, graph;
} graph;

static pb_status make_graph(const pb_cudnn_api *api, pb_cudnn_place place, const pb_conv_shape *s, graph *g) {
    const operation_names *names = &operations[s->kind];
    const float alpha = 1, beta = s->accumulate ? 1 : 0;
    PB_RETURN_IF(make_tensor(api, X, s->dtype, s->n, s->h, s->w, s->c, &g->x));
    PB_RETURN_IF(make_tensor(api, W, s->dtype, s->k, s->kh, s->kw, s->c, &g->w));
    PB_RETURN_IF(make_tensor(api, Y, s->dtype, s->n, s->oh, s->ow, s->k, &g->y));
    PB_RETURN_IF(make_convolution(api, s, &g->convolution));
    PB_RETURN_IF(create(api, names->type, &g->operation));
    PB_RETURN_IF(set_descriptor(api, g->operation, names->x, g->x));
    PB_RETURN_IF(set_descriptor(api, g->operation, names->w, g->w));
    PB_RETURN_IF(set_descriptor(api, g->operation, names->y, g->y));
    PB_RETURN_IF(set_descriptor(api, g->operation, names->convolution, g->convolution));
    PB_RETURN_IF(set(api, g->operation, names->alpha, CUDNN_TYPE_FLOAT, 1, &alpha));
    PB_RETURN_IF(set(api, g->operation, names->beta, CUDNN_TYPE_FLOAT, 1, &beta));
    PB_RETURN_IF(check(api, api->finalize(g->operation), "a convolution's operation"));
    PB_RETURN_IF(create(api, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, &g->graph));
    PB_RETURN_IF(set_descriptor(api, g->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, g->operation));
    if (place.handle)
        PB_RETURN_IF(set(api, g->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &place.handle));
    return check(api, api->finalize(g->graph), "a graph");
}

static void destroy_graph(const pb_cudnn_api *api, graph *g) {
    descriptor *all[] = {&g->graph, &g->operation, &g->convolution, &g->y, &g->w, &g->x};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) destroy(api, all[i]);
}

// What is known of the engine behind a candidate.
typedef struct engine_notes {
    int64_t index;
    bool noted[MOST_NOTES];
} engine_notes;

static pb_status read_notes(const pb_cudnn_api *api, descriptor candidate, engine_notes *notes) {
    pb_status status = PB_OK;
    descriptor engine = NULL;
    int64_t count = 0;
    cudnnBackendNumericalNote_t list[MOST_NOTES];
    *notes = (engine_notes){.index = -1};
    PB_TRY(create(api, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    PB_TRY(check(api, api->get_attribute(candidate, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                         &count, &engine), "a candidate's engine"));
    PB_TRY(check(api, api->get_attribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count,
                                         &notes->index), "an engine's number"));
    PB_TRY(check(api, api->get_attribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                         MOST_NOTES, &count, list), "an engine's notes"));
    for (int64_t i = 0; i < count && i < MOST_NOTES; i++)
        if ((int)list[i] >= 0 && (int)list[i] < MOST_NOTES) notes->noted[list[i]] = true;
fail:
    destroy(api, &engine);
    return status;
}

// Same bits in every run, fp32 sums; fp32 data stays fp32 (TF32 and transforms lose bits of it).
static bool acceptable(const engine_notes *notes, pb_dtype dtype) {
    const bool *noted = notes->noted;
    if (noted[CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC] || noted[CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION])
        return false;
    if (noted[CUDNN_NUMERICAL_NOTE_FFT] || noted[CUDNN_NUMERICAL_NOTE_WINOGRAD]) return false;
    return dtype != PB_F32 ||
           !(noted[CUDNN_NUMERICAL_NOTE_TENSOR_CORE] || noted[CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS]);
}

// Makes `candidate` final; *fits says whether it could be and keeps to the limit.
static pb_status try_candidate(const pb_cudnn_api *api, pb_cudnn_place place, descriptor candidate, int64_t most,
                               pb_cudnn_plan *plan, bool *fits) {
    pb_status status = PB_OK;
    int64_t count = 0, bytes = 0;
    descriptor made = NULL;
    *fits = false;
    PB_TRY(create(api, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &made));
    PB_TRY(set_descriptor(api, made, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, candidate));
    if (place.handle)
        PB_TRY(set(api, made, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &place.handle));
    else
        PB_TRY(set_descriptor(api, made, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, place.properties));
    if (api->finalize(made) != CUDNN_STATUS_SUCCESS) goto fail;  // a candidate may turn out not to work: the next
    PB_TRY(check(api, api->get_attribute(made, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                                         &bytes), "a plan's scratch size"));
    if (bytes > most) goto fail;
    plan->plan = made;
    plan->workspace_bytes = bytes;
    made = NULL;
    *fits = true;
fail:
    destroy(api, &made);
    return status;
}

// Goes through the candidates of one mode; *rank counts those of the modes before as well.
static pb_status search(const pb_cudnn_api *api, pb_cudnn_place place, const graph *g, pb_dtype dtype,
                        cudnnBackendHeurMode_t mode, int64_t most, int *rank, pb_cudnn_plan *plan) {
    pb_status status = PB_OK;
    descriptor heuristic = NULL, candidates[MOST_CANDIDATES] = {0};
    int64_t count = 0;
    PB_TRY(create(api, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristic));
    PB_TRY(set_descriptor(api, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, g->graph));
    PB_TRY(set(api, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode));
    if (!place.handle)
        PB_TRY(set_descriptor(api, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, place.properties));
    if (api->finalize(heuristic) != CUDNN_STATUS_SUCCESS) goto fail;  // this mode knows nothing of the shape
    for (int i = 0; i < MOST_CANDIDATES; i++)
        PB_TRY(create(api, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &candidates[i]));
    PB_TRY(check(api, api->get_attribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                         MOST_CANDIDATES, &count, candidates), "the candidates"));
    bool fits = false;
    for (int64_t i = 0; i < count && i < MOST_CANDIDATES && !fits; i++, ++*rank) {
        engine_notes notes;
        PB_TRY(read_notes(api, candidates[i], &notes));
        if (!acceptable(&notes, dtype)) continue;
        PB_TRY(try_candidate(api, place, candidates[i], most, plan, &fits));
        if (!fits) continue;
        plan->engine = notes.index;
        plan->rank = *rank;
        plan->tensor_core = notes.noted[CUDNN_NUMERICAL_NOTE_TENSOR_CORE];
    }
fail:
    for (int i = 0; i < MOST_CANDIDATES; i++) destroy(api, &candidates[i]);
    destroy(api, &heuristic);
    return status;
}

pb_status pb_cudnn_plan_create(const pb_cudnn_api *api, pb_cudnn_place place, const pb_conv_shape *s, int64_t most,
                               pb_cudnn_plan *result) {
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    static const char *const kinds[] = {"convolution", "convolution's gradient for its input",
                                        "convolution's gradient for its weight"};
    pb_status status = PB_OK;
    pb_cudnn_plan plan = {.api = api};
    graph g = {0};
    int rank = 0;
    PB_TRY(make_graph(api, place, s, &g));
    for (int i = 0; i < 2 && !plan.plan; i++)
        PB_TRY(search(api, place, &g, s->dtype, modes[i], most, &rank, &plan));
    if (!plan.plan)
        PB_FAIL(PB_ERR_UNSUPPORTED,
                "cuDNN %zu has no deterministic %s within %lld bytes of scratch for %s, x[%lld,%lld,%lld,%lld], "
                "w[%lld,%lld,%lld,%lld], stride %lld (%d candidates)",
                api->version(), kinds[s->kind], (long long)most, pb_dtype_name(s->dtype), (long long)s->n,
                (long long)s->h, (long long)s->w, (long long)s->c, (long long)s->k, (long long)s->kh,
                (long long)s->kw, (long long)s->c, (long long)s->stride, rank);
    *result = plan;
fail:
    destroy_graph(api, &g);
    return status;
}

void pb_cudnn_plan_destroy(pb_cudnn_plan *plan) {
    if (plan->api) destroy(plan->api, &plan->plan);
    *plan = (pb_cudnn_plan){0};
}

pb_status pb_cudnn_pack_create(const pb_cudnn_plan *plan, void *x, void *w, void *y, void *workspace,
                               descriptor *result) {
    const pb_cudnn_api *api = plan->api;
    const int64_t ids[] = {X, W, Y};
    void *pointers[] = {x, w, y};
    pb_status status = PB_OK;
    descriptor pack = NULL;
    PB_TRY(create(api, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack));
    PB_TRY(set(api, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, pointers));
    PB_TRY(set(api, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, ids));
    PB_TRY(set(api, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace));
    PB_TRY(check(api, api->finalize(pack), "a call's pointers"));
    *result = pack;
    pack = NULL;
fail:
    destroy(api, &pack);
    return status;
}

pb_status pb_cudnn_plan_run(const pb_cudnn_plan *plan, cudnnHandle_t handle, descriptor pack) {
    return check(plan->api, plan->api->execute(handle, plan->plan, pack), "a convolution");
}

#ifdef __SANITIZE_ADDRESS__
// Whatever is linked with this: cuDNN makes cuBLASLt handles when it is asked about engines, and never gives them back.
// All that leaks is allocated in cublasLtCreate, called from cudnnBackendGetAttribute.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:cublasLtCreate\n";
}
#endif
