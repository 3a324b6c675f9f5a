#include "cli/inspect_checkpoint.h"

#include <inttypes.h>
#include <string.h>

#include "base/fs.h"
#include "train/saved_state.h"

enum { TRAINER_LIMIT = 1 << 26 };

// What is kept of a parameter, and how many bytes of each lie where.
static const char *const kinds[] = {"work",       "residual",       "master",           "exp_avg",
                                    "exp_avg_sq", "exp_avg.scales", "exp_avg_sq.scales"};
enum { KINDS = sizeof kinds / sizeof *kinds };

typedef struct share {
    size_t tensors;
    uint64_t swapped, in_memory;
} share;

static share share_of(const pb_saved_tensor *t) {
    share s = {.tensors = 1};
    for (size_t k = 0; k < t->piece_count; k++)
        *(t->pieces[k].swapped ? &s.swapped : &s.in_memory) += t->pieces[k].bytes;
    return s;
}

static bool is_kind(const pb_saved_tensor *t, const char *kind) {
    const size_t name = strlen(t->name), end = strlen(kind);
    return name > end && t->name[name - end - 1] == '.' && !strcmp(t->name + name - end, kind);
}

void pb_inspect_shape(pb_text *text, int rank, const int64_t *shape) {
    pb_text_append(text, "[");
    for (int i = 0; i < rank; i++) pb_text_append(text, "%s%" PRId64, i ? "," : "", shape[i]);
    pb_text_append(text, "]");
}

// Names come out of files: as JSON strings they cannot move a terminal's cursor.
static void append_name(pb_text *text, const char *name) {
    pb_text_append_json_string(text, name, strlen(name));
}

static void as_lines(pb_text *text, const pb_saved_state *s, int64_t step, bool tensors) {
    share all = {0};
    pb_text_append(text, "%s: a checkpoint after step %" PRId64 ", the state as it is kept\n", s->path, step);
    for (size_t kind = 0; kind < KINDS; kind++) {
        share sum = {0};
        for (size_t i = 0; i < s->count; i++) {
            if (!is_kind(&s->tensors[i], kinds[kind])) continue;
            const share one = share_of(&s->tensors[i]);
            sum = (share){sum.tensors + 1, sum.swapped + one.swapped, sum.in_memory + one.in_memory};
        }
        if (!sum.tensors) continue;
        pb_text_append(text,
                       "  %-18s %5zu tensors  %14" PRIu64 " B in " PB_SAVED_SWAP "  %14" PRIu64 " B in " PB_SAVED_MEMORY
                       "\n",
                       kinds[kind], sum.tensors, sum.swapped, sum.in_memory);
        all = (share){all.tensors + sum.tensors, all.swapped + sum.swapped, all.in_memory + sum.in_memory};
    }
    pb_text_append(
        text, "  %-18s %5zu tensors  %14" PRIu64 " B in " PB_SAVED_SWAP "  %14" PRIu64 " B in " PB_SAVED_MEMORY "\n",
        "all", all.tensors, all.swapped, all.in_memory);
    if (s->swap_bytes)
        pb_text_append(text, "  " PB_SAVED_SWAP ": %" PRIu64 " B, %zu extents\n", s->swap_bytes, s->extent_count);
    for (size_t i = 0; tensors && i < s->count; i++) {
        const pb_saved_tensor *t = &s->tensors[i];
        const share one = share_of(t);
        pb_text_append(text, "    %-5s %12" PRIu64 " B  ", pb_dtype_name(t->dtype), t->bytes);
        append_name(text, t->name);
        pb_text_append(text, " ");
        pb_inspect_shape(text, t->rank, t->shape);
        pb_text_append(text, !one.in_memory ? "  swap\n" : one.swapped ? "  both\n" : "  memory\n");
    }
}

static void as_json(pb_text *text, const pb_saved_state *s, int64_t step) {
    pb_text_append(text, "{\"path\":");
    append_name(text, s->path);
    pb_text_append(text, ",\"step\":%" PRId64 ",\"swap_bytes\":%" PRIu64 ",\"extents\":[", step, s->swap_bytes);
    for (size_t i = 0; i < s->extent_count; i++)
        pb_text_append(text, "%s{\"offset\":%" PRIu64 ",\"bytes\":%" PRIu64 "}", i ? "," : "", s->extents[i].offset,
                       s->extents[i].bytes);
    pb_text_append(text, "],\"tensors\":[");
    for (size_t i = 0; i < s->count; i++) {
        const pb_saved_tensor *t = &s->tensors[i];
        const share one = share_of(t);
        pb_text_append(text, "%s{\"name\":", i ? "," : "");
        append_name(text, t->name);
        pb_text_append(text, ",\"dtype\":\"%s\",\"shape\":", pb_dtype_name(t->dtype));
        pb_inspect_shape(text, t->rank, t->shape);
        pb_text_append(text, ",\"bytes\":%" PRIu64 ",\"in_swap\":%" PRIu64 ",\"in_memory\":%" PRIu64 "}", t->bytes,
                       one.swapped, one.in_memory);
    }
    pb_text_append(text, "]}\n");
}

static pb_status step_of(pb_arena *arena, const char *checkpoint, int64_t *step) {
    const char *path = pb_fs_join(arena, checkpoint, "trainer.json");
    char *trainer;
    size_t bytes;
    const pb_json *root;
    if (!path) return pb_error(PB_ERR_MEMORY, "no memory to read %s", checkpoint);
    PB_RETURN_IF(pb_fs_read_file(arena, path, TRAINER_LIMIT, &trainer, &bytes));
    PB_RETURN_IF(pb_json_parse(arena, trainer, bytes, path, &root));
    return pb_json_get_int(root, "step", 0, INT64_MAX, 0, path, step);
}

pb_status pb_inspect_checkpoint(pb_text *text, const char *path, bool json, bool tensors) {
    pb_status status = PB_OK;
    pb_saved_state *state = NULL;
    int64_t step = 0;
    pb_arena *arena = pb_arena_create();
    if (!arena) PB_FAIL(PB_ERR_MEMORY, "no memory to read %s", path);
    PB_TRY(step_of(arena, path, &step));
    PB_TRY(pb_saved_state_open(path, &state));
    if (json)
        as_json(text, state, step);
    else
        as_lines(text, state, step, tensors);
fail:
    pb_saved_state_close(state);
    pb_arena_destroy(arena);
    return status;
}
