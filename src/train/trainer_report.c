// Predicted against actual: what the run's plan said, and what was measured while it ran.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "plan/timeline.h"
#include "train/trainer_parts.h"

// Until when instructions are timed: by then updates are deferred from a step before, and caches are warm.
enum { TRACED_STEPS = 3 };
// What the process may take besides its slabs and what it had before they were made: stacks of threads, buffers of
// checkpoints, the executors' lists.
static const uint64_t process_margin = UINT64_C(64) << 20;

// --- The process's memory ---

// A row of /proc/self/status in bytes; 0 where there is none. Nothing is allocated.
static uint64_t process_bytes(const char *key) {
    char text[4096];
    const int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    const ssize_t bytes = read(fd, text, sizeof text - 1);
    close(fd);
    text[bytes > 0 ? bytes : 0] = 0;
    const char *at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, 10) << 10 : 0;
}

// Lets the peak begin anew; false where the system does not permit it.
static bool reset_peak(void) {
    const int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const bool done = write(fd, "5", 1) == 1;
    close(fd);
    return done;
}

void pb_record_own_memory(pb_trainer *t) {
    t->record.own_bytes = process_bytes("VmRSS:");
}

// --- During the run ---

static void trace(pb_trainer *t, bool on) {
    for (int i = 0; i < t->programs.count; i++)
        pb_executor_trace(t->programs.items[i].executor, on ? t->record.times[i] : NULL);
    t->record.tracing = on;
}

// What the device has to say and has not said yet.
static void pass_on_notes(pb_trainer *t) {
    const char *note = pb_memory_note(t->programs.memory);
    const size_t bytes = strlen(note);
    if (bytes > t->record.noted) pb_progress_note(&t->progress, "%s", note + t->record.noted);
    t->record.noted = bytes;
}

pb_status pb_record_begin(pb_trainer *t) {
    pb_run_record *r = &t->record;
    pass_on_notes(t);
    for (int i = 0; i < t->programs.count; i++) {
        r->times[i] = calloc((size_t)t->programs.items[i].program->insn_count + 1, sizeof *r->times[i]);
        if (!r->times[i]) return pb_error(PB_ERR_MEMORY, "no memory to time a step");
    }
    if (t->measuring) PB_RETURN_IF(pb_alone_begin(t));
    r->limit = r->own_bytes + process_margin + pb_memory_process_bytes(t->programs.memory);
    pb_progress_note(&t->progress, "process: at most %.3f GiB of RAM, %.3f GiB of it slabs", (double)r->limit / 0x1p30,
                     (double)pb_memory_process_bytes(t->programs.memory) / 0x1p30);
    r->peak_counted = reset_peak();
    trace(t, true);
    return PB_OK;
}

pb_status pb_record_run(pb_trainer *t, pb_pass_program *p, int64_t images) {
    if (t->measuring) PB_RETURN_IF(pb_alone_keep_inputs(t, p));
    const double begun = pb_seconds_now();
    const pb_status status = pb_executor_run(p->executor);
    t->record.in_programs += pb_seconds_now() - begun;
    t->record.images += images;
    return status;
}

void pb_record_step(pb_trainer *t, const pb_metrics_step *line) {
    pb_run_record *r = &t->record;
    pb_train_report *report = t->report;
    const uint64_t now = r->peak_counted ? 0 : process_bytes("VmRSS:");
    if (now > r->peak) r->peak = now;
    pass_on_notes(t);
    if (report && report->losses < PB_REPORT_STEPS) {
        report->loss[report->losses] = line->loss;
        report->norm[report->losses++] = line->grad_norm;
    }
    if (!r->full_images) {
        for (int64_t j = 0; j < pb_batching_longest(&t->batching); j++)
            r->full_images += pb_batching_images(&t->batching, j);
        r->first_step = line->step;
    }
    // The first step is not like the others: nothing is due before it, and every page is touched for the first time.
    if (line->step != r->first_step && r->images == r->full_images) {
        r->steps++;
        r->seconds += line->seconds;
        r->program_seconds += r->in_programs;
    }
    if (r->tracing && line->step >= r->first_step + TRACED_STEPS - 1) {
        r->traced_step = line->step;
        trace(t, false);
    }
}

// --- Afterwards ---

// Of the moves that were timed in the programs of one step.
static void sum_moved(const pb_trainer *t, uint64_t moved[PB_LINK_COUNT]) {
    for (int l = 0; l < PB_LINK_COUNT; l++) moved[l] = 0;
    for (pb_pass_walk w = {0}; pb_pass_walk_next(&t->programs, &t->batching, &w);) {
        const pb_program *p = w.pass->program;
        const pb_insn_times *times = t->record.times[w.pass - t->programs.items];
        for (uint32_t i = 0; i < p->insn_count; i++)
            if ((p->insns[i].kind == PB_INSN_FETCH || p->insns[i].kind == PB_INSN_EVICT) && times[i].end > 0)
                moved[pb_link_of(p->insns[i].lane)] += p->insns[i].bytes;
    }
}

static pb_status fill_report(pb_trainer *t, pb_train_report *r) {
    const pb_run_record *record = &t->record;
    PB_RETURN_IF(pb_programs_predict(&t->programs, &t->batching, &t->limits.machine, &r->forecast));
    pb_programs_peaks(&t->programs, r->tier_bytes, r->by_class, r->padding);
    r->deferred = t->programs.deferred;
    r->steps = record->steps;
    if (record->steps) {
        r->seconds = record->seconds / (double)record->steps;
        r->program_seconds = record->program_seconds / (double)record->steps;
    }
    for (int tier = 0; tier < PB_TIER_COUNT; tier++)
        r->slab_bytes[tier] = pb_memory_bytes(t->programs.memory, (pb_tier)tier);
    sum_moved(t, r->moved);
    r->process_peak = record->peak_counted ? process_bytes("VmHWM:") : record->peak;
    r->process_slabs = pb_memory_process_bytes(t->programs.memory);
    r->process_overhead = record->limit - r->process_slabs;
    return PB_OK;
}

static void print_bytes(const char *name, uint64_t predicted, uint64_t actual) {
    if (predicted || actual)
        fprintf(stderr, "  %-22s %17llu %17llu\n", name, (unsigned long long)predicted, (unsigned long long)actual);
}

static void print_report(const pb_train_report *r) {
    static const char *const links[PB_LINK_COUNT] = {"moved host to device", "moved device to host", "read from NVMe",
                                                     "written to NVMe"};
    static const char *const tiers[PB_TIER_COUNT] = {"device bytes", "host bytes", "NVMe bytes"};
    fprintf(stderr, "%-24s %17s %17s\n", "one step", "predicted", "actual");
    if (r->steps) {
        fprintf(stderr, "  %-22s %17.6g %17.6g   ratio %.2f, %lld steps\n", "seconds in programs", r->forecast.seconds,
                r->program_seconds, r->forecast.seconds > 0 ? r->program_seconds / r->forecast.seconds : 0,
                (long long)r->steps);
        fprintf(stderr, "  %-22s %17s %17.6g\n", "seconds in all", "", r->seconds);
    } else {
        fprintf(stderr, "  %-22s %17.6g %17s\n", "seconds in programs", r->forecast.seconds, "not measured");
    }
    fprintf(stderr, "  %-22s %17.6g   (%s)\n", "lower bound, seconds", r->forecast.lower_bound,
            pb_bound_name(r->forecast.bound));
    for (int t = 0; t < PB_TIER_COUNT; t++) print_bytes(tiers[t], r->tier_bytes[t], r->slab_bytes[t]);
    for (int l = 0; l < PB_LINK_COUNT; l++) print_bytes(links[l], r->forecast.moved[l], r->moved[l]);
    fprintf(stderr, "  %-22s %17llu %17llu   (%llu of slabs and %llu besides allowed)\n", "process, bytes of RAM",
            (unsigned long long)(r->process_slabs + r->process_overhead), (unsigned long long)r->process_peak,
            (unsigned long long)r->process_slabs, (unsigned long long)r->process_overhead);
}

// --- The timeline ---

static pb_status write_files(pb_trainer *t, const pb_pass_program *p, const pb_timeline *predicted,
                             const pb_timeline *actual, const char *name) {
    static const char *const passes[] = {[PB_PASS_WHOLE] = "",
                                         [PB_PASS_FIRST] = ", first pass",
                                         [PB_PASS_NEXT] = ", a pass in the middle",
                                         [PB_PASS_LAST] = ", last pass"};
    char title[128], file[96];
    pb_text table = {0};
    const char *folder = t->config->memory.timeline;
    snprintf(title, sizeof title, "step %lld%s, %lld pictures%s", (long long)t->record.traced_step, passes[p->pass],
             (long long)p->images, t->programs.deferred ? ", updates deferred" : "");
    snprintf(file, sizeof file, "%s.json", name);
    const char *path = pb_fs_join(t->arena, folder, file);
    if (!path) return pb_error(PB_ERR_MEMORY, "no memory for a timeline");
    PB_RETURN_IF(pb_timeline_write_trace_pair(predicted, actual, path));
    snprintf(file, sizeof file, "%s.svg", name);
    path = pb_fs_join(t->arena, folder, file);
    if (!path) return pb_error(PB_ERR_MEMORY, "no memory for a timeline");
    PB_RETURN_IF(pb_timeline_write_svg_pair(predicted, actual, title, path));
    snprintf(file, sizeof file, "%s.txt", name);
    path = pb_fs_join(t->arena, folder, file);
    pb_status status = path ? pb_times_compare(p->step->graph, p->program, predicted->times, actual->times, &table)
                            : pb_error(PB_ERR_MEMORY, "no memory for a timeline");
    if (status == PB_OK) status = pb_fs_write_file(path, table.data, table.bytes);
    pb_text_deinit(&table);
    return status;
}

static pb_status write_pass(pb_trainer *t, const pb_pass_program *p, const pb_insn_times *times, const char *name) {
    pb_status status = PB_OK;
    pb_prediction prediction;
    pb_timeline *predicted = NULL, *actual = NULL;
    pb_insn_times *expected = calloc((size_t)p->program->insn_count + 1, sizeof *expected);
    if (!expected) return pb_error(PB_ERR_MEMORY, "no memory for a timeline");
    PB_TRY(pb_program_predict(p->step->graph, p->program, &t->limits.machine, &prediction, expected));
    PB_TRY(pb_timeline_create(p->step->graph, p->program, expected, &predicted));
    PB_TRY(pb_timeline_create(p->step->graph, p->program, times, &actual));
    PB_TRY(write_files(t, p, predicted, actual, name));
fail:
    pb_timeline_destroy(predicted);
    pb_timeline_destroy(actual);
    free(expected);
    return status;
}

// A step of several passes has a timeline for each kind of them.
static pb_status write_timeline(pb_trainer *t) {
    static const char *const names[] = {[PB_PASS_WHOLE] = "step",
                                        [PB_PASS_FIRST] = "step-first",
                                        [PB_PASS_NEXT] = "step-next",
                                        [PB_PASS_LAST] = "step-last"};
    bool written[PB_PASS_FLUSH] = {false};
    PB_RETURN_IF(pb_fs_make_directories(t->config->memory.timeline));
    for (pb_pass_walk w = {0}; pb_pass_walk_next(&t->programs, &t->batching, &w);) {
        if (written[w.pass->pass]) continue;
        written[w.pass->pass] = true;
        PB_RETURN_IF(write_pass(t, w.pass, t->record.times[w.pass - t->programs.items], names[w.pass->pass]));
    }
    pb_progress_note(&t->progress, "the timeline of step %lld is in %s", (long long)t->record.traced_step,
                     t->config->memory.timeline);
    return PB_OK;
}

pb_status pb_record_finish(pb_trainer *t) {
    pb_train_report own = {.steps = 0}, *report = t->report ? t->report : &own;
    if (!t->record.first_step) return PB_OK;  // a resumed run with nothing left to do
    if (t->record.tracing) t->record.traced_step = t->step;
    trace(t, false);
    PB_RETURN_IF(fill_report(t, report));
    if (t->measuring) PB_RETURN_IF(pb_alone_measure(t, report));
    if (!t->measuring) print_report(report);
    return PB_OK;
}

pb_status pb_record_timeline(pb_trainer *t) {
    return t->config->memory.timeline && t->record.first_step ? write_timeline(t) : PB_OK;
}

void pb_record_deinit(pb_trainer *t) {
    for (int i = 0; i < PB_PASS_PROGRAMS; i++) {
        free(t->record.times[i]);
        free(t->record.inputs[i]);
    }
}
