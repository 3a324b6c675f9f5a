// A GPU's side of `pagebooth bench --profile --device cuda`: memory on it, copies, and ops timed by its own clock.
#ifndef PB_CLI_BENCH_DEVICE_H
#define PB_CLI_BENCH_DEVICE_H

#include "base/machine.h"
#include "kernels/backend.h"

typedef struct pb_bench_device pb_bench_device;

// Errors: those of the backend's device. `backend` has one.
pb_status pb_bench_device_open(const pb_backend *backend, pb_bench_device **device);
void pb_bench_device_close(pb_bench_device *device);  // NULL is allowed; gives its memory back

// Device memory, one region at a time per `slot` (0 or 1), every byte `fill`.
pb_status pb_bench_device_memory(pb_bench_device *device, int slot, uint64_t bytes, int fill, unsigned char **memory);
pb_status pb_bench_device_clear(pb_bench_device *device, void *memory, uint64_t bytes);  // zeros

// Seconds of one launch of `op`, as launches of args[count] take one behind the other, in one graph where the device
// has such: the least of some rounds, after one that is not counted.
pb_status pb_bench_device_time(pb_bench_device *device, pb_opcode op, const pb_kernel_args *args, uint32_t count,
                               int rounds, double *seconds);

// upload, download, copy_both with `bytes` of page-locked memory each way; and the overhead of an op, by tiny ones.
pb_status pb_bench_device_links(pb_bench_device *device, uint64_t bytes, pb_machine *machine);

#endif
