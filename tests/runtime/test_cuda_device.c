// test: links=exec,cpu,ref,plan,graph,offload,base timeout=300 with=plan/support_graphs.c,exec/support_*.c
// The CUDA device's own code without a GPU, on a runtime of the tests' in which streams are threads that pause at
// random: paged programs give the bits of resident ones; whatever CUDA refuses is an error with a remedy, stays where
// it breaks the GPU, and leaks nothing.
#include <stdlib.h>

#include "base/parallel.h"
#include "check.h"
#include "exec/support_paging.h"
#include "exec/support_runs.h"
#include "kernels/cuda/cuda_device.h"
#include "offload/store.h"
#include "plan/support_graphs.h"
#include "scratch.h"
#include "support_cuda_runtime.h"

static const pb_device_calls *const calls = &pb_cuda_device_calls;

static void check_programs(void) {
    for (uint64_t seed = 1; seed <= 10; seed++) {
        pb_graph *g = support_random_graph(seed, 3 + (int)(seed % 9));
        unsigned char *expected = support_run_resident(g, pb_backend_cpu(), seed);
        pb_program *p = support_paging_program(g, pb_backend_cpu(), seed);
        CHECK(g && expected && p);
        for (uint64_t pauses = 0; pauses < 3 && expected && p; pauses++) {
            fake_seed(pauses * (seed + 7));
            const paged_run how = {.directory = scratch_path("store"), .engine = PB_STORE_AUTO};
            pb_status status;
            unsigned char *result = support_run_paged(g, fake_backend(), p, &how, seed, &status);
            CHECK_THAT(status == PB_OK, "seed %llu: %s", (unsigned long long)seed, pb_error_message());
            CHECK_THAT(result && !memcmp(result, expected, support_result_bytes(g)),
                       "seed %llu, pauses %llu: other bits than the resident program", (unsigned long long)seed,
                       (unsigned long long)pauses);
            free(result);
        }
        free(expected);
        pb_program_destroy(p);
        pb_graph_destroy(g);
    }
    fake_seed(0);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// Every call that a run makes fails once.
static void check_faults(void) {
    static const char *const functions[] = {"cudaMemcpyAsync",
                                            "cudaEventRecord",
                                            "cudaStreamWaitEvent",
                                            "cudaLaunchHostFunc",
                                            "cudaStreamSynchronize",
                                            "kernel",
                                            "cudaEventQuery",
                                            "cudaMalloc",
                                            "cudaStreamCreateWithFlags",
                                            "cudaEventCreateWithFlags",
                                            "cudaStreamAddCallback",
                                            "cuStreamWaitValue32",
                                            "cudaGetDriverEntryPointByVersion",
                                            "cudaHostAlloc",
                                            "cudaHostGetDevicePointer",
                                            "cudaHostRegister",
                                            "cudaStreamBeginCapture",
                                            "cudaStreamEndCapture",
                                            "cudaGraphInstantiate",
                                            "cudaGraphUpload",
                                            "cudaGraphLaunch",
                                            "callback",
                                            "stream"};
    static const cudaError_t errors[] = {cudaErrorIllegalAddress, cudaErrorECCUncorrectable, cudaErrorLaunchTimeout,
                                         cudaErrorUnknown};
    pb_graph *g = support_random_graph(3, 6);
    unsigned char *expected = support_run_resident(g, pb_backend_cpu(), 3);
    pb_program *p = support_paging_program(g, pb_backend_cpu(), 3);
    int failed = 0;
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++)
        for (int at = 1; at <= 20; at += 1 + at / 3) {
            const cudaError_t error = errors[(f + (size_t)at) % (sizeof errors / sizeof *errors)];
            const paged_run how = {.directory = scratch_path("store"), .engine = PB_STORE_AUTO};
            pb_status status;
            fake_fail(functions[f], at, error);
            unsigned char *result = support_run_paged(g, fake_backend(), p, &how, 3, &status);
            // Right bits, or an error that says where; never wrong bits.
            if (status == PB_OK)
                CHECK_THAT(result && !memcmp(result, expected, support_result_bytes(g)), "%s, %d: wrong bits",
                           functions[f], at);
            else
                CHECK_THAT(strstr(pb_error_message(), "GPU 0"), "%s, %d: %s", functions[f], at, pb_error_message());
            failed += status != PB_OK;
            free(result);
            fake_repair();
        }
    CHECK_THAT(failed > 30, "only %d runs failed", failed);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
    free(expected);
    pb_program_destroy(p);
    pb_graph_destroy(g);
}

static void check_message(pb_status status, pb_status expected, const char *word) {
    CHECK_THAT(status == expected && strstr(pb_error_message(), word), "status %d, no \"%s\" in: %s", (int)status, word,
               pb_error_message());
}

static void check_refusals(void) {
    const fake_machine usual = fake;
    pb_device *d = NULL;
    fake.driver = 0;
    check_message(calls->open(0, &d), PB_ERR_UNSUPPORTED, "no NVIDIA driver");
    fake.driver = 12040;
    check_message(calls->open(0, &d), PB_ERR_UNSUPPORTED, "update the driver");
    fake = usual;
    fake.gpus = 0;
    check_message(calls->open(0, &d), PB_ERR_UNSUPPORTED, "CUDA_VISIBLE_DEVICES");
    fake.gpus = 2;
    check_message(calls->open(2, &d), PB_ERR_UNSUPPORTED, "this machine has 2");
    fake = usual;
    fake.major = 7;
    fake.minor = 0;
    check_message(calls->open(0, &d), PB_ERR_UNSUPPORTED, "compute capability 7.0; 7.5 or later");
    fake = usual;
    fake.no_code = true;
    check_message(calls->open(0, &d), PB_ERR_UNSUPPORTED, "-DPB_CUDA_ARCHITECTURES=86");
    fake = usual;
    CHECK(!d && fake_objects() == 0);
    calls->close(NULL);
}

static void check_memory(void) {
    pb_device *d = NULL;
    void *memory = NULL, *host = NULL;
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    check_message(calls->device_allocate(d, fake.memory + 1, &memory), PB_ERR_MEMORY, "memory.device");
    CHECK(!memory);
    CHECK_OK(calls->device_allocate(d, 4096, &memory));  // that broke nothing
    for (int i = 0; memory && i < 4096; i++) CHECK(((unsigned char *)memory)[i] == 0);
    fake.no_lock = true;
    CHECK_OK(calls->host_allocate(d, 10000, &host));
    fake.no_lock = false;
    CHECK_THAT(strstr(calls->note(d), "ulimit -l"), "note: %s", calls->note(d));
    CHECK(host && (uintptr_t)host % 4096 == 0 && !((unsigned char *)host)[9999]);
    calls->host_release(d, host);
    CHECK(calls->host_allocate(d, UINT64_C(1) << 60, &host) == PB_ERR_MEMORY);
    calls->host_release(d, NULL);
    calls->device_release(d, memory);
    calls->device_release(d, NULL);
    calls->close(d);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// Far more marks than the ring has events; old ones are answered by younger ones.
static void check_marks(void) {
    pb_device *d = NULL;
    bool yes = false;
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    for (uint64_t mark = 1; mark <= 5000; mark++) CHECK_OK(calls->record(d, PB_LANE_UPLOAD, 3 * mark));
    CHECK_OK(calls->lane_wait(d, PB_LANE_COMPUTE, PB_LANE_UPLOAD, 1));
    CHECK_OK(calls->wait(d, PB_LANE_UPLOAD, 7));
    CHECK_OK(calls->wait(d, PB_LANE_UPLOAD, 14998));
    CHECK_OK(calls->reached(d, PB_LANE_UPLOAD, 15000, &yes));
    CHECK(yes);
    check_message(calls->wait(d, PB_LANE_UPLOAD, 15001), PB_ERR_INTERNAL, "was not recorded");
    calls->close(d);
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    CHECK_OK(calls->record(d, PB_LANE_UPLOAD, 2));
    check_message(calls->record(d, PB_LANE_UPLOAD, 2), PB_ERR_INTERNAL, "does not follow");
    // A failure stays.
    check_message(calls->synchronize(d), PB_ERR_INTERNAL, "does not follow");
    calls->close(d);
}

static void check_failure_stays(void) {
    pb_device *d = NULL;
    bool yes;
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    static pb_kernel_args args;
    float x[4] = {1, 2, 3, 4}, y[4];
    args = (pb_kernel_args){.in = {{x, PB_F32, PB_SHAPE1(4)}, {x, PB_F32, PB_SHAPE1(4)}},
                            .out = {{y, PB_F32, PB_SHAPE1(4)}}};
    fake_fail("kernel", 1, cudaErrorIllegalAddress);
    CHECK_OK(calls->run(d, PB_LANE_COMPUTE, PB_OP_ADD, &args));  // it fails later
    CHECK(calls->synchronize(d) == PB_ERR_INTERNAL);
    char first[600];
    snprintf(first, sizeof first, "%s", pb_error_message());
    fake_repair();  // and yet
    CHECK(calls->run(d, PB_LANE_COMPUTE, PB_OP_ADD, &args) == PB_ERR_INTERNAL && !strcmp(first, pb_error_message()));
    CHECK(calls->reached(d, PB_LANE_HOST, 1, &yes) == PB_ERR_INTERNAL && !strcmp(first, pb_error_message()));
    calls->close(d);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

static void check_times(void) {
    pb_device *d = NULL;
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    static char from[1 << 16], to[2][1 << 16];
    double times[40][2] = {{0}};
    fake_seed(5);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 40; i++) {
            CHECK_OK(calls->time(d, i % 2 ? PB_LANE_UPLOAD : PB_LANE_DOWNLOAD, &times[i][0], &times[i][1]));
            CHECK_OK(calls->copy(d, i % 2 ? PB_LANE_UPLOAD : PB_LANE_DOWNLOAD, to[i % 2], from, sizeof from));
        }
        CHECK_OK(calls->synchronize(d));
        for (int i = 0; i < 40; i++) CHECK(times[i][0] > 0 && times[i][1] >= times[i][0]);
        for (int i = 2; i < 40; i++) CHECK(times[i][0] >= times[i - 2][1] - 1e-5);
    }
    fake_seed(0);
    calls->close(d);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

int main(void) {
    pb_threads_set(1);  // kernels run in several of the runtime's threads
    check_refusals();
    check_memory();
    check_marks();
    check_failure_stays();
    check_times();
    check_programs();
    check_faults();
    scratch_remove();
    return CHECK_DONE();
}
