#include "kernels/cuda/cuda_target.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

// Published figures and what the CUDA programming guide says of each compute capability.
static const pb_cuda_target described[] = {
    {"rtx3060", "NVIDIA GeForce RTX 3060", -1, 86, 28, INT64_C(12622168064), 2359296, 49152, 101376, 1536, 16, 1777000,
     7501000, 192},
    {"rtx3090", "NVIDIA GeForce RTX 3090", -1, 86, 82, INT64_C(25438126080), 6291456, 49152, 101376, 1536, 16, 1695000,
     9751000, 384},
    {"rtx4090", "NVIDIA GeForce RTX 4090", -1, 89, 128, INT64_C(25393692672), 75497472, 49152, 101376, 1536, 24,
     2520000, 10501000, 384},
    {"h100", "NVIDIA H100 80GB HBM3", -1, 90, 132, INT64_C(85029158912), 52428800, 49152, 232448, 2048, 32, 1980000,
     2619000, 5120},
    {"h200", "NVIDIA H200", -1, 90, 132, INT64_C(150110011392), 62914560, 49152, 232448, 2048, 32, 1980000, 3201000,
     6144},
};

const pb_cuda_target *pb_cuda_target_at(int index) {
    return index >= 0 && index < (int)(sizeof described / sizeof *described) ? &described[index] : NULL;
}

const pb_cuda_target *pb_cuda_target_named(const char *name) {
    for (int i = 0; pb_cuda_target_at(i); i++)
        if (strcmp(described[i].name, name) == 0) return &described[i];
    return NULL;
}

const pb_cuda_target *pb_cuda_target_like(const char *title) {
    // By generation; scratch differs little within one. What is newer or older than all of them counts as an RTX 3090.
    static const char *const generations[][2] = {{"H100", "h100"},      {"H800", "h100"},      {"H20", "h200"},
                                                 {"GH200", "h200"},     {"RTX 40", "rtx4090"}, {"L40", "rtx4090"},
                                                 {"L4", "rtx4090"},     {" Ada", "rtx4090"},   {"RTX 30", "rtx3090"},
                                                 {"NVIDIA", "rtx3090"}, {"Tesla", "rtx3090"},  {"GeForce", "rtx3090"}};
    for (int i = 0; pb_cuda_target_at(i); i++)
        if (strcmp(described[i].title, title) == 0) return &described[i];
    for (size_t i = 0; i < sizeof generations / sizeof *generations; i++)
        if (strstr(title, generations[i][0])) return pb_cuda_target_named(generations[i][1]);
    return NULL;
}

static pb_status no_gpu(cudaError_t error) {
    cudaGetLastError();
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (!driver)
        return pb_error(PB_ERR_UNSUPPORTED,
                        "no NVIDIA driver is here (CUDA: %s); install one for CUDA %d.%d or later, or use --device cpu",
                        cudaGetErrorString(error), runtime / 1000, runtime % 1000 / 10);
    if (driver / 1000 < runtime / 1000) {
        // Any driver of a major version runs what any toolkit of it has built.
        const char *or_build = driver / 1000 == 12 ? " build this program with CUDA's toolkit 12.8 or 12.9," : "";
        return pb_error(PB_ERR_UNSUPPORTED,
                        "the NVIDIA driver is for CUDA %d.%d and this program needs one for %d.%d or later: update the "
                        "driver (to %d or later),%s or use --device cpu",
                        driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10,
                        runtime / 1000 == 12 ? 525 : 580, or_build);
    }
    if (error == cudaErrorSystemNotReady)
        return pb_error(PB_ERR_UNSUPPORTED,
                        "the GPUs are not ready (CUDA: %s): on machines with NVSwitch the service nvidia-fabricmanager "
                        "has to run, of the driver's very version. Start it, or use --device cpu",
                        cudaGetErrorString(error));
    return pb_error(PB_ERR_UNSUPPORTED,
                    "the NVIDIA driver shows no GPU (CUDA: %s); look at nvidia-smi and at CUDA_VISIBLE_DEVICES, or use "
                    "--device cpu",
                    cudaGetErrorString(error));
}

pb_status pb_cuda_target_of(int ordinal, pb_cuda_target *target) {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) return no_gpu(error == cudaSuccess ? cudaErrorNoDevice : error);
    if (ordinal < 0 || ordinal >= count)
        return pb_error(PB_ERR_UNSUPPORTED, "there is no GPU %d: this machine has %d, numbered from 0", ordinal, count);
    struct cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, ordinal) != cudaSuccess) return no_gpu(cudaGetLastError());
    memset(target, 0, sizeof *target);  // so that two of the same GPU compare
    *target = (pb_cuda_target){.ordinal = ordinal,
                               .capability = p.major * 10 + p.minor,
                               .multiprocessors = p.multiProcessorCount,
                               .memory = (int64_t)p.totalGlobalMem,
                               .l2_bytes = p.l2CacheSize,
                               .shared_bytes = (int64_t)p.sharedMemPerBlock,
                               .shared_optin_bytes = (int64_t)p.sharedMemPerBlockOptin,
                               .threads_per_multiprocessor = p.maxThreadsPerMultiProcessor,
                               .blocks_per_multiprocessor = p.maxBlocksPerMultiProcessor};
    cudaDeviceGetAttribute(&target->clock_khz, cudaDevAttrClockRate, ordinal);
    cudaDeviceGetAttribute(&target->memory_clock_khz, cudaDevAttrMemoryClockRate, ordinal);
    cudaDeviceGetAttribute(&target->bus_bits, cudaDevAttrGlobalMemoryBusWidth, ordinal);
    snprintf(target->name, sizeof target->name, "cuda:%d", ordinal);
    snprintf(target->title, sizeof target->title, "%.95s", p.name);
    if (target->capability < PB_CUDA_OLDEST)
        return pb_error(PB_ERR_UNSUPPORTED,
                        "GPU %d (%s) has compute capability %d.%d; %d.%d or later is needed: a Turing card (RTX 20, "
                        "GTX 16, T4) or newer, or --device cpu",
                        ordinal, target->title, p.major, p.minor, PB_CUDA_OLDEST / 10, PB_CUDA_OLDEST % 10);
    return PB_OK;
}

static pb_cuda_target current;
static bool current_is_set;

void pb_cuda_target_set(const pb_cuda_target *target) {
    current = *target;
    current_is_set = true;
}

const pb_cuda_target *pb_cuda_target_get(void) {
    if (!current_is_set) {
        pb_cuda_target target;
        if (pb_cuda_target_of(0, &target) == PB_OK) {
            pb_cuda_target_set(&target);
        } else {
            pb_error_clear();
            pb_cuda_target_set(pb_cuda_target_named("rtx3090"));
        }
    }
    return &current;
}

void pb_cuda_target_json(const pb_cuda_target *t, char *text, size_t bytes) {
    snprintf(text, bytes,
             "{\"cudaDeviceId\":0,\"deviceVer\":%d,\"driverVer\":13000,\"deviceName\":\"%s\",\"totalGlobalMem\":%lld,"
             "\"multiProcessorCount\":%d,\"smCountOrigin\":0,\"smClockRateKHz\":%d,\"memClockRateKHz\":%d,"
             "\"memoryBusWidth\":%d,\"l2CacheSize\":%lld,\"oversizedSharedMemoryPerBlock\":0,"
             "\"maxSharedMemoryPerBlock\":%lld,\"maxSharedMemoryPerBlockOptin\":%lld,"
             "\"reservedSharedMemoryPerBlock\":%d,\"maxThreadsPerSM\":%d,\"maxCtasPerSM\":%d,"
             "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"maxThreadsPerBlock\":1024,"
             "\"regsPerBlock\":65536,\"maxRegistersPerSM\":65536,\"warpSize\":32,\"pciDeviceId\":0,\"isTccDriver\":0,"
             "\"supportCoopLaunch\":1}",
             t->capability * 10, t->title, (long long)t->memory, t->multiprocessors, t->clock_khz, t->memory_clock_khz,
             t->bus_bits, (long long)t->l2_bytes, (long long)t->shared_bytes, (long long)t->shared_optin_bytes,
             t->capability >= 80 ? 1024 : 0, t->threads_per_multiprocessor, t->blocks_per_multiprocessor);
}

uint64_t pb_cuda_gemm_scratch(int capability) {
    return capability / 10 == 9 ? UINT64_C(32) << 20 : UINT64_C(4) << 20;
}

uint64_t pb_cuda_conv_scratch_unasked(int capability, bool fp32) {
    const uint64_t mib = fp32 || capability / 10 != 9 ? 31 : 10;
    return mib << 20;
}
