// test: links=exec,cpu,ref,plan,graph,offload,base timeout=300 with=plan/support_graphs.c,exec/support_*.c
// Rules of CUDA's whose breach shows only now and then, or only on some machines: the tests' runtime counts breaches,
// each of which is committed here once, and paged programs, the device and its threads keep all of them.
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

static void check_breach(uint64_t before, const char *word) {
    CHECK_THAT(fake_breaches() == before + 1 && strstr(fake_breach(), word), "%llu breaches, not one about \"%s\": %s",
               (unsigned long long)(fake_breaches() - before), word, fake_breach());
}

static pb_kernel_args adding(float *x, float *y) {
    return (pb_kernel_args){.in = {{x, PB_F32, PB_SHAPE1(4)}, {x, PB_F32, PB_SHAPE1(4)}},
                            .out = {{y, PB_F32, PB_SHAPE1(4)}}};
}

static void CUDART_CB waits_for_an_event(void *event) {
    cudaEventQuery(event);
}

// Each rule, broken on purpose.
static void check_planted(void) {
    static float x[4] = {1, 2, 3, 4}, y[4];
    static pb_kernel_args args;
    pb_device *d = NULL;
    void *host = NULL, *memory = NULL;
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    args = adding(x, y);

    uint64_t before = fake_breaches();
    fake_unload();
    CHECK_OK(calls->lane_wait(d, PB_LANE_UPLOAD, PB_LANE_READ, 1));
    CHECK_OK(calls->run(d, PB_LANE_COMPUTE, PB_OP_ADD, &args));
    check_breach(before, "code was loaded");
    CHECK_OK(calls->run(d, PB_LANE_COMPUTE, PB_OP_ADD, &args));  // it is there now
    check_breach(before, "code was loaded");
    CHECK_OK(calls->signal(d, PB_LANE_READ, 1));
    CHECK_OK(calls->synchronize(d));

    before = fake_breaches();
    cudaEvent_t event;
    cudaStream_t stream;
    CHECK(cudaEventCreate(&event) == cudaSuccess && cudaStreamCreateWithFlags(&stream, 0) == cudaSuccess);
    CHECK(cudaStreamWaitEvent(stream, event, 0) == cudaSuccess);
    check_breach(before, "never recorded");
    cudaEventRecord(event, stream);
    CHECK(cudaStreamWaitEvent(stream, event, 0) == cudaSuccess);
    check_breach(before, "never recorded");

    before = fake_breaches();
    CHECK(cudaLaunchHostFunc(stream, waits_for_an_event, event) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    check_breach(before, "host function");

    before = fake_breaches();
    CHECK_OK(calls->device_allocate(d, 4096, &memory));
    float *slab = memory;
    static pb_kernel_args product;
    product = (pb_kernel_args){.in = {{slab, PB_F32, PB_SHAPE2(4, 4)}, {slab + 68, PB_F32, PB_SHAPE2(4, 4)}},
                               .out = {{slab + 128, PB_F32, PB_SHAPE2(4, 4)}}};
    product.workspace_bytes = pb_backend_cpu()->workspaces[PB_OP_LINEAR_BWD_DATA](&product);
    product.workspace = aligned_alloc(256, (product.workspace_bytes + 511) / 256 * 256);
    CHECK_OK(calls->run(d, PB_LANE_COMPUTE, PB_OP_LINEAR_BWD_DATA, &product));
    check_breach(before, "not aligned");
    CHECK_OK(calls->synchronize(d));
    free(product.workspace);

    before = fake_breaches();
    CHECK_OK(calls->host_allocate(d, 4096, &host));
    CHECK_OK(calls->lane_wait(d, PB_LANE_UPLOAD, PB_LANE_READ, 2));
    calls->host_release(d, host);
    check_breach(before, "under way");
    CHECK_OK(calls->signal(d, PB_LANE_READ, 2));
    CHECK_OK(calls->synchronize(d));

    // Errors rather than breaches: times of what was never issued, and an error that nobody asked for.
    float milliseconds;
    cudaEvent_t other;
    CHECK(cudaEventCreate(&other) == cudaSuccess);
    CHECK(cudaEventElapsedTime(&milliseconds, event, other) == cudaErrorInvalidResourceHandle);
    CHECK(calls->run(d, PB_LANE_COMPUTE, PB_OP_ADD, &args) != PB_OK);
    cudaGetLastError();
    cudaEventDestroy(other);
    cudaEventDestroy(event);
    cudaStreamDestroy(stream);
    calls->device_release(d, memory);
    calls->close(d);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// A thread that is on another GPU and does not get away from it is refused.
static void check_other_gpu(void) {
    static float x[4] = {1, 2, 3, 4}, y[4];
    static pb_kernel_args args;
    pb_device *d = NULL;
    args = adding(x, y);
    fake.gpus = 2;
    CHECK_OK(calls->open(1, &d));
    if (!d) return;
    CHECK(cudaSetDevice(0) == cudaSuccess);
    CHECK_OK(calls->run(d, PB_LANE_COMPUTE, PB_OP_ADD, &args));
    CHECK(cudaSetDevice(0) == cudaSuccess);
    fake.sticks_to_its_gpu = true;
    CHECK_THAT(calls->run(d, PB_LANE_COMPUTE, PB_OP_ADD, &args) != PB_OK, "a kernel was launched from another GPU");
    fake.sticks_to_its_gpu = false;
    calls->close(d);
    fake.gpus = 1;
    fake_repair();
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// A mark that is not reached yet is no error of the next launch.
static void check_not_yet(void) {
    static float x[4] = {1, 2, 3, 4}, y[4];
    static pb_kernel_args args;
    pb_device *d = NULL;
    bool yes = true;
    args = adding(x, y);
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    CHECK_OK(calls->run(d, PB_LANE_COMPUTE, PB_OP_ADD, &args));
    CHECK_OK(calls->lane_wait(d, PB_LANE_UPLOAD, PB_LANE_READ, 1));
    CHECK_OK(calls->record(d, PB_LANE_UPLOAD, 1));
    CHECK_OK(calls->reached(d, PB_LANE_UPLOAD, 1, &yes));
    CHECK(!yes);
    CHECK_OK(calls->run(d, PB_LANE_COMPUTE, PB_OP_ADD, &args));
    CHECK_OK(calls->signal(d, PB_LANE_READ, 1));
    CHECK_OK(calls->synchronize(d));
    calls->close(d);
}

static pb_status run(const pb_graph *g, const pb_program *p, int gpu, uint64_t seed, const unsigned char *expected) {
    const paged_run how = {.directory = scratch_path("store"), .engine = PB_STORE_AUTO};
    pb_status status;
    fake_unload();
    fake_seed(seed);
    unsigned char *result = support_run_paged(g, fake_backend_at(gpu), p, &how, seed, &status);
    if (status == PB_OK)
        CHECK_THAT(result && !memcmp(result, expected, support_result_bytes(g)), "seed %llu: other bits",
                   (unsigned long long)seed);
    free(result);
    fake_seed(0);
    return status;
}

// Programs over all tiers in what is each time a new process, on the first and on the second GPU: no rule is broken,
// and streams do wait for the store once all code is there.
static void check_programs(void) {
    const uint64_t before = fake_breaches(), waits = fake_count(FAKE_VALUE_WAITS);
    fake.gpus = 2;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        pb_graph *g = support_random_graph(seed, 4 + (int)(seed % 7));
        pb_program *p = support_paging_program(g, pb_backend_cpu(), seed);
        unsigned char *expected = support_run_resident(g, pb_backend_cpu(), seed);
        CHECK_OK(run(g, p, (int)(seed % 2), seed, expected));
        CHECK(cudaSetDevice((int)(seed / 2 % 2)) == cudaSuccess);  // as somebody does who looks at another one
        CHECK_OK(run(g, p, (int)(seed % 2), seed, expected));
        free(expected);
        pb_program_destroy(p);
        pb_graph_destroy(g);
    }
    fake.gpus = 1;
    cudaSetDevice(0);
    CHECK_THAT(fake_breaches() == before, "%llu breaches, last: %s", (unsigned long long)(fake_breaches() - before),
               fake_breach());
    CHECK_THAT(fake_count(FAKE_VALUE_WAITS) > waits + 100, "streams waited for the store only %llu times",
               (unsigned long long)(fake_count(FAKE_VALUE_WAITS) - waits));
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// Lanes that are left out have no times, and nobody asks CUDA for them.
static void check_lanes_alone(void) {
    pb_graph *g = support_random_graph(4, 9);
    pb_program *p = support_paging_program(g, pb_backend_cpu(), 4);
    const pb_memory_options options = {.nvme = scratch_path("store"), .engine = PB_STORE_AUTO};
    pb_memory *memory = NULL;
    pb_executor *e = NULL;
    pb_status status;
    CHECK_OK(pb_memory_create_for(fake_backend(), (const pb_program *const *)&p, 1, &options, &memory));
    if (memory) CHECK_OK(pb_executor_create(fake_backend(), g, p, memory, &e));
    if (e) free(support_run_steps(e, g, 4, &status));
    pb_insn_times *times = calloc(p ? p->insn_count : 1, sizeof *times);
    for (uint32_t lane = 0; e && lane < PB_LANE_COUNT; lane++) {
        pb_executor_trace(e, times);
        pb_executor_skip(e, 1u << lane);
        CHECK_OK(pb_executor_run(e));
        for (uint32_t i = 0; i < p->insn_count; i++)
            if (p->insns[i].lane == lane && p->insns[i].kind != PB_INSN_WAIT) CHECK(times[i].end <= 0);
    }
    pb_executor_destroy(e);
    pb_memory_destroy(memory);
    free(times);
    pb_program_destroy(p);
    pb_graph_destroy(g);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// A slab that takes all leaves nothing for code, and says so.
static void check_room(void) {
    const fake_machine usual = fake;
    pb_device *d = NULL;
    void *memory = NULL;
    fake.memory = (size_t)1 << 30;
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    CHECK_OK(calls->device_allocate(d, 700 << 20, &memory));
    CHECK_THAT(!calls->note(d)[0], "note: %s", calls->note(d));
    calls->device_release(d, memory);
    CHECK_OK(calls->device_allocate(d, 900 << 20, &memory));
    CHECK_THAT(strstr(calls->note(d), "only 124 MiB are free"), "note: %s", calls->note(d));
    calls->device_release(d, memory);
    calls->close(d);
    fake = usual;
}

int main(void) {
    pb_threads_set(1);  // kernels run in several of the runtime's threads
    check_planted();
    check_other_gpu();
    check_not_yet();
    check_programs();
    check_lanes_alone();
    check_room();
    scratch_remove();
    return CHECK_DONE();
}
