// A GPU for the tests of tests/gpu: opened once, with one slab that everything is placed in.
#ifndef PB_TESTS_GPU_SUPPORT_GPU_H
#define PB_TESTS_GPU_SUPPORT_GPU_H

#include "kernels/backend.h"

typedef struct gpu {
    const pb_backend *backend;
    pb_device *device;
    unsigned char *slab;  // device memory
    uint64_t bytes;
} gpu;

// Opens GPU 0 with a slab. False, after saying why, where there is none: the test is to exit with 77.
bool gpu_open(gpu *g, uint64_t bytes);
void gpu_close(gpu *g);

#endif
