// What runs a program: a table of kernels and their scratch sizes, and, for a backend that can page, a device: its
// memory, its lanes and its copies. The CPU backend and the scalar reference offer the same kernels.
#ifndef PB_KERNELS_BACKEND_H
#define PB_KERNELS_BACKEND_H

#include "base/error.h"
#include "base/op.h"
#include "base/tier.h"

// A device in use. Calls come from one thread, the executor's, but for those that are marked as the I/O thread's, too.
// What they issue may run later, in the order of its lane (COMPUTE, UPLOAD, DOWNLOAD, HOST); a failure that shows only
// then is returned by a later call and stays.
typedef struct pb_device pb_device;
typedef struct pb_captured pb_captured;  // kernels that a device can issue as one

typedef struct pb_device_calls {
    pb_status (*open)(int ordinal, pb_device **device);  // 0: the first one
    void (*close)(pb_device *device);                    // NULL is allowed; waits for what is under way
    // The two slabs. Device memory need not be addressable by the host; host memory is page-locked where copies want
    // it so, 4096-byte aligned. Zeroed. PB_ERR_MEMORY with a remedy.
    pb_status (*device_allocate)(pb_device *device, uint64_t bytes, void **memory);
    void (*device_release)(pb_device *device, void *memory);  // NULL is allowed
    pb_status (*host_allocate)(pb_device *device, uint64_t bytes, void **memory);
    void (*host_release)(pb_device *device, void *memory);
    // Settles what `run` will need for these arguments, so that `run` neither searches nor allocates. For every
    // instruction, with its final pointers, before the first run. NULL: nothing to prepare.
    pb_status (*prepare)(pb_device *device, pb_lane lane, pb_opcode op, const pb_kernel_args *args);
    // Issue. `args` stay valid and unchanged while the device is open. run: COMPUTE or HOST; copy: UPLOAD or DOWNLOAD.
    pb_status (*run)(pb_device *device, pb_lane lane, pb_opcode op, const pb_kernel_args *args);
    pb_status (*copy)(pb_device *device, pb_lane lane, void *to, const void *from, uint64_t bytes);
    // capture: makes one thing of kernels that follow one another on COMPUTE; replay issues it, as `run` would issue
    // them one by one. Between two runs, after each kernel has run once. PB_ERR_UNSUPPORTED where the device refuses
    // these kernels: it is as it was, `note` says why, and they are to be run as before. release: before the device is
    // closed, and not while a replay is under way. NULL, all three: not offered.
    pb_status (*capture)(pb_device *device, uint32_t count, const pb_opcode *ops, const pb_kernel_args *const *args,
                         pb_captured **captured);
    pb_status (*replay)(pb_device *device, pb_captured *captured);
    void (*captured_release)(pb_device *device, pb_captured *captured);  // NULL is allowed
    // Marks: `mark` numbers what has been issued on a lane so far, in ascending order; it is reached when all of that
    // is complete. lane_wait: nothing that is issued on `lane` from now on begins before `mark` of lane `on` is
    // reached; `on` is READ or WRITE only where there is `signal`.
    pb_status (*record)(pb_device *device, pb_lane lane, uint64_t mark);
    pb_status (*lane_wait)(pb_device *device, pb_lane lane, pb_lane on, uint64_t mark);
    // function(context) is called, by whatever thread, when all that has been issued on the lane is complete; it calls
    // nothing of the device. NULL: the I/O thread looks for marks from time to time instead.
    pb_status (*call)(pb_device *device, pb_lane lane, void (*function)(void *context), void *context);
    // How much can be issued on a copy lane now without waiting for it: copies, marks, waits and calls count one each.
    // NULL: no matter, since kernels do not run in the calling thread. Else copies are issued ahead of the kernels.
    uint32_t (*room)(pb_device *device, pb_lane lane);
    // The calling thread waits for a mark that was recorded, or looks whether it is reached. The latter also from the
    // I/O thread, beside any other call.
    pb_status (*wait)(pb_device *device, pb_lane lane, uint64_t mark);
    pb_status (*reached)(pb_device *device, pb_lane lane, uint64_t mark, bool *yes);
    // From the I/O thread: `mark` of lane READ or WRITE is reached. NULL: the executor's thread waits for I/O itself
    // before it issues what needs it.
    pb_status (*signal)(pb_device *device, pb_lane lane, uint64_t mark);
    pb_status (*synchronize)(pb_device *device);
    // For traces: begin and end of what is issued next on `lane` (run, replay or copy), as seconds of
    // CLOCK_MONOTONIC; both are written by the time that `synchronize` returns. NULL: not offered.
    pb_status (*time)(pb_device *device, pb_lane lane, double *begin, double *end);
    // Copies that are complete on return, between device memory and any host memory, for loading and saving.
    pb_status (*write)(pb_device *device, void *to, const void *from, uint64_t bytes);
    pb_status (*read)(pb_device *device, void *to, const void *from, uint64_t bytes);
    // From now on copies between host and device take 1 / share as long, share in (0, 1], as if the link were slower.
    // NULL: not offered.
    void (*throttle)(pb_device *device, double share);
    // For profilers: what the executor's thread issues from now on belongs to a range of that name; NULL ends the
    // innermost one. NULL: not offered.
    void (*range)(pb_device *device, const char *name);
    // What an open device has to say to a person that is no error, in whole sentences, or "": where it takes a slower
    // way, why, and what would change that. It may grow. NULL: it never says anything.
    const char *(*note)(const pb_device *device);
} pb_device_calls;

typedef struct pb_backend {
    const char *name;
    const pb_kernel *kernels;               // by pb_opcode, on host memory; NULL for a device that has its own
    const pb_kernel_workspace *workspaces;  // by pb_opcode; an entry may be NULL: none needed
    // PB_ERR_UNSUPPORTED where a kernel has no path for these dtypes; nothing falls back silently.
    pb_status (*supports)(pb_opcode op, const pb_kernel_args *args);
    const pb_device_calls *device;  // NULL: kernels only, everything resident
    int ordinal;                    // which one is opened
} pb_backend;

// Vector code for this machine (AVX-512, AVX2 or plain C, chosen at run time), all threads of pb_threads().
const pb_backend *pb_backend_cpu(void);

// Scalar loops in double for any storage dtype, PB_F64 among them: what every other kernel is held against.
const pb_backend *pb_backend_reference(void);

// NVIDIA GPUs: the first one, found or not. NULL, with the error recorded, in a build without CUDA.
const pb_backend *pb_backend_cuda(void);
// GPU `ordinal`, looked at: PB_ERR_UNSUPPORTED with the remedy where it cannot be used. From here on scratch sizes are
// those of this GPU.
pb_status pb_backend_cuda_at(int ordinal, const pb_backend **backend);
// For planning alone, with the scratch sizes of a card that need not be here: "rtx3090", or as its driver calls it
// ("NVIDIA GeForce RTX 3080"), then those of the described card that is most like it. NULL where that is none.
const pb_backend *pb_backend_cuda_for(const char *card);

#endif
