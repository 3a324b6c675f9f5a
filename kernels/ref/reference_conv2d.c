// Convolution over NHWC with an optional nearest resize of its input, and its two gradients. All three walk over the
// same (output pixel, tap, input pixel) triples.
#include <math.h>

#include "kernels/ref/reference_kernels.h"

typedef struct geometry {
    const pb_attr *attr;
    int64_t images, out_h, out_w, outputs, inputs;
} geometry;

// y or dy: [N,out_h,out_w,O]
static geometry geometry_of(const pb_attr *attr, const pb_tensor *y, int64_t inputs) {
    return (geometry){attr, y->shape.dim[0], y->shape.dim[1], y->shape.dim[2], y->shape.dim[3], inputs};
}

// torch/aten UpSample.h, nearest_neighbor_compute_source_index: the scale is a float.
static int64_t nearest(int64_t position, int64_t from, int64_t to) {
    const int64_t source = (int64_t)floorf((float)position * ((float)from / (float)to));
    return source < from ? source : from - 1;
}

// Index of the first channel of x's pixel that tap (ky, kx) of output pixel (oy, ox) of image n reads; -1: padding.
static int64_t source_of(const geometry *g, int64_t n, int64_t oy, int64_t ox, int64_t ky, int64_t kx) {
    const int64_t in_h = g->attr->conv.in_h, in_w = g->attr->conv.in_w;
    const int64_t h = g->attr->conv.up_h ? g->attr->conv.up_h : in_h;
    const int64_t w = g->attr->conv.up_w ? g->attr->conv.up_w : in_w;
    const int64_t y = oy * g->attr->conv.stride + ky - g->attr->conv.pad_top;
    const int64_t x = ox * g->attr->conv.stride + kx - g->attr->conv.pad_left;
    if (y < 0 || y >= h || x < 0 || x >= w) return -1;
    return ((n * in_h + nearest(y, in_h, h)) * in_w + nearest(x, in_w, w)) * g->inputs;
}

// Index of the first channel of weight row (o, ky, kx).
static int64_t weight_of(const geometry *g, int64_t o, int64_t ky, int64_t kx) {
    return ((o * g->attr->conv.kh + ky) * g->attr->conv.kw + kx) * g->inputs;
}

// in: x[N,in_h,in_w,I] w[O,kh,kw,I] bias[O]? rowbias[N,O]? residual[N,oh,ow,O]?   out: y[N,oh,ow,O]
void pb_ref_conv2d(const pb_kernel_args *args) {
    const pb_tensor *x = &args->in[0], *w = &args->in[1], *bias = &args->in[2], *rowbias = &args->in[3];
    const pb_tensor *residual = &args->in[4], *y = &args->out[0];
    const geometry g = geometry_of(args->attr, y, pb_shape_last(x->shape));
    for (int64_t i = 0; i < pb_shape_count(y->shape); i++) {
        const int64_t o = i % g.outputs, ox = i / g.outputs % g.out_w, oy = i / g.outputs / g.out_w % g.out_h;
        const int64_t n = i / g.outputs / g.out_w / g.out_h;
        double sum = ref_bias(y, bias, o);
        for (int64_t ky = 0; ky < args->attr->conv.kh; ky++) {
            for (int64_t kx = 0; kx < args->attr->conv.kw; kx++) {
                const int64_t source = source_of(&g, n, oy, ox, ky, kx), weight = weight_of(&g, o, ky, kx);
                if (source < 0) continue;
                for (int64_t c = 0; c < g.inputs; c++) sum += ref_get(x, source + c) * ref_get(w, weight + c);
            }
        }
        ref_put(y, i, ref_add(y, ref_add(y, sum, rowbias, n * g.outputs + o), residual, i));
    }
}

// The workspace holds dx in double: output pixels are scattered onto it.
uint64_t pb_ref_conv2d_bwd_data_workspace(const pb_kernel_args *args) {
    return (uint64_t)pb_shape_count(args->out[0].shape) * sizeof(double);
}

// in: dy[N,oh,ow,O] w[O,kh,kw,I] addend[N,in_h,in_w,I]?   out: dx[N,in_h,in_w,I]
void pb_ref_conv2d_bwd_data(const pb_kernel_args *args) {
    const pb_tensor *dy = &args->in[0], *w = &args->in[1], *addend = &args->in[2], *dx = &args->out[0];
    const geometry g = geometry_of(args->attr, dy, pb_shape_last(dx->shape));
    double *sums = args->workspace;
    for (int64_t i = 0; i < pb_shape_count(dx->shape); i++) sums[i] = 0;
    for (int64_t i = 0; i < pb_shape_count(dy->shape); i++) {
        const int64_t o = i % g.outputs, ox = i / g.outputs % g.out_w, oy = i / g.outputs / g.out_w % g.out_h;
        const int64_t n = i / g.outputs / g.out_w / g.out_h;
        const double upstream = ref_get(dy, i);
        for (int64_t ky = 0; ky < args->attr->conv.kh; ky++) {
            for (int64_t kx = 0; kx < args->attr->conv.kw; kx++) {
                const int64_t source = source_of(&g, n, oy, ox, ky, kx), weight = weight_of(&g, o, ky, kx);
                if (source < 0) continue;
                for (int64_t c = 0; c < g.inputs; c++) sums[source + c] += upstream * ref_get(w, weight + c);
            }
        }
    }
    for (int64_t i = 0; i < pb_shape_count(dx->shape); i++) ref_put(dx, i, ref_add(dx, sums[i], addend, i));
}

// in: dy[N,oh,ow,O] x[N,in_h,in_w,I]   out: dw[O,kh,kw,I]? db[O]?
void pb_ref_conv2d_bwd_weight(const pb_kernel_args *args) {
    const pb_tensor *dy = &args->in[0], *x = &args->in[1], *dw = &args->out[0], *db = &args->out[1];
    const geometry g = geometry_of(args->attr, dy, pb_shape_last(x->shape));
    const int64_t pixels = pb_shape_rows(dy->shape), kw = args->attr->conv.kw, kh = args->attr->conv.kh;
    for (int64_t i = 0; ref_has(dw) && i < pb_shape_count(dw->shape); i++) {
        const int64_t c = i % g.inputs, kx = i / g.inputs % kw, ky = i / g.inputs / kw % kh, o = i / g.inputs / kw / kh;
        double sum = 0;
        for (int64_t p = 0; p < pixels; p++) {
            const int64_t ox = p % g.out_w, oy = p / g.out_w % g.out_h, n = p / g.out_w / g.out_h;
            const int64_t source = source_of(&g, n, oy, ox, ky, kx);
            if (source >= 0) sum += ref_get(dy, p * g.outputs + o) * ref_get(x, source + c);
        }
        ref_put(dw, i, sum);
    }
    for (int64_t o = 0; ref_has(db) && o < g.outputs; o++) {
        double sum = 0;
        for (int64_t p = 0; p < pixels; p++) sum += ref_get(dy, p * g.outputs + o);
        ref_put(db, o, sum);
    }
}
