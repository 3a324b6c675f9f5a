// test: links=exec,ref,plan,graph,base timeout=300
// Property test: random graphs through recomputation, planner, checker and executor give the bits of a run without any
// plan; and a program that was tampered with is either rejected or still gives those bits.
#include <stdlib.h>

#include "check.h"
#include "plan/support_graphs.h"

enum { GRAPHS = 60, MUTATIONS = 200 };

static pb_plan_request request(uint64_t budget) {
    return (pb_plan_request){.workspaces = pb_backend_reference()->workspaces, .budget = {budget}};
}

typedef enum mutation {
    DROP,
    REPEAT,
    SWAP,
    SHIFT_INPUT,
    SHIFT_OUTPUT,
    SHIFT_SCRATCH,
    WRONG_VALUE,
    SHRINK_SLAB,
    MOVE_HOME,
    MUTATION_KINDS
} mutation;

// Changes one thing; false where this kind does not apply here.
static bool mutate(pb_program *p, const pb_graph *g, mutation kind, uint64_t *random) {
    pb_insn *insn = &p->insns[support_random(random, p->insn_count)];
    const int slot = (int)support_random(random, 3);
    const uint64_t shift = 256 * (1 + support_random(random, 8));
    switch (kind) {
    case DROP:
        memmove(insn, insn + 1, (size_t)(p->insns + p->insn_count - insn - 1) * sizeof *insn);
        p->insn_count--;
        return true;
    case REPEAT: *insn = p->insns[support_random(random, p->insn_count)]; return true;
    case SWAP: {
        pb_insn *other = &p->insns[support_random(random, p->insn_count)];
        const pb_insn keep = *insn;
        *insn = *other;
        *other = keep;
        return true;
    }
    case SHIFT_INPUT:
        if (insn->in[slot].value == PB_NONE) return false;
        insn->in[slot].offset += support_random(random, 2) ? shift : -shift;
        return true;
    case SHIFT_OUTPUT:
        if (insn->out[slot].value == PB_NONE) return false;
        insn->out[slot].offset += support_random(random, 2) ? shift : -shift;
        return true;
    case SHIFT_SCRATCH:
        insn->workspace_offset = shift * 5;
        insn->workspace_bytes += 256 * support_random(random, 40);
        return true;
    case WRONG_VALUE:
        if (insn->in[slot].value == PB_NONE) return false;
        insn->in[slot].value = support_random(random, g->value_count);
        return true;
    case SHRINK_SLAB: p->tier_bytes[PB_TIER_DEVICE] -= shift; return true;
    default: {
        const pb_vid v = support_random(random, g->value_count);
        if (p->home[v] == UINT64_MAX) return false;
        p->home[v] += shift;
        return true;
    }
    }
}

static int rejected, harmless;

static void try_mutation(const pb_graph *g, const pb_program *good, uint64_t seed, void **expected, mutation kind,
                         uint64_t *random) {
    pb_program bad = *good;
    pb_insn *insns = malloc((good->insn_count + 1) * sizeof *insns);
    uint64_t *home = malloc((g->value_count + 1) * sizeof *home);
    memcpy(insns, good->insns, good->insn_count * sizeof *insns);
    memcpy(home, good->home, g->value_count * sizeof *home);
    bad.insns = insns;
    bad.home = home;
    if (mutate(&bad, g, kind, random)) {
        const pb_plan_request unlimited = request(UINT64_MAX);
        if (pb_program_check(g, &bad, &unlimited) != PB_OK) {
            rejected++;
        } else {
            harmless++;
            CHECK_THAT(support_program_agrees(g, &bad, seed, expected, NULL, 0),
                       "seed %llu: mutation %d changes results and was accepted", (unsigned long long)seed, kind);
        }
    }
    free(insns);
    free(home);
}

int main(void) {
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        pb_graph *plain = support_random_graph(seed, 4 + (int)(seed % 30)),
                 *g = support_random_graph(seed, 4 + (int)(seed % 30));
        CHECK_THAT(plain->status == PB_OK, "graph %llu: %s", (unsigned long long)seed, pb_error_message());
        if (plain->status != PB_OK) continue;
        void **expected = support_run_plainly(plain, seed);
        CHECK_OK(pb_graph_hoist(g));
        CHECK_OK(pb_graph_prune(g));
        CHECK_OK(pb_graph_recompute(g, seed % 3 ? 0 : 1e9));
        pb_program *program = NULL;
        CHECK_OK(pb_compile(g, pb_backend_reference(), NULL, &program));
        if (program) {
            CHECK(program->tier_bytes[PB_TIER_DEVICE] >= program->lower_bound);
            CHECK_THAT(support_program_agrees(g, program, seed, expected, NULL, 0),
                       "seed %llu: the plan changes the results", (unsigned long long)seed);
            uint64_t random = seed;
            for (int m = 0; m < MUTATIONS; m++)
                try_mutation(g, program, seed, expected, (mutation)(m % MUTATION_KINDS), &random);
            pb_program *again = NULL;
            const pb_plan_request tight = request(program->tier_bytes[PB_TIER_DEVICE]),
                                  impossible = request(program->tier_bytes[PB_TIER_DEVICE] - 1);
            CHECK_OK(pb_plan(g, &tight, &again));
            pb_program_destroy(again);
            CHECK(pb_plan(g, &impossible, &again) == PB_ERR_BUDGET);
        }
        pb_program_destroy(program);
        support_free(plain, expected);
        pb_graph_destroy(plain);
        pb_graph_destroy(g);
    }
    printf("%d mutations rejected, %d accepted as harmless\n", rejected, harmless);
    CHECK(rejected > 5000);
    return CHECK_DONE();
}
