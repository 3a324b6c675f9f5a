// Checkpoints in the format `portable`: weights as the model's own files have them, and AdamW's moments beside them.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "train/checkpoint.h"
#include "train/state_values.h"
#include "train/weights.h"

static const pb_part trained_parts[] = {PB_PART_UNET, PB_PART_TEXT_ENCODER};

static const pb_module *module_of(const pb_pass_program *p, pb_part part) {
    return part == PB_PART_UNET ? p->step->unet : p->step->clip;
}

// --- The moments ---

// optimizer.safetensors: AdamW's moments as they are kept, in the order of elements of the program ([O,kh,kw,I] for
// kernels); of 8-bit moments the codes, and the scales of their blocks.
typedef struct moment {
    char name[320];
    pb_vid value;
} moment;

enum { MOMENTS = 4 };  // of a parameter, at most

static int compare_moments(const void *a, const void *b) {
    return strcmp(((const moment *)a)->name, ((const moment *)b)->name);
}

static pb_status list_moments(const pb_pass_program *p, moment **result, size_t *count) {
    size_t capacity = 0;
    *count = 0;
    for (size_t k = 0; k < 2; k++)
        if (module_of(p, trained_parts[k])) capacity += MOMENTS * (size_t)module_of(p, trained_parts[k])->param_count;
    moment *moments = malloc((capacity + 1) * sizeof *moments);
    if (!moments) return pb_error(PB_ERR_MEMORY, "no memory to list the optimizer's state");
    for (size_t k = 0; k < 2; k++) {
        const pb_module *m = module_of(p, trained_parts[k]);
        for (uint32_t i = 0; m && i < m->param_count; i++) {
            static const char *const names[MOMENTS] = {"exp_avg", "exp_avg_sq", "exp_avg.scales", "exp_avg_sq.scales"};
            const pb_param *param = &m->params[i];
            const pb_vid values[MOMENTS] = {param->m, param->v, param->m_scales, param->v_scales};
            for (int which = 0; which < MOMENTS; which++) {
                if (values[which] == PB_NONE) continue;
                moment *at = &moments[(*count)++];
                at->value = values[which];
                snprintf(at->name, sizeof at->name, "%s.%s.%s", pb_part_name(trained_parts[k]), m->params[i].name,
                         names[which]);
            }
        }
    }
    qsort(moments, *count, sizeof *moments, compare_moments);
    *result = moments;
    return PB_OK;
}

static pb_status stream_out(const pb_pass_program *p, pb_vid value, void *buffer, pb_safetensors_writer *writer) {
    const uint64_t bytes = pb_value_bytes(pb_graph_value(p->step->graph, value));
    for (uint64_t at = 0; at < bytes; at += PB_STATE_CHUNK) {
        const uint64_t part = bytes - at < PB_STATE_CHUNK ? bytes - at : PB_STATE_CHUNK;
        PB_RETURN_IF(pb_executor_read(p->executor, value, at, buffer, part));
        PB_RETURN_IF(pb_safetensors_writer_write(writer, buffer, part));
    }
    return PB_OK;
}

static pb_status save_moments(const pb_pass_program *p, void *buffer, const char *path) {
    pb_status status = PB_OK;
    moment *moments = NULL;
    size_t count;
    pb_safetensors_writer *writer = NULL;
    PB_TRY(list_moments(p, &moments, &count));
    PB_TRY(pb_safetensors_writer_create(&writer));
    for (size_t i = 0; i < count; i++) {
        const pb_value *value = pb_graph_value(p->step->graph, moments[i].value);
        PB_TRY(
            pb_safetensors_writer_declare(writer, moments[i].name, value->dtype, value->shape.rank, value->shape.dim));
    }
    PB_TRY(pb_safetensors_writer_open(writer, path));
    for (size_t i = 0; i < count; i++) {
        moment key;
        snprintf(key.name, sizeof key.name, "%s", pb_safetensors_writer_entry(writer, i)->name);
        const moment *found = bsearch(&key, moments, count, sizeof *moments, compare_moments);
        PB_TRY(stream_out(p, found->value, buffer, writer));
    }
    PB_TRY(pb_safetensors_writer_finish(writer));
fail:
    pb_safetensors_writer_destroy(writer);
    free(moments);
    return status;
}

static pb_status stream_in(const pb_pass_program *p, const pb_safetensors *file, const moment *to, void *buffer) {
    const pb_safetensors_entry *entry = pb_safetensors_find(file, to->name);
    const pb_value *value = pb_graph_value(p->step->graph, to->value);
    const uint64_t bytes = pb_value_bytes(value);
    if (!entry || entry->dtype != value->dtype || entry->bytes != bytes)
        return pb_error(PB_ERR_FORMAT, "%s: %s is missing or has another size: the checkpoint is of another model",
                        file->path, to->name);
    for (uint64_t at = 0; at < bytes; at += PB_STATE_CHUNK) {
        const uint64_t part = bytes - at < PB_STATE_CHUNK ? bytes - at : PB_STATE_CHUNK;
        PB_RETURN_IF(pb_safetensors_read_bytes(file, entry, at, part, buffer));
        PB_RETURN_IF(pb_executor_write(p->executor, to->value, at, buffer, part));
    }
    return PB_OK;
}

static pb_status load_moments(const pb_pass_program *p, void *buffer, const char *path) {
    pb_status status = PB_OK;
    moment *moments = NULL;
    size_t count;
    pb_safetensors *file = NULL;
    PB_TRY(pb_safetensors_open(path, &file));
    PB_TRY(list_moments(p, &moments, &count));
    for (size_t i = 0; i < count; i++) PB_TRY(stream_in(p, file, &moments[i], buffer));
fail:
    pb_safetensors_close(file);
    free(moments);
    return status;
}

// --- All of it ---

static pb_status save_part(pb_trainer *t, pb_checkpoint_writer *writer, const pb_pass_program *p, pb_part part) {
    const pb_module *m = module_of(p, part);
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

pb_status pb_state_portable_save(pb_trainer *t, pb_checkpoint_writer *writer) {
    const pb_pass_program *p = pb_programs_any(&t->programs);
    for (size_t k = 0; k < 2; k++) PB_RETURN_IF(save_part(t, writer, p, trained_parts[k]));
    const char *path = pb_checkpoint_add(writer, "optimizer.safetensors");
    if (!path) return PB_ERR_IO;
    void *buffer = malloc(PB_STATE_CHUNK);
    if (!buffer) return pb_error(PB_ERR_MEMORY, "no memory for a checkpoint");
    const pb_status status = save_moments(p, buffer, path);
    free(buffer);
    return status;
}

static pb_status load_part(pb_trainer *t, const char *path, pb_pass_program *p, pb_part part) {
    const pb_module *m = module_of(p, part);
    if (!m) return PB_OK;
    pb_weights *weights;
    const char *folder = pb_fs_join(t->arena, path, pb_part_name(part));
    if (!folder) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    PB_RETURN_IF(pb_weights_open(folder, part, NULL, &weights));
    const pb_status status = pb_weights_load(m, weights, p->executor);
    pb_weights_close(weights);
    return status;
}

pb_status pb_state_portable_load(pb_trainer *t, const char *path) {
    pb_pass_program *p = pb_programs_any(&t->programs);
    const char *optimizer = pb_fs_join(t->arena, path, "optimizer.safetensors");
    if (!optimizer) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    for (size_t k = 0; k < 2; k++) PB_RETURN_IF(load_part(t, path, p, trained_parts[k]));
    void *buffer = malloc(PB_STATE_CHUNK);
    if (!buffer) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    const pb_status status = load_moments(p, buffer, optimizer);
    free(buffer);
    return status;
}
