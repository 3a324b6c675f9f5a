// The host as a device (see pb_device_calls): a slab of its own for the "device", lanes, copies that take time. Kernels
// run in the calling thread, COMPUTE and HOST alike, since both use the process's one pool; UPLOAD and DOWNLOAD have a
// thread each, which sleeps when it has nothing to do and is there from the first host_allocate on.
#ifndef PB_KERNELS_CPU_CPU_DEVICE_H
#define PB_KERNELS_CPU_CPU_DEVICE_H

#include "kernels/backend.h"

// `open` opens the CPU backend's kernels.
extern const pb_device_calls pb_cpu_device_calls;

// The same device for another table of kernels on host memory, by pb_opcode. PB_ERR_MEMORY.
pb_status pb_cpu_device_open(const pb_kernel *kernels, pb_device **device);
pb_status pb_cpu_device_open_default(int ordinal, pb_device **device);

// For tests: from now on everything begins and ends late by short random times, and a copy's destination is filled with
// 0xff (NaN in every dtype) when the copy begins, so that what does not wait for it shows. 0 ends it.
void pb_cpu_device_stress(pb_device *device, uint64_t seed);
// Microseconds by which something on a lane is put off; the next of the sequence whose state is *random.
long pb_cpu_device_delay(uint64_t seed, pb_lane lane, uint64_t *random);

#endif
