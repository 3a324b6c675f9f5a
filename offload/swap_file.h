// The file under a store: made, found, checked and locked.
#ifndef PB_OFFLOAD_SWAP_FILE_H
#define PB_OFFLOAD_SWAP_FILE_H

#include "offload/calls.h"

enum { PB_SWAP_NAME = 96 };

typedef struct pb_swap_file {
    const pb_store_hook *hook;
    int directory, fd;        // -1: none
    bool direct;              // O_DIRECT
    char name[PB_SWAP_NAME];  // in the directory; "" for scratch
    char *path;               // for messages
    uint64_t bytes;
} pb_swap_file;
#define PB_SWAP_FILE_NONE ((pb_swap_file){.directory = -1, .fd = -1})

// PB_ERR_IO where a new file of `bytes` in `directory` would leave less than the low-water mark free: 1 GiB, or a
// twentieth of a file system under 20 GiB.
pb_status pb_swap_file_require_room(const char *directory, uint64_t bytes, const char *what);
// Opens the directory (made where it is missing) and, with a run id, the file that lies there, locked. file->fd is -1
// when there is none. `found` is its size. Errors as pb_store_open. Close the file in any case.
pb_status pb_swap_file_find(pb_swap_file *file, const pb_store_options *options, uint64_t *found);
// Makes a file of `bytes`, all of it allocated, in the place of the one that was found.
pb_status pb_swap_file_create(pb_swap_file *file, const pb_store_options *options, uint64_t bytes);
// Allocates what a file that was found has for holes.
pb_status pb_swap_file_fill(const pb_swap_file *file, uint64_t bytes);
// A read or write of all of `call`, but for its fd, at once; drops O_DIRECT where it turns out to be refused. 0 or
// -errno.
long pb_swap_file_transfer(pb_swap_file *file, pb_store_call call);
// fsync. 0 or -errno; it is never tried again, for a second one may succeed without having written anything.
long pb_swap_file_sync(const pb_swap_file *file);
// `unlock`: nothing of this process is under way in the file any more.
void pb_swap_file_close(pb_swap_file *file, bool unlock);
// Takes the name away; the file goes when it is closed.
pb_status pb_swap_file_remove(pb_swap_file *file);

// PB_ERR_IO: "cannot ACTION PATH: REASON" for a result of -errno.
pb_status pb_swap_file_error(const pb_swap_file *file, const char *action, long result);

#endif
