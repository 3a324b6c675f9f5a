#include "rival_dnnl.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(PB_HAVE_DNNL)

#include <dnnl.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
const char rival_dnnl_version[] = TEXT(DNNL_VERSION_MAJOR) "." TEXT(DNNL_VERSION_MINOR) "." TEXT(DNNL_VERSION_PATCH);

#define OK(call)                                                     \
    do {                                                             \
        const dnnl_status_t status_ = (call);                        \
        if (status_ != dnnl_success) {                               \
            fprintf(stderr, "%s: status %d\n", #call, (int)status_); \
            exit(1);                                                 \
        }                                                            \
    } while (0)

static dnnl_engine_t engine(void) {
    static dnnl_engine_t e;
    if (!e) OK(dnnl_engine_create(&e, dnnl_cpu, 0));
    return e;
}

static dnnl_data_type_t type_of(pb_dtype dtype) {
    return dtype == PB_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_memory_t memory_for(const_dnnl_primitive_desc_t desc, dnnl_query_t what) {
    dnnl_memory_t m;
    const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(desc, what, 0);
    OK(dnnl_memory_create(&m, md, engine(), DNNL_MEMORY_ALLOCATE));
    const size_t bytes = dnnl_memory_desc_get_size(md);
    uint16_t *data;
    OK(dnnl_memory_get_data_handle(m, (void **)&data));
    for (size_t i = 0; i < bytes / 2; i++) data[i] = (uint16_t)(0x3c00 + i % 256);  // small numbers in either type
    return m;
}

static double time_primitive(const_dnnl_primitive_desc_t desc, const dnnl_exec_arg_t *args, int count,
                             const rival_run *run) {
    dnnl_primitive_t primitive;
    dnnl_stream_t stream;
    OK(dnnl_primitive_create(&primitive, desc));
    OK(dnnl_stream_create(&stream, engine(), dnnl_stream_default_flags));
    double best = 1e9;
    for (int i = 0; i < run->repeats + 1; i++) {
        run->before();
        const double start = run->now();
        OK(dnnl_primitive_execute(primitive, stream, count, args));
        OK(dnnl_stream_wait(stream));
        const double taken = run->now() - start;
        if (i && taken < best) best = taken;
    }
    dnnl_stream_destroy(stream);
    dnnl_primitive_destroy(primitive);
    return best;
}

// Between the plain [O, kh, kw, I] of our weights and the layout that a primitive chose; nothing where they are alike.
static double time_reorder(const dnnl_memory_desc_t *plain, dnnl_memory_t chosen, bool to_plain, const rival_run *run) {
    const dnnl_memory_desc_t *other;
    OK(dnnl_memory_get_memory_desc(chosen, &other));
    if (dnnl_memory_desc_equal(plain, other)) return 0;
    dnnl_memory_t m;
    dnnl_primitive_desc_t desc;
    OK(dnnl_memory_create(&m, plain, engine(), DNNL_MEMORY_ALLOCATE));
    OK(dnnl_reorder_primitive_desc_create(&desc, to_plain ? other : plain, engine(), to_plain ? plain : other, engine(),
                                          NULL));
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, to_plain ? chosen : m}, {DNNL_ARG_TO, to_plain ? m : chosen}};
    const double taken = time_primitive(desc, args, 2, run);
    dnnl_primitive_desc_destroy(desc);
    dnnl_memory_destroy(m);
    return taken;
}

void rival_dnnl_conv(pb_dtype dtype, int size, int in, int out, int stride, const rival_run *run, double seconds[3]) {
    if (dtype == PB_F16) return;
    const int to = (size - 1) / stride + 1;
    dnnl_memory_desc_t x, w, y, b;
    OK(dnnl_memory_desc_init_by_tag(&x, 4, (dnnl_dims_t){1, in, size, size}, type_of(dtype), dnnl_nhwc));
    OK(dnnl_memory_desc_init_by_tag(&w, 4, (dnnl_dims_t){out, in, 3, 3}, type_of(dtype), dnnl_format_tag_any));
    OK(dnnl_memory_desc_init_by_tag(&y, 4, (dnnl_dims_t){1, out, to, to}, type_of(dtype), dnnl_nhwc));
    OK(dnnl_memory_desc_init_by_tag(&b, 1, (dnnl_dims_t){out}, dnnl_f32, dnnl_x));
    const dnnl_dims_t strides = {stride, stride}, padding = {1, 1};
    dnnl_convolution_desc_t d;
    dnnl_primitive_desc_t forward, data, weights;
    OK(dnnl_convolution_forward_desc_init(&d, dnnl_forward_training, dnnl_convolution_direct, &x, &w, &b, &y, strides,
                                          padding, padding));
    OK(dnnl_primitive_desc_create(&forward, &d, NULL, engine(), NULL));
    OK(dnnl_convolution_backward_data_desc_init(&d, dnnl_convolution_direct, &x, &w, &y, strides, padding, padding));
    OK(dnnl_primitive_desc_create(&data, &d, NULL, engine(), forward));
    OK(dnnl_convolution_backward_weights_desc_init(&d, dnnl_convolution_direct, &x, &w, &b, &y, strides, padding,
                                                   padding));
    OK(dnnl_primitive_desc_create(&weights, &d, NULL, engine(), forward));
    dnnl_memory_t mx = memory_for(forward, dnnl_query_src_md), my = memory_for(forward, dnnl_query_dst_md);
    dnnl_memory_t mb = memory_for(weights, dnnl_query_diff_weights_md), wf = memory_for(forward, dnnl_query_weights_md);
    dnnl_memory_t wd = memory_for(data, dnnl_query_weights_md), bias;
    OK(dnnl_memory_create(&bias, &b, engine(), DNNL_MEMORY_ALLOCATE));
    const dnnl_exec_arg_t f[] = {{DNNL_ARG_SRC, mx}, {DNNL_ARG_WEIGHTS, wf}, {DNNL_ARG_BIAS, bias}, {DNNL_ARG_DST, my}};
    const dnnl_exec_arg_t g[] = {{DNNL_ARG_DIFF_DST, my}, {DNNL_ARG_WEIGHTS, wd}, {DNNL_ARG_DIFF_SRC, mx}};
    const dnnl_exec_arg_t h[] = {
        {DNNL_ARG_DIFF_DST, my}, {DNNL_ARG_SRC, mx}, {DNNL_ARG_DIFF_WEIGHTS, mb}, {DNNL_ARG_DIFF_BIAS, bias}};
    seconds[0] = time_primitive(forward, f, 4, run);
    seconds[1] = time_primitive(data, g, 3, run);
    seconds[2] = time_primitive(weights, h, 4, run);
    dnnl_memory_desc_t plain;
    OK(dnnl_memory_desc_init_by_tag(&plain, 4, (dnnl_dims_t){out, in, 3, 3}, type_of(dtype), dnnl_acdb));
    seconds[0] += time_reorder(&plain, wf, false, run);
    seconds[1] += time_reorder(&plain, wd, false, run);
    seconds[2] += time_reorder(&plain, mb, true, run);
    dnnl_memory_t all[] = {mx, my, mb, wf, wd, bias};
    for (int i = 0; i < 6; i++) dnnl_memory_destroy(all[i]);
    dnnl_primitive_desc_destroy(forward);
    dnnl_primitive_desc_destroy(data);
    dnnl_primitive_desc_destroy(weights);
}

// y[rows, n] = x[rows, k] w, where w[k, n] has the strides given.
static double time_matmul(pb_dtype dtype, dnnl_dims_t a, dnnl_dims_t a_strides, dnnl_dims_t b, dnnl_dims_t b_strides,
                          const rival_run *run) {
    dnnl_memory_desc_t left, right, product;
    OK(dnnl_memory_desc_init_by_strides(&left, 2, a, type_of(dtype), a_strides));
    OK(dnnl_memory_desc_init_by_strides(&right, 2, b, type_of(dtype), b_strides));
    OK(dnnl_memory_desc_init_by_tag(&product, 2, (dnnl_dims_t){a[0], b[1]}, type_of(dtype), dnnl_ab));
    dnnl_matmul_desc_t d;
    dnnl_primitive_desc_t desc;
    OK(dnnl_matmul_desc_init(&d, &left, &right, NULL, &product));
    OK(dnnl_primitive_desc_create(&desc, &d, NULL, engine(), NULL));
    dnnl_memory_t x = memory_for(desc, dnnl_query_src_md), w = memory_for(desc, dnnl_query_weights_md);
    dnnl_memory_t y = memory_for(desc, dnnl_query_dst_md);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}};
    const double taken = time_primitive(desc, args, 3, run);
    dnnl_memory_destroy(x);
    dnnl_memory_destroy(w);
    dnnl_memory_destroy(y);
    dnnl_primitive_desc_destroy(desc);
    return taken;
}

void rival_dnnl_linear(pb_dtype dtype, int rows, int in, int out, const rival_run *run, double seconds[3]) {
    if (dtype == PB_F16) return;
    seconds[0] = time_matmul(dtype, (dnnl_dims_t){rows, in}, (dnnl_dims_t){in, 1}, (dnnl_dims_t){in, out},
                             (dnnl_dims_t){1, in}, run);
    seconds[1] = time_matmul(dtype, (dnnl_dims_t){rows, out}, (dnnl_dims_t){out, 1}, (dnnl_dims_t){out, in},
                             (dnnl_dims_t){in, 1}, run);
    seconds[2] = time_matmul(dtype, (dnnl_dims_t){out, rows}, (dnnl_dims_t){1, out}, (dnnl_dims_t){rows, in},
                             (dnnl_dims_t){in, 1}, run);
}

#else

const char rival_dnnl_version[] = "";

void rival_dnnl_conv(pb_dtype dtype, int size, int in, int out, int stride, const rival_run *run, double seconds[3]) {
    (void)dtype, (void)size, (void)in, (void)out, (void)stride, (void)run, (void)seconds;
}

void rival_dnnl_linear(pb_dtype dtype, int rows, int in, int out, const rival_run *run, double seconds[3]) {
    (void)dtype, (void)rows, (void)in, (void)out, (void)run, (void)seconds;
}

#endif
