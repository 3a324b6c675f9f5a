// How fast a step can be at best that runs a program's ops in their order and makes its moves, whenever it makes them.
//
// Instants are when the step begins and ends, and when each op on the device begins and is about to be done. What an op
// reads has to be there when it begins; what it makes cannot leave before it is done. So between two instants lies the
// work that has to be done there: the ops; the arrivals that are wanted in between, but for what waits on the device at
// the first one; and the departures of what is made and done with in between, but for what still waits on the device at
// the second. What can wait is no more than the slab has beside what is there at that instant in any case. A step takes
// at least as long as the parts that any instants cut it into, and those are chosen for which that is most.
#include <stdlib.h>
#include <string.h>

#include "plan/insn_ranges.h"
#include "plan/predict.h"

enum { CUTS = 256 };  // instants that the step may be cut at
enum { NONE = UINT32_MAX };

// Of a move or an update on the host, by instants.
typedef struct flow {
    uint32_t made;  // it does not begin before
    uint32_t need;  // it has to be complete by then
    uint32_t used;  // of an eviction: until then ops want its bytes on the device
    double kept;    // bytes that are on the device or on the host from when it has brought them until `need`; or from
                    // when they are made until it has taken them away
} flow;

// Bytes between two neighbouring boundaries of ranges: their content has one writer.
typedef struct span {
    uint64_t begin;
    uint32_t writer;   // instruction, or NONE: there when the step begins
    uint32_t end;      // ops want it until just before this instant; 0: none does
    uint32_t left;     // the first move that takes it away, or NONE
    uint32_t counted;  // instants before this one are in `stays`
} span;

// Bytes that are in a slab from an instant to another, whatever the order of moves: [first, end).
typedef struct stay {
    uint32_t first, end;
    uint32_t after;  // and not before the `need` of this instruction, or NONE
    uint64_t bytes;
} stay;

typedef struct slab {
    span *spans;  // one more than there are
    uint32_t count;
    double *held;  // by instant
} slab;

typedef struct edge {
    uint32_t from, to;  // `to` reads what `from` has made
} edge;

// Of one lane, by instants: sums over all that are needed, made, done with at that instant or before.
typedef struct sums {
    double *need, *need_kept, *made, *made_kept, *used_kept;
    double all;
} sums;

static uint32_t begin_of(uint32_t op) {
    return 2 * op + 1;
}

static uint32_t done_of(uint32_t op) {
    return 2 * op + 2;
}

typedef struct builder {
    const pb_graph *graph;
    const pb_program *program;
    const pb_machine *machine;
    uint32_t end;  // the last instant
    flow *flows;
    uint32_t *op;  // by instruction: its number among the ops on the device, or NONE
    slab slabs[2];
    edge *edges;
    stay *stays[2];
    uint32_t edge_count, edge_room, stay_count[2], stay_room[2];
    uint32_t *extent_writer;
    double *compute;  // by instant: seconds of ops before it
    sums lane[PB_LANE_COUNT];
    sums update_bytes;
    double *numbers;  // what all of these lie in
} builder;

static bool grow(void **items, uint32_t count, uint32_t *room, size_t size) {
    if (count < *room) return true;
    const uint32_t wanted = *room ? 2 * *room : 4096;
    void *grown = realloc(*items, wanted * size);
    if (!grown) return false;
    *items = grown;
    *room = wanted;
    return true;
}

// --- Who makes what for whom ---

static int by_offset(const void *left, const void *right) {
    const span *a = left, *b = right;
    return a->begin < b->begin ? -1 : a->begin > b->begin;
}

// What persistent values and outputs occupy when the step ends.
static bool for_homes(builder *b, bool (*visit)(builder *b, int slab, uint64_t begin, uint64_t end)) {
    const pb_program *p = b->program;
    const uint32_t pieces = p->pieces ? p->first_piece[b->graph->value_count] : 0;
    for (uint32_t i = 0; i < pieces; i++) {
        const pb_piece *piece = &p->pieces[i];
        if (piece->tier == PB_TIER_NVME || !piece->bytes) continue;
        if (!visit(b, piece->tier == PB_TIER_HOST, piece->offset, piece->offset + piece->bytes)) return false;
    }
    return true;
}

static bool add_boundaries(builder *b, int s, uint64_t begin, uint64_t end) {
    slab *t = &b->slabs[s];
    t->spans[t->count++].begin = begin;
    t->spans[t->count++].begin = end;
    return true;
}

static bool make_spans(builder *b) {
    const pb_program *p = b->program;
    const uint32_t pieces = p->pieces ? p->first_piece[b->graph->value_count] : 0;
    size_t room = 2 * (size_t)pieces + 2;
    pb_insn_range ranges[PB_INSN_RANGES];
    for (uint32_t i = 0; i < p->insn_count; i++)
        if (p->insns[i].kind != PB_INSN_WAIT) room += 2 * (size_t)pb_insn_ranges(b->graph, &p->insns[i], ranges);
    for (int s = 0; s < 2; s++) {
        b->slabs[s].spans = calloc(room, sizeof(span));
        if (!b->slabs[s].spans) return false;
    }
    for (uint32_t i = 0; i < p->insn_count; i++) {
        const int count = p->insns[i].kind == PB_INSN_WAIT ? 0 : pb_insn_ranges(b->graph, &p->insns[i], ranges);
        for (int r = 0; r < count; r++)
            if (ranges[r].begin < ranges[r].end) add_boundaries(b, ranges[r].slab, ranges[r].begin, ranges[r].end);
    }
    for_homes(b, add_boundaries);
    for (int s = 0; s < 2; s++) {
        slab *t = &b->slabs[s];
        uint32_t kept = 0;
        qsort(t->spans, t->count, sizeof *t->spans, by_offset);
        for (uint32_t i = 0; i < t->count; i++) {
            if (kept && t->spans[kept - 1].begin == t->spans[i].begin) continue;
            t->spans[kept++] = (span){.begin = t->spans[i].begin, .writer = NONE, .left = NONE};
        }
        t->count = kept;
    }
    return true;
}

static span *find(const slab *t, uint64_t begin) {
    uint32_t low = 0, high = t->count;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (t->spans[middle].begin < begin)
            low = middle + 1;
        else
            high = middle;
    }
    return &t->spans[low];
}

static bool add_edge(builder *b, uint32_t from, uint32_t to) {
    const edge *last = b->edge_count ? &b->edges[b->edge_count - 1] : NULL;
    if (from == NONE || (last && last->from == from && last->to == to)) return true;
    if (!grow((void **)&b->edges, b->edge_count, &b->edge_room, sizeof *b->edges)) return false;
    b->edges[b->edge_count++] = (edge){from, to};
    if (b->op[to] == NONE) {
        const uint32_t made = b->op[from] == NONE ? b->flows[from].made : done_of(b->op[from]);
        if (made > b->flows[to].made) b->flows[to].made = made;
    }
    return true;
}

static bool add_stay(builder *b, int s, const stay *added) {
    stay *last = b->stay_count[s] ? &b->stays[s][b->stay_count[s] - 1] : NULL;
    if (last && last->first == added->first && last->end == added->end && last->after == added->after) {
        last->bytes += added->bytes;
        return true;
    }
    if (!grow((void **)&b->stays[s], b->stay_count[s], &b->stay_room[s], sizeof *b->stays[s])) return false;
    b->stays[s][b->stay_count[s]++] = *added;
    return true;
}

// A span's content is written over, or the step ends.
static bool finish(builder *b, int s, span *t, uint32_t next_writer) {
    const uint64_t bytes = t[1].begin - t->begin;
    const bool by_op = t->writer != NONE && b->op[t->writer] != NONE;
    const bool fetched = t->writer != NONE && !by_op;
    bool good = true;
    stay made = {by_op ? begin_of(b->op[t->writer]) : 0, t->end, fetched ? t->writer : NONE, bytes};
    if (by_op && made.end <= done_of(b->op[t->writer])) made.end = done_of(b->op[t->writer]) + 1;
    if (made.first < t->counted) made.first = t->counted;
    if (made.first < made.end) good = add_stay(b, s, &made);
    if (made.end > t->counted) t->counted = made.end;
    if (t->end && fetched && s == 0) b->flows[t->writer].kept += (double)bytes;
    // What is fetched, or made by an update on the host, may come late, and is not there to be taken away until then.
    // But what has left the device is on the host, or still there.
    const bool sent = s == 1 && fetched && b->program->insns[t->writer].lane == PB_LANE_DOWNLOAD &&
                      b->flows[t->writer].kept >= (double)b->program->insns[t->writer].bytes;
    if (t->left != NONE && (!fetched || sent)) {
        flow *f = &b->flows[t->left];
        f->kept += (double)bytes;
        if (t->end > f->used + 1) f->used = t->end - 1;
        if (sent && b->flows[t->writer].used > f->used) f->used = b->flows[t->writer].used;
    }
    t->writer = next_writer;
    t->end = 0;
    t->left = NONE;
    return good;
}

static bool read_range(builder *b, uint32_t i, const pb_insn_range *r) {
    const pb_lane lane = b->program->insns[i].lane;
    const bool leaves = lane == (r->slab ? PB_LANE_WRITE : PB_LANE_DOWNLOAD);
    for (span *t = find(&b->slabs[r->slab], r->begin); t->begin < r->end; t++) {
        if (!add_edge(b, t->writer, i)) return false;
        if (b->op[i] != NONE) t->end = done_of(b->op[i]) + 1;
        if (leaves && t->left == NONE) t->left = i;
    }
    return true;
}

static bool write_range(builder *b, uint32_t i, const pb_insn_range *r) {
    for (span *t = find(&b->slabs[r->slab], r->begin); t->begin < r->end; t++)
        if (!finish(b, r->slab, t, i)) return false;
    return true;
}

static bool stays_to_end(builder *b, int s, uint64_t begin, uint64_t end) {
    for (span *t = find(&b->slabs[s], begin); t->begin < end; t++) t->end = b->end + 1;
    return true;
}

static bool walk(builder *b) {
    const pb_program *p = b->program;
    pb_insn_range ranges[PB_INSN_RANGES];
    bool good = true;
    for (uint32_t i = 0; i < p->insn_count && good; i++) {
        const pb_insn *insn = &p->insns[i];
        if (insn->kind == PB_INSN_WAIT) continue;
        const int count = pb_insn_ranges(b->graph, insn, ranges);
        for (int write = 0; write < 2; write++)
            for (int r = 0; r < count && good; r++)
                if (ranges[r].write == (write == 1) && ranges[r].begin < ranges[r].end)
                    good = write ? write_range(b, i, &ranges[r]) : read_range(b, i, &ranges[r]);
        if (insn->lane == PB_LANE_READ) good = good && add_edge(b, b->extent_writer[insn->extent], i);
        if (insn->lane == PB_LANE_WRITE) b->extent_writer[insn->extent] = i;
    }
    for_homes(b, stays_to_end);
    for (int s = 0; s < 2; s++)
        for (uint32_t i = 0; i + 1 < b->slabs[s].count && good; i++) good = finish(b, s, &b->slabs[s].spans[i], NONE);
    return good;
}

// What is read from the drive only to be uploaded is on the host or on the device until it is needed there.
static void find_passing(builder *b) {
    for (uint32_t e = 0; e < b->edge_count; e++) {
        const uint32_t from = b->edges[e].from, to = b->edges[e].to;
        const pb_insn *read = &b->program->insns[from], *upload = &b->program->insns[to];
        const bool only = (!e || b->edges[e - 1].to != to) && (e + 1 == b->edge_count || b->edges[e + 1].to != to);
        if (read->lane == PB_LANE_READ && upload->lane == PB_LANE_UPLOAD && only && read->to == upload->from &&
            read->bytes == upload->bytes && b->flows[to].kept >= (double)upload->bytes)
            b->flows[from].kept = (double)read->bytes;
    }
}

// By when everything is needed; the readers of what an instruction makes come after it.
static void find_needs(builder *b) {
    for (uint32_t e = b->edge_count; e-- > 0;) {
        const uint32_t from = b->edges[e].from, to = b->edges[e].to;
        const uint32_t need = b->op[to] == NONE ? b->flows[to].need : begin_of(b->op[to]);
        if (b->op[from] == NONE && need < b->flows[from].need) b->flows[from].need = need;
    }
}

// --- Sums by instant ---

static void find_held(builder *b) {
    for (int s = 0; s < 2; s++) {
        double *held = b->slabs[s].held;
        for (uint32_t k = 0; k < b->stay_count[s]; k++) {
            const stay *t = &b->stays[s][k];
            const uint32_t first =
                t->after != NONE && b->flows[t->after].need > t->first ? b->flows[t->after].need : t->first;
            if (first >= t->end) continue;
            held[first] += (double)t->bytes;
            if (t->end <= b->end) held[t->end] -= (double)t->bytes;
        }
        for (uint32_t i = 1; i <= b->end; i++) held[i] += held[i - 1];
    }
}

static void add_to(sums *s, const flow *f, double amount) {
    const uint32_t used = f->used > f->made ? f->used : f->made;
    s->all += amount;
    s->need[f->need] += amount;
    s->need_kept[f->need] += f->kept;
    s->made[f->made] += amount;
    s->made_kept[f->made] += f->kept;
    s->used_kept[used] += f->kept;
}

static void sum_up(builder *b) {
    const pb_program *p = b->program;
    for (uint32_t i = 0; i < p->insn_count; i++) {
        const pb_insn *insn = &p->insns[i];
        pb_work work = {0};
        if (insn->kind == PB_INSN_WAIT) continue;
        pb_work_add(b->machine, b->graph, insn, &work);
        if (insn->lane == PB_LANE_COMPUTE) {
            b->compute[done_of(b->op[i])] = work.compute;
        } else if (insn->lane == PB_LANE_HOST) {
            add_to(&b->lane[PB_LANE_HOST], &b->flows[i], work.updates);
            add_to(&b->update_bytes, &b->flows[i], work.update_bytes);
        } else {
            add_to(&b->lane[insn->lane], &b->flows[i], work.moved[insn->lane]);
        }
    }
    for (uint32_t i = 1; i <= b->end; i++) b->compute[i] += b->compute[i - 1];
    for (int l = 0; l <= PB_LANE_COUNT; l++) {
        sums *s = l < PB_LANE_COUNT ? &b->lane[l] : &b->update_bytes;
        double *const each[] = {s->need, s->need_kept, s->made, s->made_kept, s->used_kept};
        for (int k = 0; k < 5; k++)
            for (uint32_t i = 1; i <= b->end; i++) each[k][i] += each[k][i - 1];
    }
    find_held(b);
}

// --- Parts ---

static double positive(double x) {
    return x > 0 ? x : 0;
}

static double larger(double a, double b) {
    return a > b ? a : b;
}

// Of what arrives (`wait`: bytes that may have come before instant i), in the part between instants i and j.
static double arrivals(const builder *b, const sums *s, uint32_t i, uint32_t j, double wait) {
    if (!i) return s->need[j];
    const double wanted = positive(s->need_kept[j] - s->need_kept[i] - wait);
    return j == b->end ? larger(wanted, s->all - s->made[i - 1]) : wanted;
}

// Of what leaves (`wait`: bytes that may go after instant j).
static double departures(const builder *b, const sums *s, uint32_t i, uint32_t j, double wait) {
    if (j == b->end) return i ? s->all - s->made[i - 1] : s->all;
    const double done = positive(s->used_kept[j - 1] - (i ? s->made_kept[i - 1] : 0) - wait);
    return i ? done : larger(done, s->need[j]);
}

static double on_host(const builder *b, const sums *s, uint32_t i, uint32_t j) {
    if (!i) return s->need[j];
    return j == b->end ? s->all - s->made[i - 1] : 0;
}

static double room(const builder *b, int s, uint32_t instant) {
    return positive((double)b->program->tier_bytes[s ? PB_TIER_HOST : PB_TIER_DEVICE] - b->slabs[s].held[instant]);
}

static double part_seconds(const builder *b, uint32_t i, uint32_t j, pb_bound *bound) {
    const double before = room(b, 0, i), after = room(b, 0, j);
    const double host_before = before + room(b, 1, i), host_after = after + room(b, 1, j);
    double bounds[PB_BOUND_COUNT];
    const pb_work work = {.compute = b->compute[j] - b->compute[i],
                          .updates = on_host(b, &b->lane[PB_LANE_HOST], i, j),
                          .update_bytes = on_host(b, &b->update_bytes, i, j),
                          .moved = {[PB_LANE_UPLOAD] = arrivals(b, &b->lane[PB_LANE_UPLOAD], i, j, before),
                                    [PB_LANE_DOWNLOAD] = departures(b, &b->lane[PB_LANE_DOWNLOAD], i, j, after),
                                    [PB_LANE_READ] = arrivals(b, &b->lane[PB_LANE_READ], i, j, host_before),
                                    [PB_LANE_WRITE] = departures(b, &b->lane[PB_LANE_WRITE], i, j, host_after)}};
    pb_work_bounds(b->machine, &work, bounds);
    *bound = PB_BOUND_COMPUTE;
    for (int k = 0; k < PB_BOUND_COUNT; k++)
        if (bounds[k] > bounds[*bound]) *bound = (pb_bound)k;
    return bounds[*bound];
}

// Instants with as much between any two neighbours: of seconds that ops, arrivals and departures take. Returns how
// many.
static uint32_t choose_cuts(const builder *b, uint32_t cuts[CUTS + 1]) {
    const pb_machine *m = b->machine;
    const sums *up = &b->lane[PB_LANE_UPLOAD], *down = &b->lane[PB_LANE_DOWNLOAD];
    const double all = b->compute[b->end] + up->all / m->upload + down->all / m->download;
    uint32_t count = 0;
    for (uint32_t i = 0; i < b->end && count < CUTS; i++) {
        const double past = b->compute[i] + up->need[i] / m->upload + down->made[i] / m->download;
        if (b->end < CUTS || !i || past * (CUTS - 1) >= all * count) cuts[count++] = i;
    }
    cuts[count++] = b->end;
    return count;
}

static void cut(const builder *b, pb_step_bound *result) {
    uint32_t cuts[CUTS + 1], before[CUTS + 1] = {0};
    pb_bound bound[CUTS + 1] = {PB_BOUND_COMPUTE};
    double best[CUTS + 1] = {0};
    const uint32_t count = choose_cuts(b, cuts);
    for (uint32_t j = 1; j < count; j++)
        for (uint32_t i = 0; i < j; i++) {
            pb_bound by;
            const double seconds = best[i] + part_seconds(b, cuts[i], cuts[j], &by);
            if (i && seconds <= best[j]) continue;
            best[j] = seconds;
            before[j] = i;
            bound[j] = by;
        }
    *result = (pb_step_bound){.seconds = best[count - 1]};
    for (uint32_t j = count - 1; j > 0; j = before[j]) result->held[bound[j]] += best[j] - best[before[j]];
    for (int k = 0; k < PB_BOUND_COUNT; k++)
        if (result->held[k] > result->held[result->bound]) result->bound = (pb_bound)k;
}

static bool prepare(builder *b) {
    const pb_program *p = b->program;
    b->flows = calloc((size_t)p->insn_count + 1, sizeof *b->flows);
    b->op = malloc(((size_t)p->insn_count + 1) * sizeof *b->op);
    b->extent_writer = malloc(((size_t)p->extent_count + 1) * sizeof *b->extent_writer);
    if (!b->flows || !b->op || !b->extent_writer) return false;
    memset(b->extent_writer, 0xff, p->extent_count * sizeof *b->extent_writer);
    uint32_t ops = 0;
    for (uint32_t i = 0; i < p->insn_count; i++) {
        const bool op = p->insns[i].lane == PB_LANE_COMPUTE && p->insns[i].kind != PB_INSN_WAIT;
        b->op[i] = op ? ops++ : NONE;
    }
    b->end = begin_of(ops);
    for (uint32_t i = 0; i < p->insn_count; i++) b->flows[i].need = b->end;
    const size_t instants = (size_t)b->end + 2;
    double *next = b->numbers = calloc((3 + 5 * (PB_LANE_COUNT + 1)) * instants, sizeof *b->numbers);
    if (!next) return false;
    double **const lists[] = {&b->compute, &b->slabs[0].held, &b->slabs[1].held};
    for (int k = 0; k < 3; k++, next += instants) *lists[k] = next;
    for (int l = 0; l <= PB_LANE_COUNT; l++) {
        sums *s = l < PB_LANE_COUNT ? &b->lane[l] : &b->update_bytes;
        double **const each[] = {&s->need, &s->need_kept, &s->made, &s->made_kept, &s->used_kept};
        for (int k = 0; k < 5; k++, next += instants) *each[k] = next;
    }
    return make_spans(b);
}

pb_status pb_program_bound(const pb_graph *graph, const pb_program *program, const pb_machine *machine,
                           pb_step_bound *bound) {
    pb_status status = PB_OK;
    builder b = {.graph = graph, .program = program, .machine = machine};
    if (!prepare(&b) || !walk(&b)) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    find_passing(&b);
    find_needs(&b);
    sum_up(&b);
    cut(&b, bound);
fail:
    for (int s = 0; s < 2; s++) {
        free(b.slabs[s].spans);
        free(b.stays[s]);
    }
    free(b.flows);
    free(b.op);
    free(b.extent_writer);
    free(b.edges);
    free(b.numbers);
    return status;
}
