#include "kernels/cuda/cudnn_graph.h"

#include <stdio.h>
#include <string.h>

enum { MOST_CANDIDATES = 64, MOST_NOTES = CUDNN_NUMERICAL_NOTE_TYPE_COUNT, POINTER_ALIGNMENT = 16 };
enum { FIRST_VIRTUAL = 1000 };  // ids of tensors that are in memory are below

typedef pb_cudnn_descriptor descriptor;

// --- Descriptors ---

static pb_status check(const pb_cudnn_api *api, cudnnStatus_t result, const char *what) {
    if (result == CUDNN_STATUS_SUCCESS) return PB_OK;
    char detail[512] = "";
    api->last_error_string(detail, sizeof detail);
    const bool memory = result == CUDNN_STATUS_ALLOC_FAILED;
    return pb_error(memory ? PB_ERR_MEMORY : PB_ERR_UNSUPPORTED, "cuDNN %zu, %s: %s%s%s", api->version(), what,
                    api->error_string(result), detail[0] ? ": " : "", detail);
}

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

static pb_status create_properties(const pb_cudnn_api *api, cudnnBackendAttributeName_t name,
                                   cudnnBackendAttributeType_t type, int64_t count, const void *values,
                                   descriptor *properties) {
    pb_status status = PB_OK;
    descriptor d = NULL;
    PB_TRY(create(api, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &d));
    PB_TRY(set(api, d, name, type, count, values));
    PB_TRY(check(api, api->finalize(d), "a GPU's description"));
    *properties = d;
    d = NULL;
fail:
    destroy(api, &d);
    return status;
}

pb_status pb_cudnn_properties_create(const pb_cudnn_api *api, const char *json, descriptor *properties) {
    return create_properties(api, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json),
                             json, properties);
}

pb_status pb_cudnn_properties_of(const pb_cudnn_api *api, int ordinal, descriptor *properties) {
    const int32_t gpu = ordinal;
    return create_properties(api, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, &gpu, properties);
}

// --- Graphs ---

pb_cudnn_descriptor pb_cudnn_make(pb_cudnn_graph *g, cudnnBackendDescriptorType_t type) {
    if (g->status != PB_OK) return NULL;
    if (g->made_count == PB_CUDNN_MOST_DESCRIPTORS) {
        g->status = pb_error(PB_ERR_INTERNAL, "a graph for cuDNN has more than %d parts", PB_CUDNN_MOST_DESCRIPTORS);
        return NULL;
    }
    descriptor d = NULL;
    g->status = create(g->api, type, &d);
    if (g->status == PB_OK) g->made[g->made_count++] = d;
    return d;
}

pb_cudnn_descriptor pb_cudnn_operation(pb_cudnn_graph *g, cudnnBackendDescriptorType_t type) {
    const descriptor d = pb_cudnn_make(g, type);
    if (d && g->operation_count == PB_CUDNN_MOST_OPERATIONS)
        g->status = pb_error(PB_ERR_INTERNAL, "a graph for cuDNN has more than %d nodes", PB_CUDNN_MOST_OPERATIONS);
    if (g->status != PB_OK) return NULL;
    g->operations[g->operation_count++] = d;
    return d;
}

void pb_cudnn_set(pb_cudnn_graph *g, descriptor d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  int64_t count, const void *values) {
    if (g->status == PB_OK) g->status = set(g->api, d, name, type, count, values);
}

void pb_cudnn_set_descriptor(pb_cudnn_graph *g, descriptor d, cudnnBackendAttributeName_t name, descriptor value) {
    pb_cudnn_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

void pb_cudnn_finalize(pb_cudnn_graph *g, descriptor d, const char *what) {
    if (g->status == PB_OK) g->status = check(g->api, g->api->finalize(d), what);
}

cudnnDataType_t pb_cudnn_type(pb_dtype dtype) {
    return dtype == PB_F16 ? CUDNN_DATA_HALF : dtype == PB_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

pb_cudnn_descriptor pb_cudnn_tensor(pb_cudnn_graph *g, pb_cudnn_memory memory, int64_t id, cudnnDataType_t type,
                                    const int64_t dims[4], const int64_t strides[4]) {
    const descriptor d = pb_cudnn_make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const int64_t alignment = POINTER_ALIGNMENT;
    const bool yes = true;
    if (memory == PB_CUDNN_VIRTUAL) id = FIRST_VIRTUAL + g->virtual_id++;
    pb_cudnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    pb_cudnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    pb_cudnn_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    pb_cudnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    pb_cudnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    if (memory == PB_CUDNN_VIRTUAL) pb_cudnn_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes);
    if (memory == PB_CUDNN_BY_VALUE) pb_cudnn_set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes);
    pb_cudnn_finalize(g, d, "a tensor");
    return d;
}

static const cudnnDataType_t compute = CUDNN_DATA_FLOAT;

void pb_cudnn_pointwise(pb_cudnn_graph *g, cudnnPointwiseMode_t mode, descriptor x, descriptor b, descriptor y) {
    const descriptor how = pb_cudnn_make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    pb_cudnn_set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    pb_cudnn_set(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    pb_cudnn_finalize(g, how, "a pointwise function");
    const descriptor op = pb_cudnn_operation(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b) pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    pb_cudnn_finalize(g, op, "a pointwise operation");
}

void pb_cudnn_matmul(pb_cudnn_graph *g, descriptor a, descriptor b, descriptor c) {
    const descriptor how = pb_cudnn_make(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    pb_cudnn_set(g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    pb_cudnn_finalize(g, how, "a matrix product");
    const descriptor op = pb_cudnn_operation(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    pb_cudnn_finalize(g, op, "a matrix product's operation");
}

void pb_cudnn_sum(pb_cudnn_graph *g, descriptor x, descriptor y) {
    const cudnnReduceTensorOp_t add = CUDNN_REDUCE_TENSOR_ADD;
    const descriptor how = pb_cudnn_make(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    pb_cudnn_set(g, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &add);
    pb_cudnn_set(g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    pb_cudnn_finalize(g, how, "a sum");
    const descriptor op = pb_cudnn_operation(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    pb_cudnn_finalize(g, op, "a sum's operation");
}

void pb_cudnn_reshape(pb_cudnn_graph *g, descriptor x, descriptor y) {
    const descriptor op = pb_cudnn_operation(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    pb_cudnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    pb_cudnn_finalize(g, op, "a reshape");
}

void pb_cudnn_graph_deinit(pb_cudnn_graph *g) {
    while (g->made_count > 0) destroy(g->api, &g->made[--g->made_count]);
    g->operation_count = 0;
}

// --- Plans ---

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
    PB_TRY(check(
        api,
        api->get_attribute(candidate, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine),
        "a candidate's engine"));
    PB_TRY(check(api,
                 api->get_attribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count, &notes->index),
                 "an engine's number"));
    PB_TRY(check(api,
                 api->get_attribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, MOST_NOTES,
                                    &count, list),
                 "an engine's notes"));
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
    PB_TRY(check(
        api, api->get_attribute(made, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &bytes),
        "a plan's scratch size"));
    if (bytes > most) goto fail;
    plan->plan = made;
    plan->workspace_bytes = bytes;
    made = NULL;
    *fits = true;
fail:
    destroy(api, &made);
    return status;
}

// Goes through the candidates of one mode; plan->rank counts those of the modes before as well.
static pb_status search(const pb_cudnn_api *api, pb_cudnn_place place, descriptor graph, pb_dtype dtype,
                        cudnnBackendHeurMode_t mode, int64_t most, pb_cudnn_plan *plan) {
    pb_status status = PB_OK;
    descriptor heuristic = NULL, candidates[MOST_CANDIDATES] = {0};
    int64_t count = 0;
    bool fits = false;
    PB_TRY(create(api, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristic));
    PB_TRY(set_descriptor(api, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph));
    PB_TRY(set(api, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode));
    if (!place.handle) PB_TRY(set_descriptor(api, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, place.properties));
    if (api->finalize(heuristic) != CUDNN_STATUS_SUCCESS) goto fail;  // this mode knows nothing of the graph
    for (int i = 0; i < MOST_CANDIDATES; i++) PB_TRY(create(api, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &candidates[i]));
    PB_TRY(check(api,
                 api->get_attribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                    MOST_CANDIDATES, &count, candidates),
                 "the candidates"));
    for (int64_t i = 0; i < count && i < MOST_CANDIDATES; i++, plan->rank++) {
        engine_notes notes;
        PB_TRY(read_notes(api, candidates[i], &notes));
        if (!acceptable(&notes, dtype)) continue;
        PB_TRY(try_candidate(api, place, candidates[i], most, plan, &fits));
        if (!fits) continue;
        plan->engine = notes.index;
        plan->tensor_core = notes.noted[CUDNN_NUMERICAL_NOTE_TENSOR_CORE];
        break;
    }
fail:
    for (int i = 0; i < MOST_CANDIDATES; i++) destroy(api, &candidates[i]);
    destroy(api, &heuristic);
    return status;
}

pb_status pb_cudnn_plan_find(pb_cudnn_graph *g, pb_cudnn_place place, pb_dtype dtype, int64_t most,
                             pb_cudnn_plan *result) {
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    pb_cudnn_plan plan = {.api = g->api};
    const descriptor graph = pb_cudnn_make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    pb_cudnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->operation_count,
                 g->operations);
    if (place.handle) pb_cudnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &place.handle);
    pb_cudnn_finalize(g, graph, "a graph");
    PB_RETURN_IF(g->status);
    for (int i = 0; i < 2 && !plan.plan; i++) PB_RETURN_IF(search(g->api, place, graph, dtype, modes[i], most, &plan));
    *result = plan;
    return PB_OK;
}

void pb_cudnn_plan_destroy(pb_cudnn_plan *plan) {
    if (plan->api) destroy(plan->api, &plan->plan);
    *plan = (pb_cudnn_plan){0};
}

pb_status pb_cudnn_pack_create(const pb_cudnn_plan *plan, int count, const int64_t *ids, void *const *pointers,
                               void *workspace, descriptor *result) {
    const pb_cudnn_api *api = plan->api;
    pb_status status = PB_OK;
    descriptor pack = NULL;
    PB_TRY(create(api, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack));
    PB_TRY(set(api, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers));
    PB_TRY(set(api, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids));
    PB_TRY(set(api, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace));
    PB_TRY(check(api, api->finalize(pack), "a call's pointers"));
    *result = pack;
    pack = NULL;
fail:
    destroy(api, &pack);
    return status;
}

pb_status pb_cudnn_plan_run(const pb_cudnn_plan *plan, cudnnHandle_t handle, descriptor pack) {
    return check(plan->api, plan->api->execute(handle, plan->plan, pack), "a plan");
}

#ifdef __SANITIZE_ADDRESS__
// Whatever is linked with this: cuDNN makes cuBLASLt handles when it is asked about engines, and its engines keep what
// they have compiled; it gives neither back.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:cublasLtCreate\nleak:libcudnn\nleak:libnvrtc\n";
}
#endif
