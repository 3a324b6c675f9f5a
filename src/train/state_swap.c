// Checkpoints in the format `swap`: the state as it is kept. What lies on NVMe stays in the swap file, which becomes
// the checkpoint's; the rest is written to a safetensors file; a map says what is where (train/saved_state.h).
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "train/checkpoint.h"
#include "train/saved_state.h"
#include "train/state_values.h"

// --- Saving ---

typedef struct saver {
    const pb_state_values *values;
    uint32_t extents;     // of the store
    bool *wanted;         // by extent: a value of the state lies there
    bool *needed;         // by extent: something that has to live on does
    uint32_t *number;     // by extent: its place in the map's list
    uint64_t *in_memory;  // by value: bytes of it that lie in memory
    pb_text map;
} saver;

// All that persists but gradients, which the flush has used up: what is no part of the state (weights that are not
// trained) is not written again either.
static void find_needed(saver *s) {
    const pb_program *p = s->values->program->program;
    const pb_graph *g = s->values->program->step->graph;
    for (pb_vid v = 0; v < g->value_count; v++)
        for (uint32_t k = p->first_piece[v]; k < p->first_piece[v + 1]; k++)
            if (p->pieces[k].tier == PB_TIER_NVME && g->values[v].class_ != PB_CLASS_GRADIENT)
                s->needed[p->pieces[k].extent] = true;
}

static pb_status saver_init(saver *s, const pb_state_values *values) {
    *s = (saver){.values = values, .extents = pb_memory_extents(values->memory)};
    s->wanted = calloc((size_t)s->extents + 1, sizeof *s->wanted);
    s->needed = calloc((size_t)s->extents + 1, sizeof *s->needed);
    s->number = calloc((size_t)s->extents + 1, sizeof *s->number);
    s->in_memory = calloc(values->count + 1, sizeof *s->in_memory);
    if (!s->wanted || !s->needed || !s->number || !s->in_memory)
        return pb_error(PB_ERR_MEMORY, "no memory for a checkpoint");
    for (size_t i = 0; i < values->piece_count; i++) {
        const pb_state_piece *p = &values->pieces[i];
        if (p->value->kind == PB_STATE_DERIVED) continue;
        if (p->at.tier == PB_TIER_NVME)
            s->wanted[p->at.extent] = true;
        else
            s->in_memory[p->value - values->items] += p->at.bytes;
    }
    find_needed(s);
    return PB_OK;
}

static void saver_deinit(saver *s) {
    free(s->wanted);
    free(s->needed);
    free(s->number);
    free(s->in_memory);
    pb_text_deinit(&s->map);
}

// state.safetensors: of each value what lies in memory; in its shape where that is all of it, else as a row.
static pb_status save_memory(const saver *s, void *buffer, const char *path) {
    pb_status status = PB_OK;
    pb_safetensors_writer *writer = NULL;
    PB_TRY(pb_safetensors_writer_create(&writer));
    for (size_t i = 0; i < s->values->count; i++) {
        const pb_value *value = pb_state_value_of(s->values, &s->values->items[i]);
        const int64_t row = (int64_t)(s->in_memory[i] / pb_dtype_size(value->dtype));
        if (!s->in_memory[i]) continue;
        const bool all = s->in_memory[i] == pb_value_bytes(value);
        PB_TRY(pb_safetensors_writer_declare(writer, s->values->items[i].name, value->dtype,
                                             all ? value->shape.rank : 1, all ? value->shape.dim : &row));
    }
    PB_TRY(pb_safetensors_writer_open(writer, path));
    for (size_t i = 0; i < pb_safetensors_writer_count(writer); i++) {
        const pb_state_value *v = pb_state_values_find(s->values, pb_safetensors_writer_entry(writer, i)->name);
        pb_piece whole;
        const pb_piece *pieces;
        const uint32_t count = pb_state_pieces_of(s->values, v, &pieces, &whole);
        for (uint32_t k = 0; k < count; k++)
            if (pieces[k].tier != PB_TIER_NVME)
                PB_TRY(pb_state_write(s->values, v, pieces[k].begin, pieces[k].bytes, buffer, writer));
    }
    PB_TRY(pb_safetensors_writer_finish(writer));
fail:
    pb_safetensors_writer_destroy(writer);
    return status;
}

static void map_extents(saver *s) {
    uint32_t count = 0;
    pb_text_append(&s->map, "  \"extents\": [");
    for (uint32_t x = 0; x < s->extents; x++) {
        if (!s->wanted[x]) continue;
        const pb_kept_extent e = pb_memory_kept_extent(s->values->memory, x);
        char hex[PB_HASH_TEXT];
        pb_hash_text(e.hash, hex);
        pb_text_append(&s->map, "%s\n    {\"offset\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"xxh3_128\": \"%s\"}",
                       count ? "," : "", e.offset, e.bytes, hex);
        s->number[x] = count++;
    }
    pb_text_append(&s->map, "\n  ],\n");
}

static void map_value(saver *s, const pb_state_value *v) {
    const pb_value *value = pb_state_value_of(s->values, v);
    pb_piece whole;
    const pb_piece *pieces;
    const uint32_t count = pb_state_pieces_of(s->values, v, &pieces, &whole);
    pb_text_append(&s->map, "    {\"name\": ");
    pb_text_append_json_string(&s->map, v->name, strlen(v->name));
    pb_text_append(&s->map, ", \"dtype\": \"%s\", \"shape\": [", pb_dtype_name(value->dtype));
    for (int d = 0; d < value->shape.rank; d++)
        pb_text_append(&s->map, "%s%" PRId64, d ? ", " : "", value->shape.dim[d]);
    pb_text_append(&s->map, "], \"pieces\": [");
    uint64_t in_memory = 0;
    for (uint32_t k = 0; k < count; k++) {
        pb_text_append(&s->map, "%s{\"bytes\": %" PRIu64, k ? ", " : "", pieces[k].bytes);
        if (pieces[k].tier == PB_TIER_NVME) {
            pb_text_append(&s->map, ", \"extent\": %u, \"at\": %" PRIu64 "}", s->number[pieces[k].extent],
                           pieces[k].offset);
        } else {
            pb_text_append(&s->map, ", \"at\": %" PRIu64 "}", in_memory);
            in_memory += pieces[k].bytes;
        }
    }
    pb_text_append(&s->map, "]}");
}

static pb_status save_map(saver *s, const char *path) {
    bool first = true;
    pb_text_append(&s->map, "{\n  \"format\": \"pagebooth-state\",\n  \"version\": 1,\n");
    if (s->values->swapped) {
        pb_text_append(&s->map, "  \"swap_bytes\": %" PRIu64 ",\n", pb_memory_store_bytes(s->values->memory));
        map_extents(s);
    }
    pb_text_append(&s->map, "  \"tensors\": [\n");
    for (size_t i = 0; i < s->values->count; i++) {
        if (s->values->items[i].kind == PB_STATE_DERIVED) continue;
        if (!first) pb_text_append(&s->map, ",\n");
        first = false;
        map_value(s, &s->values->items[i]);
    }
    pb_text_append(&s->map, "\n  ]\n}\n");
    if (s->map.failed) return pb_error(PB_ERR_MEMORY, "no memory for a checkpoint");
    return pb_fs_write_file(path, s->map.data, s->map.bytes);
}

static pb_status save_files(saver *s, pb_checkpoint_writer *writer, void *buffer, pb_kept_as *how) {
    const char *path;
    if (s->values->memory_bytes) {
        if (!(path = pb_checkpoint_add(writer, PB_SAVED_MEMORY))) return PB_ERR_IO;
        PB_RETURN_IF(save_memory(s, buffer, path));
    }
    if (!(path = pb_checkpoint_add(writer, PB_SAVED_MAP))) return PB_ERR_IO;
    PB_RETURN_IF(save_map(s, path));
    if (!s->values->swapped) return PB_OK;
    // Last: where the file is handed over there is no way back.
    if (!(path = pb_checkpoint_add_extents(writer, PB_SAVED_SWAP, PB_SAVED_MAP))) return PB_ERR_IO;
    return pb_memory_keep(s->values->memory, s->needed, path, how);
}

pb_status pb_state_swap_save(const pb_state_values *values, pb_checkpoint_writer *writer, pb_kept_as *how) {
    saver s;
    void *buffer = malloc(PB_STATE_CHUNK);
    pb_status status = buffer ? saver_init(&s, values) : pb_error(PB_ERR_MEMORY, "no memory for a checkpoint");
    if (status == PB_OK) status = save_files(&s, writer, buffer, how);
    if (buffer) saver_deinit(&s);
    free(buffer);
    return status;
}

// --- Loading ---

static pb_status load_piece(const pb_state_values *values, const pb_saved_state *state, const pb_saved_tensor *tensor,
                            const pb_state_piece *piece, void *buffer, void *narrow) {
    const pb_dtype dtype = pb_state_value_of(values, piece->value)->dtype;
    const uint64_t to = pb_dtype_size(dtype), from = pb_dtype_size(tensor->dtype);
    const uint64_t first = piece->at.begin / to, count = piece->at.bytes / to, most = PB_STATE_CHUNK / sizeof(double);
    for (uint64_t at = 0; at < count; at += most) {
        const uint64_t part = count - at < most ? count - at : most;
        PB_RETURN_IF(pb_saved_state_read(state, tensor, (first + at) * from, part * from, buffer));
        if (dtype != tensor->dtype) pb_convert(dtype, narrow, tensor->dtype, buffer, part);
        PB_RETURN_IF(pb_executor_write(values->program->executor, piece->value->value, (first + at) * to,
                                       dtype != tensor->dtype ? narrow : buffer, part * to));
    }
    return PB_OK;
}

static pb_status check_tensor(const pb_state_values *values, const pb_saved_state *state, const pb_state_value *v,
                              const pb_saved_tensor *tensor) {
    const pb_value *value = pb_state_value_of(values, v);
    bool same = tensor && (v->kind == PB_STATE_DERIVED || tensor->dtype == value->dtype);
    same = same && tensor->rank == value->shape.rank;
    for (int d = 0; same && d < tensor->rank; d++) same = tensor->shape[d] == value->shape.dim[d];
    return same ? PB_OK
                : pb_error(PB_ERR_FORMAT,
                           "%s: %s is missing, or has another shape or dtype: the checkpoint is of another model",
                           state->path, v->name);
}

// Whether a piece lies in the saved file where this run's swap file has it; then *extent is what it lies in.
static bool lies_alike(const pb_state_piece *piece, const pb_saved_tensor *tensor, uint32_t *extent) {
    for (size_t k = 0; k < tensor->piece_count && piece->value->kind != PB_STATE_DERIVED; k++) {
        const pb_saved_piece *p = &tensor->pieces[k];
        *extent = p->extent;
        if (p->begin == piece->at.begin) return p->swapped && p->bytes == piece->at.bytes && p->at == piece->at.offset;
    }
    return false;
}

// Where everything on NVMe lies as it did, the run reads the checkpoint's swap file until it has written its own: then
// nothing of it is copied. *adopted: that is so.
static pb_status adopt(const pb_state_values *values, const pb_saved_state *state, bool *adopted) {
    const uint32_t count = pb_memory_extents(values->memory);
    *adopted = false;
    if (!values->swapped || state->swap_bytes != pb_memory_store_bytes(values->memory)) return PB_OK;
    pb_kept_extent *extents = calloc((size_t)count + 1, sizeof *extents);
    if (!extents) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    bool alike = true;
    for (size_t i = 0; alike && i < values->piece_count; i++) {
        const pb_state_piece *piece = &values->pieces[i];
        uint32_t from = 0;
        if (piece->at.tier != PB_TIER_NVME) continue;
        alike = piece->at.extent < count && lies_alike(piece, pb_saved_state_find(state, piece->value->name), &from);
        if (!alike) break;
        const pb_saved_extent *e = &state->extents[from];
        pb_kept_extent *to = &extents[piece->at.extent];
        alike = !to->bytes || (to->offset == e->offset && to->bytes == e->bytes);
        *to = (pb_kept_extent){e->offset, e->bytes, {e->hash[0], e->hash[1]}};
    }
    pb_status status = alike ? pb_memory_adopt(values->memory, state->swap_path, extents) : PB_ERR_UNSUPPORTED;
    *adopted = status == PB_OK;
    if (status == PB_ERR_UNSUPPORTED) status = PB_OK;
    free(extents);
    return status;
}

// By place, so that each extent of this run's store is written once.
pb_status pb_state_swap_load(const pb_state_values *values, const char *path, bool *adopted) {
    pb_status status = PB_OK;
    pb_saved_state *state = NULL;
    void *buffer = malloc(PB_STATE_CHUNK), *narrow = malloc(PB_STATE_CHUNK);
    if (!buffer || !narrow) PB_FAIL(PB_ERR_MEMORY, "no memory to resume");
    PB_TRY(pb_saved_state_open(path, &state));
    for (size_t i = 0; i < values->count; i++)
        PB_TRY(check_tensor(values, state, &values->items[i], pb_saved_state_find(state, values->items[i].name)));
    PB_TRY(adopt(values, state, adopted));
    for (size_t i = 0; i < values->piece_count; i++) {
        const pb_state_piece *piece = &values->pieces[i];
        if (*adopted && piece->at.tier == PB_TIER_NVME) continue;
        PB_TRY(load_piece(values, state, pb_saved_state_find(state, piece->value->name), piece, buffer, narrow));
    }
fail:
    pb_saved_state_close(state);
    free(buffer);
    free(narrow);
    return status;
}
