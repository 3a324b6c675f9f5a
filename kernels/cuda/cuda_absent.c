// What stands in for the CUDA backend in a build without a CUDA toolkit.
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cuda_report.h"

const pb_backend *pb_backend_cuda(void) {
    pb_error(PB_ERR_UNSUPPORTED, "this build has no CUDA: it was made on a machine without a CUDA toolkit and cuDNN's "
                                 "headers (cmake says what it misses). Build it again there, or use --device cpu");
    return NULL;
}

void pb_cuda_report_make(pb_cuda_report *report) {
    memset(report, 0, sizeof *report);
}
