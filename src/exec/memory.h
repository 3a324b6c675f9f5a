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

// --- What lies in the store as a file of its own, between runs (memory_keep.c) ---

typedef enum pb_kept_as {
    PB_KEPT_SHARED,       // a clone, which shares its blocks with the store's file until either changes
    PB_KEPT_HANDED_OVER,  // the store's file itself; the next run that writes begins a new one
    PB_KEPT_COPIED
} pb_kept_as;

typedef struct pb_kept_extent {
    uint64_t offset, bytes;  // in the file
    uint64_t hash[2];        // XXH3-128, low half first
} pb_kept_extent;

// Reads an extent back from the disk and compares it with its hash. One that was never written is filled with zeros.
pb_status pb_memory_check_extent(pb_memory *memory, uint32_t extent);
// Where its bytes lie in the store's file, and will lie in the one that is kept.
pb_kept_extent pb_memory_kept_extent(const pb_memory *memory, uint32_t extent);
// Keeps what the extents with needed[extent] hold under the new name `path`, in the cheapest way that the file system
// has, durably; the others are zeros from then on. Errors: those of pb_store_clone, pb_store_hand_over, pb_store_copy.
pb_status pb_memory_keep(pb_memory *memory, const bool *needed, const char *path, pb_kept_as *how);
// Begins with what a store of the same layout left in a file: extents[x] for each extent, bytes 0 where there is
// nothing. They are read from there until they are written. PB_ERR_UNSUPPORTED where the layout is another one after
// all, or something was written already.
pb_status pb_memory_adopt(pb_memory *memory, const char *path, const pb_kept_extent *extents);
uint32_t pb_memory_extents(const pb_memory *memory);
uint64_t pb_memory_store_bytes(const pb_memory *memory);  // of the store's file; 0 where there is none

uint64_t pb_memory_bytes(const pb_memory *memory, pb_tier tier);
// Of the slabs, what lies in this process's own memory: the host's, and on the CPU the device's.
uint64_t pb_memory_process_bytes(const pb_memory *memory);

// What the device has to say (pb_device_calls.note): "" where it has nothing.
const char *pb_memory_note(const pb_memory *memory);

#endif
