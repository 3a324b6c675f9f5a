// A guess at the machine that this process runs on, under the CPU backend: good enough to order decisions by; a profile
// (`pagebooth bench --profile`) has measured figures instead.
#include <stdio.h>
#include <string.h>

#include "base/machine.h"
#include "base/parallel.h"

#define GIB ((uint64_t)1 << 30)

// Bytes that new allocations can have: what the kernel says, and less where a control group has a limit.
static pb_status available_bytes(uint64_t *bytes) {
    unsigned long long kib = 0, limit, used;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file) return pb_error(PB_ERR_IO, "cannot read /proc/meminfo to see how much memory is free");
    while (kib == 0 && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) != 1) kib = 0;
    fclose(file);
    if (kib == 0) return pb_error(PB_ERR_IO, "/proc/meminfo does not say how much memory is free (MemAvailable)");
    *bytes = kib * 1024;
    FILE *maximum = fopen("/sys/fs/cgroup/memory.max", "re"), *current = fopen("/sys/fs/cgroup/memory.current", "re");
    if (maximum && current && fscanf(maximum, "%llu", &limit) == 1 && fscanf(current, "%llu", &used) == 1) {
        const uint64_t left = limit > used ? limit - used : 0;
        if (left < *bytes) *bytes = left;
    }
    if (maximum) fclose(maximum);
    if (current) fclose(current);
    return PB_OK;
}

// What kernels/cpu reaches on one processor (docs/cpu_kernels.md), rounded down.
static void nominal_flops(double *f32, double *bf16) {
    *f32 = *bf16 = 30e9;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) *f32 = *bf16 = 70e9;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) *f32 = *bf16 = 100e9;
    if (__builtin_cpu_supports("avx512bf16")) *bf16 = 2 * *f32;
#endif
}

pb_status pb_machine_this(pb_machine *machine) {
    uint64_t available = 0;
    double f32, bf16;
    const double threads = pb_threads();
    PB_RETURN_IF(available_bytes(&available));
    nominal_flops(&f32, &bf16);
    // One processor does not saturate the memory, and a few do.
    const double dram = threads < 3 ? threads * 20e9 : 45e9;
    // What is not in the slabs: the parts of a model that are not trained, pictures, this process itself.
    uint64_t margin = GIB + available / 10;
    if (margin > available / 2) margin = available / 2;
    *machine = (pb_machine){
        .name = "this",
        .overhead = 5e-6,
        // A copy reads and writes, and one thread makes it.
        .upload = 10e9,
        .download = 10e9,
        .copy_both = dram / 2 > 10e9 ? dram / 2 : 10e9,
        .dram = dram,
        .nvme_read = 2e9,
        .nvme_write = 1e9,
        .nvme_both = 2e9,
        .nvme_processors = 4e9 * threads,
        .host_adamw = 0.9 * dram,
        .shared_cores = true,
        .device_bytes = available - margin,
        .host_bytes = available - margin,
    };
    for (int op = 0; op < PB_OP_COUNT; op++)
        for (int d = 0; d < PB_SPEED_DTYPES; d++) {
            const double share = op == PB_OP_ATTENTION || op == PB_OP_ATTENTION_BWD ? 0.75 : 1;
            machine->op[op][d] =
                (pb_op_speed){.flops = share * threads * (d == PB_SPEED_BF16 ? bf16 : f32), .bandwidth = 0.9 * dram};
        }
    return PB_OK;
}
