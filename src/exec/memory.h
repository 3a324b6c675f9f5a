// The memory that the programs of a run work on: a device in use, its slab, the host slab, and the NVMe store. What
// persists from step to step lies here; executors come and go (exec/executor.h).
#ifndef PB_EXEC_MEMORY_H
#define PB_EXEC_MEMORY_H

#include "kernels/backend.h"
#include "plan/program.h"

typedef struct pb_memory pb_memory;

struct pb_store_hook;
typedef struct pb_memory_options {
    const char *nvme;                  // directory of the store's file; NULL: there is no store
    int engine;                        // a pb_store_engine; 0: io_uring, and threads where that is refused
    double link_share;                 // 0 or 1: the link as it is; else pb_device_calls.throttle, where there is one
    const struct pb_store_hook *hook;  // of the store's system calls; NULL outside tests
} pb_memory_options;

// Slabs of tier_bytes[PB_TIER_DEVICE] and [PB_TIER_HOST] bytes, zeroed, and a scratch store of `extent_count` extents
// of these capacities (multiples of PB_EXTENT_ALIGNMENT). `options` may be NULL. A backend without a device of its own
// is given the CPU's, with its kernels. Errors: PB_ERR_MEMORY; PB_ERR_USAGE (extents without a directory); those of the
// store.
pb_status pb_memory_create(const pb_backend *backend, const uint64_t tier_bytes[PB_TIER_COUNT],
                           const uint64_t *extent_bytes, uint32_t extent_count, const pb_memory_options *options,
                           pb_memory **memory);
// As large as the largest of these programs wants each part of it.
pb_status pb_memory_create_for(const pb_backend *backend, const pb_program *const *programs, uint32_t count,
                               const pb_memory_options *options, pb_memory **memory);
void pb_memory_destroy(pb_memory *memory);  // NULL is allowed

uint64_t pb_memory_bytes(const pb_memory *memory, pb_tier tier);
// Of the slabs, what lies in this process's own memory: the host's, and on the CPU the device's.
uint64_t pb_memory_process_bytes(const pb_memory *memory);

// What the device has to say (pb_device_calls.note): "" where it has nothing.
const char *pb_memory_note(const pb_memory *memory);

#endif
