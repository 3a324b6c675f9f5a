// test: links=exec,cpu,ref,plan,graph,offload,base timeout=300 with=plan/support_graphs.c,exec/support_*.c
// Streams that wait for the store, on the runtime of the tests': the thread that issues is not kept, whatever the
// driver lacks is done without, a driver that blocks with its lock in hand does not lead to a deadlock, and a store
// that fails ends the run with its own error.
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/parallel.h"
#include "check.h"
#include "exec/support_paging.h"
#include "exec/support_runs.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_marks.h"
#include "offload/store.h"
#include "plan/support_graphs.h"
#include "scratch.h"
#include "support_cuda_runtime.h"

static const pb_device_calls *const calls = &pb_cuda_device_calls;

static void nap(long milliseconds) {
    const struct timespec t = {0, milliseconds * 1000000};
    nanosleep(&t, NULL);
}

// A copy behind a wait for the store is issued at once and runs when the store says so.
static void check_device(void) {
    static char from[64] = "what the store brings", to[64];
    pb_device *d = NULL;
    bool yes = true;
    void *host = NULL;
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    CHECK_OK(calls->host_allocate(d, sizeof from, &host));
    memset(host, 0, sizeof from);
    CHECK_OK(calls->lane_wait(d, PB_LANE_UPLOAD, PB_LANE_READ, 7));
    CHECK_OK(calls->copy(d, PB_LANE_UPLOAD, to, host, sizeof from));
    CHECK_OK(calls->record(d, PB_LANE_UPLOAD, 1));
    nap(5);
    CHECK_OK(calls->reached(d, PB_LANE_UPLOAD, 1, &yes));
    CHECK_THAT(!yes, "a stream did not wait for the store");
    CHECK_OK(calls->signal(d, PB_LANE_WRITE, 9));  // the other lane's
    CHECK_OK(calls->signal(d, PB_LANE_READ, 6));
    nap(5);
    CHECK_OK(calls->reached(d, PB_LANE_UPLOAD, 1, &yes));
    CHECK_THAT(!yes, "a stream waited for the wrong mark");
    memcpy(host, from, sizeof from);
    CHECK_OK(calls->signal(d, PB_LANE_READ, 8));
    CHECK_OK(calls->wait(d, PB_LANE_UPLOAD, 1));
    CHECK(!memcmp(to, from, sizeof from));
    // What is reached is not waited for.
    const uint64_t waits = fake_count(FAKE_VALUE_WAITS);
    CHECK_OK(calls->lane_wait(d, PB_LANE_DOWNLOAD, PB_LANE_READ, 8));
    CHECK_OK(calls->lane_wait(d, PB_LANE_HOST, PB_LANE_WRITE, 9));
    CHECK(fake_count(FAKE_VALUE_WAITS) == waits);
    CHECK_OK(calls->synchronize(d));
    calls->host_release(d, host);
    calls->close(d);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

// Marks go round the low 32 bits of a word.
static void check_wrap(void) {
    pb_device *d = NULL;
    bool yes = true;
    const uint64_t near = UINT64_C(0x7fffffff0), end = near + 40;
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    for (uint64_t mark = 0x40000000; mark < near; mark += 0x40000000) CHECK_OK(calls->signal(d, PB_LANE_READ, mark));
    CHECK_OK(calls->signal(d, PB_LANE_READ, near));
    for (uint64_t mark = near + 1, n = 1; mark <= end; mark += 13, n++) {
        CHECK_OK(calls->lane_wait(d, PB_LANE_UPLOAD, PB_LANE_READ, mark));
        CHECK_OK(calls->record(d, PB_LANE_UPLOAD, n));
        nap(2);
        CHECK_OK(calls->reached(d, PB_LANE_UPLOAD, n, &yes));
        CHECK(!yes);
        CHECK_OK(calls->signal(d, PB_LANE_READ, mark));
        CHECK_OK(calls->wait(d, PB_LANE_UPLOAD, n));
    }
    calls->close(d);
}

static void *signal_late(void *device) {
    nap(20);
    calls->signal(device, PB_LANE_WRITE, 1);
    return NULL;
}

// Far more than a queue takes, behind one wait: whoever issues is kept until the store is there, and an event that is
// taken over stands for nothing that waits for it.
static void check_pace(void) {
    pb_device *d = NULL;
    bool yes = false;
    pthread_t thread;
    static char from[16], to[16];
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    fake.depth = 48;
    CHECK_OK(calls->record(d, PB_LANE_DOWNLOAD, 1));  // a mark that is reached early ...
    CHECK_OK(calls->wait(d, PB_LANE_DOWNLOAD, 1));
    CHECK_OK(calls->lane_wait(d, PB_LANE_DOWNLOAD, PB_LANE_WRITE, 1));
    CHECK(!pthread_create(&thread, NULL, signal_late, d));
    for (uint64_t mark = 2; mark <= 5 * PB_CUDA_MARKS; mark++) {
        CHECK_OK(calls->record(d, PB_LANE_DOWNLOAD, mark));
        CHECK_OK(calls->copy(d, PB_LANE_UPLOAD, to, from, sizeof from));
    }
    CHECK_OK(calls->reached(d, PB_LANE_DOWNLOAD, 1, &yes));  // ... is so for good
    CHECK(yes);
    pthread_join(thread, NULL);
    CHECK_OK(calls->synchronize(d));
    fake.depth = 0;
    calls->close(d);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

static _Atomic(bool) awake;
static void sleep_on_lane(void *context) {
    (void)context;
    nap(20);
    awake = true;
}

// An event is not taken over before its mark is reached.
static void check_takeover(void) {
    pb_device *d = NULL;
    CHECK_OK(calls->open(0, &d));
    if (!d) return;
    awake = false;
    CHECK_OK(calls->call(d, PB_LANE_DOWNLOAD, sleep_on_lane, NULL));
    for (uint64_t mark = 1; mark <= 3 * PB_CUDA_MARKS; mark++) {
        bool yes = false;
        CHECK_OK(calls->record(d, PB_LANE_DOWNLOAD, mark));
        CHECK_OK(calls->reached(d, PB_LANE_DOWNLOAD, 1, &yes));
        CHECK(!yes || awake);
    }
    calls->close(d);
}

static bool refuse_all;
static long transfers;
static bool before_call(void *context, pb_store_call *call, long *result) {
    (void)context;
    (void)call;
    if (!refuse_all || ++transfers % 7) return false;
    *result = -5;  // EIO
    return true;
}
static long after_call(void *context, const pb_store_call *call, long result) {
    (void)context;
    (void)call;
    return result;
}

// Programs over the store, with and without waits of the driver's, and with one that blocks at its worst.
static void check_programs(void) {
    static const pb_store_hook hook = {.before = before_call, .after = after_call};
    const fake_machine usual = fake;
    uint64_t waits = 0;
    int failed = 0;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        pb_graph *g = support_random_graph(seed, 4 + (int)(seed % 7));
        unsigned char *expected = support_run_resident(g, pb_backend_cpu(), seed);
        pb_program *p = support_paging_program(g, pb_backend_cpu(), seed);
        CHECK(g && expected && p);
        for (int kind = 0; kind < 5; kind++) {
            fake = usual;
            fake.no_wait_value = kind == 1;
            fake.wait_unsupported = kind == 2;
            fake.depth = kind >= 3 ? 48 : 0;
            refuse_all = kind == 4;
            fake_seed(seed + (uint64_t)kind);
            const uint64_t before = fake_count(FAKE_VALUE_WAITS);
            const paged_run how = {.directory = scratch_path("store"), .engine = PB_STORE_AUTO, .hook = &hook};
            pb_status status;
            unsigned char *result = support_run_paged(g, fake_backend(), p, &how, seed, &status);
            if (refuse_all && status != PB_OK) {
                failed++;
                CHECK_THAT(status == PB_ERR_IO && !strstr(pb_error_message(), "GPU"), "%s", pb_error_message());
            } else {
                CHECK_THAT(status == PB_OK && result && !memcmp(result, expected, support_result_bytes(g)),
                           "seed %llu, kind %d: %s", (unsigned long long)seed, kind, pb_error_message());
            }
            const uint64_t now = fake_count(FAKE_VALUE_WAITS) - before;
            if (kind == 0 || kind == 3) waits += now;
            CHECK(now == 0 || (kind != 1 && kind != 2));
            free(result);
        }
        refuse_all = false;
        free(expected);
        pb_program_destroy(p);
        pb_graph_destroy(g);
    }
    fake = usual;
    fake_seed(0);
    CHECK_THAT(waits > 100, "streams waited for the store only %llu times", (unsigned long long)waits);
    CHECK_THAT(failed > 2, "the store failed only %d times", failed);
    CHECK_THAT(fake_objects() == 0, "%d objects are left", fake_objects());
}

int main(void) {
    pb_threads_set(1);  // kernels run in several of the runtime's threads
    check_device();
    check_wrap();
    check_pace();
    check_takeover();
    check_programs();
    scratch_remove();
    return CHECK_DONE();
}
