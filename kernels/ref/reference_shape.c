// Ops that move elements: sums of tensors, concatenation, slices, casts, embeddings.
#include <math.h>

#include "kernels/ref/reference_kernels.h"
#include "quant/codecs.h"

void pb_ref_add(const pb_kernel_args *args) {
    const pb_tensor *a = &args->in[0], *b = &args->in[1], *y = &args->out[0];
    for (int64_t i = 0; i < pb_shape_count(y->shape); i++) ref_put(y, i, ref_get(a, i) + ref_get(b, i));
}

// in: a[R,Ca] b[R,Cb]   out: y[R,Ca+Cb]
void pb_ref_concat(const pb_kernel_args *args) {
    const pb_tensor *a = &args->in[0], *b = &args->in[1], *y = &args->out[0];
    const int64_t ca = pb_shape_last(a->shape), cb = pb_shape_last(b->shape);
    for (int64_t r = 0; r < pb_shape_rows(y->shape); r++) {
        for (int64_t c = 0; c < ca; c++) ref_put(y, r * (ca + cb) + c, ref_get(a, r * ca + c));
        for (int64_t c = 0; c < cb; c++) ref_put(y, r * (ca + cb) + ca + c, ref_get(b, r * cb + c));
    }
}

// in: x[R,C]   out: y[R,length]
void pb_ref_slice(const pb_kernel_args *args) {
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    const int64_t from = pb_shape_last(x->shape), to = pb_shape_last(y->shape), begin = args->attr->slice.begin;
    for (int64_t r = 0; r < pb_shape_rows(y->shape); r++)
        for (int64_t c = 0; c < to; c++) ref_put(y, r * to + c, ref_get(x, r * from + begin + c));
}

// in: x[N,P,C]   out: y[N,C]
void pb_ref_sum_pixels(const pb_kernel_args *args) {
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    const int64_t images = x->shape.dim[0], channels = pb_shape_last(x->shape);
    const int64_t pixels = pb_shape_rows(x->shape) / images;
    for (int64_t n = 0; n < images; n++) {
        for (int64_t c = 0; c < channels; c++) {
            double sum = 0;
            for (int64_t p = 0; p < pixels; p++) sum += ref_get(x, (n * pixels + p) * channels + c);
            ref_put(y, n * channels + c, sum);
        }
    }
}

void pb_ref_cast(const pb_kernel_args *args) {
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    for (int64_t i = 0; i < pb_shape_count(x->shape); i++) ref_put(y, i, ref_get(x, i));
}

// in: x(u8) scales[blocks]   out: y
void pb_ref_decode8(const pb_kernel_args *args) {
    const pb_tensor *x = &args->in[0], *scales = &args->in[1], *y = &args->out[0];
    for (int64_t i = 0; i < pb_shape_count(x->shape); i++)  // the product is a float's: rounding is part of the format
        ref_put(y, i, pb_block8_map[0][((const uint8_t *)x->data)[i]] * ((const float *)scales->data)[i / PB_BLOCK8]);
}

// in: ids[N,T] table[V,C] positions[P,C]   out: y[N,T,C]
void pb_ref_embedding(const pb_kernel_args *args) {
    const pb_tensor *ids = &args->in[0], *table = &args->in[1], *positions = &args->in[2], *y = &args->out[0];
    const int64_t tokens = ids->shape.dim[1], channels = pb_shape_last(table->shape);
    for (int64_t r = 0; r < pb_shape_count(ids->shape); r++) {
        const int64_t id = (int64_t)ref_get(ids, r);
        for (int64_t c = 0; c < channels; c++)
            ref_put(y, r * channels + c,
                    ref_get(table, id * channels + c) + ref_get(positions, r % tokens * channels + c));
    }
}

// in: dy[N,T,C] ids[N,T]   out: dtable[V,C]? dpositions[P,C]?
void pb_ref_embedding_bwd(const pb_kernel_args *args) {
    const pb_tensor *dy = &args->in[0], *ids = &args->in[1], *dtable = &args->out[0], *dpositions = &args->out[1];
    const int64_t rows = pb_shape_count(ids->shape), tokens = ids->shape.dim[1], channels = pb_shape_last(dy->shape);
    for (int64_t i = 0; ref_has(dtable) && i < pb_shape_count(dtable->shape); i++) {
        double sum = 0;
        for (int64_t r = 0; r < rows; r++)
            if ((int64_t)ref_get(ids, r) == i / channels) sum += ref_get(dy, r * channels + i % channels);
        ref_put(dtable, i, sum);
    }
    for (int64_t i = 0; ref_has(dpositions) && i < pb_shape_count(dpositions->shape); i++) {
        double sum = 0;
        for (int64_t r = i / channels; i / channels < tokens && r < rows; r += tokens)
            sum += ref_get(dy, r * channels + i % channels);
        ref_put(dpositions, i, sum);
    }
}

// diffusers, models/embeddings.py, get_timestep_embedding: frequencies and angles are rounded to float there, and with
// a timestep of 999 that shows in the fourth digit, so they are here. in: t[N]   out: y[N,C]
void pb_ref_timestep_embedding(const pb_kernel_args *args) {
    const pb_tensor *t = &args->in[0], *y = &args->out[0];
    const pb_attr *attr = args->attr;
    const int64_t channels = pb_shape_last(y->shape), half = channels / 2;
    for (int64_t n = 0; n < pb_shape_count(t->shape); n++) {
        for (int64_t i = 0; i < half; i++) {
            float exponent = (float)-log(attr->timestep.max_period) * (float)i;
            exponent /= (float)half - attr->timestep.freq_shift;
            const float angle = (float)ref_get(t, n) * (float)exp(exponent);
            const int64_t first = n * channels + i, second = first + half;
            ref_put(y, attr->timestep.flip_sin_to_cos ? second : first, sin(angle));
            ref_put(y, attr->timestep.flip_sin_to_cos ? first : second, cos(angle));
        }
        if (channels % 2) ref_put(y, n * channels + channels - 1, 0);
    }
}
