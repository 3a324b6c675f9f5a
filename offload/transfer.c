// Reads and writes of extents: cut into requests, kept in order per extent, every result looked at.
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "offload/store_internal.h"

static pb_operation *operation_of(const pb_store *store, pb_ticket ticket) {
    pb_operation *op = &store->operations[ticket % store->operation_count];
    return op->ticket == ticket && op->state != PB_OP_FREE ? op : NULL;
}

static bool is_under_way(const pb_store *store, pb_ticket ticket) {
    const pb_operation *op = operation_of(store, ticket);
    return op && op->state != PB_OP_FAILED;
}

// A file that was handed over may have been renamed since; what it is called now, the system knows.
static const char *path_of(const pb_store *store, const pb_operation *op, char *path, size_t room) {
    char link[32];
    if (op->fd < 0 || (op->fd != store->old.fd && !store->handed_over)) return store->file.path;
    snprintf(link, sizeof link, "/proc/self/fd/%d", store->handed);
    const ssize_t bytes = store->handed < 0 ? -1 : readlink(link, path, room - 1);
    if (bytes <= 0) return op->fd == store->old.fd ? store->old.path : store->file.path;
    path[bytes] = '\0';
    return path;
}

__attribute__((format(printf, 3, 4))) static void fail(pb_store *store, pb_operation *op, const char *format, ...) {
    if (op->failing) return;  // the first reason counts
    op->failing = true;
    const pb_entry *e = &op->entry;
    char path[PB_STORE_MESSAGE / 2];
    int at = snprintf(
        op->message, sizeof op->message, "%s: extent %u (owner %llu, step %llu, generation %llu, %u bytes at %llu): ",
        path_of(store, op, path, sizeof path), op->extent, (unsigned long long)e->owner, (unsigned long long)e->step,
        (unsigned long long)e->generation, e->bytes, (unsigned long long)op->offset);
    if (at < 0 || at >= (int)sizeof op->message) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(op->message + at, sizeof op->message - (size_t)at, format, arguments);
    va_end(arguments);
}

// Says what the bytes are that were read, where they are known: the entries of all slots are in memory.
static void fail_mismatch(pb_store *store, pb_operation *op, const uint64_t hash[2]) {
    for (size_t i = 0; i < store->extent_count; i++)
        for (unsigned slot = 0; slot < store->slots; slot++) {
            const pb_entry *e = &store->extents[i].entry[slot];
            if (!e->bytes || e->hash[0] != hash[0] || e->hash[1] != hash[1]) continue;
            if (i == op->extent)
                fail(store, op, "the disk gave back stale bytes, those of generation %llu",
                     (unsigned long long)e->generation);
            else
                fail(store, op, "the disk gave back the bytes of extent %zu", i);
            return;
        }
    fail(store, op, "the disk gave back other bytes than were written (their XXH3-128 differs)");
}

static void hash_counted(pb_store *store, const void *data, size_t bytes, uint64_t hash[2]) {
    const double start = pb_seconds_now();
    pb_hash_bytes(data, bytes, hash);
    store->info.hash_seconds += pb_seconds_now() - start;
}

static void end(pb_store *store, pb_operation *op) {
    op->state = op->failing ? PB_OP_FAILED : PB_OP_FREE;
    store->done++;
}

// All requests of an operation are through. What was read is hashed later, when the disk has its next requests.
static void finish(pb_store *store, pb_operation *op) {
    pb_extent *extent = &store->extents[op->extent];
    if (!op->failing && !op->write) {
        op->state = PB_OP_ARRIVED;
        op->next = NULL;
        *store->arrived_end = op;
        store->arrived_end = &op->next;
        return;
    }
    if (!op->failing) {
        extent->entry[extent->current] = op->entry;
        extent->state = PB_EXTENT_VALID;
        store->info.bytes_written += op->entry.bytes;
    }
    end(store, op);
}

static void verify(pb_store *store, pb_operation *op) {
    uint64_t hash[2];
    store->arrived = op->next;
    if (!op->next) store->arrived_end = &store->arrived;
    hash_counted(store, op->data, op->entry.bytes, hash);
    if (hash[0] != op->entry.hash[0] || hash[1] != op->entry.hash[1]) fail_mismatch(store, op, hash);
    store->info.bytes_read += op->entry.bytes;
    end(store, op);
}

// The extent's turn has come: which slot, and what a read has to find there.
static void begin(pb_store *store, pb_operation *op) {
    pb_extent *extent = &store->extents[op->extent];
    op->state = PB_OP_RUNNING;
    if (op->write) {
        extent->current = extent->committed == 0 && store->slots > 1;  // never the slot of the last commit
        extent->state = PB_EXTENT_BROKEN;
        extent->in_old = false;
        extent->entry[extent->current].bytes = 0;
    }
    op->fd = extent->in_old ? store->old.fd : store->file.fd;
    op->offset = extent->offset + (uint64_t)extent->current * extent->capacity;
    if (op->write) return;
    const pb_entry wanted = op->entry;
    if (extent->state == PB_EXTENT_EMPTY) fail(store, op, "it was never written");
    if (extent->state == PB_EXTENT_BROKEN) fail(store, op, "its last write failed; it must be written again");
    op->entry = extent->entry[extent->current];
    if (op->entry.owner != wanted.owner)
        fail(store, op, "it is not of owner %llu, who asked", (unsigned long long)wanted.owner);
    if (op->entry.bytes != wanted.bytes) fail(store, op, "%u bytes were asked for", wanted.bytes);
}

static void issue(pb_store *store, pb_operation *op) {
    pb_request *request = store->free_requests;
    store->free_requests = request->next;
    const uint32_t left = op->entry.bytes - op->issued;
    const pb_store_call call = {.op = op->write ? PB_STORE_WRITE : PB_STORE_READ,
                                .fd = op->fd,
                                .data = op->data + op->issued,
                                .bytes = left < store->request_bytes ? left : store->request_bytes,
                                .offset = op->offset + op->issued};
    *request = (pb_request){.call = call, .operation = op};
    op->issued += (uint32_t)call.bytes;
    op->in_flight++;
    store->in_flight++;
    store->engine->kind->queue(store->engine, request);
}

// Gives the engine what it can take, the oldest operations first.
static void pump(pb_store *store) {
    for (pb_operation **at = &store->queue; *at;) {
        pb_operation *op = *at;
        if (op->state == PB_OP_QUEUED && is_under_way(store, op->after)) {
            at = &op->next;
            continue;
        }
        if (op->state == PB_OP_QUEUED) begin(store, op);
        while (!op->failing && op->issued < op->entry.bytes && store->free_requests) issue(store, op);
        if (!op->failing && op->issued < op->entry.bytes) break;
        *at = op->next;
        if (!*at) store->queue_end = at;
        op->queued = false;
        if (op->failing && op->in_flight == 0) finish(store, op);
    }
    store->engine->kind->start(store->engine);
}

static void retire(pb_store *store, pb_request *request) {
    pb_operation *op = request->operation;
    request->next = store->free_requests;
    store->free_requests = request;
    op->in_flight--;
    store->in_flight--;
    if (op->in_flight == 0 && !op->queued) finish(store, op);  // one that failed half issued ends in pump
}

// What became of a request: the rest of it once more, or the end of it.
static void settle_request(pb_store *store, pb_request *request) {
    pb_operation *op = request->operation;
    const long result = request->result;
    const char *verb = op->write ? "write" : "read";
    if (result > 0 && (size_t)result <= request->call.bytes && pb_store_call_advance(&request->call, (size_t)result))
        request->tries = 0;
    else if (result == 0)
        fail(store, op, op->write ? "the disk takes no more bytes" : "the file ends here: it was cut off");
    else if (result < 0 && !pb_store_is_passing(result))
        fail(store, op, "cannot %s: %s", verb, strerror((int)-result));
    else if (result > (long)request->call.bytes)
        fail(store, op, "the system says that it moved more bytes than it was asked to");
    else if (++request->tries >= PB_STORE_TRIES)
        fail(store, op, "cannot %s: it was tried %d times without getting on", verb, PB_STORE_TRIES);
    else
        pb_store_nap();
    if (op->failing || request->call.bytes == 0)
        retire(store, request);
    else
        store->engine->kind->queue(store->engine, request);
}

// Takes in what is finished and gives the engine more, and only then spends time on a hash: one per call, so that the
// disk does not run dry over many. With `block`, waits for something when there is nothing.
static void progress(pb_store *store, bool block) {
    pump(store);
    pb_request *request = NULL;
    const bool waits = block && !store->arrived && store->in_flight;
    bool empty = waits;
    while (store->in_flight && (request = store->engine->kind->next(store->engine, empty))) {
        settle_request(store, request);
        empty = false;
    }
    if (!waits || !empty) {
        pump(store);
        if (!store->arrived) return;
        verify(store, store->arrived);
        if (store->queue) pump(store);  // what waited for that read
        return;
    }
    // The engine has given up on the system; what its requests still do is not known.
    store->lost = true;
    snprintf(store->broken, sizeof store->broken, "%s: the system does not finish its requests", store->file.path);
    for (unsigned i = 0; i < store->operation_count; i++) {
        pb_operation *op = &store->operations[i];
        if (op->state != PB_OP_RUNNING && op->state != PB_OP_QUEUED) continue;
        fail(store, op, "the system does not finish its requests");
        op->state = PB_OP_FAILED;
        store->done++;
    }
    store->in_flight = 0;
    store->queue = NULL;
    store->queue_end = &store->queue;
}

static pb_status tell(pb_operation *op) {
    op->state = PB_OP_FREE;
    return pb_error(PB_ERR_IO, "%s", op->message);
}

// The oldest failure that nobody was told of, or NULL.
static pb_operation *oldest_failure(pb_store *store) {
    pb_operation *oldest = NULL;
    for (unsigned i = 0; i < store->operation_count; i++) {
        pb_operation *op = &store->operations[i];
        if (op->state == PB_OP_FAILED && (!oldest || op->order < oldest->order)) oldest = op;
    }
    return oldest;
}

static bool has_work(const pb_store *store) {
    return store->queue || store->in_flight || store->arrived;
}

static pb_status find_free(pb_store *store, pb_operation **found) {
    for (;;) {
        for (unsigned i = 0; i < store->operation_count; i++)
            if (store->operations[i].state == PB_OP_FREE) {
                *found = &store->operations[i];
                return PB_OK;
            }
        if (!has_work(store)) return tell(oldest_failure(store));
        progress(store, true);
    }
}

static pb_status take_on(pb_store *store, bool write, size_t index, pb_entry entry, void *data, size_t bytes,
                         pb_ticket *ticket) {
    if (store->broken[0]) return pb_error(PB_ERR_IO, "%s", store->broken);
    if (write && store->handed_over)
        return pb_error(PB_ERR_USAGE, "%s was handed over and is not written any more", store->file.path);
    if (index >= store->extent_count) return pb_error(PB_ERR_USAGE, "%s has no extent %zu", store->file.path, index);
    pb_extent *extent = &store->extents[index];
    if (bytes == 0 || bytes > extent->capacity || bytes % PB_STORE_BLOCK || (uintptr_t)data % PB_STORE_BLOCK)
        return pb_error(PB_ERR_USAGE,
                        "%s: %zu bytes at %p are no transfer of extent %zu, which has %u: whole blocks of %d",
                        store->file.path, bytes, data, index, extent->capacity, PB_STORE_BLOCK);
    pb_operation *op = NULL;
    PB_RETURN_IF(find_free(store, &op));
    if (write) hash_counted(store, data, bytes, entry.hash);
    entry.bytes = (uint32_t)bytes;
    *op = (pb_operation){.state = PB_OP_QUEUED,
                         .queued = true,
                         .write = write,
                         .ticket = op->ticket + store->operation_count,
                         .order = ++store->order,
                         .after = extent->last,
                         .extent = (uint32_t)index,
                         .data = data,
                         .fd = -1,
                         .entry = entry};
    extent->last = *ticket = op->ticket;
    *store->queue_end = op;
    store->queue_end = &op->next;
    return PB_OK;
}

pb_status pb_store_write(pb_store *store, size_t extent, uint64_t owner, uint64_t step, const void *data, size_t bytes,
                         pb_ticket *ticket) {
    const pb_entry entry = {.owner = owner, .step = step, .generation = store->info.generation + 1};
    return take_on(store, true, extent, entry, (void *)data, bytes, ticket);
}

pb_status pb_store_read(pb_store *store, size_t extent, uint64_t owner, void *data, size_t bytes, pb_ticket *ticket) {
    return take_on(store, false, extent, (pb_entry){.owner = owner}, data, bytes, ticket);
}

void pb_store_submit(pb_store *store) {
    pump(store);
}

bool pb_store_poll(pb_store *store, pb_ticket ticket) {
    if (is_under_way(store, ticket)) progress(store, false);
    return !is_under_way(store, ticket);
}

pb_status pb_store_wait(pb_store *store, pb_ticket ticket) {
    while (is_under_way(store, ticket)) progress(store, true);
    pb_operation *op = operation_of(store, ticket);
    return op ? tell(op) : PB_OK;
}

bool pb_store_wait_any(pb_store *store, int timeout_ms) {
    const double until = pb_seconds_now() + 1e-3 * timeout_ms;
    int left = timeout_ms;
    for (bool woken = false;;) {
        progress(store, false);
        if (store->done != store->noticed) {
            store->noticed = store->done;
            return true;
        }
        // Rounded up: a rest is not cut short, and the last millisecond is not spent spinning.
        if (timeout_ms > 0) left = (int)ceil(1e3 * (until - pb_seconds_now()));
        if (woken || (timeout_ms >= 0 && left <= 0)) return false;
        woken = store->engine->kind->await(store->engine, left);
    }
}

void pb_store_wake(pb_store *store) {
    store->engine->kind->wake(store->engine);
}

void pb_store_settle(pb_store *store) {
    while (has_work(store)) progress(store, true);
}

pb_status pb_store_drain(pb_store *store) {
    pb_store_settle(store);
    pb_operation *op = oldest_failure(store);
    return op ? tell(op) : PB_OK;
}
