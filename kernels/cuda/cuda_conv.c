// conv2d and its gradients through cuDNN; a convolution of single pixels is a matrix product (cuda_linear.h). Where the
// input is resized first, the resized copy lies in the workspace.
//
// Roundings: cuDNN rounds the convolution itself to the storage dtype, and a residual or addend goes in before that
// (beta = 1, over a copy where the result has a place of its own); bias and row bias follow in one more kernel. PyTorch
// rounds between the convolution and its bias as well.
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

// Bias and row bias, where there are any, on what the convolution left in y.
static pb_status finish(const pb_kernel_args *args, bool bias_done, void *stream) {
    const pb_tensor *y = &args->out[0];
    const pb_cuda_epilogue_args epilogue = {.sum = y->data,
                                            .sum_dtype = y->dtype,
                                            .y = y->data,
                                            .dtype = y->dtype,
                                            .bias = bias_done ? NULL : args->in[2].data,
                                            .rowbias = args->in[3].data,
                                            .rows = pb_shape_rows(y->shape),
                                            .channels = pb_shape_last(y->shape),
                                            .images = y->shape.dim[0]};
    return epilogue.bias || epilogue.rowbias ? pb_cuda_epilogue(&epilogue, stream) : PB_OK;
}

static pb_status run_product(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args) {
    const pb_cuda_gemm g = pb_cuda_gemm_of(op, args);
    return pb_cuda_gemm_run(math, &g);
}

static pb_status run_plan(pb_cuda_math *math, pb_opcode op, const pb_kernel_args *args, bool accumulate) {
    const pb_tensor *out = &args->out[0];
    const pb_tensor *addend = pb_conv_tensors_of(op, args).addend;
    const pb_conv_call *call;
    PB_RETURN_IF(pb_conv_call_of(math, op, args, &call));
    if (accumulate && addend->data != out->data) {
        const size_t bytes = (size_t)pb_shape_count(out->shape) * pb_dtype_size(out->dtype);
        const cudaError_t error =
            cudaMemcpyAsync(out->data, addend->data, bytes, cudaMemcpyDeviceToDevice, math->stream);
        if (error != cudaSuccess)
            return pb_error(PB_ERR_INTERNAL, "CUDA, the copy of an addend: %s", cudaGetErrorString(error));
    }
    return pb_cudnn_plan_run(call->plan, math->dnn_handle, call->pack);
}

// in: x[N,H,W,I] w[O,kh,kw,I] bias? rowbias[N,O]? residual?   out: y[N,Ho,Wo,O]
pb_status pb_cuda_conv2d(const pb_kernel_args *args, void *stream) {
    pb_cuda_math *math;
    PB_RETURN_IF(pb_cuda_math_of(stream, &math));
    if (pb_cuda_is_pixelwise(args->attr)) {
        PB_RETURN_IF(run_product(math, PB_OP_CONV2D, args));
        return finish(args, true, stream);
    }
    const pb_conv_shape shape = pb_conv_shape_of(PB_OP_CONV2D, args);
    if (pb_conv_resizes(args->attr)) {
        pb_cuda_resize_args resize = resize_of(args->attr, &shape);
        resize.from = args->in[0].data;
        resize.to = args->workspace;
        PB_RETURN_IF(pb_cuda_resize(&resize, stream));
    }
    PB_RETURN_IF(run_plan(math, PB_OP_CONV2D, args, shape.accumulate));
    return finish(args, false, stream);
}

// in: dy[N,Ho,Wo,O] w[O,kh,kw,I] addend?   out: dx[N,in_h,in_w,I]
pb_status pb_cuda_conv2d_bwd_data(const pb_kernel_args *args, void *stream) {
    pb_cuda_math *math;
    PB_RETURN_IF(pb_cuda_math_of(stream, &math));
    if (pb_cuda_is_pixelwise(args->attr)) return run_product(math, PB_OP_CONV2D_BWD_DATA, args);
    const pb_conv_shape shape = pb_conv_shape_of(PB_OP_CONV2D_BWD_DATA, args);
    PB_RETURN_IF(run_plan(math, PB_OP_CONV2D_BWD_DATA, args, shape.accumulate));
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
        PB_RETURN_IF(run_plan(math, PB_OP_CONV2D_BWD_WEIGHT, args, false));
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
