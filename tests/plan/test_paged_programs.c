// test: links=exec,ref,plan,graph,base timeout=300
// Property test of the checker: paged programs are accepted, and one that was tampered with is rejected, or else it is
// harmless in every order of events that another judge draws.
#include <stdlib.h>

#include "check.h"
#include "plan/support_graphs.h"
#include "plan/support_lanes.h"
#include "plan/support_paged.h"

enum { GRAPHS = 40, MUTATIONS = 190, ORDERS = 6, SECOND_OPINIONS = 4 };

typedef enum mutation {
    DROP,
    DROP_WAIT,
    MOVE,
    SWAP_NEIGHBOURS,
    SHIFT_OFFSET,
    CHANGE_LANE,
    CHANGE_LANE_OF_WAIT,
    CHANGE_ON,
    CHANGE_SLICE,
    CHANGE_EXTENT,
    CHANGE_NODE,
    SHRINK_TIER,
    TRUNCATE,
    SHRINK_EXTENT,
    SWAP_PIECES,
    CUT_PIECE,
    MOVE_HOME,
    GROW_SCRATCH,
    MOVED,
    MUTATION_KINDS
} mutation;

static const char *const names[MUTATION_KINDS] = {"drop an instruction",   "drop a WAIT",        "move one",
                                                  "swap two neighbours",   "shift an offset",    "change a lane",
                                                  "change a WAIT's lane",  "change a WAIT's on", "change a slice",
                                                  "change an extent",      "change a node",      "shrink a tier",
                                                  "change a move's bytes", "shrink an extent",   "swap two pieces",
                                                  "cut a piece",           "move a home",        "grow a scratch",
                                                  "change moved"};

static void renumber(pb_program *p, uint32_t from, uint32_t to) {
    // The instruction at `from` is about to go to `to` (or, UINT32_MAX, away): what waits for others follows them.
    for (uint32_t i = 0; i < p->insn_count; i++) {
        uint32_t *on = &p->insns[i].on;
        if (p->insns[i].kind != PB_INSN_WAIT) continue;
        if (*on == from)
            *on = to == UINT32_MAX ? (from ? from - 1 : 0) : to;
        else if (to == UINT32_MAX ? *on > from : *on > from && *on <= to)
            (*on)--;
        else if (to < from && *on >= to && *on < from)
            (*on)++;
    }
}

static uint64_t *some_offset(pb_insn *insn, uint64_t *random) {
    if (insn->kind == PB_INSN_FETCH || insn->kind == PB_INSN_EVICT) {
        if (insn->from_tier == PB_TIER_NVME) return &insn->to;
        if (insn->to_tier == PB_TIER_NVME) return &insn->from;
        return support_random(random, 2) ? &insn->to : &insn->from;
    }
    const uint32_t k = support_random(random, PB_MAX_INPUTS + PB_MAX_OUTPUTS);
    return k < PB_MAX_INPUTS ? &insn->in[k].offset : &insn->out[k - PB_MAX_INPUTS].offset;
}

static bool change_slice(pb_insn *insn, uint64_t *random) {
    if (insn->kind != PB_INSN_UPDATE) return false;
    const int64_t by = (support_random(random, 2) ? 1 : -1) * 64 * (1 + (int64_t)support_random(random, 3));
    switch (support_random(random, 3)) {
    case 0: insn->first += by; return true;
    case 1: insn->count += by; return true;
    default:
        insn->first += by;
        insn->count -= by;
        return true;
    }
}

// Changes one thing; false where this kind does not apply to what was drawn.
static bool mutate(pb_program *p, const pb_graph *g, mutation kind, uint64_t *random) {
    const uint32_t at = support_random(random, p->insn_count), other = support_random(random, p->insn_count);
    pb_insn *insn = &p->insns[at];
    const bool wait = insn->kind == PB_INSN_WAIT;
    const bool moves = insn->kind == PB_INSN_FETCH || insn->kind == PB_INSN_EVICT;
    const bool nvme = moves && (insn->from_tier == PB_TIER_NVME || insn->to_tier == PB_TIER_NVME);
    const uint64_t step = nvme ? 4096 : 256, shift = support_random(random, 2) ? step : -step;
    const uint32_t pieces = p->first_piece[g->value_count];
    switch (kind) {
    case DROP_WAIT:
    case DROP:
        if (wait != (kind == DROP_WAIT)) return false;
        renumber(p, at, UINT32_MAX);
        for (int t = 0; t < PB_LINK_COUNT && moves; t++)
            if (t == (insn->lane == PB_LANE_UPLOAD     ? PB_LINK_UPLOAD
                      : insn->lane == PB_LANE_DOWNLOAD ? PB_LINK_DOWNLOAD
                      : insn->lane == PB_LANE_READ     ? PB_LINK_NVME_READ
                                                       : PB_LINK_NVME_WRITE))
                p->moved[t] -= insn->bytes;
        memmove(insn, insn + 1, (p->insn_count - at - 1) * sizeof *insn);
        p->insn_count--;
        return true;
    case SWAP_NEIGHBOURS:
    case MOVE: {
        const uint32_t to = kind == MOVE ? other : at + 1 < p->insn_count ? at + 1 : at;
        if (to == at) return false;
        const pb_insn keep = *insn;
        renumber(p, at, to);
        const pb_insn moved = p->insns[at];
        if (to > at)
            memmove(insn, insn + 1, (to - at) * sizeof *insn);
        else
            memmove(p->insns + to + 1, p->insns + to, (at - to) * sizeof *insn);
        p->insns[to] = keep.kind == PB_INSN_WAIT ? moved : keep;
        return true;
    }
    case SHIFT_OFFSET:
        if (wait) return false;
        *some_offset(insn, random) += shift;
        return true;
    case CHANGE_LANE:
    case CHANGE_LANE_OF_WAIT:
        if (wait != (kind == CHANGE_LANE_OF_WAIT)) return false;
        insn->lane = (pb_lane)((insn->lane + 1 + support_random(random, PB_LANE_COUNT - 1)) % PB_LANE_COUNT);
        return true;
    case CHANGE_ON:
        if (!wait) return false;
        insn->on = support_random(random, at);
        return p->insns[insn->on].kind != PB_INSN_WAIT || support_random(random, 10) == 0;
    case CHANGE_SLICE: return change_slice(insn, random);
    case CHANGE_EXTENT:
        if (!nvme) return false;
        insn->extent = support_random(random, p->extent_count + 1);
        return true;
    case CHANGE_NODE:
        if (wait || moves) return false;
        insn->node = support_random(random, g->node_count);
        return true;
    case SHRINK_TIER: p->tier_bytes[support_random(random, 2)] -= step; return true;
    case TRUNCATE: {
        static const uint64_t by[] = {4, 256, 4096, (uint64_t)-4, (uint64_t)-256};
        if (!moves) return false;
        const uint64_t change = by[support_random(random, 5)];
        if (insn->bytes <= change && (int64_t)change > 0) return false;
        insn->bytes -= change;
        const int link = insn->lane == PB_LANE_UPLOAD     ? PB_LINK_UPLOAD
                         : insn->lane == PB_LANE_DOWNLOAD ? PB_LINK_DOWNLOAD
                         : insn->lane == PB_LANE_READ     ? PB_LINK_NVME_READ
                                                          : PB_LINK_NVME_WRITE;
        p->moved[link] -= change;
        return true;
    }
    case SHRINK_EXTENT: {
        if (!p->extent_count) return false;
        const uint32_t e = support_random(random, p->extent_count);
        p->extent_bytes[e] -= 4096;
        p->tier_bytes[PB_TIER_NVME] -= 4096;
        return true;
    }
    case SWAP_PIECES: {
        if (pieces < 2) return false;
        pb_piece *a = &p->pieces[support_random(random, pieces)], *b = &p->pieces[support_random(random, pieces)];
        const pb_piece keep = *a;
        a->tier = b->tier;
        a->extent = b->extent;
        a->offset = b->offset;
        b->tier = keep.tier;
        b->extent = keep.extent;
        b->offset = keep.offset;
        return a != b;
    }
    case CUT_PIECE: {
        if (!pieces) return false;
        pb_piece *a = &p->pieces[support_random(random, pieces)];
        switch (support_random(random, 3)) {
        case 0: a->bytes -= 4; return true;
        case 1: a->begin += 4; return true;
        default: a->offset += a->tier == PB_TIER_NVME ? 256 : shift; return true;
        }
    }
    case MOVE_HOME: {
        const pb_vid v = support_random(random, g->value_count);
        if (p->home[v] == UINT64_MAX) return false;
        p->home[v] += shift;
        return true;
    }
    case GROW_SCRATCH:
        if (wait || moves) return false;
        insn->workspace_bytes += 256 * (1 + (uint64_t)support_random(random, 40));
        return true;
    default: p->moved[support_random(random, PB_LINK_COUNT)] += 4; return true;
    }
}

static void *copy_of(const void *data, size_t bytes) {
    void *copy = malloc(bytes + 1);
    if (bytes) memcpy(copy, data, bytes);
    return copy;
}

static int tried[MUTATION_KINDS], rejected[MUTATION_KINDS];
static int asked, confirmed;  // rejected waits and shifts that the other judge was asked about, and found bad as well

static bool judge(support_lanes *lanes, const pb_program *p, int orders, uint64_t *random) {
    for (int i = 0; i < orders; i++)
        if (!support_lanes_run(lanes, p, random)) return false;
    return true;
}

static void try_mutation(const pb_graph *g, const pb_program *good, const pb_plan_request *request, uint64_t seed,
                         support_lanes *lanes, mutation kind, uint64_t *random) {
    const uint32_t pieces = good->first_piece[g->value_count];
    pb_program bad = *good;
    bad.insns = copy_of(good->insns, good->insn_count * sizeof *good->insns);
    bad.home = copy_of(good->home, g->value_count * sizeof *good->home);
    bad.pieces = copy_of(good->pieces, pieces * sizeof *good->pieces);
    bad.extent_bytes = copy_of(good->extent_bytes, good->extent_count * sizeof *good->extent_bytes);
    bool applies = false;
    for (int t = 0; t < 30 && !applies; t++) applies = mutate(&bad, g, kind, random);
    if (applies) {
        tried[kind]++;
        if (pb_program_check(g, &bad, request) != PB_OK) {
            rejected[kind]++;
            if (kind == DROP_WAIT && tried[kind] % SECOND_OPINIONS == 0) {
                asked++;
                confirmed += !judge(lanes, &bad, 40, random);
            }
        } else {
            CHECK_THAT(judge(lanes, &bad, ORDERS, random),
                       "seed %llu: \"%s\" changes what is computed and was accepted", (unsigned long long)seed,
                       names[kind]);
        }
    }
    free(bad.insns);
    free(bad.home);
    free(bad.pieces);
    free(bad.extent_bytes);
}

static uint32_t instructions, waits;

static void try_graph(uint64_t seed) {
    pb_graph *g = support_random_graph(seed, 4 + (int)(seed % 20));
    CHECK_OK(g->status);
    CHECK_OK(pb_graph_hoist(g));
    CHECK_OK(pb_graph_prune(g));
    if (seed % 2) CHECK_OK(pb_graph_recompute(g, seed % 3 ? 0 : 1e9));
    pb_plan_request request = {.workspaces = pb_backend_reference()->workspaces, .budget = {UINT64_MAX}};
    pb_program *resident = NULL;
    CHECK_OK(pb_plan(g, &request, &resident));
    if (!resident) return;
    const support_paging paging = {.seed = seed};
    pb_program *paged = support_page(g, resident, &paging);
    memcpy(request.budget, paged->tier_bytes, sizeof request.budget);
    support_lanes *lanes = support_lanes_create(g);
    uint64_t random = seed * 31;
    CHECK_OK(pb_program_check(g, paged, &request));
    CHECK_THAT(judge(lanes, paged, 20, &random), "seed %llu: the paged program is no good", (unsigned long long)seed);
    instructions += paged->insn_count;
    for (uint32_t i = 0; i < paged->insn_count; i++) waits += paged->insns[i].kind == PB_INSN_WAIT;
    for (int m = 0; m < MUTATIONS; m++)
        try_mutation(g, paged, &request, seed, lanes, (mutation)(m % MUTATION_KINDS), &random);
    support_lanes_destroy(lanes);
    pb_program_destroy(paged);
    pb_program_destroy(resident);
    pb_graph_destroy(g);
}

int main(void) {
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) try_graph(seed);
    int all = 0, bad = 0;
    for (int k = 0; k < MUTATION_KINDS; k++) {
        printf("%-24s %5d tried %5d rejected\n", names[k], tried[k], rejected[k]);
        all += tried[k];
        bad += rejected[k];
    }
    printf("%d programs, %u instructions, %u of them WAITs; %d mutations, %d rejected\n", GRAPHS, instructions, waits,
           all, bad);
    printf("of %d rejected for a dropped WAIT, 40 random orders show %d to be wrong\n", asked, confirmed);
    CHECK(all > 5000 && bad > all / 2);
    return CHECK_DONE();
}
