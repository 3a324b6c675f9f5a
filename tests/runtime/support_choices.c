// On the runtime of the tests' there is one kernel for each op, and nothing to choose.
#include "kernels/cuda/cuda_attention_op.h"

void pb_cuda_attention_choose(pb_cuda_attention_choice choice) {
    (void)choice;
}

bool pb_cuda_attention_is_cudnns(pb_opcode op, const pb_kernel_args *args, int capability) {
    (void)op;
    (void)args;
    (void)capability;
    return false;
}
