// test: links=shim,ref,quant,base
// The CUDA kernel of AdamW on every format of its state gives the reference's bits: in place and not, whole and slice
// by slice; and a skipped step changes nothing.
#include <stdlib.h>

#include "check.h"
#include "kernels/adamw.h"
#include "ops/support_harness.h"
#include "quant/codecs.h"
#include "support_shim.h"

enum { MOST = 4096 + 300, GUARD = 64 };

typedef struct format {
    const char *name;
    pb_dtype master, work, m, v;  // work: F32 where there is none
} format;

static const format formats[] = {
    {"8-bit moments", PB_F32, PB_F16, PB_U8, PB_U8},
    {"8-bit moments, no working copy", PB_F32, PB_F32, PB_U8, PB_U8},
    {"16-bit moments", PB_F32, PB_BF16, PB_BF16, PB_BF16},
    {"8-bit first moment", PB_F32, PB_F16, PB_U8, PB_F32},
    {"split16, fp16", PB_I16, PB_F16, PB_F32, PB_F32},
    {"split8, fp16", PB_I8, PB_F16, PB_F32, PB_F32},
    {"split16, bf16", PB_I16, PB_BF16, PB_F32, PB_F32},
    {"split8, 8-bit moments", PB_I8, PB_BF16, PB_U8, PB_U8},
    {"no master", PB_BF16, PB_F32, PB_F32, PB_F32},
    {"no master, 8-bit moments", PB_BF16, PB_F32, PB_U8, PB_U8},
};

// Outputs as adamw has them; each array is long enough for any dtype.
typedef struct state {
    _Alignas(16) float array[PB_MAX_OUTPUTS][MOST + GUARD];
} state;

static _Alignas(16) float gradient[MOST], p[MOST], m[MOST], v[MOST], hyper[PB_HYPER_COUNT], control[PB_CONTROL_COUNT];
static _Alignas(16) uint16_t narrow[MOST];
static state initial, expected, found;

static pb_dtype dtype_of(const format *f, int slot) {
    const pb_dtype dtypes[PB_MAX_OUTPUTS] = {f->master, f->m, f->v, f->work, PB_F32, PB_F32};
    return dtypes[slot];
}

static bool is_split(const format *f) {
    return f->master == PB_I16 || f->master == PB_I8;
}

static bool has(const format *f, int slot) {
    if (slot == PB_ADAMW_NEW_WORK) return f->work != PB_F32;
    if (slot == PB_ADAMW_NEW_M_SCALES) return f->m == PB_U8;
    if (slot == PB_ADAMW_NEW_V_SCALES) return f->v == PB_U8;
    return true;
}

static void encode_moment(pb_dtype dtype, bool is_signed, const float *x, float *to, float *scales, int64_t n) {
    if (dtype == PB_U8)
        pb_codecs_scalar.encode8(is_signed, x, n, (uint8_t *)to, scales);
    else
        pb_convert(dtype, to, PB_F32, x, (size_t)n);
}

static void encode(const format *f, state *s, int64_t n) {
    memset(s, 0xa5, sizeof *s);
    if (is_split(f))
        pb_codecs_scalar.split(f->work, f->master, p, n, (uint16_t *)s->array[PB_ADAMW_NEW_WORK],
                               s->array[PB_ADAMW_NEW_MASTER]);
    else
        pb_convert(f->master, s->array[PB_ADAMW_NEW_MASTER], PB_F32, p, (size_t)n);
    encode_moment(f->m, true, m, s->array[PB_ADAMW_NEW_M], s->array[PB_ADAMW_NEW_M_SCALES], n);
    encode_moment(f->v, false, v, s->array[PB_ADAMW_NEW_V], s->array[PB_ADAMW_NEW_V_SCALES], n);
}

// Elements first .. first + n - 1 of `from`, into `to`.
static void step(const pb_backend *backend, const format *f, pb_dtype dtype, state *from, state *to, int64_t first,
                 int64_t n) {
    pb_attr attr = {.adamw = {.stream = 77, .first = first}};
    char *g = (char *)(dtype == PB_F32 ? (void *)gradient : narrow);
    pb_kernel_args args = {.attr = &attr};
    args.in[0] = (pb_tensor){g + (size_t)first * pb_dtype_size(dtype), dtype, PB_SHAPE1(n)};
    args.in[1] = (pb_tensor){control, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT)};
    args.in[2] = (pb_tensor){hyper, PB_F32, PB_SHAPE1(PB_HYPER_COUNT)};
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) {
        if (!has(f, o)) continue;
        const bool scales = o >= PB_ADAMW_NEW_M_SCALES;
        const pb_shape shape = PB_SHAPE1(scales ? pb_block8_scales(n) : n);
        const size_t at = (size_t)(scales ? first / PB_BLOCK8 : first) * pb_dtype_size(dtype_of(f, o));
        args.out[o] = (pb_tensor){(char *)to->array[o] + at, dtype_of(f, o), shape};
        if (o == PB_ADAMW_NEW_WORK && !is_split(f)) continue;  // not read
        args.in[PB_ADAMW_MASTER + o] = (pb_tensor){(char *)from->array[o] + at, dtype_of(f, o), shape};
    }
    backend->kernels[PB_OP_ADAMW](&args);
}

static void check_format(const format *f, pb_dtype dtype, int64_t n) {
    encode(f, &initial, n);
    expected = initial;
    step(pb_backend_reference(), f, dtype, &initial, &expected, 0, n);
    found = initial;
    step(shim_backend(), f, dtype, &found, &found, 0, n);
    CHECK_THAT(!memcmp(&found, &expected, sizeof found), "%s, %lld elements: in place", f->name, (long long)n);
    memset(&found, 0xa5, sizeof found);
    step(shim_backend(), f, dtype, &initial, &found, 0, n);
    CHECK_THAT(!memcmp(&found, &expected, sizeof found), "%s, %lld elements: apart", f->name, (long long)n);
    found = initial;
    for (int64_t i = 0, part; i < n; i += part) {
        part = n - i < 1024 ? n - i : 1024;
        step(shim_backend(), f, dtype, &found, &found, i, part);
    }
    CHECK_THAT(!memcmp(&found, &expected, sizeof found), "%s, %lld elements: in slices", f->name, (long long)n);
}

static void check_skipped(const format *f, int64_t n) {
    control[PB_CONTROL_SKIP] = 1;
    encode(f, &initial, n);
    if (f->work != PB_F32 && !is_split(f)) pb_convert(f->work, initial.array[PB_ADAMW_NEW_WORK], PB_F32, p, (size_t)n);
    memset(&found, 0xa5, sizeof found);
    step(shim_backend(), f, PB_F32, &initial, &found, 0, n);
    CHECK_THAT(!memcmp(&found, &initial, sizeof found), "%s: a skipped step changes something", f->name);
    found = initial;
    step(shim_backend(), f, PB_F32, &found, &found, 0, n);
    CHECK_THAT(!memcmp(&found, &initial, sizeof found), "%s: a skipped step in place", f->name);
    control[PB_CONTROL_SKIP] = 0;
}

int main(void) {
    uint64_t random = 9;
    shim_set_order(SHIM_RANDOM, 3);
    hyper[PB_HYPER_BETA2] = 0.999f;
    hyper[PB_HYPER_EPS] = 1e-8f;
    hyper[PB_HYPER_DECAY] = 1 - 5e-8f;
    hyper[PB_HYPER_STEP_SIZE] = 1.1e-3f;
    hyper[PB_HYPER_SQRT_BIAS2] = 0.547f;
    hyper[PB_HYPER_ONE_MINUS_BETA1] = 0.1f;
    hyper[PB_HYPER_ONE_MINUS_BETA2] = 0.001f;
    hyper[PB_HYPER_SEED_LOW] = 0x1234;
    hyper[PB_HYPER_SEED_HIGH] = 0xfedc;
    hyper[PB_HYPER_STEP_LOW] = 17;
    control[PB_CONTROL_SCALE] = 0.371f;
    for (int i = 0; i < MOST; i++) {
        const double size = pow(10, 4 * op_random(&random));  // so that every decade of levels is used
        gradient[i] = (float)(size * op_random(&random));
        p[i] = (float)op_random(&random);
        m[i] = 0.3f * (float)(size * op_random(&random));
        v[i] = (float)(size * size * fabs(op_random(&random)));
    }
    for (int i = 512; i < 768; i++) gradient[i] = m[i] = v[i] = 0;  // a block of zeros
    const int64_t counts[] = {1, 255, 256, 257, 1000, MOST};
    for (size_t k = 0; k < sizeof formats / sizeof *formats; k++) {
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
            for (pb_dtype dtype = PB_F32; dtype <= PB_BF16; dtype++) {
                pb_convert(dtype, narrow, PB_F32, gradient, dtype == PB_F32 ? 0 : (size_t)counts[c]);
                check_format(&formats[k], dtype, counts[c]);
            }
        check_skipped(&formats[k], 1000);
    }
    return CHECK_DONE();
}
