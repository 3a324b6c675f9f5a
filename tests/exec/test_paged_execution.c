// test: links=exec,cpu,ref,plan,graph,offload,base timeout=300 with=plan/support_graphs.c
// Programs that keep everything somewhere else give the bits of the resident program over several steps, with both I/O
// engines, as they run by themselves and put off at random with poisoned memory.
#include <stdlib.h>

#include "check.h"
#include "exec/support_paging.h"
#include "exec/support_runs.h"
#include "offload/store.h"
#include "plan/support_graphs.h"
#include "scratch.h"

enum { GRAPHS = 12, PROGRAMS = 2 };

static int instructions, waits, updates_on_host;

static void count(const pb_program *p) {
    for (uint32_t i = 0; i < p->insn_count; i++) {
        instructions++;
        waits += p->insns[i].kind == PB_INSN_WAIT;
        updates_on_host += p->insns[i].kind == PB_INSN_UPDATE && p->insns[i].lane == PB_LANE_HOST;
    }
}

static void compare(const pb_graph *g, const pb_backend *backend, const pb_program *p, const paged_run *how,
                    uint64_t seed, const unsigned char *expected) {
    pb_status status;
    unsigned char *result = support_run_paged(g, backend, p, how, seed, &status);
    CHECK_THAT(status == PB_OK, "seed %llu, engine %d, stress %llu: %s", (unsigned long long)seed, how->engine,
               (unsigned long long)how->stress, pb_error_message());
    CHECK_THAT(result && !memcmp(result, expected, support_result_bytes(g)),
               "seed %llu, engine %d, stress %llu: other bits than the resident program", (unsigned long long)seed,
               how->engine, (unsigned long long)how->stress);
    free(result);
}

static void run_graph(uint64_t seed) {
    const pb_backend *backend = seed % 3 ? pb_backend_cpu() : pb_backend_reference();
    pb_graph *g = support_random_graph(seed, 3 + (int)(seed % 9));
    CHECK(g && g->status == PB_OK);
    unsigned char *expected = support_run_resident(g, backend, seed);
    CHECK(expected);
    for (uint64_t k = 0; k < PROGRAMS && expected; k++) {
        pb_program *p = support_paging_program(g, backend, seed * PROGRAMS + k);
        CHECK(p);
        count(p);
        paged_run how = {.directory = scratch_path("store"), .engine = PB_STORE_AUTO};
        compare(g, backend, p, &how, seed, expected);
        how.engine = PB_STORE_THREADS;
        compare(g, backend, p, &how, seed, expected);
        how.stress = seed + 1;
        compare(g, backend, p, &how, seed, expected);
        how.engine = PB_STORE_AUTO;
        compare(g, backend, p, &how, seed, expected);
        pb_program_destroy(p);
    }
    free(expected);
    pb_graph_destroy(g);
}

int main(void) {
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) run_graph(seed);
    printf("%d instructions, %d of them waits, %d updates on the host\n", instructions, waits, updates_on_host);
    CHECK(waits > 0 && updates_on_host > 0);
    scratch_remove();
    return CHECK_DONE();
}
