// The GPU that scratch sizes are planned for: one of this machine, or a described one that nobody here has.
#ifndef PB_KERNELS_CUDA_TARGET_H
#define PB_KERNELS_CUDA_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/op.h"

// As the CUDA runtime's device attributes have them.
typedef struct pb_cuda_target {
    char name[64];   // for the command line: "rtx3090"
    char title[96];  // as the driver calls it
    int ordinal;     // of this machine's; -1: a described one
    int capability;  // 86: sm_86
    int multiprocessors;
    int64_t memory;                                      // bytes
    int64_t l2_bytes, shared_bytes, shared_optin_bytes;  // shared memory: per block, at most per block
    int threads_per_multiprocessor, blocks_per_multiprocessor;
    int clock_khz, memory_clock_khz, bus_bits;
} pb_cuda_target;

enum { PB_CUDA_OLDEST = 75 };  // compute capability; CUDA 13 makes code for nothing older

// The described cards, "rtx3060", "rtx3090", "rtx4090", "h100", "h200"; NULL past the end, or where none has the name.
const pb_cuda_target *pb_cuda_target_at(int index);
const pb_cuda_target *pb_cuda_target_named(const char *name);
// By a driver's name for a card: the described one of that name, or of its generation. NULL: no name of such a card.
const pb_cuda_target *pb_cuda_target_like(const char *title);
// GPU `ordinal` of this machine. PB_ERR_UNSUPPORTED with the remedy: no driver, one that is too old, no such GPU, a GPU
// that is too old.
pb_status pb_cuda_target_of(int ordinal, pb_cuda_target *target);

// What plans are made for from now on; at first GPU 0 of this machine, or an RTX 3090 where there is none.
void pb_cuda_target_set(const pb_cuda_target *target);
const pb_cuda_target *pb_cuda_target_get(void);

// cuDNN's JSON form of a description; `text` of at least 1 KiB.
void pb_cuda_target_json(const pb_cuda_target *target, char *text, size_t bytes);

// Scratch of a matrix product in cuBLASLt, in bytes. A constant, since its handle cannot be made without a GPU.
uint64_t pb_cuda_gemm_scratch(int capability);

// What cuDNN will do with a convolution op (of arguments without data) on the current target. No GPU is needed.
typedef struct pb_cuda_conv_facts {
    uint64_t scratch;  // bytes, of cuDNN's own
    bool product;      // a matrix product in truth: cuBLASLt's
    bool tensor_core;
    int rank;  // among cuDNN's candidates by expected speed, from 0; those before it were not deterministic, say
} pb_cuda_conv_facts;

// PB_ERR_UNSUPPORTED where cuDNN is missing or before 9.11 (*asked is false), or has no plan (*asked is true).
pb_status pb_cuda_conv_look_up(pb_opcode op, const pb_kernel_args *args, pb_cuda_conv_facts *facts, bool *asked);

// Scratch that is set aside for a convolution where cuDNN cannot be asked: the most that any of SD 1.4, 2.1 and SDXL
// has on the cards that are described, with cuDNN 9.10, 9.19 and 9.28; tests/cuda/test_conv_plans.c prints a version's
// and holds this to it.
uint64_t pb_cuda_conv_scratch_unasked(int capability, bool fp32);

#endif
