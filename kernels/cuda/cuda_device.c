// Four streams, one per lane. COMPUTE, UPLOAD and DOWNLOAD are what they are called. HOST is a stream too: AdamW runs
// in host functions that the driver calls in the stream's order, so that a mark of any lane is an event, and every wait
// between lanes is the driver's. Nothing on the host sits between a download, the update and the upload of its result.
// READ and WRITE are no streams; what waits for them waits for a word in memory (cuda_signals.h). So the thread that
// issues a step waits for nothing until the step is issued.
//
// The first failure stays: a GPU that has lost an instruction cannot be trusted with the next. Every later call returns
// it at once.
#include "kernels/cuda/cuda_device.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "kernels/cuda/cuda_graphs.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_marks.h"
#include "kernels/cuda/cuda_math.h"
#include "kernels/cuda/cuda_ranges.h"
#include "kernels/cuda/cuda_resize.h"
#include "kernels/cuda/cuda_signals.h"
#include "kernels/cuda/cuda_staging.h"
#include "kernels/cuda/cuda_target.h"
#include "kernels/cuda/cuda_times.h"

enum { LANES = PB_LANE_HOST + 1, HUGE_PAGE = 2 << 20, CALLS = 1024 };
// What a stream is given for one op or graph, at most; what libraries may take for the code that a step uses.
enum { OP_ENTRIES = 8, ROOM_FOR_CODE = 256 << 20 };

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
    pb_cuda_signals signals;
    pb_cuda_staging staging[LANES];  // of UPLOAD and DOWNLOAD, where a host slab is not page-locked
    pb_cuda_math *math;
    host_slab *slabs;
    cudaEvent_t rest;  // for who waits asleep
    bool updates;      // something was issued on HOST since the last time that all was waited for
    pb_cuda_target target;
    char note[1200];
    double repeats;  // of a copy, beyond the first; see throttle
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

// Head of every call: the failure so far, and this thread on the right GPU. CUDA starts every thread on GPU 0, and who
// looks at another GPU in between leaves the thread there; so it is asked, not remembered.
static pb_status enter(pb_device *d) {
    static _Thread_local bool chosen;
    int current = -1;
    if (d->failed) return failure_of(d);
    if (chosen && cudaGetDevice(&current) == cudaSuccess && current == d->ordinal) return PB_OK;
    const pb_status status = check(d, cudaSetDevice(d->ordinal), "taking the GPU into use");
    chosen = status == PB_OK;
    return status;
}

// One more sentence for people.
static void note(pb_device *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(pb_device *d, const char *format, ...) {
    const size_t used = strlen(d->note);
    va_list list;
    va_start(list, format);
    if (used) snprintf(d->note + used, sizeof d->note - used, " ");
    vsnprintf(d->note + used + (used != 0), sizeof d->note - used - (used != 0), format, list);
    va_end(list);
}

// --- Open and close ---

static const char *const lane_names[LANES] = {"the kernels", "the uploads", "the downloads", "the host's updates"};

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
    const unsigned asleep = cudaEventDisableTiming | cudaEventBlockingSync;
    PB_TRY(check(d, cudaEventCreateWithFlags(&d->rest, asleep), "an event"));
    pb_cuda_signals_init(&d->signals);
    for (int lane = 0; lane < LANES; lane++) pb_cuda_range_name_stream(d->stream[lane], lane_names[lane]);
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
    for (int lane = 0; lane < LANES; lane++) {
        if (d->stream[lane]) cudaStreamSynchronize(d->stream[lane]);
        if (d->staging[lane].processor) cudaStreamSynchronize(d->staging[lane].processor);
    }
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
    if (d->stream[0]) cudaSetDevice(d->ordinal);  // what the libraries give back is this GPU's
    let_finish(d);                                // errors have been told before, or there is nobody left to tell
    pb_cuda_math_destroy(d->math);
    pb_cuda_times_deinit(&d->times);
    while (d->slabs) host_release(d, d->slabs->memory);
    pb_cuda_signals_deinit(&d->signals);
    for (int lane = 0; lane < LANES; lane++) {
        pb_cuda_staging_deinit(&d->staging[lane]);
        pb_cuda_marks_deinit(&d->marks[lane]);
        if (d->stream[lane]) cudaStreamDestroy(d->stream[lane]);
    }
    if (d->rest) cudaEventDestroy(d->rest);
    cudaGetLastError();
    pthread_mutex_destroy(&d->lock);
    free(d);
}

// --- Memory ---

// CUDA loads code when it is first launched, ours and the libraries', which a slab must leave memory for.
static void note_what_is_left(pb_device *d, const char *what) {
    size_t left = 0, total = 0;
    if (cudaMemGetInfo(&left, &total) != cudaSuccess)
        cudaGetLastError();
    else if (left < ROOM_FOR_CODE)
        note(d,
             "GPU %d: beside %s only %.0f MiB are free, and CUDA's libraries want up to %d for their code: should a "
             "kernel find no memory, lower memory.device.",
             d->ordinal, what, (double)left / 0x1p20, ROOM_FOR_CODE >> 20);
}

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
    PB_RETURN_IF(check(d, error, what));
    note_what_is_left(d, what);
    return PB_OK;
}

static void device_release(pb_device *d, void *memory) {
    if (d->failed) let_finish(d);
    // After a failure CUDA may refuse: the driver then takes the memory back when the process ends.
    if (memory) check(d, cudaFree(memory), "giving a slab back");
}

// A slab that could not be page-locked: rings for the copies, and why they are slower.
static pb_status do_without_lock(pb_device *d, uint64_t bytes, cudaError_t error) {
    static const pb_lane lanes[] = {PB_LANE_UPLOAD, PB_LANE_DOWNLOAD};
    struct rlimit limit = {0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    char have[32] = "unlimited", how[128];
    if (limit.rlim_cur != RLIM_INFINITY) snprintf(have, sizeof have, "%.3f GiB", (double)limit.rlim_cur / 0x1p30);
    uint64_t rings = 0;
    for (int i = 0; i < 2; i++) {
        pb_cuda_staging *staging = &d->staging[lanes[i]];
        const cudaError_t refused = staging->ring ? cudaSuccess : pb_cuda_staging_init(staging);
        if (refused != cudaSuccess) cudaGetLastError();
        rings += staging->ring ? PB_CUDA_PIECES * staging->piece_bytes : 0;
    }
    // A refusal is nothing broken; what is broken shows now.
    PB_RETURN_IF(check(d, cudaStreamSynchronize(d->stream[PB_LANE_UPLOAD]), "locked memory for copies"));
    if (rings)
        snprintf(how, sizeof how, "go through %.2f MiB of locked memory, which costs the processor time",
                 (double)rings / 0x1p20);
    else
        snprintf(how, sizeof how, "are slower and do not overlap with kernels");
    note(d,
         "%.3f GiB of host memory could not be page-locked (%s; RLIMIT_MEMLOCK is %s), so copies to and from the GPU "
         "%s: raise the limit (ulimit -l, or memlock in /etc/security/limits.conf; under WSL: memory in .wslconfig).",
         (double)bytes / 0x1p30, cudaGetErrorString(error), have, how);
    return PB_OK;
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
    slab->next = d->slabs;
    d->slabs = slab;
    *memory = slab->memory;
    if (slab->locked) return PB_OK;
    cudaGetLastError();
    return do_without_lock(d, bytes, error);
}

static const char *device_note(const pb_device *d) {
    return d->note;
}

// --- Issue ---

// Host functions for lane HOST: the CPU backend's kernels, which cannot fail.
#define PB_OP(name, NAME, gradient, kind, inplace)     \
    static void host_##name(void *args) {              \
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
    if (lane == PB_LANE_HOST) {
        d->updates = true;
        return check(d, cudaLaunchHostFunc(d->stream[lane], host_functions[op], (void *)args), pb_op_name(op));
    }
    const pb_status status = pb_cuda_launchers[op](args, d->stream[lane]);
    return status == PB_OK ? PB_OK : fail(d, pb_error_context(status, "GPU %d", d->ordinal));
}

static pb_status run(pb_device *d, pb_lane lane, pb_opcode op, const pb_kernel_args *args) {
    PB_RETURN_IF(enter(d));
    pb_cuda_signals_pace(&d->signals, OP_ENTRIES);
    PB_RETURN_IF(begin(d, lane));
    pb_cuda_range_begin_op(op);
    const pb_status status = launch(d, lane, op, args);
    pb_cuda_range_end();
    return status == PB_OK ? end(d, lane) : status;
}

static pb_status copy_once(pb_device *d, pb_lane lane, void *to, const void *from, uint64_t bytes) {
    const bool up = lane == PB_LANE_UPLOAD;
    pb_cuda_staging *staging = &d->staging[lane];
    pb_cuda_signals_pace(&d->signals, staging->ring ? pb_cuda_staging_entries(staging, bytes) : 1);
    cudaError_t error;
    if (!staging->ring)
        error = cudaMemcpyAsync(to, from, bytes, up ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost, d->stream[lane]);
    else
        error = (up ? pb_cuda_staging_upload : pb_cuda_staging_download)(staging, d->stream[lane], to, from, bytes);
    return check(d, error, up ? "an upload" : "a download");
}

static pb_status copy(pb_device *d, pb_lane lane, void *to, const void *from, uint64_t bytes) {
    PB_RETURN_IF(enter(d));
    pb_cuda_signals_pace(&d->signals, 2);  // times
    PB_RETURN_IF(begin(d, lane));
    PB_RETURN_IF(copy_once(d, lane, to, from, bytes));
    // The link is kept busy by the same bytes again, whole and in part: nothing else changes.
    for (double left = d->repeats * (double)bytes; left >= 1; left -= (double)bytes)
        PB_RETURN_IF(copy_once(d, lane, to, from, left < (double)bytes ? (uint64_t)left : bytes));
    return end(d, lane);
}

static void throttle(pb_device *d, double share) {
    d->repeats = share > 0 && share < 1 ? 1 / share - 1 : 0;
}

// --- Kernels as one ---

static pb_status capture(pb_device *d, uint32_t count, const pb_opcode *ops, const pb_kernel_args *const *args,
                         pb_captured **captured) {
    PB_RETURN_IF(enter(d));
    const pb_status status = pb_cuda_graph_capture(d->stream[PB_LANE_COMPUTE], count, ops, args, captured);
    if (status != PB_ERR_UNSUPPORTED) return status;
    note(d, "GPU %d: kernels are launched one by one, not as a CUDA graph, which may be slower (%.300s).", d->ordinal,
         pb_error_message());
    cudaGetLastError();
    // A refusal is nothing broken; what is broken shows now.
    PB_RETURN_IF(check(d, cudaStreamSynchronize(d->stream[PB_LANE_COMPUTE]), "a CUDA graph"));
    return status;
}

static pb_status replay(pb_device *d, pb_captured *captured) {
    PB_RETURN_IF(enter(d));
    pb_cuda_signals_pace(&d->signals, OP_ENTRIES);
    PB_RETURN_IF(begin(d, PB_LANE_COMPUTE));
    PB_RETURN_IF(check(d, pb_cuda_graph_launch(captured, d->stream[PB_LANE_COMPUTE]), "a CUDA graph"));
    return end(d, PB_LANE_COMPUTE);
}

static void captured_release(pb_device *d, pb_captured *captured) {
    if (d->failed) let_finish(d);
    pb_cuda_graph_release(captured);
}

static void range(pb_device *d, const char *name) {
    (void)d;
    if (name)
        pb_cuda_range_begin(name);
    else
        pb_cuda_range_end();
}

// --- Order ---

static pb_status time_next(pb_device *d, pb_lane lane, double *begin_at, double *end_at) {
    PB_RETURN_IF(enter(d));
    cudaError_t error;
    PB_RETURN_IF(pb_cuda_times_want(&d->times, lane, d->stream[PB_LANE_COMPUTE], begin_at, end_at, &error));
    return check(d, error, "a time");
}

static pb_status record(pb_device *d, pb_lane lane, uint64_t mark) {
    PB_RETURN_IF(enter(d));
    pb_cuda_signals_pace(&d->signals, 1);
    cudaError_t error;
    const pb_status status = pb_cuda_marks_record(&d->marks[lane], d->stream[lane], mark, &error);
    return status == PB_OK ? check(d, error, "an event") : fail(d, status);
}

static pb_status lane_wait(pb_device *d, pb_lane lane, pb_lane on, uint64_t mark) {
    PB_RETURN_IF(enter(d));
    if (lane == on) return PB_OK;  // a stream's own order
    pb_cuda_signals_pace(&d->signals, 1);
    if (on == PB_LANE_READ || on == PB_LANE_WRITE)
        return check(d, pb_cuda_signals_wait(&d->signals, d->stream[lane], on, mark), "a wait for the store");
    cudaEvent_t event;
    const pb_status status = pb_cuda_marks_find(&d->marks[on], mark, &event);
    if (status != PB_OK) return fail(d, status);
    return event ? check(d, cudaStreamWaitEvent(d->stream[lane], event, 0), "a lane's wait") : PB_OK;
}

// No call of CUDA's, and so also right when the GPU is lost: streams that wait must not wait for ever.
static pb_status signal_io(pb_device *d, pb_lane lane, uint64_t mark) {
    pb_cuda_signals_set(&d->signals, lane, mark);
    return PB_OK;
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
    pb_cuda_signals_pace(&d->signals, 1);
    lane_call *c = &d->calls[d->next_call++ % CALLS];
    if (c->busy) PB_RETURN_IF(check(d, cudaStreamSynchronize(c->stream), "calls behind a lane"));
    c->function = function;
    c->context = context;
    c->stream = d->stream[lane];
    c->busy = true;
    return check(d, cudaStreamAddCallback(d->stream[lane], make_call, c, 0), "a call behind a lane");
}

// --- Waiting ---

static pb_status wait_for(pb_device *d, pb_lane lane, uint64_t mark) {
    PB_RETURN_IF(enter(d));
    cudaEvent_t event;
    const pb_status status = pb_cuda_marks_find(&d->marks[lane], mark, &event);
    if (status != PB_OK) return fail(d, status);
    return event ? check(d, cudaEventSynchronize(event), lane_names[lane]) : PB_OK;
}

static pb_status reached(pb_device *d, pb_lane lane, uint64_t mark, bool *yes) {
    PB_RETURN_IF(enter(d));
    cudaError_t error;
    const pb_status status = pb_cuda_marks_query(&d->marks[lane], mark, &error);
    if (status != PB_OK) return fail(d, status);
    *yes = error == cudaSuccess;
    return error == cudaErrorNotReady ? PB_OK : check(d, error, lane_names[lane]);
}

// CUDA waits for a stream by looking at it all the time, which is quick; but AdamW on the host wants every processor.
static void wait_asleep(pb_device *d) {
    for (int lane = 0; lane < LANES && !d->failed; lane++)
        if (check(d, cudaEventRecord(d->rest, d->stream[lane]), "an event") == PB_OK)
            check(d, cudaEventSynchronize(d->rest), lane_names[lane]);
}

static pb_status synchronize(pb_device *d) {
    if (d->failed) let_finish(d);
    PB_RETURN_IF(enter(d));
    if (d->updates) wait_asleep(d);
    d->updates = false;
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
    .capture = capture,
    .replay = replay,
    .captured_release = captured_release,
    .record = record,
    .lane_wait = lane_wait,
    .call = call,
    .wait = wait_for,
    .reached = reached,
    .signal = signal_io,
    .synchronize = synchronize,
    .time = time_next,
    .write = write_device,
    .read = read_device,
    .throttle = throttle,
    .range = range,
    .note = device_note,
};
