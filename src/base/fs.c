// Paths and reading. Writing is in fs_write.c, directories in fs_tree.c.
#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs_error.h"

enum { MOST_PER_CALL = 1 << 30 };  // Linux moves at most 2 GiB per call

pb_status pb_fs_error(const char *action, const char *path) {
    const int error = errno;
    const char *remedy = error == ENOSPC   ? ": free some space, or write to another disk"
                         : error == EDQUOT ? ": your disk quota is used up; free some space, or write to another disk"
                         : error == EFBIG  ? ": this system limits the size of files (ulimit -f)"
                         : error == EMFILE ? ": this system limits the number of open files (ulimit -n)"
                                           : "";
    return pb_error(PB_ERR_IO, "cannot %s %s: %s%s", action, path, strerror(error), remedy);
}

pb_status pb_fs_look(const char *path, pb_fs_kind *kind) {
    *kind = pb_fs_kind_of(path);
    if (*kind != PB_FS_NONE || errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG) return PB_OK;
    return pb_fs_error("look at", path);
}

pb_fs_kind pb_fs_kind_of(const char *path) {
    struct stat info;
    if (stat(path, &info)) return PB_FS_NONE;
    return S_ISREG(info.st_mode) ? PB_FS_FILE : S_ISDIR(info.st_mode) ? PB_FS_DIRECTORY : PB_FS_OTHER;
}

char *pb_fs_join(pb_arena *arena, const char *directory, const char *name) {
    const size_t bytes = strlen(directory);
    if (bytes == 0 || name[0] == '/') return pb_arena_string(arena, name);
    return pb_arena_format(arena, "%s%s%s", directory, directory[bytes - 1] == '/' ? "" : "/", name);
}

const char *pb_fs_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *pb_fs_parent(pb_arena *arena, const char *path) {
    size_t bytes = strlen(path);
    while (bytes > 1 && path[bytes - 1] == '/') bytes--;
    while (bytes > 0 && path[bytes - 1] != '/') bytes--;
    while (bytes > 1 && path[bytes - 1] == '/') bytes--;
    return bytes ? pb_arena_string_n(arena, path, bytes) : pb_arena_string(arena, ".");
}

bool pb_fs_name_is_plain(const char *name) {
    return name[0] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !strchr(name, '/');
}

pb_status pb_fs_open_read(const char *path, int *fd, uint64_t *bytes) {
    // Non-blocking, so that a FIFO is refused rather than waited for; it means nothing for a regular file.
    const int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    if (opened < 0 && errno == ENOENT && lstat(path, &info) == 0)
        return pb_error(PB_ERR_IO, "cannot open %s: it is a symbolic link that leads nowhere", path);
    if (opened < 0) return pb_fs_error("open", path);
    pb_status status = PB_OK;
    if (fstat(opened, &info))
        status = pb_fs_error("look at", path);
    else if (!S_ISREG(info.st_mode))
        status =
            pb_error(PB_ERR_IO, "%s is %s, not a file", path, S_ISDIR(info.st_mode) ? "a directory" : "a special file");
    if (status != PB_OK) {
        close(opened);
        return status;
    }
    *fd = opened;
    *bytes = (uint64_t)info.st_size;
    return PB_OK;
}

pb_status pb_fs_pread(int fd, void *data, size_t bytes, uint64_t offset, const char *path) {
    char *at = data;
    while (bytes) {
        const ssize_t got = pread(fd, at, bytes < MOST_PER_CALL ? bytes : MOST_PER_CALL, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return pb_fs_error("read", path);
        if (got == 0)
            return pb_error(PB_ERR_IO, "%s ends at byte %llu: it was cut off while it was read", path,
                            (unsigned long long)offset);
        at += got;
        bytes -= (size_t)got;
        offset += (uint64_t)got;
    }
    return PB_OK;
}

pb_status pb_fs_read_file(pb_arena *arena, const char *path, size_t limit, char **data, size_t *bytes) {
    pb_status status = PB_OK;
    int fd = -1;
    uint64_t size = 0;
    PB_RETURN_IF(pb_fs_open_read(path, &fd, &size));
    if (size > limit)
        PB_FAIL(PB_ERR_FORMAT, "%s has %llu bytes; a file of its kind has at most %zu", path, (unsigned long long)size,
                limit);
    *data = pb_arena_alloc(arena, (size_t)size + 1);
    if (!*data) PB_FAIL(PB_ERR_MEMORY, "no memory for %s (%llu bytes)", path, (unsigned long long)size);
    PB_TRY(pb_fs_pread(fd, *data, (size_t)size, 0, path));
    (*data)[size] = '\0';
    if (bytes) *bytes = (size_t)size;
fail:
    close(fd);
    return status;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

pb_status pb_fs_list(pb_arena *arena, const char *path, const char ***names, size_t *count) {
    pb_status status = PB_OK;
    const char **list = NULL;
    size_t used = 0, capacity = 0;
    DIR *directory = opendir(path);
    if (!directory) return pb_fs_error("open the directory", path);
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (!entry) break;
        if (!pb_fs_name_is_plain(entry->d_name)) continue;
        if (used == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            const char **larger = realloc(list, capacity * sizeof *list);
            if (!larger) PB_FAIL(PB_ERR_MEMORY, "no memory to list %s", path);
            list = larger;
        }
        list[used] = pb_arena_string(arena, entry->d_name);
        if (!list[used++]) PB_FAIL(PB_ERR_MEMORY, "no memory to list %s", path);
    }
    if (errno) PB_TRY(pb_fs_error("list", path));
    *names = pb_arena_array(arena, used, sizeof **names);
    if (!*names) PB_FAIL(PB_ERR_MEMORY, "no memory to list %s", path);
    if (used) {
        qsort(list, used, sizeof *list, compare_names);
        memcpy(*names, list, used * sizeof *list);
    }
    *count = used;
fail:
    free(list);
    closedir(directory);
    return status;
}
