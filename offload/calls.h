// The store's system calls, each through the hook of the tests.
#ifndef PB_OFFLOAD_CALLS_H
#define PB_OFFLOAD_CALLS_H

#include "offload/store.h"

// The two halves, for calls that are made elsewhere (io_uring). begin: true when the hook has given the result.
bool pb_store_call_begin(const pb_store_hook *hook, pb_store_call *call, long *result);
long pb_store_call_end(const pb_store_hook *hook, const pb_store_call *call, long result);

// Makes one call of OPEN .. PUNCH. Its result, or -errno.
long pb_store_call_make(const pb_store_hook *hook, pb_store_call call);

// Interrupted, or the system is short of something for a moment.
bool pb_store_is_passing(long result);

// The same, tried again while its failure is a passing one.
long pb_store_call_persist(const pb_store_hook *hook, pb_store_call call);

// Reads, writes or copies all of `call`, however many calls it takes; the synchronous way. 0 or -errno.
long pb_store_call_whole(const pb_store_hook *hook, pb_store_call call);

// A millisecond, for the system to get over it.
void pb_store_nap(void);

// How often a call that does not get on is tried before it is a failure: a tenth of a second with its naps.
enum { PB_STORE_TRIES = 100 };

// What is left of a transfer of which `done` bytes happened. Only whole blocks count, so that what follows is aligned
// as O_DIRECT wants it. True when it got on.
bool pb_store_call_advance(pb_store_call *call, size_t done);

#endif
