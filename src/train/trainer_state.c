#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/parallel.h"
#include "train/checkpoint.h"
#include "train/trainer_parts.h"
#include "train/weights.h"

enum { CHUNK_BYTES = 1 << 22, STATE_LIMIT = 1 << 26 };

static const pb_part trained_parts[] = {PB_PART_UNET, PB_PART_TEXT_ENCODER};

static const pb_module *module_of(const pb_pass_program *p, pb_part part) {
    return part == PB_PART_UNET ? p->step->unet : p->step->clip;
}

// --- Values in and out, a few MiB at a time ---

static bool all_finite(pb_dtype dtype, const void *data, uint64_t bytes) {
    const uint64_t count = bytes / pb_dtype_size(dtype);
    const uint16_t *narrow = data, exponent = dtype == PB_F16 ? 0x7c00 : 0x7f80;
    const float *wide = data;
    bool finite = true;
    for (uint64_t i = 0; i < count; i++)
        finite &= dtype == PB_F32 ? isfinite(wide[i]) != 0 : (narrow[i] & exponent) != exponent;
    return finite;
}

static pb_status check_finite(const pb_pass_program *p, const pb_module *m, void *buffer) {
    for (uint32_t i = 0; i < m->param_count; i++) {
        // A residual is finite; what it belongs to may be not.
        const pb_vid value = pb_optimizer_is_split(m->graph, &m->params[i]) ? m->params[i].work : m->params[i].master;
        const pb_value *weight = pb_graph_value(p->step->graph, value);
        const uint64_t bytes = pb_value_bytes(weight);
        for (uint64_t at = 0; at < bytes; at += CHUNK_BYTES) {
            const uint64_t part = bytes - at < CHUNK_BYTES ? bytes - at : CHUNK_BYTES;
            PB_RETURN_IF(pb_executor_read(p->executor, value, at, buffer, part));
            if (!all_finite(weight->dtype, buffer, part))
                return pb_error(PB_ERR_NUMERIC,
                                "the weight %s is not finite: nothing is written, and the last checkpoint "
                                "is kept; a smaller learning_rate may help",
                                m->params[i].name);
        }
    }
    return PB_OK;
}

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
    for (uint64_t at = 0; at < bytes; at += CHUNK_BYTES) {
        const uint64_t part = bytes - at < CHUNK_BYTES ? bytes - at : CHUNK_BYTES;
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
        PB_TRY(pb_safetensors_writer_declare(writer, moments[i].name, value->dtype, value->shape.rank,
                                             value->shape.dim));
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
    for (uint64_t at = 0; at < bytes; at += CHUNK_BYTES) {
        const uint64_t part = bytes - at < CHUNK_BYTES ? bytes - at : CHUNK_BYTES;
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

// --- trainer.json ---

// What must be the same for a resumed run to be the continuation of the one that was interrupted.
static void append_fixed(const pb_trainer *t, pb_text *text) {
    const pb_config *c = t->config;
    pb_text_append(text, "{\"compute\": \"%s\", \"train_text_encoder\": %d, \"with_prior_preservation\": %d, ",
                   pb_dtype_name(t->request.compute), c->train_text_encoder, c->with_prior_preservation);
    pb_text_append(text, "\"optimizer\": [%d, %d], ", (int)c->optimizer.states, (int)c->optimizer.master);
    pb_text_append(text, "\"frozen_weights\": %d, ", (int)c->frozen_weights);
    pb_text_append(text, "\"train_batch_size\": %" PRId64 ", \"gradient_accumulation_steps\": %" PRId64 ", ",
                   c->train_batch_size, c->gradient_accumulation_steps);
    pb_text_append(text, "\"resolution\": %" PRId64 ", \"center_crop\": %d, \"offset_noise\": %d", c->resolution,
                   c->center_crop, c->offset_noise);
    static const char *const sides[] = {"instance pictures", "class pictures"};
    for (int side = 0; side < PB_SIDES; side++) {
        const pb_picture_set *set = &t->data.set[side];
        pb_text_append(text, ", \"%s\": [", sides[side]);
        for (int64_t i = 0; i < set->count; i++) {
            if (i) pb_text_append(text, ", ");
            pb_text_append_json_string(text, set->names[i], strlen(set->names[i]));
        }
        pb_text_append(text, "]");
    }
    pb_text_append(text, "}");
}

static pb_status append_draws(const pb_trainer *t, pb_text *text) {
    const size_t bytes = pb_draws_state_bytes(t->draws);
    uint8_t *state = malloc(bytes + 1);
    if (!state) return pb_error(PB_ERR_MEMORY, "no memory for a checkpoint");
    pb_draws_save(t->draws, state);
    for (size_t i = 0; i < bytes; i++) pb_text_append(text, "%02x", state[i]);
    free(state);
    return PB_OK;
}

static pb_status save_json(const pb_trainer *t, const char *path) {
    pb_status status = PB_OK;
    pb_text text = {0};
    pb_text_append(&text,
                   "{\n  \"format\": \"pagebooth-trainer\",\n  \"version\": 1,\n  \"run\": %" PRId64
                   ",\n  \"step\": %" PRId64 ",\n  \"threads\": %d,\n  \"loss_scale\": ",
                   t->run, t->step, pb_threads());
    pb_text_append_json_number(&text, t->loss_scale.scale);
    pb_text_append(&text, ",\n  \"good_steps\": %" PRId64 ",\n  \"rounding_seed\": %" PRId64 ",\n  \"fixed\": ",
                   t->loss_scale.good_steps, t->rounding_seed);
    append_fixed(t, &text);
    pb_text_append(&text, ",\n  \"draws\": \"");
    PB_TRY(append_draws(t, &text));
    pb_text_append(&text, "\"\n}\n");
    if (text.failed) PB_FAIL(PB_ERR_MEMORY, "no memory for a checkpoint");
    PB_TRY(pb_fs_write_file(path, text.data, text.bytes));
fail:
    pb_text_deinit(&text);
    return status;
}

// --- Saving ---

static uint64_t checkpoint_bytes(const pb_trainer *t) {
    enum { OTHER = 1 << 20 };
    return 12 * pb_step_graph_parameters(t->programs.items[0].step) + OTHER;
}

static pb_status save_part(const pb_trainer *t, pb_checkpoint_writer *writer, const pb_pass_program *p, pb_part part) {
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

static pb_status save_files(pb_trainer *t, pb_checkpoint_writer *writer, void *buffer) {
    const pb_pass_program *p = pb_programs_any(&t->programs);
    for (size_t k = 0; k < 2; k++) PB_RETURN_IF(save_part(t, writer, p, trained_parts[k]));
    const char *path = pb_checkpoint_add(writer, "optimizer.safetensors");
    if (!path) return PB_ERR_IO;
    PB_RETURN_IF(save_moments(p, buffer, path));
    if (!(path = pb_checkpoint_add(writer, "trainer.json"))) return PB_ERR_IO;
    PB_RETURN_IF(save_json(t, path));
    if (!(path = pb_checkpoint_add(writer, "config.yaml"))) return PB_ERR_IO;
    return pb_output_write_config(t, path);
}

pb_status pb_state_save(pb_trainer *t) {
    pb_status status = PB_OK;
    pb_checkpoint_writer *writer = NULL;
    const pb_pass_program *p = pb_programs_any(&t->programs);
    void *buffer = malloc(CHUNK_BYTES);
    if (!buffer) PB_FAIL(PB_ERR_MEMORY, "no memory for a checkpoint");
    PB_TRY(pb_trainer_flush(t));
    for (size_t k = 0; k < 2; k++)
        if (module_of(p, trained_parts[k])) PB_TRY(check_finite(p, module_of(p, trained_parts[k]), buffer));
    PB_TRY(pb_metrics_sync(t->metrics));
    PB_TRY(pb_checkpoint_begin(t->config->output_dir, t->step, checkpoint_bytes(t), &writer));
    PB_TRY(save_files(t, writer, buffer));
    PB_TRY(pb_checkpoint_commit(writer));
    // One must survive whatever befalls the other, so two are the least that is kept.
    const int64_t limit = t->config->checkpoints_total_limit;
    PB_TRY(pb_checkpoint_prune(t->config->output_dir, limit == 1 ? 2 : limit));
fail:
    pb_checkpoint_end(writer);
    free(buffer);
    return status;
}

// --- Resuming ---

pb_status pb_state_find(pb_trainer *t, const char **path) {
    const char *wanted = t->config->resume_from_checkpoint;
    *path = NULL;
    if (!wanted || !*wanted) return PB_OK;
    if (strcmp(wanted, "latest")) {
        // As diffusers takes it: a name within output_dir, whatever folder is written before it.
        *path = pb_fs_join(t->arena, t->config->output_dir, pb_fs_base_name(wanted));
        if (!*path) return pb_error(PB_ERR_MEMORY, "no memory to find a checkpoint");
        if (pb_fs_kind_of(*path) != PB_FS_DIRECTORY)
            return pb_error(PB_ERR_IO, "resume_from_checkpoint: there is no %s", *path);
        return pb_checkpoint_verify(*path);
    }
    pb_checkpoint_entry *entries;
    size_t count;
    PB_RETURN_IF(pb_checkpoint_list(t->arena, t->config->output_dir, &entries, &count));
    for (size_t i = 0; i < count && !*path; i++) {
        if (pb_checkpoint_verify(entries[i].path) == PB_OK)
            *path = entries[i].path;
        else
            pb_progress_note(&t->progress, "%s; trying the checkpoint before it", pb_error_message());
    }
    pb_error_clear();
    if (!*path) pb_progress_note(&t->progress, "no checkpoint in %s: starting afresh", t->config->output_dir);
    return PB_OK;
}

static bool json_equal(const pb_json *a, const pb_json *b) {
    if (a->type != b->type || a->count != b->count) return false;
    if (a->type == PB_JSON_STRING)
        return a->string_bytes == b->string_bytes && !memcmp(a->string, b->string, a->string_bytes);
    if (a->type == PB_JSON_NUMBER) return a->number == b->number;
    const pb_json *y = b->first;
    for (const pb_json *x = a->first; x; x = x->next, y = y->next)
        if (!json_equal(x, y)) return false;
    return true;
}

static pb_status compare_fixed(const pb_trainer *t, const pb_json *saved, const char *path) {
    pb_text text = {0};
    const pb_json *now;
    append_fixed(t, &text);
    pb_status status = text.failed ? pb_error(PB_ERR_MEMORY, "no memory to compare %s", path)
                                   : pb_json_parse(t->arena, text.data, text.bytes, path, &now);
    for (const pb_json *item = status == PB_OK ? now->first : NULL; item; item = item->next) {
        const pb_json *before = pb_json_get(saved, item->key);
        if (before && json_equal(before, item)) continue;
        status = pb_error(PB_ERR_USAGE,
                          "%s: `%s` is not the same as when the checkpoint was made; undo the change, or start "
                          "afresh in another output_dir",
                          path, item->key);
        break;
    }
    pb_text_deinit(&text);
    return status;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static pb_status restore_draws(pb_trainer *t, const char *hex, const char *path) {
    const size_t bytes = strlen(hex) / 2;
    uint8_t *state = malloc(bytes + 1);
    if (!state) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    pb_status status = PB_OK;
    for (size_t i = 0; i < bytes && status == PB_OK; i++) {
        const int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        if (high < 0 || low < 0) status = pb_error(PB_ERR_FORMAT, "%s: draws is no hexadecimal text", path);
        state[i] = (uint8_t)((unsigned)(high & 15) << 4 | (unsigned)(low & 15));
    }
    if (status == PB_OK) status = pb_draws_restore(t->draws, state, bytes);
    free(state);
    return status;
}

static pb_status load_json(pb_trainer *t, const char *path) {
    char *text;
    size_t bytes;
    const pb_json *root, *fixed;
    const char *draws;
    int64_t threads;
    PB_RETURN_IF(pb_fs_read_file(t->arena, path, STATE_LIMIT, &text, &bytes));
    PB_RETURN_IF(pb_json_parse(t->arena, text, bytes, path, &root));
    if (!(fixed = pb_json_get(root, "fixed"))) return pb_error(PB_ERR_FORMAT, "%s: `fixed` is missing", path);
    PB_RETURN_IF(compare_fixed(t, fixed, path));
    PB_RETURN_IF(pb_json_get_int(root, "run", 0, INT64_MAX, 0, path, &t->run));
    PB_RETURN_IF(pb_json_get_int(root, "step", 0, INT64_MAX, 0, path, &t->step));
    PB_RETURN_IF(pb_json_get_int(root, "threads", 1, INT32_MAX, 1, path, &threads));
    PB_RETURN_IF(pb_json_get_double(root, "loss_scale", 1, path, &t->loss_scale.scale));
    PB_RETURN_IF(pb_json_get_int(root, "good_steps", 0, INT64_MAX, 0, path, &t->loss_scale.good_steps));
    PB_RETURN_IF(pb_json_get_int(root, "rounding_seed", 0, UINT32_MAX, t->rounding_seed, path, &t->rounding_seed));
    PB_RETURN_IF(pb_json_get_string(root, "draws", "", path, &draws));
    if (threads != pb_threads())
        pb_progress_note(&t->progress,
                         "the checkpoint was made with %lld threads and goes on with %d: the last bits will "
                         "differ",
                         (long long)threads, pb_threads());
    return restore_draws(t, draws, path);
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

pb_status pb_state_load(pb_trainer *t, const char *path) {
    pb_pass_program *p = pb_programs_any(&t->programs);
    const char *json = pb_fs_join(t->arena, path, "trainer.json");
    const char *optimizer = pb_fs_join(t->arena, path, "optimizer.safetensors");
    if (!json || !optimizer) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    PB_RETURN_IF(load_json(t, json));
    for (size_t k = 0; k < 2; k++) PB_RETURN_IF(load_part(t, path, p, trained_parts[k]));
    void *buffer = malloc(CHUNK_BYTES);
    if (!buffer) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    const pb_status status = load_moments(p, buffer, optimizer);
    free(buffer);
    return status;
}
