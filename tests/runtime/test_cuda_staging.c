// test: links=exec,cpu,ref,plan,graph,offload,base timeout=300 with=plan/support_graphs.c,exec/support_*.c
// Host memory that cannot be page-locked, on the runtime of the tests': copies go through rings of memory that is, in
// their place among the lane's other work and with the right bits, or as they are where not even rings are to be had.
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

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
enum { BYTES = 24 << 20 };

static uint64_t random_state = 1;
static uint32_t draw(uint32_t below) {
    return support_random(&random_state, below);
}

// No two pieces of a ring are alike.
static unsigned char pattern(uint32_t i, uint64_t mark) {
    return (unsigned char)((i >> 12) * 37 + i + 11 * mark);
}

static void fill(unsigned char *to, uint32_t bytes, uint64_t mark) {
    for (uint32_t i = 0; i < bytes; i++) to[i] = pattern(i, mark);
}

// What the I/O thread would do: it brings the bytes, late, and says so.
typedef struct arrival {
    pb_device *device;
    unsigned char *to;
    uint32_t bytes;
    uint64_t mark;
} arrival;

static void *arrive(void *context) {
    const arrival *a = context;
    const struct timespec nap = {0, 2000000};
    nanosleep(&nap, NULL);
    fill(a->to, a->bytes, a->mark);
    calls->signal(a->device, PB_LANE_READ, a->mark);
    return NULL;
}

// Copies up and down in random pieces. What goes up comes from the store at the last moment, and is overwritten when it
// is said to be up.
static void check_copies(size_t most_locked, const char *word, bool staged) {
    pb_device *d = NULL;
    void *host = NULL, *device = NULL;
    fake.no_lock = true;
    fake.most_locked = most_locked;
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    CHECK_OK(calls->host_allocate(d, BYTES, &host));
    CHECK_OK(calls->device_allocate(d, BYTES, &device));
    CHECK_THAT(strstr(calls->note(d), word), "note: %s", calls->note(d));
    const uint64_t pageable = fake_count(FAKE_PAGEABLE_COPIES);
    for (int round = 0; round < 12; round++) {
        static const uint32_t limits[] = {1, 1000, 70000, 1 << 20, BYTES / 2};
        const uint32_t bytes = 1 + draw(limits[round % 5]), from = draw(BYTES / 2 - bytes + 1);
        const uint32_t back = BYTES / 2 + draw(BYTES / 2 - bytes + 1);
        unsigned char *up = (unsigned char *)host + from, *down = (unsigned char *)host + back;
        const uint64_t mark = (uint64_t)round + 1;
        fake_seed(mark);
        memset(up, 0xaa, bytes);
        memset(down, 0x55, bytes);
        if (staged) CHECK_OK(calls->lane_wait(d, PB_LANE_UPLOAD, PB_LANE_READ, mark));
        if (!staged) fill(up, bytes, mark);
        pthread_t thread;
        arrival a = {d, up, bytes, mark};
        if (staged) CHECK(!pthread_create(&thread, NULL, arrive, &a));
        CHECK_OK(calls->copy(d, PB_LANE_UPLOAD, (char *)device + from, up, bytes));
        CHECK_OK(calls->record(d, PB_LANE_UPLOAD, mark));
        CHECK_OK(calls->lane_wait(d, PB_LANE_DOWNLOAD, PB_LANE_UPLOAD, mark));
        CHECK_OK(calls->copy(d, PB_LANE_DOWNLOAD, down, (char *)device + from, bytes));
        CHECK_OK(calls->record(d, PB_LANE_DOWNLOAD, mark));
        CHECK_OK(calls->wait(d, PB_LANE_UPLOAD, mark));
        if (staged) pthread_join(thread, NULL);
        memset(up, 0xcc, bytes);
        CHECK_OK(calls->wait(d, PB_LANE_DOWNLOAD, mark));
        uint32_t wrong = 0;
        for (uint32_t i = 0; i < bytes; i++) wrong += down[i] != pattern(i, mark);
        CHECK_THAT(!wrong, "round %d: %u of %u bytes are wrong", round, wrong, bytes);
    }
    CHECK_THAT((fake_count(FAKE_PAGEABLE_COPIES) == pageable) == staged, "%llu copies of pageable memory",
               (unsigned long long)(fake_count(FAKE_PAGEABLE_COPIES) - pageable));
    fake_seed(0);
    calls->host_release(d, host);
    calls->device_release(d, device);
    calls->close(d);
    fake.no_lock = false;
    fake.most_locked = 0;
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

static void check_programs(void) {
    fake.no_lock = true;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        pb_graph *g = support_random_graph(seed, 3 + (int)(seed % 9));
        unsigned char *expected = support_run_resident(g, pb_backend_cpu(), seed);
        pb_program *p = support_paging_program(g, pb_backend_cpu(), seed);
        CHECK(g && expected && p);
        fake_seed(seed + 7);
        const paged_run how = {.directory = scratch_path("store"), .engine = PB_STORE_AUTO};
        pb_status status;
        unsigned char *result = support_run_paged(g, fake_backend(), p, &how, seed, &status);
        CHECK_THAT(status == PB_OK && result && !memcmp(result, expected, support_result_bytes(g)), "seed %llu: %s",
                   (unsigned long long)seed, pb_error_message());
        free(result);
        free(expected);
        pb_program_destroy(p);
        pb_graph_destroy(g);
    }
    fake_seed(0);
    fake.no_lock = false;
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// A link that seems slower carries the same bytes, more often.
static void check_throttle(void) {
    for (int locked = 0; locked < 2; locked++) {
        pb_graph *g = support_random_graph(4, 7);
        unsigned char *expected = support_run_resident(g, pb_backend_cpu(), 4);
        pb_program *p = support_paging_program(g, pb_backend_cpu(), 4);
        uint64_t copies[2];
        fake.no_lock = !locked;
        for (int slow = 0; slow < 2; slow++) {
            const pb_memory_options options = {.nvme = scratch_path("store"), .link_share = slow ? 0.3 : 1};
            const uint64_t before = fake_count(FAKE_COPIES);
            pb_memory *memory = NULL;
            pb_executor *executor = NULL;
            unsigned char *result = NULL;
            const pb_program *program = p;
            pb_status status = pb_memory_create_for(fake_backend(), &program, 1, &options, &memory);
            if (status == PB_OK) status = pb_executor_create(fake_backend(), g, p, memory, &executor);
            if (status == PB_OK) result = support_run_steps(executor, g, 4, &status);
            CHECK_THAT(status == PB_OK && result && !memcmp(result, expected, support_result_bytes(g)), "%s",
                       pb_error_message());
            copies[slow] = fake_count(FAKE_COPIES) - before;
            free(result);
            pb_executor_destroy(executor);
            pb_memory_destroy(memory);
        }
        CHECK_THAT(copies[1] > 2 * copies[0], "%llu copies, %llu through a slower link", (unsigned long long)copies[0],
                   (unsigned long long)copies[1]);
        fake.no_lock = false;
        free(expected);
        pb_program_destroy(p);
        pb_graph_destroy(g);
    }
    pb_device *d = NULL;
    static unsigned char from[1000], to[1000];
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    calls->throttle(d, 0.4);  // 2.5 times
    const uint64_t copies = fake_count(FAKE_COPIES), bytes = fake_count(FAKE_COPIED_BYTES);
    CHECK_OK(calls->copy(d, PB_LANE_UPLOAD, to, from, sizeof from));
    CHECK_OK(calls->synchronize(d));
    CHECK(fake_count(FAKE_COPIES) - copies == 3 && fake_count(FAKE_COPIED_BYTES) - bytes == 2500);
    calls->close(d);
}

// Every call that rings make fails once: an error that names the GPU, or the right bits.
static void check_faults(void) {
    static const char *const functions[] = {
        "cudaHostAlloc",      "cudaStreamCreateWithFlags", "cudaEventCreateWithFlags",
        "cudaLaunchHostFunc", "cudaEventRecord",           "cudaStreamWaitEvent",
        "cudaMemcpyAsync",    "cudaStreamSynchronize",     "cudaHostGetDevicePointer"};
    static const cudaError_t errors[] = {cudaErrorIllegalAddress, cudaErrorUnknown, cudaErrorMemoryAllocation};
    pb_graph *g = support_random_graph(3, 6);
    unsigned char *expected = support_run_resident(g, pb_backend_cpu(), 3);
    pb_program *p = support_paging_program(g, pb_backend_cpu(), 3);
    int failed = 0;
    fake.no_lock = true;
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++)
        for (int at = 1; at <= 40; at += 1 + at / 2) {
            // Past the events that the marks of the lanes take.
            const int which = strcmp(functions[f], "cudaEventCreateWithFlags") ? at : 4 * 64 + at;
            const paged_run how = {.directory = scratch_path("store"), .engine = PB_STORE_AUTO};
            pb_status status;
            fake_fail(functions[f], which, errors[(f + (size_t)at) % 3]);
            unsigned char *result = support_run_paged(g, fake_backend(), p, &how, 3, &status);
            if (status == PB_OK)
                CHECK_THAT(result && !memcmp(result, expected, support_result_bytes(g)), "%s, %d: wrong bits",
                           functions[f], at);
            else
                CHECK_THAT(strstr(pb_error_message(), "GPU 0"), "%s, %d: %s", functions[f], at, pb_error_message());
            failed += status != PB_OK;
            free(result);
            fake_repair();
        }
    fake.no_lock = false;
    CHECK_THAT(failed > 20, "only %d runs failed", failed);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
    free(expected);
    pb_program_destroy(p);
    pb_graph_destroy(g);
}

int main(void) {
    pb_threads_set(1);  // kernels run in several of the runtime's threads
    check_copies(0, "go through 32.00 MiB of locked memory", true);
    check_copies(400 << 10, "go through 0.50 MiB of locked memory", true);
    check_copies(1, "do not overlap with kernels", false);
    check_programs();
    check_throttle();
    check_faults();
    scratch_remove();
    return CHECK_DONE();
}
