// test: links=offload,base
// A thread that keeps many transfers under way and rests in wait_any between them: what ends the rest, and that no
// completion and no wake is missed.
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "scratch.h"
#include "support_store.h"

enum { EXTENTS = 16, BYTES = 65536, ROUNDS = 40 };

static void nap_ms(long milliseconds) {
    nanosleep(&(struct timespec){.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000}, NULL);
}

static pb_store *open_store(pb_store_engine engine, const pb_store_hook *hook) {
    uint32_t capacities[EXTENTS];
    for (int i = 0; i < EXTENTS; i++) capacities[i] = BYTES;
    const pb_store_options options = {.directory = scratch_path("waiting"),
                                      .capacities = capacities,
                                      .extent_count = EXTENTS,
                                      .request_bytes = 16384,
                                      .depth = 8,
                                      .operations = 2 * EXTENTS,
                                      .engine = engine,
                                      .hook = hook};
    pb_store *store = NULL;
    const pb_status status = pb_store_open(&options, &store);
    if (status != PB_ERR_UNSUPPORTED) CHECK_OK(status);
    return store;
}

// Two lanes, one of writes and one of reads, without a wait for any one ticket: every rest ends with a completion.
static void test_lanes(pb_store *store, unsigned char *memory) {
    pb_ticket tickets[EXTENTS];
    bool under_way[EXTENTS] = {false}, writing[EXTENTS] = {false};
    int left = EXTENTS * ROUNDS, rounds[EXTENTS] = {0}, rests = 0;
    while (left > 0) {
        for (size_t i = 0; i < EXTENTS; i++) {
            unsigned char *data = memory + i * BYTES;
            if (under_way[i] && !pb_store_poll(store, tickets[i])) continue;
            if (under_way[i]) {
                CHECK_OK(pb_store_wait(store, tickets[i]));
                CHECK(writing[i] || store_holds(data, BYTES, 100 * i + (uint64_t)rounds[i]));
                under_way[i] = false;
                rounds[i] += !writing[i];
                left -= !writing[i];
                writing[i] = !writing[i];
            } else {
                writing[i] = true;
            }
            if (rounds[i] == ROUNDS) continue;
            if (writing[i]) store_fill(data, BYTES, 100 * i + (uint64_t)rounds[i]);
            if (!writing[i]) memset(data, 0, BYTES);
            CHECK_OK(writing[i] ? pb_store_write(store, i, i, 0, data, BYTES, &tickets[i])
                                : pb_store_read(store, i, i, data, BYTES, &tickets[i]));
            under_way[i] = true;
        }
        pb_store_submit(store);
        if (left > 0) CHECK(pb_store_wait_any(store, 20000));
        if (++rests > 100 * EXTENTS * ROUNDS) break;
    }
    CHECK(left == 0);
    CHECK_OK(pb_store_drain(store));
}

static void *wake_late(void *store) {
    nap_ms(30);
    pb_store_wake(store);
    return NULL;
}

static void test_wakes(pb_store *store, unsigned char *memory) {
    while (pb_store_wait_any(store, 0)) continue;  // what was done before is told of
    double start = pb_seconds_now();
    CHECK(!pb_store_wait_any(store, 30));
    CHECK(pb_seconds_now() - start >= 0.029);
    // A wake of before, also of several, ends one rest and no more.
    pb_store_wake(store);
    pb_store_wake(store);
    start = pb_seconds_now();
    CHECK(!pb_store_wait_any(store, 20000));
    CHECK(pb_seconds_now() - start < 10);
    start = pb_seconds_now();
    CHECK(!pb_store_wait_any(store, 30));
    CHECK(pb_seconds_now() - start >= 0.029);
    // Nothing is under way, and another thread has work.
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, wake_late, store));
    CHECK(!pb_store_wait_any(store, -1));
    CHECK(!pthread_join(thread, NULL));
    // A completion that a wait for another ticket took in is told of.
    pb_ticket first, second;
    CHECK_OK(pb_store_write(store, 0, 0, 0, memory, BYTES, &first));
    CHECK_OK(pb_store_write(store, 1, 1, 0, memory, BYTES, &second));
    CHECK_OK(pb_store_wait(store, second));
    CHECK_OK(pb_store_wait(store, first));
    CHECK(pb_store_wait_any(store, 20000));
    CHECK(!pb_store_wait_any(store, 0));
    // So is a failure.
    CHECK_OK(pb_store_read(store, 0, 5, memory, BYTES, &first));
    CHECK(pb_store_wait_any(store, 20000));
    CHECK(pb_store_poll(store, first) && pb_store_wait(store, first) == PB_ERR_IO);
}

// Waits for completions that the system refuses: the completions come all the same.
static bool refuse_waits(void *context, pb_store_call *call, long *result) {
    (void)context;
    *result = -EIO;
    return call->op == PB_STORE_RING_WAIT;
}

// --- A ring of one entry, so that most completions overflow it and the system keeps them elsewhere ---

static bool shrink_ring(void *context, pb_store_call *call, long *result) {
    (void)context, (void)result;
    if (call->op == PB_STORE_RING_SETUP) call->bytes = 1;
    return false;
}

// How many completions have no place in the ring; -1 where the system does not say.
static int count_overflown(void) {
    int count = -1;
    for (int fd = 3; fd < 64; fd++) {
        char path[64], line[256];
        snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
        FILE *file = fopen(path, "r");
        bool in_list = false;
        while (file && fgets(line, sizeof line, file)) {
            if (in_list && strstr(line, "user_data=")) count++;
            if (strncmp(line, "CqOverflowList:", 15)) continue;
            in_list = true;
            count = count < 0 ? 0 : count;
        }
        if (file) fclose(file);
    }
    return count;
}

static void test_overflow(unsigned char *memory) {
    const pb_store_hook hook = {NULL, shrink_ring, NULL};
    pb_store *store = open_store(PB_STORE_URING, &hook);
    pb_ticket tickets[EXTENTS];
    if (!store) return;
    for (size_t i = 0; i < EXTENTS; i++) {
        store_fill(memory + i * BYTES, BYTES, i);
        CHECK_OK(pb_store_write(store, i, i, 0, memory + i * BYTES, BYTES, &tickets[i]));
    }
    pb_store_submit(store);
    nap_ms(200);
    const int overflown = count_overflown();
    if (overflown < 0) printf("the system does not tell of completions that overflow\n");
    CHECK(overflown != 0);
    for (size_t i = 0; i < EXTENTS; i++) CHECK_OK(pb_store_wait(store, tickets[i]));
    memset(memory, 0, EXTENTS * BYTES);
    for (size_t i = 0; i < EXTENTS; i++) CHECK_OK(pb_store_read(store, i, i, memory + i * BYTES, BYTES, &tickets[i]));
    pb_store_submit(store);
    nap_ms(50);
    for (size_t done = 0; done < EXTENTS;) {  // each rest ends, although the ring itself has room for two
        done = 0;
        for (size_t i = 0; i < EXTENTS; i++) done += pb_store_poll(store, tickets[i]);
        if (done < EXTENTS && !pb_store_wait_any(store, 20000)) break;
    }
    for (size_t i = 0; i < EXTENTS; i++) {
        CHECK_OK(pb_store_wait(store, tickets[i]));
        CHECK(store_holds(memory + i * BYTES, BYTES, i));
    }
    test_lanes(store, memory);
    CHECK_OK(pb_store_close(store, false));
}

int main(void) {
    unsigned char *memory = store_memory(EXTENTS * BYTES);
    int engines = 0;
    for (int engine = PB_STORE_URING; engine <= PB_STORE_THREADS; engine++) {
        const pb_store_hook refusing = {NULL, refuse_waits, NULL};
        for (int refused = 0; refused < 2; refused++) {
            pb_store *store = open_store((pb_store_engine)engine, refused ? &refusing : NULL);
            if (!store) continue;
            engines++;
            test_lanes(store, memory);
            test_wakes(store, memory);
            CHECK_OK(pb_store_close(store, false));
        }
    }
    CHECK(engines >= 2);
    test_overflow(memory);
    free(memory);
    scratch_remove();
    return CHECK_DONE();
}
