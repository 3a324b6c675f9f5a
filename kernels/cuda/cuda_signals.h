// Marks of the lanes READ and WRITE, which no stream works on: words in page-locked memory that the I/O thread writes
// and streams wait for (cuStreamWaitValue32), so that the executor's thread need not. Where the driver offers no such
// waits, that thread waits instead, and everything else is the same.
//
// How far ahead. A driver takes some 1,024 entries per stream; beyond them a launch waits, and may hold a lock that the
// I/O thread needs to get on. So no more than PB_CUDA_AHEAD entries are issued behind a wait that is not yet satisfied:
// what is in front of it comes to an end by itself, and what is behind it fits.
//
// Why streams cannot wait for one another in a circle: everything is issued in the order of a list in which each
// instruction depends on earlier ones alone, and a transfer as well depends on earlier instructions alone. Even if the
// driver put all streams into one queue, the head of it would be able to run.
#ifndef PB_KERNELS_CUDA_SIGNALS_H
#define PB_KERNELS_CUDA_SIGNALS_H

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "base/gate.h"
#include "base/tier.h"

#ifndef PB_CUDA_AHEAD
#define PB_CUDA_AHEAD 512
#endif

typedef struct pb_cuda_signals {
    PFN_cuStreamWaitValue32_v11070 wait;  // NULL: the executor's thread waits
    char *words;                          // page-locked, a cache line per lane; NULL likewise
    CUdeviceptr at[2];                    // READ's and WRITE's, for the GPU
    pb_gate reached[2];
    // Waits that streams have been given and that were not satisfied when last looked at, oldest first.
    struct {
        int which;
        uint64_t mark, entry;
    } ahead[PB_CUDA_AHEAD];
    uint32_t first, count;
    uint64_t entries;  // issued into all streams so far
} pb_cuda_signals;

// With the GPU current. Cannot fail: what is not to be had is done without.
void pb_cuda_signals_init(pb_cuda_signals *signals);
void pb_cuda_signals_deinit(pb_cuda_signals *signals);  // zeroed is allowed; no stream may be waiting

// From the I/O thread: `mark` of `lane` (READ or WRITE) and all before it is reached.
void pb_cuda_signals_set(pb_cuda_signals *signals, pb_lane lane, uint64_t mark);

// From the executor's thread. pace: before so many entries are issued; may sleep. wait (an entry too): what is issued
// into `stream` from now on begins when `mark` of lane `on` is reached.
void pb_cuda_signals_pace(pb_cuda_signals *signals, uint64_t entries);
cudaError_t pb_cuda_signals_wait(pb_cuda_signals *signals, cudaStream_t stream, pb_lane on, uint64_t mark);

#endif
