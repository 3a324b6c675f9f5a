// What a plan needs to know of a machine: how much memory it has and how fast things go. Measured by `pagebooth bench
// --profile`, read from a profile (configs/machines), or built in; see docs/machines.md.
#ifndef PB_BASE_MACHINE_H
#define PB_BASE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/op.h"

// How fast one op goes in one compute dtype: seconds = overhead + max(FLOPs / flops, bytes touched / bandwidth).
typedef struct pb_op_speed {
    double flops;      // per second
    double bandwidth;  // bytes per second
} pb_op_speed;

enum { PB_SPEED_F32, PB_SPEED_F16, PB_SPEED_BF16, PB_SPEED_DTYPES };

typedef struct pb_machine {
    char name[64];
    pb_op_speed op[PB_OP_COUNT][PB_SPEED_DTYPES];
    double overhead;  // seconds per op: a kernel's launch
    // Bytes per second.
    double upload, download;       // host to device and back, each alone
    double copy_both;              // the sum of the two when both go at once
    double dram;                   // the host's memory, reads and writes together
    double nvme_read, nvme_write;  // each alone, at the store's request size and depth
    double nvme_both;              // the sum when both go at once
    double nvme_processors;        // of the drive's bytes a second that would keep all processors busy; 0: none does
    double host_adamw;             // bytes of DRAM traffic per second of AdamW on the host (28 per parameter in fp32)
    bool shared_cores;             // copies and host updates take time from the ops: the CPU backend
    uint64_t device_bytes, host_bytes, nvme_bytes;  // what `auto` takes, margins already left; nvme 0: none
} pb_machine;

// A machine that is built in ("rtx3060", "rtx3090", "rtx4090", "h200"; "generic": something middling), from its maker's
// published figures. NULL: there is none of that name.
const pb_machine *pb_machine_builtin(const char *name);
const char *pb_machine_builtin_name(int index);  // from 0; NULL past the last

// A guess at this machine under the CPU backend, for when no profile was made: memory as it is free now, nominal
// speeds by processors and instruction set. Device and host are both its RAM; nvme_bytes is 0, for no directory is
// known here. Errors: PB_ERR_IO.
pb_status pb_machine_this(pb_machine *machine);

#endif
