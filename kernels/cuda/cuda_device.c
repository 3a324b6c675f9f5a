// Four streams, one per lane. COMPUTE, UPLOAD and DOWNLOAD are what they are called. HOST is a stream too: AdamW runs
// in host functions that the driver calls in the stream's order, so that a mark of any lane is an event, and every wait
// between lanes is the driver's. Nothing on the host sits between a download, the update and the upload of its result.
//
// The first failure stays: a GPU that has lost an instruction cannot be trusted with the next. Every later call returns
// it at once.
#include "kernels/cuda/cuda_device.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_marks.h"
#include "kernels/cuda/cuda_math.h"
#include "kernels/cuda/cuda_resize.h"
#include "kernels/cuda/cuda_target.h"
#include "kernels/cuda/cuda_times.h"

enum { LANES = PB_LANE_HOST + 1, HUGE_PAGE = 2 << 20, CALLS = 1024 };

// A host slab: to give it back takes what was mapped, and whether CUDA knows it.
typedef struct host_slab {
    void *memory, *mapping;
    size_t mapped;
    bool locked;
    struct host_slab *next;
} host_slab;

// A call that is to be made when a lane has come that far.
typedef struct lane_call {
    void (*function)(void *context);
    void *context;
    cudaStream_t stream;
    _Atomic(bool) busy;
} lane_call;

struct pb_device {
    int ordinal;
    lane_call calls[CALLS];
    uint64_t next_call;
    cudaStream_t stream[LANES];
    pb_cuda_marks marks[LANES];
    pb_cuda_times times;
    pb_cuda_math *math;
    host_slab *slabs;
    pb_cuda_target target;
    char note[400];
    // The failure that stays; written once, under the lock, before `failed` is set.
    pthread_mutex_t lock;
    _Atomic(bool) failed;
    pb_status status;
    char failure[600];
};

// --- Failures ---

static pb_status failure_of(pb_device *d) {
    return pb_error(d->status, "%s", d->failure);
}

// Keeps the message that was just recorded, as what every later call will say.
static pb_status fail(pb_device *d, pb_status status) {
    pthread_mutex_lock(&d->lock);
    if (!d->failed) {
        d->status = status;
        snprintf(d->failure, sizeof d->failure, "%s", pb_error_message());
        d->failed = true;
    }
    pthread_mutex_unlock(&d->lock);
    return status;
}

static pb_status describe(const pb_device *d, cudaError_t error, const char *what) {
    const int n = d->ordinal;
    const char *text = cudaGetErrorString(error);
    switch (error) {
    case cudaErrorMemoryAllocation: {
        size_t free = 0, total = 0;
        cudaMemGetInfo(&free, &total);
        return pb_error(PB_ERR_MEMORY,
                        "GPU %d has no memory for %s: %.3f GiB of %.3f GiB are free. Lower memory.device or "
                        "train_batch_size, or close what else uses the GPU (nvidia-smi)",
                        n, what, (double)free / 0x1p30, (double)total / 0x1p30);
    }
    case cudaErrorLaunchTimeout:
        return pb_error(PB_ERR_IO,
                        "GPU %d, %s: %s. The GPU also drives a display, whose time limit a kernel has run into: turn "
                        "the display off, or resume without it",
                        n, what, text);
    case cudaErrorECCUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorNoDevice:
    case cudaErrorDeviceUninitialized:
    case cudaErrorSystemNotReady:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorUnknown:
        return pb_error(PB_ERR_IO,
                        "GPU %d was lost during %s: %s. Look at nvidia-smi and dmesg (Xid); the run resumes from its "
                        "last checkpoint once the GPU is back",
                        n, what, text);
    default:
        return pb_error(PB_ERR_INTERNAL, "GPU %d, %s: %s (%s). The run can be resumed from its last checkpoint", n,
                        what, text, cudaGetErrorName(error));
    }
}

static pb_status check(pb_device *d, cudaError_t error, const char *what) {
    if (error == cudaSuccess) return PB_OK;
    cudaGetLastError();
    return fail(d, describe(d, error, what));
}

// Head of every call: the failure so far, and this thread on the right GPU.
static pb_status enter(pb_device *d) {
    static _Thread_local int current = -1;
    if (d->failed) return failure_of(d);
    if (current == d->ordinal) return PB_OK;
    const pb_status status = check(d, cudaSetDevice(d->ordinal), "taking the GPU into use");
    if (status == PB_OK) current = d->ordinal;
    return status;
}

// --- Open and close ---

static void device_close(pb_device *d);

// What to do about a first kernel that did not start.
static const char *no_code(const pb_device *d, char message[800]) {
    snprintf(message, 800,
             "this program has no code that runs on GPU %d (%s, sm_%d): %.500s. Build it again with "
             "-DPB_CUDA_ARCHITECTURES=%d, or update the driver",
             d->ordinal, d->target.title, d->target.capability, pb_error_message(), d->target.capability);
    return message;
}

static pb_status device_open(int ordinal, pb_device **result) {
    pb_status status = PB_OK;
    char message[800];
    pb_device *d = calloc(1, sizeof *d);
    if (!d) return pb_error(PB_ERR_MEMORY, "no memory for a GPU's state");
    pthread_mutex_init(&d->lock, NULL);
    d->ordinal = ordinal;
    PB_TRY(pb_cuda_target_of(ordinal, &d->target));
    PB_TRY(enter(d));
    for (int lane = 0; lane < LANES; lane++) {
        PB_TRY(check(d, cudaStreamCreateWithFlags(&d->stream[lane], cudaStreamNonBlocking), "a stream"));
        PB_TRY(check(d, pb_cuda_marks_init(&d->marks[lane]), "events"));
    }
    PB_TRY(pb_cuda_math_create(d->stream[PB_LANE_COMPUTE], d->target.capability, &d->math));
    if (pb_cuda_probe(d->stream[PB_LANE_COMPUTE]) != PB_OK) PB_FAIL(PB_ERR_UNSUPPORTED, "%s", no_code(d, message));
    pb_cuda_target_set(&d->target);
    *result = d;
    d = NULL;
fail:
    device_close(d);
    return status;
}

// After a failure nobody has waited, and what other lanes have under way goes on: nothing may be freed before.
static void let_finish(pb_device *d) {
    for (int lane = 0; lane < LANES; lane++)
        if (d->stream[lane]) cudaStreamSynchronize(d->stream[lane]);
    cudaGetLastError();
}

static void host_release(pb_device *d, void *memory) {
    if (d->failed) let_finish(d);
    for (host_slab **at = &d->slabs; memory && *at; at = &(*at)->next) {
        host_slab *slab = *at;
        if (slab->memory != memory) continue;
        *at = slab->next;
        if (slab->locked) cudaHostUnregister(slab->memory);
        munmap(slab->mapping, slab->mapped);
        free(slab);
        return;
    }
}

static void device_close(pb_device *d) {
    if (!d) return;
    let_finish(d);  // errors have been told before, or there is nobody left to tell
    pb_cuda_math_destroy(d->math);
    pb_cuda_times_deinit(&d->times);
    while (d->slabs) host_release(d, d->slabs->memory);
    for (int lane = 0; lane < LANES; lane++) {
        pb_cuda_marks_deinit(&d->marks[lane]);
        if (d->stream[lane]) cudaStreamDestroy(d->stream[lane]);
    }
    cudaGetLastError();
    pthread_mutex_destroy(&d->lock);
    free(d);
}

// --- Memory ---

static pb_status device_allocate(pb_device *d, uint64_t bytes, void **memory) {
    PB_RETURN_IF(enter(d));
    char what[64];
    snprintf(what, sizeof what, "a slab of %.3f GiB", (double)bytes / 0x1p30);
    *memory = NULL;
    cudaError_t error = cudaMalloc(memory, bytes ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) {  // nothing is broken: a smaller one may do
        cudaGetLastError();
        return describe(d, error, what);
    }
    PB_RETURN_IF(check(d, error, what));
    error = cudaMemset(*memory, 0, bytes ? bytes : 1);
    if (error == cudaSuccess) error = cudaDeviceSynchronize();
    if (error != cudaSuccess) cudaFree(*memory);
    return check(d, error, what);
}

static void device_release(pb_device *d, void *memory) {
    if (d->failed) let_finish(d);
    // After a failure CUDA may refuse: the driver then takes the memory back when the process ends.
    if (memory) check(d, cudaFree(memory), "giving a slab back");
}

// Says why copies to and from the slab will be slow.
static void note_unlocked(pb_device *d, uint64_t bytes, cudaError_t error) {
    struct rlimit limit = {0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    char have[32] = "unlimited";
    if (limit.rlim_cur != RLIM_INFINITY) snprintf(have, sizeof have, "%.3f GiB", (double)limit.rlim_cur / 0x1p30);
    snprintf(d->note, sizeof d->note,
             "%.3f GiB of host memory could not be page-locked (%s; RLIMIT_MEMLOCK is %s), so copies to and from the "
             "GPU are slower and do not overlap: raise the limit (ulimit -l, or memlock in /etc/security/limits.conf)",
             (double)bytes / 0x1p30, cudaGetErrorString(error), have);
}

// One mapping of exactly that size, at a huge page's alignment; CUDA's own cudaHostAlloc would round it up and keep it.
static pb_status host_allocate(pb_device *d, uint64_t bytes, void **memory) {
    PB_RETURN_IF(enter(d));
    host_slab *slab = calloc(1, sizeof *slab);
    if (!slab) return pb_error(PB_ERR_MEMORY, "no memory for a host slab");
    const size_t wanted = bytes ? (size_t)bytes : 1;
    slab->mapped = wanted + HUGE_PAGE;
    slab->mapping = mmap(NULL, slab->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (slab->mapping == MAP_FAILED) {
        const int error = errno;
        free(slab);
        return pb_error(PB_ERR_MEMORY, "the machine has no %.3f GiB of memory for the host slab: %s. Lower memory.host",
                        (double)bytes / 0x1p30, strerror(error));
    }
    // The head up to the alignment is never touched and so takes no memory.
    const uintptr_t at = ((uintptr_t)slab->mapping + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    slab->memory = (char *)slab->mapping + (at - (uintptr_t)slab->mapping);
    madvise(slab->memory, wanted, MADV_HUGEPAGE);
    const cudaError_t error = cudaHostRegister(slab->memory, wanted, cudaHostRegisterPortable);
    slab->locked = error == cudaSuccess;
    if (!slab->locked) {
        cudaGetLastError();
        note_unlocked(d, bytes, error);
    }
    slab->next = d->slabs;
    d->slabs = slab;
    *memory = slab->memory;
    return PB_OK;
}

const char *pb_cuda_device_note(const pb_device *d) {
    return d->note;
}

// --- Issue ---

// Host functions for lane HOST: the CPU backend's kernels, which cannot fail.
#define PB_OP(name, NAME, gradient, kind, inplace) \
    static void host_##name(void *args) { \
        pb_backend_cpu()->kernels[PB_OP_##NAME](args); \
    }
#include "base/ops.def"
#undef PB_OP

static const cudaHostFn_t host_functions[PB_OP_COUNT] = {
#define PB_OP(name, NAME, gradient, kind, inplace) host_##name,
#include "base/ops.def"
#undef PB_OP
};

static pb_status prepare(pb_device *d, pb_lane lane, pb_opcode op, const pb_kernel_args *args) {
    PB_RETURN_IF(enter(d));
    if (lane == PB_LANE_HOST) return PB_OK;
    return pb_cuda_prepare(op, args, d->stream[PB_LANE_COMPUTE]);
}

static pb_status begin(pb_device *d, pb_lane lane) {
    return check(d, pb_cuda_times_begin(&d->times, lane, d->stream[lane]), "a time");
}

static pb_status end(pb_device *d, pb_lane lane) {
    return check(d, pb_cuda_times_end(&d->times, lane, d->stream[lane]), "a time");
}

static pb_status launch(pb_device *d, pb_lane lane, pb_opcode op, const pb_kernel_args *args) {
    if (lane == PB_LANE_HOST)
        return check(d, cudaLaunchHostFunc(d->stream[lane], host_functions[op], (void *)args), pb_op_name(op));
    const pb_status status = pb_cuda_launchers[op](args, d->stream[lane]);
    return status == PB_OK ? PB_OK : fail(d, pb_error_context(status, "GPU %d", d->ordinal));
}

static pb_status run(pb_device *d, pb_lane lane, pb_opcode op, const pb_kernel_args *args) {
    PB_RETURN_IF(enter(d));
    PB_RETURN_IF(begin(d, lane));
    PB_RETURN_IF(launch(d, lane, op, args));
    return end(d, lane);
}

static pb_status copy(pb_device *d, pb_lane lane, void *to, const void *from, uint64_t bytes) {
    PB_RETURN_IF(enter(d));
    const enum cudaMemcpyKind kind = lane == PB_LANE_UPLOAD ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
    PB_RETURN_IF(begin(d, lane));
    PB_RETURN_IF(check(d, cudaMemcpyAsync(to, from, bytes, kind, d->stream[lane]),
                       lane == PB_LANE_UPLOAD ? "an upload" : "a download"));
    return end(d, lane);
}

static pb_status time_next(pb_device *d, pb_lane lane, double *begin_at, double *end_at) {
    PB_RETURN_IF(enter(d));
    cudaError_t error;
    PB_RETURN_IF(pb_cuda_times_want(&d->times, lane, d->stream[PB_LANE_COMPUTE], begin_at, end_at, &error));
    return check(d, error, "a time");
}

static pb_status record(pb_device *d, pb_lane lane, uint64_t mark) {
    PB_RETURN_IF(enter(d));
    cudaError_t error;
    const pb_status status = pb_cuda_marks_record(&d->marks[lane], d->stream[lane], mark, &error);
    return status == PB_OK ? check(d, error, "an event") : fail(d, status);
}

static pb_status lane_wait(pb_device *d, pb_lane lane, pb_lane on, uint64_t mark) {
    PB_RETURN_IF(enter(d));
    if (lane == on) return PB_OK;  // a stream's own order
    cudaEvent_t event;
    const pb_status status = pb_cuda_marks_find(&d->marks[on], mark, &event);
    if (status != PB_OK) return fail(d, status);
    return check(d, cudaStreamWaitEvent(d->stream[lane], event, 0), "a lane's wait");
}

static void CUDART_CB make_call(cudaStream_t stream, cudaError_t error, void *data) {
    lane_call *c = data;
    (void)stream;
    (void)error;  // who is called will find it out
    c->function(c->context);
    c->busy = false;
}

// A host function would not be called once the GPU is broken, and who waits for the call would wait for ever; a
// callback is called in any case.
static pb_status call(pb_device *d, pb_lane lane, void (*function)(void *context), void *context) {
    PB_RETURN_IF(enter(d));
    lane_call *c = &d->calls[d->next_call++ % CALLS];
    if (c->busy) PB_RETURN_IF(check(d, cudaStreamSynchronize(c->stream), "calls behind a lane"));
    c->function = function;
    c->context = context;
    c->stream = d->stream[lane];
    c->busy = true;
    return check(d, cudaStreamAddCallback(d->stream[lane], make_call, c, 0), "a call behind a lane");
}

// --- Waiting ---

static const char *const lane_names[LANES] = {"the kernels", "the uploads", "the downloads", "the host's updates"};

static pb_status wait_for(pb_device *d, pb_lane lane, uint64_t mark) {
    PB_RETURN_IF(enter(d));
    cudaEvent_t event;
    const pb_status status = pb_cuda_marks_find(&d->marks[lane], mark, &event);
    if (status != PB_OK) return fail(d, status);
    return check(d, cudaEventSynchronize(event), lane_names[lane]);
}

static pb_status reached(pb_device *d, pb_lane lane, uint64_t mark, bool *yes) {
    PB_RETURN_IF(enter(d));
    cudaEvent_t event;
    const pb_status status = pb_cuda_marks_find(&d->marks[lane], mark, &event);
    if (status != PB_OK) return fail(d, status);
    const cudaError_t error = cudaEventQuery(event);
    *yes = error == cudaSuccess;
    if (error == cudaErrorNotReady) return PB_OK;
    return check(d, error, lane_names[lane]);
}

static pb_status synchronize(pb_device *d) {
    if (d->failed) let_finish(d);
    PB_RETURN_IF(enter(d));
    for (int lane = 0; lane < LANES; lane++) check(d, cudaStreamSynchronize(d->stream[lane]), lane_names[lane]);
    if (d->failed) return failure_of(d);
    return check(d, pb_cuda_times_settle(&d->times), "the times of a run");
}

static pb_status copy_now(pb_device *d, void *to, const void *from, uint64_t bytes, enum cudaMemcpyKind kind) {
    PB_RETURN_IF(enter(d));
    const cudaStream_t stream = d->stream[PB_LANE_COMPUTE];
    PB_RETURN_IF(check(d, cudaMemcpyAsync(to, from, bytes, kind, stream), "a copy"));
    return check(d, cudaStreamSynchronize(stream), "a copy");
}

static pb_status write_device(pb_device *d, void *to, const void *from, uint64_t bytes) {
    return copy_now(d, to, from, bytes, cudaMemcpyHostToDevice);
}

static pb_status read_device(pb_device *d, void *to, const void *from, uint64_t bytes) {
    return copy_now(d, to, from, bytes, cudaMemcpyDeviceToHost);
}

const pb_device_calls pb_cuda_device_calls = {
    .open = device_open,
    .close = device_close,
    .device_allocate = device_allocate,
    .device_release = device_release,
    .host_allocate = host_allocate,
    .host_release = host_release,
    .prepare = prepare,
    .run = run,
    .copy = copy,
    .record = record,
    .lane_wait = lane_wait,
    .call = call,
    .wait = wait_for,
    .reached = reached,
    .synchronize = synchronize,
    .time = time_next,
    .write = write_device,
    .read = read_device,
};
