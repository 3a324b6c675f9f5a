// What stands in for the CUDA backend in a build without a CUDA toolkit.
#include "kernels/backend.h"

const pb_backend *pb_backend_cuda(void) {
    return NULL;
}
