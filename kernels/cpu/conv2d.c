// The convolution and its weight gradient, as products over gathered pixels; see docs/cpu_kernels.md.
#include "kernels/cpu/conv_window.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gemm.h"

// The window of x[N,H,W,I] for each place of an output of out_h x out_w.
static pb_conv_window window_over(const pb_attr *attr, pb_tensor x, int64_t out_h, int64_t out_w) {
    return (pb_conv_window){
        .data = x.data,
        .pixel_bytes = x.shape.dim[3] * (int64_t)pb_dtype_size(x.dtype),
        .grid_h = out_h,
        .grid_w = out_w,
        .height = attr->conv.up_h ? attr->conv.up_h : x.shape.dim[1],
        .width = attr->conv.up_w ? attr->conv.up_w : x.shape.dim[2],
        .in_h = x.shape.dim[1],
        .in_w = x.shape.dim[2],
        .step = attr->conv.stride,
        .first_y = -attr->conv.pad_top,
        .first_x = -attr->conv.pad_left,
        .taps_x = attr->conv.kw,
        .direction = 1,
    };
}

// in: x[N,H,W,I] w[O,kh,kw,I] bias? rowbias[N,O]? residual?   out: y[N,Ho,Wo,O]
static pb_gemm forward(const pb_kernel_args *args) {
    const pb_shape w = args->in[1].shape, y = args->out[0].shape;
    return (pb_gemm){
        .m = pb_shape_rows(y),
        .n = w.dim[0],
        .k_segments = w.dim[1] * w.dim[2],
        .k_length = w.dim[3],
        .n_segments = 1,
        .n_length = w.dim[0],
        .dtype = args->in[0].dtype,
        .a = {.along = true},
        .b = {.along = true},
        .out = args->out[0].data,
        .bias = args->in[2].data,
        .rowbias = args->in[3].data,
        .rowbias_rows = y.dim[1] * y.dim[2],
        .addend = args->in[4].data,
    };
}

uint64_t pb_cpu_conv2d_workspace(const pb_kernel_args *args) {
    const pb_gemm g = forward(args);
    return pb_gemm_workspace(&g);
}

void pb_cpu_conv2d(const pb_kernel_args *args) {
    const pb_shape y = args->out[0].shape;
    const pb_conv_window window = window_over(args->attr, args->in[0], y.dim[1], y.dim[2]);
    pb_gemm g = forward(args);
    const int64_t tap_bytes = g.k_length * (int64_t)pb_dtype_size(g.dtype);
    const pb_gemm_matrix w = {args->in[1].data, g.k_segments * tap_bytes, tap_bytes};
    g.a.locate = pb_conv_window_locate;
    g.a.context = &window;
    g.b.locate = pb_gemm_locate_matrix;
    g.b.context = &w;
    pb_gemm_run(&g, args->workspace);
}

// in: dy[N,Ho,Wo,O] x[N,H,W,I]   out: dw[O,kh,kw,I]? db[O]?
static pb_gemm backward_weight(const pb_kernel_args *args) {
    const pb_shape dy = args->in[0].shape, x = args->in[1].shape;
    const int64_t taps = args->attr->conv.kh * args->attr->conv.kw;
    return (pb_gemm){
        .m = dy.dim[3],
        .n = taps * x.dim[3],
        .k_segments = 1,
        .k_length = pb_shape_rows(dy),
        .n_segments = taps,
        .n_length = x.dim[3],
        .dtype = args->in[0].dtype,
        .out = args->out[0].data,
        .streams = dy.dim[3] * taps * x.dim[3] * (int64_t)pb_dtype_size(args->in[0].dtype) >= PB_GEMM_STREAM_BYTES,
    };
}

uint64_t pb_cpu_conv2d_bwd_weight_workspace(const pb_kernel_args *args) {
    const pb_gemm g = backward_weight(args);
    const uint64_t product_bytes = pb_gemm_workspace(&g), sums_bytes = pb_gemm_column_sums_workspace(g.m);
    return product_bytes > sums_bytes ? product_bytes : sums_bytes;
}

void pb_cpu_conv2d_bwd_weight(const pb_kernel_args *args) {
    const pb_shape dy = args->in[0].shape;
    pb_gemm g = backward_weight(args);
    if (args->out[0].data) {
        const pb_conv_window window = window_over(args->attr, args->in[1], dy.dim[1], dy.dim[2]);
        const pb_gemm_matrix rows = {args->in[0].data, g.m * (int64_t)pb_dtype_size(g.dtype), 0};
        g.a.locate = pb_gemm_locate_matrix;
        g.a.context = &rows;
        g.b.locate = pb_conv_window_locate;
        g.b.context = &window;
        pb_gemm_run(&g, args->workspace);
    }
    if (args->out[1].data)
        pb_gemm_column_sums(args->out[1].data, args->in[0].data, g.k_length, g.m, g.dtype, args->workspace);
}
