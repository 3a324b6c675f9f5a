// test: links=cpu,ref,quant,base with=ops/support_*.c timeout=600
// tests/gpu/test_gpu_ops, which a GPU has to pass, on the runtime of the tests', whose kernels are the CPU's: what is
// rehearsed is the test, the device, and every op in a CUDA graph.
#include "support_cuda_runtime.h"
#define PB_REHEARSAL
#define pb_backend_cuda fake_backend
#include "gpu/support_gpu.c"
#include "gpu/test_gpu_ops.c"
