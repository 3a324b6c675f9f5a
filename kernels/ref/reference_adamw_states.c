// AdamW on state that is kept in fewer bytes, element by element from the definitions in kernels/adamw.h and quant/.
// Rounding is part of what they define, so other kernels give these very bits, and arithmetic is in float here.
#include <string.h>

#include "kernels/adamw.h"
#include "kernels/ref/reference_kernels.h"
#include "quant/codecs.h"

static float stored(const pb_tensor *t, int64_t i) {
    return (float)ref_get(t, i);
}

static float moment(const pb_kernel_args *args, bool first, int64_t i) {
    const pb_tensor *t = &args->in[first ? PB_ADAMW_M : PB_ADAMW_V];
    const pb_tensor *scales = &args->in[first ? PB_ADAMW_M_SCALES : PB_ADAMW_V_SCALES];
    if (t->dtype != PB_U8) return stored(t, i);
    return pb_block8_map[!first][((const uint8_t *)t->data)[i]] * stored(scales, i / PB_BLOCK8);
}

static float weight(const pb_kernel_args *args, int64_t i) {
    const pb_tensor *master = &args->in[PB_ADAMW_MASTER], *work = &args->in[PB_ADAMW_WORK];
    const bool wide = master->dtype == PB_I16;
    if (!wide && master->dtype != PB_I8) return stored(master, i);
    const uint16_t bits = ((const uint16_t *)work->data)[i];
    const int16_t residual = (int16_t)ref_get(master, i);
    return work->dtype == PB_BF16 ? pb_join_bf16(bits, residual, wide) : pb_join_f16(bits, residual, wide);
}

// x as bf16, with the random bits of element i of the slice.
static uint16_t rounded(const pb_kernel_args *args, pb_adamw_draw draw, int64_t i, float x) {
    const pb_random_key key = pb_adamw_key(args->in[PB_ADAMW_HYPER].data, args->attr->adamw.stream, draw);
    const uint64_t element = (uint64_t)(args->attr->adamw.first + i);
    uint32_t words[4];
    pb_philox_block(&key, element / PB_PHILOX_ELEMENTS, words);
    const uint32_t word = words[element % PB_PHILOX_ELEMENTS / 2];
    return pb_round_stochastic(x, element % 2 ? word >> 16 : word & 0xffffu);
}

// x[n], which begins with element i: a block.
static void put_moment(const pb_kernel_args *args, bool first, int64_t i, int64_t n, const float *x) {
    const pb_tensor *t = &args->out[first ? PB_ADAMW_NEW_M : PB_ADAMW_NEW_V];
    const pb_tensor *scales = &args->out[first ? PB_ADAMW_NEW_M_SCALES : PB_ADAMW_NEW_V_SCALES];
    if (t->dtype == PB_U8)
        pb_codecs_scalar.encode8(first, x, n, (uint8_t *)t->data + i, (float *)scales->data + i / PB_BLOCK8);
    for (int64_t k = 0; k < n; k++) {
        if (t->dtype == PB_BF16)
            ((uint16_t *)t->data)[i + k] = rounded(args, first ? PB_ADAMW_DRAW_M : PB_ADAMW_DRAW_V, i + k, x[k]);
        else if (t->dtype == PB_F32)
            ref_put(t, i + k, x[k]);
    }
}

static void put_weight(const pb_kernel_args *args, int64_t i, float x) {
    const pb_tensor *master = &args->out[PB_ADAMW_NEW_MASTER], *work = &args->out[PB_ADAMW_NEW_WORK];
    const bool wide = master->dtype == PB_I16;
    if (master->dtype == PB_BF16) {
        ((uint16_t *)master->data)[i] = rounded(args, PB_ADAMW_DRAW_WEIGHT, i, x);
    } else if (wide || master->dtype == PB_I8) {
        const pb_split s = work->dtype == PB_BF16 ? pb_split_bf16(x, wide) : pb_split_f16(x, wide);
        ((uint16_t *)work->data)[i] = s.work;
        ref_put(master, i, s.residual);
    } else {
        ref_put(master, i, x);
        if (ref_has(work)) ref_put(work, i, x);
    }
}

static void copy(const pb_tensor *in, const pb_tensor *out) {
    if (ref_has(in) && ref_has(out) && in->data != out->data)
        memcpy(out->data, in->data, (size_t)pb_shape_count(out->shape) * pb_dtype_size(out->dtype));
}

void ref_adamw_states(const pb_kernel_args *args) {
    const pb_tensor *g = &args->in[PB_ADAMW_GRADIENT];
    const float *control = args->in[PB_ADAMW_CONTROL].data;
    const pb_adamw_scalars scalars = pb_adamw_scalars_of(args->in[PB_ADAMW_HYPER].data, control);
    const int64_t count = pb_shape_count(g->shape);
    if (control[PB_CONTROL_SKIP] != 0) {
        for (int i = 0; i < PB_MAX_OUTPUTS; i++) copy(&args->in[PB_ADAMW_MASTER + i], &args->out[i]);
        if (!ref_has(&args->in[PB_ADAMW_WORK]) && ref_has(&args->out[PB_ADAMW_NEW_WORK]))
            for (int64_t i = 0; i < count; i++)
                ref_put(&args->out[PB_ADAMW_NEW_WORK], i, ref_get(&args->in[PB_ADAMW_MASTER], i));
        return;
    }
    for (int64_t i = 0; i < count; i += PB_BLOCK8) {
        const int64_t n = count - i < PB_BLOCK8 ? count - i : PB_BLOCK8;
        float p[PB_BLOCK8], m[PB_BLOCK8], v[PB_BLOCK8];
        for (int64_t k = 0; k < n; k++) {
            p[k] = weight(args, i + k);
            m[k] = moment(args, true, i + k);
            v[k] = moment(args, false, i + k);
            pb_adamw_element(&scalars, stored(g, i + k), &p[k], &m[k], &v[k]);
        }
        for (int64_t k = 0; k < n; k++) put_weight(args, i + k, p[k]);
        put_moment(args, true, i, n, m);
        put_moment(args, false, i, n, v);
    }
}
