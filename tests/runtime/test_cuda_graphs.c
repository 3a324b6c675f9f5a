// test: links=exec,cpu,ref,plan,graph,offload,base timeout=300 with=plan/support_graphs.c,exec/support_*.c
// Kernels captured into CUDA graphs, on the runtime of the tests': a resident step is one launch, paged programs give
// the same bits, and wherever a capture is refused the run goes on without.
#include <stdlib.h>

#include "base/parallel.h"
#include "check.h"
#include "exec/support_paging.h"
#include "exec/support_runs.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_graphs.h"
#include "offload/store.h"
#include "plan/support_graphs.h"
#include "scratch.h"
#include "support_cuda_runtime.h"

static const pb_device_calls *const calls = &pb_cuda_device_calls;

typedef struct before {
    uint64_t kernels, graphs, together;
} before;

static before counts(void) {
    return (before){fake_count(FAKE_KERNELS), fake_count(FAKE_GRAPH_LAUNCHES), fake_count(FAKE_UPDATES_TOGETHER)};
}

static bool same(const pb_graph *g, const unsigned char *a, const unsigned char *b) {
    return a && b && !memcmp(a, b, support_result_bytes(g));
}

// All but the first run are one launch each, and no kernel is launched beside it.
static void check_resident(void) {
    for (uint64_t seed = 1; seed <= 4; seed++) {
        pb_graph *g = support_random_graph(seed, 9);
        pb_program *program = NULL;
        unsigned char *expected = support_run_resident(g, pb_backend_cpu(), seed);
        CHECK_OK(pb_compile(g, fake_backend(), NULL, &program));
        fake_seed(seed);
        const before b = counts();
        unsigned char *result = support_run_resident(g, fake_backend(), seed);
        const before a = counts();
        CHECK_THAT(same(g, result, expected), "seed %llu: other bits", (unsigned long long)seed);
        uint32_t kernels = 0, updates = 0;
        for (uint32_t i = 0; program && i < program->insn_count; i++) {
            kernels += program->insns[i].kind != PB_INSN_WAIT;
            updates += program->insns[i].kind != PB_INSN_WAIT && g->nodes[program->insns[i].node].op == PB_OP_ADAMW;
        }
        CHECK_THAT(a.kernels - b.kernels == kernels, "%llu kernels were launched one by one, not %u",
                   (unsigned long long)(a.kernels - b.kernels), kernels);
        CHECK_THAT(a.graphs - b.graphs == RUN_STEPS - 1, "%llu launches of graphs",
                   (unsigned long long)(a.graphs - b.graphs));
        CHECK_THAT(a.together - b.together == (updates ? updates - 1 : 0), "%llu of %u updates joined the first",
                   (unsigned long long)(a.together - b.together), updates);
        free(expected);
        free(result);
        pb_program_destroy(program);
        pb_graph_destroy(g);
    }
    fake_seed(0);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// Segments between waits and marks; and none where they are switched off.
static void check_paged(void) {
    uint64_t graphs = 0, together = 0;
    int paged = 0;
    for (uint64_t seed = 1; seed <= 8; seed++)
        for (int on = 0; on < 2; on++) {
            pb_graph *g = support_random_graph(seed, 6 + (int)(seed % 9));
            unsigned char *expected = support_run_resident(g, pb_backend_cpu(), seed);
            // A plan of the planner's, at the least of these budgets that will do.
            pb_program *whole = NULL, *p = NULL;
            CHECK_OK(pb_compile(g, fake_backend(), NULL, &whole));
            for (uint64_t tenths = 4; whole && tenths < 10 && !p; tenths++) {
                const uint64_t bytes = whole->tier_bytes[PB_TIER_DEVICE] * tenths / 10;
                const pb_plan_request request = {.budget = {bytes, UINT64_MAX, 0}};
                if (pb_compile(g, fake_backend(), &request, &p) != PB_OK) p = NULL;
            }
            paged += p && p->moved[PB_LINK_UPLOAD] > 0;
            if (!p) {  // it will have no less than all
                p = whole;
                whole = NULL;
            }
            const before b = counts();
            pb_executor_captures(on);
            fake_seed(seed * 3 + 1);
            const paged_run how = {.directory = scratch_path("store"), .engine = PB_STORE_AUTO};
            pb_status status;
            unsigned char *result = support_run_paged(g, fake_backend(), p, &how, seed, &status);
            CHECK_THAT(status == PB_OK && same(g, result, expected), "seed %llu: %s", (unsigned long long)seed,
                       pb_error_message());
            const before a = counts();
            together += a.together - b.together;
            if (on)
                graphs += a.graphs - b.graphs;
            else
                CHECK(a.graphs == b.graphs);
            free(expected);
            free(result);
            pb_program_destroy(whole);
            pb_program_destroy(p);
            pb_graph_destroy(g);
        }
    pb_executor_captures(true);
    fake_seed(0);
    CHECK_THAT(paged > 8, "only %d programs moved anything", paged);
    CHECK_THAT(together > 4, "only %llu updates were taken together", (unsigned long long)together);
    CHECK_THAT(graphs > 10, "only %llu launches of graphs", (unsigned long long)graphs);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// Runs it with whatever has been arranged; `expected` NULL: it has to fail.
static void run_refused(const pb_graph *g, const pb_program *p, const unsigned char *expected, const char *what) {
    pb_memory *memory = NULL;
    pb_executor *executor = NULL;
    pb_status status = pb_memory_create_for(fake_backend(), &p, 1, NULL, &memory);
    if (status == PB_OK) status = pb_executor_create(fake_backend(), g, p, memory, &executor);
    const before b = counts();
    unsigned char *result = status == PB_OK ? support_run_steps(executor, g, 5, &status) : NULL;
    const before a = counts();
    if (expected) {
        CHECK_THAT(status == PB_OK && same(g, result, expected), "%s: %s", what, pb_error_message());
        CHECK_THAT(a.graphs == b.graphs, "%s: a graph was launched", what);
        CHECK_THAT(strstr(pb_memory_note(memory), "one by one, not as a CUDA graph"), "%s: note: %s", what,
                   pb_memory_note(memory));
    } else {
        CHECK_THAT(status != PB_OK && strstr(pb_error_message(), "GPU 0"), "%s: %s", what, pb_error_message());
    }
    free(result);
    pb_executor_destroy(executor);
    pb_memory_destroy(memory);
    fake_repair();
    CHECK_THAT(fake_objects() == 0, "%s: %d objects are left", what, fake_objects());
}

// What launchers must not do in a capture. Each is fine outside.
static pb_status allocates(pb_opcode op, cudaStream_t stream) {
    void *memory;
    (void)op;
    (void)stream;
    if (cudaMalloc(&memory, 256) != cudaSuccess) return pb_error(PB_ERR_MEMORY, "no memory in a launcher");
    cudaFree(memory);
    return PB_OK;
}

static pb_status waits(pb_opcode op, cudaStream_t stream) {
    (void)op;
    cudaStreamSynchronize(stream);  // and does not look
    return PB_OK;
}

static pb_status calls_back(pb_opcode op, cudaStream_t stream) {
    (void)op;
    return cudaStreamAddCallback(stream, (cudaStreamCallback_t)NULL, NULL, 0) == cudaSuccess
               ? PB_ERR_INTERNAL
               : pb_error(PB_ERR_INTERNAL, "no callback in a launcher");
}

static cudaEvent_t event_of_test;
static pb_status asks_for_an_event(pb_opcode op, cudaStream_t stream) {
    (void)op;
    cudaEventRecord(event_of_test, stream);
    const cudaError_t error = cudaEventQuery(event_of_test);
    return error == cudaSuccess || error == cudaErrorNotReady ? PB_OK : pb_error(PB_ERR_INTERNAL, "the event");
}

static bool misbehave;
static pb_status (*misbehaviour)(pb_opcode op, cudaStream_t stream);
static pb_status misbehaves_later(pb_opcode op, cudaStream_t stream) {
    return misbehave ? misbehaviour(op, stream) : PB_OK;
}

static void check_refusals(void) {
    static const char *const functions[] = {"cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate",
                                            "cudaGraphUpload"};
    static const cudaError_t errors[] = {cudaErrorMemoryAllocation, cudaErrorNotSupported, cudaErrorInvalidValue};
    pb_graph *g = support_random_graph(5, 9);
    pb_program *p = NULL;
    unsigned char *expected = support_run_resident(g, pb_backend_cpu(), 5);
    CHECK_OK(pb_compile(g, fake_backend(), NULL, &p));
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++) {
        for (size_t e = 0; e < sizeof errors / sizeof *errors; e++) {
            fake_fail(functions[f], 1, errors[e]);
            run_refused(g, p, expected, functions[f]);
        }
        fake_fail(functions[f], 1, cudaErrorIllegalAddress);  // and this breaks the GPU
        run_refused(g, p, NULL, functions[f]);
    }
    fake_fail("cudaGraphLaunch", 1, cudaErrorLaunchFailure);
    run_refused(g, p, NULL, "cudaGraphLaunch");
    fake_fail("cudaGraphLaunch", 2, cudaErrorMemoryAllocation);
    run_refused(g, p, NULL, "cudaGraphLaunch");
    CHECK(cudaEventCreate(&event_of_test) == cudaSuccess);
    cudaEventDestroy(event_of_test);
    pb_program_destroy(p);
    pb_graph_destroy(g);
    free(expected);
}

// Captures at the device's own level: what is not allowed is refused and breaks nothing; nothing runs before the
// replay.
static void check_device(void) {
    static const struct {
        const char *what;
        pb_status (*launcher)(pb_opcode op, cudaStream_t stream);
    } bad[] = {{"allocates", allocates}, {"waits", waits}, {"calls back", calls_back}, {"asks", asks_for_an_event}};
    static pb_kernel_args args;
    static float x[4] = {1, 2, 3, 4}, y[4];
    args = (pb_kernel_args){.in = {{x, PB_F32, PB_SHAPE1(4)}, {x, PB_F32, PB_SHAPE1(4)}},
                            .out = {{y, PB_F32, PB_SHAPE1(4)}}};
    const pb_opcode ops[2] = {PB_OP_ADD, PB_OP_ADD};
    const pb_kernel_args *both[2] = {&args, &args};
    pb_captured *captured = NULL;
    pb_device *d = NULL;
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    CHECK(cudaEventCreate(&event_of_test) == cudaSuccess);
    fake.launcher = misbehaves_later;
    CHECK_OK(calls->run(d, PB_LANE_COMPUTE, PB_OP_ADD, &args));
    CHECK_OK(calls->synchronize(d));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        misbehaviour = bad[i].launcher;
        misbehave = true;
        CHECK_THAT(calls->capture(d, 2, ops, both, &captured) == PB_ERR_UNSUPPORTED, "%s in a capture", bad[i].what);
        misbehave = false;
        CHECK(!captured);
        y[0] = 0;
        CHECK_OK(calls->run(d, PB_LANE_COMPUTE, PB_OP_ADD, &args));
        CHECK_OK(calls->synchronize(d));
        CHECK(y[0] == 2);
    }
    y[0] = 0;
    CHECK_OK(calls->capture(d, 2, ops, both, &captured));
    CHECK_OK(calls->synchronize(d));
    CHECK_THAT(y[0] == 0, "a capture ran its kernels");
    for (int i = 1; captured && i <= 3; i++) {
        x[0] = (float)i;
        CHECK_OK(calls->replay(d, captured));
        CHECK_OK(calls->synchronize(d));
        CHECK_THAT(y[0] == (float)(2 * i), "a replay does not compute with what is there");
    }
    // As the real one has it: what a graph holds is what the arguments were.
    args.out[0].data = x;
    CHECK_OK(calls->replay(d, captured));
    CHECK_OK(calls->synchronize(d));
    CHECK(x[0] == 3);
    args.out[0].data = y;
    calls->captured_release(d, captured);
    calls->captured_release(d, NULL);
    const pb_opcode fresh[1] = {PB_OP_MSE_LOSS};
    captured = NULL;
    CHECK_THAT(calls->capture(d, 1, fresh, both, &captured) == PB_ERR_UNSUPPORTED,
               "a kernel that never ran was captured");
    fake.launcher = NULL;
    cudaEventDestroy(event_of_test);
    calls->close(d);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// A run that is timed is issued instruction by instruction.
static void check_traced(void) {
    pb_graph *g = support_random_graph(6, 9);
    pb_program *p = NULL;
    CHECK_OK(pb_compile(g, fake_backend(), NULL, &p));
    pb_insn_times *times = calloc(p ? p->insn_count : 1, sizeof *times);
    unsigned char *expected = support_run_resident(g, pb_backend_cpu(), 6);
    const before b = counts();
    const paged_run how = {.times = times};
    pb_status status;
    unsigned char *result = support_run_paged(g, fake_backend(), p, &how, 6, &status);
    CHECK_THAT(status == PB_OK && same(g, result, expected), "%s", pb_error_message());
    CHECK(counts().graphs == b.graphs);
    for (uint32_t i = 0; p && i < p->insn_count; i++)
        if (p->insns[i].kind != PB_INSN_WAIT) CHECK_THAT(times[i].end > 0, "instruction %u has no time", i);
    free(times);
    free(expected);
    free(result);
    pb_program_destroy(p);
    pb_graph_destroy(g);
}

int main(void) {
    pb_threads_set(1);  // kernels run in several of the runtime's threads
    check_device();
    check_resident();
    check_paged();
    check_refusals();
    check_traced();
    scratch_remove();
    return CHECK_DONE();
}
