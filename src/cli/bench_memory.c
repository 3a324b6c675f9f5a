#include "cli/bench_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/parallel.h"
#include "cli/plan_report.h"

static pb_status parse_budgets(const char *text, pb_bench_memory_row *rows, int *count) {
    char one[64];
    *count = 0;
    for (const char *at = text; *at;) {
        const size_t length = strcspn(at, ",");
        int64_t bytes;
        if (*count == PB_BENCH_BUDGETS) return pb_error(PB_ERR_USAGE, "--budgets: more than %d", PB_BENCH_BUDGETS);
        snprintf(one, sizeof one, "%.*s", (int)(length < sizeof one ? length : sizeof one - 1), at);
        PB_RETURN_IF(pb_parse_bytes("--budgets", one, &bytes));
        if (bytes <= 0) return pb_error(PB_ERR_USAGE, "--budgets: `%s` is no budget", one);
        rows[(*count)++].budget = (uint64_t)bytes;
        at += length + (at[length] == ',');
    }
    return *count ? PB_OK : pb_error(PB_ERR_USAGE, "--budgets is empty");
}

// Whether two runs are the same bits, as far as their reports go.
static bool same_numbers(const pb_train_report *a, const pb_train_report *b) {
    const size_t bytes = (size_t)a->losses * sizeof *a->loss;
    return a->losses == b->losses && !memcmp(a->loss, b->loss, bytes) && !memcmp(a->norm, b->norm, bytes);
}

static pb_status run_row(const pb_config *base, const char *scratch, uint64_t largest, pb_bench_memory_row *row) {
    pb_config config = *base;
    char text[32];
    if (row->budget > largest) {
        snprintf(row->refusal, sizeof row->refusal, "the device has no more than %s free",
                 pb_bytes_text(largest, text));
        return PB_OK;
    }
    config.memory.device = (int64_t)row->budget;
    config.output_dir = scratch;
    const pb_status status = pb_train_measure(&config, &row->report);
    row->ran = status == PB_OK;
    // Another budget may do.
    if (status != PB_ERR_BUDGET && status != PB_ERR_MEMORY) return status;
    snprintf(row->refusal, sizeof row->refusal, "%s", pb_error_message());
    pb_error_clear();
    return PB_OK;
}

static void print_heading(int64_t steps) {
    printf("%lld steps at each budget; the first is not timed. Bytes and seconds of a step.\n", (long long)steps);
    printf("%10s %11s %11s %11s %11s %11s %11s %7s %11s %s\n", "budget", "device", "host", "NVMe", "moved", "predicted",
           "measured", "ratio", "process", "result");
}

// What the step's parts take by themselves, timed in the same run, and how far from the longer one the step is.
static void print_alone(const pb_train_report *r) {
    char compute[32], io[32];
    const double longer = r->compute_alone > r->io_alone ? r->compute_alone : r->io_alone;
    if (longer <= 0) return;
    printf("%10s ops, copies and updates alone take %s", "", pb_seconds_text(r->compute_alone, compute));
    if (r->io_alone > 0) printf(", the drive alone %s", pb_seconds_text(r->io_alone, io));
    printf("; the step takes %.2f times %s\n", r->program_seconds / longer, r->io_alone > 0 ? "the longer" : "that");
}

static void print_row(const pb_bench_memory_row *row) {
    const pb_train_report *r = &row->report;
    char text[32];
    printf("%10s", pb_bytes_text(row->budget, text));
    if (!row->ran) {
        printf(" does not fit: %s\n", row->refusal);
        return;
    }
    uint64_t moved = 0;
    for (int t = 0; t < PB_TIER_COUNT; t++) printf(" %11s", pb_bytes_text(r->slab_bytes[t], text));
    for (int l = 0; l < PB_LINK_COUNT; l++) moved += r->moved[l];
    printf(" %11s", pb_bytes_text(moved, text));
    printf(" %11s", pb_seconds_text(r->forecast.seconds, text));
    printf(" %11s %7.2f", pb_seconds_text(r->program_seconds, text),
           r->forecast.seconds > 0 ? r->program_seconds / r->forecast.seconds : 0);
    printf(" %11s %s\n", pb_bytes_text(r->process_peak, text), row->same ? "same bits" : "OTHER BITS");
    print_alone(r);
    fflush(stdout);
}

// The configuration that every row is a run of.
static pb_status read_config(pb_arena *arena, const pb_bench_memory_options *o, pb_config *config) {
    PB_RETURN_IF(pb_config_gather(arena, o->config_path, o->sets->item, (size_t)o->sets->count, config));
    if (o->device) config->device = o->device;
    PB_RETURN_IF(pb_config_check(config));
    config->max_train_steps = (pb_maybe_int){.set = true, .value = o->steps};
    config->resume_from_checkpoint = NULL;
    if (!config->seed.set) config->seed = (pb_maybe_int){.set = true, .value = 0};
    return PB_OK;
}

static pb_status make_scratch(pb_arena *arena, char **path) {
    const char *temporary = getenv("TMPDIR");
    *path = pb_fs_join(arena, temporary && *temporary ? temporary : "/tmp", "pagebooth-bench-XXXXXX");
    if (!*path) return pb_error(PB_ERR_MEMORY, "no memory for a benchmark");
    return mkdtemp(*path) ? PB_OK : pb_error(PB_ERR_IO, "cannot make a folder like %s", *path);
}

// `status`: of what was done there; its error is the one to tell.
static pb_status remove_scratch(const char *path, pb_status status) {
    if (status == PB_OK) return pb_fs_remove(path);
    char *message = strdup(pb_error_message());
    pb_fs_remove(path);
    pb_error(status, "%s", message ? message : "the benchmark failed");
    free(message);
    return status;
}

static pb_status write_results(pb_arena *arena, const pb_bench_memory_options *o, const pb_config *config,
                               const pb_bench_memory_row *rows, int count) {
    char title[256];
    if (!o->folder) return PB_OK;
    snprintf(title, sizeof title, "%s, %lld x %lld, batch %lld", pb_fs_base_name(config->pretrained_model_name_or_path),
             (long long)config->resolution, (long long)config->resolution, (long long)config->train_batch_size);
    const char *svg = pb_fs_join(arena, o->folder, "memory.svg"), *json = pb_fs_join(arena, o->folder, "memory.json");
    if (!svg || !json) return pb_error(PB_ERR_MEMORY, "no memory for a benchmark");
    PB_RETURN_IF(pb_fs_make_directories(o->folder));
    PB_RETURN_IF(pb_bench_memory_write_json(rows, count, title, json));
    PB_RETURN_IF(pb_bench_memory_write_svg(rows, count, title, svg));
    printf("written: %s and %s\n", svg, json);
    return PB_OK;
}

static pb_status run_rows(pb_arena *arena, const pb_config *config, const char *scratch, pb_bench_memory_row *rows,
                          int count) {
    pb_memory_limits limits;
    PB_RETURN_IF(pb_memory_limits_find(arena, config, NULL, &limits));
    const pb_bench_memory_row *first = NULL;
    bool same = true;
    int ran = 0;
    for (int i = 0; i < count; i++) {
        PB_RETURN_IF(run_row(config, scratch, limits.machine.device_bytes, &rows[i]));
        if (rows[i].ran && !first) first = &rows[i];
        rows[i].same = rows[i].ran && same_numbers(&first->report, &rows[i].report);
        if (rows[i].ran) same = same && rows[i].same;
        ran += rows[i].ran;
        print_row(&rows[i]);
    }
    if (!ran) return pb_error(PB_ERR_BUDGET, "no budget of the list works: %s", rows[count - 1].refusal);
    if (!same) return pb_error(PB_ERR_NUMERIC, "the results differ between budgets, which they never should");
    printf("All %d budgets that work give the same losses and gradient norms, bit for bit.\n", ran);
    return PB_OK;
}

pb_status pb_bench_memory(const pb_bench_memory_options *options) {
    pb_status status = PB_OK;
    pb_config config;
    char *scratch = NULL;
    int count = 0;
    pb_arena *arena = pb_arena_create();
    pb_bench_memory_row *rows = calloc(PB_BENCH_BUDGETS, sizeof *rows);
    if (!arena || !rows) PB_FAIL(PB_ERR_MEMORY, "no memory for a benchmark");
    PB_TRY(parse_budgets(options->budgets ? options->budgets : "24GiB,16GiB,12GiB,8GiB,6GiB,4GiB,2GiB,1GiB", rows,
                         &count));
    PB_TRY(read_config(arena, options, &config));
    PB_TRY(make_scratch(arena, &scratch));
    print_heading(options->steps);
    PB_TRY(run_rows(arena, &config, scratch, rows, count));
    PB_TRY(write_results(arena, options, &config, rows, count));
fail:
    if (scratch && pb_fs_kind_of(scratch) == PB_FS_DIRECTORY) status = remove_scratch(scratch, status);
    free(rows);
    pb_arena_destroy(arena);
    return status;
}
