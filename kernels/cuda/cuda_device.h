// A GPU in use (kernels/backend.h, pb_device_calls).
#ifndef PB_KERNELS_CUDA_DEVICE_H
#define PB_KERNELS_CUDA_DEVICE_H

#include "kernels/backend.h"

extern const pb_device_calls pb_cuda_device_calls;

#endif
