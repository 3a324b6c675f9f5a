// test: links=shim,base
// What the library calls' launchers take from our kernels: the epilogue of a contraction to the bit, sums of columns.
#include <stdlib.h>

#include "check.h"
#include "kernels/cuda/cuda_kernels.h"
#include "ops/support_harness.h"
#include "support_shim.h"

enum { ROWS = 12, IMAGES = 3, MOST_CHANNELS = 24 };
static uint64_t random_state = 5;

static void fill(pb_dtype dtype, void *data, int count) {
    for (int i = 0; i < count; i++) pb_dtype_store(dtype, data, (size_t)i, 3 * op_random(&random_state));
}

static double rounded(pb_dtype dtype, double x) {
    double stored;
    pb_dtype_store(dtype, &stored, 0, x);
    return pb_dtype_load(dtype, &stored, 0);
}

// `terms`: bit 0 bias, 1 row bias, 2 residual; 3: y takes over the sum; 4: y takes over the residual
static void check_epilogue(pb_dtype dtype, pb_dtype sum_dtype, int channels, unsigned terms) {
    _Alignas(16) static float sum[ROWS * MOST_CHANNELS], bias[MOST_CHANNELS], rowbias[IMAGES * MOST_CHANNELS];
    _Alignas(16) static float residual[ROWS * MOST_CHANNELS], result[ROWS * MOST_CHANNELS];
    double expected[ROWS * MOST_CHANNELS];
    fill(sum_dtype, sum, ROWS * channels);
    fill(PB_F32, bias, channels);
    fill(dtype, rowbias, IMAGES * channels);
    fill(dtype, residual, ROWS * channels);
    void *y = terms & 8 && dtype == sum_dtype ? (void *)sum : terms & 16 ? (void *)residual : (void *)result;
    const pb_cuda_epilogue_args args = {.sum = sum,
                                        .sum_dtype = sum_dtype,
                                        .y = y,
                                        .dtype = dtype,
                                        .bias = terms & 1 ? bias : NULL,
                                        .rowbias = terms & 2 ? rowbias : NULL,
                                        .residual = terms & 4 ? residual : NULL,
                                        .rows = ROWS,
                                        .channels = channels,
                                        .images = IMAGES};
    for (int i = 0; i < ROWS * channels; i++) {
        float x = (float)pb_dtype_load(sum_dtype, sum, (size_t)i);
        if (terms & 1) x += (float)rounded(dtype, bias[i % channels]);
        const size_t image = (size_t)(i / channels / (ROWS / IMAGES));
        if (terms & 2)
            x = (float)rounded(dtype, x) +
                (float)pb_dtype_load(dtype, rowbias, image * (size_t)channels + (size_t)(i % channels));
        if (terms & 4) x = (float)rounded(dtype, x) + (float)pb_dtype_load(dtype, residual, (size_t)i);
        expected[i] = rounded(dtype, x);
    }
    CHECK_OK(pb_cuda_epilogue(&args, NULL));
    int wrong = 0;
    for (int i = 0; i < ROWS * channels; i++) wrong += pb_dtype_load(dtype, y, (size_t)i) != expected[i];
    CHECK_THAT(!wrong, "epilogue to %s from %s, %d channels, terms %#x: %d of %d elements differ", pb_dtype_name(dtype),
               pb_dtype_name(sum_dtype), channels, terms, wrong, ROWS * channels);
}

static void check_column_sums(pb_dtype dtype, int64_t images, int64_t rows, int64_t channels) {
    const size_t count = (size_t)(images * rows * channels);
    float *x = malloc(count * sizeof *x), *sums = malloc((size_t)(images * channels) * sizeof *sums);
    float *workspace = malloc(pb_cuda_column_sums_workspace(images, rows, channels));
    CHECK(x && sums && workspace);
    fill(dtype, x, (int)count);
    const pb_cuda_column_sums_args args = {x, dtype, PB_F32, sums, images, rows, channels, workspace};
    CHECK_OK(pb_cuda_column_sums(&args, NULL));
    int wrong = 0;
    for (int64_t n = 0; n < images; n++) {
        for (int64_t c = 0; c < channels; c++) {
            double sum = 0, size = 0;
            for (int64_t r = 0; r < rows; r++) {
                const double value = pb_dtype_load(dtype, x, (size_t)((n * rows + r) * channels + c));
                sum += value;
                size += fabs(value);
            }
            wrong += !(fabs(sum - (double)sums[n * channels + c]) <= 1e-6 * size);
        }
    }
    CHECK_THAT(!wrong, "sums of %s[%lld,%lld,%lld]: %d are wrong", pb_dtype_name(dtype), (long long)images,
               (long long)rows, (long long)channels, wrong);
    free(x);
    free(sums);
    free(workspace);
}

// Norms of gradients in a row, together and one by one: the same bits.
static void check_grad_norms(void) {
    enum { COUNT = 12, BIG = 40000, SPAN = 16 * 1024 };
    static const struct {
        int count, skip;  // skip: elements before it, so that it is not aligned
        pb_dtype dtype;
    } gradients[COUNT] = {{BIG, 0, PB_F16}, {320, 0, PB_F32},      {77, 1, PB_F32},  {1280, 0, PB_BF16},
                          {9, 3, PB_F16},   {SPAN, 0, PB_F16},     {1, 0, PB_F32},   {640, 0, PB_F32},
                          {640, 0, PB_F32}, {SPAN + 1, 0, PB_F32}, {320, 0, PB_F32}, {320, 0, PB_F32}};
    static const uint32_t expected[COUNT] = {8, 8, 7, 6, 5, 4, 3, 2, 1, 3, 2, 1};
    pb_kernel_args args[COUNT];
    const pb_kernel_args *list[COUNT];
    void *data[COUNT];
    double norm = 0, workspace[8], reference = 0;
    for (int i = 0; i < COUNT; i++) {
        data[i] = malloc(((size_t)gradients[i].count + 8) * sizeof(float));
        if (!data[i]) abort();
        void *g = (char *)data[i] + (size_t)gradients[i].skip * pb_dtype_size(gradients[i].dtype);
        fill(gradients[i].dtype, g, gradients[i].count);
        const pb_tensor place = {&norm, PB_F64, PB_SHAPE1(1)};
        args[i] = (pb_kernel_args){.in = {{g, gradients[i].dtype, PB_SHAPE1(gradients[i].count)}, place},
                                   .out = {place},
                                   .workspace = workspace};
        list[i] = &args[i];
        for (int k = 0; k < gradients[i].count; k++) {
            const double x = pb_dtype_load(gradients[i].dtype, g, (size_t)k);
            reference += x * x;
        }
    }
    CHECK(pb_cuda_grad_norms_at_once(list, 0) == 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint32_t n = pb_cuda_grad_norms_at_once(list + i, COUNT - i);
        CHECK_THAT(n == expected[i], "from gradient %u on %u at once, not %u", i, n, expected[i]);
        CHECK(pb_cuda_grad_norms_at_once(list + i, 1) == 1);
        double one_by_one = 0;
        norm = 0.5;
        for (uint32_t k = 0; k < n; k++) CHECK_OK(pb_cuda_grad_norm(list[i + k], NULL));
        one_by_one = norm;
        norm = 0.5;
        CHECK_OK(pb_cuda_grad_norms(list + i, n, NULL));
        CHECK_THAT(norm == one_by_one && norm > 0.5, "%u from gradient %u on: %.17g, one by one %.17g", n, i, norm,
                   one_by_one);
    }
    norm = 0;
    for (uint32_t i = 0; i < COUNT; i += pb_cuda_grad_norms_at_once(list + i, COUNT - i))
        CHECK_OK(pb_cuda_grad_norms(list + i, pb_cuda_grad_norms_at_once(list + i, COUNT - i), NULL));
    CHECK(fabs(norm - reference) <= 1e-6 * reference);
    // Another norm, or one that does not follow: not together.
    double other = 0;
    args[8].in[1].data = args[8].out[0].data = &other;
    CHECK(pb_cuda_grad_norms_at_once(list + 7, 2) == 1);
    args[8].out[0].data = &norm;
    CHECK(pb_cuda_grad_norms_at_once(list + 7, 2) == 1);
    for (int i = 0; i < COUNT; i++) free(data[i]);
}

int main(void) {
    const pb_dtype dtypes[] = {PB_F32, PB_F16, PB_BF16};
    for (int d = 0; d < 3; d++) {
        for (unsigned terms = 0; terms < 32; terms++)
            for (int channels = 7; channels <= MOST_CHANNELS; channels += 17)
                for (int wide = 0; wide <= 1; wide++)
                    check_epilogue(dtypes[d], wide ? PB_F32 : dtypes[d], channels, terms);
        check_column_sums(dtypes[d], 1, 3000, 40);
        check_column_sums(dtypes[d], 2, 70, 1288);
        check_column_sums(dtypes[d], 1, 1, 5);
        check_column_sums(dtypes[d], 3, 129, 1031);
    }
    check_grad_norms();
    return CHECK_DONE();
}
