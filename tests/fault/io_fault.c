// LD_PRELOAD library that makes one operation on files fail. It numbers the calls that change what is under the
// directory PB_FAULT_DIR (open for writing, write, pwrite, ftruncate, fallocate, fsync, rename, link, a clone by ioctl,
// unlink, mkdir, rmdir, from 1), and at call number PB_FAULT_AT does what PB_FAULT_KIND says:
//
//     enospc, eio, eintr   the call does nothing and fails with that errno
//     short                a write writes half of its bytes (at least one); other calls fail with ENOSPC
//     kill                 the process is killed before the call
//     late-kill            the process is killed after the call
//
// enospc is lasting, as a full disk is: from PB_FAULT_AT on, every call that needs room fails. The others happen once.
// PB_FAULT_LOG names a file to which each call is appended as "NUMBER CALL PATH".
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

typedef enum fault { FAULT_NONE, FAULT_ENOSPC, FAULT_EIO, FAULT_EINTR, FAULT_SHORT, FAULT_KILL, FAULT_LATE_KILL } fault;

static char directory[PATH_BYTES];
static long fault_at;
static fault fault_kind;
static int log_fd = -1;
static atomic_long calls;

__attribute__((constructor)) static void read_environment(void) {
    static const char *const names[] = {"none", "enospc", "eio", "eintr", "short", "kill", "late-kill"};
    const char *where = getenv("PB_FAULT_DIR"), *at = getenv("PB_FAULT_AT"), *kind = getenv("PB_FAULT_KIND");
    const char *log = getenv("PB_FAULT_LOG");
    if (!where || !realpath(where, directory)) directory[0] = '\0';
    fault_at = at ? strtol(at, NULL, 10) : 0;
    for (int i = 0; kind && i < (int)(sizeof names / sizeof *names); i++)
        if (!strcmp(kind, names[i])) fault_kind = (fault)i;
    // By the bare system call: open() is interposed below.
    if (log) log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static bool is_inside(const char *path) {
    size_t bytes = strlen(directory);
    return bytes && !strncmp(path, directory, bytes) && (path[bytes] == '/' || !path[bytes]);
}

// The path of `name` relative to the directory `at`, links in its parents not resolved but for the directory's own.
static void full_path(int at, const char *name, char *path) {
    char link[64], base[PATH_BYTES / 2] = "";
    if (name[0] != '/') {
        if (at == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t bytes = readlink(link, base, sizeof base - 2);
        base[bytes > 0 ? bytes : 0] = '\0';
        strcat(base, "/");
    }
    snprintf(path, PATH_BYTES, "%s%.2000s", base, name);
}

// Counts a call and says what is to happen to it.
static fault next_fault(const char *call, const char *path, bool needs_room) {
    if (!is_inside(path)) return FAULT_NONE;
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (log_fd >= 0) {
        char line[PATH_BYTES + 64];
        int bytes = snprintf(line, sizeof line, "%ld %s %s\n", number, call, path);
        if (syscall(SYS_write, log_fd, line, (size_t)bytes) != bytes) log_fd = -1;
    }
    bool full = fault_kind == FAULT_ENOSPC && fault_at && number >= fault_at && (needs_room || number == fault_at);
    if (!full && number != fault_at) return FAULT_NONE;
    if (fault_kind == FAULT_KILL) kill(getpid(), SIGKILL);
    return fault_kind;
}

static fault next_fault_fd(const char *call, int fd, bool needs_room) {
    char link[64], path[PATH_BYTES];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, sizeof path - 1);
    if (bytes <= 0) return FAULT_NONE;
    path[bytes] = '\0';
    return next_fault(call, path, needs_room);
}

static fault next_fault_at(const char *call, int at, const char *name, bool needs_room) {
    char path[PATH_BYTES];
    full_path(at, name, path);
    return next_fault(call, path, needs_room);
}

// The errno that a fault stands for, 0 where the call is to be made.
static int errno_of(fault what) {
    switch (what) {
    case FAULT_ENOSPC:
    case FAULT_SHORT: return ENOSPC;
    case FAULT_EIO: return EIO;
    case FAULT_EINTR: return EINTR;
    default: return 0;
    }
}

// The function that this one stands before.
#define REAL(name)                        \
    static __typeof__(name) *real_##name; \
    if (!real_##name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name)
#define EXPORT __attribute__((visibility("default")))

// Makes the call, or fails as `what` says.
#define FINISH(what, call)                                      \
    do {                                                        \
        if (errno_of(what)) return errno = errno_of(what), -1;  \
        __typeof__(call) result = (call);                       \
        if ((what) == FAULT_LATE_KILL) kill(getpid(), SIGKILL); \
        return result;                                          \
    } while (0)

static size_t shortened(fault *what, size_t bytes) {
    if (*what != FAULT_SHORT || bytes < 2) return bytes;
    *what = FAULT_NONE;
    return bytes / 2;
}

EXPORT ssize_t write(int fd, const void *data, size_t bytes) {
    REAL(write);
    fault what = next_fault_fd("write", fd, true);
    size_t count = shortened(&what, bytes);
    FINISH(what, real_write(fd, data, count));
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) {
    REAL(pwrite);
    fault what = next_fault_fd("pwrite", fd, true);
    size_t count = shortened(&what, bytes);
    FINISH(what, real_pwrite(fd, data, count, offset));
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) {
    REAL(pwrite64);
    fault what = next_fault_fd("pwrite", fd, true);
    size_t count = shortened(&what, bytes);
    FINISH(what, real_pwrite64(fd, data, count, offset));
}

EXPORT int ftruncate(int fd, off_t bytes) {
    REAL(ftruncate);
    fault what = next_fault_fd("ftruncate", fd, false);
    FINISH(what, real_ftruncate(fd, bytes));
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t bytes) {
    REAL(fallocate);
    fault what = next_fault_fd("fallocate", fd, true);
    FINISH(what, real_fallocate(fd, mode, offset, bytes));
}

EXPORT int posix_fallocate(int fd, off_t offset, off_t bytes) {
    REAL(posix_fallocate);
    fault what = next_fault_fd("posix_fallocate", fd, true);
    if (errno_of(what)) return errno_of(what);  // it returns the error and leaves errno alone
    FINISH(what, real_posix_fallocate(fd, offset, bytes));
}

EXPORT ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t bytes, unsigned flags) {
    REAL(copy_file_range);
    fault what = next_fault_fd("copy_file_range", out, true);
    size_t count = shortened(&what, bytes);
    FINISH(what, real_copy_file_range(in, in_at, out, out_at, count, flags));
}

EXPORT int fsync(int fd) {
    REAL(fsync);
    fault what = next_fault_fd("fsync", fd, true);
    FINISH(what, real_fsync(fd));
}

EXPORT int fdatasync(int fd) {
    REAL(fdatasync);
    fault what = next_fault_fd("fdatasync", fd, true);
    FINISH(what, real_fdatasync(fd));
}

EXPORT int rename(const char *from, const char *to) {
    REAL(rename);
    fault what = next_fault_at("rename", AT_FDCWD, to, true);
    FINISH(what, real_rename(from, to));
}

EXPORT int renameat(int from_at, const char *from, int to_at, const char *to) {
    REAL(renameat);
    fault what = next_fault_at("renameat", to_at, to, true);
    FINISH(what, real_renameat(from_at, from, to_at, to));
}

EXPORT int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    REAL(renameat2);
    fault what = next_fault_at("renameat2", to_at, to, true);
    FINISH(what, real_renameat2(from_at, from, to_at, to, flags));
}

EXPORT int link(const char *from, const char *to) {
    REAL(link);
    fault what = next_fault_at("link", AT_FDCWD, to, true);
    FINISH(what, real_link(from, to));
}

EXPORT int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    REAL(linkat);
    fault what = next_fault_at("linkat", to_at, to, true);
    FINISH(what, real_linkat(from_at, from, to_at, to, flags));
}

EXPORT int ioctl(int fd, unsigned long request, ...) {
    REAL(ioctl);
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    fault what = request == FICLONE ? next_fault_fd("ioctl", fd, true) : FAULT_NONE;
    FINISH(what, real_ioctl(fd, request, argument));
}

EXPORT int unlink(const char *path) {
    REAL(unlink);
    fault what = next_fault_at("unlink", AT_FDCWD, path, false);
    FINISH(what, real_unlink(path));
}

EXPORT int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    fault what = next_fault_at("unlinkat", at, path, false);
    FINISH(what, real_unlinkat(at, path, flags));
}

EXPORT int rmdir(const char *path) {
    REAL(rmdir);
    fault what = next_fault_at("rmdir", AT_FDCWD, path, false);
    FINISH(what, real_rmdir(path));
}

EXPORT int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    fault what = next_fault_at("mkdir", AT_FDCWD, path, true);
    FINISH(what, real_mkdir(path, mode));
}

EXPORT int mkdirat(int at, const char *path, mode_t mode) {
    REAL(mkdirat);
    fault what = next_fault_at("mkdirat", at, path, true);
    FINISH(what, real_mkdirat(at, path, mode));
}

static mode_t mode_argument(int flags, va_list arguments) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

// Opening for reading changes nothing and is not counted.
static fault open_fault(const char *call, int at, const char *path, int flags) {
    return (flags & O_ACCMODE) == O_RDONLY ? FAULT_NONE : next_fault_at(call, at, path, flags & O_CREAT);
}

#define OPEN(name)                                              \
    EXPORT int name(const char *path, int flags, ...) {         \
        REAL(name);                                             \
        va_list arguments;                                      \
        va_start(arguments, flags);                             \
        mode_t mode = mode_argument(flags, arguments);          \
        va_end(arguments);                                      \
        fault what = open_fault("open", AT_FDCWD, path, flags); \
        FINISH(what, real_##name(path, flags, mode));           \
    }
#define OPENAT(name)                                            \
    EXPORT int name(int at, const char *path, int flags, ...) { \
        REAL(name);                                             \
        va_list arguments;                                      \
        va_start(arguments, flags);                             \
        mode_t mode = mode_argument(flags, arguments);          \
        va_end(arguments);                                      \
        fault what = open_fault("openat", at, path, flags);     \
        FINISH(what, real_##name(at, path, flags, mode));       \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
