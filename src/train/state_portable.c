// Checkpoints in the format `portable`: weights as the model's own files have them, and AdamW's moments beside them.
#include <stdio.h>
#include <stdlib.h>

#include "base/fs.h"
#include "train/checkpoint.h"
#include "train/state_values.h"
#include "train/weights.h"

// --- The moments ---

// optimizer.safetensors: AdamW's moments as they are kept, in the order of elements of the program ([O,kh,kw,I] for
// kernels); of 8-bit moments the codes, and the scales of their blocks.
static pb_status save_moments(const pb_state_values *values, void *buffer, const char *path) {
    pb_status status = PB_OK;
    pb_safetensors_writer *writer = NULL;
    PB_TRY(pb_safetensors_writer_create(&writer));
    for (size_t i = 0; i < values->count; i++) {
        const pb_state_value *v = &values->items[i];
        const pb_value *value = pb_state_value_of(values, v);
        if (v->kind == PB_STATE_MOMENT)
            PB_TRY(pb_safetensors_writer_declare(writer, v->name, value->dtype, value->shape.rank, value->shape.dim));
    }
    PB_TRY(pb_safetensors_writer_open(writer, path));
    for (size_t i = 0; i < pb_safetensors_writer_count(writer); i++) {
        const pb_state_value *v = pb_state_values_find(values, pb_safetensors_writer_entry(writer, i)->name);
        PB_TRY(pb_state_write(values, v, 0, pb_value_bytes(pb_state_value_of(values, v)), buffer, writer));
    }
    PB_TRY(pb_safetensors_writer_finish(writer));
fail:
    pb_safetensors_writer_destroy(writer);
    return status;
}

static pb_status load_moment(const pb_state_values *values, const pb_safetensors *file, const pb_state_value *to,
                             void *buffer) {
    const pb_safetensors_entry *entry = pb_safetensors_find(file, to->name);
    const pb_value *value = pb_state_value_of(values, to);
    const uint64_t bytes = pb_value_bytes(value);
    if (!entry || entry->dtype != value->dtype || entry->bytes != bytes)
        return pb_error(PB_ERR_FORMAT, "%s: %s is missing or has another size: the checkpoint is of another model",
                        file->path, to->name);
    for (uint64_t at = 0; at < bytes; at += PB_STATE_CHUNK) {
        const uint64_t part = bytes - at < PB_STATE_CHUNK ? bytes - at : PB_STATE_CHUNK;
        PB_RETURN_IF(pb_safetensors_read_bytes(file, entry, at, part, buffer));
        PB_RETURN_IF(pb_executor_write(values->program->executor, to->value, at, buffer, part));
    }
    return PB_OK;
}

static pb_status load_moments(const pb_state_values *values, void *buffer, const char *path) {
    pb_status status = PB_OK;
    pb_safetensors *file = NULL;
    PB_TRY(pb_safetensors_open(path, &file));
    for (size_t i = 0; i < values->count; i++)
        if (values->items[i].kind == PB_STATE_MOMENT) PB_TRY(load_moment(values, file, &values->items[i], buffer));
fail:
    pb_safetensors_close(file);
    return status;
}

// --- All of it ---

static pb_status save_part(pb_trainer *t, pb_checkpoint_writer *writer, const pb_pass_program *p, pb_part part) {
    const pb_module *m = pb_step_graph_trained(p->step, part);
    char name[96];
    if (!m) return PB_OK;
    snprintf(name, sizeof name, "%s/%s.safetensors", pb_part_name(part), pb_part_weights_stem(part));
    const char *path = pb_checkpoint_add(writer, name);
    if (!path) return PB_ERR_IO;
    PB_RETURN_IF(pb_weights_save(m, t->sources[part], p->executor, PB_F32, path));
    snprintf(name, sizeof name, "%s/config.json", pb_part_name(part));
    if (!(path = pb_checkpoint_add(writer, name))) return PB_ERR_IO;
    return pb_fs_copy_file(t->model->parts[part].config_path, path);
}

pb_status pb_state_portable_save(pb_trainer *t, const pb_state_values *values, pb_checkpoint_writer *writer) {
    for (pb_part part = 0; part < PB_PART_COUNT; part++) PB_RETURN_IF(save_part(t, writer, values->program, part));
    const char *path = pb_checkpoint_add(writer, "optimizer.safetensors");
    if (!path) return PB_ERR_IO;
    void *buffer = malloc(PB_STATE_CHUNK);
    if (!buffer) return pb_error(PB_ERR_MEMORY, "no memory for a checkpoint");
    const pb_status status = save_moments(values, buffer, path);
    free(buffer);
    return status;
}

static pb_status load_part(pb_trainer *t, const char *path, const pb_pass_program *p, pb_part part) {
    const pb_module *m = pb_step_graph_trained(p->step, part);
    if (!m) return PB_OK;
    pb_weights *weights;
    const char *folder = pb_fs_join(t->arena, path, pb_part_name(part));
    if (!folder) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    PB_RETURN_IF(pb_weights_open(folder, part, NULL, &weights));
    const pb_status status = pb_weights_load(m, weights, p->executor);
    pb_weights_close(weights);
    return status;
}

pb_status pb_state_portable_load(pb_trainer *t, const pb_state_values *values, const char *path) {
    const char *optimizer = pb_fs_join(t->arena, path, "optimizer.safetensors");
    if (!optimizer) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    for (pb_part part = 0; part < PB_PART_COUNT; part++) PB_RETURN_IF(load_part(t, path, values->program, part));
    void *buffer = malloc(PB_STATE_CHUNK);
    if (!buffer) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    const pb_status status = load_moments(values, buffer, optimizer);
    free(buffer);
    return status;
}
