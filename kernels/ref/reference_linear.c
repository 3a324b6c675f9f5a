// Linear layers: y = x w^T + bias, and its two gradients.
#include "kernels/ref/reference_kernels.h"

// in: x[R,I] w[O,I] bias[O]? residual[R,O]?   out: y[R,O]
void pb_ref_linear(const pb_kernel_args *args) {
    const pb_tensor *x = &args->in[0], *w = &args->in[1], *bias = &args->in[2], *residual = &args->in[3];
    const pb_tensor *y = &args->out[0];
    const int64_t rows = pb_shape_rows(x->shape), inputs = pb_shape_last(x->shape), outputs = w->shape.dim[0];
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < outputs; o++) {
            double sum = ref_bias(y, bias, o);
            for (int64_t i = 0; i < inputs; i++) sum += ref_get(x, r * inputs + i) * ref_get(w, o * inputs + i);
            ref_put(y, r * outputs + o, ref_add(y, sum, residual, r * outputs + o));
        }
    }
}

// in: dy[R,O] w[O,I] addend[R,I]?   out: dx[R,I]
void pb_ref_linear_bwd_data(const pb_kernel_args *args) {
    const pb_tensor *dy = &args->in[0], *w = &args->in[1], *addend = &args->in[2], *dx = &args->out[0];
    const int64_t rows = pb_shape_rows(dy->shape), outputs = w->shape.dim[0], inputs = w->shape.dim[1];
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < inputs; i++) {
            double sum = 0;
            for (int64_t o = 0; o < outputs; o++) sum += ref_get(dy, r * outputs + o) * ref_get(w, o * inputs + i);
            ref_put(dx, r * inputs + i, ref_add(dx, sum, addend, r * inputs + i));
        }
    }
}

// in: dy[R,O] x[R,I]   out: dw[O,I]? db[O]?
void pb_ref_linear_bwd_weight(const pb_kernel_args *args) {
    const pb_tensor *dy = &args->in[0], *x = &args->in[1], *dw = &args->out[0], *db = &args->out[1];
    const int64_t rows = pb_shape_rows(dy->shape), outputs = pb_shape_last(dy->shape);
    const int64_t inputs = pb_shape_last(x->shape);
    for (int64_t o = 0; o < outputs; o++) {
        for (int64_t i = 0; ref_has(dw) && i < inputs; i++) {
            double sum = 0;
            for (int64_t r = 0; r < rows; r++) sum += ref_get(dy, r * outputs + o) * ref_get(x, r * inputs + i);
            ref_put(dw, o * inputs + i, sum);
        }
        if (!ref_has(db)) continue;
        double sum = 0;
        for (int64_t r = 0; r < rows; r++) sum += ref_get(dy, r * outputs + o);
        ref_put(db, o, sum);
    }
}
