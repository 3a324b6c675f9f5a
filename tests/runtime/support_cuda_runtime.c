#include <cuda.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_math.h"
#include "kernels/cuda/cuda_resize.h"
#include "support_cuda_parts.h"

fake_machine fake = {.gpus = 1, .driver = 13000, .runtime = 13000, .major = 8, .minor = 6, .memory = 256 << 20};

atomic_int fake_object_count;
static _Atomic(uint64_t) counts[FAKE_COUNTS];

int fake_objects(void) {
    return fake_object_count;
}

uint64_t fake_count(fake_counter which) {
    return counts[which];
}

void fake_counted(fake_counter which, uint64_t by) {
    counts[which] += by;
}

// --- Breaches ---

static _Atomic(uint64_t) breaches;
static _Atomic(const char *) breach = "";
_Thread_local bool fake_is_inside;

uint64_t fake_breaches(void) {
    return breaches;
}

const char *fake_breach(void) {
    return breach;
}

void fake_break_rule(const char *rule) {
    breach = rule;
    breaches++;
}

// --- Failures ---

static _Thread_local cudaError_t last;
static struct {
    pthread_mutex_t lock;
    char function[32];
    int at;
    cudaError_t error, broken;
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
    faults.broken = last = cudaSuccess;
    pthread_mutex_unlock(&faults.lock);
}

static bool breaks(cudaError_t error) {
    return error == cudaErrorIllegalAddress || error == cudaErrorLaunchFailure || error == cudaErrorECCUncorrectable ||
           error == cudaErrorLaunchTimeout;
}

// The error that a call of `function` is to return.
cudaError_t fake_enter(const char *function) {
    if (fake_is_inside && !strncmp(function, "cu", 2)) fake_break_rule("a call of CUDA's from within a host function");
    pthread_mutex_lock(&faults.lock);
    cudaError_t error = faults.broken;
    if (faults.at > 0 && strcmp(function, faults.function) == 0 && --faults.at == 0) error = faults.error;
    // What fails in a stream breaks the context, whatever it is.
    const bool in_stream = !strcmp(function, "kernel") || !strcmp(function, "stream");
    if (breaks(error) || (error != cudaSuccess && in_stream)) faults.broken = error;
    pthread_mutex_unlock(&faults.lock);
    if (error != cudaSuccess) last = error;
    return error;
}

bool fake_is_broken(void) {
    pthread_mutex_lock(&faults.lock);
    const bool broken = faults.broken != cudaSuccess;
    pthread_mutex_unlock(&faults.lock);
    return broken;
}

cudaError_t fake_refuse(cudaError_t error) {
    last = error;
    return error;
}

cudaError_t cudaGetLastError(void) {
    const cudaError_t error = last;
    pthread_mutex_lock(&faults.lock);
    last = faults.broken;
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

static _Thread_local int current_gpu;

int fake_current_gpu(void) {
    return current_gpu;
}

cudaError_t cudaSetDevice(int device) {
    ENTER(cudaSetDevice);
    if (device < 0 || device >= fake.gpus) return fake_refuse(cudaErrorInvalidDevice);
    if (!fake.sticks_to_its_gpu) current_gpu = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
    ENTER(cudaGetDevice);
    *device = current_gpu;
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
    UNSAFE();
    if (bytes > fake.memory - used) return fake_refuse(cudaErrorMemoryAllocation);
    size_t *block = aligned_alloc(256, (bytes + 511) / 256 * 256);
    if (!block) abort();
    memset(block, 0xff, (bytes + 511) / 256 * 256);
    *block = bytes;
    used += bytes;
    fake_object_count++;
    *memory = (char *)block + 256;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory) {
    const cudaError_t error = fake_enter("cudaFree");
    UNSAFE();
    size_t *block = (size_t *)(void *)((char *)memory - 256);
    used -= *block;
    fake_object_count--;
    free(block);
    return error;
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes) {
    ENTER(cudaMemset);
    UNSAFE();
    memset(memory, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) {
    ENTER(cudaDeviceSynchronize);
    UNSAFE();
    return cudaSuccess;
}

// What is page-locked.
static struct {
    pthread_mutex_t lock;
    struct {
        const char *begin;
        size_t bytes;
    } range[64];
} locked = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void set_locked(const void *from, const void *begin, size_t bytes) {
    pthread_mutex_lock(&locked.lock);
    for (int i = 0; i < 64; i++) {
        if (locked.range[i].begin != from) continue;
        locked.range[i].begin = begin;
        locked.range[i].bytes = bytes;
        pthread_mutex_unlock(&locked.lock);
        return;
    }
    abort();  // too many ranges, or one that is none
}

bool fake_is_locked(const void *memory, size_t bytes) {
    bool yes = false;
    const char *at = memory;
    pthread_mutex_lock(&locked.lock);
    for (int i = 0; i < 64; i++)
        yes |= locked.range[i].begin && at >= locked.range[i].begin &&
               at + bytes <= locked.range[i].begin + locked.range[i].bytes;
    pthread_mutex_unlock(&locked.lock);
    return yes;
}

cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned flags) {
    (void)flags;
    ENTER(cudaHostRegister);
    UNSAFE();
    if (fake.no_lock) return fake_refuse(cudaErrorMemoryAllocation);
    set_locked(NULL, memory, bytes);
    fake_object_count++;
    return cudaSuccess;
}

static void give_up_locked(void *memory) {
    if (fake_work_under_way() && !fake_is_broken()) fake_break_rule("locked memory was given up beside work under way");
    set_locked(memory, NULL, 0);
}

cudaError_t cudaHostUnregister(void *memory) {
    give_up_locked(memory);
    fake_object_count--;
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags) {
    (void)flags;
    ENTER(cudaHostAlloc);
    UNSAFE();
    if (fake.most_locked && bytes > fake.most_locked) return fake_refuse(cudaErrorMemoryAllocation);
    *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!*memory) abort();
    set_locked(NULL, *memory, bytes);
    fake_object_count++;
    return cudaSuccess;
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
    (void)flags;
    ENTER(cudaHostGetDevicePointer);
    *device = host;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory) {
    give_up_locked(memory);
    free(memory);
    fake_object_count--;
    return cudaSuccess;
}

// --- Events: `recorded` counts records that were asked for, `reached` those that the stream has come to. ---

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    ENTER(cudaEventCreateWithFlags);
    *event = calloc(1, sizeof **event);
    if (!*event) abort();
    pthread_mutex_init(&(*event)->lock, NULL);
    pthread_cond_init(&(*event)->moved, NULL);
    (*event)->gpu = current_gpu;
    (*event)->timed = !(flags & cudaEventDisableTiming);
    fake_object_count++;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    pthread_mutex_destroy(&event->lock);
    pthread_cond_destroy(&event->moved);
    free(event);
    fake_object_count--;
    return cudaSuccess;
}

void fake_reach(cudaEvent_t event, uint64_t record) {
    pthread_mutex_lock(&event->lock);
    if (record > event->reached) event->reached = record;
    event->at = now();
    pthread_cond_broadcast(&event->moved);
    pthread_mutex_unlock(&event->lock);
}

void fake_await(cudaEvent_t event, uint64_t record) {
    pthread_mutex_lock(&event->lock);
    while (event->reached < record) pthread_cond_wait(&event->moved, &event->lock);
    pthread_mutex_unlock(&event->lock);
}

uint64_t fake_recorded(cudaEvent_t event) {
    pthread_mutex_lock(&event->lock);
    const uint64_t value = event->recorded;
    pthread_mutex_unlock(&event->lock);
    return value;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    ENTER(cudaEventSynchronize);
    if (event->captured) return fake_refuse(cudaErrorCapturedEvent);
    fake_await(event, fake_recorded(event));
    return fake_enter("after cudaEventSynchronize");
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    ENTER(cudaEventQuery);
    if (event->captured) return fake_refuse(cudaErrorCapturedEvent);
    fake_driver_pass();
    pthread_mutex_lock(&event->lock);
    const bool done = event->reached == event->recorded;
    pthread_mutex_unlock(&event->lock);
    return done ? cudaSuccess : fake_refuse(cudaErrorNotReady);
}

// Errors as CUDA has them, in its order.
static cudaError_t time_of(cudaEvent_t event, double *at) {
    pthread_mutex_lock(&event->lock);
    const bool has_time = event->timed && event->recorded, done = event->reached == event->recorded;
    *at = event->at;
    pthread_mutex_unlock(&event->lock);
    return !has_time ? cudaErrorInvalidResourceHandle : done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    ENTER(cudaEventElapsedTime);
    double from, to;
    cudaError_t error = time_of(begin, &from);
    if (error == cudaSuccess) error = time_of(end, &to);
    if (error != cudaSuccess) return fake_refuse(error);
    *milliseconds = (float)((to - from) * 1e3);
    return cudaSuccess;
}

// --- What stands beside the device ---

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

const pb_backend *fake_backend_at(int ordinal) {
    static pb_backend backends[4];
    pb_backend *backend = &backends[ordinal];
    *backend = *pb_backend_cpu();
    backend->name = "cuda on a runtime of the tests";
    backend->kernels = NULL;
    backend->device = &pb_cuda_device_calls;
    backend->ordinal = ordinal;
    return backend;
}

const pb_backend *fake_backend(void) {
    return fake_backend_at(0);
}
