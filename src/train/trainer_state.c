#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/parallel.h"
#include "train/checkpoint.h"
#include "train/saved_state.h"
#include "train/state_fixed.h"
#include "train/state_values.h"

enum { STATE_LIMIT = 1 << 26 };

// --- trainer.json ---

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
    pb_fixed_append(t, &text);
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

static bool is_swap(const pb_trainer *t, const pb_state_values *values) {
    const pb_checkpoint_format format = t->config->checkpoint_format;
    return format == PB_CHECKPOINT_SWAP || (format == PB_CHECKPOINT_AUTO && values->swapped);
}

// Folders that are there or will be made.
static pb_status compare_file_systems(pb_trainer *t, const char *a, const char *b, bool *same) {
    struct stat info[2];
    const char *const paths[2] = {a, b}, *place;
    for (int i = 0; i < 2; i++) {
        PB_RETURN_IF(pb_fs_nearest(t->arena, paths[i], &place));
        if (stat(place, &info[i])) return pb_error(PB_ERR_IO, "cannot look at %s: %s", place, strerror(errno));
    }
    *same = info[0].st_dev == info[1].st_dev;
    return PB_OK;
}

// One must survive whatever befalls the other, so two are the least that is kept. 0: all.
static int64_t kept_checkpoints(const pb_trainer *t) {
    return t->config->checkpoints_total_limit == 1 ? 2 : t->config->checkpoints_total_limit;
}

// How many more checkpoints than now the folder will have, as far as that can be known: of a run that keeps all, two.
static pb_status more_checkpoints(pb_trainer *t, uint64_t *more) {
    pb_checkpoint_entry *entries;
    size_t count;
    const int64_t kept = kept_checkpoints(t) ? kept_checkpoints(t) : INT64_MAX;
    const int64_t planned = t->max_steps / t->config->checkpointing_steps;
    PB_RETURN_IF(pb_checkpoint_list(t->arena, t->config->output_dir, &entries, &count));
    const int64_t room = kept > (int64_t)count ? kept - (int64_t)count : 0, most = kept == INT64_MAX ? 2 : room;
    *more = (uint64_t)(planned < most ? planned : most);
    return PB_OK;
}

// The run's swap file, one more in each checkpoint, and in each what lies in memory; of what is written before the
// oldest is deleted (of what lies in memory, or of all where it is copied to another file system) once more.
static pb_status require_room(pb_trainer *t, const pb_state_values *values) {
    uint64_t more;
    const uint64_t file = t->programs.tier_bytes[PB_TIER_NVME], each = values->swap_bytes + values->memory_bytes;
    bool same = false;
    PB_RETURN_IF(more_checkpoints(t, &more));
    PB_RETURN_IF(compare_file_systems(t, t->programs.nvme, t->config->output_dir, &same));
    if (same)
        return pb_fs_require_space(t->programs.nvme, file + more * each + values->memory_bytes,
                                   "the swap file with one more in each checkpoint");
    return pb_fs_require_space(t->config->output_dir, (more + 1) * each,
                               "a copy of the swap file in each checkpoint (it lies on another disk)");
}

static uint64_t checkpoint_bytes(const pb_trainer *t, const pb_state_values *values, bool swap) {
    enum { OTHER = 1 << 20 };
    const uint64_t state =
        swap ? values->memory_bytes + 1024 * values->count : 12 * pb_step_graph_parameters(t->programs.items[0].step);
    return state + OTHER;
}

// Without a swap file: the checkpoints that will be there at once, one more while the oldest is still kept; and at the
// end the result beside those that stay. What is there already has its room.
static pb_status require_portable_room(pb_trainer *t, uint64_t each, uint64_t result) {
    uint64_t more;
    char what[96];
    const uint64_t planned = (uint64_t)(t->max_steps / t->config->checkpointing_steps);
    PB_RETURN_IF(more_checkpoints(t, &more));
    PB_RETURN_IF(pb_fs_require_space(t->config->output_dir, each, "a checkpoint"));
    const uint64_t most = (more + (planned > more)) * each, last = more * each + result;
    snprintf(what, sizeof what, "the run, with %" PRIu64 " checkpoints at once,", more + (planned > more));
    return pb_fs_require_space(t->config->output_dir, most > last ? most : last, what);
}

pb_status pb_state_require_room(pb_trainer *t) {
    pb_state_values values;
    uint64_t result;
    if (t->measuring) return PB_OK;
    PB_RETURN_IF(pb_output_require_room(t, &result));
    if (t->max_steps < t->config->checkpointing_steps) return PB_OK;
    pb_status status = pb_state_values_list(&t->programs, &values);
    const bool swap = status == PB_OK && is_swap(t, &values);
    if (swap && values.swapped)
        status = require_room(t, &values);
    else if (status == PB_OK)
        status = require_portable_room(t, checkpoint_bytes(t, &values, swap), result);
    pb_state_values_deinit(&values);
    return status;
}

static pb_status save_files(pb_trainer *t, pb_checkpoint_writer *writer, const pb_state_values *values, bool swap,
                            pb_kept_as *how) {
    const char *path = pb_checkpoint_add(writer, "trainer.json");
    if (!path) return PB_ERR_IO;
    PB_RETURN_IF(save_json(t, path));
    if (!(path = pb_checkpoint_add(writer, "config.yaml"))) return PB_ERR_IO;
    PB_RETURN_IF(pb_output_write_config(t, path));
    return swap ? pb_state_swap_save(values, writer, how) : pb_state_portable_save(t, values, writer);
}

static void tell(pb_trainer *t, const pb_checkpoint_writer *writer, const pb_state_values *values, bool swap,
                 pb_kept_as how, double seconds) {
    static const char *const ways[] = {
        [PB_KEPT_SHARED] = "shared", [PB_KEPT_HANDED_OVER] = "handed over", [PB_KEPT_COPIED] = "copied"};
    const double written = (double)pb_checkpoint_bytes(writer);
    if (swap && values->swapped)
        pb_progress_note(&t->progress, "checkpoint-%" PRId64 ": %.3f GiB written, %.3f GiB of the swap file %s, %.1f s",
                         t->step, written / 0x1p30, (double)values->swap_bytes / 0x1p30, ways[how], seconds);
    else
        pb_progress_note(&t->progress, "checkpoint-%" PRId64 ": %.3f GiB written, %.1f s", t->step, written / 0x1p30,
                         seconds);
}

pb_status pb_state_save(pb_trainer *t) {
    pb_status status = PB_OK;
    const double begun = pb_seconds_now();
    pb_checkpoint_writer *writer = NULL;
    pb_state_values values = {0};
    pb_kept_as how = PB_KEPT_SHARED;
    PB_TRY(pb_trainer_flush(t));
    PB_TRY(pb_state_values_list(&t->programs, &values));
    const bool swap = is_swap(t, &values);
    PB_TRY(pb_state_check(&values));
    PB_TRY(pb_metrics_sync(t->metrics));
    PB_TRY(pb_checkpoint_begin(t->config->output_dir, t->step, checkpoint_bytes(t, &values, swap), &writer));
    PB_TRY(save_files(t, writer, &values, swap, &how));
    PB_TRY(pb_checkpoint_commit(writer));
    PB_TRY(pb_checkpoint_prune(t->config->output_dir, kept_checkpoints(t)));
    t->saved_step = t->step;
    tell(t, writer, &values, swap, how, pb_seconds_now() - begun);
fail:
    pb_checkpoint_end(writer);
    pb_state_values_deinit(&values);
    return status;
}

// --- Resuming ---

// A name that no checkpoint in output_dir has: those that there are.
static pb_status no_such_checkpoint(pb_trainer *t, const char *wanted) {
    pb_checkpoint_entry *entries;
    size_t count;
    char list[256] = "";
    PB_RETURN_IF(pb_checkpoint_list(t->arena, t->config->output_dir, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", pb_fs_base_name(entries[i].path));
    }
    return pb_error(PB_ERR_IO, "resume_from_checkpoint: there is no %s/%s; %s%s, or `latest`, the newest of them",
                    t->config->output_dir, wanted, count ? "there are " : "it can be the name of a checkpoint there",
                    list);
}

static pb_status find_named(pb_trainer *t, const char *wanted, const char **path) {
    // As diffusers takes it: a name within output_dir, whatever folder is written before it.
    size_t bytes = strlen(wanted);
    while (bytes > 1 && wanted[bytes - 1] == '/') bytes--;
    const char *name = pb_arena_string_n(t->arena, wanted, bytes);
    if (name) *path = pb_fs_join(t->arena, t->config->output_dir, name = pb_fs_base_name(name));
    if (!*path) return pb_error(PB_ERR_MEMORY, "no memory to find a checkpoint");
    return pb_fs_kind_of(*path) == PB_FS_DIRECTORY ? PB_OK : no_such_checkpoint(t, name);
}

static pb_status find_latest(pb_trainer *t, bool thorough, const char **path) {
    pb_checkpoint_entry *entries;
    size_t count;
    PB_RETURN_IF(pb_checkpoint_list(t->arena, t->config->output_dir, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        // One that does not say of which run it is stands behind the others: it is passed over, but not in silence.
        if (*path && entries[i].run) continue;
        const bool sound = (thorough && !*path ? pb_checkpoint_verify : pb_checkpoint_look)(entries[i].path) == PB_OK;
        if (!sound)
            pb_progress_note(&t->progress, "%s; passing this checkpoint over", pb_error_message());
        else if (!*path)
            *path = entries[i].path;
    }
    if (!*path && count)
        return pb_error(PB_ERR_FORMAT,
                        "resume_from_checkpoint: none of the checkpoints in %s is whole, of %zu; to start afresh, name "
                        "another output_dir, or remove them",
                        t->config->output_dir, count);
    pb_error_clear();
    if (!*path) pb_progress_note(&t->progress, "no checkpoint in %s: starting afresh", t->config->output_dir);
    return PB_OK;
}

pb_status pb_state_find(pb_trainer *t, bool thorough, const char **path) {
    const char *wanted = t->config->resume_from_checkpoint;
    *path = NULL;
    if (!wanted || !*wanted) return PB_OK;
    if (!strcmp(wanted, "latest")) return find_latest(t, thorough, path);
    PB_RETURN_IF(find_named(t, wanted, path));
    return thorough ? pb_checkpoint_verify(*path) : pb_checkpoint_look(*path);
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

static pb_status read_json(pb_trainer *t, const char *path, const pb_json **root, const pb_json **fixed) {
    char *text;
    size_t bytes;
    PB_RETURN_IF(pb_fs_read_file(t->arena, path, STATE_LIMIT, &text, &bytes));
    PB_RETURN_IF(pb_json_parse(t->arena, text, bytes, path, root));
    if (!(*fixed = pb_json_get(*root, "fixed"))) return pb_error(PB_ERR_FORMAT, "%s: `fixed` is missing", path);
    return PB_OK;
}

pb_status pb_state_compare(pb_trainer *t, const char *checkpoint, int64_t *step) {
    const pb_json *root, *fixed;
    const char *path = pb_fs_join(t->arena, checkpoint, "trainer.json");
    if (!path) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    PB_RETURN_IF(read_json(t, path, &root, &fixed));
    PB_RETURN_IF(pb_json_get_int(root, "step", 0, INT64_MAX, 0, path, step));
    return pb_fixed_compare(t, fixed, path);
}

static pb_status load_json(pb_trainer *t, const char *path) {
    const pb_json *root, *fixed;
    const char *draws;
    int64_t threads;
    PB_RETURN_IF(read_json(t, path, &root, &fixed));
    PB_RETURN_IF(pb_fixed_compare(t, fixed, path));
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

pb_status pb_state_load(pb_trainer *t, const char *path) {
    pb_state_values values;
    const char *json = pb_fs_join(t->arena, path, "trainer.json");
    if (!json) return pb_error(PB_ERR_MEMORY, "no memory to resume");
    PB_RETURN_IF(load_json(t, json));
    pb_status status = pb_state_values_list(&t->programs, &values);
    bool adopted = false;
    if (status == PB_OK)
        status = pb_saved_state_is_there(path) ? pb_state_swap_load(&values, path, &adopted)
                                               : pb_state_portable_load(t, &values, path);
    t->saved_step = t->step;
    if (adopted) pb_progress_note(&t->progress, "takes the swap file of %s over as it is", path);
    pb_state_values_deinit(&values);
    return status;
}
