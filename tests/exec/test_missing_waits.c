// test: links=exec,cpu,ref,plan,graph,offload,base timeout=300 with=plan/support_graphs.c
// What the adversarial mode is for: a program that lacks one of its WAITs gives other bits, or an error of the store,
// for some seed. Where both lanes run in the calling thread, no order of events can show it.
#include <stdlib.h>

#include "check.h"
#include "exec/support_paging.h"
#include "exec/support_runs.h"
#include "offload/store.h"
#include "plan/support_graphs.h"
#include "scratch.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RACES_ARE_ERRORS true
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define RACES_ARE_ERRORS true
#endif
#ifndef RACES_ARE_ERRORS
#define RACES_ARE_ERRORS false
#endif

enum { SEEDS = 10, SAMPLE = 36 };

static const char *const lane_names[PB_LANE_COUNT] = {"COMPUTE", "UPLOAD", "DOWNLOAD", "HOST", "READ", "WRITE"};

static bool runs_inline(pb_lane lane) {
    return lane == PB_LANE_COMPUTE || lane == PB_LANE_HOST;
}

static bool shows(const pb_graph *g, const pb_program *p, const unsigned char *expected) {
    bool differs = false;
    for (uint64_t seed = 1; seed <= SEEDS && !differs; seed++) {
        const paged_run how = {.directory = scratch_path("store"), .engine = PB_STORE_AUTO, .stress = seed};
        pb_status status;
        unsigned char *result = support_run_paged(g, pb_backend_cpu(), p, &how, 5, &status);
        CHECK_THAT(status == PB_OK || status == PB_ERR_IO, "%s", pb_error_message());
        differs = !result || memcmp(result, expected, support_result_bytes(g)) != 0;
        free(result);
    }
    return differs;
}

int main(void) {
    if (RACES_ARE_ERRORS) return SKIP("the races are what ThreadSanitizer reports");
    // Nothing in it is for nothing: what goes wrong anywhere reaches a result.
    pb_graph *g = support_random_graph(1, 4);
    CHECK(g && pb_graph_prune(g) == PB_OK);
    unsigned char *expected = support_run_resident(g, pb_backend_cpu(), 5);
    pb_program *p = support_paging_program(g, pb_backend_cpu(), 1);
    CHECK(expected && p);
    CHECK_THAT(!shows(g, p, expected), "the whole program gives other bits");
    int tried = 0, shown = 0, waits = 0;
    for (uint32_t i = 0; i < p->insn_count; i++) waits += p->insns[i].kind == PB_INSN_WAIT;
    const uint32_t stride = (uint32_t)waits / SAMPLE + 1;
    for (uint32_t i = 0, k = 0; i < p->insn_count; i++) {
        const pb_insn *insn = &p->insns[i];
        if (insn->kind != PB_INSN_WAIT || k++ % stride) continue;
        const pb_lane on = p->insns[insn->on].lane;
        if (runs_inline(insn->lane) && runs_inline(on)) continue;
        pb_program *without = support_program_without(p, i);
        tried++;
        if (shows(g, without, expected))
            shown++;
        else
            printf("not shown: %u, %s waits for %s\n", i, lane_names[insn->lane], lane_names[on]);
        pb_program_destroy(without);
    }
    printf("%d of %d missing waits showed\n", shown, tried);
    CHECK(tried >= 20);
    CHECK_THAT(shown * 2 >= tried, "only %d of %d missing waits showed", shown, tried);
    free(expected);
    pb_program_destroy(p);
    pb_graph_destroy(g);
    scratch_remove();
    return CHECK_DONE();
}
