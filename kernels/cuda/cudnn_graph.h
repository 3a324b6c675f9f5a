// Graphs for cuDNN's graph API, put together from C, and the search for a plan of one. The first failure stays in the
// graph: what is added after it is NULL, and finding a plan returns it, so that a graph reads as a list of its nodes.
#ifndef PB_KERNELS_CUDA_CUDNN_GRAPH_H
#define PB_KERNELS_CUDA_CUDNN_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "kernels/cuda/cuda_libraries.h"

typedef cudnnBackendDescriptor_t pb_cudnn_descriptor;

// Where a plan will run: one of the two is set.
typedef struct pb_cudnn_place {
    cudnnHandle_t handle;
    pb_cudnn_descriptor properties;  // of a described GPU
} pb_cudnn_place;

// A described GPU, from its JSON text. PB_ERR_UNSUPPORTED where cuDNN does not understand it.
pb_status pb_cudnn_properties_create(const pb_cudnn_api *api, const char *json, pb_cudnn_descriptor *properties);
// GPU `ordinal` of this machine, which cuDNN looks at.
pb_status pb_cudnn_properties_of(const pb_cudnn_api *api, int ordinal, pb_cudnn_descriptor *properties);

enum { PB_CUDNN_MOST_DESCRIPTORS = 64, PB_CUDNN_MOST_OPERATIONS = 24, PB_CUDNN_MOST_POINTERS = 16 };

typedef struct pb_cudnn_graph {
    const pb_cudnn_api *api;
    pb_status status;
    // cuDNN keeps what a plan is made from by reference until the plan is final; all of it is freed with the graph.
    pb_cudnn_descriptor made[PB_CUDNN_MOST_DESCRIPTORS], operations[PB_CUDNN_MOST_OPERATIONS];
    int made_count, operation_count;
    int64_t virtual_id;  // of the last tensor that is never in memory
} pb_cudnn_graph;

typedef enum pb_cudnn_memory {
    PB_CUDNN_STORED,
    PB_CUDNN_VIRTUAL,   // between two operations of the graph only; its id is not looked at
    PB_CUDNN_BY_VALUE,  // the pack's pointer is the host's, read when the plan is run
} pb_cudnn_memory;

cudnnDataType_t pb_cudnn_type(pb_dtype dtype);

// dims and strides, in elements, in cuDNN's order (outermost first). Stored tensors begin at multiples of 16 bytes.
pb_cudnn_descriptor pb_cudnn_tensor(pb_cudnn_graph *g, pb_cudnn_memory memory, int64_t id, cudnnDataType_t type,
                                    const int64_t dims[4], const int64_t strides[4]);
// A descriptor that is neither a tensor nor final yet; operations are the graph's, in the order of their making.
pb_cudnn_descriptor pb_cudnn_make(pb_cudnn_graph *g, cudnnBackendDescriptorType_t type);
pb_cudnn_descriptor pb_cudnn_operation(pb_cudnn_graph *g, cudnnBackendDescriptorType_t type);
void pb_cudnn_set(pb_cudnn_graph *g, pb_cudnn_descriptor d, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, int64_t count, const void *values);
void pb_cudnn_set_descriptor(pb_cudnn_graph *g, pb_cudnn_descriptor d, cudnnBackendAttributeName_t name,
                             pb_cudnn_descriptor value);
void pb_cudnn_finalize(pb_cudnn_graph *g, pb_cudnn_descriptor d, const char *what);

// The common operations, in fp32. y = mode(x, b), b may be NULL; c = a b, batches first; y = sums of x over the
// dimensions where y has 1; y = x under another order of its dimensions.
void pb_cudnn_pointwise(pb_cudnn_graph *g, cudnnPointwiseMode_t mode, pb_cudnn_descriptor x, pb_cudnn_descriptor b,
                        pb_cudnn_descriptor y);
void pb_cudnn_matmul(pb_cudnn_graph *g, pb_cudnn_descriptor a, pb_cudnn_descriptor b, pb_cudnn_descriptor c);
void pb_cudnn_sum(pb_cudnn_graph *g, pb_cudnn_descriptor x, pb_cudnn_descriptor y);
void pb_cudnn_reshape(pb_cudnn_graph *g, pb_cudnn_descriptor x, pb_cudnn_descriptor y);

void pb_cudnn_graph_deinit(pb_cudnn_graph *g);

typedef struct pb_cudnn_plan {
    const pb_cudnn_api *api;
    pb_cudnn_descriptor plan;
    int64_t workspace_bytes;
    bool tensor_core;
    int rank;        // its place in cuDNN's list of candidates, from 0
    int64_t engine;  // cuDNN's number of it
} pb_cudnn_plan;

// The first of cuDNN's candidates, by its own order of expected speed, that gives the same bits in every run, sums in
// fp32, keeps inputs of fp32 so where `dtype` is that, and wants at most `most_workspace` bytes. plan->plan is NULL
// where there is none, and `rank` then says how many were looked at.
pb_status pb_cudnn_plan_find(pb_cudnn_graph *g, pb_cudnn_place place, pb_dtype dtype, int64_t most_workspace,
                             pb_cudnn_plan *plan);
void pb_cudnn_plan_destroy(pb_cudnn_plan *plan);  // zeroed is allowed

// The pointers of one call, by the tensors' ids; workspace of plan->workspace_bytes.
pb_status pb_cudnn_pack_create(const pb_cudnn_plan *plan, int count, const int64_t *ids, void *const *pointers,
                               void *workspace, pb_cudnn_descriptor *pack);
pb_status pb_cudnn_plan_run(const pb_cudnn_plan *plan, cudnnHandle_t handle, pb_cudnn_descriptor pack);

#endif
