// Shared by the tests of the store: memory that it takes, bytes that tell where they belong, faults at the k-th call.
#ifndef PB_TESTS_SUPPORT_STORE_H
#define PB_TESTS_SUPPORT_STORE_H

#include <stdatomic.h>

#include "offload/store.h"

void *store_memory(size_t bytes);  // aligned; free() it
void store_fill(void *data, size_t bytes, uint64_t seed);
bool store_holds(const void *data, size_t bytes, uint64_t seed);
uint64_t store_random(uint64_t *state);

typedef enum store_fault {
    FAULT_EIO,
    FAULT_ENOSPC,
    FAULT_EAGAIN,
    FAULT_EINTR,
    FAULT_ECANCELED,
    FAULT_EINVAL,
    // Of transfers only:
    FAULT_ZERO,
    FAULT_SHORT_512,
    FAULT_SHORT_4096,
    FAULT_SHORT_HALF,
    FAULT_DELAY,
    FAULT_FLIP,
    FAULT_KINDS,
    // The process is killed.
    FAULT_KILL_BEFORE,
    FAULT_KILL_AFTER
} store_fault;
const char *store_fault_name(store_fault fault);

// Numbers the calls from 1 and makes call `at` fail; with `lasting`, every one from there on.
typedef struct store_injector {
    atomic_long calls;
    long at;
    store_fault fault;
    bool lasting;
    atomic_bool struck, read;  // it happened, the flipped bytes were read; to this call:
    pb_store_op op;
    void *data;
    void *flipped;  // memory for the bytes of a flipped write
    pb_store_hook hook;
} store_injector;
extern long store_delay_ms;              // of FAULT_DELAY
enum { STORE_FLIPPED_BYTES = 1 << 20 };  // of `flipped`

void store_injector_init(store_injector *injector, long at, store_fault fault, bool lasting, void *flipped);

// What a run does that the fault and crash tests disturb: STORE_COMMITS times, it writes extents, reads them back and
// commits. After commit n, extent i holds store_seed(i, the last commit <= n that wrote it).
enum { STORE_COMMITS = 6, STORE_EXTENTS = 5 };

typedef struct store_run {
    const char *directory;
    pb_store_engine engine;
    void *memory;                     // STORE_RUN_BYTES
    const pb_store_hook *hook;        // of store_run_all; or NULL
    const pb_store_hook *check_hook;  // of store_run_check; or NULL
    _Atomic int *committed;           // how many commits have returned PB_OK
} store_run;
extern const size_t store_run_bytes;

// PB_OK, or the first error.
pb_status store_run_all(const store_run *run);
// Opens what a run left, and reads all of it: *commits is the state that was found, 0 for none.
// PB_ERR_FORMAT when what was read is not that state, whole.
pb_status store_run_check(const store_run *run, uint64_t *commits);

#endif
