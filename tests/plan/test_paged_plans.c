// test: links=exec,ref,plan,graph,base timeout=300
// Random graphs at random budgets: the planner makes a program, the checker accepts it, and it computes the bits that
// the graph computes without any plan, also when the lanes run as late and as early as they may.
#include "check.h"
#include "exec/executor.h"
#include "plan/predict.h"
#include "plan/support_graphs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GRAPHS = 60, BUDGETS = 6 };

static int paged, refused, moved_nvme, on_host;

static uint64_t between(uint64_t *random, uint64_t low, uint64_t high) {
    return low + (high - low) * support_random(random, 1001) / 1000;
}

// What the plan does, for the figures that are printed and checked at the end.
static void count(const pb_program *p) {
    paged += p->moved[PB_LINK_UPLOAD] > 0;
    moved_nvme += p->moved[PB_LINK_NVME_READ] > 0;
    for (uint32_t i = 0; i < p->insn_count; i++)
        if (p->insns[i].lane == PB_LANE_HOST && p->insns[i].kind != PB_INSN_WAIT) {
            on_host++;
            break;
        }
}

// No machine runs it faster than its bound says.
static void check_bound(const pb_graph *g, const pb_program *p, uint64_t seed) {
    static const char *const machines[] = {"rtx3060", "rtx4090", "h200"};
    pb_machine m = *pb_machine_builtin(machines[seed % 3]);
    m.shared_cores = seed % 2;
    pb_prediction prediction;
    pb_step_bound bound;
    CHECK_OK(pb_program_predict(g, p, &m, &prediction, NULL));
    CHECK_OK(pb_program_bound(g, p, &m, &bound));
    CHECK_THAT(prediction.seconds >= bound.seconds * (1 - 1e-9), "seed %llu: %g s beat the bound of %g s",
               (unsigned long long)seed, prediction.seconds, bound.seconds);
    CHECK_THAT(bound.seconds >= prediction.lower_bound * (1 - 1e-9), "seed %llu: %g s is less than %g s",
               (unsigned long long)seed, bound.seconds, prediction.lower_bound);
}

static void try_budget(const pb_graph *g, const pb_plan_request *request, uint64_t seed, void **expected,
                       const char *nvme) {
    pb_program *program = NULL;
    const pb_status status = pb_plan(g, request, &program);
    CHECK_THAT(status == PB_OK || status == PB_ERR_BUDGET, "seed %llu: %s", (unsigned long long)seed,
               pb_error_message());
    if (status != PB_OK) {
        refused++;
        return;
    }
    count(program);
    for (int t = 0; t < PB_TIER_COUNT; t++) CHECK(program->tier_bytes[t] <= request->budget[t]);
    CHECK_OK(pb_program_check(g, program, request));
    check_bound(g, program, seed);
    CHECK_THAT(support_program_agrees(g, program, seed, expected, nvme, 0), "seed %llu: the plan changes the results",
               (unsigned long long)seed);
    CHECK_THAT(support_program_agrees(g, program, seed, expected, nvme, seed), "seed %llu: a wait is missing",
               (unsigned long long)seed);
    pb_program_destroy(program);
}

int main(int argc, char **argv) {
    const uint64_t graphs = argc > 1 ? strtoull(argv[1], NULL, 10) : GRAPHS;
    char folder[] = "/tmp/pagebooth-plans-XXXXXX";
    if (!mkdtemp(folder)) return 1;
    for (uint64_t seed = 1; seed <= graphs; seed++) {
        pb_graph *plain = support_random_graph(seed, 4 + (int)(seed % 30)),
                 *g = support_random_graph(seed, 4 + (int)(seed % 30));
        void **expected = support_run_plainly(plain, seed);
        CHECK_OK(pb_graph_hoist(g));
        CHECK_OK(pb_graph_prune(g));
        CHECK_OK(pb_graph_recompute(g, seed % 3 ? 0 : 1e9));
        pb_plan_request request = {.workspaces = pb_backend_reference()->workspaces, .budget = {UINT64_MAX}};
        pb_program *resident = NULL;
        CHECK_OK(pb_plan(g, &request, &resident));
        uint64_t random = seed;
        const uint64_t all = resident->tier_bytes[PB_TIER_DEVICE];
        for (int b = 0; b < BUDGETS; b++) {
            request.budget[PB_TIER_DEVICE] = between(&random, all / 5, all);
            request.budget[PB_TIER_HOST] = b % 2 ? UINT64_MAX : between(&random, all / 2, 4 * all);
            request.budget[PB_TIER_NVME] = b % 3 ? UINT64_MAX : 0;
            try_budget(g, &request, seed, expected, folder);
        }
        pb_program_destroy(resident);
        support_free(plain, expected);
        pb_graph_destroy(plain);
        pb_graph_destroy(g);
    }
    rmdir(folder);
    printf("%d paged, %d of them through NVMe, %d updated on the host; %d refused\n", paged, moved_nvme, on_host,
           refused);
    CHECK(paged > 100 && moved_nvme >= 15);
    return CHECK_DONE();
}
