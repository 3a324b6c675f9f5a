// test: links=exec,ref,plan,graph,base
// Timelines: bytes over time worked out by hand for a program that pages; the peak of random programs against the
// plan's own figure; traces that parse as JSON, pictures without gaps in their numbers, files whole or not at all.
#include <stdlib.h>

#include "check.h"
#include "plan/predict.h"
#include "plan/support_graphs.h"
#include "plan/timeline.h"
#include "scratch.h"

enum { SIDE = 64, MATRIX = SIDE * SIDE * 4, GRAPHS = 40 };

static const pb_operand none = {PB_NONE, 0};

// y = x w^T with x resident, w on NVMe; then w once more from the host. All matrices have MATRIX bytes.
typedef struct paged {
    pb_graph *graph;
    pb_vid x, w, y, z;
    pb_program program;
    pb_insn insns[8];
    pb_piece piece;
    uint32_t first_piece[8];
    uint64_t home[8], extent_bytes[1];
} paged;

static void make_paged(paged *p) {
    const pb_shape square = PB_SHAPE2(SIDE, SIDE);
    *p = (paged){.piece = {.bytes = MATRIX, .tier = PB_TIER_NVME}, .extent_bytes = {MATRIX}};
    CHECK_OK(pb_graph_create(&p->graph));
    p->x = pb_graph_add_value(p->graph, PB_CLASS_INPUT, PB_F32, square, false, "x");
    p->w = pb_graph_add_value(p->graph, PB_CLASS_WEIGHT, PB_F32, square, true, "block.\"w\"");
    p->y = pb_linear(p->graph, p->x, p->w, PB_NONE, PB_NONE);
    p->z = pb_linear(p->graph, p->y, p->w, PB_NONE, PB_NONE);
    pb_graph_mark_output(p->graph, p->z);
    CHECK(p->graph->status == PB_OK && p->graph->value_count == 4);
    // Device: x 0, y 1, w 2, z 0 (over x), scratch 3. Host: w at 0.
    pb_insn run = {.kind = PB_INSN_RUN, .lane = PB_LANE_COMPUTE, .node = 0, .workspace_offset = 3 * MATRIX};
    for (int i = 0; i < PB_MAX_INPUTS; i++) run.in[i] = none;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) run.out[i] = none;
    run.workspace_bytes = 1024;
    run.in[0] = (pb_operand){p->x, 0};
    run.in[1] = (pb_operand){p->w, 2 * MATRIX};
    run.out[0] = (pb_operand){p->y, MATRIX};
    pb_insn again = run;
    again.node = 1;
    again.in[0] = (pb_operand){p->y, MATRIX};
    again.out[0] = (pb_operand){p->z, 0};
    again.workspace_bytes = 0;
    const pb_insn upload = {
        .kind = PB_INSN_FETCH, .lane = PB_LANE_UPLOAD, .from_tier = PB_TIER_HOST, .to = 2 * MATRIX, .bytes = MATRIX};
    const pb_insn insns[] = {
        {.kind = PB_INSN_FETCH,
         .lane = PB_LANE_READ,
         .from_tier = PB_TIER_NVME,
         .to_tier = PB_TIER_HOST,
         .bytes = MATRIX},
        {.kind = PB_INSN_WAIT, .lane = PB_LANE_UPLOAD, .on = 0},
        upload,
        {.kind = PB_INSN_WAIT, .lane = PB_LANE_COMPUTE, .on = 2},
        run,
        upload,
        {.kind = PB_INSN_WAIT, .lane = PB_LANE_COMPUTE, .on = 5},
        again,
    };
    memcpy(p->insns, insns, sizeof insns);
    for (pb_vid v = 0; v < 4; v++) p->home[v] = UINT64_MAX;
    p->home[p->x] = p->home[p->z] = 0;
    for (pb_vid v = p->w + 1; v <= 4; v++) p->first_piece[v] = 1;
    p->program = (pb_program){.insns = p->insns,
                              .insn_count = 8,
                              .home = p->home,
                              .pieces = &p->piece,
                              .first_piece = p->first_piece,
                              .extent_bytes = p->extent_bytes,
                              .extent_count = 1,
                              .tier_bytes = {4 * MATRIX, MATRIX, MATRIX}};
}

// Read 0 to 1, upload 1 to 2, run 2 to 4, upload again 4 to 5, run 5 to 7 s.
static const pb_insn_times paged_times[8] = {{0, 1}, {0, 1}, {1, 2}, {0, 2}, {2, 4}, {4, 5}, {4, 5}, {5, 7}};

static uint64_t bytes_at(const pb_timeline *t, double at, pb_tier tier, pb_class class_) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < t->sample_count && t->samples[i].at <= at; i++) bytes = t->samples[i].bytes[tier][class_];
    return bytes;
}

static void test_by_hand(const paged *p) {
    pb_timeline *t = NULL;
    CHECK_OK(pb_timeline_create(p->graph, &p->program, paged_times, &t));
    if (!t) return;
    CHECK(t->seconds == 7);
    static const struct {
        double at;
        uint64_t input, weight, activation, workspace, host, nvme;  // in matrices; the workspace in bytes
    } expected[] = {
        {0.5, 1, 0, 0, 0, 1, 1},     // on its way to the host
        {1.5, 1, 1, 0, 0, 1, 1},     // on its way to the device
        {2.5, 1, 1, 1, 1024, 1, 1},  // y is made; the host still has w for the second upload
        {4.5, 0, 1, 1, 0, 1, 1},     // x was read for the last time; w arrives anew
        {5.5, 0, 1, 2, 0, 0, 1},     // z over x
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const double at = expected[i].at;
        CHECK_THAT(bytes_at(t, at, PB_TIER_DEVICE, PB_CLASS_INPUT) == expected[i].input * MATRIX, "inputs at %g", at);
        CHECK_THAT(bytes_at(t, at, PB_TIER_DEVICE, PB_CLASS_WEIGHT) == expected[i].weight * MATRIX, "weights at %g",
                   at);
        CHECK_THAT(bytes_at(t, at, PB_TIER_DEVICE, PB_CLASS_ACTIVATION) == expected[i].activation * MATRIX,
                   "activations at %g", at);
        CHECK_THAT(bytes_at(t, at, PB_TIER_DEVICE, PB_CLASS_WORKSPACE) == expected[i].workspace, "workspace at %g", at);
        CHECK_THAT(bytes_at(t, at, PB_TIER_HOST, PB_CLASS_WEIGHT) == expected[i].host * MATRIX, "host at %g", at);
        CHECK_THAT(bytes_at(t, at, PB_TIER_NVME, PB_CLASS_WEIGHT) == expected[i].nvme * MATRIX, "NVMe at %g", at);
    }
    for (int c = 0; c < PB_CLASS_COUNT; c++)
        for (int tier = 0; tier < PB_TIER_COUNT; tier++) CHECK(bytes_at(t, 7, (pb_tier)tier, (pb_class)c) == 0);
    CHECK(t->moved[0] == p->w && t->moved[2] == p->w && t->moved[5] == p->w && t->moved[4] == PB_NONE);
    pb_timeline_destroy(t);
}

// --- Traces ---

static const char *member(const pb_json *object, const char *key) {
    const pb_json *found = pb_json_get(object, key);
    return found && found->type == PB_JSON_STRING ? found->string : "";
}

// Slices on a track must not overlap; counters must not be negative. Returns the number of slices.
static int check_trace(const pb_text *text, bool *title_found, const char *title) {
    pb_arena *arena = pb_arena_create();
    const pb_json *root = NULL;
    int slices = 0;
    double ends[512] = {0};
    CHECK_OK(pb_json_parse(arena, text->data, text->bytes, "trace", &root));
    const pb_json *events = pb_json_get(root, "traceEvents");
    CHECK(events && events->type == PB_JSON_ARRAY);
    for (const pb_json *e = events ? events->first : NULL; e; e = e->next) {
        const char *kind = member(e, "ph");
        if (!strcmp(kind, "M")) {
            *title_found |= !strcmp(member(pb_json_get(e, "args"), "name"), title);
        } else if (!strcmp(kind, "X")) {
            const double begin = pb_json_get(e, "ts")->number, duration = pb_json_get(e, "dur")->number;
            const int64_t track = pb_json_get(e, "tid")->integer;
            CHECK(begin >= 0 && duration >= 0 && track > 0 && track < 512 && *member(e, "name"));
            // Microseconds are written with three digits.
            CHECK_THAT(begin >= ends[track] - 0.003, "slices overlap at %.3f", begin);
            ends[track] = begin + duration;
            slices++;
        } else {
            CHECK(!strcmp(kind, "C"));
            for (const pb_json *v = pb_json_get(e, "args")->first; v; v = v->next) CHECK(v->number >= 0);
        }
    }
    pb_arena_destroy(arena);
    return slices;
}

static void test_outputs(const paged *p) {
    static const char title[] = "a <title> & \"more\" \\ of it";
    pb_timeline *t = NULL;
    pb_text trace = {0}, svg = {0}, table = {0};
    bool title_found = false;
    CHECK_OK(pb_timeline_create(p->graph, &p->program, paged_times, &t));
    if (!t) return;
    pb_timeline_print_trace(t, title, &trace);
    CHECK(check_trace(&trace, &title_found, title) == 8);  // 5 that do something, 3 waits
    CHECK(title_found && strstr(trace.data, "block.\\\"w\\\""));
    pb_timeline_print_svg(t, title, &svg);
    CHECK(!strncmp(svg.data, "<svg ", 5) && strstr(svg.data, "</svg>\n") == svg.data + svg.bytes - 7);
    CHECK(strstr(svg.data, "a &lt;title> &amp; \"more\"") && strstr(svg.data, "Host memory") &&
          strstr(svg.data, ">read<"));
    CHECK(!strstr(svg.data, "nan") && !strstr(svg.data, "inf") && !strstr(svg.data, ">download<"));
    pb_insn_times slower[8];
    for (int i = 0; i < 8; i++) slower[i] = (pb_insn_times){2 * paged_times[i].begin, 2 * paged_times[i].end};
    CHECK_OK(pb_times_compare(p->graph, &p->program, paged_times, slower, &table));
    CHECK_THAT(strstr(table.data, "step                         7.0000 s    14.0000 s    2.00"), "%s", table.data);
    CHECK(strstr(table.data, "  linear x 2                 4.0000 s     8.0000 s    2.00"));
    pb_text_deinit(&trace);
    pb_text_deinit(&svg);
    pb_text_deinit(&table);

    // Whole files, or none and an error.
    CHECK_OK(pb_timeline_write_trace(t, title, scratch_path("timeline.json")));
    CHECK(pb_fs_kind_of(scratch_path("timeline.json")) == PB_FS_FILE);
    CHECK_OK(pb_timeline_write_svg(t, title, scratch_path("timeline.svg")));
    CHECK(pb_fs_kind_of(scratch_path("timeline.svg")) == PB_FS_FILE);
    CHECK(pb_timeline_write_svg(t, title, scratch_path("nowhere/timeline.svg")) == PB_ERR_IO);
    CHECK(strstr(pb_error_message(), "nowhere"));
    scratch_remove();
    pb_timeline_destroy(t);
}

// --- Random programs ---

static uint64_t peak_of(const pb_timeline *t, pb_tier tier) {
    uint64_t peak = 0;
    for (size_t i = 0; i < t->sample_count; i++) {
        uint64_t sum = 0;
        for (int c = 0; c < PB_CLASS_COUNT; c++) {
            CHECK(t->samples[i].bytes[tier][c] < UINT64_MAX / 2);
            sum += t->samples[i].bytes[tier][c];
        }
        if (sum > peak) peak = sum;
    }
    return peak;
}

// A plan counts whole blocks of PB_ALIGNMENT bytes; a timeline counts the bytes of the values. Every block that is
// alive can thus make them differ by less than PB_ALIGNMENT.
static void test_random(void) {
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        pb_graph *g = support_random_graph(seed, 4 + (int)(seed % 30));
        pb_program *program = NULL;
        pb_timeline *t = NULL;
        pb_prediction prediction;
        pb_text trace = {0};
        bool title_found = false;
        CHECK_OK(pb_compile(g, pb_backend_reference(), NULL, &program));
        if (!program) continue;
        pb_insn_times *times = calloc(program->insn_count + 1, sizeof *times);
        CHECK_OK(pb_program_predict(g, program, pb_machine_builtin("generic"), &prediction, times));
        CHECK_OK(pb_timeline_create(g, program, times, &t));
        if (t) {
            const uint64_t peak = peak_of(t, PB_TIER_DEVICE), slack = (uint64_t)PB_ALIGNMENT * (g->value_count + 1);
            CHECK(fabs(t->seconds - prediction.seconds) <= 1e-9 * t->seconds);
            CHECK_THAT(peak <= program->lower_bound && peak + slack >= program->lower_bound,
                       "seed %llu: a peak of %llu, and the plan has %llu", (unsigned long long)seed,
                       (unsigned long long)peak, (unsigned long long)program->lower_bound);
            pb_timeline_print_trace(t, "random", &trace);
            CHECK(check_trace(&trace, &title_found, "random") == (int)program->insn_count);
        }
        pb_text_deinit(&trace);
        pb_timeline_destroy(t);
        free(times);
        pb_program_destroy(program);
        pb_graph_destroy(g);
    }
}

// Plans that page: whatever the lanes do beside one another, no tier ever holds more than it has, and what the slabs
// hold is never more than there is to hold.
static void test_paged(void) {
    int moving = 0;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        pb_graph *g = support_random_graph(seed, 4 + (int)(seed % 30));
        pb_program *resident = NULL, *program = NULL;
        pb_timeline *t = NULL;
        pb_prediction prediction;
        CHECK_OK(pb_compile(g, pb_backend_reference(), NULL, &resident));
        const uint64_t bytes = resident ? resident->tier_bytes[PB_TIER_DEVICE] : 0;
        const pb_plan_request limits = {
            .machine = pb_machine_builtin("rtx3060"),
            .budget = {bytes / 10 * (4 + seed % 6), seed % 2 ? UINT64_MAX : bytes / 2, UINT64_MAX}};
        if (pb_compile(g, pb_backend_reference(), &limits, &program) == PB_OK) {
            pb_insn_times *times = calloc(program->insn_count + 1, sizeof *times);
            CHECK_OK(pb_program_predict(g, program, limits.machine, &prediction, times));
            CHECK(prediction.seconds >= prediction.lower_bound * (1 - 1e-9));
            CHECK_OK(pb_timeline_create(g, program, times, &t));
            for (int tier = 0; t && tier < PB_TIER_COUNT; tier++) {
                const uint64_t peak = peak_of(t, (pb_tier)tier);
                CHECK_THAT(peak <= program->tier_bytes[tier], "seed %llu: %llu bytes of tier %d, which has %llu",
                           (unsigned long long)seed, (unsigned long long)peak, tier,
                           (unsigned long long)program->tier_bytes[tier]);
                CHECK((peak > 0) == (program->tier_bytes[tier] > 0));
            }
            for (uint32_t i = 0; t && i < program->insn_count; i++)
                if (program->insns[i].kind == PB_INSN_FETCH && program->insns[i].bytes)
                    CHECK_THAT(t->moved[i] != PB_NONE, "seed %llu: nothing known of what %u moves",
                               (unsigned long long)seed, i);
            moving += program->moved[PB_LINK_UPLOAD] > 0;
            pb_timeline_destroy(t);
            free(times);
        }
        pb_program_destroy(program);
        pb_program_destroy(resident);
        pb_graph_destroy(g);
    }
    CHECK_THAT(moving >= GRAPHS / 4, "only %d plans page", moving);
}

int main(void) {
    static paged p;
    make_paged(&p);
    test_by_hand(&p);
    test_outputs(&p);
    test_random();
    test_paged();
    pb_graph_destroy(p.graph);
    return CHECK_DONE();
}
