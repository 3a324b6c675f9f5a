// conv2d and its gradients through cuDNN; a convolution of single pixels is a matrix product (cuda_linear.h). Where the
// input is resized first, the resized copy lies in the workspace.
//
// Roundings: cuDNN rounds the convolution itself to the storage dtype, and a residual or addend goes in before that
// (beta = 1). Where there is a residual, bias and row bias are added to it on its way to the result's place, before the
// convolution: one pass instead of a copy and a pass. Else they follow in one more kernel. PyTorch rounds between the
// convolution and its bias as well.
#include "kernels/cuda/cuda_conv.h"

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_linear.h"
#include "kernels/cuda/cuda_resize.h"

static pb_cuda_resize_args resize_of(const pb_attr *attr, const pb_conv_shape *s) {
    return (pb_cuda_resize_args){.dtype = s->dtype,
                                 .n = s->n,
                                 .h = attr->conv.in_h,
                                 .w = attr->conv.in_w,
                                 .up_h = attr->conv.up_h,
                                 .up_w = attr->conv.up_w,
                                 .channels = s->c};
}

// y = sum and bias and row bias, where there are any; `sum` is y or the residual.
static pb_status add_biases(const pb_kernel_args *args, const void *sum, bool bias_done, void *stream) {
    const pb_tensor *y = &args->out[0];
    const pb_cuda_epilogue_args epilogue = {.sum = sum,
                                            .sum_dtype = y->dtype,
                                            .y = y->data,
                                            .dtype = y->dtype,
                                            .bias = bias_done ? NULL : args->in[2].data,
                                            .rowbias = args->in[3].data,
                                            .rows = pb_shape_rows(y->shape),
                                            .channels = pb_shape_last(y->shape),
                                            .images = y->shape.dim[0]};
    return epilogue.bias || epilogue.rowbias || sum != y->data ? pb_cuda_epilogue(&epilogue, stream) : PB_OK;
}

static pb_status run_product(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args) {
    const pb_cuda_gemm g = pb_cuda_gemm_of(op, args);
    return pb_cuda_gemm_run(math, &g);
}

static pb_status run_plan(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args) {
    const pb_conv_call *call;
    PB_RETURN_IF(pb_conv_call_of(math, op, args, &call));
    return pb_cudnn_plan_run(call->plan, math->dnn_handle, call->pack);
}

// What the result is to be added to, at the result's place.
static pb_status copy_addend(pb_cuda_math *math, const pb_tensor *addend, const pb_tensor *out) {
    if (addend->data == out->data) return PB_OK;
    const size_t bytes = (size_t)pb_shape_count(out->shape) * pb_dtype_size(out->dtype);
    const cudaError_t error = cudaMemcpyAsync(out->data, addend->data, bytes, cudaMemcpyDeviceToDevice, math->stream);
    if (error == cudaSuccess) return PB_OK;
    return pb_error(PB_ERR_INTERNAL, "CUDA, the copy of an addend: %s", cudaGetErrorString(error));
}

// in: x[N,H,W,I] w[O,kh,kw,I] bias? rowbias[N,O]? residual?   out: y[N,Ho,Wo,O]
pb_status pb_cuda_conv2d(const pb_kernel_args *args, void *stream) {
    pb_cuda_math *math;
    PB_RETURN_IF(pb_cuda_math_of(stream, &math));
    if (pb_cuda_is_pixelwise(args->attr)) {
        PB_RETURN_IF(run_product(math, PB_OP_CONV2D, args));
        return add_biases(args, args->out[0].data, true, stream);
    }
    const pb_conv_shape shape = pb_conv_shape_of(PB_OP_CONV2D, args);
    if (pb_conv_resizes(args->attr)) {
        pb_cuda_resize_args resize = resize_of(args->attr, &shape);
        resize.from = args->in[0].data;
        resize.to = args->workspace;
        PB_RETURN_IF(pb_cuda_resize(&resize, stream));
    }
    if (shape.accumulate) PB_RETURN_IF(add_biases(args, args->in[4].data, false, stream));
    PB_RETURN_IF(run_plan(math, PB_OP_CONV2D, args));
    return shape.accumulate ? PB_OK : add_biases(args, args->out[0].data, false, stream);
}

// in: dy[N,Ho,Wo,O] w[O,kh,kw,I] addend?   out: dx[N,in_h,in_w,I]
pb_status pb_cuda_conv2d_bwd_data(const pb_kernel_args *args, void *stream) {
    pb_cuda_math *math;
    PB_RETURN_IF(pb_cuda_math_of(stream, &math));
    if (pb_cuda_is_pixelwise(args->attr)) return run_product(math, PB_OP_CONV2D_BWD_DATA, args);
    const pb_conv_shape shape = pb_conv_shape_of(PB_OP_CONV2D_BWD_DATA, args);
    if (shape.accumulate) PB_RETURN_IF(copy_addend(math, &args->in[2], &args->out[0]));
    PB_RETURN_IF(run_plan(math, PB_OP_CONV2D_BWD_DATA, args));
    if (!pb_conv_resizes(args->attr)) return PB_OK;
    pb_cuda_resize_args resize = resize_of(args->attr, &shape);
    resize.from = args->workspace;
    resize.addend = args->in[2].data;
    resize.to = args->out[0].data;
    return pb_cuda_resize_bwd(&resize, stream);
}

// in: dy[N,Ho,Wo,O] x[N,H,W,I]   out: dw[O,kh,kw,I]? db[O]?
pb_status pb_cuda_conv2d_bwd_weight(const pb_kernel_args *args, void *stream) {
    pb_cuda_math *math;
    PB_RETURN_IF(pb_cuda_math_of(stream, &math));
    if (args->out[0].data && pb_cuda_is_pixelwise(args->attr)) {
        PB_RETURN_IF(run_product(math, PB_OP_CONV2D_BWD_WEIGHT, args));
    } else if (args->out[0].data) {
        const pb_conv_shape shape = pb_conv_shape_of(PB_OP_CONV2D_BWD_WEIGHT, args);
        if (pb_conv_resizes(args->attr)) {
            pb_cuda_resize_args resize = resize_of(args->attr, &shape);
            resize.from = args->in[1].data;
            resize.to = args->workspace;
            PB_RETURN_IF(pb_cuda_resize(&resize, stream));
        }
        PB_RETURN_IF(run_plan(math, PB_OP_CONV2D_BWD_WEIGHT, args));
    }
    if (!args->out[1].data) return PB_OK;
    const pb_tensor *dy = &args->in[0];
    const pb_cuda_column_sums_args sums = {.x = dy->data,
                                           .dtype = dy->dtype,
                                           .sums_dtype = PB_F32,
                                           .sums = args->out[1].data,
                                           .images = 1,
                                           .rows = pb_shape_rows(dy->shape),
                                           .channels = pb_shape_last(dy->shape),
                                           .workspace = args->workspace};
    return pb_cuda_column_sums(&sums, stream);
}
