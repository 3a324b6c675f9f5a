// test: links=exec,ref,plan,graph,base timeout=300
// Random graphs at random budgets: the planner makes a program, the checker accepts it, and it computes the bits that
// the graph computes without any plan, also when the lanes run as late and as early as they may. The program is the
// same however many threads look for it, and where it is one of several graphs', it is of the one that is named.
#include "base/parallel.h"
#include "check.h"
#include "exec/executor.h"
#include "plan/predict.h"
#include "plan/support_graphs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GRAPHS = 60, BUDGETS = 6 };

static int paged, refused, moved_nvme, on_host, compared[2];

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

static bool same_insn(const pb_insn *a, const pb_insn *b) {
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (a->in[i].value != b->in[i].value || a->in[i].offset != b->in[i].offset) return false;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (a->out[i].value != b->out[i].value || a->out[i].offset != b->out[i].offset) return false;
    return a->kind == b->kind && a->lane == b->lane && a->node == b->node &&
           a->workspace_offset == b->workspace_offset && a->first == b->first && a->count == b->count &&
           a->from_tier == b->from_tier && a->to_tier == b->to_tier && a->from == b->from && a->to == b->to &&
           a->bytes == b->bytes && a->extent == b->extent && a->on == b->on;
}

static bool same_program(const pb_program *a, const pb_program *b) {
    if (a->insn_count != b->insn_count || a->seconds != b->seconds || a->extent_count != b->extent_count ||
        memcmp(a->tier_bytes, b->tier_bytes, sizeof a->tier_bytes) != 0)
        return false;
    for (uint32_t i = 0; i < a->insn_count; i++)
        if (!same_insn(&a->insns[i], &b->insns[i])) return false;
    return true;
}

// The faster one of two graphs of the same step, by one thread and by several.
static void try_threads(const pb_graph *const graphs[2], const pb_plan_request *request, uint64_t seed) {
    const int usual = pb_threads();
    pb_program *programs[3] = {NULL};
    pb_status statuses[3];
    uint32_t chosen[3] = {0};
    for (int k = 0; k < 3; k++) {
        pb_threads_set(1 + k);
        statuses[k] = pb_plan_fastest(graphs, 2, request, &chosen[k], &programs[k]);
        CHECK_THAT(statuses[k] == statuses[0] && chosen[k] == chosen[0] &&
                       (statuses[k] != PB_OK || same_program(programs[k], programs[0])),
                   "seed %llu: %d threads find another program", (unsigned long long)seed, 1 + k);
    }
    pb_threads_set(usual);
    if (statuses[0] == PB_OK) CHECK_OK(pb_program_check(graphs[chosen[0]], programs[0], request));
    for (int k = 0; k < 3; k++) {
        if (statuses[k] == PB_OK) compared[chosen[k]]++;
        pb_program_destroy(programs[k]);
    }
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
            const pb_graph *const both[2] = {g, plain};
            if (b < 3) try_threads(both, &request, seed);
        }
        pb_program_destroy(resident);
        support_free(plain, expected);
        pb_graph_destroy(plain);
        pb_graph_destroy(g);
    }
    rmdir(folder);
    printf("%d paged, %d of them through NVMe, %d updated on the host; %d refused\n", paged, moved_nvme, on_host,
           refused);
    printf("%d programs of the first and %d of the second of two graphs\n", compared[0], compared[1]);
    CHECK(paged > 100 && moved_nvme >= 15 && compared[0] > 30 && compared[1] > 0);
    return CHECK_DONE();
}
