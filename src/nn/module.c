#include "nn/module.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nn/layers.h"

pb_module *pb_module_create(pb_graph *graph, pb_dtype compute, bool trained) {
    pb_module *m = pb_arena_alloc(graph->arena, sizeof *m);
    if (!m) return NULL;
    m->graph = graph;
    m->compute = compute;
    m->trained = trained;
    return m;
}

static void fail_memory(pb_graph *g) {
    if (g->status == PB_OK) g->status = pb_error(PB_ERR_MEMORY, "no memory for a model's graph");
}

static char *format_path(pb_module *m, const char *format, va_list arguments) {
    char text[256];
    const int bytes = vsnprintf(text, sizeof text, format, arguments);
    assert(bytes >= 0 && bytes < (int)sizeof text);  // names are ours, and short
    (void)bytes;
    char *path = pb_arena_string(m->graph->arena, text);
    if (!path) fail_memory(m->graph);
    return path;
}

const char *pb_module_path(pb_module *m, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const char *path = format_path(m, format, arguments);
    va_end(arguments);
    return path ? path : "";
}

pb_shape pb_module_shape(const pb_module *m, pb_vid x) {
    if (m->graph->status != PB_OK || x == PB_NONE) return PB_SHAPE4(1, 1, 1, 1);
    return pb_graph_value(m->graph, x)->shape;
}

void pb_module_expect(pb_module *m, pb_vid x, int rank, int64_t channels, const char *name) {
    pb_graph *g = m->graph;
    if (g->status != PB_OK) return;
    if (x == PB_NONE) {
        g->status = pb_error(PB_ERR_FORMAT, "%s is missing; the model takes %d dimensions", name, rank);
        return;
    }
    const pb_shape shape = pb_graph_value(g, x)->shape;
    if (shape.rank == rank && (channels == 0 || pb_shape_last(shape) == channels)) return;
    g->status =
        pb_error(PB_ERR_FORMAT, "%s has %d dimensions and %lld channels; the model takes %d and %lld", name, shape.rank,
                 (long long)pb_shape_last(shape), rank, (long long)(channels ? channels : pb_shape_last(shape)));
}

// What the ops read of a parameter with this shape in the file.
static pb_shape work_shape(pb_layout layout, pb_shape file) {
    if (layout == PB_LAYOUT_OIHW) return PB_SHAPE4(file.dim[0], file.dim[2], file.dim[3], file.dim[1]);
    if (file.rank < 4) return file;
    assert(file.dim[2] == 1 && file.dim[3] == 1);
    return PB_SHAPE2(file.dim[0], file.dim[1]);
}

static bool reserve_param(pb_module *m) {
    if (m->param_count < m->param_capacity) return true;
    const uint32_t capacity = m->param_capacity ? 2 * m->param_capacity : 64;
    pb_param *params = pb_arena_array(m->graph->arena, capacity, sizeof *params);
    if (!params) return false;
    if (m->param_count) memcpy(params, m->params, m->param_count * sizeof *params);
    m->params = params;
    m->param_capacity = capacity;
    return true;
}

static pb_vid declare(pb_module *m, bool narrow, bool in_codes, pb_layout layout, pb_shape file_shape,
                      const char *name) {
    pb_graph *g = m->graph;
    if (!reserve_param(m)) fail_memory(g);
    if (g->status != PB_OK) return PB_NONE;
    const pb_dtype dtype = narrow || m->compute == PB_F64 ? m->compute : PB_F32;
    const pb_shape shape = work_shape(layout, file_shape);
    pb_vid codes = PB_NONE, scales = PB_NONE, work;
    if (in_codes) {
        const pb_shape blocks = PB_SHAPE1((pb_shape_count(shape) + PB_STATE_BLOCK - 1) / PB_STATE_BLOCK);
        codes = pb_graph_add_value(g, PB_CLASS_WEIGHT, PB_U8, shape, true, "%s (codes)", name);
        scales = pb_graph_add_value(g, PB_CLASS_WEIGHT, PB_F32, blocks, true, "%s (scales)", name);
        work = pb_decode_codes(g, codes, scales, dtype);
    } else {
        work = pb_graph_add_value(g, PB_CLASS_WEIGHT, dtype, shape, true, "%s", name);
    }
    if (work == PB_NONE) return PB_NONE;
    m->params[m->param_count++] = (pb_param){.name = name,
                                             .file_shape = file_shape,
                                             .layout = layout,
                                             .narrow = narrow,
                                             .work = work,
                                             .codes = codes,
                                             .scales = scales,
                                             .master = PB_NONE,
                                             .m = PB_NONE,
                                             .v = PB_NONE,
                                             .m_scales = PB_NONE,
                                             .v_scales = PB_NONE,
                                             .grad = PB_NONE,
                                             .grad_sum = PB_NONE};
    return work;
}

pb_vid pb_module_param(pb_module *m, bool narrow, pb_layout layout, pb_shape file_shape, const char *name_format, ...) {
    va_list arguments;
    va_start(arguments, name_format);
    const char *name = format_path(m, name_format, arguments);
    va_end(arguments);
    const bool in_codes =
        m->codes && !m->trained && narrow && m->compute != PB_F64 && pb_shape_count(file_shape) >= PB_CODED_ELEMENTS;
    return name ? declare(m, narrow, in_codes, layout, file_shape, name) : PB_NONE;
}

pb_vid pb_module_table(pb_module *m, pb_shape shape, const char *name) {
    return declare(m, true, false, PB_LAYOUT_PLAIN, shape, name);
}

uint64_t pb_module_param_elements(const pb_module *m) {
    uint64_t elements = 0;
    for (uint32_t i = 0; i < m->param_count; i++) elements += (uint64_t)pb_shape_count(m->params[i].file_shape);
    return elements;
}

void pb_module_sibling(pb_module *m, const char *prefix) {
    assert(m->sibling_count < PB_MAX_SIBLINGS);
    m->siblings[m->sibling_count++] = prefix;
}
