// Which vector code runs on this x86-64 machine. One binary carries all of it; the machine decides at run time.
#ifndef PB_BASE_ISA_H
#define PB_BASE_ISA_H

#include <stdbool.h>

typedef enum pb_isa_level {
    PB_ISA_SCALAR,  // the compiler's baseline
    PB_ISA_AVX2,    // with FMA and F16C
    PB_ISA_AVX512,  // F, BW, DQ, VL
    PB_ISA_LEVEL_COUNT
} pb_isa_level;

typedef struct pb_isa {
    pb_isa_level level;
    bool bf16;  // AVX512_BF16's dot products; only with PB_ISA_AVX512
} pb_isa;

// What kernels use: the best of this machine until a test chooses another. The first call, which pb_backend_cpu makes,
// must not be in parallel with another.
pb_isa pb_cpu_isa(void);

// The best of this machine.
pb_isa pb_cpu_isa_best(void);

// For tests, while no kernel runs: at most what pb_cpu_isa_best gives (more is cut back to it).
void pb_cpu_isa_set(pb_isa isa);

#endif
