// test: links=exec,cpu,ref,plan,graph,offload,base timeout=300 with=plan/support_graphs.c,offload/support_store.c
// Faults of the store while a paged program runs: every kind, at many of its calls, with both engines. A run ends with
// an error or with the right bits, and never hangs; after an error the memory says so again and gives nothing out.
// usage: test_paged_faults [DELAY]: with a delay, in milliseconds, only delays of that length, one at each call.
#include <stdlib.h>

#include "check.h"
#include "exec/support_paging.h"
#include "exec/support_runs.h"
#include "offload/support_store.h"
#include "plan/support_graphs.h"
#include "scratch.h"

enum { POINTS = 14, GRAPH = 1, OPS = 4, PROGRAM = 1, SEED = 5 };

static int errors, survived;

static long count_calls(const pb_graph *g, const pb_program *p, int engine, const unsigned char *expected) {
    store_injector none;
    store_injector_init(&none, -1, FAULT_EIO, false, NULL);
    const paged_run how = {.directory = scratch_path("store"), .engine = engine, .hook = &none.hook};
    pb_status status;
    unsigned char *result = support_run_paged(g, pb_backend_cpu(), p, &how, SEED, &status);
    CHECK_THAT(result && !memcmp(result, expected, support_result_bytes(g)), "without faults: %s", pb_error_message());
    free(result);
    return none.calls;
}

static void inject(const pb_graph *g, const pb_program *p, int engine, long at, store_fault fault, bool lasting,
                   const unsigned char *expected, void *flipped) {
    store_injector injector;
    store_injector_init(&injector, at, fault, lasting, flipped);
    const paged_run how = {
        .directory = scratch_path("store"), .engine = engine, .hook = &injector.hook, .stress = at % 3 ? 0 : 7};
    pb_status status;
    unsigned char *result = support_run_paged(g, pb_backend_cpu(), p, &how, SEED, &status);
    if (status == PB_OK)
        survived++;
    else
        errors++;
    CHECK_THAT(status != PB_OK || !memcmp(result, expected, support_result_bytes(g)),
               "%s at call %ld, engine %d: other bits and no error", store_fault_name(fault), at, engine);
    CHECK_THAT(status == PB_OK || pb_error_message()[0], "%s at call %ld: an error without a message",
               store_fault_name(fault), at);
    free(result);
}

// An executor whose run has failed stays failed, and so do others on its memory.
static void check_aftermath(const pb_graph *g, const pb_program *p, int engine, long at, void *flipped) {
    store_injector injector;
    store_injector_init(&injector, at, FAULT_EIO, true, flipped);
    const pb_memory_options options = {.nvme = scratch_path("store"), .engine = engine, .hook = &injector.hook};
    pb_memory *memory = NULL;
    pb_executor *first = NULL, *second = NULL;
    CHECK_OK(pb_memory_create_for(pb_backend_cpu(), &p, 1, &options, &memory));
    CHECK_OK(pb_executor_create(pb_backend_cpu(), g, p, memory, &first));
    CHECK_OK(pb_executor_create(pb_backend_cpu(), g, p, memory, &second));
    pb_status status;
    free(support_run_steps(first, g, SEED, &status));
    CHECK(status == PB_ERR_IO);
    injector.lasting = false;  // the disk is well again; what was lost stays lost
    char message[256];
    snprintf(message, sizeof message, "%s", pb_error_message());
    CHECK(pb_executor_run(second) == PB_ERR_IO && !strncmp(pb_error_message(), message, sizeof message - 1));
    float value;
    pb_vid v = 0;
    while (!g->values[v].persistent) v++;
    CHECK(pb_executor_read(first, v, 0, &value, sizeof value) == PB_ERR_IO);
    CHECK(pb_executor_flush(first) == PB_ERR_IO);
    pb_executor_destroy(first);
    pb_executor_destroy(second);
    pb_memory_destroy(memory);
}

// Every kind of fault at some calls; with a delay that kind alone, at all of them.
static void inject_all(const pb_graph *g, const pb_program *p, int engine, long calls, bool only_delays,
                       const unsigned char *expected, void *flipped) {
    const long points = only_delays ? calls : POINTS;
    for (int fault = FAULT_EIO; fault < FAULT_KINDS; fault++) {
        if (only_delays && fault != FAULT_DELAY) continue;
        for (long point = 0; point < points; point++) {
            const long at = 1 + (calls - 1) * point / (points - 1);
            inject(g, p, engine, at, (store_fault)fault, false, expected, flipped);
            if (fault <= FAULT_ENOSPC) inject(g, p, engine, at, (store_fault)fault, true, expected, flipped);
        }
    }
}

int main(int argc, char **argv) {
    const bool only_delays = argc > 1;
    if (only_delays) store_delay_ms = atol(argv[1]);
    pb_graph *g = support_random_graph(GRAPH, OPS);
    CHECK(g && pb_graph_prune(g) == PB_OK);
    unsigned char *expected = support_run_resident(g, pb_backend_cpu(), SEED);
    pb_program *p = support_paging_program(g, pb_backend_cpu(), PROGRAM);
    void *flipped = store_memory(STORE_FLIPPED_BYTES);
    CHECK(expected && p && flipped);
    for (int engine = PB_STORE_URING; engine <= PB_STORE_THREADS; engine++) {
        const long calls = count_calls(g, p, engine, expected);
        CHECK(calls > POINTS);
        inject_all(g, p, engine, calls, only_delays, expected, flipped);
        check_aftermath(g, p, engine, calls / 2, flipped);
    }
    printf("%d runs ended with an error, %d with the right bits\n", errors, survived);
    CHECK((errors > 0) == !only_delays && survived > 0);
    free(flipped);
    free(expected);
    pb_program_destroy(p);
    pb_graph_destroy(g);
    scratch_remove();
    return CHECK_DONE();
}
