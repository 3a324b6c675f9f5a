#include "support_adamw_states.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/adamw.h"
#include "quant/codecs.h"
#include "support_harness.h"

enum { MOST = 70000, BLOCKS = MOST / PB_BLOCK8 + 1, GUARD = 64 };

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
    {"split8, bf16", PB_I8, PB_BF16, PB_F32, PB_F32},
    {"split8, 8-bit moments", PB_I8, PB_F16, PB_U8, PB_U8},
    {"split16, 16-bit moments", PB_I16, PB_BF16, PB_BF16, PB_BF16},
    {"no master", PB_BF16, PB_F32, PB_F32, PB_F32},
    {"no master, 8-bit moments", PB_BF16, PB_F32, PB_U8, PB_U8},
};

// Outputs as adamw has them; each array is long enough for any dtype.
typedef struct state {
    float array[PB_MAX_OUTPUTS][MOST + GUARD];
} state;

static float gradient[MOST], p[MOST], m[MOST], v[MOST], hyper[PB_HYPER_COUNT], control[PB_CONTROL_COUNT];
static uint16_t narrow[MOST];
static state initial, expected, found, apart;

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
static void step(const pb_backend *backend, const format *f, pb_dtype gradient_dtype, state *from, state *to,
                 int64_t first, int64_t n) {
    pb_attr attr = {.adamw = {.stream = 77, .first = first}};
    char *g = (char *)(gradient_dtype == PB_F32 ? (void *)gradient : narrow);
    pb_kernel_args args = {.attr = &attr};
    args.in[0] = (pb_tensor){g + (size_t)first * pb_dtype_size(gradient_dtype), gradient_dtype, PB_SHAPE1(n)};
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
    if (backend->supports && backend->supports(PB_OP_ADAMW, &args) != PB_OK) {
        fprintf(stderr, "%s\n", pb_error_message());
        return;
    }
    backend->kernels[PB_OP_ADAMW](&args);
}

// A backend's results against the reference's.
static void check_format(const pb_backend *backend, const format *f, pb_dtype gradient_dtype, int64_t n,
                         adamw_states_report report) {
    encode(f, &initial, n);
    expected = initial;
    step(pb_backend_reference(), f, gradient_dtype, &initial, &expected, 0, n);
    found = initial;
    step(backend, f, gradient_dtype, &found, &found, 0, n);
    report(!memcmp(&found, &expected, sizeof found), f->name, "in place", n);
    memset(&apart, 0xa5, sizeof apart);
    step(backend, f, gradient_dtype, &initial, &apart, 0, n);
    report(!memcmp(&apart, &expected, sizeof apart), f->name, "apart", n);
    found = initial;
    for (int64_t i = 0, part; i < n; i += part) {
        part = i % 3 ? 4096 : 3 * 4096;
        part = part < n - i ? part : n - i;
        step(backend, f, gradient_dtype, &found, &found, i, part);
    }
    report(!memcmp(&found, &expected, sizeof found), f->name, "in slices", n);
}

static void check_skipped(const pb_backend *backend, const format *f, int64_t n, adamw_states_report report) {
    control[PB_CONTROL_SKIP] = 1;
    encode(f, &initial, n);
    if (f->work != PB_F32 && !is_split(f)) pb_convert(f->work, initial.array[PB_ADAMW_NEW_WORK], PB_F32, p, (size_t)n);
    memset(&apart, 0xa5, sizeof apart);
    step(backend, f, PB_F32, &initial, &apart, 0, n);
    report(!memcmp(&apart, &initial, sizeof apart), f->name, "a skipped step", n);
    found = initial;
    step(backend, f, PB_F32, &found, &found, 0, n);
    report(!memcmp(&found, &initial, sizeof found), f->name, "a skipped step in place", n);
    control[PB_CONTROL_SKIP] = 0;
}

// Of the weights after a step: their distance to those that fp32 state gives, over the step's length.
static double distance(const pb_backend *backend, const format *f, int64_t n) {
    encode(f, &initial, n);
    step(backend, f, PB_F32, &initial, &initial, 0, n);
    const pb_adamw_scalars scalars = pb_adamw_scalars_of(hyper, control);
    double off = 0, length = 0;
    for (int64_t i = 0; i < n; i++) {
        float x = p[i], first = m[i], second = v[i];
        pb_adamw_element(&scalars, gradient[i], &x, &first, &second);
        const double wide = pb_dtype_load(f->master, initial.array[PB_ADAMW_NEW_MASTER], (size_t)i);
        double y = wide;
        if (is_split(f)) {
            float joined;
            const char *residual = (char *)initial.array[PB_ADAMW_NEW_MASTER];
            pb_codecs_scalar.join(f->work, f->master, (uint16_t *)initial.array[PB_ADAMW_NEW_WORK] + i,
                                  residual + (size_t)i * pb_dtype_size(f->master), 1, &joined);
            y = joined;
        }
        off += (y - x) * (y - x);
        length += ((double)x - p[i]) * ((double)x - p[i]);
    }
    return sqrt(off / length);
}

static void fill(void) {
    uint64_t random = 9;
    adamw_scalars_fill(hyper, control);
    for (int i = 0; i < MOST; i++) {
        gradient[i] = (float)op_random(&random);
        p[i] = (float)op_random(&random);
        m[i] = 0.3f * (float)op_random(&random);
        v[i] = 0.05f + 0.05f * (float)op_random(&random);
    }
}

void adamw_states_compare(const pb_backend *backend, int64_t most, adamw_states_report report) {
    const int64_t counts[] = {1, 255, 256, 257, 1000, 4096 * 3 + 5, MOST};
    fill();
    for (size_t k = 0; k < sizeof formats / sizeof *formats; k++) {
        for (size_t c = 0; c < sizeof counts / sizeof *counts && counts[c] <= most; c++)
            for (pb_dtype dtype = PB_F32; dtype <= PB_BF16; dtype++) {
                pb_convert(dtype, narrow, PB_F32, gradient, dtype == PB_F32 ? 0 : (size_t)counts[c]);
                check_format(backend, &formats[k], dtype, counts[c], report);
            }
        check_skipped(backend, &formats[k], 1000, report);
    }
}

void adamw_states_distances(const pb_backend *backend, adamw_states_report report) {
    fill();
    for (size_t k = 0; k < sizeof formats / sizeof *formats; k++) {
        const format *f = &formats[k];
        const double ratio = distance(backend, f, MOST);
        printf("%-32s distance to fp32 state's weights after a step: %.3g of the step\n", f->name, ratio);
        report(ratio < (f->master == PB_BF16 ? 3 : f->v == PB_U8 ? 0.5 : 0.05), f->name, "distance", MOST);
    }
}
