// The convolution's gradient for its input: one product per residue of a pixel's place modulo the stride, each over
// only those taps that reach such pixels, so that no multiplication by a hole is done. Where the input was resized, the
// gradient at the resized size waits in the workspace and is summed into the source pixels in order.
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu/conv_window.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_kernels.h"

// One residue (y, x) of the stride.
typedef struct phase {
    const pb_attr *attr;
    pb_conv_window window;  // over dy
    const char *w;
    int64_t in_bytes, taps;       // bytes of w's innermost row [I]; kh * kw
    int64_t first_ky, first_kx;   // the first tap that reaches these pixels; the others follow at the stride
    int64_t y, x, height, width;  // the residue; dx's size before the sums of resizing
} phase;

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// Rows [I] of w for one tap and consecutive outputs.
static void locate_weights(const void *context, int64_t segment, int64_t first, int64_t count, const char **rows) {
    const phase *p = context;
    const int64_t stride = p->attr->conv.stride;
    const int64_t ky = p->first_ky + segment / p->window.taps_x * stride;
    const int64_t kx = p->first_kx + segment % p->window.taps_x * stride;
    for (int64_t i = 0; i < count; i++)
        rows[i] = p->w + ((first + i) * p->taps + ky * p->attr->conv.kw + kx) * p->in_bytes;
}

static int64_t pixel_of(const void *context, int64_t i) {
    const phase *p = context;
    const int64_t gx = i % p->window.grid_w, gy = i / p->window.grid_w % p->window.grid_h;
    const int64_t n = i / p->window.grid_w / p->window.grid_h;
    return (n * p->height + gy * p->attr->conv.stride + p->y) * p->width + gx * p->attr->conv.stride + p->x;
}

// in: dy[N,Ho,Wo,O] w[O,kh,kw,I] addend?   out: dx[N,in_h,in_w,I]
static phase phase_at(const pb_kernel_args *args, int64_t y, int64_t x) {
    const pb_attr *attr = args->attr;
    const pb_tensor dy = args->in[0];
    const pb_shape w = args->in[1].shape;
    const int64_t size = (int64_t)pb_dtype_size(dy.dtype), stride = attr->conv.stride;
    phase p = {
        .attr = attr, .w = args->in[1].data, .in_bytes = w.dim[3] * size, .taps = w.dim[1] * w.dim[2], .y = y, .x = x};
    p.height = attr->conv.up_h ? attr->conv.up_h : args->out[0].shape.dim[1];
    p.width = attr->conv.up_w ? attr->conv.up_w : args->out[0].shape.dim[2];
    p.first_ky = (y + attr->conv.pad_top) % stride;
    p.first_kx = (x + attr->conv.pad_left) % stride;
    // dx(y) takes w(ky) dy((y + pad - ky) / stride) for ky = first_ky, first_ky + stride, ...
    p.window = (pb_conv_window){
        .data = dy.data,
        .pixel_bytes = dy.shape.dim[3] * size,
        .grid_h = divide_up(p.height - y, stride),
        .grid_w = divide_up(p.width - x, stride),
        .height = dy.shape.dim[1],
        .width = dy.shape.dim[2],
        .in_h = dy.shape.dim[1],
        .in_w = dy.shape.dim[2],
        .step = 1,
        .first_y = (y + attr->conv.pad_top) / stride,
        .first_x = (x + attr->conv.pad_left) / stride,
        .taps_x = p.first_kx < w.dim[2] ? divide_up(w.dim[2] - p.first_kx, stride) : 0,
        .direction = -1,
    };
    return p;
}

static pb_gemm product_of(const pb_kernel_args *args, const phase *p) {
    const pb_shape w = args->in[1].shape;
    const int64_t taps_y = p->first_ky < w.dim[1] ? divide_up(w.dim[1] - p->first_ky, args->attr->conv.stride) : 0;
    return (pb_gemm){
        .m = args->in[0].shape.dim[0] * p->window.grid_h * p->window.grid_w,
        .n = w.dim[3],
        .k_segments = taps_y * p->window.taps_x,
        .k_length = w.dim[0],
        .n_segments = 1,
        .n_length = w.dim[3],
        .dtype = args->in[0].dtype,
        .a = {pb_conv_window_locate, &p->window, true},
        .b = {locate_weights, p, false},
        .out_row = args->attr->conv.stride > 1 ? pixel_of : NULL,
        .out_context = p,
    };
}

static bool resized(const pb_attr *attr) {
    return attr->conv.up_h || attr->conv.up_w;
}

// The gradient at the resized size, and the sums of one pixel for each thread.
static uint64_t resized_bytes(const pb_kernel_args *args, const phase *p) {
    const pb_shape dx = args->out[0].shape;
    const uint64_t bytes = (uint64_t)(dx.dim[0] * p->height * p->width * dx.dim[3]) * pb_dtype_size(args->out[0].dtype);
    return (bytes + 63) / 64 * 64;
}

static uint64_t sums_bytes(const pb_kernel_args *args) {
    return ((uint64_t)args->out[0].shape.dim[3] * 4 + 63) / 64 * 64;
}

uint64_t pb_cpu_conv2d_bwd_data_workspace(const pb_kernel_args *args) {
    uint64_t most = resized(args->attr) ? sums_bytes(args) * (uint64_t)pb_threads() : 0;
    for (int64_t y = 0; y < args->attr->conv.stride; y++)
        for (int64_t x = 0; x < args->attr->conv.stride; x++) {
            const phase p = phase_at(args, y, x);
            const pb_gemm g = product_of(args, &p);
            const uint64_t bytes = g.m ? pb_gemm_workspace(&g) : 0;
            if (bytes > most) most = bytes;
        }
    const phase p = phase_at(args, 0, 0);
    return most + (resized(args->attr) ? resized_bytes(args, &p) : 0);
}

// ---- the sums of resizing -------------------------------------------------------------------------------------------

typedef struct resize {
    const pb_kernel_args *args;
    const char *from;  // [N, height, width, C]
    char *sums;        // of each thread
    int64_t height, width;
    const pb_gemm_kernels *kernels;
} resize;

// The first index at the resized size whose source is not below `source`.
static int64_t first_from(int64_t source, int64_t in, int64_t out) {
    int64_t i = in ? source * out / in : 0;
    while (i > 0 && pb_nearest_index(i - 1, in, out) >= source) i--;
    while (i < out && pb_nearest_index(i, in, out) < source) i++;
    return i;
}

static void sum_resized(void *context, int64_t begin, int64_t end, int thread) {
    const resize *r = context;
    const pb_tensor dx = r->args->out[0];
    const int64_t h = dx.shape.dim[1], w = dx.shape.dim[2], channels = dx.shape.dim[3];
    const int64_t pixel_bytes = channels * (int64_t)pb_dtype_size(dx.dtype);
    const char *addend = r->args->in[2].data;
    float *sums = (float *)(r->sums + (uint64_t)thread * sums_bytes(r->args));
    for (int64_t line = begin; line < end; line++) {  // of N * h
        const int64_t y0 = first_from(line % h, h, r->height), y1 = first_from(line % h + 1, h, r->height);
        for (int64_t x = 0; x < w; x++) {
            const int64_t x0 = first_from(x, w, r->width), x1 = first_from(x + 1, w, r->width);
            memset(sums, 0, (size_t)channels * sizeof(float));
            for (int64_t y = y0; y < y1; y++)
                r->kernels->add_rows(sums, r->from + ((line / h * r->height + y) * r->width + x0) * pixel_bytes,
                                     channels, x1 - x0, channels, dx.dtype);
            const int64_t at = (line * w + x) * pixel_bytes;
            r->kernels->finish((char *)dx.data + at, sums, channels, dx.dtype, NULL, NULL, addend ? addend + at : NULL);
        }
    }
}

void pb_cpu_conv2d_bwd_data(const pb_kernel_args *args) {
    char *workspace = args->workspace;
    char *target = args->out[0].data;
    phase p = phase_at(args, 0, 0);
    if (resized(args->attr)) {
        target = workspace;
        workspace += resized_bytes(args, &p);
    }
    for (int64_t y = 0; y < args->attr->conv.stride; y++)
        for (int64_t x = 0; x < args->attr->conv.stride; x++) {
            p = phase_at(args, y, x);
            pb_gemm g = product_of(args, &p);
            if (!g.m) continue;
            g.out = target;
            if (!resized(args->attr)) g.addend = args->in[2].data;
            pb_gemm_run(&g, workspace);
        }
    if (resized(args->attr)) {
        resize r = {args, target, workspace, p.height, p.width, pb_gemm_path_for(PB_F32).kernels};
        const pb_shape dx = args->out[0].shape;
        pb_parallel_for(dx.dim[0] * dx.dim[1], 1, sum_resized, &r);
    }
}
