// What carries requests out: io_uring or a pool of threads. Neither knows extents; what a result means, short ones
// among them, is the business of transfer.c.
#ifndef PB_OFFLOAD_ENGINE_H
#define PB_OFFLOAD_ENGINE_H

#include "offload/calls.h"

struct pb_operation;

typedef struct pb_request {
    pb_store_call call;   // what is left to be moved
    pb_store_call asked;  // what was asked of the system: `call`, unless the hook changed it
    long result;          // bytes or -errno
    bool decided;         // `result` comes from the hook
    unsigned tries;       // without getting on
    void *sqe;            // while it waits to be submitted (io_uring)
    struct pb_operation *operation;
    struct pb_request *next;
} pb_request;

typedef struct pb_engine pb_engine;
typedef struct pb_engine_kind {
    const char *name;
    void (*queue)(pb_engine *engine, pb_request *request);  // at most `depth` at a time
    void (*start)(pb_engine *engine);                       // all that is queued
    pb_request *(*next)(pb_engine *engine, bool block);     // one that is finished, or NULL
    // Until something is finished, somebody wakes it or the time (-1: no limit) is over; may return early. True: woken,
    // also by a wake of before.
    bool (*await)(pb_engine *engine, int timeout_ms);
    void (*wake)(pb_engine *engine);  // from any thread
    // Most requests are for another file from now on. When none is queued or under way; NULL: needs not be told.
    void (*prefer)(pb_engine *engine, int fd);
    void (*destroy)(pb_engine *engine);  // when none is queued or under way
} pb_engine_kind;

// The first member of every engine.
struct pb_engine {
    const pb_engine_kind *kind;
    const pb_store_hook *hook;
    bool registered_file, registered_memory;
};

pb_status pb_engine_create_threads(unsigned depth, const pb_store_hook *hook, pb_engine **engine);
// PB_ERR_UNSUPPORTED where the system has or allows no io_uring.
pb_status pb_engine_create_uring(unsigned depth, int fd, void *memory, size_t memory_bytes, const pb_store_hook *hook,
                                 pb_engine **engine);

#endif
