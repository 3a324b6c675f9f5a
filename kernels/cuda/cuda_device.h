// A GPU in use (kernels/backend.h, pb_device_calls).
#ifndef PB_KERNELS_CUDA_DEVICE_H
#define PB_KERNELS_CUDA_DEVICE_H

#include "kernels/backend.h"

extern const pb_device_calls pb_cuda_device_calls;

// What an open device has to say that is no error, or "": host memory that could not be page-locked, and why.
const char *pb_cuda_device_note(const pb_device *device);

#endif
