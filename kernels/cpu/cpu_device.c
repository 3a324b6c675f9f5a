#include "kernels/cpu/cpu_device.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/gate.h"
#include "base/parallel.h"

enum { RING = 1024, PAGE = 4096, PART = 64 << 20 };
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // of Linux, newer than some of its headers
#endif

typedef enum entry_kind { ENTRY_COPY, ENTRY_WAIT, ENTRY_MARK, ENTRY_CALL, ENTRY_STOP } entry_kind;

typedef struct entry {
    entry_kind kind;
    pb_lane on;     // WAIT
    uint64_t mark;  // WAIT, MARK
    void *to;       // COPY, as the rest
    const void *from;
    uint64_t bytes;
    double *begin, *end;              // or NULL
    void (*function)(void *context);  // CALL
    void *context;
} entry;

// A copy lane: a ring that the executor's thread fills and the lane's own thread empties, in order.
typedef struct copy_lane {
    pb_device *device;
    pb_lane lane;
    pthread_t thread;
    bool started;
    uint64_t random;
    pb_gate pushed, done;  // entries
    entry ring[RING];
} copy_lane;

struct pb_device {
    const pb_kernel *kernels;
    pb_gate reached[PB_LANE_COUNT];
    copy_lane copies[2];
    // Where the next thing issued on a lane writes its times.
    double *begin[PB_LANE_COUNT], *end[PB_LANE_COUNT];
    _Atomic(uint64_t) stress;  // the seed, or 0
    uint64_t random;           // of the calling thread
    struct {
        void *memory;
        uint64_t bytes;
    } slabs[8];
};

static bool runs_inline(pb_lane lane) {
    return lane == PB_LANE_COMPUTE || lane == PB_LANE_HOST;
}

static copy_lane *lane_of(pb_device *d, pb_lane lane) {
    return &d->copies[lane == PB_LANE_DOWNLOAD];
}

// How long a lane under stress puts off what it does. Every seed has lanes that hurry and lanes that idle, so that some
// run as far ahead of others as they may.
static void dawdle(const pb_device *d, pb_lane lane, uint64_t *random) {
    const uint64_t seed = atomic_load(&d->stress);
    if (!seed) return;
    const long microseconds = pb_cpu_device_delay(seed, lane, random);
    const struct timespec nap = {0, microseconds * 1000};
    if (microseconds) nanosleep(&nap, NULL);
}

long pb_cpu_device_delay(uint64_t seed, pb_lane lane, uint64_t *random) {
    const uint64_t tempo = (seed * 0x9e3779b97f4a7c15u) >> (8 + 2 * (int)lane) & 3;
    *random = *random * 6364136223846793005u + 1442695040888963407u + seed;
    const uint32_t draw = (uint32_t)(*random >> 33), kind = draw % 8;
    const long microseconds = kind < 4 ? 0 : kind < 7 ? draw / 8 % 100 : draw / 8 % 500;
    return tempo ? microseconds * (long)(2 * tempo - 1) : 0;
}

// --- The copy lanes' threads ---

static void copy_now(copy_lane *l, const entry *e) {
    if (e->begin) *e->begin = pb_seconds_now();
    if (atomic_load(&l->device->stress)) memset(e->to, 0xff, e->bytes);
    dawdle(l->device, l->lane, &l->random);
    memcpy(e->to, e->from, e->bytes);
    if (e->end) *e->end = pb_seconds_now();
}

static void *work(void *context) {
    copy_lane *l = context;
    for (uint64_t done = 0;; done++) {
        pb_gate_wait(&l->pushed, done + 1);
        const entry *e = &l->ring[done % RING];
        if (e->kind == ENTRY_STOP) return NULL;
        if (e->kind == ENTRY_COPY) copy_now(l, e);
        if (e->kind == ENTRY_WAIT) pb_gate_wait(&l->device->reached[e->on], e->mark);
        if (e->kind == ENTRY_CALL) e->function(e->context);
        if (e->kind == ENTRY_MARK) {
            dawdle(l->device, l->lane, &l->random);
            pb_gate_set(&l->device->reached[l->lane], e->mark);
        }
        pb_gate_set(&l->done, done + 1);
    }
}

static void push(copy_lane *l, entry e) {
    const uint64_t pushed = pb_gate_value(&l->pushed);
    if (pushed >= RING) pb_gate_wait(&l->done, pushed - RING + 1);
    l->ring[pushed % RING] = e;
    pb_gate_set(&l->pushed, pushed + 1);
}

// Signals are for the program's own threads.
static pb_status start_lane(copy_lane *l) {
    if (l->started) return PB_OK;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&l->thread, NULL, work, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) return pb_error(PB_ERR_MEMORY, "cannot start a thread for copies: %s", strerror(error));
    l->started = true;
    return PB_OK;
}

// --- Opening, slabs ---

pb_status pb_cpu_device_open(const pb_kernel *kernels, pb_device **result) {
    pb_device *d = calloc(1, sizeof *d);
    if (!d) return pb_error(PB_ERR_MEMORY, "no memory for a device");
    d->kernels = kernels;
    for (int i = 0; i < 2; i++) {
        d->copies[i].device = d;
        d->copies[i].lane = i ? PB_LANE_DOWNLOAD : PB_LANE_UPLOAD;
        d->copies[i].random = (uint64_t)i + 1;
    }
    *result = d;
    return PB_OK;
}

static void device_close(pb_device *d) {
    if (!d) return;
    for (int i = 0; i < 2; i++) {
        if (!d->copies[i].started) continue;
        push(&d->copies[i], (entry){.kind = ENTRY_STOP});
        pthread_join(d->copies[i].thread, NULL);
    }
    for (size_t i = 0; i < sizeof d->slabs / sizeof *d->slabs; i++)
        if (d->slabs[i].memory) munmap(d->slabs[i].memory, d->slabs[i].bytes);
    free(d);
}

typedef struct pages {
    char *memory;
    uint64_t bytes;
} pages;

static void populate_parts(void *context, int64_t begin, int64_t end, int piece) {
    const pages *p = context;
    (void)piece;
    const uint64_t first = (uint64_t)begin * PART, last = (uint64_t)end * PART;
    madvise(p->memory + first, (last < p->bytes ? last : p->bytes) - first, MADV_POPULATE_WRITE);
}

// Every page is there before the first step, which would otherwise wait for the system to clear them, and so would the
// second, whose updates are the first to write the state. Where the system knows no such advice (before Linux 5.14),
// they come when they are touched.
static void populate(void *memory, uint64_t bytes) {
    pages p = {memory, bytes};
    pb_parallel_for((int64_t)((bytes + PART - 1) / PART), 1, populate_parts, &p);
}

static pb_status map_slab(pb_device *d, const char *name, uint64_t bytes, void **memory) {
    size_t slot = 0;
    while (slot < sizeof d->slabs / sizeof *d->slabs && d->slabs[slot].memory) slot++;
    if (slot == sizeof d->slabs / sizeof *d->slabs) return pb_error(PB_ERR_INTERNAL, "too many slabs on one device");
    if (bytes > UINT64_MAX / 2) return pb_error(PB_ERR_INTERNAL, "a %s slab of more than the address space", name);
    const uint64_t mapped = bytes ? (bytes + PAGE - 1) / PAGE * PAGE : PAGE;
    void *data = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return pb_error(PB_ERR_MEMORY,
                        "the machine has no %.3f GiB of memory for the %s slab; set a smaller memory.%s, "
                        "train_batch_size or resolution",
                        (double)bytes / 0x1p30, name, name);
    // Weights are streamed through: huge pages save a TLB miss every 4 KiB. Only advice; failure changes nothing.
    madvise(data, mapped, MADV_HUGEPAGE);
    d->slabs[slot].memory = *memory = data;
    d->slabs[slot].bytes = mapped;
    populate(data, mapped);
    return PB_OK;
}

static pb_status device_allocate(pb_device *d, uint64_t bytes, void **memory) {
    return map_slab(d, "device", bytes, memory);
}

static pb_status host_allocate(pb_device *d, uint64_t bytes, void **memory) {
    for (int i = 0; i < 2; i++) PB_RETURN_IF(start_lane(&d->copies[i]));
    return map_slab(d, "host", bytes, memory);
}

static void release(pb_device *d, void *memory) {
    for (size_t i = 0; memory && i < sizeof d->slabs / sizeof *d->slabs; i++) {
        if (d->slabs[i].memory != memory) continue;
        munmap(memory, d->slabs[i].bytes);
        d->slabs[i].memory = NULL;
    }
}

// --- Issuing ---

static pb_status run(pb_device *d, pb_lane lane, pb_opcode op, const pb_kernel_args *args) {
    dawdle(d, lane, &d->random);
    double *begin = d->begin[lane];
    if (begin) *begin = pb_seconds_now();
    d->kernels[op](args);
    if (begin) *d->end[lane] = pb_seconds_now();
    d->begin[lane] = NULL;
    return PB_OK;
}

static pb_status copy(pb_device *d, pb_lane lane, void *to, const void *from, uint64_t bytes) {
    copy_lane *l = lane_of(d, lane);
    if (!l->started) return pb_error(PB_ERR_INTERNAL, "a copy on a device without a host slab");
    push(l, (entry){.kind = ENTRY_COPY,
                    .to = to,
                    .from = from,
                    .bytes = bytes,
                    .begin = d->begin[lane],
                    .end = d->begin[lane] ? d->end[lane] : NULL});
    d->begin[lane] = NULL;
    return PB_OK;
}

static pb_status record(pb_device *d, pb_lane lane, uint64_t mark) {
    if (runs_inline(lane))
        pb_gate_set(&d->reached[lane], mark);
    else
        push(lane_of(d, lane), (entry){.kind = ENTRY_MARK, .mark = mark});
    return PB_OK;
}

static pb_status lane_wait(pb_device *d, pb_lane lane, pb_lane on, uint64_t mark) {
    if (runs_inline(lane))
        pb_gate_wait(&d->reached[on], mark);
    else
        push(lane_of(d, lane), (entry){.kind = ENTRY_WAIT, .on = on, .mark = mark});
    return PB_OK;
}

static pb_status call(pb_device *d, pb_lane lane, void (*function)(void *context), void *context) {
    if (runs_inline(lane))
        function(context);
    else
        push(lane_of(d, lane), (entry){.kind = ENTRY_CALL, .function = function, .context = context});
    return PB_OK;
}

static uint32_t room(pb_device *d, pb_lane lane) {
    const copy_lane *l = lane_of(d, lane);
    return (uint32_t)(RING - (pb_gate_value(&l->pushed) - pb_gate_value(&l->done)));
}

static pb_status wait_for(pb_device *d, pb_lane lane, uint64_t mark) {
    pb_gate_wait(&d->reached[lane], mark);
    return PB_OK;
}

static pb_status reached(pb_device *d, pb_lane lane, uint64_t mark, bool *yes) {
    *yes = pb_gate_value(&d->reached[lane]) >= mark;
    return PB_OK;
}

static pb_status signal_lane(pb_device *d, pb_lane lane, uint64_t mark) {
    pb_gate_set(&d->reached[lane], mark);
    return PB_OK;
}

static pb_status synchronize(pb_device *d) {
    for (int i = 0; i < 2; i++) pb_gate_wait(&d->copies[i].done, pb_gate_value(&d->copies[i].pushed));
    return PB_OK;
}

static pb_status time_next(pb_device *d, pb_lane lane, double *begin, double *end) {
    d->begin[lane] = begin;
    d->end[lane] = end;
    return PB_OK;
}

static pb_status copy_at_once(pb_device *d, void *to, const void *from, uint64_t bytes) {
    (void)d;
    memcpy(to, from, bytes);
    return PB_OK;
}

void pb_cpu_device_stress(pb_device *d, uint64_t seed) {
    d->random = seed;
    atomic_store(&d->stress, seed);
}

const pb_device_calls pb_cpu_device_calls = {
    .open = pb_cpu_device_open_default,
    .close = device_close,
    .device_allocate = device_allocate,
    .device_release = release,
    .host_allocate = host_allocate,
    .host_release = release,
    .run = run,
    .copy = copy,
    .record = record,
    .lane_wait = lane_wait,
    .call = call,
    .room = room,
    .wait = wait_for,
    .reached = reached,
    .signal = signal_lane,
    .synchronize = synchronize,
    .time = time_next,
    .write = copy_at_once,
    .read = copy_at_once,
};
