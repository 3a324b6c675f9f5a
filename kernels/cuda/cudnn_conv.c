#include "kernels/cuda/cudnn_conv.h"

enum { X = 'x', W = 'w', Y = 'y' };  // cuDNN's unique ids of the tensors

// A tensor [a,h,w,c], all of it contiguous, in cuDNN's order of dimensions (a, c, h, w).
static pb_cudnn_descriptor tensor(pb_cudnn_graph *g, int64_t id, pb_dtype dtype, int64_t a, int64_t h, int64_t w,
                                  int64_t c) {
    const int64_t dims[] = {a, c, h, w}, strides[] = {h * w * c, 1, w * c, c};
    return pb_cudnn_tensor(g, PB_CUDNN_STORED, id, pb_cudnn_type(dtype), dims, strides);
}

static pb_cudnn_descriptor convolution(pb_cudnn_graph *g, const pb_conv_shape *s) {
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t spatial = 2, dilations[] = {1, 1}, strides[] = {s->stride, s->stride};
    const int64_t before[] = {s->top, s->left}, after[] = {s->bottom, s->right};
    const pb_cudnn_descriptor d = pb_cudnn_make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    pb_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    pb_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    pb_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial);
    pb_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations);
    pb_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    pb_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    pb_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);
    pb_cudnn_finalize(g, d, "a convolution");
    return d;
}

// The names of one operation's attributes.
typedef struct operation_names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t x, w, y, convolution, alpha, beta;
} operation_names;

static const operation_names operations[] = {
    [PB_CONV_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
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

static void make_graph(pb_cudnn_graph *g, const pb_conv_shape *s) {
    const operation_names *names = &operations[s->kind];
    const float alpha = 1, beta = s->accumulate ? 1 : 0;
    const pb_cudnn_descriptor x = tensor(g, X, s->dtype, s->n, s->h, s->w, s->c);
    const pb_cudnn_descriptor w = tensor(g, W, s->dtype, s->k, s->kh, s->kw, s->c);
    const pb_cudnn_descriptor y = tensor(g, Y, s->dtype, s->n, s->oh, s->ow, s->k);
    const pb_cudnn_descriptor how = convolution(g, s), op = pb_cudnn_operation(g, names->type);
    pb_cudnn_set_descriptor(g, op, names->x, x);
    pb_cudnn_set_descriptor(g, op, names->w, w);
    pb_cudnn_set_descriptor(g, op, names->y, y);
    pb_cudnn_set_descriptor(g, op, names->convolution, how);
    pb_cudnn_set(g, op, names->alpha, CUDNN_TYPE_FLOAT, 1, &alpha);
    pb_cudnn_set(g, op, names->beta, CUDNN_TYPE_FLOAT, 1, &beta);
    pb_cudnn_finalize(g, op, "a convolution's operation");
}

pb_status pb_cudnn_conv_plan_create(const pb_cudnn_api *api, pb_cudnn_place place, const pb_conv_shape *s, int64_t most,
                                    pb_cudnn_plan *result) {
    static const char *const kinds[] = {"convolution", "convolution's gradient for its input",
                                        "convolution's gradient for its weight"};
    pb_status status = PB_OK;
    pb_cudnn_plan plan = {0};
    pb_cudnn_graph g = {.api = api};
    make_graph(&g, s);
    PB_TRY(pb_cudnn_plan_find(&g, place, s->dtype, most, &plan));
    if (!plan.plan)
        PB_FAIL(PB_ERR_UNSUPPORTED,
                "cuDNN %zu has no deterministic %s within %lld bytes of scratch for %s, x[%lld,%lld,%lld,%lld], "
                "w[%lld,%lld,%lld,%lld], stride %lld (%d candidates)",
                api->version(), kinds[s->kind], (long long)most, pb_dtype_name(s->dtype), (long long)s->n,
                (long long)s->h, (long long)s->w, (long long)s->c, (long long)s->k, (long long)s->kh, (long long)s->kw,
                (long long)s->c, (long long)s->stride, plan.rank);
    *result = plan;
fail:
    pb_cudnn_graph_deinit(&g);
    return status;
}

pb_status pb_cudnn_conv_pack_create(const pb_cudnn_plan *plan, void *x, void *w, void *y, void *workspace,
                                    pb_cudnn_descriptor *pack) {
    const int64_t ids[] = {X, W, Y};
    void *const pointers[] = {x, w, y};
    return pb_cudnn_pack_create(plan, 3, ids, pointers, workspace, pack);
}
