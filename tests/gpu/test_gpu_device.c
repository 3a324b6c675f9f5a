// test: links=cuda,cpu,base timeout=300
// A GPU as a device: lanes in order and beside one another, marks and waits, AdamW on lane HOST with the CPU backend's
// bits, streams that wait for the store, sizes that do not fit, and a failure that stays. Skipped without a GPU.
#include <pthread.h>
#include <stdlib.h>

#include "base/gate.h"
#include "check.h"
#include "support_gpu.h"

enum { WORDS = 1 << 20, ROUNDS = 200 };

static gpu card;

#define CALL(name, ...) card.backend->device->name(card.device, __VA_ARGS__)

// Ping-pong over two slabs: each round uploads a buffer, doubles it there by an add, downloads it to another buffer,
// from which the next round uploads. Only marks keep the lanes apart.
static void check_lanes(void) {
    const uint64_t bytes = WORDS * sizeof(float);
    void *memory = NULL;
    CHECK_OK(CALL(host_allocate, 2 * bytes + 4096, &memory));
    float *host = memory;
    if (!host) return;
    CHECK((uintptr_t)host % 4096 == 0 && host[0] == 0 && host[2 * WORDS - 1] == 0);
    for (int i = 0; i < WORDS; i++) host[i] = (float)(i % 1000) * 0x1p-100f;
    float *x = (float *)card.slab;
    static pb_kernel_args args;
    args = (pb_kernel_args){.in = {{x, PB_F32, PB_SHAPE1(WORDS)}, {x, PB_F32, PB_SHAPE1(WORDS)}},
                            .out = {{x + WORDS, PB_F32, PB_SHAPE1(WORDS)}}};
    CHECK_OK(CALL(prepare, PB_LANE_COMPUTE, PB_OP_ADD, &args));
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        float *from = host + (round % 2 ? 0 : WORDS), *to = host + (round % 2 ? WORDS : 0);
        if (round > 1) {
            CHECK_OK(CALL(lane_wait, PB_LANE_UPLOAD, PB_LANE_COMPUTE, round - 1));   // x is read
            CHECK_OK(CALL(lane_wait, PB_LANE_UPLOAD, PB_LANE_DOWNLOAD, round - 1));  // `from` is written
        }
        CHECK_OK(CALL(copy, PB_LANE_UPLOAD, x, from, bytes));
        CHECK_OK(CALL(record, PB_LANE_UPLOAD, round));
        CHECK_OK(CALL(lane_wait, PB_LANE_COMPUTE, PB_LANE_UPLOAD, round));
        if (round > 1) CHECK_OK(CALL(lane_wait, PB_LANE_COMPUTE, PB_LANE_DOWNLOAD, round - 1));
        CHECK_OK(CALL(run, PB_LANE_COMPUTE, PB_OP_ADD, &args));
        CHECK_OK(CALL(record, PB_LANE_COMPUTE, round));
        CHECK_OK(CALL(lane_wait, PB_LANE_DOWNLOAD, PB_LANE_COMPUTE, round));
        CHECK_OK(CALL(copy, PB_LANE_DOWNLOAD, to, x + WORDS, bytes));
        CHECK_OK(CALL(record, PB_LANE_DOWNLOAD, round));
    }
    bool yes = false;
    CHECK_OK(CALL(wait, PB_LANE_DOWNLOAD, ROUNDS));
    CHECK_OK(CALL(reached, PB_LANE_DOWNLOAD, ROUNDS, &yes));
    CHECK(yes);
    const float *result = host + (ROUNDS % 2 ? WORDS : 0);
    int wrong = 0;
    for (int i = 0; i < WORDS; i++) wrong += result[i] != (float)(i % 1000) * 0x1p100f;
    CHECK_THAT(wrong == 0, "%d of %d words are wrong after %d rounds", wrong, WORDS, ROUNDS);
    CHECK_OK(card.backend->device->synchronize(card.device));
    card.backend->device->host_release(card.device, host);
}

// AdamW on the host slab between a download and an upload.
static void check_host_lane(void) {
    enum { COUNT = 100003 };
    const uint64_t bytes = COUNT * sizeof(float);
    const uint64_t first_mark = 1000;
    void *memory = NULL;
    CHECK_OK(CALL(host_allocate, 4 * bytes + 256, &memory));
    float *expected = malloc(4 * bytes), *host = memory;
    if (!host || !expected) return;
    static float hyper[PB_HYPER_COUNT], control[PB_CONTROL_COUNT];
    hyper[PB_HYPER_LR] = hyper[PB_HYPER_STEP_SIZE] = 1e-3f;
    hyper[PB_HYPER_BETA2] = 0.999f;
    hyper[PB_HYPER_EPS] = 1e-8f;
    hyper[PB_HYPER_DECAY] = hyper[PB_HYPER_SQRT_BIAS2] = 1;
    hyper[PB_HYPER_ONE_MINUS_BETA1] = 0.1f;
    hyper[PB_HYPER_ONE_MINUS_BETA2] = 0.001f;
    control[PB_CONTROL_SCALE] = 1;
    for (int i = 0; i < 4 * COUNT; i++) expected[i] = (float)(i % 997) / 997;  // g, master, m, v
    static pb_kernel_args args, plain;
    const pb_shape shape = PB_SHAPE1(COUNT);
    for (int i = 0; i < 2; i++) {
        float *base = i ? expected : host;
        *(i ? &plain : &args) = (pb_kernel_args){.in = {{base, PB_F32, shape},
                                                        {control, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT)},
                                                        {hyper, PB_F32, PB_SHAPE1(PB_HYPER_COUNT)},
                                                        {base + COUNT, PB_F32, shape},
                                                        {base + 2 * COUNT, PB_F32, shape},
                                                        {base + 3 * COUNT, PB_F32, shape}},
                                                 .out = {{base + COUNT, PB_F32, shape},
                                                         {base + 2 * COUNT, PB_F32, shape},
                                                         {base + 3 * COUNT, PB_F32, shape}}};
    }
    CHECK_OK(CALL(write, card.slab, expected, 4 * bytes));
    CHECK_OK(CALL(copy, PB_LANE_DOWNLOAD, host, card.slab, 4 * bytes));
    CHECK_OK(CALL(record, PB_LANE_DOWNLOAD, first_mark));
    CHECK_OK(CALL(lane_wait, PB_LANE_HOST, PB_LANE_DOWNLOAD, first_mark));
    for (int i = 0; i < 3; i++) CHECK_OK(CALL(run, PB_LANE_HOST, PB_OP_ADAMW, &args));
    CHECK_OK(CALL(record, PB_LANE_HOST, first_mark));
    CHECK_OK(CALL(lane_wait, PB_LANE_UPLOAD, PB_LANE_HOST, first_mark));
    CHECK_OK(CALL(copy, PB_LANE_UPLOAD, card.slab, host, 4 * bytes));
    CHECK_OK(card.backend->device->synchronize(card.device));
    for (int i = 0; i < 3; i++) pb_backend_cpu()->kernels[PB_OP_ADAMW](&plain);
    memset(host, 0, 4 * bytes);
    CHECK_OK(CALL(read, host, card.slab, 4 * bytes));
    CHECK(memcmp(host, expected, 4 * bytes) == 0);
    card.backend->device->host_release(card.device, host);
    free(expected);
}

// Marks far beyond what a ring of events holds: old ones can still be asked for.
static void check_many_marks(void) {
    for (uint64_t mark = 1; mark <= 10000; mark++) CHECK_OK(CALL(record, PB_LANE_HOST, (UINT64_C(1) << 40) + mark));
    CHECK_OK(CALL(wait, PB_LANE_HOST, (UINT64_C(1) << 40) + 1));
    bool yes = false;
    CHECK_OK(CALL(wait, PB_LANE_HOST, (UINT64_C(1) << 40) + 10000));
    CHECK_OK(CALL(reached, PB_LANE_HOST, (UINT64_C(1) << 40) + 5000, &yes));
    CHECK(yes);
}

// What the I/O thread does: brings bytes and says so, round by round, as soon as the bytes before have gone.
enum { TRANSFERS = 300 };
static unsigned char *arrivals;  // page-locked; transfer n lies in half n % 2
static pb_gate issued;           // uploads, whose marks may be asked for
static const uint64_t base = UINT64_C(2) << 40;

static void *bring(void *context) {
    (void)context;
    for (uint64_t n = 1; n <= TRANSFERS; n++) {
        bool yes = n <= 2;
        if (!yes) pb_gate_wait(&issued, n - 2);
        while (!yes && CALL(reached, PB_LANE_UPLOAD, base + n - 2, &yes) == PB_OK) {
        }
        memset(arrivals + n % 2 * 4096, (int)(n % 251), 4096);
        CALL(signal, PB_LANE_READ, n);
    }
    return NULL;
}

// Streams wait for the store by themselves, far ahead of it, and see what it has brought.
static void check_signals(void) {
    void *memory = NULL;
    pthread_t thread;
    CHECK_OK(CALL(host_allocate, 2 * 4096 + (uint64_t)TRANSFERS * 4096, &memory));
    if (!memory) return;
    arrivals = memory;
    unsigned char *back = arrivals + 2 * 4096;
    const bool started = !pthread_create(&thread, NULL, bring, NULL);
    CHECK(started);
    for (uint64_t n = 1; started && n <= TRANSFERS; n++) {
        CHECK_OK(CALL(lane_wait, PB_LANE_UPLOAD, PB_LANE_READ, n));
        if (n > 1) CHECK_OK(CALL(lane_wait, PB_LANE_UPLOAD, PB_LANE_DOWNLOAD, base + n - 1));
        CHECK_OK(CALL(copy, PB_LANE_UPLOAD, card.slab, arrivals + n % 2 * 4096, 4096));
        CHECK_OK(CALL(record, PB_LANE_UPLOAD, base + n));
        pb_gate_set(&issued, n);
        CHECK_OK(CALL(lane_wait, PB_LANE_DOWNLOAD, PB_LANE_UPLOAD, base + n));
        CHECK_OK(CALL(copy, PB_LANE_DOWNLOAD, back + (n - 1) * 4096, card.slab, 4096));
        CHECK_OK(CALL(record, PB_LANE_DOWNLOAD, base + n));
    }
    CHECK_OK(card.backend->device->synchronize(card.device));
    if (started) pthread_join(thread, NULL);
    int wrong = 0;
    for (uint64_t n = 1; n <= TRANSFERS; n++)
        for (int i = 0; i < 4096; i++) wrong += back[(n - 1) * 4096 + (uint64_t)i] != n % 251;
    CHECK_THAT(wrong == 0, "%d bytes are not what the store brought", wrong);
    card.backend->device->host_release(card.device, memory);
}

static void check_failures_of_memory(void) {
    void *memory = NULL;
    CHECK(CALL(device_allocate, UINT64_C(1) << 50, &memory) == PB_ERR_MEMORY && !memory);
    CHECK_THAT(strstr(pb_error_message(), "are free"), "message: %s", pb_error_message());
    // That broke nothing.
    CHECK_OK(CALL(device_allocate, 1 << 20, &memory));
    unsigned char bytes[64];
    memset(bytes, 1, sizeof bytes);
    CHECK_OK(CALL(read, bytes, memory, sizeof bytes));
    for (size_t i = 0; i < sizeof bytes; i++) CHECK(bytes[i] == 0);
    card.backend->device->device_release(card.device, memory);
}

#ifndef PB_REHEARSAL  // where a bad access would end the test itself
// Last of all: an access to no memory breaks the GPU's context, and every call from then on says so.
static void check_failure_stays(void) {
    static pb_kernel_args args;
    void *nowhere = (void *)(uintptr_t)4096;
    args = (pb_kernel_args){.in = {{nowhere, PB_F32, PB_SHAPE1(64)}, {nowhere, PB_F32, PB_SHAPE1(64)}},
                            .out = {{nowhere, PB_F32, PB_SHAPE1(64)}}};
    pb_status status = CALL(run, PB_LANE_COMPUTE, PB_OP_ADD, &args);
    if (status == PB_OK) status = card.backend->device->synchronize(card.device);
    CHECK(status != PB_OK);
    char first[600];
    snprintf(first, sizeof first, "%s", pb_error_message());
    CHECK(CALL(record, PB_LANE_UPLOAD, UINT64_MAX) == status && strcmp(first, pb_error_message()) == 0);
    unsigned char byte;
    CHECK(CALL(read, &byte, card.slab, 1) == status && strcmp(first, pb_error_message()) == 0);
    printf("after a bad access: %s\n", first);
}
#endif

int main(void) {
    if (!gpu_open(&card, UINT64_C(64) << 20)) return 77;
    check_lanes();
    check_host_lane();
    check_many_marks();
    check_signals();
    check_failures_of_memory();
#ifndef PB_REHEARSAL
    check_failure_stays();
#endif
    gpu_close(&card);
    return CHECK_DONE();
}
