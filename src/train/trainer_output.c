#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "train/trainer_parts.h"
#include "train/weights.h"

// --- The folder ---

static pb_status take_lock(pb_trainer *t, const char *path, int create) {
    t->lock = open(path, O_RDWR | create | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (t->lock < 0) return pb_error(PB_ERR_IO, "cannot open the lock %s: %s", path, strerror(errno));
    struct stat ours, there;
    // The system lets go of it when the process ends, however it ends, so a stale one cannot be left.
    const int reason = flock(t->lock, LOCK_EX | LOCK_NB) ? errno : 0;
    const bool gone = fstat(t->lock, &ours) || lstat(path, &there) || ours.st_ino != there.st_ino;
    if (!reason && !gone) return PB_OK;
    pb_output_close(t);
    if (!reason)  // whoever had it was refused just now, and has removed it: a third one may have a new one
        return pb_error(PB_ERR_IO, "%s has just been removed by another pagebooth; try again", path);
    if (reason != EWOULDBLOCK) return pb_error(PB_ERR_IO, "cannot lock %s: %s", path, strerror(reason));
    return pb_error(PB_ERR_IO, "another pagebooth is training into %s; wait for it or choose another output_dir",
                    t->config->output_dir);
}

// A pipeline that no run of this program has left here: somebody's model, which the result would replace.
static pb_status refuse_foreign_model(pb_trainer *t, const char *folder) {
    static const char *const traces[] = {"run.json", "metrics.jsonl", "config.yaml"};
    const char *index = pb_fs_join(t->arena, folder, "model_index.json");
    bool ours = !index || pb_fs_kind_of(index) == PB_FS_NONE;
    for (size_t i = 0; i < sizeof traces / sizeof *traces && !ours; i++) {
        const char *trace = pb_fs_join(t->arena, folder, traces[i]);
        ours = !trace || pb_fs_kind_of(trace) != PB_FS_NONE;
    }
    if (ours) return PB_OK;
    return pb_error(PB_ERR_USAGE,
                    "output_dir: %s holds a model that no run has left there, and the result would replace it: name "
                    "another folder",
                    folder);
}

static pb_status judge_folder(pb_trainer *t) {
    const char *folder = t->config->output_dir;
    struct stat info, model;
    // With a slash behind it a link would be what it leads to.
    size_t bytes = strlen(folder);
    while (bytes > 1 && folder[bytes - 1] == '/') bytes--;
    const char *name = pb_arena_string_n(t->arena, folder, bytes);
    if (!name) return pb_error(PB_ERR_MEMORY, "no memory to open %s", folder);
    if (lstat(name, &info)) return PB_OK;  // what is in the way is said where it is made
    if (!S_ISDIR(info.st_mode))
        return pb_error(PB_ERR_IO, "output_dir: %s is %s; name a folder", folder,
                        S_ISLNK(info.st_mode) ? "a symbolic link" : "no folder");
    if (!stat(t->model->path, &model) && info.st_dev == model.st_dev && info.st_ino == model.st_ino)
        return pb_error(PB_ERR_USAGE,
                        "output_dir: %s is the model that is to be trained: the result would replace it; name another "
                        "folder",
                        folder);
    return refuse_foreign_model(t, folder);
}

pb_status pb_output_open(pb_trainer *t) {
    const char *folder = t->config->output_dir, *path = pb_fs_join(t->arena, folder, ".lock");
    if (!path) return pb_error(PB_ERR_MEMORY, "no memory to open %s", folder);
    PB_RETURN_IF(judge_folder(t));
    PB_RETURN_IF(pb_fs_nearest(t->arena, folder, &t->output_before));
    PB_RETURN_IF(pb_fs_make_directories(folder));
    return take_lock(t, path, O_CREAT);
}

// Only an empty folder can be removed, so that nothing is lost whatever has happened meanwhile.
static void remove_made(pb_trainer *t) {
    const char **names, *folder = t->config->output_dir;
    size_t count;
    if (pb_fs_list(t->arena, folder, &names, &count) != PB_OK || count != 1 || strcmp(names[0], ".lock")) return;
    const char *lock = pb_fs_join(t->arena, folder, names[0]);
    if (!lock || unlink(lock)) return;
    for (const char *at = folder; at && strcmp(at, t->output_before); at = pb_fs_parent(t->arena, at))
        if (rmdir(at)) return;
}

pb_status pb_output_withdraw(pb_trainer *t, pb_status status) {
    const char *message = pb_arena_string(t->arena, pb_error_message());
    if (t->lock < 0 || !message) return status;
    remove_made(t);
    return pb_error(status, "%s", message);
}

pb_status pb_output_look(pb_trainer *t) {
    const char *folder = t->config->output_dir, *path = pb_fs_join(t->arena, folder, ".lock");
    if (!path) return pb_error(PB_ERR_MEMORY, "no memory to look at %s", folder);
    PB_RETURN_IF(judge_folder(t));
    PB_RETURN_IF(pb_fs_require_writable(folder, "output_dir"));
    if (pb_fs_kind_of(path) == PB_FS_NONE) return PB_OK;
    PB_RETURN_IF(take_lock(t, path, 0));
    pb_output_close(t);
    return PB_OK;
}

void pb_output_close(pb_trainer *t) {
    if (t->lock >= 0) close(t->lock);
    t->lock = -1;
}

// --- run.json ---

pb_status pb_output_read_run(pb_trainer *t, int64_t *run, int64_t *finished_steps) {
    enum { LIMIT = 1 << 16 };
    *run = *finished_steps = 0;
    const char *path = pb_fs_join(t->arena, t->config->output_dir, "run.json");
    if (!path) return pb_error(PB_ERR_MEMORY, "no memory to read run.json");
    if (pb_fs_kind_of(path) != PB_FS_FILE) return PB_OK;
    char *text;
    size_t bytes;
    const pb_json *root;
    bool finished;
    PB_RETURN_IF(pb_fs_read_file(t->arena, path, LIMIT, &text, &bytes));
    const pb_status status = pb_json_parse(t->arena, text, bytes, path, &root);
    if (status != PB_OK) return pb_error_context(status, "what is known of the last run here is damaged; remove it");
    PB_RETURN_IF(pb_json_get_int(root, "run", 0, INT64_MAX, 0, path, run));
    PB_RETURN_IF(pb_json_get_int(root, "steps", 0, INT64_MAX, 0, path, finished_steps));
    PB_RETURN_IF(pb_json_get_bool(root, "finished", false, path, &finished));
    if (!finished) *finished_steps = 0;
    return PB_OK;
}

pb_status pb_output_write_run(pb_trainer *t, bool finished) {
    pb_text text = {0};
    pb_text_append(&text, "{\n  \"run\": %lld,\n  \"steps\": %lld,\n  \"finished\": %s\n}\n", (long long)t->run,
                   (long long)t->step, finished ? "true" : "false");
    const char *path = pb_fs_join(t->arena, t->config->output_dir, "run.json");
    pb_status status = path && !text.failed ? pb_fs_write_file(path, text.data, text.bytes)
                                            : pb_error(PB_ERR_MEMORY, "no memory to write run.json");
    pb_text_deinit(&text);
    return status;
}

pb_status pb_output_write_config(pb_trainer *t, const char *path) {
    pb_text text = {0};
    pb_config_print(t->config, &text);
    pb_status status = path && !text.failed ? pb_fs_write_file(path, text.data, text.bytes)
                                            : pb_error(PB_ERR_MEMORY, "no memory to write the configuration");
    pb_text_deinit(&text);
    return status;
}

// --- The pipeline ---

// A part that was not trained, in one file of the plain name.
static pb_status rewrite_part(const pb_trainer *t, pb_part part, const char *path) {
    pb_weights *weights;
    PB_RETURN_IF(pb_model_dir_weights(t->model, part, t->config->variant, &weights));
    const pb_status status = pb_weights_rewrite(weights, t->config->save_precision, path);
    pb_weights_close(weights);
    return status;
}

// Whose weights are written anew: what was not trained is copied as it is, unless everything is to have one precision.
static void find_replaced(pb_trainer *t, bool replaced[PB_PART_COUNT]) {
    const pb_step_graph *step = pb_programs_any(&t->programs)->step;
    const bool all = t->config->save_precision != PB_PRECISION_SOURCE;
    for (pb_part part = 0; part < PB_PART_COUNT; part++)
        replaced[part] = pb_part_weights_stem(part) && (all || pb_step_graph_trained(step, part));
}

pb_status pb_output_require_room(pb_trainer *t, uint64_t *bytes) {
    bool replaced[PB_PART_COUNT];
    find_replaced(t, replaced);
    PB_RETURN_IF(pb_model_copied_bytes(t->model, replaced, bytes));
    for (pb_part part = 0; part < PB_PART_COUNT; part++) {
        pb_weights *weights;  // opened of those that are copied, too: they have to be whole
        if (!pb_part_weights_stem(part)) continue;
        PB_RETURN_IF(pb_model_dir_weights(t->model, part, t->config->variant, &weights));
        if (replaced[part]) *bytes += pb_weights_bytes_as(weights, t->config->save_precision);
        pb_weights_close(weights);
    }
    return pb_fs_require_space(t->config->output_dir, *bytes, "the finished pipeline");
}

pb_status pb_output_write_model(pb_trainer *t) {
    pb_status status = PB_OK;
    pb_model_writer *writer = NULL;
    pb_pass_program *p = pb_programs_any(&t->programs);
    const pb_dtype dtype = t->config->save_precision;
    bool replaced[PB_PART_COUNT];
    find_replaced(t, replaced);
    PB_TRY(pb_model_writer_begin(t->model, t->config->output_dir, replaced, &writer));
    for (pb_part part = 0; part < PB_PART_COUNT; part++) {
        if (!replaced[part]) continue;
        const char *path = pb_model_writer_weights_path(writer, part);
        const pb_module *trained = pb_step_graph_trained(p->step, part);
        if (trained)
            PB_TRY(pb_weights_save(trained, t->sources[part], p->executor, dtype, path));
        else
            PB_TRY(rewrite_part(t, part, path));
    }
    PB_TRY(pb_model_writer_commit(writer));
fail:
    pb_model_writer_destroy(writer);
    return status;
}
