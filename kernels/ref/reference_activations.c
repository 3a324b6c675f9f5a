// Elementwise activations: SiLU x s(x), GELU x Phi(x) with the exact Gaussian distribution, CLIP's quick GELU
// x s(1.702 x), and GEGLU h gelu(g); s is the logistic function.
#include "kernels/ref/reference_activations.h"

#include <math.h>

#include "kernels/ref/reference_kernels.h"

static double logistic(double x) {
    return 1 / (1 + exp(-x));
}

double ref_activation(pb_unary_kind kind, double x) {
    switch (kind) {
    case PB_UNARY_SILU: return x * logistic(x);
    case PB_UNARY_QUICK_GELU: return x * logistic(1.702 * x);
    case PB_UNARY_GELU: break;
    }
    return 0.5 * x * erfc(-x * M_SQRT1_2);
}

double ref_activation_slope(pb_unary_kind kind, double x) {
    const double rate = kind == PB_UNARY_QUICK_GELU ? 1.702 : 1, s = logistic(rate * x);
    if (kind == PB_UNARY_GELU) return 0.5 * erfc(-x * M_SQRT1_2) + x * exp(-0.5 * x * x) * 0.5 * M_2_SQRTPI * M_SQRT1_2;
    return s + rate * x * s * (1 - s);
}

void pb_ref_unary(const pb_kernel_args *args) {
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    for (int64_t i = 0; i < pb_shape_count(x->shape); i++)
        ref_put(y, i, ref_activation(args->attr->unary.kind, ref_get(x, i)));
}

void pb_ref_unary_bwd(const pb_kernel_args *args) {
    const pb_tensor *dy = &args->in[0], *x = &args->in[1], *dx = &args->out[0];
    for (int64_t i = 0; i < pb_shape_count(x->shape); i++)
        ref_put(dx, i, ref_get(dy, i) * ref_activation_slope(args->attr->unary.kind, ref_get(x, i)));
}

// in: x[R,2D]   out: y[R,D]
void pb_ref_geglu(const pb_kernel_args *args) {
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    const int64_t rows = pb_shape_rows(y->shape), width = pb_shape_last(y->shape);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < width; c++) {
            const double h = ref_get(x, 2 * r * width + c), g = ref_get(x, (2 * r + 1) * width + c);
            ref_put(y, r * width + c, h * ref_round(y->dtype, ref_activation(PB_UNARY_GELU, g)));
        }
    }
}

// in: dy[R,D] x[R,2D]   out: dx[R,2D]
void pb_ref_geglu_bwd(const pb_kernel_args *args) {
    const pb_tensor *dy = &args->in[0], *x = &args->in[1], *dx = &args->out[0];
    const int64_t rows = pb_shape_rows(dy->shape), width = pb_shape_last(dy->shape);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < width; c++) {
            const double h = ref_get(x, 2 * r * width + c), g = ref_get(x, (2 * r + 1) * width + c);
            const double upstream = ref_get(dy, r * width + c);
            ref_put(dx, 2 * r * width + c, upstream * ref_activation(PB_UNARY_GELU, g));
            ref_put(dx, (2 * r + 1) * width + c, upstream * h * ref_activation_slope(PB_UNARY_GELU, g));
        }
    }
}
