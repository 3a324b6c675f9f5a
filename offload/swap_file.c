#include "offload/swap_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fs.h"

enum { CREATE_TRIES = 100, LOCK_TRIES = 9 };

pb_status pb_swap_file_error(const pb_swap_file *file, const char *action, long result) {
    return pb_error(PB_ERR_IO, "cannot %s %s: %s%s", action, file->path, strerror((int)-result),
                    result == -ENOSPC || result == -EDQUOT ? ": free some space, or put the swap file on another disk"
                                                           : "");
}

static long open_file(const pb_swap_file *file, const char *name, int flags) {
    const pb_store_call call = {.op = PB_STORE_OPEN,
                                .fd = file->directory,
                                .name = name,
                                .flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | flags};
    return pb_store_call_persist(file->hook, call);
}

// With O_DIRECT where the file system knows it. Non-blocking, so that a FIFO is not waited for.
static long open_direct(pb_swap_file *file, const pb_store_options *options, const char *name, int flags) {
    file->direct = !options->buffered;
    long fd = open_file(file, name, flags | (file->direct ? O_DIRECT : 0));
    if (fd == -EINVAL && file->direct) {
        file->direct = false;
        fd = open_file(file, name, flags);
    }
    return fd;
}

static pb_status make_directory(const char *path) {
    pb_status status = PB_OK;
    pb_arena *arena = pb_arena_create();
    const char *parent = arena ? pb_fs_parent(arena, path) : NULL;
    if (!parent) PB_FAIL(PB_ERR_MEMORY, "no memory for the swap file in %s", path);
    PB_TRY(pb_fs_make_directories(parent));
    if (mkdir(path, 0700) && errno != EEXIST)
        PB_FAIL(PB_ERR_IO, "cannot make the directory %s: %s", path, strerror(errno));
fail:
    pb_arena_destroy(arena);
    return status;
}

// The file must be what a run of this user made: else somebody planted it, to be written to or to read along.
static pb_status check_file(const pb_swap_file *file, uint64_t *bytes) {
    struct stat info;
    if (fstat(file->fd, &info)) return pb_swap_file_error(file, "look at", -errno);
    const char *fault = !S_ISREG(info.st_mode)       ? "is not a regular file"
                        : info.st_uid != geteuid()   ? "belongs to another user"
                        : info.st_nlink > 1          ? "has another hard link"
                        : (info.st_mode & 0077) != 0 ? "can be opened by other users"
                                                     : NULL;
    *bytes = (uint64_t)info.st_size;
    return fault
               ? pb_error(PB_ERR_IO, "%s %s: no run made it; remove it or choose another directory", file->path, fault)
               : PB_OK;
}

// Nine tenths of a second's patience: the system lets go of a killed process's requests, and with them of its lock, a
// little late, and later where it is busy.
static pb_status lock_file(const pb_swap_file *file) {
    long result = -EWOULDBLOCK;
    for (int tries = 0; tries < LOCK_TRIES && result == -EWOULDBLOCK; tries++)
        result = pb_store_call_persist(file->hook, (pb_store_call){.op = PB_STORE_LOCK, .fd = file->fd});
    if (result == -EWOULDBLOCK)
        return pb_error(PB_ERR_IO, "%s is in use by another process: let that run end first", file->path);
    return result ? pb_swap_file_error(file, "lock", result) : PB_OK;
}

// Whether the name still leads to the file that was locked; a run that just ended may have removed it.
static bool is_current(const pb_swap_file *file) {
    struct stat named, held;
    return !fstatat(file->directory, file->name, &named, AT_SYMLINK_NOFOLLOW) && !fstat(file->fd, &held) &&
           named.st_dev == held.st_dev && named.st_ino == held.st_ino;
}

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

pb_status pb_swap_file_find(pb_swap_file *file, const pb_store_options *options, uint64_t *found) {
    PB_RETURN_IF(make_directory(options->directory));
    if (options->run_id) snprintf(file->name, sizeof file->name, "pagebooth-%s.swap", options->run_id);
    const size_t room = strlen(options->directory) + sizeof file->name + 16;
    file->path = malloc(room);
    if (!file->path) return pb_error(PB_ERR_MEMORY, "no memory for the swap file in %s", options->directory);
    snprintf(file->path, room, "%s/%s", options->directory, options->run_id ? file->name : "(unnamed swap file)");
    file->directory = open(options->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file->directory < 0)
        return pb_error(PB_ERR_IO, "cannot open the directory %s: %s", options->directory, strerror(errno));
    for (int tries = 0; options->run_id && tries < CREATE_TRIES; tries++) {
        const long fd = open_direct(file, options, file->name, 0);
        if (fd == -ENOENT) return PB_OK;
        if (fd == -ELOOP)
            return pb_error(PB_ERR_IO, "%s is a symbolic link: no run made it; remove it or choose another directory",
                            file->path);
        if (fd < 0) return pb_swap_file_error(file, "open", fd);
        file->fd = (int)fd;
        PB_RETURN_IF(check_file(file, found));
        PB_RETURN_IF(lock_file(file));
        if (is_current(file)) return PB_OK;
        close_fd(&file->fd);
    }
    return options->run_id ? pb_error(PB_ERR_IO, "%s keeps changing: other processes start there", file->path) : PB_OK;
}

// A file without a name; where the file system has none of that, one whose name is gone at once.
static pb_status create_scratch(pb_swap_file *file, const pb_store_options *options) {
    long fd = open_direct(file, options, ".", O_TMPFILE);
    char name[PB_SWAP_NAME];
    for (int i = 0; i < CREATE_TRIES && (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EEXIST); i++) {
        snprintf(name, sizeof name, ".pagebooth-%ld-%d.swap", (long)getpid(), i);
        fd = open_direct(file, options, name, O_CREAT | O_EXCL);
        if (fd < 0) continue;
        const pb_store_call call = {.op = PB_STORE_UNLINK, .fd = file->directory, .name = name};
        const long result = pb_store_call_persist(file->hook, call);
        if (result) {
            close((int)fd);
            return pb_swap_file_error(file, "take away the name of", result);
        }
    }
    if (fd < 0) return pb_swap_file_error(file, "create", fd);
    file->fd = (int)fd;
    return PB_OK;
}

static pb_status create_named(pb_swap_file *file, const pb_store_options *options) {
    if (file->fd >= 0) {
        PB_RETURN_IF(pb_swap_file_remove(file));
        close_fd(&file->fd);
        snprintf(file->name, sizeof file->name, "pagebooth-%s.swap", options->run_id);
    }
    const long fd = open_direct(file, options, file->name, O_CREAT | O_EXCL);
    if (fd == -EEXIST) return pb_error(PB_ERR_IO, "%s is in use by another process: it just made it", file->path);
    if (fd < 0) return pb_swap_file_error(file, "create", fd);
    file->fd = (int)fd;
    PB_RETURN_IF(lock_file(file));
    return is_current(file) ? PB_OK
                            : pb_error(PB_ERR_IO, "%s is in use by another process: it replaced it", file->path);
}

// Writes zeros where the file system cannot allocate without.
static pb_status allocate(const pb_swap_file *file, uint64_t bytes) {
    pb_store_call call = {.op = PB_STORE_ALLOCATE, .fd = file->fd, .bytes = bytes};
    long result = pb_store_call_persist(file->hook, call);
    if (result == -EOPNOTSUPP) {
        const size_t piece = 1 << 20;
        void *zeros = aligned_alloc(PB_STORE_BLOCK, piece);
        if (!zeros) return pb_error(PB_ERR_MEMORY, "no memory to allocate %s", file->path);
        memset(zeros, 0, piece);
        result = 0;
        for (uint64_t at = 0; at < bytes && !result; at += piece) {
            const size_t part = bytes - at < piece ? (size_t)(bytes - at) : piece;
            call = (pb_store_call){.op = PB_STORE_WRITE, .fd = file->fd, .data = zeros, .bytes = part, .offset = at};
            result = pb_store_call_whole(file->hook, call);
        }
        free(zeros);
    }
    return result ? pb_swap_file_error(file, "allocate", result) : PB_OK;
}

pb_status pb_swap_file_fill(const pb_swap_file *file, uint64_t bytes) {
    struct stat info;
    if (fstat(file->fd, &info)) return pb_swap_file_error(file, "look at", -errno);
    if ((uint64_t)info.st_blocks * 512 >= bytes) return PB_OK;
    const pb_store_call call = {.op = PB_STORE_ALLOCATE, .fd = file->fd, .bytes = bytes};
    const long result = pb_store_call_persist(file->hook, call);
    // Where the file system cannot, a full disk is an error of the transfer that finds it so.
    return result && result != -EOPNOTSUPP ? pb_swap_file_error(file, "allocate", result) : PB_OK;
}

long pb_swap_file_transfer(pb_swap_file *file, pb_store_call call) {
    call.fd = file->fd;
    long result = pb_store_call_whole(file->hook, call);
    // Some file systems take the flag and refuse the transfers.
    if (result == -EINVAL && file->direct && !fcntl(file->fd, F_SETFL, fcntl(file->fd, F_GETFL) & ~O_DIRECT)) {
        file->direct = false;
        result = pb_store_call_whole(file->hook, call);
    }
    return result;
}

long pb_swap_file_sync(const pb_swap_file *file) {
    return pb_store_call_make(file->hook, (pb_store_call){.op = PB_STORE_SYNC, .fd = file->fd});
}

// The first write shows whether O_DIRECT works.
static pb_status write_first_block(pb_swap_file *file) {
    void *block = aligned_alloc(PB_STORE_BLOCK, PB_STORE_BLOCK);
    if (!block) return pb_error(PB_ERR_MEMORY, "no memory to write %s", file->path);
    memset(block, 0, PB_STORE_BLOCK);
    const pb_store_call call = {.op = PB_STORE_WRITE, .data = block, .bytes = PB_STORE_BLOCK};
    const long result = pb_swap_file_transfer(file, call);
    free(block);
    return result ? pb_swap_file_error(file, "write", result) : PB_OK;
}

static pb_status sync_directory(const pb_swap_file *file) {
    const long result = pb_store_call_persist(file->hook, (pb_store_call){.op = PB_STORE_SYNC, .fd = file->directory});
    return result ? pb_swap_file_error(file, "write out the directory of", result) : PB_OK;
}

pb_status pb_swap_file_require_room(const char *directory, uint64_t bytes, const char *what) {
    struct statvfs info;
    if (statvfs(directory, &info)) return pb_error(PB_ERR_IO, "cannot look at %s: %s", directory, strerror(errno));
    const uint64_t twentieth = (uint64_t)info.f_blocks * info.f_frsize / 20, most = 1 << 30;
    return pb_fs_require_space(directory, bytes + (twentieth < most ? twentieth : most), what);
}

pb_status pb_swap_file_create(pb_swap_file *file, const pb_store_options *options, uint64_t bytes) {
    if (options->run_id)
        PB_RETURN_IF(create_named(file, options));
    else
        PB_RETURN_IF(create_scratch(file, options));
    pb_status status = PB_OK;
    uint64_t found = 0;
    PB_TRY(pb_swap_file_require_room(options->directory, bytes, "the swap file and a margin"));
    if (fchmod(file->fd, 0600)) PB_FAIL(PB_ERR_IO, "cannot make %s private: %s", file->path, strerror(errno));
    if (options->run_id) PB_TRY(check_file(file, &found));
    PB_TRY(allocate(file, bytes));
    PB_TRY(write_first_block(file));
    if (options->run_id) PB_TRY(sync_directory(file));
    file->bytes = bytes;
    return PB_OK;
fail:
    // An unfinished file is of no use to anybody. Its own failure is the one to tell.
    if (options->run_id) unlinkat(file->directory, file->name, 0);
    file->name[0] = '\0';
    return status;
}

pb_status pb_swap_file_remove(pb_swap_file *file) {
    if (!file->name[0]) return PB_OK;
    const long result = pb_store_call_persist(
        file->hook, (pb_store_call){.op = PB_STORE_UNLINK, .fd = file->directory, .name = file->name});
    file->name[0] = '\0';
    return result && result != -ENOENT ? pb_swap_file_error(file, "remove", result) : PB_OK;
}

void pb_swap_file_close(pb_swap_file *file, bool unlock) {
    // The ring lets go of the file some time after it is closed.
    if (unlock && file->fd >= 0) flock(file->fd, LOCK_UN);
    close_fd(&file->fd);
    close_fd(&file->directory);
    free(file->path);
    *file = PB_SWAP_FILE_NONE;
}
