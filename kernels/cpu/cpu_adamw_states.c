// AdamW on state that is kept in fewer bytes: a tile at a time becomes fp32, is updated as fp32 state is, and goes
// back.
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/tiles.h"
#include "quant/codecs.h"

_Static_assert((int)PB_STATE_BLOCK == (int)PB_BLOCK8, "one block");
_Static_assert((int)TILE % (int)PB_BLOCK8 == 0 && GRAIN % TILE == 0, "tiles are whole blocks");

// What is the same for all tiles.
typedef struct update {
    const pb_kernel_args *args;
    const pb_row_kernels *rows;
    const pb_codecs *codecs;
    const float *hyper;
    pb_adamw_scalars scalars;
} update;

static float *scales_at(const pb_tensor *t, int64_t i) {
    return (float *)t->data + i / PB_BLOCK8;
}

// Elements i .. i+n-1 of moment `slot` as floats: in `x`, or where they lie.
static const float *load_moment(const update *u, int slot, int64_t i, int64_t n, float *x) {
    const pb_tensor *t = &u->args->in[slot];
    const pb_tensor *scales = &u->args->in[slot == PB_ADAMW_M ? PB_ADAMW_M_SCALES : PB_ADAMW_V_SCALES];
    if (t->dtype == PB_U8)
        u->codecs->decode8(slot == PB_ADAMW_M, tile_address(t, i), scales_at(scales, i), n, x);
    else
        return tile_load(u->rows, t, i, n, x);
    return x;
}

static void round_to(const update *u, pb_adamw_draw draw, const pb_tensor *t, int64_t i, int64_t n, const float *x) {
    const pb_random_key key = pb_adamw_key(u->hyper, u->args->attr->adamw.stream, draw);
    u->codecs->round_stochastic(&key, u->args->attr->adamw.first + i, x, n, tile_address(t, i));
}

// What the update put into a tile; fp32 it has put into its place.
static void store_moment(const update *u, int slot, int64_t i, int64_t n, const float *x) {
    const bool first = slot == PB_ADAMW_NEW_M;
    const pb_tensor *t = &u->args->out[slot];
    const pb_tensor *scales = &u->args->out[first ? PB_ADAMW_NEW_M_SCALES : PB_ADAMW_NEW_V_SCALES];
    if (t->dtype == PB_U8)
        u->codecs->encode8(first, x, n, tile_address(t, i), scales_at(scales, i));
    else if (t->dtype == PB_BF16)
        round_to(u, first ? PB_ADAMW_DRAW_M : PB_ADAMW_DRAW_V, t, i, n, x);
}

static bool is_residual(pb_dtype dtype) {
    return dtype == PB_I16 || dtype == PB_I8;
}

static const float *load_weight(const update *u, int64_t i, int64_t n, float *x) {
    const pb_tensor *master = &u->args->in[PB_ADAMW_MASTER], *work = &u->args->in[PB_ADAMW_WORK];
    if (is_residual(master->dtype))
        u->codecs->join(work->dtype, master->dtype, tile_address(work, i), tile_address(master, i), n, x);
    else
        return tile_load(u->rows, master, i, n, x);
    return x;
}

static void store_weight(const update *u, int64_t i, int64_t n, const float *x) {
    const pb_tensor *master = &u->args->out[PB_ADAMW_NEW_MASTER], *work = &u->args->out[PB_ADAMW_NEW_WORK];
    if (is_residual(master->dtype)) {
        u->codecs->split(work->dtype, master->dtype, x, n, tile_address(work, i), tile_address(master, i));
        return;
    }
    if (master->dtype == PB_BF16) round_to(u, PB_ADAMW_DRAW_WEIGHT, master, i, n, x);
    if (work->data) u->rows->store(work->dtype, x, tile_address(work, i), n);
}

static void step_range(void *context, int64_t begin, int64_t end, int piece) {
    (void)piece;
    const update *u = context;
    float gradient[TILE], p[TILE], m[TILE], v[TILE];
    const pb_tensor *to = u->args->out;
    for (int64_t i = begin; i < end; i += TILE) {
        const int64_t n = tile_min(TILE, end - i);
        const float *const in[3] = {load_weight(u, i, n, p), load_moment(u, PB_ADAMW_M, i, n, m),
                                    load_moment(u, PB_ADAMW_V, i, n, v)};
        float *const out[3] = {tile_output(&to[PB_ADAMW_NEW_MASTER], i, p), tile_output(&to[PB_ADAMW_NEW_M], i, m),
                               tile_output(&to[PB_ADAMW_NEW_V], i, v)};
        const float *g = tile_load(u->rows, &u->args->in[PB_ADAMW_GRADIENT], i, n, gradient);
        u->rows->adamw(&u->scalars, g, in, out, n);
        store_weight(u, i, n, out[0]);
        store_moment(u, PB_ADAMW_NEW_M, i, n, out[1]);
        store_moment(u, PB_ADAMW_NEW_V, i, n, out[2]);
    }
}

// A skipped step leaves everything as it is, and makes a working copy that is not read.
static void keep(const pb_kernel_args *args) {
    static const int from[PB_MAX_OUTPUTS] = {PB_ADAMW_MASTER, PB_ADAMW_M,        PB_ADAMW_V,
                                             PB_ADAMW_WORK,   PB_ADAMW_M_SCALES, PB_ADAMW_V_SCALES};
    for (int o = 0; o < PB_MAX_OUTPUTS; o++) {
        const pb_tensor *in = &args->in[from[o]], *out = &args->out[o];
        if (out->data && in->data && in->data != out->data)
            memcpy(out->data, in->data, (size_t)pb_shape_count(out->shape) * pb_dtype_size(out->dtype));
    }
    const pb_tensor *work = &args->out[PB_ADAMW_NEW_WORK], *master = &args->in[PB_ADAMW_MASTER];
    if (work->data && !args->in[PB_ADAMW_WORK].data)
        pb_convert(work->dtype, work->data, master->dtype, master->data, (size_t)pb_shape_count(work->shape));
}

void pb_cpu_adamw_states(const pb_kernel_args *args) {
    const float *control = args->in[PB_ADAMW_CONTROL].data, *hyper = args->in[PB_ADAMW_HYPER].data;
    if (control[PB_CONTROL_SKIP] != 0) {
        keep(args);
        return;
    }
    update u = {args, pb_rows(), pb_codecs_here(), hyper, pb_adamw_scalars_of(hyper, control)};
    pb_parallel_for(pb_shape_count(args->in[PB_ADAMW_GRADIENT].shape), GRAIN, step_range, &u);
}
