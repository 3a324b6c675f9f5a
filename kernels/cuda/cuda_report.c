#include "kernels/cuda_report.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_libraries.h"
#include "kernels/cuda/cuda_target.h"

enum { LOCKED_BYTES = 256 << 20 };  // that page-locking is tried with

static void keep_problem(char *problem, size_t bytes) {
    snprintf(problem, bytes, "%s", pb_error_message());
    pb_error_clear();
}

static void look_at_gpu(int ordinal, pb_cuda_gpu *gpu) {
    pb_cuda_target target = {0};
    pb_device *device = NULL;
    pb_status status = pb_cuda_target_of(ordinal, &target);
    snprintf(gpu->name, sizeof gpu->name, "%s", target.title);
    gpu->capability = target.capability;
    gpu->total = (uint64_t)target.memory;
    if (status == PB_OK) status = pb_cuda_device_calls.open(ordinal, &device);
    if (status != PB_OK) {
        keep_problem(gpu->problem, sizeof gpu->problem);
        return;
    }
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) == cudaSuccess) {
        gpu->free = free;
        gpu->total = total;
    }
    void *slab = NULL;
    if (pb_cuda_device_calls.host_allocate(device, LOCKED_BYTES, &slab) == PB_OK)
        pb_cuda_device_calls.host_release(device, slab);
    else
        keep_problem(gpu->problem, sizeof gpu->problem);
    snprintf(gpu->note, sizeof gpu->note, "%s", pb_cuda_device_calls.note(device));
    pb_cuda_device_calls.close(device);
}

static void look_at_libraries(pb_cuda_library *blas, pb_cuda_library *dnn) {
    const pb_cublas_api *blas_api;
    const pb_cudnn_api *dnn_api;
    snprintf(blas->name, sizeof blas->name, "cuBLASLt");
    snprintf(dnn->name, sizeof dnn->name, "cuDNN");
    if (pb_cublas_load(&blas_api) == PB_OK) {
        const size_t v = blas_api->version();
        snprintf(blas->version, sizeof blas->version, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
        snprintf(blas->path, sizeof blas->path, "%.511s", pb_cublas_path());
    } else {
        keep_problem(blas->problem, sizeof blas->problem);
    }
    if (pb_cudnn_load(&dnn_api) == PB_OK) {
        const size_t v = dnn_api->version();
        snprintf(dnn->version, sizeof dnn->version, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
        snprintf(dnn->path, sizeof dnn->path, "%.511s", pb_cudnn_path());
    } else {
        keep_problem(dnn->problem, sizeof dnn->problem);
    }
}

// By a part of the driver's name for it.
static const char *machine_of(const char *title) {
    static const char *const known[][2] = {
        {"3060", "rtx3060"}, {"3090", "rtx3090"}, {"4090", "rtx4090"}, {"H200", "h200"}, {"H100", "h200"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strstr(title, known[i][0])) return known[i][1];
    return "";
}

pb_status pb_cuda_card(int ordinal, pb_cuda_gpu *gpu) {
    pb_cuda_target target;
    size_t free = 0, total = 0;
    memset(gpu, 0, sizeof *gpu);
    PB_RETURN_IF(pb_cuda_target_of(ordinal, &target));
    if (cudaSetDevice(ordinal) != cudaSuccess || cudaMemGetInfo(&free, &total) != cudaSuccess)
        return pb_error(PB_ERR_UNSUPPORTED, "GPU %d (%s) does not say how much memory is free: %s", ordinal,
                        target.title, cudaGetErrorString(cudaGetLastError()));
    snprintf(gpu->name, sizeof gpu->name, "%s", target.title);
    snprintf(gpu->machine, sizeof gpu->machine, "%s", machine_of(target.title));
    gpu->capability = target.capability;
    gpu->total = total;
    gpu->free = free;
    return PB_OK;
}

void pb_cuda_report_make(pb_cuda_report *report) {
    memset(report, 0, sizeof *report);
    report->built = true;
    cudaRuntimeGetVersion(&report->toolkit);
    cudaDriverGetVersion(&report->driver);
    look_at_libraries(&report->libraries[0], &report->libraries[1]);
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
        pb_cuda_target unused;
        pb_cuda_target_of(0, &unused);
        keep_problem(report->problem, sizeof report->problem);
        return;
    }
    report->gpu_count = count < PB_CUDA_REPORT_GPUS ? count : PB_CUDA_REPORT_GPUS;
    for (int i = 0; i < report->gpu_count; i++) look_at_gpu(i, &report->gpus[i]);
}
