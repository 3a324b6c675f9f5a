// Shape inference: what each op accepts, and what comes out. Every mistake of a model builder ends here, so the
// messages give both shapes.
#include <stdio.h>

#include "graph/rules.h"

static const char *shape_text(pb_shape shape, char *buffer, size_t bytes) {
    int used = snprintf(buffer, bytes, "[");
    for (int i = 0; i < shape.rank; i++)
        used += snprintf(buffer + used, bytes - (size_t)used, "%s%lld", i ? "," : "", (long long)shape.dim[i]);
    snprintf(buffer + used, bytes - (size_t)used, "]");
    return buffer;
}

#define REQUIRE(condition, what)                  \
    do {                                          \
        if (!(condition)) return refuse(a, what); \
    } while (0)

static pb_status refuse(const pb_infer_args *a, const char *what) {
    char text[PB_MAX_INPUTS][96];
    char all[PB_MAX_INPUTS * 128];
    int used = 0;
    all[0] = '\0';
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (a->in[i])
            used += snprintf(all + used, sizeof all - (size_t)used, " %s%s", pb_dtype_name(a->in[i]->dtype),
                             shape_text(a->in[i]->shape, text[i], sizeof text[i]));
    return pb_error(PB_ERR_INTERNAL, "%s; inputs:%s", what, all);
}

static bool has(const pb_infer_args *a, int inputs) {
    for (int i = 0; i < inputs; i++)
        if (!a->in[i]) return false;
    return true;
}

static void set(pb_infer_args *a, int i, pb_dtype dtype, pb_shape shape) {
    a->out[i]->dtype = dtype;
    a->out[i]->shape = shape;
    if (a->out_count <= i) a->out_count = i + 1;
}

// fp32 everywhere but in the double-precision graphs of the tests.
static pb_dtype wide(pb_dtype dtype) {
    return dtype == PB_F64 ? PB_F64 : PB_F32;
}

static bool is_vector(const pb_value *v, int64_t count) {
    return !v || (v->shape.rank == 1 && v->shape.dim[0] == count);
}

static pb_shape with_last(pb_shape shape, int64_t last) {
    shape.dim[shape.rank - 1] = last;
    return shape;
}

pb_status pb_infer_linear(pb_infer_args *a) {
    REQUIRE(has(a, 2) && a->in[1]->shape.rank == 2, "linear needs x[..,I] and w[O,I]");
    const pb_shape x = a->in[0]->shape, w = a->in[1]->shape;
    REQUIRE(pb_shape_last(x) == w.dim[1] && a->in[0]->dtype == a->in[1]->dtype, "x and w do not match");
    REQUIRE(is_vector(a->in[2], w.dim[0]), "the bias does not match w");
    set(a, 0, a->in[0]->dtype, with_last(x, w.dim[0]));
    REQUIRE(!a->in[3] || pb_shape_equal(a->in[3]->shape, a->out[0]->shape), "the residual does not match y");
    return PB_OK;
}

pb_status pb_infer_linear_bwd_data(pb_infer_args *a) {
    REQUIRE(has(a, 2) && pb_shape_last(a->in[0]->shape) == a->in[1]->shape.dim[0], "dy and w do not match");
    set(a, 0, a->in[0]->dtype, with_last(a->in[0]->shape, a->in[1]->shape.dim[1]));
    REQUIRE(!a->in[2] || pb_shape_equal(a->in[2]->shape, a->out[0]->shape), "the addend does not match dx");
    return PB_OK;
}

pb_status pb_infer_linear_bwd_weight(pb_infer_args *a) {
    REQUIRE(has(a, 2) && pb_shape_rows(a->in[0]->shape) == pb_shape_rows(a->in[1]->shape), "dy and x do not match");
    const int64_t outputs = pb_shape_last(a->in[0]->shape);
    set(a, 0, a->in[0]->dtype, PB_SHAPE2(outputs, pb_shape_last(a->in[1]->shape)));
    set(a, 1, wide(a->in[0]->dtype), PB_SHAPE1(outputs));
    return PB_OK;
}

pb_status pb_infer_conv2d(pb_infer_args *a) {
    REQUIRE(has(a, 2) && a->in[0]->shape.rank == 4 && a->in[1]->shape.rank == 4,
            "conv2d needs x[N,H,W,I] and w[O,kh,kw,I]");
    const pb_shape x = a->in[0]->shape, w = a->in[1]->shape;
    REQUIRE(x.dim[3] == w.dim[3] && a->in[0]->dtype == a->in[1]->dtype, "x and w do not match");
    a->attr.conv.kh = (int32_t)w.dim[1];
    a->attr.conv.kw = (int32_t)w.dim[2];
    a->attr.conv.in_h = (int32_t)x.dim[1];
    a->attr.conv.in_w = (int32_t)x.dim[2];
    REQUIRE(a->attr.conv.stride > 0, "the stride must be positive");
    const int64_t h = a->attr.conv.up_h ? a->attr.conv.up_h : x.dim[1],
                  width = a->attr.conv.up_w ? a->attr.conv.up_w : x.dim[2];
    const int64_t free_h = h + a->attr.conv.pad_top + a->attr.conv.pad_bottom - w.dim[1];
    const int64_t free_w = width + a->attr.conv.pad_left + a->attr.conv.pad_right - w.dim[2];
    REQUIRE(free_h >= 0 && free_w >= 0, "the picture is smaller than the kernel");
    set(a, 0, a->in[0]->dtype,
        PB_SHAPE4(x.dim[0], free_h / a->attr.conv.stride + 1, free_w / a->attr.conv.stride + 1, w.dim[0]));
    REQUIRE(is_vector(a->in[2], w.dim[0]), "the bias does not match w");
    REQUIRE(!a->in[3] || pb_shape_equal(a->in[3]->shape, PB_SHAPE2(x.dim[0], w.dim[0])), "the row bias must be [N,O]");
    REQUIRE(!a->in[4] || pb_shape_equal(a->in[4]->shape, a->out[0]->shape), "the residual does not match y");
    return PB_OK;
}

pb_status pb_infer_conv2d_bwd_data(pb_infer_args *a) {
    REQUIRE(has(a, 2) && a->in[0]->shape.dim[3] == a->in[1]->shape.dim[0], "dy and w do not match");
    set(a, 0, a->in[0]->dtype,
        PB_SHAPE4(a->in[0]->shape.dim[0], a->attr.conv.in_h, a->attr.conv.in_w, a->in[1]->shape.dim[3]));
    REQUIRE(!a->in[2] || pb_shape_equal(a->in[2]->shape, a->out[0]->shape), "the addend does not match dx");
    return PB_OK;
}

pb_status pb_infer_conv2d_bwd_weight(pb_infer_args *a) {
    REQUIRE(has(a, 2) && a->in[0]->shape.dim[0] == a->in[1]->shape.dim[0], "dy and x do not match");
    const int64_t outputs = a->in[0]->shape.dim[3];
    set(a, 0, a->in[0]->dtype, PB_SHAPE4(outputs, a->attr.conv.kh, a->attr.conv.kw, a->in[1]->shape.dim[3]));
    set(a, 1, wide(a->in[0]->dtype), PB_SHAPE1(outputs));
    return PB_OK;
}

pb_status pb_infer_group_norm(pb_infer_args *a) {
    REQUIRE(has(a, 3) && a->in[0]->shape.rank >= 2, "group_norm needs x[N,..,C], gamma and beta");
    const pb_shape x = a->in[0]->shape;
    const int64_t channels = pb_shape_last(x);
    REQUIRE(is_vector(a->in[1], channels) && is_vector(a->in[2], channels), "gamma and beta must be [C]");
    REQUIRE(a->attr.norm.groups > 0 && channels % a->attr.norm.groups == 0, "the groups must divide the channels");
    set(a, 0, a->in[0]->dtype, x);
    set(a, 1, wide(a->in[0]->dtype), PB_SHAPE3(x.dim[0], a->attr.norm.groups, 2));
    return PB_OK;
}

pb_status pb_infer_group_norm_bwd(pb_infer_args *a) {
    REQUIRE(has(a, 5) && pb_shape_equal(a->in[0]->shape, a->in[1]->shape), "dy and x do not match");
    REQUIRE(!a->in[5] || pb_shape_equal(a->in[5]->shape, a->in[1]->shape), "the addend does not match dx");
    set(a, 0, a->in[0]->dtype, a->in[1]->shape);
    set(a, 1, a->in[2]->dtype, a->in[2]->shape);
    set(a, 2, a->in[3]->dtype, a->in[3]->shape);
    return PB_OK;
}

pb_status pb_infer_layer_norm(pb_infer_args *a) {
    REQUIRE(has(a, 3), "layer_norm needs x[..,C], gamma and beta");
    const pb_shape x = a->in[0]->shape;
    REQUIRE(is_vector(a->in[1], pb_shape_last(x)) && is_vector(a->in[2], pb_shape_last(x)),
            "gamma and beta must be [C]");
    set(a, 0, a->in[0]->dtype, x);
    set(a, 1, wide(a->in[0]->dtype), PB_SHAPE2(pb_shape_rows(x), 2));
    return PB_OK;
}

pb_status pb_infer_layer_norm_bwd(pb_infer_args *a) {
    REQUIRE(has(a, 4) && pb_shape_equal(a->in[0]->shape, a->in[1]->shape), "dy and x do not match");
    REQUIRE(!a->in[4] || pb_shape_equal(a->in[4]->shape, a->in[1]->shape), "the addend does not match dx");
    set(a, 0, a->in[0]->dtype, a->in[1]->shape);
    set(a, 1, a->in[2]->dtype, a->in[2]->shape);
    set(a, 2, a->in[2]->dtype, a->in[2]->shape);
    return PB_OK;
}

pb_status pb_infer_unary(pb_infer_args *a) {
    REQUIRE(has(a, 1), "unary needs x");
    set(a, 0, a->in[0]->dtype, a->in[0]->shape);
    return PB_OK;
}

pb_status pb_infer_unary_bwd(pb_infer_args *a) {
    REQUIRE(has(a, 2) && pb_shape_equal(a->in[0]->shape, a->in[1]->shape), "dy and x do not match");
    set(a, 0, a->in[0]->dtype, a->in[1]->shape);
    return PB_OK;
}

pb_status pb_infer_geglu(pb_infer_args *a) {
    REQUIRE(has(a, 1) && pb_shape_last(a->in[0]->shape) % 2 == 0, "geglu needs x[..,2D]");
    set(a, 0, a->in[0]->dtype, with_last(a->in[0]->shape, pb_shape_last(a->in[0]->shape) / 2));
    return PB_OK;
}

pb_status pb_infer_geglu_bwd(pb_infer_args *a) {
    REQUIRE(has(a, 2) && pb_shape_last(a->in[1]->shape) == 2 * pb_shape_last(a->in[0]->shape), "dy and x do not match");
    set(a, 0, a->in[0]->dtype, a->in[1]->shape);
    return PB_OK;
}

// Tokens of q, k, v: the product of the middle dimensions.
static int64_t tokens(pb_shape shape) {
    return pb_shape_rows(shape) / shape.dim[0];
}

pb_status pb_infer_attention(pb_infer_args *a) {
    REQUIRE(has(a, 3), "attention needs q, k and v");
    const pb_shape q = a->in[0]->shape, k = a->in[1]->shape;
    REQUIRE(pb_shape_equal(k, a->in[2]->shape) && q.dim[0] == k.dim[0] && pb_shape_last(q) == pb_shape_last(k),
            "q, k and v do not match");
    REQUIRE(a->attr.attention.heads > 0 && pb_shape_last(q) % a->attr.attention.heads == 0,
            "the heads must divide the channels");
    REQUIRE(!a->attr.attention.causal || tokens(q) == tokens(k), "causal attention needs as many keys as queries");
    set(a, 0, a->in[0]->dtype, q);
    set(a, 1, wide(a->in[0]->dtype), PB_SHAPE3(q.dim[0], a->attr.attention.heads, tokens(q)));
    return PB_OK;
}

pb_status pb_infer_attention_bwd(pb_infer_args *a) {
    REQUIRE(has(a, 6) && pb_shape_equal(a->in[0]->shape, a->in[1]->shape),
            "attention_bwd needs dy, q, k, v, y and lse");
    for (int i = 0; i < 3; i++) set(a, i, a->in[i + 1]->dtype, a->in[i + 1]->shape);
    return PB_OK;
}

pb_status pb_infer_add(pb_infer_args *a) {
    REQUIRE(has(a, 2) && pb_shape_equal(a->in[0]->shape, a->in[1]->shape) && a->in[0]->dtype == a->in[1]->dtype,
            "the summands do not match");
    set(a, 0, a->in[0]->dtype, a->in[0]->shape);
    return PB_OK;
}

pb_status pb_infer_concat(pb_infer_args *a) {
    REQUIRE(has(a, 2) && a->in[0]->shape.rank == a->in[1]->shape.rank && a->in[0]->dtype == a->in[1]->dtype,
            "the parts do not match");
    const int64_t channels = pb_shape_last(a->in[0]->shape) + pb_shape_last(a->in[1]->shape);
    set(a, 0, a->in[0]->dtype, with_last(a->in[0]->shape, channels));
    REQUIRE(pb_shape_equal(a->out[0]->shape, with_last(a->in[1]->shape, channels)), "the parts do not match");
    return PB_OK;
}

pb_status pb_infer_slice(pb_infer_args *a) {
    REQUIRE(has(a, 1), "slice needs x");
    const int64_t begin = a->attr.slice.begin, length = a->attr.slice.length;
    REQUIRE(begin >= 0 && length > 0 && begin + length <= pb_shape_last(a->in[0]->shape), "the slice is outside x");
    set(a, 0, a->in[0]->dtype, with_last(a->in[0]->shape, length));
    return PB_OK;
}

pb_status pb_infer_sum_pixels(pb_infer_args *a) {
    REQUIRE(has(a, 1) && a->in[0]->shape.rank >= 2, "sum_pixels needs x[N,..,C]");
    set(a, 0, a->in[0]->dtype, PB_SHAPE2(a->in[0]->shape.dim[0], pb_shape_last(a->in[0]->shape)));
    return PB_OK;
}

pb_status pb_infer_embedding(pb_infer_args *a) {
    REQUIRE(has(a, 3) && a->in[0]->shape.rank == 2 && a->in[0]->dtype == PB_I32,
            "embedding needs ids[N,T] (i32), table, positions");
    const pb_shape ids = a->in[0]->shape, table = a->in[1]->shape, positions = a->in[2]->shape;
    REQUIRE(table.rank == 2 && positions.rank == 2 && table.dim[1] == positions.dim[1] &&
                positions.dim[0] >= ids.dim[1] && a->in[1]->dtype == a->in[2]->dtype,
            "the tables do not match the ids");
    set(a, 0, a->in[1]->dtype, PB_SHAPE3(ids.dim[0], ids.dim[1], table.dim[1]));
    return PB_OK;
}

pb_status pb_infer_embedding_bwd(pb_infer_args *a) {
    REQUIRE(has(a, 2) && a->in[0]->shape.rank == 3, "embedding_bwd needs dy[N,T,C] and ids");
    set(a, 0, a->attr.embedding.dtype, PB_SHAPE2(a->attr.embedding.rows, pb_shape_last(a->in[0]->shape)));
    set(a, 1, a->attr.embedding.dtype, PB_SHAPE2(a->attr.embedding.positions, pb_shape_last(a->in[0]->shape)));
    return PB_OK;
}

pb_status pb_infer_timestep_embedding(pb_infer_args *a) {
    REQUIRE(has(a, 1) && a->in[0]->shape.rank == 1, "timestep_embedding needs t[N]");
    REQUIRE(a->attr.timestep.channels > 0 && a->attr.timestep.channels % 2 == 0, "the channels must be even");
    set(a, 0, a->attr.timestep.dtype, PB_SHAPE2(a->in[0]->shape.dim[0], a->attr.timestep.channels));
    return PB_OK;
}

pb_status pb_infer_cast(pb_infer_args *a) {
    REQUIRE(has(a, 1), "cast needs x");
    set(a, 0, a->attr.cast.dtype, a->in[0]->shape);
    return PB_OK;
}

pb_status pb_infer_decode8(pb_infer_args *a) {
    REQUIRE(has(a, 2) && a->in[0]->dtype == PB_U8 && a->in[1]->dtype == PB_F32, "decode8 needs codes and fp32 scales");
    const int64_t blocks = (pb_shape_count(a->in[0]->shape) + PB_STATE_BLOCK - 1) / PB_STATE_BLOCK;
    REQUIRE(is_vector(a->in[1], blocks), "the scales do not match the codes");
    set(a, 0, a->attr.cast.dtype, a->in[0]->shape);
    return PB_OK;
}

pb_status pb_infer_mse_loss(pb_infer_args *a) {
    REQUIRE(has(a, 2) && pb_shape_equal(a->in[0]->shape, a->in[1]->shape), "prediction and target do not match");
    set(a, 0, wide(a->in[0]->dtype), PB_SHAPE1(a->in[0]->shape.dim[0]));
    return PB_OK;
}

pb_status pb_infer_mse_loss_bwd(pb_infer_args *a) {
    REQUIRE(has(a, 4) && pb_shape_equal(a->in[0]->shape, a->in[1]->shape), "prediction and target do not match");
    REQUIRE(is_vector(a->in[2], a->in[0]->shape.dim[0]) && is_vector(a->in[3], 1), "weight must be [N] and scale [1]");
    set(a, 0, a->in[0]->dtype, a->in[0]->shape);
    return PB_OK;
}

// Output i is a new version of input `of`.
static void replace(pb_infer_args *a, int i, int of) {
    set(a, i, a->in[of]->dtype, a->in[of]->shape);
    a->out[i]->alias = a->in_id[of];
}

pb_status pb_infer_accumulate(pb_infer_args *a) {
    REQUIRE(has(a, 2) && pb_shape_equal(a->in[0]->shape, a->in[1]->shape), "the gradient does not match its sum");
    replace(a, 0, 1);
    return PB_OK;
}

pb_status pb_infer_grad_norm(pb_infer_args *a) {
    REQUIRE(has(a, 2) && is_vector(a->in[1], 1) && a->in[1]->dtype == PB_F64, "grad_norm needs g and norm[1] (f64)");
    replace(a, 0, 1);
    return PB_OK;
}

pb_status pb_infer_step_control(pb_infer_args *a) {
    REQUIRE(has(a, 2) && is_vector(a->in[1], PB_HYPER_COUNT), "step_control needs norm[1] and hyper");
    set(a, 0, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT));
    return PB_OK;
}

static bool is_wide(const pb_value *v) {
    return v->dtype == PB_F32 || v->dtype == PB_F64;
}

// A moment is fp32 or BF16, or codes with the scales of their blocks.
static bool is_moment(const pb_infer_args *a, int i, int scales) {
    const pb_value *m = a->in[i];
    if (!pb_shape_equal(m->shape, a->in[PB_ADAMW_GRADIENT]->shape)) return false;
    if (m->dtype != PB_U8) return (is_wide(m) || m->dtype == PB_BF16) && !a->in[scales];
    const int64_t blocks = (pb_shape_count(m->shape) + PB_STATE_BLOCK - 1) / PB_STATE_BLOCK;
    return a->in[scales] && a->in[scales]->dtype == PB_F32 && is_vector(a->in[scales], blocks);
}

pb_status pb_infer_adamw(pb_infer_args *a) {
    REQUIRE(has(a, 6), "adamw needs g, control, hyper, master, m and v");
    const pb_value *master = a->in[PB_ADAMW_MASTER], *work = a->in[PB_ADAMW_WORK];
    REQUIRE(pb_shape_equal(a->in[PB_ADAMW_GRADIENT]->shape, master->shape),
            "the gradient does not match the parameter");
    if (master->dtype == PB_I16 || master->dtype == PB_I8)
        REQUIRE(work && pb_shape_equal(work->shape, master->shape) && (work->dtype == PB_F16 || work->dtype == PB_BF16),
                "a residual needs its working weight");
    else
        REQUIRE((is_wide(master) || master->dtype == PB_BF16) && !work, "this is no master weight");
    REQUIRE(is_moment(a, PB_ADAMW_M, PB_ADAMW_M_SCALES) && is_moment(a, PB_ADAMW_V, PB_ADAMW_V_SCALES),
            "the moments do not match the parameter");
    for (int i = 0; i < 3; i++) replace(a, i, i + 3);
    // A working copy that is not read is named by pb_adamw (optimizer.c).
    if (work) replace(a, PB_ADAMW_NEW_WORK, PB_ADAMW_WORK);
    if (a->in[PB_ADAMW_M_SCALES]) replace(a, PB_ADAMW_NEW_M_SCALES, PB_ADAMW_M_SCALES);
    if (a->in[PB_ADAMW_V_SCALES]) replace(a, PB_ADAMW_NEW_V_SCALES, PB_ADAMW_V_SCALES);
    a->out_count = PB_MAX_OUTPUTS;
    return PB_OK;
}
