#include "train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"

enum { LINE_BYTES = 512, NUMBER_BYTES = 32, METRICS_LIMIT = 1 << 30 };

struct pb_metrics {
    int fd;
    char *path;
    char *line;
    size_t capacity, used;
};

// The step of a line, or -1 where it is none of ours (torn by a kill).
static int64_t step_of(const char *line, size_t bytes, const char *path) {
    pb_arena *arena = pb_arena_create();
    const pb_json *root;
    int64_t step = -1;
    if (arena && pb_json_parse(arena, line, bytes, path, &root) == PB_OK)
        if (pb_json_get_int(root, "step", 0, INT64_MAX, -1, path, &step) != PB_OK) step = -1;
    pb_error_clear();
    pb_arena_destroy(arena);
    return step;
}

// Where the lines that are to be kept end.
static pb_status find_end(const char *path, int64_t keep_steps, uint64_t *end) {
    *end = 0;
    if (keep_steps <= 0 || pb_fs_kind_of(path) != PB_FS_FILE) return PB_OK;
    pb_arena *arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "no memory to read %s", path);
    char *text;
    size_t bytes;
    const pb_status status = pb_fs_read_file(arena, path, METRICS_LIMIT, &text, &bytes);
    for (size_t at = 0; status == PB_OK && at < bytes;) {
        const char *newline = memchr(text + at, '\n', bytes - at);
        if (!newline) break;
        const size_t length = (size_t)(newline - text) - at;
        const int64_t step = step_of(text + at, length, path);
        if (step < 0 || step > keep_steps) break;
        at += length + 1;
        *end = at;
    }
    pb_arena_destroy(arena);
    return status;
}

pb_status pb_metrics_open(const char *path, int64_t keep_steps, int64_t micro_count, pb_metrics **result) {
    pb_status status = PB_OK;
    pb_metrics *m = calloc(1, sizeof *m);
    if (!m) return pb_error(PB_ERR_MEMORY, "no memory for %s", path);
    m->fd = -1;
    m->capacity = LINE_BYTES + (size_t)micro_count * NUMBER_BYTES;
    m->line = malloc(m->capacity);
    m->path = strdup(path);
    if (!m->line || !m->path) PB_FAIL(PB_ERR_MEMORY, "no memory for %s", path);
    uint64_t end;
    PB_TRY(find_end(path, keep_steps, &end));
    // Non-blocking, so that a FIFO is refused rather than waited for.
    m->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    struct stat info;
    if (m->fd < 0 && (errno == ENXIO || errno == ELOOP || errno == EISDIR))
        PB_FAIL(PB_ERR_IO, "cannot write %s: it is no regular file; remove it", path);
    if (m->fd < 0 || fstat(m->fd, &info)) PB_FAIL(PB_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) PB_FAIL(PB_ERR_IO, "cannot write %s: it is no regular file; remove it", path);
    if (ftruncate(m->fd, (off_t)end)) PB_FAIL(PB_ERR_IO, "cannot shorten %s: %s", path, strerror(errno));
    *result = m;
    m = NULL;
fail:
    pb_metrics_close(m);
    return status;
}

void pb_metrics_close(pb_metrics *m) {
    if (!m) return;
    if (m->fd >= 0) close(m->fd);
    free(m->line);
    free(m->path);
    free(m);
}

static void append(pb_metrics *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(pb_metrics *m, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int written = vsnprintf(m->line + m->used, m->capacity - m->used, format, arguments);
    va_end(arguments);
    if (written > 0) m->used += (size_t)written;
    if (m->used >= m->capacity) m->used = m->capacity - 1;
}

// The shortest decimal that reads back as the same double; JSON has no infinities.
static void append_number(pb_metrics *m, double value) {
    if (!isfinite(value)) {
        append(m, "null");
        return;
    }
    char text[NUMBER_BYTES];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    append(m, "%s", text);
}

static void append_member(pb_metrics *m, const char *key, double value) {
    append(m, ", \"%s\": ", key);
    append_number(m, value);
}

static pb_status flush(pb_metrics *m) {
    append(m, "}\n");
    const size_t bytes = m->used;
    m->used = 0;
    return pb_fs_write(m->fd, m->line, bytes, m->path);
}

pb_status pb_metrics_write(pb_metrics *m, const pb_metrics_step *s) {
    append(m, "{\"step\": %lld, \"epoch\": %lld", (long long)s->step, (long long)s->epoch);
    append_member(m, "loss", s->loss);
    append_member(m, "lr", s->lr);
    append_member(m, "grad_norm", s->grad_norm);
    append(m, ", \"seconds\": %.6f", s->seconds);
    if (s->loss_scale > 0) append_member(m, "loss_scale", s->loss_scale);
    for (int64_t i = 0; s->micro_losses && i < s->micro_count; i++) {
        append(m, "%s", i ? ", " : ", \"micro_losses\": [");
        append_number(m, s->micro_losses[i]);
    }
    if (s->micro_losses) append(m, "]");
    return flush(m);
}

pb_status pb_metrics_write_overflow(pb_metrics *m, int64_t step, double scale) {
    append(m, "{\"step\": %lld, \"overflow\": true", (long long)step);
    append_member(m, "scale", scale);
    return flush(m);
}

pb_status pb_metrics_sync(pb_metrics *m) {
    if (fsync(m->fd)) return pb_error(PB_ERR_IO, "cannot write %s to the disk: %s", m->path, strerror(errno));
    return PB_OK;
}
