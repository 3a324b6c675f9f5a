#include "support_store.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void *store_memory(size_t bytes) {
    void *data = aligned_alloc(PB_STORE_BLOCK, bytes);
    if (!data) abort();
    memset(data, 0, bytes);
    return data;
}

uint64_t store_random(uint64_t *state) {  // splitmix64
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

void store_fill(void *data, size_t bytes, uint64_t seed) {
    uint64_t *words = data;
    for (size_t i = 0; i < bytes / sizeof *words; i++) words[i] = store_random(&seed);
}

bool store_holds(const void *data, size_t bytes, uint64_t seed) {
    const uint64_t *words = data;
    for (size_t i = 0; i < bytes / sizeof *words; i++)
        if (words[i] != store_random(&seed)) return false;
    return true;
}

long store_delay_ms = 3;

const char *store_fault_name(store_fault fault) {
    static const char *const names[] = {"EIO",    "ENOSPC",   "EAGAIN",    "EINTR",       "ECANCELED",
                                        "EINVAL", "zero",     "short 512", "short 4096",  "short half",
                                        "delay",  "bit flip", "",          "kill before", "kill after"};
    return names[fault];
}

// Whether the fault is one that this call can have; the call is changed for it.
static bool strike(const store_injector *injector, pb_store_call *call, bool *decided, long *result) {
    static const int errors[] = {EIO, ENOSPC, EAGAIN, EINTR, ECANCELED, EINVAL};
    *decided = injector->fault <= FAULT_ZERO;
    if (injector->fault <= FAULT_EINVAL) {
        *result = -errors[injector->fault];
        return true;
    }
    if (injector->fault >= FAULT_KILL_BEFORE) return true;
    if (call->op != PB_STORE_READ && call->op != PB_STORE_WRITE) return *decided = false;
    switch (injector->fault) {
    case FAULT_ZERO: *result = 0; break;
    case FAULT_SHORT_512: call->bytes = 512; break;
    case FAULT_SHORT_4096: call->bytes = 4096; break;
    case FAULT_SHORT_HALF: call->bytes /= 2; break;
    case FAULT_DELAY:
        nanosleep(&(struct timespec){.tv_sec = store_delay_ms / 1000, .tv_nsec = store_delay_ms % 1000 * 1000000},
                  NULL);
        break;
    case FAULT_FLIP:
        if (call->op == PB_STORE_READ) break;  // when it is read
        if (call->bytes > STORE_FLIPPED_BYTES) abort();
        memcpy(injector->flipped, call->data, call->bytes);
        ((unsigned char *)injector->flipped)[call->bytes / 3] ^= 0x10;
        call->data = injector->flipped;
        break;
    default: abort();
    }
    return true;
}

static bool before(void *context, pb_store_call *call, long *result) {
    store_injector *injector = context;
    const long number = ++injector->calls;
    bool decided = false;
    if (number != injector->at && !(injector->lasting && number > injector->at)) return false;
    if (injector->fault == FAULT_KILL_BEFORE) kill(getpid(), SIGKILL);
    if (!strike(injector, call, &decided, result)) return false;
    if (number == injector->at) {
        injector->op = call->op;
        injector->data = call->data;
        injector->struck = true;
    }
    return decided;
}

static long after(void *context, const pb_store_call *call, long result) {
    store_injector *injector = context;
    if (!injector->struck || call->op != injector->op || call->data != injector->data) return result;
    if (injector->fault == FAULT_KILL_AFTER) kill(getpid(), SIGKILL);
    // Once: the same memory may be read into again.
    if (injector->fault == FAULT_FLIP && call->op == PB_STORE_READ && result > 0 &&
        !atomic_exchange(&injector->read, 1))
        ((unsigned char *)call->data)[result / 3] ^= 0x10;
    return result;
}

void store_injector_init(store_injector *injector, long at, store_fault fault, bool lasting, void *flipped) {
    *injector = (store_injector){.at = at, .fault = fault, .lasting = lasting, .flipped = flipped};
    injector->hook = (pb_store_hook){injector, before, after};
}

static const uint32_t capacities[STORE_EXTENTS] = {4096, 12288, 65536, 20480, 8192};
const size_t store_run_bytes = 4096 + 12288 + 65536 + 20480 + 8192;

// Extent 0 is written by every commit, extent 4 by the first alone; the others come and go.
static bool is_written(size_t extent, uint64_t commit) {
    return commit == 1 || (extent != 4 && (extent == 0 || (extent + commit) % 2 == 0));
}

static uint64_t state_seed(size_t extent, uint64_t commit) {
    while (!is_written(extent, commit)) commit--;
    return 1000 * commit + extent;
}

static pb_store_options options_of(const store_run *run, const pb_store_hook *hook) {
    return (pb_store_options){.directory = run->directory,
                              .run_id = "run",
                              .capacities = capacities,
                              .extent_count = STORE_EXTENTS,
                              .request_bytes = 8192,
                              .depth = 3,
                              .operations = 4,
                              .engine = run->engine,
                              .memory = run->memory,
                              .memory_bytes = store_run_bytes,
                              .hook = hook};
}

static pb_status move_all(pb_store *store, bool write, uint64_t commit, unsigned char *memory) {
    pb_status status = PB_OK;
    pb_ticket tickets[STORE_EXTENTS];
    size_t at = 0;
    for (size_t i = 0; i < STORE_EXTENTS; at += capacities[i++]) {
        tickets[i] = 0;
        if (write && !is_written(i, commit)) continue;
        if (write) store_fill(memory + at, capacities[i], state_seed(i, commit));
        PB_TRY(write ? pb_store_write(store, i, i, commit, memory + at, capacities[i], &tickets[i])
                     : pb_store_read(store, i, i, memory + at, capacities[i], &tickets[i]));
    }
    for (size_t i = 0; i < STORE_EXTENTS; i++)
        if (tickets[i]) PB_TRY(pb_store_wait(store, tickets[i]));
fail:
    return status;
}

// PB_ERR_FORMAT when what was read without an error is not what belongs there: the one thing that must not be.
static pb_status read_all(pb_store *store, uint64_t commit, unsigned char *memory) {
    memset(memory, 0xFF, store_run_bytes);
    PB_RETURN_IF(move_all(store, false, commit, memory));
    size_t at = 0;
    for (size_t i = 0; i < STORE_EXTENTS; at += capacities[i++])
        if (!store_holds(memory + at, capacities[i], state_seed(i, commit)))
            return pb_error(PB_ERR_FORMAT, "extent %zu after commit %llu is wrong", i, (unsigned long long)commit);
    return PB_OK;
}

pb_status store_run_all(const store_run *run) {
    const pb_store_options options = options_of(run, run->hook);
    pb_status status = PB_OK;
    pb_store *store = NULL;
    PB_TRY(pb_store_open(&options, &store));
    for (uint64_t commit = 1; commit <= STORE_COMMITS; commit++) {
        PB_TRY(move_all(store, true, commit, run->memory));
        PB_TRY(read_all(store, commit, run->memory));
        PB_TRY(pb_store_commit(store, commit, &commit, sizeof commit));
        *run->committed = (int)commit;
    }
    return pb_store_close(store, true);
fail:
    pb_store_close(store, true);  // may have its own failure to tell; the first counts
    return status;
}

pb_status store_run_check(const store_run *run, uint64_t *commits) {
    const pb_store_options options = options_of(run, run->check_hook);
    pb_status status = PB_OK;
    pb_store *store = NULL;
    PB_TRY(pb_store_open(&options, &store));
    const pb_store_info *info = pb_store_get_info(store);
    *commits = info->generation;
    if (!info->resumed) return pb_store_close(store, false);
    if (info->step != *commits || info->blob_bytes != sizeof *commits || memcmp(info->blob, commits, sizeof *commits))
        PB_FAIL(PB_ERR_FORMAT, "the record of commit %llu is not its own", (unsigned long long)*commits);
    PB_TRY(read_all(store, *commits, run->memory));
fail:
    pb_store_close(store, false);
    return status;
}
