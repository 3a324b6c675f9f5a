// The loss and the optimizer.
#include <float.h>
#include <math.h>

#include "kernels/ref/reference_kernels.h"

// in: pred[N,..] target[N,..]   out: loss[N]
void pb_ref_mse_loss(const pb_kernel_args *args) {
    const pb_tensor *pred = &args->in[0], *target = &args->in[1], *loss = &args->out[0];
    const int64_t images = pred->shape.dim[0], size = pb_shape_count(pred->shape) / images;
    for (int64_t n = 0; n < images; n++) {
        double sum = 0;
        for (int64_t i = n * size; i < (n + 1) * size; i++) sum += pow(ref_get(pred, i) - ref_get(target, i), 2);
        ref_put(loss, n, sum / (double)size);
    }
}

// in: pred[N,..] target[N,..] weight[N] scale[1]   out: dpred[N,..]
void pb_ref_mse_loss_bwd(const pb_kernel_args *args) {
    const pb_tensor *pred = &args->in[0], *target = &args->in[1], *weight = &args->in[2], *scale = &args->in[3];
    const pb_tensor *dpred = &args->out[0];
    const int64_t size = pb_shape_count(pred->shape) / pred->shape.dim[0];
    for (int64_t i = 0; i < pb_shape_count(pred->shape); i++)
        ref_put(dpred, i,
                ref_get(scale, 0) * ref_get(weight, i / size) * 2 * (ref_get(pred, i) - ref_get(target, i)) /
                    (double)size);
}

void pb_ref_accumulate(const pb_kernel_args *args) {
    const pb_tensor *g = &args->in[0], *sum = &args->in[1], *out = &args->out[0];
    for (int64_t i = 0; i < pb_shape_count(g->shape); i++) ref_put(out, i, ref_get(sum, i) + ref_get(g, i));
}

void pb_ref_grad_norm(const pb_kernel_args *args) {
    const pb_tensor *g = &args->in[0];
    double sum = ref_get(&args->in[1], 0);
    for (int64_t i = 0; i < pb_shape_count(g->shape); i++) sum += ref_get(g, i) * ref_get(g, i);
    ref_put(&args->out[0], 0, sum);
}

// torch.nn.utils.clip_grad_norm_ after unscaling. in: norm[1] (of squares) hyper[16]   out: control[4]
void pb_ref_step_control(const pb_kernel_args *args) {
    const pb_tensor *hyper = &args->in[1], *control = &args->out[0];
    const double unscale = ref_get(hyper, PB_HYPER_INV_LOSS_SCALE);
    const double norm = sqrt(ref_get(&args->in[0], 0)) * unscale;
    const bool skip = !(norm <= FLT_MAX);
    for (int64_t i = 0; i < PB_CONTROL_COUNT; i++) ref_put(control, i, 0);
    ref_put(control, PB_CONTROL_NORM, norm);
    ref_put(control, PB_CONTROL_SCALE, skip ? 0 : unscale * fmin(1, ref_get(hyper, PB_HYPER_MAX_NORM) / (norm + 1e-6)));
    ref_put(control, PB_CONTROL_SKIP, skip);
}

// torch/optim/adamw.py, _single_tensor_adamw. in: g control hyper master m v   out: master' m' v' work?
void pb_ref_adamw(const pb_kernel_args *args) {
    for (int i = PB_ADAMW_MASTER; i <= PB_ADAMW_V; i++) {
        if (args->in[i].dtype == PB_F32 || args->in[i].dtype == PB_F64) continue;
        ref_adamw_states(args);
        return;
    }
    const pb_tensor *g = &args->in[0], *hyper = &args->in[2], *out = args->out;
    const double scale = ref_get(&args->in[1], PB_CONTROL_SCALE), beta2 = ref_get(hyper, PB_HYPER_BETA2);
    const bool skip = ref_get(&args->in[1], PB_CONTROL_SKIP) != 0;
    for (int64_t i = 0; i < pb_shape_count(g->shape); i++) {
        const double gradient = ref_get(g, i) * scale;
        double p = ref_get(&args->in[3], i), m = ref_get(&args->in[4], i), v = ref_get(&args->in[5], i);
        if (!skip) {
            p *= ref_get(hyper, PB_HYPER_DECAY);
            m += (gradient - m) * ref_get(hyper, PB_HYPER_ONE_MINUS_BETA1);
            v = beta2 * v + ref_get(hyper, PB_HYPER_ONE_MINUS_BETA2) * gradient * gradient;
            const double denominator = sqrt(v) / ref_get(hyper, PB_HYPER_SQRT_BIAS2) + ref_get(hyper, PB_HYPER_EPS);
            p -= ref_get(hyper, PB_HYPER_STEP_SIZE) * m / denominator;
        }
        ref_put(&out[0], i, p);
        ref_put(&out[1], i, m);
        ref_put(&out[2], i, v);
        if (ref_has(&out[3])) ref_put(&out[3], i, ref_get(&out[0], i));
    }
}
