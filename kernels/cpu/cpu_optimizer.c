// The loss, gradient accumulation, clipping and AdamW. Sums are made of fixed blocks, in double, whatever the threads.
#include <float.h>
#include <math.h>

#include "base/parallel.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/tiles.h"

enum { BLOCK = 32 * 1024 };  // elements whose squares one sum in the workspace stands for

static int64_t blocks_of(int64_t count) {
    return (count + BLOCK - 1) / BLOCK;
}

// The sum of squares of a[begin..end), or of a - b where b is not NULL.
static double sum_squares(const pb_tensor *a, const pb_tensor *b, int64_t begin, int64_t end) {
    const pb_row_kernels *rows = pb_rows();
    float a_tile[TILE], b_tile[TILE];
    double sum = 0;
    for (int64_t i = begin; i < end; i += TILE) {
        const int64_t n = tile_min(TILE, end - i);
        const float *x = tile_load(rows, a, i, n, a_tile);
        sum += b ? rows->sum_squared_difference(x, tile_load(rows, b, i, n, b_tile), n) : rows->sum_squares(x, n);
    }
    return sum;
}

// pred[N,..]: the range counts blocks of all images
static void mse_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_tensor *pred = &args->in[0];
    const int64_t size = pb_shape_count(pred->shape) / pred->shape.dim[0], blocks = blocks_of(size);
    double *sums = args->workspace;
    for (int64_t i = begin; i < end; i++) {
        const int64_t image = i / blocks * size, from = i % blocks * BLOCK;
        sums[i] = sum_squares(pred, &args->in[1], image + from, image + tile_min(from + BLOCK, size));
    }
}

uint64_t pb_cpu_mse_loss_workspace(const pb_kernel_args *args) {
    const pb_shape shape = args->in[0].shape;
    return (uint64_t)(shape.dim[0] * blocks_of(pb_shape_count(shape) / shape.dim[0])) * sizeof(double);
}

void pb_cpu_mse_loss(const pb_kernel_args *args) {
    const pb_shape shape = args->in[0].shape;
    const int64_t images = shape.dim[0], size = pb_shape_count(shape) / images, blocks = blocks_of(size);
    const double *sums = args->workspace;
    float *loss = args->out[0].data;
    pb_parallel_for(images * blocks, 1, mse_range, (void *)args);
    for (int64_t n = 0; n < images; n++) {
        double sum = 0;
        for (int64_t b = 0; b < blocks; b++) sum += sums[n * blocks + b];
        loss[n] = (float)(sum / (double)size);
    }
}

static void mse_bwd_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_tensor *pred = &args->in[0], *target = &args->in[1], *dpred = &args->out[0];
    const float *weight = args->in[2].data, *scale = args->in[3].data;
    const int64_t size = pb_shape_count(pred->shape) / pred->shape.dim[0];
    const pb_row_kernels *rows = pb_rows();
    float pred_tile[TILE], target_tile[TILE], out_tile[TILE];
    for (int64_t i = begin, n; i < end; i += n) {
        n = tile_min(tile_min(TILE, end - i), size - i % size);  // a tile lies in one image
        const double factor = (double)scale[0] * (double)weight[i / size] * 2 / (double)size;
        float *out = tile_output(dpred, i, out_tile);
        rows->scaled_difference(tile_load(rows, pred, i, n, pred_tile), tile_load(rows, target, i, n, target_tile),
                                (float)factor, out, n);
        tile_store(rows, dpred, i, n, out);
    }
}

void pb_cpu_mse_loss_bwd(const pb_kernel_args *args) {
    pb_parallel_for(pb_shape_count(args->in[0].shape), GRAIN, mse_bwd_range, (void *)args);
}

static void accumulate_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_row_kernels *rows = pb_rows();
    const float *sum = args->in[1].data;
    float *out = args->out[0].data, tile[TILE];
    for (int64_t i = begin; i < end; i += TILE) {
        const int64_t n = tile_min(TILE, end - i);
        rows->add(sum + i, tile_load(rows, &args->in[0], i, n, tile), out + i, n);
    }
}

void pb_cpu_accumulate(const pb_kernel_args *args) {
    pb_parallel_for(pb_shape_count(args->in[0].shape), GRAIN, accumulate_range, (void *)args);
}

static void grad_norm_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const int64_t count = pb_shape_count(args->in[0].shape);
    double *sums = args->workspace;
    for (int64_t i = begin; i < end; i++)
        sums[i] = sum_squares(&args->in[0], NULL, i * BLOCK, tile_min((i + 1) * BLOCK, count));
}

uint64_t pb_cpu_grad_norm_workspace(const pb_kernel_args *args) {
    return (uint64_t)blocks_of(pb_shape_count(args->in[0].shape)) * sizeof(double);
}

void pb_cpu_grad_norm(const pb_kernel_args *args) {
    const int64_t blocks = blocks_of(pb_shape_count(args->in[0].shape));
    const double *sums = args->workspace, *before = args->in[1].data;
    double *out = args->out[0].data, sum = before[0];
    pb_parallel_for(blocks, 1, grad_norm_range, (void *)args);
    for (int64_t b = 0; b < blocks; b++) sum += sums[b];
    out[0] = sum;
}

// torch.nn.utils.clip_grad_norm_ after unscaling.
void pb_cpu_step_control(const pb_kernel_args *args) {
    const double *squares = args->in[0].data;
    const float *hyper = args->in[1].data;
    float *control = args->out[0].data;
    const double unscale = hyper[PB_HYPER_INV_LOSS_SCALE], norm = sqrt(squares[0]) * unscale;
    const bool skip = !(norm <= FLT_MAX);
    for (int i = 0; i < PB_CONTROL_COUNT; i++) control[i] = 0;
    control[PB_CONTROL_NORM] = (float)norm;
    control[PB_CONTROL_SCALE] = skip ? 0 : (float)(unscale * fmin(1, hyper[PB_HYPER_MAX_NORM] / (norm + 1e-6)));
    control[PB_CONTROL_SKIP] = skip;
}

static void adamw_range(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pb_kernel_args *args = context;
    const pb_row_kernels *rows = pb_rows();
    const float *control = args->in[1].data;
    const pb_adamw_scalars scalars = pb_adamw_scalars_of(args->in[2].data, control);
    // Tiles only where something is converted.
    const int64_t step = args->in[0].dtype == PB_F32 && !args->out[3].data ? end - begin : TILE;
    float tile[TILE];
    for (int64_t i = begin; i < end; i += step) {
        const int64_t n = tile_min(step, end - i);
        const float *in[3];
        float *out[3];
        for (int s = 0; s < 3; s++) {
            in[s] = tile_address(&args->in[3 + s], i);
            out[s] = tile_address(&args->out[s], i);
        }
        if (control[PB_CONTROL_SKIP] == 0) {
            rows->adamw(&scalars, tile_load(rows, &args->in[0], i, n, tile), in, out, n);
        } else {
            for (int s = 0; s < 3; s++)
                if (in[s] != out[s]) rows->store(PB_F32, in[s], out[s], n);
        }
        if (args->out[3].data) rows->store(args->out[3].dtype, out[0], tile_address(&args->out[3], i), n);
    }
}

void pb_cpu_adamw(const pb_kernel_args *args) {
    for (int i = PB_ADAMW_MASTER; i <= PB_ADAMW_V; i++) {
        if (args->in[i].dtype == PB_F32) continue;
        pb_cpu_adamw_states(args);
        return;
    }
    pb_parallel_for(pb_shape_count(args->in[0].shape), GRAIN, adamw_range, (void *)args);
}
