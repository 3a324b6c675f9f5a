// The NVMe tier: one preallocated file of extents, moved asynchronously between the file and the caller's memory. It
// knows bytes, not tensors: an extent is a numbered range of a fixed capacity, and what lies in it is the caller's
// affair. Every write is hashed (XXH3-128) and every read is held against that hash, so bytes that were lost, flipped,
// misplaced or are of another time are an error and never data. docs/offload.md has the file's layout and the
// protocol.
//
// A store belongs to one thread at a time. Nothing is allocated after pb_store_open, but for a path and a buffer by the
// functions for checkpoints. Addresses, capacities and sizes are multiples of PB_STORE_BLOCK.
#ifndef PB_OFFLOAD_STORE_H
#define PB_OFFLOAD_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    PB_STORE_BLOCK = 4096,
    PB_STORE_EXTENT_MAX = 1 << 30,  // bytes of an extent: the largest parameter of SDXL in fp32 has 118 MB
    PB_STORE_BLOB_MAX = 64 << 10,   // bytes of the caller's in a commit record
    PB_STORE_RUN_ID_MAX = 63,       // characters
    PB_STORE_EXTENTS_MAX = 1 << 20
};

// --- The shim: every system call of the store passes it, so that a test can make any of them fail. ---

typedef enum pb_store_op {
    PB_STORE_OPEN,
    PB_STORE_LOCK,
    PB_STORE_ALLOCATE,
    PB_STORE_UNLINK,
    PB_STORE_SYNC,  // of the file or of its directory
    PB_STORE_READ,
    PB_STORE_WRITE,
    PB_STORE_CLONE,   // a file's blocks into another file
    PB_STORE_COPY,    // some of a file's bytes into another file
    PB_STORE_RENAME,  // never over another file
    PB_STORE_LINK,    // a name for a file without one; likewise
    PB_STORE_PUNCH,   // the blocks of a range back to the file system
    PB_STORE_RING_SETUP,
    PB_STORE_RING_FILE,     // registration of the file
    PB_STORE_RING_BUFFERS,  // registration of the caller's memory
    PB_STORE_RING_SUBMIT,
    PB_STORE_RING_WAIT
} pb_store_op;

typedef struct pb_store_call {
    pb_store_op op;
    int fd;              // of the file; of the directory for OPEN, UNLINK, RENAME, LINK
    const char *name;    // in the directory: OPEN, UNLINK, RENAME, LINK
    int from;            // CLONE, COPY: the other file; LINK: the file; RENAME: the other directory
    const char *source;  // RENAME: the name there
    int flags;           // OPEN
    void *data;          // READ, WRITE
    size_t bytes;        // READ, WRITE, COPY, ALLOCATE, PUNCH; the entries of RING_SETUP
    uint64_t offset;     // READ, WRITE, PUNCH; COPY: in both files
} pb_store_call;

// Where the threads do the transfers, READ and WRITE come from several threads at once.
typedef struct pb_store_hook {
    void *context;
    // May change the call (fewer bytes, other data). True: the call is not made; *result (>= 0 or -errno) is its
    // result.
    bool (*before)(void *context, pb_store_call *call, long *result);
    // Sees the call with its result and says what the store is told.
    long (*after)(void *context, const pb_store_call *call, long result);
} pb_store_hook;

// --- Opening ---

typedef enum pb_store_engine {
    PB_STORE_AUTO,    // io_uring, and threads where that is refused
    PB_STORE_URING,   // or an error
    PB_STORE_THREADS  // pread and pwrite on a fixed pool of threads
} pb_store_engine;

typedef struct pb_store_options {
    const char *directory;  // made (0700) where it is missing
    // NULL: scratch, a file without a name, of which nothing is left however the process ends. Else what the file is
    // named after (letters, digits, '-', '_', '.'): it can be committed and opened again.
    const char *run_id;
    const uint32_t *capacities;  // bytes of each extent
    size_t extent_count;
    uint32_t request_bytes;  // per request; 0: 4 MiB
    unsigned depth;          // requests at once, at most 1024; 0: 32
    unsigned operations;     // reads and writes of extents at once, at most 4096; 0: 64
    pb_store_engine engine;
    bool buffered;  // through the page cache even where O_DIRECT works
    // Memory that transfers will mostly use (a host slab), registered with io_uring where the limits let it and put
    // together in large pages where the system does that. May be NULL.
    void *memory;
    size_t memory_bytes;
    const pb_store_hook *hook;  // NULL outside tests; must outlive the store
} pb_store_options;

typedef struct pb_store pb_store;

// Creates the file, or finds the one of the same run and layout as its last commit left it (info: resumed). What else
// lies under that name and is this user's own is replaced (info: note says why). Errors: PB_ERR_IO (a symbolic link, a
// second hard link, a special file, another owner, an open mode; in use by another process; no room, or a margin of
// less than 1 GiB, or of 5% of a small disk, after it; a system call), PB_ERR_USAGE (options out of range),
// PB_ERR_UNSUPPORTED (PB_STORE_URING refused), PB_ERR_MEMORY.
pb_status pb_store_open(const pb_store_options *options, pb_store **store);

// Waits for what is under way and frees everything. Returns the first failure that nobody was told of. A file with a
// name is removed unless `keep`. NULL is fine.
pb_status pb_store_close(pb_store *store, bool keep);

typedef struct pb_store_info {
    const char *engine;  // "io_uring" or "threads"
    bool direct;         // O_DIRECT
    bool registered_file, registered_memory;
    uint64_t file_bytes;
    uint64_t bytes_read, bytes_written;  // of extents, finished
    double hash_seconds;                 // spent on hashes of extents, in the thread that uses the store
    const char *path;                    // for messages, also of a file without a name
    const char *note;                    // why a file that was found was not used, or ""
    bool resumed;
    // The last commit; generation 0 before the first.
    uint64_t generation, step;
    const void *blob;
    size_t blob_bytes;
} pb_store_info;

// Valid until the next call on the store.
const pb_store_info *pb_store_get_info(pb_store *store);

// --- Transfers ---

typedef uint64_t pb_ticket;

// What an extent holds. bytes 0: nothing yet.
typedef struct pb_store_tag {
    uint64_t owner, step;  // the caller's, as given with the write
    uint64_t generation;   // the commit that has it, or will
    uint32_t bytes;
} pb_store_tag;

pb_store_tag pb_store_get_tag(const pb_store *store, size_t extent);

// Where those bytes lie in the file, and their XXH3-128, low half first. bytes 0: nothing.
typedef struct pb_store_place {
    uint64_t owner, offset, hash[2];
    uint32_t bytes;
} pb_store_place;

pb_store_place pb_store_get_place(const pb_store *store, size_t extent);

// Take a transfer on; the caller leaves `data` alone until its ticket is done. Transfers of one extent happen in the
// order in which they were given, others in any. They start with the next submit, poll or wait, all in one system call.
// A write that fails leaves an extent that cannot be read or committed until it is written again. A read wants the
// whole of what `owner` wrote: other `owner` or `bytes` are an error of its ticket.
// These block only while all operations are in use. Errors here: PB_ERR_IO after a failed commit, PB_ERR_USAGE for an
// extent, size or address out of range, and, where all operations have failed unreported, the first of those failures.
pb_status pb_store_write(pb_store *store, size_t extent, uint64_t owner, uint64_t step, const void *data, size_t bytes,
                         pb_ticket *ticket);
pb_status pb_store_read(pb_store *store, size_t extent, uint64_t owner, void *data, size_t bytes, pb_ticket *ticket);

void pb_store_submit(pb_store *store);
// Whether `ticket` is done, well or not; never blocks for I/O.
bool pb_store_poll(pb_store *store, pb_ticket ticket);
// PB_OK when the transfer is done and, for a read, the bytes are what was written. PB_ERR_IO with the file, the extent
// and the reason else; each failure is told once: by the wait for its ticket, or by drain, commit or close.
pb_status pb_store_wait(pb_store *store, pb_ticket ticket);
// Blocks until a transfer is done, well or not, another thread calls pb_store_wake, or `timeout_ms` have passed (-1: no
// limit). True: at least one was done since the last call that said so; which, pb_store_poll tells. A thread that keeps
// many transfers under way rests here between two rounds of polls and misses nothing: what was done during the polls
// counts.
bool pb_store_wait_any(pb_store *store, int timeout_ms);
// Ends the wait_any that is under way, or the next one at once. The one function that other threads may call, until
// close.
void pb_store_wake(pb_store *store);
// Waits for everything; the first failure not told yet, one per call.
pb_status pb_store_drain(pb_store *store);

// --- Commits ---

// Makes what all extents hold now, with `blob` (at most PB_STORE_BLOB_MAX bytes), the state that a later open finds,
// however the process or the machine ends. Until it returns, that is the state of the commit before. PB_ERR_IO: not
// committed; when that came from an fsync or from the record, the store refuses everything further, and opening the
// file again finds this commit or the one before, whole. PB_ERR_UNSUPPORTED for scratch.
pb_status pb_store_commit(pb_store *store, uint64_t step, const void *blob, size_t bytes);

// --- Checkpoints: the last commit as a file of its own ---
//
// `path` is a new name in a directory that exists; whatever has that name already is PB_ERR_IO. The new file has mode
// 0600 and is on the disk, its directory too, when these return PB_OK; after an error there is none. Opened under the
// same run id and layout (its name: pagebooth-RUN.swap), it is the last commit. PB_ERR_USAGE before the first commit,
// PB_ERR_IO for what the system refuses.
//
// Of scratch they keep what all extents hold now, and the caller keeps the record: pb_store_get_place says what is
// where in the new file, in which every extent has the place that it has in the store's own.

// Shares the blocks: no copy, no room. PB_ERR_UNSUPPORTED where the file system does not share blocks, or not with that
// directory: hand the file over, or copy it.
pb_status pb_store_clone(pb_store *store, const char *path);
// Copies the committed slots, once there is room for them, and reads them back against their hashes. What is free in
// the store's file is a hole in the copy, which opening fills.
pb_status pb_store_copy(pb_store *store, const char *path);
// The file itself gets the new name; after an error of a directory's fsync it may have either (info: path). The store
// can then only be read and closed, which leaves the file where it is; a new store of the same run can be opened beside
// it, to be written to, and scratch can be renewed. PB_ERR_UNSUPPORTED where `path` is on another file system, or where
// a file without a name cannot be given one.
pb_status pb_store_hand_over(pb_store *store, const char *path);

// Scratch: what the extent holds is not wanted any more. It is neither kept nor completed, and reads as never written.
void pb_store_forget(pb_store *store, size_t extent);
// Scratch that was handed over gets a new file and is as usable as before. What was not written anew since lies in the
// file that was handed over, is read from there, and stays readable even when that loses its name. Errors as
// pb_store_open; the store can be read as before then.
pb_status pb_store_renew(pb_store *store);
// Scratch that nothing was written to yet begins with what an earlier one of the same layout left in the file `path`:
// extent i with places[i], where that has bytes. It is read from there, against its hash, until it is written, as after
// pb_store_renew, and the file is not written. PB_ERR_UNSUPPORTED where the places are not those that this store gives
// its extents. PB_ERR_IO: it cannot be opened, is no regular file, or a link.
pb_status pb_store_adopt(pb_store *store, const char *path, const pb_store_place *places);

#endif
