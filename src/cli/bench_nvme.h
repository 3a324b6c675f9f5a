// The drive's part of `pagebooth bench --profile`.
#ifndef PB_CLI_BENCH_NVME_H
#define PB_CLI_BENCH_NVME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct pb_bench_drive {
    double read, write, both;  // bytes per second: each alone, and the sum when both go at once
    double processors;         // bytes of both that take as much of the processors' time as all have in a second
    uint64_t bytes;            // free for a run, a tenth left
    bool direct;               // past the page cache
} pb_bench_drive;

// The store in `directory`, at its own request size and depth: `bytes` (64 MiB or more) written, read, and both at
// once. Errors: PB_ERR_MEMORY, and what the store returns.
pb_status pb_bench_nvme(const char *directory, size_t bytes, pb_bench_drive *drive);

#endif
