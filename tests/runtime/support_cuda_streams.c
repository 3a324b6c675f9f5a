#include <cuda.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/cuda_kernels.h"
#include "support_cuda_parts.h"

static _Atomic(uint64_t) seed;

void fake_seed(uint64_t value) {
    seed = value;
}

typedef enum item_kind {
    ITEM_COPY,
    ITEM_CALL,
    ITEM_CALLBACK,
    ITEM_KERNEL,
    ITEM_RECORD,
    ITEM_WAIT,
    ITEM_WAIT_VALUE,
    ITEM_GRAPH,
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
    const _Atomic(uint32_t) *word;    // WAIT_VALUE
    uint32_t value;                   // WAIT_VALUE
    struct CUgraphExec_st *exec;      // GRAPH
    struct item *next;
} item;

// A graph holds what it was captured from by value, as CUDA's do: arguments that change later do not reach it.
struct CUgraph_st {
    int owners;
    item *first, **last;
};

struct CUgraphExec_st {
    cudaGraph_t graph;
};

typedef struct capture {
    pthread_t thread;
    cudaGraph_t graph;
    cudaError_t refused;  // what made it void, or success
} capture;

struct CUstream_st {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    item *first, **last;
    uint64_t pushed, done;
    uint64_t random;
    int gpu;
    uint64_t words;    // waits for words that are not over
    capture *capture;  // or NULL; of one thread alone
    struct CUstream_st *next;
};

static struct {
    pthread_mutex_t lock;
    cudaStream_t first;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local cudaStream_t capturing;  // by this thread
static _Atomic(bool) has_run[PB_OP_COUNT];    // whose code is loaded
static pthread_mutex_t driver = PTHREAD_MUTEX_INITIALIZER;

void fake_driver_pass(void) {
    if (!fake.depth) return;
    pthread_mutex_lock(&driver);
    pthread_mutex_unlock(&driver);
}

void fake_unload(void) {
    for (int op = 0; op < PB_OP_COUNT; op++) has_run[op] = false;
}

static uint64_t sum_over_streams(uint64_t (*of)(const struct CUstream_st *s)) {
    uint64_t sum = 0;
    pthread_mutex_lock(&all.lock);
    for (cudaStream_t s = all.first; s; s = s->next) {
        pthread_mutex_lock(&s->lock);
        sum += of(s);
        pthread_mutex_unlock(&s->lock);
    }
    pthread_mutex_unlock(&all.lock);
    return sum;
}

static uint64_t entries_of(const struct CUstream_st *s) {
    return s->pushed - s->done;
}

static uint64_t words_of(const struct CUstream_st *s) {
    return s->words;
}

bool fake_work_under_way(void) {
    return sum_over_streams(entries_of) > 0;
}

static cudaError_t make_void(capture *c, cudaError_t error) {
    if (c->refused == cudaSuccess) c->refused = error;
    return error;
}

cudaError_t fake_unsafe(void) {
    if (!capturing) return cudaSuccess;
    return make_void(capturing->capture, cudaErrorStreamCaptureUnsupported);
}

// --- The threads ---

// Mostly nothing or little, now and then long enough for the other streams to run far ahead.
static void dawdle(uint64_t *random) {
    if (!seed) return;
    *random = (*random ^ seed) * 6364136223846793005u + 1442695040888963407u;
    const uint32_t draw = (uint32_t)(*random >> 33), kind = draw % 8;
    const struct timespec nap = {0, (long)(kind < 4 ? 0 : kind < 7 ? draw / 8 % 100 : draw / 8 % 1000) * 1000};
    if (nap.tv_nsec) nanosleep(&nap, NULL);
}

static void await_value(const item *i) {
    while ((int32_t)(atomic_load(i->word) - i->value) < 0 && !fake_is_broken()) {
        const struct timespec nap = {0, 20000};
        nanosleep(&nap, NULL);
    }
}

static void perform(const item *i) {
    // A broken context does nothing any more, but its waits end.
    const bool dead = (i->kind == ITEM_COPY || i->kind == ITEM_CALL || i->kind == ITEM_KERNEL) &&
                      fake_enter(i->kind == ITEM_KERNEL ? "kernel" : "stream") != cudaSuccess;
    switch (i->kind) {
    case ITEM_COPY:
        if (!dead) memcpy(i->to, i->from, i->bytes);
        break;
    case ITEM_CALL:
        fake_is_inside = true;
        if (!dead) i->function(i->context);
        fake_is_inside = false;
        break;
    case ITEM_CALLBACK:  // also when all is lost
        fake_is_inside = true;
        i->callback(NULL, fake_enter("callback"), i->context);
        fake_is_inside = false;
        break;
    case ITEM_KERNEL:
        if (!dead) pb_backend_cpu()->kernels[i->op](i->args);
        break;
    case ITEM_RECORD: fake_reach(i->event, i->record); break;
    case ITEM_WAIT: fake_await(i->event, i->record); break;
    case ITEM_WAIT_VALUE: await_value(i); break;
    case ITEM_GRAPH:
        for (const item *node = i->exec->graph->first; node; node = node->next) perform(node);
        break;
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
        const bool word = i->kind == ITEM_WAIT_VALUE;
        free(i);
        pthread_mutex_lock(&s->lock);
        s->done++;
        s->words -= word;
        pthread_cond_broadcast(&s->moved);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

// --- Issue ---

static item *copy_of(const item *value) {
    item *i = malloc(sizeof *i);
    if (!i) abort();
    *i = *value;
    i->next = NULL;
    return i;
}

static cudaError_t capture_item(capture *c, const item *value) {
    if (c->refused != cudaSuccess) return fake_refuse(cudaErrorStreamCaptureInvalidated);
    if (!pthread_equal(c->thread, pthread_self())) return fake_refuse(make_void(c, cudaErrorStreamCaptureWrongThread));
    switch (value->kind) {
    case ITEM_COPY:
    case ITEM_CALL: break;
    case ITEM_KERNEL:  // its code would be loaded, which takes memory
        if (!has_run[value->op]) return fake_refuse(make_void(c, cudaErrorStreamCaptureUnsupported));
        break;
    case ITEM_WAIT: return fake_refuse(make_void(c, cudaErrorStreamCaptureIsolation));
    case ITEM_RECORD: value->event->captured = true; return cudaSuccess;
    default: return fake_refuse(make_void(c, cudaErrorStreamCaptureUnsupported));
    }
    item *i = copy_of(value);
    if (i->kind == ITEM_KERNEL) {
        struct {
            pb_kernel_args args;
            pb_attr attr;
        } *kept = malloc(sizeof *kept);
        if (!kept) abort();
        kept->args = *value->args;
        if (value->args->attr) {
            kept->attr = *value->args->attr;
            kept->args.attr = &kept->attr;
        }
        i->args = &kept->args;
    }
    *c->graph->last = i;
    c->graph->last = &i->next;
    return cudaSuccess;
}

static cudaError_t push(cudaStream_t s, item value) {
    if (s->capture) return capture_item(s->capture, &value);
    if (value.kind == ITEM_KERNEL && !has_run[value.op]) {
        if (sum_over_streams(words_of)) fake_break_rule("code was loaded while a stream waited for a word");
        has_run[value.op] = true;
    }
    // A full queue is waited for with the driver's lock in hand: the worst that a driver may do.
    const uint64_t depth = fake.depth;
    if (depth) pthread_mutex_lock(&driver);
    item *i = copy_of(&value);
    pthread_mutex_lock(&s->lock);
    while (depth && s->pushed - s->done >= depth) pthread_cond_wait(&s->moved, &s->lock);
    *s->last = i;
    s->last = &i->next;
    s->pushed++;
    s->words += value.kind == ITEM_WAIT_VALUE;
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
    if (depth) pthread_mutex_unlock(&driver);
    return cudaSuccess;
}

static void let_finish(cudaStream_t s) {
    pthread_mutex_lock(&s->lock);
    while (s->done < s->pushed) pthread_cond_wait(&s->moved, &s->lock);
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
    s->gpu = fake_current_gpu();
    pthread_mutex_lock(&all.lock);
    s->next = all.first;
    all.first = s;
    pthread_mutex_unlock(&all.lock);
    if (pthread_create(&s->thread, NULL, work, s)) abort();
    fake_object_count++;
    *stream = s;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s) {
    if (s->capture) abort();
    push(s, (item){.kind = ITEM_STOP});
    pthread_join(s->thread, NULL);
    pthread_mutex_lock(&all.lock);
    cudaStream_t *at = &all.first;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    pthread_mutex_unlock(&all.lock);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->moved);
    free(s);
    fake_object_count--;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    if (s->capture) return fake_refuse(make_void(s->capture, cudaErrorStreamCaptureUnsupported));
    let_finish(s);
    ENTER(cudaStreamSynchronize);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t s) {
    ENTER(cudaEventRecord);
    if (event->gpu != s->gpu) return fake_refuse(cudaErrorInvalidResourceHandle);
    if (s->capture) return push(s, (item){.kind = ITEM_RECORD, .event = event});
    event->captured = false;
    pthread_mutex_lock(&event->lock);
    const uint64_t record = ++event->recorded;
    pthread_mutex_unlock(&event->lock);
    return push(s, (item){.kind = ITEM_RECORD, .event = event, .record = record});
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t event, unsigned flags) {
    (void)flags;
    ENTER(cudaStreamWaitEvent);
    if (event->captured) return fake_refuse(cudaErrorStreamCaptureIsolation);
    if (!fake_recorded(event)) fake_break_rule("a wait for an event that was never recorded");
    return push(s, (item){.kind = ITEM_WAIT, .event = event, .record = fake_recorded(event)});
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s) {
    ENTER(cudaMemcpyAsync);
    const cudaError_t error = push(s, (item){.kind = ITEM_COPY, .to = to, .from = from, .bytes = bytes});
    fake_counted(FAKE_COPIES, 1);
    fake_counted(FAKE_COPIED_BYTES, bytes);
    // Pageable memory: such a copy is no better than a synchronous one.
    if (error == cudaSuccess && kind != cudaMemcpyDeviceToDevice && !s->capture &&
        !fake_is_locked(kind == cudaMemcpyHostToDevice ? from : to, bytes)) {
        fake_counted(FAKE_PAGEABLE_COPIES, 1);
        let_finish(s);
    }
    return error;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t function, void *context) {
    ENTER(cudaLaunchHostFunc);
    return push(s, (item){.kind = ITEM_CALL, .function = function, .context = context});
}

cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t callback, void *context, unsigned flags) {
    (void)flags;
    ENTER(cudaStreamAddCallback);
    return push(s, (item){.kind = ITEM_CALLBACK, .callback = callback, .context = context});
}

// --- Waits for words in memory ---

static CUresult wait_value(CUstream s, CUdeviceptr at, cuuint32_t value, unsigned flags) {
    if (fake.wait_unsupported) return CUDA_ERROR_NOT_SUPPORTED;
    const cudaError_t error = fake_enter("cuStreamWaitValue32");
    if (error != cudaSuccess) return (CUresult)error;
    if (flags != CU_STREAM_WAIT_VALUE_GEQ || at % 4 || !fake_is_locked((const void *)(uintptr_t)at, 4))
        return CUDA_ERROR_INVALID_VALUE;
    fake_counted(FAKE_VALUE_WAITS, 1);
    return (CUresult)push(
        s, (item){.kind = ITEM_WAIT_VALUE, .word = (const _Atomic(uint32_t) *)(uintptr_t)at, .value = value});
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *found) {
    (void)version;
    (void)flags;
    ENTER(cudaGetDriverEntryPointByVersion);
    CUresult (*const known)(CUstream, CUdeviceptr, cuuint32_t, unsigned) = wait_value;
    const bool is_known = !fake.no_wait_value && !strcmp(symbol, "cuStreamWaitValue32");
    *function = NULL;
    if (is_known) memcpy(function, &known, sizeof known);
    *found = is_known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

// --- Captures and graphs ---

static void drop_graph(cudaGraph_t graph) {
    if (--graph->owners) return;
    for (item *i = graph->first, *next; i; i = next) {
        next = i->next;
        if (i->kind == ITEM_KERNEL) free((void *)i->args);
        free(i);
    }
    free(graph);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode) {
    ENTER(cudaStreamBeginCapture);
    if (s->capture || mode != cudaStreamCaptureModeThreadLocal) return fake_refuse(cudaErrorIllegalState);
    s->capture = calloc(1, sizeof *s->capture);
    cudaGraph_t graph = calloc(1, sizeof *graph);
    if (!s->capture || !graph) abort();
    graph->owners = 1;
    graph->last = &graph->first;
    *s->capture = (capture){.thread = pthread_self(), .graph = graph};
    capturing = s;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph) {
    *graph = NULL;
    capture *c = s->capture;
    if (!c) return fake_refuse(cudaErrorIllegalState);
    if (!pthread_equal(c->thread, pthread_self())) return fake_refuse(cudaErrorStreamCaptureWrongThread);
    const cudaError_t injected = fake_enter("cudaStreamEndCapture");
    s->capture = NULL;
    capturing = NULL;
    const bool whole = c->refused == cudaSuccess && injected == cudaSuccess;
    if (whole) {
        *graph = c->graph;
        fake_object_count++;
    } else {
        drop_graph(c->graph);
    }
    free(c);
    return whole ? cudaSuccess : injected != cudaSuccess ? injected : fake_refuse(cudaErrorStreamCaptureInvalidated);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    fake_object_count--;
    drop_graph(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags) {
    (void)flags;
    ENTER(cudaGraphInstantiate);
    UNSAFE();
    *exec = calloc(1, sizeof **exec);
    if (!*exec) abort();
    (*exec)->graph = graph;
    graph->owners++;
    fake_object_count++;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    drop_graph(exec->graph);
    free(exec);
    fake_object_count--;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t s) {
    (void)exec;
    (void)s;
    ENTER(cudaGraphUpload);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s) {
    ENTER(cudaGraphLaunch);
    fake_counted(FAKE_GRAPH_LAUNCHES, 1);
    return push(s, (item){.kind = ITEM_GRAPH, .exec = exec});
}

// --- Kernels: what the device launches, into the same queues ---

// What cuBLASLt's and cuDNN's algorithms are asked for with (ALIGNMENT in cuda_linear.c).
static bool is_aligned(const pb_tensor *tensors, int count) {
    for (int i = 0; i < count; i++)
        if ((uintptr_t)tensors[i].data % 256) return false;
    return true;
}

static bool is_a_librarys(pb_opcode op) {
    switch (op) {
    case PB_OP_LINEAR:
    case PB_OP_LINEAR_BWD_DATA:
    case PB_OP_LINEAR_BWD_WEIGHT:
    case PB_OP_CONV2D:
    case PB_OP_CONV2D_BWD_DATA:
    case PB_OP_CONV2D_BWD_WEIGHT:
    case PB_OP_ATTENTION:
    case PB_OP_ATTENTION_BWD: return true;
    default: return false;
    }
}

static pb_status launch(pb_opcode op, const pb_kernel_args *args, void *stream) {
    cudaStream_t s = stream;
    if (fake.launcher) PB_RETURN_IF(fake.launcher(op, stream));
    if (!s->capture) fake_counted(FAKE_KERNELS, 1);
    if (is_a_librarys(op) && (!is_aligned(args->in, PB_MAX_INPUTS) || !is_aligned(args->out, PB_MAX_OUTPUTS) ||
                              (uintptr_t)args->workspace % 256))
        fake_break_rule("an operand of a library is not aligned as its algorithm was asked for");
    if (s->gpu != fake_current_gpu()) fake_refuse(cudaErrorInvalidResourceHandle);
    // As a launcher does: what a launch returns is the thread's last error, whoever made it.
    cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess) error = push(s, (item){.kind = ITEM_KERNEL, .op = op, .args = args});
    return error == cudaSuccess ? PB_OK : pb_error(PB_ERR_INTERNAL, "a kernel did not start: %d", (int)error);
}

#define PB_OP(name, NAME, gradient, kind, inplace)                             \
    static pb_status launch_##name(const pb_kernel_args *args, void *stream) { \
        return launch(PB_OP_##NAME, args, stream);                             \
    }
#include "base/ops.def"
#undef PB_OP

const pb_cuda_launcher pb_cuda_launchers[PB_OP_COUNT] = {
#define PB_OP(name, NAME, gradient, kind, inplace) launch_##name,
#include "base/ops.def"
#undef PB_OP
};

// One kernel each here; the device takes them together all the same.
uint32_t pb_cuda_grad_norms_at_once(const pb_kernel_args *const *args, uint32_t count) {
    uint32_t n = 1;
    while (n < count && args[n]->in[1].data == args[n - 1]->out[0].data) n++;
    return n;
}

pb_status pb_cuda_grad_norms(const pb_kernel_args *const *args, uint32_t count, void *stream) {
    for (uint32_t i = 0; i < count; i++) PB_RETURN_IF(launch(PB_OP_GRAD_NORM, args[i], stream));
    return PB_OK;
}

// In the reversed order: blocks of one launch have none, so whoever is taken together must not mind.
pb_status pb_cuda_adamws(const pb_kernel_args *const *args, uint32_t count, void *stream) {
    if (count > 1) fake_counted(FAKE_UPDATES_TOGETHER, count - 1);
    for (uint32_t i = count; i-- > 0;) PB_RETURN_IF(launch(PB_OP_ADAMW, args[i], stream));
    return PB_OK;
}
