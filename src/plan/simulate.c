// Time as a fluid: every lane has at most one instruction under way, each at a rate between 0 and 1 of the speed that
// it has alone. Rates change only when an instruction begins or ends, so time jumps from one such event to the next.
// What lanes share (the two directions of a link, a drive, the host's memory, the processors) slows its users in
// proportion to what they ask for, so that no more than there is of it is ever handed out: this is why no simulated
// step beats a bound, which is the whole work on one of these things over its speed.
#include <math.h>
#include <stdlib.h>

#include "plan/predict.h"

static const char *const bound_names[PB_BOUND_COUNT] = {
    [PB_BOUND_COMPUTE] = "compute",   [PB_BOUND_UPLOAD] = "upload",
    [PB_BOUND_DOWNLOAD] = "download", [PB_BOUND_COPIES] = "copies both ways",
    [PB_BOUND_READ] = "NVMe reads",   [PB_BOUND_WRITE] = "NVMe writes",
    [PB_BOUND_NVME] = "NVMe",         [PB_BOUND_UPDATES] = "updates on the host",
    [PB_BOUND_DRAM] = "host memory",
};

const char *pb_bound_name(pb_bound bound) {
    return bound_names[bound];
}

enum { IDLE = UINT32_MAX };

typedef struct simulation {
    const pb_graph *graph;
    const pb_program *program;
    const pb_machine *machine;
    pb_insn_times *times;
    uint32_t *next;     // by instruction: the one behind it on its lane
    bool *done;         // by instruction
    double *due;        // by transfer that has moved: when it is complete
    double now, ended;  // the last end of an instruction
    struct {
        uint32_t head;      // the next instruction to begin, IDLE at the end
        uint32_t active;    // under way, or IDLE
        uint32_t settling;  // the first transfer that has moved and is not complete, or IDLE
        double remaining;   // seconds at rate 1
        double rate;
    } lane[PB_LANE_COUNT];
} simulation;

// The executor gives the drive several transfers at once, which share it: each is complete later than if it had been
// under way alone, by about as long as so many more of its bytes take, and at most so many in all. (For the next one
// the drive is free by then.)
enum { SETTLES = 2, MOST_SETTLING = 32 << 20 };

// --- What things cost ---

static double link_speed(const pb_machine *m, pb_lane lane) {
    switch (lane) {
    case PB_LANE_UPLOAD: return m->upload;
    case PB_LANE_DOWNLOAD: return m->download;
    case PB_LANE_READ: return m->nvme_read;
    case PB_LANE_WRITE: return m->nvme_write;
    default: return 0;
    }
}

static double update_elements(const pb_graph *g, const pb_insn *insn) {
    if (insn->kind == PB_INSN_UPDATE) return (double)insn->count;
    return (double)pb_shape_count(g->values[g->nodes[insn->node].in[3]].shape);
}

double pb_insn_seconds(const pb_machine *m, const pb_graph *g, const pb_insn *insn) {
    switch (insn->kind) {
    case PB_INSN_RUN:
        if (insn->lane != PB_LANE_HOST || g->nodes[insn->node].op != PB_OP_ADAMW)
            return pb_node_seconds(m, g, insn->node);
        return pb_machine_update_seconds(m, g, insn->node, (int64_t)update_elements(g, insn), insn->lane);
    case PB_INSN_RECAST: return pb_machine_recast_seconds(m, g, insn);
    case PB_INSN_UPDATE: return pb_machine_update_seconds(m, g, insn->node, insn->count, insn->lane);
    case PB_INSN_FETCH:
    case PB_INSN_EVICT: return m->overhead + (double)insn->bytes / link_speed(m, insn->lane);
    default: return 0;
    }
}

// --- What is shared ---

// How many drives that either read or write would do as much as this one does when as many bytes come as go.
static double drives_at_once(const pb_machine *m) {
    return m->nvme_both / 2 * (1 / m->nvme_read + 1 / m->nvme_write);
}

// Slows `lanes` so that what they ask for (`demand`, at rate 1) stays within `supply`.
static void share(simulation *s, const double demand[PB_LANE_COUNT], double supply) {
    double asked = 0;
    for (int l = 0; l < PB_LANE_COUNT; l++)
        if (s->lane[l].active != IDLE) asked += demand[l] * s->lane[l].rate;
    if (asked <= supply) return;
    for (int l = 0; l < PB_LANE_COUNT; l++)
        if (demand[l] > 0) s->lane[l].rate *= supply / asked;
}

static void set_rates(simulation *s) {
    const pb_machine *m = s->machine;
    for (int l = 0; l < PB_LANE_COUNT; l++) s->lane[l].rate = 1;
    share(s, (const double[PB_LANE_COUNT]){[PB_LANE_UPLOAD] = m->upload, [PB_LANE_DOWNLOAD] = m->download},
          m->copy_both);
    // Of a drive's time reads and writes beside one another get equal shares.
    if (s->lane[PB_LANE_READ].active != IDLE && s->lane[PB_LANE_WRITE].active != IDLE)
        share(s, (const double[PB_LANE_COUNT]){[PB_LANE_READ] = 1, [PB_LANE_WRITE] = 1}, drives_at_once(m));
    if (m->shared_cores) {
        const double drive = m->nvme_processors > 0 ? 1 / m->nvme_processors : 0;
        // A copy by itself need not fill the processors; two of them, as measured for copy_both, do.
        share(s,
              (const double[PB_LANE_COUNT]){[PB_LANE_COMPUTE] = 1,
                                            [PB_LANE_HOST] = 1,
                                            [PB_LANE_UPLOAD] = m->upload / m->copy_both,
                                            [PB_LANE_DOWNLOAD] = m->download / m->copy_both,
                                            [PB_LANE_READ] = m->nvme_read * drive,
                                            [PB_LANE_WRITE] = m->nvme_write * drive},
              1);
    } else {
        share(s,
              (const double[PB_LANE_COUNT]){[PB_LANE_UPLOAD] = m->upload,
                                            [PB_LANE_DOWNLOAD] = m->download,
                                            [PB_LANE_READ] = m->nvme_read,
                                            [PB_LANE_WRITE] = m->nvme_write,
                                            [PB_LANE_HOST] = m->host_adamw},
              m->dram);
    }
}

void pb_work_bounds(const pb_machine *m, const pb_work *w, double b[PB_BOUND_COUNT]) {
    const double *moved = w->moved;
    const double copied = moved[PB_LANE_UPLOAD] + moved[PB_LANE_DOWNLOAD];
    const double stored = moved[PB_LANE_READ] + moved[PB_LANE_WRITE];
    b[PB_BOUND_COMPUTE] = w->compute + (m->shared_cores ? copied / m->copy_both + w->updates : 0);
    if (m->shared_cores && m->nvme_processors > 0) b[PB_BOUND_COMPUTE] += stored / m->nvme_processors;
    b[PB_BOUND_UPLOAD] = moved[PB_LANE_UPLOAD] / m->upload;
    b[PB_BOUND_DOWNLOAD] = moved[PB_LANE_DOWNLOAD] / m->download;
    b[PB_BOUND_COPIES] = copied / m->copy_both;
    // Without a drive its speeds are 0, and nothing is moved.
    b[PB_BOUND_READ] = moved[PB_LANE_READ] > 0 ? moved[PB_LANE_READ] / m->nvme_read : 0;
    b[PB_BOUND_WRITE] = moved[PB_LANE_WRITE] > 0 ? moved[PB_LANE_WRITE] / m->nvme_write : 0;
    // Where the two get on worse together than in turn, nothing forces them to meet.
    b[PB_BOUND_NVME] = stored > 0 ? (b[PB_BOUND_READ] + b[PB_BOUND_WRITE]) / fmax(drives_at_once(m), 1) : 0;
    b[PB_BOUND_UPDATES] = w->updates;
    b[PB_BOUND_DRAM] = m->shared_cores ? 0 : (copied + stored + w->update_bytes) / m->dram;
}

void pb_work_add(const pb_machine *m, const pb_graph *g, const pb_insn *insn, pb_work *work) {
    if (insn->kind == PB_INSN_FETCH || insn->kind == PB_INSN_EVICT) {
        work->moved[insn->lane] += (double)insn->bytes;
    } else if (insn->lane == PB_LANE_COMPUTE) {
        work->compute += pb_insn_seconds(m, g, insn);
    } else if (insn->kind != PB_INSN_WAIT) {
        work->updates += pb_insn_seconds(m, g, insn);
        if (g->nodes[insn->node].op == PB_OP_ADAMW)
            work->update_bytes += update_elements(g, insn) * (double)pb_update_bytes(g, insn->node);
    }
}

static void find_bounds(const simulation *s, pb_prediction *out) {
    pb_work work = {0};
    for (uint32_t i = 0; i < s->program->insn_count; i++)
        pb_work_add(s->machine, s->graph, &s->program->insns[i], &work);
    pb_work_bounds(s->machine, &work, out->bounds);
    for (int i = 0; i < PB_BOUND_COUNT; i++)
        if (out->bounds[i] > out->bounds[out->bound]) out->bound = (pb_bound)i;
    out->lower_bound = out->bounds[out->bound];
}

// --- The clock ---

static pb_status check_insn(const simulation *s, uint32_t i) {
    const pb_insn *insn = &s->program->insns[i];
    const bool move = insn->kind == PB_INSN_FETCH || insn->kind == PB_INSN_EVICT;
    const bool link = insn->lane != PB_LANE_COMPUTE && insn->lane != PB_LANE_HOST;
    if ((unsigned)insn->lane >= PB_LANE_COUNT || (unsigned)insn->kind > PB_INSN_WAIT)
        return pb_error(PB_ERR_INTERNAL, "instruction %u has no kind or no lane that there is", i);
    if (insn->kind == PB_INSN_WAIT) {
        if (insn->on >= i || s->program->insns[insn->on].kind == PB_INSN_WAIT)
            return pb_error(PB_ERR_INTERNAL, "instruction %u waits for %u, which is no earlier one that does anything",
                            i, insn->on);
    } else if (move != link) {
        return pb_error(PB_ERR_INTERNAL, "instruction %u is on a lane that does not do its kind", i);
    } else if (!move && insn->node >= s->graph->node_count) {
        return pb_error(PB_ERR_INTERNAL, "instruction %u runs node %u, and there are %u", i, insn->node,
                        s->graph->node_count);
    } else if (move && !(link_speed(s->machine, insn->lane) > 0)) {
        return pb_error(PB_ERR_INTERNAL, "instruction %u moves bytes on a link that %s does not have", i,
                        s->machine->name);
    }
    return PB_OK;
}

// Lets every lane begin what it can.
static void begin_what_can(simulation *s) {
    for (int l = 0; l < PB_LANE_COUNT; l++) {
        while (s->lane[l].active == IDLE && s->lane[l].head != IDLE) {
            const uint32_t i = s->lane[l].head;
            const pb_insn *insn = &s->program->insns[i];
            if (insn->kind == PB_INSN_WAIT) {
                if (s->times[i].begin < 0) s->times[i].begin = s->now;
                if (!s->done[insn->on]) break;
                s->times[i].end = s->ended = s->now;
                s->done[i] = true;
            } else {
                s->times[i].begin = s->now;
                s->lane[l].active = i;
                s->lane[l].remaining = pb_insn_seconds(s->machine, s->graph, insn);
            }
            s->lane[l].head = s->next[i];
        }
    }
}

static bool is_drive(int lane) {
    return lane == PB_LANE_READ || lane == PB_LANE_WRITE;
}

// What has moved is complete at once, or, of a drive's, a little later; in order.
static void settle(simulation *s, int l, uint32_t i) {
    if (!is_drive(l)) {
        s->done[i] = true;
        return;
    }
    const double bytes = fmin(SETTLES * (double)s->program->insns[i].bytes, MOST_SETTLING);
    s->due[i] = s->now + bytes / link_speed(s->machine, (pb_lane)l);
    if (s->lane[l].settling == IDLE) s->lane[l].settling = i;
}

static void complete_what_is_due(simulation *s) {
    for (int l = 0; l < PB_LANE_COUNT; l++) {
        uint32_t i = s->lane[l].settling;
        for (; i != IDLE && i != s->lane[l].active && i != s->lane[l].head; i = s->next[i]) {
            if (s->program->insns[i].kind == PB_INSN_WAIT) continue;
            if (s->due[i] > s->now * (1 + 1e-12)) break;
            s->done[i] = true;
        }
        s->lane[l].settling = i == s->lane[l].active || i == s->lane[l].head ? IDLE : i;
    }
}

// To the next end of an instruction; false when nothing is under way.
static bool advance(simulation *s, pb_prediction *out) {
    double seconds = INFINITY;
    set_rates(s);
    for (int l = 0; l < PB_LANE_COUNT; l++)
        if (s->lane[l].settling != IDLE && s->due[s->lane[l].settling] - s->now < seconds)
            seconds = fmax(s->due[s->lane[l].settling] - s->now, 0);
    for (int l = 0; l < PB_LANE_COUNT; l++)
        if (s->lane[l].active != IDLE && s->lane[l].remaining < seconds * s->lane[l].rate)
            seconds = s->lane[l].remaining / s->lane[l].rate;
    if (seconds == INFINITY) return false;
    s->now += seconds;
    for (int l = 0; l < PB_LANE_COUNT; l++) {
        if (s->lane[l].active == IDLE) continue;
        out->busy[l] += seconds;
        const double after = s->lane[l].remaining - seconds * s->lane[l].rate;
        // What ends together up to rounding ends together.
        if (after > 1e-12 * s->lane[l].remaining) {
            s->lane[l].remaining = after;
            continue;
        }
        const uint32_t i = s->lane[l].active;
        s->times[i].end = s->ended = s->now;
        s->lane[l].active = IDLE;
        settle(s, l, i);
    }
    complete_what_is_due(s);
    return true;
}

pb_status pb_program_predict(const pb_graph *graph, const pb_program *program, const pb_machine *machine,
                             pb_prediction *prediction, pb_insn_times *times) {
    pb_status status = PB_OK;
    const uint32_t count = program->insn_count;
    simulation s = {.graph = graph, .program = program, .machine = machine, .times = times};
    pb_insn_times *own = NULL;
    *prediction = (pb_prediction){0};
    if (!times) s.times = own = calloc((size_t)count + 1, sizeof *own);
    s.next = malloc(((size_t)count + 1) * sizeof *s.next);
    s.done = calloc((size_t)count + 1, sizeof *s.done);
    s.due = malloc(((size_t)count + 1) * sizeof *s.due);
    if (!s.times || !s.next || !s.done || !s.due) PB_FAIL(PB_ERR_MEMORY, "no memory to simulate a program");
    for (int l = 0; l < PB_LANE_COUNT; l++) s.lane[l].head = s.lane[l].active = s.lane[l].settling = IDLE;
    for (uint32_t i = count; i-- > 0;) {
        PB_TRY(check_insn(&s, i));
        const pb_lane lane = program->insns[i].lane;
        s.next[i] = s.lane[lane].head;
        s.lane[lane].head = i;
        s.times[i] = (pb_insn_times){-1, -1};
    }
    do begin_what_can(&s);
    while (advance(&s, prediction));
    for (int l = 0; l < PB_LANE_COUNT; l++)
        if (s.lane[l].head != IDLE)
            PB_FAIL(PB_ERR_INTERNAL, "the program deadlocks: instruction %u waits for %u for ever", s.lane[l].head,
                    program->insns[s.lane[l].head].on);
    prediction->seconds = s.ended;
    find_bounds(&s, prediction);
fail:
    free(own);
    free(s.next);
    free(s.done);
    free(s.due);
    return status;
}
