#include "offload/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

bool pb_store_call_begin(const pb_store_hook *hook, pb_store_call *call, long *result) {
    return hook && hook->before && hook->before(hook->context, call, result);
}

long pb_store_call_end(const pb_store_hook *hook, const pb_store_call *call, long result) {
    return hook && hook->after ? hook->after(hook->context, call, result) : result;
}

static long make(const pb_store_call *call) {
    switch (call->op) {
    case PB_STORE_OPEN: return openat(call->fd, call->name, call->flags, 0600);
    case PB_STORE_LOCK: return flock(call->fd, LOCK_EX | LOCK_NB);
    case PB_STORE_ALLOCATE: return fallocate(call->fd, 0, 0, (off_t)call->bytes);
    case PB_STORE_UNLINK: return unlinkat(call->fd, call->name, 0);
    case PB_STORE_SYNC: return fsync(call->fd);
    case PB_STORE_READ: return pread(call->fd, call->data, call->bytes, (off_t)call->offset);
    case PB_STORE_WRITE: return pwrite(call->fd, call->data, call->bytes, (off_t)call->offset);
    case PB_STORE_CLONE: return ioctl(call->fd, FICLONE, call->from);
    case PB_STORE_COPY: {
        off_t from = (off_t)call->offset, to = from;
        return copy_file_range(call->from, &from, call->fd, &to, call->bytes, 0);
    }
    case PB_STORE_RENAME: return renameat2(call->from, call->source, call->fd, call->name, RENAME_NOREPLACE);
    case PB_STORE_LINK: {
        char file[32];
        snprintf(file, sizeof file, "/proc/self/fd/%d", call->from);
        return linkat(AT_FDCWD, file, call->fd, call->name, AT_SYMLINK_FOLLOW);
    }
    case PB_STORE_PUNCH:
        return fallocate(call->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)call->offset, (off_t)call->bytes);
    default: errno = ENOSYS; return -1;  // the ring's calls are made by its engine
    }
}

long pb_store_call_make(const pb_store_hook *hook, pb_store_call call) {
    long result = 0;
    if (!pb_store_call_begin(hook, &call, &result)) {
        result = make(&call);
        if (result < 0) result = -errno;
    }
    return pb_store_call_end(hook, &call, result);
}

bool pb_store_is_passing(long result) {
    return result == -EINTR || result == -EAGAIN;
}

void pb_store_nap(void) {
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

bool pb_store_call_advance(pb_store_call *call, size_t done) {
    const size_t whole = done == call->bytes ? done : done - done % PB_STORE_BLOCK;
    if (call->data) call->data = (unsigned char *)call->data + whole;
    call->offset += whole;
    call->bytes -= whole;
    return whole > 0;
}

long pb_store_call_persist(const pb_store_hook *hook, pb_store_call call) {
    long result = -EINTR;
    for (int tries = 0; tries < PB_STORE_TRIES && pb_store_is_passing(result); tries++) {
        if (tries) pb_store_nap();
        result = pb_store_call_make(hook, call);
    }
    return result;
}

long pb_store_call_whole(const pb_store_hook *hook, pb_store_call call) {
    for (int tries = 0; tries < PB_STORE_TRIES;) {
        const long result = pb_store_call_make(hook, call);
        if (result < 0 && !pb_store_is_passing(result)) return result;
        if (result == 0) return call.op == PB_STORE_WRITE ? -ENOSPC : -EIO;  // nothing more goes in, or comes out
        if (result > 0 && pb_store_call_advance(&call, (size_t)result)) {
            if (!call.bytes) return 0;
            tries = 0;
            continue;
        }
        tries++;
        pb_store_nap();
    }
    return -EIO;
}
