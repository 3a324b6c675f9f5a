// Files that appear under their name only when they are complete and on the disk.
#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs_error.h"

// A name has at most 255 bytes, the temporary one beside it as well.
enum { MOST_PER_CALL = 1 << 30, COPY_BYTES = 1 << 20, TEMPORARY_NAMES = 1000, KEPT_OF_NAME = 200 };

static pb_status put(int fd, const void *data, size_t bytes, const uint64_t *offset, const char *path) {
    const char *at = data;
    uint64_t position = offset ? *offset : 0;
    while (bytes) {
        const size_t piece = bytes < MOST_PER_CALL ? bytes : MOST_PER_CALL;
        const ssize_t done = offset ? pwrite(fd, at, piece, (off_t)position) : write(fd, at, piece);
        if (done < 0 && errno == EINTR) continue;
        if (done == 0) errno = ENOSPC;  // some file systems say so like this
        if (done <= 0) return pb_fs_error("write", path);
        at += done;
        bytes -= (size_t)done;
        position += (uint64_t)done;
    }
    return PB_OK;
}

pb_status pb_fs_pwrite(int fd, const void *data, size_t bytes, uint64_t offset, const char *path) {
    return put(fd, data, bytes, &offset, path);
}

pb_status pb_fs_write(int fd, const void *data, size_t bytes, const char *path) {
    return put(fd, data, bytes, NULL, path);
}

// A name that exists must be a regular file: what else lies there was not made by this program.
static pb_status check_target(const char *path) {
    struct stat info;
    if (lstat(path, &info)) return errno == ENOENT ? PB_OK : pb_fs_error("look at", path);
    if (S_ISREG(info.st_mode)) return PB_OK;
    const char *kind = S_ISLNK(info.st_mode)   ? "a symbolic link"
                       : S_ISDIR(info.st_mode) ? "a directory"
                                               : "a special file";
    return pb_error(PB_ERR_IO, "%s is %s: not writing there; remove it or choose another name", path, kind);
}

// A new file beside `path`; *name is its malloc'ed path.
static pb_status create_temporary(const char *path, char **name, int *fd) {
    const char *base = pb_fs_base_name(path);
    const size_t room = strlen(path) + 48;
    *name = malloc(room);
    if (!*name) return pb_error(PB_ERR_MEMORY, "no memory to write %s", path);
    for (int i = 0; i < TEMPORARY_NAMES; i++) {
        snprintf(*name, room, "%.*s.%.*s.%ld-%d.tmp", (int)(base - path), path, KEPT_OF_NAME, base, (long)getpid(), i);
        *fd = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (*fd >= 0) return PB_OK;
        if (errno != EEXIST) break;
    }
    const pb_status status = pb_fs_error("create", *name);
    free(*name);
    *name = NULL;
    return status;
}

pb_status pb_fs_output_open(pb_fs_output *output, const char *path) {
    *output = PB_FS_OUTPUT_NONE;
    PB_RETURN_IF(check_target(path));
    output->path = strdup(path);
    if (!output->path) return pb_error(PB_ERR_MEMORY, "no memory to write %s", path);
    const pb_status status = create_temporary(path, &output->temporary, &output->fd);
    if (status != PB_OK) pb_fs_output_discard(output);
    return status;
}

pb_status pb_fs_output_write(pb_fs_output *output, const void *data, size_t bytes) {
    return pb_fs_write(output->fd, data, bytes, output->path);
}

pb_status pb_fs_output_sync(pb_fs_output *output) {
    if (output->fd < 0) return PB_OK;
    const int fd = output->fd;
    output->fd = -1;
    pb_status status = fsync(fd) ? pb_fs_error("write out", output->path) : PB_OK;
    if (close(fd) && status == PB_OK) status = pb_fs_error("close", output->path);
    return status;
}

static void forget(pb_fs_output *output) {
    free(output->path);
    free(output->temporary);
    *output = PB_FS_OUTPUT_NONE;
}

void pb_fs_output_discard(pb_fs_output *output) {
    if (output->fd >= 0) close(output->fd);
    if (output->temporary) unlink(output->temporary);
    forget(output);
}

pb_status pb_fs_output_commit(pb_fs_output *output) {
    pb_status status = PB_OK;
    PB_TRY(pb_fs_output_sync(output));
    PB_TRY(check_target(output->path));
    PB_TRY(pb_fs_rename(output->temporary, output->path));
    forget(output);
    return PB_OK;
fail:
    pb_fs_output_discard(output);
    return status;
}

pb_status pb_fs_output_detach(pb_fs_output *output, char **temporary) {
    const pb_status status = pb_fs_output_sync(output);
    if (status != PB_OK) {
        pb_fs_output_discard(output);
        return status;
    }
    *temporary = output->temporary;
    output->temporary = NULL;
    forget(output);
    return PB_OK;
}

pb_status pb_fs_write_file(const char *path, const void *data, size_t bytes) {
    pb_status status = PB_OK;
    pb_fs_output output;
    PB_TRY(pb_fs_output_open(&output, path));
    PB_TRY(pb_fs_output_write(&output, data, bytes));
    return pb_fs_output_commit(&output);
fail:
    pb_fs_output_discard(&output);
    return status;
}

static pb_status copy_by_hand(int from, int to, uint64_t bytes, const char *from_path, const char *to_path) {
    void *buffer = malloc(COPY_BYTES);
    if (!buffer) return pb_error(PB_ERR_MEMORY, "no memory to copy %s", from_path);
    pb_status status = PB_OK;
    for (uint64_t done = 0; done < bytes && status == PB_OK; done += COPY_BYTES) {
        const size_t piece = bytes - done < COPY_BYTES ? (size_t)(bytes - done) : COPY_BYTES;
        status = pb_fs_pread(from, buffer, piece, done, from_path);
        if (status == PB_OK) status = pb_fs_pwrite(to, buffer, piece, done, to_path);
    }
    free(buffer);
    return status;
}

static pb_status copy_bytes(int from, int to, uint64_t bytes, const char *from_path, const char *to_path) {
    if (ioctl(to, FICLONE, from) == 0) return PB_OK;  // shared blocks, where the file system has them
    for (uint64_t left = bytes; left;) {
        const ssize_t done = copy_file_range(from, NULL, to, NULL, left < MOST_PER_CALL ? left : MOST_PER_CALL, 0);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO)) return pb_fs_error("write", to_path);
        if (done <= 0) return copy_by_hand(from, to, bytes, from_path, to_path);  // not between these file systems
        left -= (uint64_t)done;
    }
    return PB_OK;
}

pb_status pb_fs_copy_file(const char *from, const char *to) {
    pb_status status = PB_OK;
    int source = -1;
    uint64_t bytes = 0;
    PB_RETURN_IF(pb_fs_open_read(from, &source, &bytes));
    const int target = open(to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (target < 0) PB_TRY(pb_fs_error("create", to));
    PB_TRY(copy_bytes(source, target, bytes, from, to));
    if (fsync(target)) PB_TRY(pb_fs_error("write out", to));
fail:
    close(source);
    if (target >= 0 && close(target) && status == PB_OK) status = pb_fs_error("close", to);
    if (target >= 0 && status != PB_OK) unlink(to);
    return status;
}
