// Private to src/exec: the lanes READ and WRITE. A thread of their own works them through the store during a run: it
// takes up instructions in the order of their lane as soon as the lane's waits permit, has many under way, and tells
// how far each lane has got without gaps.
#ifndef PB_EXEC_IO_LANES_H
#define PB_EXEC_IO_LANES_H

#include "kernels/backend.h"
#include "offload/store.h"
#include "plan/program.h"

enum { PB_IO_OPERATIONS = 64 };  // that the store must take at once
// Requests that the drive is given at once. It finishes them in an order of its own, so with many of them all transfers
// under way end together, and whoever waits for the first waits for the last.
enum { PB_IO_DEPTH = 8 };

typedef struct pb_io pb_io;

// One run's share of the two lanes. Marks count from `base` of their lane: an instruction of READ or WRITE has the
// number it has on its lane, from 1; one of another lane the mark that is recorded behind it.
typedef struct pb_io_job {
    const pb_insn *insns;
    const uint32_t *list[2];  // indices of READ's and of WRITE's instructions, WAITs among them
    uint32_t count[2];
    uint64_t total[2];     // marks of the two lanes in this run
    const uint64_t *mark;  // by instruction
    uint64_t base[PB_LANE_COUNT];
    uint64_t step;         // goes with what is written
    pb_insn_times *times;  // by instruction, absolute; or NULL
    uint32_t skipped;      // lanes, a bit each, of which nothing is done; see pb_executor_skip
} pb_io_job;

pb_status pb_io_create(const pb_device_calls *calls, pb_device *device, pb_store *store, unsigned char *host,
                       pb_io **io);
void pb_io_destroy(pb_io *io);  // NULL is allowed

// --- From the executor's thread ---

// From here to pb_io_end the store is the thread's. The job must stay until then.
void pb_io_begin(pb_io *io, const pb_io_job *job);
// A mark of a device lane that READ or WRITE waits for has been recorded; arranges that the thread hears of it.
pb_status pb_io_issued(pb_io *io, pb_lane lane, uint64_t mark);
// Waits until READ or WRITE has reached a mark; also when the job has failed.
void pb_io_wait(pb_io *io, pb_lane lane, uint64_t mark);
// Something has failed: nothing should wait for these lanes.
bool pb_io_failed(const pb_io *io);
// The run is over before its end: what is under way is brought to rest, and all marks count as reached.
void pb_io_abandon(pb_io *io);
// Waits for the job's end. The first error of a transfer.
pb_status pb_io_end(pb_io *io);

// For tests, see pb_executor_stress.
void pb_io_stress(pb_io *io, uint64_t seed);

#endif
