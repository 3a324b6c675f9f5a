#include "train/optimizer_state.h"

static pb_vid declare(pb_graph *g, pb_dtype dtype, pb_shape shape, const pb_param *p, const char *what) {
    return pb_graph_add_value(g, PB_CLASS_STATE, dtype, shape, true, "%s (%s)", p->name, what);
}

static pb_vid declare_master(pb_graph *g, const pb_param *p, pb_optimizer_master master) {
    const pb_value work = g->values[p->work];
    if (work.dtype != PB_F16 && work.dtype != PB_BF16) return p->work;
    switch (master) {
    case PB_MASTER_SPLIT16: return declare(g, PB_I16, work.shape, p, "residual");
    case PB_MASTER_SPLIT8: return declare(g, PB_I8, work.shape, p, "residual");
    case PB_MASTER_NONE: return p->work;
    default: return declare(g, PB_F32, work.shape, p, "master");
    }
}

void pb_optimizer_declare(pb_graph *g, pb_param *p, const pb_optimizer_format *format, uint32_t stream) {
    const pb_shape shape = g->values[p->work].shape;
    const int64_t count = pb_shape_count(shape);
    const pb_optimizer_states states = count < PB_COMPRESSED_ELEMENTS ? PB_STATES_FP32 : format->states;
    const pb_dtype moments = states == PB_STATES_8BIT ? PB_U8 : states == PB_STATES_16BIT ? PB_BF16 : PB_F32;
    const pb_shape blocks = PB_SHAPE1((count + PB_STATE_BLOCK - 1) / PB_STATE_BLOCK);
    p->stream = stream;
    p->master = declare_master(g, p, format->master);
    p->m = declare(g, moments, shape, p, "m");
    p->v = declare(g, moments, shape, p, "v");
    p->m_scales = states == PB_STATES_8BIT ? declare(g, PB_F32, blocks, p, "m, scales") : PB_NONE;
    p->v_scales = states == PB_STATES_8BIT ? declare(g, PB_F32, blocks, p, "v, scales") : PB_NONE;
}

pb_vid pb_optimizer_update(pb_graph *g, const pb_param *p, pb_vid gradient, pb_vid control, pb_vid hyper) {
    return pb_adamw_on(g, gradient, control, hyper,
                       &(pb_adamw_state){.master = p->master, .m = p->m, .v = p->v, .work = p->work,
                                         .m_scales = p->m_scales, .v_scales = p->v_scales, .stream = p->stream});
}
