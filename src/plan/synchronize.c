// Puts the WAITs between the instructions of a list that is right when it is executed one by one: for every byte range,
// who wrote it last and who has read it since; and for every lane, how far it knows each of the others to be. A WAIT is
// added only where that knowledge does not already say that the other is done.
#include <stdlib.h>
#include <string.h>

#include "plan/byte_history.h"
#include "plan/insn_ranges.h"
#include "plan/pager.h"

typedef struct synchronizer {
    const pb_graph *graph;
    const pb_program *program;
    pb_insn *out;
    uint32_t out_count, out_capacity;
    pb_byte_history *slab[2];  // device, host
    pb_stamp *extent_written, *extent_read;
    pb_stamp known[PB_LANE_COUNT];     // by lane: what it knows of the others
    uint32_t position[PB_LANE_COUNT];  // instructions given to the lane so far
    uint32_t *index[PB_LANE_COUNT];    // by position: where the instruction stands in `out`
    pb_stamp *after[PB_LANE_COUNT];    // by position: what is known when it is complete
    bool failed;
} synchronizer;

static bool ordered(pb_lane lane) {
    return lane != PB_LANE_READ && lane != PB_LANE_WRITE;
}

static pb_insn *append(synchronizer *s) {
    if (s->out_count == s->out_capacity) {
        const uint32_t capacity = s->out_capacity * 2;
        pb_insn *grown = realloc(s->out, capacity * sizeof *grown);
        if (!grown) {
            s->failed = true;
            return &s->out[s->out_count - 1];
        }
        s->out = grown;
        s->out_capacity = capacity;
    }
    return &s->out[s->out_count++];
}

// `lane` waits until all that `wanted` names is complete.
static void require(synchronizer *s, pb_lane lane, const pb_stamp *wanted) {
    // The newest first: what it knows often covers the others.
    for (;;) {
        int pick = -1;
        uint32_t newest = 0;
        for (int l = 0; l < PB_LANE_COUNT; l++) {
            if (wanted->at[l] <= s->known[lane].at[l]) continue;
            if ((pb_lane)l == lane && ordered(lane)) continue;
            const uint32_t index = s->index[l][wanted->at[l]];
            if (pick < 0 || index > newest) {
                pick = l;
                newest = index;
            }
        }
        if (pick < 0 || s->failed) return;
        pb_insn *wait = append(s);
        *wait = (pb_insn){.kind = PB_INSN_WAIT, .lane = lane, .on = newest};
        for (int i = 0; i < PB_MAX_INPUTS; i++) wait->in[i].value = PB_NONE;
        for (int i = 0; i < PB_MAX_OUTPUTS; i++) wait->out[i].value = PB_NONE;
        pb_stamp_join(&s->known[lane], &s->after[pick][wanted->at[pick]]);
    }
}

static bool note(synchronizer *s, const pb_insn_range *r, pb_lane lane, uint32_t position) {
    if (r->begin == r->end) return true;
    return r->write ? pb_byte_history_write(s->slab[r->slab], r->begin, r->end, lane, position)
                    : pb_byte_history_read(s->slab[r->slab], r->begin, r->end, lane, position);
}

static void step(synchronizer *s, const pb_insn *insn) {
    const pb_lane lane = insn->lane;
    pb_insn_range ranges[PB_INSN_RANGES];
    const int count = pb_insn_ranges(s->graph, insn, ranges);
    const bool reads_extent = insn->kind == PB_INSN_FETCH && insn->from_tier == PB_TIER_NVME;
    const bool writes_extent = insn->kind == PB_INSN_EVICT && insn->to_tier == PB_TIER_NVME;
    pb_stamp wanted = {{0}};
    for (int i = 0; i < count; i++)
        pb_byte_history_gather(s->slab[ranges[i].slab], ranges[i].begin, ranges[i].end, ranges[i].write, &wanted);
    if (reads_extent || writes_extent) pb_stamp_join(&wanted, &s->extent_written[insn->extent]);
    if (writes_extent) pb_stamp_join(&wanted, &s->extent_read[insn->extent]);
    require(s, lane, &wanted);
    pb_insn *made = append(s);
    *made = *insn;
    if (s->failed) return;
    const uint32_t position = ++s->position[lane];
    s->index[lane][position] = s->out_count - 1;
    if (ordered(lane)) s->known[lane].at[lane] = position;
    // Complete means: it and all before it on its lane.
    pb_stamp *after = &s->after[lane][position];
    *after = s->known[lane];
    after->at[lane] = position;
    if (!ordered(lane) && position > 1) pb_stamp_join(after, &s->after[lane][position - 1]);
    for (int write = 0; write < 2; write++)
        for (int i = 0; i < count; i++)
            if (ranges[i].write == (write == 1) && !note(s, &ranges[i], lane, position)) s->failed = true;
    if (reads_extent) s->extent_read[insn->extent].at[lane] = position;
    if (writes_extent) {
        s->extent_written[insn->extent] = s->extent_read[insn->extent] = (pb_stamp){{0}};
        s->extent_written[insn->extent].at[lane] = position;
    }
}

pb_status pb_program_synchronize(pb_arena *arena, const pb_graph *graph, pb_program *program) {
    pb_status status = PB_OK;
    synchronizer s = {.graph = graph, .program = program, .out_capacity = program->insn_count + 64};
    uint32_t lane_count[PB_LANE_COUNT] = {0};
    for (uint32_t i = 0; i < program->insn_count; i++) lane_count[program->insns[i].lane]++;
    s.out = malloc(s.out_capacity * sizeof *s.out);
    s.extent_written = calloc(program->extent_count + 1, sizeof *s.extent_written);
    s.extent_read = calloc(program->extent_count + 1, sizeof *s.extent_read);
    for (int t = 0; t < 2; t++) s.slab[t] = pb_byte_history_create();
    bool good = s.out && s.extent_written && s.extent_read && s.slab[0] && s.slab[1];
    for (int l = 0; l < PB_LANE_COUNT; l++) {
        s.index[l] = malloc((lane_count[l] + 1) * sizeof *s.index[l]);
        s.after[l] = malloc((lane_count[l] + 1) * sizeof *s.after[l]);
        good = good && s.index[l] && s.after[l];
    }
    for (uint32_t i = 0; i < program->insn_count && good && !s.failed; i++) step(&s, &program->insns[i]);
    pb_insn *kept = good && !s.failed ? pb_arena_array(arena, s.out_count + 1, sizeof *kept) : NULL;
    if (!kept) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    memcpy(kept, s.out, s.out_count * sizeof *kept);
    program->insns = kept;
    program->insn_count = s.out_count;
fail:
    free(s.out);
    free(s.extent_written);
    free(s.extent_read);
    for (int l = 0; l < PB_LANE_COUNT; l++) {
        free(s.index[l]);
        free(s.after[l]);
    }
    for (int t = 0; t < 2; t++) pb_byte_history_destroy(s.slab[t]);
    return status;
}
