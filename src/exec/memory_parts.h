// Private to src/exec: the inside of a pb_memory.
#ifndef PB_EXEC_MEMORY_PARTS_H
#define PB_EXEC_MEMORY_PARTS_H

#include "exec/io_lanes.h"
#include "exec/memory.h"
#include "offload/store.h"

enum { PB_FAILURE_TEXT = 512 };

struct pb_memory {
    const pb_device_calls *calls;
    pb_device *device;
    bool on_cpu;             // the device is the CPU's: its slab can be touched from here
    unsigned char *slab[2];  // PB_TIER_DEVICE, PB_TIER_HOST; NULL for a host slab that nobody asked for
    uint64_t bytes[PB_TIER_COUNT];
    uint64_t mark[PB_LANE_COUNT];  // the highest that any run so far has given out
    uint64_t runs;
    pb_status failed;  // a run ended badly: what lies here is of no step
    char failure[PB_FAILURE_TEXT];
    // The store belongs to the I/O thread during a run and to the caller between runs.
    pb_store *store;
    pb_io *io;
    uint32_t extent_count;
    bool handed_over;    // the store's file is a checkpoint's by now, and must not be written
    uint64_t forgotten;  // counts the times that extents were emptied
    uint32_t *content;   // by extent: bytes that a program wants to find in it at first; 0 where none has said so
    // One extent's bytes, for writes and reads of values between runs.
    unsigned char *staging;
    uint32_t staging_bytes;
    uint32_t staged;  // extent, or PB_NONE
    bool dirty;
};

// Reads or writes bytes of an extent between two runs (memory_staging.c). What was never written counts as zeros.
pb_status pb_memory_touch(pb_memory *memory, uint32_t extent, uint64_t offset, void *data, uint64_t bytes, bool write);
// Writes back what is staged.
pb_status pb_memory_flush(pb_memory *memory);
// Writes zeros to an extent that was never written.
pb_status pb_memory_fill(pb_memory *memory, uint32_t extent);
// Before the store is written: begins a new file where the old one was handed over (memory_keep.c).
pb_status pb_memory_writable(pb_memory *memory);
// The run that begins may write any extent.
static inline void pb_memory_unstage(pb_memory *m) {
    m->staged = PB_NONE;
}

#endif
