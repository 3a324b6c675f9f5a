#include "exec/io_lanes.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/gate.h"
#include "kernels/cpu/cpu_device.h"

// Transfers that a lane has under way at most; both together, the store's operations less some slack.
enum { WINDOW = 28 };

// How long the thread sleeps where a device makes no calls, and under stress.
enum { GLANCE_MS = 1 };

typedef struct io_lane {
    uint32_t next;              // in the job's list
    uint64_t started, retired;  // transfers; what is retired is complete and so is all before it
    pb_ticket tickets[WINDOW];  // of transfer n at n % WINDOW
    uint32_t insns[WINDOW];
    bool done[WINDOW];
    double not_before;  // 0: not drawn; see pb_executor_stress
} io_lane;

struct pb_io {
    const pb_device_calls *calls;
    pb_device *device;
    pb_store *store;
    unsigned char *host;
    pthread_t thread;
    pb_gate begun, ended;           // jobs
    pb_gate bell;                   // something that the thread may be sleeping for
    pb_gate issued[PB_LANE_COUNT];  // device lanes: marks that may be asked for
    pb_gate published[2];           // READ and WRITE
    atomic_bool quit, abandoned, failed;
    atomic_bool resting;  // in the store
    _Atomic(uint64_t) stress;
    uint64_t random;
    const pb_io_job *job;
    io_lane lanes[2];
    bool glances;  // something may get on that does not ring
    pb_status status;
    char message[1024];
};

static bool is_io(pb_lane lane) {
    return lane == PB_LANE_READ || lane == PB_LANE_WRITE;
}

// Under stress a lane starts nothing before a time that is drawn anew for every transfer.
static bool is_early(pb_io *io, io_lane *l, pb_lane lane) {
    const uint64_t seed = atomic_load(&io->stress);
    if (!seed) return false;
    if (l->not_before == 0)
        l->not_before = pb_seconds_now() + (double)pb_cpu_device_delay(seed, lane, &io->random) * 1e-6;
    if (pb_seconds_now() < l->not_before) return io->glances = true;
    l->not_before = 0;
    return false;
}

// --- The thread ---

static void give_up(pb_io *io, pb_status status) {
    if (io->status == PB_OK) {
        io->status = status;
        snprintf(io->message, sizeof io->message, "%s", pb_error_message());
    }
    atomic_store(&io->failed, true);
}

static void publish(pb_io *io, int l, uint64_t count) {
    const pb_lane lane = l ? PB_LANE_WRITE : PB_LANE_READ;
    const uint64_t mark = io->job->base[lane] + count;
    pb_gate_set(&io->published[l], mark);
    if (!io->calls->signal) return;
    const pb_status status = io->calls->signal(io->device, lane, mark);
    if (status != PB_OK) give_up(io, status);
}

static bool is_satisfied(pb_io *io, uint32_t on) {
    const pb_lane lane = io->job->insns[on].lane;
    const uint64_t mark = io->job->mark[on];
    if (is_io(lane)) return io->lanes[lane == PB_LANE_WRITE].retired >= mark;
    // Until it is issued there is nothing to look at; the bell will ring.
    if (pb_gate_value(&io->issued[lane]) < io->job->base[lane] + mark) return false;
    bool yes = false;
    const pb_status status = io->calls->reached(io->device, lane, io->job->base[lane] + mark, &yes);
    if (status != PB_OK) give_up(io, status);
    if (!yes && !io->calls->call) io->glances = true;
    return yes;
}

static void start(pb_io *io, io_lane *l, uint32_t i) {
    const pb_insn *insn = &io->job->insns[i];
    const uint64_t slot = l->started % WINDOW;
    const bool read = insn->lane == PB_LANE_READ;
    if (io->job->times) io->job->times[i].begin = pb_seconds_now();
    l->insns[slot] = i;
    if (io->job->skipped >> insn->lane & 1) {
        l->done[slot] = true;
        l->started++;
        return;
    }
    if (read && atomic_load(&io->stress)) memset(io->host + insn->to, 0xff, insn->bytes);
    const pb_status status =
        read ? pb_store_read(io->store, insn->extent, insn->extent, io->host + insn->to, insn->bytes, &l->tickets[slot])
             : pb_store_write(io->store, insn->extent, insn->extent, io->job->step, io->host + insn->from, insn->bytes,
                              &l->tickets[slot]);
    if (status != PB_OK) {
        give_up(io, status);
        return;
    }
    l->done[slot] = false;
    l->started++;
    pb_store_submit(io->store);  // before the next one's bytes are hashed
}

// Starts what may start; whether anything moved.
static bool advance(pb_io *io, int which) {
    io_lane *l = &io->lanes[which];
    const uint32_t before = l->next;
    for (; l->next < io->job->count[which] && !atomic_load(&io->failed); l->next++) {
        const uint32_t i = io->job->list[which][l->next];
        if (io->job->insns[i].kind == PB_INSN_WAIT) {
            if (!is_satisfied(io, io->job->insns[i].on)) break;
        } else {
            if (l->started - l->retired == WINDOW || is_early(io, l, io->job->insns[i].lane)) break;
            start(io, l, i);
        }
    }
    return l->next != before;
}

// Takes in what is finished; whether the lane got on.
static bool complete(pb_io *io, int which) {
    io_lane *l = &io->lanes[which];
    const uint64_t before = l->retired;
    for (uint64_t n = l->retired; n < l->started; n++) {
        const uint64_t slot = n % WINDOW;
        if (l->done[slot] || !pb_store_poll(io->store, l->tickets[slot])) continue;
        const pb_status status = pb_store_wait(io->store, l->tickets[slot]);
        l->done[slot] = true;
        if (io->job->times) io->job->times[l->insns[slot]].end = pb_seconds_now();
        if (status != PB_OK) {
            give_up(io, status);
            return true;
        }
    }
    while (l->retired < l->started && l->done[l->retired % WINDOW]) l->retired++;
    if (l->retired == before) return false;
    publish(io, which, l->retired);
    return true;
}

static bool is_finished(const pb_io *io, int which) {
    const io_lane *l = &io->lanes[which];
    return l->next == io->job->count[which] && l->retired == l->started;
}

// Sleeps until a transfer is done or somebody rings. `bell`: what it stood at before the lanes were looked at.
static void rest(pb_io *io, uint64_t bell) {
    bool in_flight = false;
    for (int l = 0; l < 2; l++) in_flight |= io->lanes[l].started > io->lanes[l].retired;
    if (!in_flight && !io->glances) {
        pb_gate_wait(&io->bell, bell + 1);
        return;
    }
    // Whoever rings between the two looks sees that the store has to be woken.
    atomic_store(&io->resting, true);
    if (pb_gate_value(&io->bell) == bell) pb_store_wait_any(io->store, io->glances ? GLANCE_MS : -1);
    atomic_store(&io->resting, false);
}

static void run_job(pb_io *io) {
    for (;;) {
        const uint64_t bell = pb_gate_value(&io->bell);
        io->glances = false;
        bool moved = false;
        for (int l = 0; l < 2; l++) {
            moved |= complete(io, l);
            moved |= advance(io, l);
        }
        if (atomic_load(&io->failed) || atomic_load(&io->abandoned)) break;
        if (is_finished(io, 0) && is_finished(io, 1)) return;
        if (moved) continue;
        rest(io, bell);
    }
    // The slabs must be left alone by the time that anybody believes the lanes to be done.
    for (pb_status status; (status = pb_store_drain(io->store)) != PB_OK;)
        if (!atomic_load(&io->abandoned)) give_up(io, status);
    atomic_store(&io->failed, true);
    for (int l = 0; l < 2; l++) publish(io, l, io->job->total[l]);
}

static void *work(void *context) {
    pb_io *io = context;
    for (uint64_t jobs = 1;; jobs++) {
        pb_gate_wait(&io->begun, jobs);
        if (atomic_load(&io->quit)) return NULL;
        run_job(io);
        pb_gate_set(&io->ended, jobs);
    }
}

pb_status pb_io_create(const pb_device_calls *calls, pb_device *device, pb_store *store, unsigned char *host,
                       pb_io **result) {
    pb_io *io = calloc(1, sizeof *io);
    if (!io) return pb_error(PB_ERR_MEMORY, "no memory for the I/O lanes");
    io->calls = calls;
    io->device = device;
    io->store = store;
    io->host = host;
    // Signals are for the program's own threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&io->thread, NULL, work, io);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        free(io);
        return pb_error(PB_ERR_MEMORY, "cannot start a thread for I/O: %s", strerror(error));
    }
    *result = io;
    return PB_OK;
}

void pb_io_destroy(pb_io *io) {
    if (!io) return;
    atomic_store(&io->quit, true);
    pb_gate_add(&io->begun);
    pthread_join(io->thread, NULL);
    free(io);
}

// --- The executor's side ---

void pb_io_begin(pb_io *io, const pb_io_job *job) {
    io->job = job;
    memset(io->lanes, 0, sizeof io->lanes);
    io->status = PB_OK;
    atomic_store(&io->abandoned, false);
    atomic_store(&io->failed, false);
    pb_gate_add(&io->begun);
}

static void ring(void *context) {
    pb_io *io = context;
    pb_gate_add(&io->bell);
    if (atomic_load(&io->resting)) pb_store_wake(io->store);
}

pb_status pb_io_issued(pb_io *io, pb_lane lane, uint64_t mark) {
    pb_gate_set(&io->issued[lane], mark);
    if (io->calls->call) return io->calls->call(io->device, lane, ring, io);
    ring(io);
    return PB_OK;
}

void pb_io_wait(pb_io *io, pb_lane lane, uint64_t mark) {
    pb_gate_wait(&io->published[lane == PB_LANE_WRITE], mark);
}

bool pb_io_failed(const pb_io *io) {
    return atomic_load(&io->failed);
}

void pb_io_abandon(pb_io *io) {
    atomic_store(&io->abandoned, true);
    ring(io);
}

pb_status pb_io_end(pb_io *io) {
    pb_gate_wait(&io->ended, pb_gate_value(&io->begun));
    return io->status == PB_OK ? PB_OK : pb_error(io->status, "%s", io->message);
}

void pb_io_stress(pb_io *io, uint64_t seed) {
    io->random = seed;
    atomic_store(&io->stress, seed);
}
