// A CUDA runtime that is none: the functions that kernels/cuda/cuda_device.c calls, over this process's memory. Streams
// are threads that work through their queues with random pauses; events, host functions and copies are ordered by the
// rules of the CUDA programming guide and by nothing else, so that a wait that is missing shows as wrong bits.
// Kernels are the CPU backend's, in the streams. Any function can be made to fail.
// Captures are as strict as CUDA's: nothing in them runs, what does not belong there makes them void, a kernel must
// have run before, and a graph keeps its arguments as they were. Errors are a thread's own and stay until asked for; so
// is the choice of a GPU, and streams and events belong to one.
//
// What CUDA lets pass, at first or on some machines only, is counted as a breach of its rules (fake_breaches).
#ifndef PB_TESTS_RUNTIME_SUPPORT_CUDA_RUNTIME_H
#define PB_TESTS_RUNTIME_SUPPORT_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

#include "kernels/backend.h"

// What the machine is said to have.
typedef struct fake_machine {
    int gpus, driver, runtime;  // versions: 13000; driver 0: none
    int major, minor;           // compute capability
    size_t memory;              // bytes of the GPU
    bool no_lock;               // page-locking what is there already is refused
    size_t most_locked;         // no single allocation of locked memory may be larger; 0: no limit
    bool no_code;               // the program has no code for this GPU
    bool no_wait_value;         // the driver lacks cuStreamWaitValue32 ...
    bool wait_unsupported;      // ... or has it and refuses
    bool sticks_to_its_gpu;     // cudaSetDevice does nothing
    uint64_t depth;             // entries that a queue takes; one more waits, holding a lock that others want. 0: any
    // Called before each launch: what a launcher does beside launching.
    pb_status (*launcher)(pb_opcode op, cudaStream_t stream);
} fake_machine;
extern fake_machine fake;

// The `at`-th call from now on (1: the next) of the function returns `error`. Errors that break a context are returned
// by every later call as well, until fake_repair. "kernel": the run of a kernel, later, in its stream.
void fake_fail(const char *function, int at, cudaError_t error);
void fake_repair(void);
void fake_seed(uint64_t seed);  // of the pauses; 0: none

// What is alive: allocations, streams, events, locked ranges.
int fake_objects(void);

// Rules that were broken so far, and the last one: a kernel's code was loaded, for which CUDA may wait for all that is
// under way, while a stream waited for a word in memory; a wait for an event that was never recorded, which is none;
// page-locked memory that was given up beside work under way; a call from within a host function; an operand of a
// library that is not aligned as its algorithm was asked for.
uint64_t fake_breaches(void);
const char *fake_breach(void);
void fake_unload(void);  // no kernel's code is loaded any more, as in a new process

typedef enum fake_counter {
    FAKE_KERNELS,  // launched one by one
    FAKE_GRAPH_LAUNCHES,
    FAKE_PAGEABLE_COPIES,  // from or to memory that is not page-locked
    FAKE_VALUE_WAITS,
    FAKE_COPIES,
    FAKE_COPIED_BYTES,
    FAKE_UPDATES_TOGETHER,  // updates beyond the first of those that were launched as one
    FAKE_COUNTS
} fake_counter;
uint64_t fake_count(fake_counter which);  // since the program began

// pb_cuda_device_calls with the CPU backend's kernels.
const pb_backend *fake_backend(void);
const pb_backend *fake_backend_at(int ordinal);

#endif
