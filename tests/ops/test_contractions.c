// test: links=quant,ref,cpu,base timeout=300
// The CPU contractions against plain loops in double, for each instruction set of this machine and each storage dtype:
// odd shapes, missing arguments, results in place, and no byte written outside of outputs and workspace.
#include <stdbool.h>
#include <stdlib.h>

#include "base/parallel.h"
#include "kernels/cpu/cpu_kernels.h"
#include "base/isa.h"

#include "check.h"

enum { GUARD = 64 };

static uint64_t random_state = 1;

static double random_value(void) {  // in -1..1
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int32_t)(random_state >> 32) / 2147483648.0;
}

// ---- tensors between guards -----------------------------------------------------------------------------------------

static pb_tensor tensor_make(pb_dtype dtype, pb_shape shape) {
    const size_t bytes = (size_t)pb_shape_count(shape) * pb_dtype_size(dtype);
    unsigned char *raw = aligned_alloc(64, (bytes + 2 * GUARD + 63) / 64 * 64);
    memset(raw, 0x5c, bytes + 2 * GUARD);
    return (pb_tensor){raw + GUARD, dtype, shape};
}

static pb_tensor tensor_random(pb_dtype dtype, pb_shape shape) {
    const pb_tensor t = tensor_make(dtype, shape);
    for (int64_t i = 0; i < pb_shape_count(shape); i++) pb_dtype_store(dtype, t.data, (size_t)i, random_value());
    return t;
}

static size_t tensor_bytes(pb_tensor t) {
    return (size_t)pb_shape_count(t.shape) * pb_dtype_size(t.dtype);
}

static bool tensor_guarded(pb_tensor t) {
    const unsigned char *end = (unsigned char *)t.data + tensor_bytes(t), *start = (unsigned char *)t.data - GUARD;
    for (int i = 0; i < GUARD; i++)
        if (start[i] != 0x5c || end[i] != 0x5c) return false;
    return true;
}

static void tensor_free(pb_tensor t) {
    if (t.data) free((unsigned char *)t.data - GUARD);
}

static double at(pb_tensor t, int64_t i) {
    return pb_dtype_load(t.dtype, t.data, (size_t)i);
}

// ---- running and comparing ------------------------------------------------------------------------------------------

static char case_text[200];

// Runs twice over different garbage in workspace and outputs, with 3 threads and with 1; the bits must agree. `alias`
// is the input that output 0 takes the place of, or -1.
static void run(pb_kernel kernel, pb_kernel_workspace query, pb_kernel_args *args, int alias) {
    // Only the gradient of attention adds in an order that depends on the number of threads.
    const int threads[] = {3, kernel == pb_cpu_attention_bwd ? 3 : 1};
    pb_threads_set(threads[0]);
    const uint64_t bytes = query(args);
    unsigned char *raw = aligned_alloc(64, (bytes + 2 * GUARD + 63) / 64 * 64);
    args->workspace = raw + GUARD;
    args->workspace_bytes = bytes;
    unsigned char *first[PB_MAX_OUTPUTS] = {0};
    const pb_tensor input = alias >= 0 ? args->in[alias] : (pb_tensor){0};
    for (int round = 0; round < 2; round++) {
        pb_threads_set(threads[round]);
        CHECK(query(args) <= bytes);
        memset(raw, round ? 0xff : 0x5c, bytes + GUARD);
        memset(raw, 0x5c, GUARD);
        memset(raw + GUARD + bytes, 0x5c, GUARD);
        for (int o = 0; o < PB_MAX_OUTPUTS; o++)
            if (args->out[o].data) memset(args->out[o].data, round ? 0xff : 0x11, tensor_bytes(args->out[o]));
        if (alias >= 0) {
            memcpy(args->out[0].data, input.data, tensor_bytes(input));
            args->in[alias].data = args->out[0].data;
        }
        kernel(args);
        if (alias >= 0) args->in[alias] = input;
        for (int i = 0; i < GUARD; i++)
            CHECK_THAT(raw[i] == 0x5c && raw[GUARD + bytes + i] == 0x5c, "%s: writes outside of its workspace",
                       case_text);
        for (int o = 0; o < PB_MAX_OUTPUTS; o++) {
            const pb_tensor t = args->out[o];
            if (!t.data) continue;
            CHECK_THAT(tensor_guarded(t), "%s: writes outside of output %d", case_text, o);
            if (round) {
                CHECK_THAT(!memcmp(first[o], t.data, tensor_bytes(t)), "%s: output %d differs in a second run",
                           case_text, o);
            } else {
                first[o] = malloc(tensor_bytes(t) + 1);
                memcpy(first[o], t.data, tensor_bytes(t));
            }
        }
    }
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) free(first[o]);
    free(raw);
}

static double error_of(pb_tensor t, const double *expected) {
    double square = 0, difference = 0;
    for (int64_t i = 0; i < pb_shape_count(t.shape); i++) {
        const double d = at(t, i) - expected[i];
        difference += d * d;
        square += expected[i] * expected[i];
    }
    // Gradients that cancel to nothing are held against the size of their terms.
    return difference / (square + 1e-4 * (double)pb_shape_count(t.shape));
}

static void compare(const char *what, pb_tensor t, const double *expected, pb_dtype compute) {
    // Normalised mean square error: sums in fp32; a rounding to 16 bits, or two, where that is the storage.
    const double limit = compute == PB_F32 ? 1e-12 : compute == PB_F16 ? 6e-7 : 4e-5;
    const double error = error_of(t, expected);
    CHECK_THAT(error <= limit, "%s: %s is off by %.3g (limit %.3g)", case_text, what, error, limit);
    // The limit notices one wrong element.
    double *wrong = malloc((size_t)pb_shape_count(t.shape) * sizeof(double)), largest = 0;
    for (int64_t i = 0; i < pb_shape_count(t.shape); i++) {
        wrong[i] = expected[i];
        if (fabs(wrong[i]) > fabs(largest)) largest = wrong[i];
    }
    wrong[0] += 2 * largest;
    CHECK_THAT(error_of(t, wrong) > limit, "%s: %s: the limit is blind", case_text, what);
    free(wrong);
}

// ---- linear ---------------------------------------------------------------------------------------------------------

static double *doubles(pb_shape shape) {
    return calloc((size_t)pb_shape_count(shape) + 1, sizeof(double));
}

static double rounded(pb_dtype dtype, double x) {
    unsigned char place[8];
    pb_dtype_store(dtype, place, 0, x);
    return pb_dtype_load(dtype, place, 0);
}

static void check_linear(pb_dtype dtype, int64_t rows, int64_t in, int64_t out, bool bias, bool residual) {
    snprintf(case_text, sizeof case_text, "isa %d/%d %s linear %d x %d -> %d", pb_cpu_isa().level, pb_cpu_isa().bf16,
             pb_dtype_name(dtype), (int)rows, (int)in, (int)out);
    const pb_attr attr = {0};
    const pb_tensor x = tensor_random(dtype, PB_SHAPE2(rows, in)), w = tensor_random(dtype, PB_SHAPE2(out, in));
    const pb_tensor b = tensor_random(PB_F32, PB_SHAPE1(out)), r = tensor_random(dtype, PB_SHAPE2(rows, out));
    const pb_tensor y = tensor_make(dtype, r.shape), dx = tensor_make(dtype, x.shape), dw = tensor_make(dtype, w.shape);
    const pb_tensor db = tensor_make(PB_F32, b.shape), add = tensor_random(dtype, x.shape);
    double *ey = doubles(y.shape), *ex = doubles(x.shape), *ew = doubles(w.shape), *eb = doubles(b.shape);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t o = 0; o < out; o++) {
            double sum = bias ? rounded(dtype, at(b, o)) : 0;
            for (int64_t k = 0; k < in; k++) {
                sum += at(x, i * in + k) * at(w, o * in + k);
                ex[i * in + k] += at(r, i * out + o) * at(w, o * in + k);
                ew[o * in + k] += at(r, i * out + o) * at(x, i * in + k);
            }
            ey[i * out + o] = sum + (residual ? at(r, i * out + o) : 0);
            eb[o] += at(r, i * out + o);
        }
    pb_kernel_args args = {.attr = &attr, .in = {x, w}, .out = {y}};
    if (bias) args.in[2] = b;
    if (residual) args.in[3] = r;
    run(pb_cpu_linear, pb_cpu_linear_workspace, &args, residual ? 3 : -1);
    compare("y", y, ey, dtype);

    args = (pb_kernel_args){.attr = &attr, .in = {r, w}, .out = {dx}};
    if (residual) {
        args.in[2] = add;
        for (int64_t i = 0; i < rows * in; i++) ex[i] += at(add, i);
    }
    run(pb_cpu_linear_bwd_data, pb_cpu_linear_bwd_data_workspace, &args, residual ? 2 : -1);
    compare("dx", dx, ex, dtype);

    args = (pb_kernel_args){.attr = &attr, .in = {r, x}, .out = {dw, db}};
    if (!bias) args.out[1].data = NULL;
    run(pb_cpu_linear_bwd_weight, pb_cpu_linear_bwd_weight_workspace, &args, -1);
    compare("dw", dw, ew, dtype);
    if (bias) compare("db", db, eb, PB_F32);
    const pb_tensor all[] = {x, w, b, r, y, dx, dw, db, add};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tensor_free(all[i]);
    free(ey), free(ex), free(ew), free(eb);
}

// ---- convolution ----------------------------------------------------------------------------------------------------

typedef struct conv_case {
    int n, h, w, in, out, kh, kw, stride, top, left, bottom, right, up_h, up_w;
    bool extras;  // bias, rowbias, residual and addend
} conv_case;

static int64_t nearest(int64_t i, int64_t in, int64_t out) {
    const int64_t source = (int64_t)floorf((float)i * ((float)in / (float)out));
    return source < in ? source : in - 1;
}

static void check_conv(pb_dtype dtype, conv_case c) {
    snprintf(case_text, sizeof case_text, "isa %d/%d %s conv %dx%dx%dx%d -> %d, %dx%d stride %d up %dx%d",
             pb_cpu_isa().level, pb_cpu_isa().bf16, pb_dtype_name(dtype), c.n, c.h, c.w, c.in, c.out, c.kh, c.kw,
             c.stride, c.up_h, c.up_w);
    const int64_t h = c.up_h ? c.up_h : c.h, w = c.up_w ? c.up_w : c.w;
    const int64_t oh = (h + c.top + c.bottom - c.kh) / c.stride + 1, ow = (w + c.left + c.right - c.kw) / c.stride + 1;
    pb_attr attr = {.conv = {c.kh, c.kw, c.stride, c.top, c.left, c.bottom, c.right, c.up_h, c.up_w, c.h, c.w}};
    const pb_tensor x = tensor_random(dtype, PB_SHAPE4(c.n, c.h, c.w, c.in));
    const pb_tensor wt = tensor_random(dtype, PB_SHAPE4(c.out, c.kh, c.kw, c.in));
    const pb_tensor b = tensor_random(PB_F32, PB_SHAPE1(c.out)), rb = tensor_random(dtype, PB_SHAPE2(c.n, c.out));
    const pb_tensor r = tensor_random(dtype, PB_SHAPE4(c.n, oh, ow, c.out)), y = tensor_make(dtype, r.shape);
    const pb_tensor dx = tensor_make(dtype, x.shape), dw = tensor_make(dtype, wt.shape),
                    db = tensor_make(PB_F32, b.shape);
    const pb_tensor add = tensor_random(dtype, x.shape);
    double *ey = doubles(y.shape), *ex = doubles(x.shape), *ew = doubles(wt.shape), *eb = doubles(b.shape);
    for (int64_t p = 0; p < c.n * oh * ow; p++)
        for (int64_t o = 0; o < c.out; o++) {
            const int64_t n = p / (oh * ow), py = p / ow % oh, px = p % ow;
            const double dy = at(r, p * c.out + o);
            double sum = c.extras ? rounded(dtype, at(b, o)) + at(rb, n * c.out + o) + dy : 0;
            eb[o] += dy;
            for (int ky = 0; ky < c.kh; ky++)
                for (int kx = 0; kx < c.kw; kx++) {
                    const int64_t iy = py * c.stride + ky - c.top, ix = px * c.stride + kx - c.left;
                    if (iy < 0 || ix < 0 || iy >= h || ix >= w) continue;
                    const int64_t pixel = ((n * c.h + nearest(iy, c.h, h)) * c.w + nearest(ix, c.w, w)) * c.in;
                    const int64_t weight = ((o * c.kh + ky) * c.kw + kx) * c.in;
                    for (int i = 0; i < c.in; i++) {
                        sum += at(x, pixel + i) * at(wt, weight + i);
                        ex[pixel + i] += dy * at(wt, weight + i);
                        ew[weight + i] += dy * at(x, pixel + i);
                    }
                }
            ey[p * c.out + o] = sum;
        }
    pb_kernel_args args = {.attr = &attr, .in = {x, wt}, .out = {y}};
    if (c.extras) args.in[2] = b, args.in[3] = rb, args.in[4] = r;
    run(pb_cpu_conv2d, pb_cpu_conv2d_workspace, &args, c.extras ? 4 : -1);
    compare("y", y, ey, dtype);

    args = (pb_kernel_args){.attr = &attr, .in = {r, wt}, .out = {dx}};
    if (c.extras) {
        args.in[2] = add;
        for (int64_t i = 0; i < pb_shape_count(x.shape); i++) ex[i] += at(add, i);
    }
    run(pb_cpu_conv2d_bwd_data, pb_cpu_conv2d_bwd_data_workspace, &args, c.extras ? 2 : -1);
    compare("dx", dx, ex, dtype);

    args = (pb_kernel_args){.attr = &attr, .in = {r, x}, .out = {dw, db}};
    if (!c.extras) args.out[1].data = NULL;
    run(pb_cpu_conv2d_bwd_weight, pb_cpu_conv2d_bwd_weight_workspace, &args, -1);
    compare("dw", dw, ew, dtype);
    if (c.extras) compare("db", db, eb, PB_F32);
    const pb_tensor all[] = {x, wt, b, rb, r, y, dx, dw, db, add};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tensor_free(all[i]);
    free(ey), free(ex), free(ew), free(eb);
}

// A fused op gives the bits of the separate ones: matmul and bias, then the row bias, then the residual.
static void check_rounding(pb_dtype dtype) {
    snprintf(case_text, sizeof case_text, "isa %d %s rounding", pb_cpu_isa().level, pb_dtype_name(dtype));
    const pb_attr attr = {.conv = {.kh = 1, .kw = 1, .stride = 1, .in_h = 3, .in_w = 5}};
    enum { N = 2, I = 9, O = 37, PIXELS = 15 };
    const pb_tensor x = tensor_random(dtype, PB_SHAPE4(N, 3, 5, I)), w = tensor_random(dtype, PB_SHAPE4(O, 1, 1, I));
    const pb_tensor b = tensor_random(PB_F32, PB_SHAPE1(O)), rb = tensor_random(dtype, PB_SHAPE2(N, O));
    const pb_tensor r = tensor_random(dtype, PB_SHAPE4(N, 3, 5, O)), y = tensor_make(dtype, r.shape);
    const pb_tensor plain = tensor_make(dtype, r.shape);
    pb_kernel_args args = {.attr = &attr, .in = {x, w, b}, .out = {plain}};
    run(pb_cpu_conv2d, pb_cpu_conv2d_workspace, &args, -1);
    args = (pb_kernel_args){.attr = &attr, .in = {x, w, b, rb, r}, .out = {y}};
    run(pb_cpu_conv2d, pb_cpu_conv2d_workspace, &args, 4);
    int wrong = 0;
    for (int64_t i = 0; i < N * PIXELS * O; i++) {
        const double row = rounded(dtype, at(plain, i) + at(rb, i / (PIXELS * O) * O + i % O));
        wrong += rounded(dtype, row + at(r, i)) != at(y, i);
    }
    CHECK_THAT(!wrong, "%s: %d elements are not those of separate ops", case_text, wrong);
    const pb_tensor all[] = {x, w, b, rb, r, y, plain};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tensor_free(all[i]);
}

// ---- attention ------------------------------------------------------------------------------------------------------

static void check_attention(pb_dtype dtype, int n, int heads, int d, int tq, int tk, bool causal) {
    snprintf(case_text, sizeof case_text, "isa %d/%d %s attention %d x %d heads of %d, %d x %d%s", pb_cpu_isa().level,
             pb_cpu_isa().bf16, pb_dtype_name(dtype), n, heads, d, tq, tk, causal ? ", causal" : "");
    const int c = heads * d;
    const pb_attr attr = {.attention = {heads, causal, 1.5f / sqrtf((float)d)}};
    const pb_shape qs = PB_SHAPE3(n, tq, c), ks = PB_SHAPE3(n, tk, c);
    const pb_tensor q = tensor_random(dtype, qs), k = tensor_random(dtype, ks), v = tensor_random(dtype, ks);
    const pb_tensor dy = tensor_random(dtype, qs), y = tensor_make(dtype, qs),
                    lse = tensor_make(PB_F32, PB_SHAPE3(n, heads, tq));
    const pb_tensor dq = tensor_make(dtype, qs), dk = tensor_make(dtype, ks), dv = tensor_make(dtype, ks);
    double *ey = doubles(qs), *el = doubles(lse.shape), *eq = doubles(qs), *ek = doubles(ks), *ev = doubles(ks);
    double *p = calloc((size_t)tk, sizeof(double)), *dp = calloc((size_t)tk, sizeof(double));
    for (int row = 0; row < n * heads * tq; row++) {
        const int image = row / (heads * tq), head = row / tq % heads, i = row % tq;
        const int64_t qi = ((int64_t)image * tq + i) * c + head * d, k0 = (int64_t)image * tk * c + head * d;
        const int keys = causal && i + 1 < tk ? i + 1 : tk;
        double most = -INFINITY, sum = 0, delta = 0;
        for (int j = 0; j < keys; j++) {
            p[j] = dp[j] = 0;
            for (int e = 0; e < d; e++) {
                p[j] += at(q, qi + e) * at(k, k0 + (int64_t)j * c + e);
                dp[j] += at(dy, qi + e) * at(v, k0 + (int64_t)j * c + e);
            }
            p[j] *= (double)attr.attention.scale;
            if (p[j] > most) most = p[j];
        }
        for (int j = 0; j < keys; j++) sum += exp(p[j] - most);
        el[row] = most + log(sum);
        for (int j = 0; j < keys; j++) {
            p[j] = exp(p[j] - el[row]);
            delta += p[j] * dp[j];
        }
        for (int j = 0; j < keys; j++) {
            const double ds = p[j] * (dp[j] - delta) * (double)attr.attention.scale;
            for (int e = 0; e < d; e++) {
                const int64_t kj = k0 + (int64_t)j * c + e;
                ey[qi + e] += p[j] * at(v, kj);
                eq[qi + e] += ds * at(k, kj);
                ek[kj] += ds * at(q, qi + e);
                ev[kj] += p[j] * at(dy, qi + e);
            }
        }
    }
    pb_kernel_args args = {.attr = &attr, .in = {q, k, v}, .out = {y, lse}};
    run(pb_cpu_attention, pb_cpu_attention_workspace, &args, -1);
    compare("y", y, ey, dtype);
    compare("lse", lse, el, PB_F32);
    args = (pb_kernel_args){.attr = &attr, .in = {dy, q, k, v, y, lse}, .out = {dq, dk, dv}};
    run(pb_cpu_attention_bwd, pb_cpu_attention_bwd_workspace, &args, -1);
    compare("dq", dq, eq, dtype);
    compare("dk", dk, ek, dtype);
    compare("dv", dv, ev, dtype);
    args = (pb_kernel_args){.attr = &attr, .in = {q, k, v}, .out = {y}};
    run(pb_cpu_attention, pb_cpu_attention_workspace, &args, -1);
    compare("y without lse", y, ey, dtype);
    const pb_tensor all[] = {q, k, v, dy, y, lse, dq, dk, dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tensor_free(all[i]);
    free(ey), free(el), free(eq), free(ek), free(ev), free(p), free(dp);
}

// ---- all ------------------------------------------------------------------------------------------------------------

static void check_all(pb_dtype dtype) {
    check_linear(dtype, 1, 3, 9, true, true);
    check_linear(dtype, 3, 7, 5, false, false);
    check_linear(dtype, 2, 320, 130, true, false);
    check_linear(dtype, 77, 41, 96, true, true);
    check_linear(dtype, 29, 701, 33, false, true);
    check_linear(dtype, 300, 65, 700, true, true);
    check_linear(dtype, 5, 1030, 1030, false, false);  // the weight gradient is large enough to go around the caches
    const conv_case convs[] = {
        {2, 6, 5, 3, 7, 3, 3, 1, 1, 1, 1, 1, 0, 0, true},   {1, 9, 8, 40, 33, 3, 3, 1, 1, 1, 1, 1, 0, 0, false},
        {2, 9, 8, 5, 6, 3, 3, 2, 1, 1, 1, 1, 0, 0, true},   {1, 8, 8, 16, 36, 3, 3, 2, 0, 0, 1, 1, 0, 0, true},
        {1, 7, 10, 4, 3, 3, 3, 2, 0, 0, 1, 1, 0, 0, false}, {2, 5, 3, 8, 40, 1, 1, 1, 0, 0, 0, 0, 0, 0, true},
        {1, 5, 7, 6, 5, 1, 1, 2, 0, 0, 0, 0, 0, 0, true},   {2, 4, 5, 6, 9, 3, 3, 1, 1, 1, 1, 1, 8, 10, true},
        {1, 5, 4, 7, 3, 3, 3, 1, 1, 1, 1, 1, 9, 7, false},  {1, 5, 6, 3, 4, 3, 2, 1, 2, 0, 1, 1, 0, 0, true},
        {1, 12, 11, 2, 2, 5, 4, 3, 1, 2, 0, 1, 0, 0, true}, {1, 4, 4, 150, 64, 3, 3, 1, 1, 1, 1, 1, 0, 0, true},
        {1, 3, 4, 5, 3, 3, 3, 2, 1, 1, 1, 1, 7, 5, true},   {1, 40, 39, 2, 3, 3, 3, 1, 1, 1, 1, 1, 0, 0, true},
    };
    for (size_t i = 0; i < sizeof convs / sizeof *convs; i++) check_conv(dtype, convs[i]);
    if (dtype != PB_F32) check_rounding(dtype);
    check_attention(dtype, 1, 1, 8, 2, 3, false);
    check_attention(dtype, 2, 3, 8, 19, 7, false);
    check_attention(dtype, 1, 2, 40, 65, 77, false);
    check_attention(dtype, 1, 2, 33, 77, 77, true);
    check_attention(dtype, 1, 1, 80, 300, 141, false);
    check_attention(dtype, 1, 2, 16, 150, 150, true);
    check_attention(dtype, 1, 1, 160, 40, 129, false);
    check_attention(dtype, 1, 1, 8, 20, 300, true);
    check_attention(dtype, 1, 1, 515, 9, 30, false);
}

int main(void) {
    static const pb_isa isas[] = {
        {PB_ISA_SCALAR, false}, {PB_ISA_AVX2, false}, {PB_ISA_AVX512, false}, {PB_ISA_AVX512, true}};
    static const pb_dtype dtypes[] = {PB_F32, PB_F16, PB_BF16};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        pb_cpu_isa_set(isas[i]);
        const pb_isa isa = pb_cpu_isa();
        if (isa.level != isas[i].level || isa.bf16 != isas[i].bf16) continue;  // not on this machine
        for (int d = 0; d < 3; d++) check_all(dtypes[d]);
    }
    return CHECK_DONE();
}
