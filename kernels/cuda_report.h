// What there is of CUDA on this machine, for people. Also in a build without CUDA.
#ifndef PB_KERNELS_CUDA_REPORT_H
#define PB_KERNELS_CUDA_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { PB_CUDA_REPORT_GPUS = 16 };

typedef struct pb_cuda_gpu {
    char name[96];
    int capability;        // 86: sm_86
    uint64_t total, free;  // bytes
    char machine[32];      // pb_cuda_card
    char problem[800];     // why it cannot be used, with the remedy; "" where it can
    char note[1200];       // what it does in a slower way than it could, and why; "" where nothing
} pb_cuda_gpu;

typedef struct pb_cuda_library {
    char name[16], version[32], path[512];
    char problem[2000];  // "" where it was found
} pb_cuda_library;

typedef struct pb_cuda_report {
    bool built;           // this program has the CUDA backend
    int toolkit, driver;  // CUDA versions, 13000 for 13.0: of the build, of the driver (0: none)
    char problem[800];    // why there is no GPU to use, with the remedy; "" where there is one
    int gpu_count;
    pb_cuda_gpu gpus[PB_CUDA_REPORT_GPUS];
    pb_cuda_library libraries[2];  // cuBLASLt, cuDNN
} pb_cuda_report;

// Looks at everything: loads the libraries, opens each GPU, runs an empty kernel on it and page-locks some memory.
void pb_cuda_report_make(pb_cuda_report *report);

// Name, capability and memory of one GPU, and in `machine` the described card (base/machine.h) that it is or comes
// nearest to by its name, or "". PB_ERR_UNSUPPORTED with the remedy.
pb_status pb_cuda_card(int ordinal, pb_cuda_gpu *gpu);

#endif
