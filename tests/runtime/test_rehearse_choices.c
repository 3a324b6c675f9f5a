// test: links=cpu,quant,base timeout=300
// tests/gpu/test_gpu_choices, which a GPU has to pass, on the runtime of the tests'.
#include "support_cuda_runtime.h"
#define PB_REHEARSAL
#define pb_backend_cuda fake_backend
#include "gpu/support_gpu.c"
#include "gpu/test_gpu_choices.c"
