// What stands in for the CUDA backend in a build without a CUDA toolkit.
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cuda/cuda_attention_op.h"
#include "kernels/cuda_report.h"

static pb_status absent(void) {
    return pb_error(PB_ERR_UNSUPPORTED, "this build has no CUDA: it was made on a machine without a CUDA toolkit and "
                                        "cuDNN's headers (cmake says what it misses). Build it again there, or use "
                                        "--device cpu");
}

const pb_backend *pb_backend_cuda(void) {
    absent();
    return NULL;
}

pb_status pb_backend_cuda_at(int ordinal, const pb_backend **backend) {
    (void)ordinal;
    *backend = NULL;
    return absent();
}

const pb_backend *pb_backend_cuda_for(const char *card) {
    (void)card;
    return NULL;
}

pb_status pb_cuda_card(int ordinal, pb_cuda_gpu *gpu) {
    (void)ordinal;
    memset(gpu, 0, sizeof *gpu);
    return absent();
}

void pb_cuda_report_make(pb_cuda_report *report) {
    memset(report, 0, sizeof *report);
}

void pb_cuda_attention_choose(pb_cuda_attention_choice choice) {
    (void)choice;
}
