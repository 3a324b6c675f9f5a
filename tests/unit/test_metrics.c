// test: links=train,base
// metrics.jsonl: the lines' form, numbers that read back as they were, and what resuming cuts off.
#include "train/metrics.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/json.h"
#include "check.h"
#include "scratch.h"

static char *contents(pb_arena *arena, const char *path) {
    char *text = NULL;
    if (pb_fs_read_file(arena, path, 1 << 20, &text, NULL) != PB_OK) text = "";
    return text;
}

static void write_steps(pb_metrics *metrics, int64_t first, int64_t last) {
    for (int64_t step = first; step <= last; step++) {
        const pb_metrics_step line = {.step = step,
                                      .epoch = step / 4,
                                      .loss = 1.0 / (double)step,
                                      .lr = 1e-4,
                                      .grad_norm = 0.1 + 0.2,
                                      .seconds = 0.5};
        CHECK_OK(pb_metrics_write(metrics, &line));
    }
}

static void check_numbers(pb_arena *arena, const char *path) {
    const char *text = contents(arena, path), *newline = strchr(text, '\n');
    const pb_json *root;
    double value;
    CHECK(newline != NULL);
    if (!newline || pb_json_parse(arena, text, (size_t)(newline - text), path, &root) != PB_OK) {
        CHECK_THAT(false, "not JSON: %s", text);
        return;
    }
    CHECK_OK(pb_json_get_double(root, "loss", 0, path, &value));
    CHECK(value == 1.0 / 3.0);
    CHECK_OK(pb_json_get_double(root, "grad_norm", 0, path, &value));
    CHECK(value == 0.1 + 0.2);
    CHECK_OK(pb_json_get_double(root, "lr", 0, path, &value));
    CHECK(value == 1e-4);
    CHECK(strstr(text, "\"lr\": 0.0001,") != NULL);
    const pb_json *micro = pb_json_get(root, "micro_losses");
    CHECK(micro && micro->type == PB_JSON_ARRAY && micro->count == 2 && micro->first->number == 1.0 / 7.0);
}

int main(void) {
    pb_arena *arena = pb_arena_create();
    const char *path = scratch_path("metrics.jsonl");
    pb_metrics *metrics = NULL;
    const double micro[] = {1.0 / 7.0, 0.25};
    CHECK_OK(pb_metrics_open(path, 0, 2, &metrics));
    const pb_metrics_step line = {.step = 1,
                                  .loss = 1.0 / 3.0,
                                  .lr = 1e-4,
                                  .grad_norm = 0.1 + 0.2,
                                  .seconds = 2,
                                  .loss_scale = 65536,
                                  .micro_losses = micro,
                                  .micro_count = 2};
    CHECK_OK(pb_metrics_write(metrics, &line));
    write_steps(metrics, 2, 5);
    CHECK_OK(pb_metrics_write_overflow(metrics, 6, 65536));
    write_steps(metrics, 6, 9);
    CHECK_OK(pb_metrics_sync(metrics));
    pb_metrics_close(metrics);
    check_numbers(arena, path);
    CHECK(strstr(contents(arena, path), "{\"step\": 6, \"overflow\": true, \"scale\": 65536}\n") != NULL);

    // As a kill leaves it: the last line is torn.
    const char *text = contents(arena, path);
    CHECK(truncate(path, (off_t)strlen(text) - 5) == 0);
    CHECK_OK(pb_metrics_open(path, 9, 0, &metrics));
    pb_metrics_close(metrics);
    CHECK(strstr(contents(arena, path), "\"step\": 8,") != NULL && !strstr(contents(arena, path), "\"step\": 9,"));

    CHECK_OK(pb_metrics_open(path, 5, 0, &metrics));
    CHECK(!strstr(contents(arena, path), "\"step\": 6"));
    write_steps(metrics, 6, 6);
    pb_metrics_close(metrics);
    text = contents(arena, path);
    CHECK(strstr(text, "\"step\": 6, \"epoch\": 1, \"loss\"") != NULL && text[strlen(text) - 1] == '\n');

    CHECK_OK(pb_metrics_open(path, 0, 0, &metrics));
    pb_metrics_close(metrics);
    CHECK(strlen(contents(arena, path)) == 0);

    const char *link = scratch_path("link.jsonl");
    CHECK(symlink(path, link) == 0);
    CHECK(pb_metrics_open(link, 0, 0, &metrics) == PB_ERR_IO);
    pb_arena_destroy(arena);
    scratch_remove();
    return CHECK_DONE();
}
