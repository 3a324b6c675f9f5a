#include "graph/graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/rules.h"

pb_status pb_graph_create(pb_graph **graph) {
    pb_graph *g = calloc(1, sizeof *g);
    if (g) g->arena = pb_arena_create();
    if (!g || !g->arena) {
        free(g);
        return pb_error(PB_ERR_MEMORY, "no memory for a graph");
    }
    *graph = g;
    return PB_OK;
}

void pb_graph_destroy(pb_graph *g) {
    if (!g) return;
    pb_arena_destroy(g->arena);
    free(g->values);
    free(g->nodes);
    free(g);
}

uint64_t pb_value_bytes(const pb_value *value) {
    return (uint64_t)pb_shape_count(value->shape) * pb_dtype_size(value->dtype);
}

// Makes room for one more entry; false (and status) when there is no memory.
static bool reserve(pb_graph *g, void **array, uint32_t count, uint32_t *capacity, size_t size) {
    if (count < *capacity) return true;
    const uint32_t wanted = *capacity ? *capacity * 2 : 256;
    void *grown = realloc(*array, wanted * size);
    if (!grown) {
        g->status = pb_error(PB_ERR_MEMORY, "no memory for a graph of %u entries", wanted);
        return false;
    }
    *array = grown;
    *capacity = wanted;
    return true;
}

pb_vid pb_graph_new_value(pb_graph *g, const pb_value *value) {
    if (g->status != PB_OK) return PB_NONE;
    if (!reserve(g, (void **)&g->values, g->value_count, &g->value_capacity, sizeof *g->values)) return PB_NONE;
    g->values[g->value_count] = *value;
    return g->value_count++;
}

pb_vid pb_graph_add_value(pb_graph *g, pb_class class_, pb_dtype dtype, pb_shape shape, bool persistent,
                          const char *name_format, ...) {
    char name[256];
    va_list arguments;
    va_start(arguments, name_format);
    vsnprintf(name, sizeof name, name_format, arguments);
    va_end(arguments);
    const pb_value value = {
        .shape = shape,
        .dtype = dtype,
        .class_ = class_,
        .alias = PB_NONE,
        .producer = PB_NONE,
        .persistent = persistent,
        .name = pb_arena_string(g->arena, name),
    };
    if (!value.name) g->status = pb_error(PB_ERR_MEMORY, "no memory for a graph");
    return pb_graph_new_value(g, &value);
}

void pb_graph_mark_output(pb_graph *g, pb_vid value) {
    if (g->status == PB_OK && value < g->value_count) g->values[value].output = true;
}

static pb_status (*const infer[PB_OP_COUNT])(pb_infer_args *) = {
#define PB_OP(name, NAME, gradient, kind, inplace) pb_infer_##name,
#include "base/ops.def"
#undef PB_OP
};

void pb_graph_add_node(pb_graph *g, pb_opcode op, const pb_attr *attr, const pb_vid *in, pb_vid *out) {
    pb_value made[PB_MAX_OUTPUTS];
    pb_infer_args args = {.graph = g};
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        args.in[i] = in[i] == PB_NONE || g->status != PB_OK ? NULL : &g->values[in[i]];
        args.in_id[i] = in[i];
    }
    if (attr) args.attr = *attr;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        made[i] = (pb_value){.class_ = PB_CLASS_ACTIVATION, .alias = PB_NONE, .name = ""};
        args.out[i] = &made[i];
    }
    if (g->status == PB_OK && (g->status = infer[op](&args)) != PB_OK)
        pb_error_context(g->status, "op %s", pb_op_name(op));
    if (g->status == PB_OK) reserve(g, (void **)&g->nodes, g->node_count, &g->node_capacity, sizeof *g->nodes);

    pb_node node = {.op = op, .phase = g->phase, .attr = args.attr};
    memcpy(node.in, in, sizeof node.in);
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        const bool wanted = i < args.out_count && out[i] != PB_ABSENT;
        out[i] = PB_NONE;
        if (!wanted || g->status != PB_OK) continue;
        made[i].producer = g->node_count;
        // A new version of a value that lives on lives on itself.
        if (made[i].alias != PB_NONE) {
            const pb_value *old = &g->values[made[i].alias];
            made[i].class_ = old->class_;
            made[i].persistent = old->persistent;
            made[i].name = old->name;
        }
        out[i] = pb_graph_new_value(g, &made[i]);
    }
    memcpy(node.out, out, sizeof node.out);
    if (g->status == PB_OK) g->nodes[g->node_count++] = node;
}

void pb_node_kernel_args(const pb_graph *g, const pb_node *node, pb_kernel_args *args) {
    *args = (pb_kernel_args){.attr = &node->attr};
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (node->in[i] != PB_NONE)
            args->in[i] = (pb_tensor){NULL, g->values[node->in[i]].dtype, g->values[node->in[i]].shape};
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (node->out[i] != PB_NONE)
            args->out[i] = (pb_tensor){NULL, g->values[node->out[i]].dtype, g->values[node->out[i]].shape};
}

pb_vid pb_graph_root(const pb_graph *g, pb_vid v) {
    while (g->values[v].alias != PB_NONE) v = g->values[v].alias;
    return v;
}

void pb_graph_renumber(pb_graph *g) {
    for (uint32_t n = 0; n < g->node_count; n++)
        for (int i = 0; i < PB_MAX_OUTPUTS; i++)
            if (g->nodes[n].out[i] != PB_NONE) g->values[g->nodes[n].out[i]].producer = n;
}

pb_vid pb_graph_add_single(pb_graph *g, pb_opcode op, const pb_attr *attr, pb_vid a, pb_vid b, pb_vid c, pb_vid d,
                           pb_vid e) {
    const pb_vid given[] = {a, b, c, d, e};
    pb_vid in[PB_MAX_INPUTS], out[PB_MAX_OUTPUTS];
    for (int i = 0; i < PB_MAX_INPUTS; i++) in[i] = i < 5 ? given[i] : PB_NONE;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) out[i] = PB_NONE;
    pb_graph_add_node(g, op, attr, in, out);
    return out[0];
}

pb_vid pb_linear(pb_graph *g, pb_vid x, pb_vid w, pb_vid bias, pb_vid residual) {
    return pb_graph_add_single(g, PB_OP_LINEAR, NULL, x, w, bias, residual, PB_NONE);
}

pb_vid pb_conv2d(pb_graph *g, pb_vid x, pb_vid w, pb_vid bias, pb_vid rowbias, pb_vid residual, pb_attr attr) {
    return pb_graph_add_single(g, PB_OP_CONV2D, &attr, x, w, bias, rowbias, residual);
}

pb_vid pb_group_norm(pb_graph *g, pb_vid x, pb_vid gamma, pb_vid beta, int groups, float eps, bool silu) {
    const pb_attr attr = {.norm = {.eps = eps, .groups = groups, .silu = silu}};
    return pb_graph_add_single(g, PB_OP_GROUP_NORM, &attr, x, gamma, beta, PB_NONE, PB_NONE);
}

pb_vid pb_layer_norm(pb_graph *g, pb_vid x, pb_vid gamma, pb_vid beta, float eps) {
    const pb_attr attr = {.norm = {.eps = eps}};
    return pb_graph_add_single(g, PB_OP_LAYER_NORM, &attr, x, gamma, beta, PB_NONE, PB_NONE);
}

pb_vid pb_unary(pb_graph *g, pb_vid x, pb_unary_kind kind) {
    const pb_attr attr = {.unary = {.kind = kind}};
    return pb_graph_add_single(g, PB_OP_UNARY, &attr, x, PB_NONE, PB_NONE, PB_NONE, PB_NONE);
}

pb_vid pb_geglu(pb_graph *g, pb_vid x) {
    return pb_graph_add_single(g, PB_OP_GEGLU, NULL, x, PB_NONE, PB_NONE, PB_NONE, PB_NONE);
}

pb_vid pb_attention(pb_graph *g, pb_vid q, pb_vid k, pb_vid v, int heads, bool causal, float scale) {
    const pb_attr attr = {.attention = {.heads = heads, .causal = causal, .scale = scale}};
    return pb_graph_add_single(g, PB_OP_ATTENTION, &attr, q, k, v, PB_NONE, PB_NONE);
}

pb_vid pb_add(pb_graph *g, pb_vid a, pb_vid b) {
    return pb_graph_add_single(g, PB_OP_ADD, NULL, a, b, PB_NONE, PB_NONE, PB_NONE);
}

pb_vid pb_concat(pb_graph *g, pb_vid a, pb_vid b) {
    return pb_graph_add_single(g, PB_OP_CONCAT, NULL, a, b, PB_NONE, PB_NONE, PB_NONE);
}

pb_vid pb_slice(pb_graph *g, pb_vid x, int64_t begin, int64_t length) {
    const pb_attr attr = {.slice = {.begin = begin, .length = length}};
    return pb_graph_add_single(g, PB_OP_SLICE, &attr, x, PB_NONE, PB_NONE, PB_NONE, PB_NONE);
}

pb_vid pb_embedding(pb_graph *g, pb_vid ids, pb_vid table, pb_vid positions) {
    return pb_graph_add_single(g, PB_OP_EMBEDDING, NULL, ids, table, positions, PB_NONE, PB_NONE);
}

pb_vid pb_timestep_embedding(pb_graph *g, pb_vid t, pb_dtype dtype, int channels, bool flip, float shift) {
    const pb_attr attr = {.timestep = {.channels = channels,
                                       .flip_sin_to_cos = flip,
                                       .freq_shift = shift,
                                       .max_period = 10000.0f,
                                       .dtype = dtype}};
    return pb_graph_add_single(g, PB_OP_TIMESTEP_EMBEDDING, &attr, t, PB_NONE, PB_NONE, PB_NONE, PB_NONE);
}

pb_vid pb_cast(pb_graph *g, pb_vid x, pb_dtype dtype) {
    const pb_attr attr = {.cast = {.dtype = dtype}};
    return pb_graph_add_single(g, PB_OP_CAST, &attr, x, PB_NONE, PB_NONE, PB_NONE, PB_NONE);
}

pb_vid pb_decode_codes(pb_graph *g, pb_vid codes, pb_vid scales, pb_dtype dtype) {
    const pb_attr attr = {.cast = {.dtype = dtype}};
    return pb_graph_add_single(g, PB_OP_DECODE8, &attr, codes, scales, PB_NONE, PB_NONE, PB_NONE);
}
