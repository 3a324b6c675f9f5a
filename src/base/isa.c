#include "base/isa.h"

#include <cpuid.h>

pb_isa pb_cpu_isa_best(void) {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    __builtin_cpu_init();
    // __builtin_cpu_supports also asks whether the system saves the wide registers; F16C has no name in older clangs.
    const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
    if (!f16c || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return (pb_isa){PB_ISA_SCALAR, false};
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return (pb_isa){PB_ISA_AVX2, false};
    return (pb_isa){PB_ISA_AVX512, __builtin_cpu_supports("avx512bf16") != 0};
}

static struct {
    bool known;
    pb_isa isa;
} cache;

pb_isa pb_cpu_isa(void) {
    if (!cache.known) pb_cpu_isa_set(pb_cpu_isa_best());
    return cache.isa;
}

void pb_cpu_isa_set(pb_isa isa) {
    const pb_isa best = pb_cpu_isa_best();
    cache.isa.level = isa.level < best.level ? isa.level : best.level;
    cache.isa.bf16 = isa.bf16 && best.bf16 && cache.isa.level == PB_ISA_AVX512;
    cache.known = true;
}
