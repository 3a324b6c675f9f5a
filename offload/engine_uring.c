// io_uring with the file and the caller's memory registered where the limits let them. No SQPOLL (it takes a core away)
// and no IOPOLL (few drivers finish it).
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "offload/engine.h"

enum { BUFFER_BYTES = 1 << 30, MOST_BUFFERS = 64, WAIT_TRIES = 30000 };

typedef struct ring_engine {
    pb_engine base;
    struct io_uring ring;
    int event;             // counts the wakes
    int file;              // that is registered
    pb_request **waiting;  // queued and not submitted, in order
    unsigned waiting_count;
    pb_request *refused;  // could not be submitted; finished with that error
    unsigned char *memory;
    size_t memory_bytes;
} ring_engine;

// Which registered piece of memory has all of the range; -1: none.
static int buffer_of(const ring_engine *e, const pb_store_call *call) {
    const uintptr_t at = (uintptr_t)call->data - (uintptr_t)e->memory;
    if (!e->base.registered_memory || at >= e->memory_bytes || call->bytes > e->memory_bytes - at) return -1;
    const size_t first = at / BUFFER_BYTES, last = (at + call->bytes - 1) / BUFFER_BYTES;
    return first == last ? (int)first : -1;
}

static void prepare(const ring_engine *e, struct io_uring_sqe *sqe, const pb_store_call *call) {
    const bool registered = e->base.registered_file && call->fd == e->file;
    const int fd = registered ? 0 : call->fd, buffer = buffer_of(e, call);
    const unsigned bytes = (unsigned)call->bytes;
    if (call->op == PB_STORE_READ && buffer >= 0)
        io_uring_prep_read_fixed(sqe, fd, call->data, bytes, call->offset, buffer);
    else if (call->op == PB_STORE_READ)
        io_uring_prep_read(sqe, fd, call->data, bytes, call->offset);
    else if (buffer >= 0)
        io_uring_prep_write_fixed(sqe, fd, call->data, bytes, call->offset, buffer);
    else
        io_uring_prep_write(sqe, fd, call->data, bytes, call->offset);
    if (registered) io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
}

// Hands over what is queued. When the system will not have it, those requests fail and their places in the ring become
// no-ops: what was submitted before goes on, and nothing is left that could start later.
static void start(pb_engine *engine) {
    ring_engine *e = (ring_engine *)engine;
    for (int tries = 0; e->waiting_count;) {
        pb_store_call call = {.op = PB_STORE_RING_SUBMIT, .fd = -1};
        long result = 0;
        if (!pb_store_call_begin(e->base.hook, &call, &result)) result = io_uring_submit(&e->ring);
        const long told = pb_store_call_end(e->base.hook, &call, result);
        // A no-op of before may be counted too; it stood in front of the requests, and its completion says nothing.
        const unsigned left = io_uring_sq_ready(&e->ring);
        const unsigned gone = left < e->waiting_count ? e->waiting_count - left : 0;
        e->waiting_count -= gone;
        memmove(e->waiting, e->waiting + gone, e->waiting_count * sizeof(pb_request *));
        if (gone) tries = 0;
        if (gone || ((pb_store_is_passing(told) || told == -EBUSY || told >= 0) && tries++ < PB_STORE_TRIES)) {
            if (e->waiting_count) pb_store_nap();
            continue;
        }
        for (unsigned i = 0; i < e->waiting_count; i++) {
            pb_request *request = e->waiting[i];
            io_uring_prep_nop((struct io_uring_sqe *)request->sqe);
            io_uring_sqe_set_data(request->sqe, NULL);
            request->result = told < 0 && !pb_store_is_passing(told) ? told : -EIO;  // it was tried enough
            request->next = e->refused;
            e->refused = request;
        }
        e->waiting_count = 0;
    }
}

static void queue(pb_engine *engine, pb_request *request) {
    ring_engine *e = (ring_engine *)engine;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&e->ring);
    if (!sqe) {  // the no-ops of a failed submission are still in the way
        io_uring_submit(&e->ring);
        sqe = io_uring_get_sqe(&e->ring);
    }
    if (!sqe) {
        request->result = -EBUSY;
        request->next = e->refused;
        e->refused = request;
        return;
    }
    request->asked = request->call;
    request->decided = pb_store_call_begin(e->base.hook, &request->asked, &request->result);
    if (request->decided)
        io_uring_prep_nop(sqe);
    else
        prepare(e, sqe, &request->asked);
    io_uring_sqe_set_data(sqe, request);
    request->sqe = sqe;
    e->waiting[e->waiting_count++] = request;
}

// Blocks for a completion. A wait that fails loses nothing: completions come all the same, so it is asked again.
static int await_completion(ring_engine *e, struct io_uring_cqe **cqe) {
    for (int tries = 0; tries < WAIT_TRIES; tries++) {
        pb_store_call call = {.op = PB_STORE_RING_WAIT, .fd = -1};
        long result = 0;
        if (!pb_store_call_begin(e->base.hook, &call, &result)) result = io_uring_wait_cqe(&e->ring, cqe);
        (void)pb_store_call_end(e->base.hook, &call, result);
        if (!io_uring_peek_cqe(&e->ring, cqe)) return 0;
        pb_store_nap();
    }
    return -EIO;
}

static pb_request *next(pb_engine *engine, bool block) {
    ring_engine *e = (ring_engine *)engine;
    for (;;) {
        pb_request *request = e->refused;
        if (request) {
            e->refused = request->next;
            return request;
        }
        struct io_uring_cqe *cqe = NULL;
        if (io_uring_peek_cqe(&e->ring, &cqe) && (!block || await_completion(e, &cqe))) return NULL;
        request = io_uring_cqe_get_data(cqe);
        const long result = cqe->res;
        io_uring_cqe_seen(&e->ring, cqe);
        if (!request) continue;  // a no-op
        if (!request->decided) request->result = result;
        request->result = pb_store_call_end(e->base.hook, &request->asked, request->result);
        return request;
    }
}

// The ring can be polled like a file: a wake needs no request of its own.
static bool await(pb_engine *engine, int timeout_ms) {
    ring_engine *e = (ring_engine *)engine;
    struct pollfd files[2] = {{.fd = e->ring.ring_fd, .events = POLLIN}, {.fd = e->event, .events = POLLIN}};
    pb_store_call call = {.op = PB_STORE_RING_WAIT, .fd = -1};
    long result = 0;
    if (!pb_store_call_begin(e->base.hook, &call, &result) && (result = poll(files, 2, timeout_ms)) < 0)
        result = -errno;
    if (pb_store_call_end(e->base.hook, &call, result) < 0) pb_store_nap();  // asked again soon
    uint64_t wakes = 0;
    return read(e->event, &wakes, sizeof wakes) == sizeof wakes;
}

static void wake(pb_engine *engine) {
    const uint64_t one = 1;
    // It can only fail where the counter is full, and then the wake is already there.
    if (write(((ring_engine *)engine)->event, &one, sizeof one) < 0) return;
}

static void prefer(pb_engine *engine, int fd) {
    ring_engine *e = (ring_engine *)engine;
    if (!e->base.registered_file) return;
    pb_store_call call = {.op = PB_STORE_RING_FILE, .fd = fd};
    long result = 0;
    if (!pb_store_call_begin(e->base.hook, &call, &result))
        result = io_uring_register_files_update(&e->ring, 0, &fd, 1);
    e->base.registered_file = pb_store_call_end(e->base.hook, &call, result) >= 0;
    e->file = fd;
}

static void destroy(pb_engine *engine) {
    ring_engine *e = (ring_engine *)engine;
    io_uring_queue_exit(&e->ring);
    close(e->event);
    free(e->waiting);
    free(e);
}

static long setup(ring_engine *e, unsigned depth) {
    pb_store_call call = {.op = PB_STORE_RING_SETUP, .fd = -1, .bytes = depth};
    long result = 0;
    const bool decided = pb_store_call_begin(e->base.hook, &call, &result);
    if (!decided) result = io_uring_queue_init((unsigned)call.bytes, &e->ring, 0);
    const long told = pb_store_call_end(e->base.hook, &call, result);
    if (told < 0 && !decided && result == 0) io_uring_queue_exit(&e->ring);
    return told;
}

static bool register_file(ring_engine *e, int fd) {
    pb_store_call call = {.op = PB_STORE_RING_FILE, .fd = fd};
    long result = 0;
    if (!pb_store_call_begin(e->base.hook, &call, &result)) result = io_uring_register_files(&e->ring, &fd, 1);
    return pb_store_call_end(e->base.hook, &call, result) == 0;
}

// All of it or nothing: the kernel takes at most 1 GiB per piece, and counts it against RLIMIT_MEMLOCK.
static bool register_memory(ring_engine *e) {
    struct iovec pieces[MOST_BUFFERS];
    unsigned count = 0;
    for (size_t at = 0; at < e->memory_bytes; at += BUFFER_BYTES, count++) {
        if (count == MOST_BUFFERS) return false;
        const size_t left = e->memory_bytes - at;
        pieces[count] = (struct iovec){e->memory + at, left < BUFFER_BYTES ? left : BUFFER_BYTES};
    }
    if (!count) return false;
    pb_store_call call = {.op = PB_STORE_RING_BUFFERS, .fd = -1};
    long result = 0;
    if (!pb_store_call_begin(e->base.hook, &call, &result)) result = io_uring_register_buffers(&e->ring, pieces, count);
    return pb_store_call_end(e->base.hook, &call, result) == 0;
}

pb_status pb_engine_create_uring(unsigned depth, int fd, void *memory, size_t memory_bytes, const pb_store_hook *hook,
                                 pb_engine **engine) {
    static const pb_engine_kind kind = {"io_uring", queue, start, next, await, wake, prefer, destroy};
    pb_status status = PB_OK;
    ring_engine *e = calloc(1, sizeof *e);
    pb_request **waiting = calloc(depth, sizeof(pb_request *));
    if (!e || !waiting) PB_FAIL(PB_ERR_MEMORY, "no memory for the requests of the swap file");
    *e = (ring_engine){.base = {.kind = &kind, .hook = hook},
                       .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                       .file = fd,
                       .waiting = waiting,
                       .memory = memory,
                       .memory_bytes = memory ? memory_bytes : 0};
    if (e->event < 0) PB_FAIL(PB_ERR_UNSUPPORTED, "no eventfd for io_uring (%s)", strerror(errno));
    const long result = setup(e, depth);
    if (result < 0)
        PB_FAIL(PB_ERR_UNSUPPORTED, "the system refuses io_uring (%s); threads work everywhere",
                strerror((int)-result));
    e->base.registered_file = register_file(e, fd);
    e->base.registered_memory = register_memory(e);
    *engine = &e->base;
    return PB_OK;
fail:
    if (e && waiting && e->event >= 0) close(e->event);
    free(waiting);
    free(e);
    return status;
}
