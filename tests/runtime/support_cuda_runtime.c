#include "support_cuda_runtime.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_math.h"
#include "kernels/cuda/cuda_resize.h"

fake_machine fake = {.gpus = 1, .driver = 13000, .runtime = 13000, .major = 8, .minor = 6, .memory = 64 << 20};

static atomic_int objects;
static _Atomic(uint64_t) seed;

int fake_objects(void) {
    return objects;
}

void fake_seed(uint64_t value) {
    seed = value;
}

// --- Failures ---

static struct {
    pthread_mutex_t lock;
    char function[32];
    int at;
    cudaError_t error, broken, last;
} faults = {.lock = PTHREAD_MUTEX_INITIALIZER};

void fake_fail(const char *function, int at, cudaError_t error) {
    pthread_mutex_lock(&faults.lock);
    strncpy(faults.function, function, sizeof faults.function - 1);
    faults.at = at;
    faults.error = error;
    pthread_mutex_unlock(&faults.lock);
}

void fake_repair(void) {
    pthread_mutex_lock(&faults.lock);
    faults.at = 0;
    faults.broken = faults.last = cudaSuccess;
    pthread_mutex_unlock(&faults.lock);
}

static bool breaks(cudaError_t error) {
    return error == cudaErrorIllegalAddress || error == cudaErrorLaunchFailure || error == cudaErrorECCUncorrectable ||
           error == cudaErrorLaunchTimeout;
}

// The error that a call of `function` is to return.
static cudaError_t enter(const char *function) {
    pthread_mutex_lock(&faults.lock);
    cudaError_t error = faults.broken;
    if (faults.at > 0 && strcmp(function, faults.function) == 0 && --faults.at == 0) error = faults.error;
    // What fails in a stream breaks the context, whatever it is.
    if (breaks(error) || (error != cudaSuccess && strcmp(function, "kernel") == 0)) faults.broken = error;
    if (error != cudaSuccess) faults.last = error;
    pthread_mutex_unlock(&faults.lock);
    return error;
}
#define ENTER(function) \
    do { \
        const cudaError_t error_ = enter(#function); \
        if (error_ != cudaSuccess) return error_; \
    } while (0)

cudaError_t cudaGetLastError(void) {
    pthread_mutex_lock(&faults.lock);
    const cudaError_t error = faults.last;
    faults.last = faults.broken;
    pthread_mutex_unlock(&faults.lock);
    return error;
}

const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory" : "an error of the test's";
}

const char *cudaGetErrorName(cudaError_t error) {
    (void)error;
    return "cudaErrorOfTheTest";
}

// --- The machine ---

cudaError_t cudaGetDeviceCount(int *count) {
    *count = fake.driver >= fake.runtime ? fake.gpus : 0;
    return !fake.driver || fake.driver < fake.runtime ? cudaErrorInsufficientDriver
           : *count                                   ? cudaSuccess
                                                      : cudaErrorNoDevice;
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = fake.driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = fake.runtime;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    (void)device;
    memset(p, 0, sizeof *p);
    strcpy(p->name, "GPU of a test");
    p->major = fake.major;
    p->minor = fake.minor;
    p->totalGlobalMem = fake.memory;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    (void)attribute;
    (void)device;
    *value = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    (void)device;
    ENTER(cudaSetDevice);
    return cudaSuccess;
}

// --- Memory. What is allocated on the device has its size in front. ---

static _Atomic(size_t) used;

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = fake.memory - used;
    *total = fake.memory;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    ENTER(cudaMalloc);
    if (bytes > fake.memory - used) {
        pthread_mutex_lock(&faults.lock);
        faults.last = cudaErrorMemoryAllocation;
        pthread_mutex_unlock(&faults.lock);
        return cudaErrorMemoryAllocation;
    }
    size_t *block = aligned_alloc(256, (bytes + 511) / 256 * 256);
    if (!block) abort();
    memset(block, 0xff, (bytes + 511) / 256 * 256);
    *block = bytes;
    used += bytes;
    objects++;
    *memory = (char *)block + 256;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory) {
    const cudaError_t error = enter("cudaFree");
    size_t *block = (size_t *)(void *)((char *)memory - 256);
    used -= *block;
    objects--;
    free(block);
    return error;
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes) {
    ENTER(cudaMemset);
    memset(memory, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) {
    ENTER(cudaDeviceSynchronize);
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned flags) {
    (void)memory;
    (void)bytes;
    (void)flags;
    ENTER(cudaHostRegister);
    if (fake.no_lock) return cudaErrorMemoryAllocation;
    objects++;
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *memory) {
    (void)memory;
    objects--;
    return cudaSuccess;
}

// --- Events: `recorded` counts records that were asked for, `reached` those that the stream has come to. ---

struct CUevent_st {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    uint64_t recorded, reached;
    double at;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    (void)flags;
    ENTER(cudaEventCreateWithFlags);
    *event = calloc(1, sizeof **event);
    if (!*event) abort();
    pthread_mutex_init(&(*event)->lock, NULL);
    pthread_cond_init(&(*event)->moved, NULL);
    objects++;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    pthread_mutex_destroy(&event->lock);
    pthread_cond_destroy(&event->moved);
    free(event);
    objects--;
    return cudaSuccess;
}

static void reach(cudaEvent_t event, uint64_t record) {
    pthread_mutex_lock(&event->lock);
    if (record > event->reached) event->reached = record;
    event->at = now();
    pthread_cond_broadcast(&event->moved);
    pthread_mutex_unlock(&event->lock);
}

static void await(cudaEvent_t event, uint64_t record) {
    pthread_mutex_lock(&event->lock);
    while (event->reached < record) pthread_cond_wait(&event->moved, &event->lock);
    pthread_mutex_unlock(&event->lock);
}

static uint64_t recorded(cudaEvent_t event) {
    pthread_mutex_lock(&event->lock);
    const uint64_t value = event->recorded;
    pthread_mutex_unlock(&event->lock);
    return value;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    ENTER(cudaEventSynchronize);
    await(event, recorded(event));
    return enter("after cudaEventSynchronize");
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    ENTER(cudaEventQuery);
    pthread_mutex_lock(&event->lock);
    const bool done = event->reached == event->recorded;
    pthread_mutex_unlock(&event->lock);
    return done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    ENTER(cudaEventElapsedTime);
    *milliseconds = (float)((end->at - begin->at) * 1e3);
    return cudaSuccess;
}

// --- Streams ---

typedef enum item_kind {
    ITEM_COPY,
    ITEM_CALL,
    ITEM_CALLBACK,
    ITEM_KERNEL,
    ITEM_RECORD,
    ITEM_WAIT,
    ITEM_STOP
} item_kind;

typedef struct item {
    item_kind kind;
    void *to;                         // COPY
    const void *from;                 // COPY
    size_t bytes;                     // COPY
    void (*function)(void *context);  // CALL
    void *context;                    // CALL
    cudaStreamCallback_t callback;    // CALLBACK, with `context`
    pb_opcode op;                     // KERNEL
    const pb_kernel_args *args;       // KERNEL
    cudaEvent_t event;                // RECORD, WAIT
    uint64_t record;                  // RECORD, WAIT
    struct item *next;
} item;

struct CUstream_st {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    item *first, **last;
    uint64_t pushed, done;
    uint64_t random;
};

// Mostly nothing or little, now and then long enough for the other streams to run far ahead.
static void dawdle(uint64_t *random) {
    if (!seed) return;
    *random = (*random ^ seed) * 6364136223846793005u + 1442695040888963407u;
    const uint32_t draw = (uint32_t)(*random >> 33), kind = draw % 8;
    const struct timespec nap = {0, (long)(kind < 4 ? 0 : kind < 7 ? draw / 8 % 100 : draw / 8 % 1000) * 1000};
    if (nap.tv_nsec) nanosleep(&nap, NULL);
}

static void perform(const item *i) {
    // A broken context does nothing any more, but its waits end.
    const bool dead = (i->kind == ITEM_COPY || i->kind == ITEM_CALL || i->kind == ITEM_KERNEL) &&
                      enter(i->kind == ITEM_KERNEL ? "kernel" : "stream") != cudaSuccess;
    switch (i->kind) {
    case ITEM_COPY:
        if (!dead) memcpy(i->to, i->from, i->bytes);
        break;
    case ITEM_CALL:
        if (!dead) i->function(i->context);
        break;
    case ITEM_CALLBACK: i->callback(NULL, enter("callback"), i->context); break;  // also when all is lost
    case ITEM_KERNEL:
        if (!dead) pb_backend_cpu()->kernels[i->op](i->args);
        break;
    case ITEM_RECORD: reach(i->event, i->record); break;
    case ITEM_WAIT: await(i->event, i->record); break;
    default: break;
    }
}

static void *work(void *context) {
    cudaStream_t s = context;
    for (bool stop = false; !stop;) {
        pthread_mutex_lock(&s->lock);
        while (!s->first) pthread_cond_wait(&s->moved, &s->lock);
        item *i = s->first;
        s->first = i->next;
        if (!s->first) s->last = &s->first;
        pthread_mutex_unlock(&s->lock);
        dawdle(&s->random);
        perform(i);
        stop = i->kind == ITEM_STOP;
        free(i);
        pthread_mutex_lock(&s->lock);
        s->done++;
        pthread_cond_broadcast(&s->moved);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

static void push(cudaStream_t s, item value) {
    item *i = malloc(sizeof *i);
    if (!i) abort();
    *i = value;
    i->next = NULL;
    pthread_mutex_lock(&s->lock);
    *s->last = i;
    s->last = &i->next;
    s->pushed++;
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    (void)flags;
    ENTER(cudaStreamCreateWithFlags);
    cudaStream_t s = calloc(1, sizeof *s);
    if (!s) abort();
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->moved, NULL);
    s->last = &s->first;
    s->random = (uint64_t)(uintptr_t)s;
    if (pthread_create(&s->thread, NULL, work, s)) abort();
    objects++;
    *stream = s;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s) {
    push(s, (item){.kind = ITEM_STOP});
    pthread_join(s->thread, NULL);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->moved);
    free(s);
    objects--;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    pthread_mutex_lock(&s->lock);
    while (s->done < s->pushed) pthread_cond_wait(&s->moved, &s->lock);
    pthread_mutex_unlock(&s->lock);
    ENTER(cudaStreamSynchronize);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t s) {
    ENTER(cudaEventRecord);
    pthread_mutex_lock(&event->lock);
    const uint64_t record = ++event->recorded;
    pthread_mutex_unlock(&event->lock);
    push(s, (item){.kind = ITEM_RECORD, .event = event, .record = record});
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t event, unsigned flags) {
    (void)flags;
    ENTER(cudaStreamWaitEvent);
    push(s, (item){.kind = ITEM_WAIT, .event = event, .record = recorded(event)});
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s) {
    (void)kind;
    ENTER(cudaMemcpyAsync);
    push(s, (item){.kind = ITEM_COPY, .to = to, .from = from, .bytes = bytes});
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t function, void *context) {
    ENTER(cudaLaunchHostFunc);
    push(s, (item){.kind = ITEM_CALL, .function = function, .context = context});
    return cudaSuccess;
}

cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t callback, void *context, unsigned flags) {
    (void)flags;
    ENTER(cudaStreamAddCallback);
    push(s, (item){.kind = ITEM_CALLBACK, .callback = callback, .context = context});
    return cudaSuccess;
}

// --- Kernels: what the device launches, into the same queues ---

static pb_status launch(pb_opcode op, const pb_kernel_args *args, void *stream) {
    push(stream, (item){.kind = ITEM_KERNEL, .op = op, .args = args});
    return PB_OK;
}

#define PB_OP(name, NAME, gradient, kind, inplace) \
    static pb_status launch_##name(const pb_kernel_args *args, void *stream) { \
        return launch(PB_OP_##NAME, args, stream); \
    }
#include "base/ops.def"
#undef PB_OP

const pb_cuda_launcher pb_cuda_launchers[PB_OP_COUNT] = {
#define PB_OP(name, NAME, gradient, kind, inplace) launch_##name,
#include "base/ops.def"
#undef PB_OP
};

pb_status pb_cuda_math_create(cudaStream_t stream, int capability, pb_cuda_math **math) {
    (void)stream;
    (void)capability;
    *math = NULL;
    return PB_OK;
}

void pb_cuda_math_destroy(pb_cuda_math *math) {
    (void)math;
}

pb_status pb_cuda_prepare(pb_opcode op, const pb_kernel_args *args, void *stream) {
    (void)op;
    (void)args;
    (void)stream;
    return PB_OK;
}

pb_status pb_cuda_probe(void *stream) {
    (void)stream;
    return fake.no_code ? pb_error(PB_ERR_INTERNAL, "no kernel image is available") : PB_OK;
}

const pb_backend *fake_backend(void) {
    static pb_backend backend;
    backend = *pb_backend_cpu();
    backend.name = "cuda on a runtime of the tests";
    backend.kernels = NULL;
    backend.device = &pb_cuda_device_calls;
    return &backend;
}
