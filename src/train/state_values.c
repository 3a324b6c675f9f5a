#include "train/state_values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/optimizer_state.h"

enum { MOST = 7 };  // values of a parameter

static int compare_values(const void *a, const void *b) {
    const pb_state_value *x = a, *y = b;
    const int order = strcmp(x->name, y->name);
    return order ? order : (x->kind == PB_STATE_DERIVED) - (y->kind == PB_STATE_DERIVED);
}

static void add(pb_state_values *values, pb_part part, const pb_param *param, const char *what, pb_vid value,
                pb_state_kind kind) {
    if (value == PB_NONE) return;
    pb_state_value *v = &values->items[values->count++];
    *v = (pb_state_value){.value = value, .kind = kind};
    snprintf(v->name, sizeof v->name, "%s.%s.%s", pb_part_name(part), param->name, what);
}

static void add_param(pb_state_values *values, const pb_module *m, pb_part part, const pb_param *p) {
    const bool split = pb_optimizer_is_split(m->graph, p), own = p->master != PB_NONE && p->master != p->work;
    if (!own || split) add(values, part, p, "work", p->work, PB_STATE_WEIGHT);
    if (split) add(values, part, p, "residual", p->master, PB_STATE_RESIDUAL);
    if (own && !split) add(values, part, p, "master", p->master, PB_STATE_WEIGHT);
    if (own && !split && pb_graph_value(m->graph, p->work)->persistent)
        add(values, part, p, "master", p->work, PB_STATE_DERIVED);
    add(values, part, p, "exp_avg", p->m, PB_STATE_MOMENT);
    add(values, part, p, "exp_avg_sq", p->v, PB_STATE_MOMENT);
    add(values, part, p, "exp_avg.scales", p->m_scales, PB_STATE_MOMENT);
    add(values, part, p, "exp_avg_sq.scales", p->v_scales, PB_STATE_MOMENT);
}

static int compare_places(const void *a, const void *b) {
    const pb_piece *x = &((const pb_state_piece *)a)->at, *y = &((const pb_state_piece *)b)->at;
    if (x->tier != y->tier) return x->tier < y->tier ? -1 : 1;
    if (x->tier == PB_TIER_NVME && x->extent != y->extent) return x->extent < y->extent ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

uint32_t pb_state_pieces_of(const pb_state_values *values, const pb_state_value *v, const pb_piece **pieces,
                            pb_piece *whole) {
    const pb_graph *g = values->program->step->graph;
    uint32_t count = 0;
    *pieces = pb_program_pieces(values->program->program, g, v->value, &count);
    if (count) return count;
    *whole = (pb_piece){.bytes = pb_value_bytes(pb_graph_value(g, v->value)),
                        .tier = PB_TIER_DEVICE,
                        .offset = values->program->program->home[v->value]};
    *pieces = whole;
    return 1;
}

static pb_status list_pieces(pb_state_values *values) {
    const pb_piece *pieces;
    pb_piece whole;
    size_t total = 0;
    for (size_t i = 0; i < values->count; i++) total += pb_state_pieces_of(values, &values->items[i], &pieces, &whole);
    values->pieces = calloc(total + 1, sizeof *values->pieces);
    if (!values->pieces) return pb_error(PB_ERR_MEMORY, "no memory to list the run's state");
    for (size_t i = 0; i < values->count; i++) {
        const pb_state_value *v = &values->items[i];
        const uint32_t count = pb_state_pieces_of(values, v, &pieces, &whole);
        for (uint32_t k = 0; k < count; k++) {
            values->pieces[values->piece_count++] = (pb_state_piece){v, pieces[k]};
            if (v->kind == PB_STATE_DERIVED) continue;
            *(pieces[k].tier == PB_TIER_NVME ? &values->swap_bytes : &values->memory_bytes) += pieces[k].bytes;
        }
    }
    values->swapped = values->swap_bytes > 0;
    qsort(values->pieces, values->piece_count, sizeof *values->pieces, compare_places);
    return PB_OK;
}

pb_status pb_state_values_list(pb_programs *programs, pb_state_values *values) {
    const pb_pass_program *p = pb_programs_any(programs);
    const pb_module *modules[PB_PART_COUNT];
    size_t params = 0;
    *values = (pb_state_values){.program = p, .memory = programs->memory};
    for (pb_part part = 0; part < PB_PART_COUNT; part++) {
        modules[part] = pb_step_graph_trained(p->step, part);
        params += modules[part] ? modules[part]->param_count : 0;
    }
    values->items = calloc(MOST * params + 1, sizeof *values->items);
    if (!values->items) return pb_error(PB_ERR_MEMORY, "no memory to list the run's state");
    for (pb_part part = 0; part < PB_PART_COUNT; part++)
        for (uint32_t i = 0; modules[part] && i < modules[part]->param_count; i++)
            add_param(values, modules[part], part, &modules[part]->params[i]);
    qsort(values->items, values->count, sizeof *values->items, compare_values);
    return list_pieces(values);
}

void pb_state_values_deinit(pb_state_values *values) {
    free(values->items);
    free(values->pieces);
    *values = (pb_state_values){0};
}

const pb_state_value *pb_state_values_find(const pb_state_values *values, const char *name) {
    pb_state_value key = {.kind = PB_STATE_WEIGHT};
    snprintf(key.name, sizeof key.name, "%s", name);
    return bsearch(&key, values->items, values->count, sizeof key, compare_values);
}

pb_status pb_state_write(const pb_state_values *values, const pb_state_value *v, uint64_t begin, uint64_t bytes,
                         void *buffer, pb_safetensors_writer *writer) {
    for (uint64_t at = 0; at < bytes; at += PB_STATE_CHUNK) {
        const uint64_t part = bytes - at < PB_STATE_CHUNK ? bytes - at : PB_STATE_CHUNK;
        PB_RETURN_IF(pb_executor_read(values->program->executor, v->value, begin + at, buffer, part));
        PB_RETURN_IF(pb_safetensors_writer_write(writer, buffer, part));
    }
    return PB_OK;
}

static bool all_finite(pb_dtype dtype, const void *data, uint64_t bytes) {
    const uint64_t count = bytes / pb_dtype_size(dtype);
    const uint16_t *narrow = data, exponent = dtype == PB_F16 ? 0x7c00 : 0x7f80;
    const float *wide = data;
    bool finite = true;
    for (uint64_t i = 0; i < count; i++)
        finite &= dtype == PB_F32 ? isfinite(wide[i]) != 0 : (narrow[i] & exponent) != exponent;
    return finite;
}

static pb_status check_piece(const pb_state_values *values, const pb_state_piece *piece, void *buffer) {
    const pb_executor *executor = values->program->executor;
    const pb_dtype dtype = pb_state_value_of(values, piece->value)->dtype;
    for (uint64_t at = 0; at < piece->at.bytes; at += PB_STATE_CHUNK) {
        const uint64_t part = piece->at.bytes - at < PB_STATE_CHUNK ? piece->at.bytes - at : PB_STATE_CHUNK;
        PB_RETURN_IF(pb_executor_read(executor, piece->value->value, piece->at.begin + at, buffer, part));
        if (!all_finite(dtype, buffer, part))
            return pb_error(PB_ERR_NUMERIC,
                            "the weight %s is not finite: nothing is written, and the last checkpoint is kept; a "
                            "smaller learning_rate may help",
                            piece->value->name);
    }
    return PB_OK;
}

// By place, so that each extent is read once.
pb_status pb_state_check(const pb_state_values *values) {
    pb_status status = PB_OK;
    void *buffer = malloc(PB_STATE_CHUNK);
    if (!buffer) PB_FAIL(PB_ERR_MEMORY, "no memory for a checkpoint");
    for (size_t i = 0; i < values->piece_count; i++) {
        const pb_state_piece *piece = &values->pieces[i];
        if (piece->value->kind == PB_STATE_DERIVED) continue;
        if (piece->at.tier == PB_TIER_NVME) PB_TRY(pb_memory_check_extent(values->memory, piece->at.extent));
        if (piece->value->kind == PB_STATE_WEIGHT) PB_TRY(check_piece(values, piece, buffer));
    }
fail:
    free(buffer);
    return status;
}
