// test: links=cli,train,exec,nn,io,cpu,ref,plan,graph,offload,quant,base timeout=300
// What `pagebooth bench --device cuda` measures, on the runtime of the tests': every op of a step gets a speed, by
// whatever the device offers, nothing is left behind, and what CUDA refuses is an error.
#include <stdlib.h>

#include "base/parallel.h"
#include "check.h"
#include "cli/bench_device.h"
#include "cli/bench_machine.h"
#include "exec/executor.h"
#include "kernels/cuda/cuda_device.h"
#include "support_cuda_runtime.h"

static int reports;
static void count_report(void *context, const pb_bench_op *op) {
    (void)context;
    CHECK_THAT(op->speed.flops > 0 && op->speed.bandwidth > 0 && op->shapes > 0, "%s %s has no speed", op->op,
               op->dtype);
    reports++;
}

static void check_links(void) {
    pb_bench_device *d = NULL;
    pb_machine machine = {.name = "test"};
    CHECK_OK(pb_bench_device_open(fake_backend(), &d));
    if (!d) return;
    CHECK_OK(pb_bench_device_links(d, 3 << 20, &machine));
    CHECK(machine.upload > 0 && machine.download > 0 && machine.copy_both > 0);
    CHECK(machine.overhead > 0 && machine.overhead < 1e-2);
    pb_bench_device_close(d);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// The mean of launches that differ, as one graph, or one by one where graphs are refused.
static void check_times(void) {
    for (int refused = 0; refused < 2; refused++) {
        pb_bench_device *d = NULL;
        unsigned char *memory = NULL;
        double seconds = 0;
        pb_kernel_args args[3];
        const uint64_t graphs = fake_count(FAKE_GRAPH_LAUNCHES);
        CHECK_OK(pb_bench_device_open(fake_backend(), &d));
        if (!d) return;
        CHECK_OK(pb_bench_device_memory(d, 0, 1 << 20, 0x3c, &memory));
        CHECK(memory && memory[0] == 0x3c && memory[(1 << 20) - 1] == 0x3c);
        for (int i = 0; memory && i < 3; i++)
            args[i] = (pb_kernel_args){.in = {{memory, PB_F32, PB_SHAPE1(1000)}, {memory, PB_F32, PB_SHAPE1(1000)}},
                                       .out = {{memory + (i + 1) * 8192, PB_F32, PB_SHAPE1(1000)}}};
        if (refused) fake_fail("cudaStreamBeginCapture", 1, cudaErrorNotSupported);
        CHECK_OK(pb_bench_device_time(d, PB_OP_ADD, args, 3, 2, &seconds));
        CHECK(seconds > 0 && seconds < 1);
        for (int i = 1; i <= 3; i++) CHECK(memory[i * 8192 + 2] == 0xbc);
        CHECK(fake_count(FAKE_GRAPH_LAUNCHES) - graphs == (refused ? 0 : 2));
        CHECK_OK(pb_bench_device_clear(d, memory, 4096));
        CHECK(!memory[0] && !memory[4095] && memory[4096] == 0x3c);
        fake_fail("cudaMalloc", 1, cudaErrorMemoryAllocation);
        CHECK(pb_bench_device_memory(d, 1, 1 << 20, 0, &memory) == PB_ERR_MEMORY);
        fake_repair();
        pb_bench_device_close(d);
        CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
    }
}

static void check_ops(void) {
    pb_machine machine = {.name = "test", .dram = 1e10}, guess;
    const fake_machine usual = fake;
    fake.memory = (size_t)2 << 30;
    CHECK_OK(pb_machine_this(&guess));
    machine.overhead = 1e-6;
    CHECK_OK(pb_bench_ops(fake_backend(), &guess, 64, true, &machine, count_report, NULL));
    CHECK_THAT(reports > 30, "only %d ops were measured", reports);
    for (int op = 0; op < PB_OP_COUNT; op++)
        for (int d = 0; d < PB_SPEED_DTYPES; d++) CHECK(machine.op[op][d].bandwidth > 0);
    fake_fail("kernel", 100, cudaErrorIllegalAddress);
    CHECK(pb_bench_ops(fake_backend(), &guess, 64, true, &machine, count_report, NULL) != PB_OK);
    fake_repair();
    fake = usual;
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

int main(void) {
    pb_threads_set(1);  // kernels run in a thread of the runtime's
    check_links();
    check_times();
    check_ops();
    return CHECK_DONE();
}
