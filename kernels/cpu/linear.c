// y = x w^T + bias + residual and its two gradients, over rows of x[.., I] and w[O, I].
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gemm.h"

static pb_gemm_matrix matrix_of(pb_tensor t) {
    return (pb_gemm_matrix){t.data, pb_shape_last(t.shape) * (int64_t)pb_dtype_size(t.dtype), 0};
}

static pb_gemm product(pb_dtype dtype, int64_t m, int64_t n, int64_t k) {
    return (pb_gemm){.m = m, .n = n, .k_segments = 1, .k_length = k, .n_segments = 1, .n_length = n, .dtype = dtype};
}

// in: x[.., I] w[O, I] bias? residual?   out: y[.., O]
static pb_gemm forward(const pb_kernel_args *args) {
    const pb_shape x = args->in[0].shape, w = args->in[1].shape;
    pb_gemm g = product(args->in[0].dtype, pb_shape_rows(x), w.dim[0], w.dim[1]);
    g.a.along = g.b.along = true;
    g.out = args->out[0].data;
    g.bias = args->in[2].data;
    g.addend = args->in[3].data;
    return g;
}

uint64_t pb_cpu_linear_workspace(const pb_kernel_args *args) {
    const pb_gemm g = forward(args);
    return pb_gemm_workspace(&g);
}

void pb_cpu_linear(const pb_kernel_args *args) {
    const pb_gemm_matrix x = matrix_of(args->in[0]), w = matrix_of(args->in[1]);
    pb_gemm g = forward(args);
    g.a.locate = g.b.locate = pb_gemm_locate_matrix;
    g.a.context = &x;
    g.b.context = &w;
    pb_gemm_run(&g, args->workspace);
}

// in: dy[.., O] w[O, I] addend?   out: dx[.., I]
static pb_gemm backward_data(const pb_kernel_args *args) {
    const pb_shape dy = args->in[0].shape, w = args->in[1].shape;
    pb_gemm g = product(args->in[0].dtype, pb_shape_rows(dy), w.dim[1], w.dim[0]);
    g.a.along = true;
    g.out = args->out[0].data;
    g.addend = args->in[2].data;
    return g;
}

uint64_t pb_cpu_linear_bwd_data_workspace(const pb_kernel_args *args) {
    const pb_gemm g = backward_data(args);
    return pb_gemm_workspace(&g);
}

void pb_cpu_linear_bwd_data(const pb_kernel_args *args) {
    const pb_gemm_matrix dy = matrix_of(args->in[0]), w = matrix_of(args->in[1]);
    pb_gemm g = backward_data(args);
    g.a.locate = g.b.locate = pb_gemm_locate_matrix;
    g.a.context = &dy;
    g.b.context = &w;
    pb_gemm_run(&g, args->workspace);
}

// in: dy[.., O] x[.., I]   out: dw[O, I]? db[O]?
static pb_gemm backward_weight(const pb_kernel_args *args) {
    const pb_shape dy = args->in[0].shape, x = args->in[1].shape;
    pb_gemm g = product(args->in[0].dtype, pb_shape_last(dy), pb_shape_last(x), pb_shape_rows(x));
    g.out = args->out[0].data;
    g.streams = g.m * g.n * (int64_t)pb_dtype_size(g.dtype) >= PB_GEMM_STREAM_BYTES;
    return g;
}

uint64_t pb_cpu_linear_bwd_weight_workspace(const pb_kernel_args *args) {
    const pb_gemm g = backward_weight(args);
    const uint64_t product_bytes = pb_gemm_workspace(&g), sums_bytes = pb_gemm_column_sums_workspace(g.m);
    return product_bytes > sums_bytes ? product_bytes : sums_bytes;
}

void pb_cpu_linear_bwd_weight(const pb_kernel_args *args) {
    const pb_gemm_matrix dy = matrix_of(args->in[0]), x = matrix_of(args->in[1]);
    pb_gemm g = backward_weight(args);
    if (args->out[0].data) {
        g.a.locate = g.b.locate = pb_gemm_locate_matrix;
        g.a.context = &dy;
        g.b.context = &x;
        pb_gemm_run(&g, args->workspace);
    }
    if (args->out[1].data) pb_gemm_column_sums(args->out[1].data, dy.data, g.k_length, g.m, g.dtype, args->workspace);
}
