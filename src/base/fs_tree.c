// Directories: making, copying, removing, renaming.
#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fs_error.h"

enum { TREE_DEPTH = 16 };

pb_status pb_fs_sync_directory(const char *path) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return pb_fs_error("open the directory", path);
    // EINVAL: a file system without anything to write out.
    const pb_status status = fsync(fd) && errno != EINVAL ? pb_fs_error("write out the directory", path) : PB_OK;
    close(fd);
    return status;
}

static pb_status sync_parent(const char *path) {
    pb_arena *arena = pb_arena_create();
    const char *parent = arena ? pb_fs_parent(arena, path) : NULL;
    const pb_status status = parent ? pb_fs_sync_directory(parent) : pb_error(PB_ERR_MEMORY, "no memory for a path");
    pb_arena_destroy(arena);
    return status;
}

pb_status pb_fs_rename(const char *from, const char *to) {
    if (rename(from, to)) return pb_fs_error("rename a temporary file to", to);
    return sync_parent(to);
}

pb_status pb_fs_make_directories(const char *path) {
    char *prefix = strdup(path);
    if (!prefix) return pb_error(PB_ERR_MEMORY, "no memory for a path");
    pb_status status = PB_OK;
    for (char *at = prefix + 1; status == PB_OK && at[-1]; at++) {
        if (*at && *at != '/') continue;
        const char end = *at;
        *at = '\0';
        if (mkdir(prefix, 0755) == 0)
            status = sync_parent(prefix);
        else if (errno != EEXIST)
            status = pb_fs_error("make the directory", prefix);
        else if (pb_fs_kind_of(prefix) != PB_FS_DIRECTORY)
            status = pb_error(PB_ERR_IO, "cannot make the directory %s: %s is no directory", path, prefix);
        *at = end;
        if (!end) break;
    }
    free(prefix);
    return status;
}

// `path` is for messages only.
static pb_status remove_at(int directory, const char *name, const char *path) {
    if (unlinkat(directory, name, 0) == 0 || errno == ENOENT) return PB_OK;
    if (errno != EISDIR && errno != EPERM) return pb_fs_error("remove", path);
    const int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return pb_fs_error("remove", path);
    DIR *entries = fdopendir(fd);
    if (!entries) {
        close(fd);
        return pb_error(PB_ERR_MEMORY, "no memory to remove %s", path);
    }
    pb_status status = PB_OK;
    for (const struct dirent *entry; status == PB_OK && (entry = readdir(entries));)
        if (pb_fs_name_is_plain(entry->d_name)) status = remove_at(fd, entry->d_name, path);
    closedir(entries);
    if (status == PB_OK && unlinkat(directory, name, AT_REMOVEDIR)) status = pb_fs_error("remove", path);
    return status;
}

pb_status pb_fs_remove(const char *path) {
    return remove_at(AT_FDCWD, path, path);
}

static pb_status too_deep(const char *path) {
    return pb_error(PB_ERR_IO, "%s: directories are nested more than %d deep", path, TREE_DEPTH);
}

static pb_status copy_level(pb_arena *arena, const char *from, const char *to, int depth) {
    if (pb_fs_kind_of(from) != PB_FS_DIRECTORY) return pb_fs_copy_file(from, to);
    if (depth == TREE_DEPTH) return too_deep(from);
    if (mkdir(to, 0755)) return pb_fs_error("make the directory", to);
    const char **names;
    size_t count;
    PB_RETURN_IF(pb_fs_list(arena, from, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *source = pb_fs_join(arena, from, names[i]), *target = pb_fs_join(arena, to, names[i]);
        if (!source || !target) return pb_error(PB_ERR_MEMORY, "no memory to copy %s", from);
        PB_RETURN_IF(copy_level(arena, source, target, depth + 1));
    }
    return pb_fs_sync_directory(to);
}

pb_status pb_fs_copy_tree(const char *from, const char *to) {
    pb_arena *arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "no memory to copy %s", from);
    const pb_status status = copy_level(arena, from, to, 0);
    pb_arena_destroy(arena);
    return status;
}

static pb_status add_level(pb_arena *arena, const char *from, int depth, uint64_t *bytes) {
    if (pb_fs_kind_of(from) != PB_FS_DIRECTORY) {
        int fd;
        uint64_t size;
        PB_RETURN_IF(pb_fs_open_read(from, &fd, &size));
        close(fd);
        *bytes += size;
        return PB_OK;
    }
    if (depth == TREE_DEPTH) return too_deep(from);
    const char **names;
    size_t count;
    PB_RETURN_IF(pb_fs_list(arena, from, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *source = pb_fs_join(arena, from, names[i]);
        if (!source) return pb_error(PB_ERR_MEMORY, "no memory to look at %s", from);
        PB_RETURN_IF(add_level(arena, source, depth + 1, bytes));
    }
    return PB_OK;
}

pb_status pb_fs_tree_bytes(const char *path, uint64_t *bytes) {
    pb_arena *arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "no memory to look at %s", path);
    *bytes = 0;
    const pb_status status = add_level(arena, path, 0, bytes);
    pb_arena_destroy(arena);
    return status;
}

pb_status pb_fs_nearest(pb_arena *arena, const char *path, const char **place) {
    struct stat info;
    for (*place = path; stat(*place, &info);) {
        if (errno != ENOENT || strcmp(*place, "/") == 0 || strcmp(*place, ".") == 0)
            return pb_fs_error("look at", *place);
        *place = pb_fs_parent(arena, *place);
        if (!*place) return pb_error(PB_ERR_MEMORY, "no memory for a path");
    }
    return PB_OK;
}

pb_status pb_fs_require_writable(const char *path, const char *what) {
    pb_status status = PB_OK;
    const char *place;
    pb_arena *arena = pb_arena_create();
    if (!arena) PB_FAIL(PB_ERR_MEMORY, "no memory for a path");
    if ((status = pb_fs_nearest(arena, path, &place)) != PB_OK) PB_TRY(pb_error_context(status, "%s", what));
    if (pb_fs_kind_of(place) != PB_FS_DIRECTORY)
        PB_FAIL(PB_ERR_IO, "%s: %s cannot be made: %s is no folder", what, path, place);
    if (access(place, W_OK | X_OK))
        PB_FAIL(PB_ERR_IO, "%s: nothing can be written in %s: %s", what, place, strerror(errno));
fail:
    pb_arena_destroy(arena);
    return status;
}

pb_status pb_fs_free_bytes(const char *path, uint64_t *bytes) {
    pb_status status = PB_OK;
    const char *place;
    struct statvfs info;
    pb_arena *arena = pb_arena_create();
    if (!arena) PB_FAIL(PB_ERR_MEMORY, "no memory for a path");
    PB_TRY(pb_fs_nearest(arena, path, &place));
    while (statvfs(place, &info))
        if (errno != EINTR) PB_TRY(pb_fs_error("look at the disk of", path));
    *bytes = (uint64_t)info.f_bavail * info.f_frsize;
fail:
    pb_arena_destroy(arena);
    return status;
}

pb_status pb_fs_require_space(const char *path, uint64_t bytes, const char *what) {
    uint64_t room;
    PB_RETURN_IF(pb_fs_free_bytes(path, &room));
    if (room >= bytes) return PB_OK;
    return pb_error(PB_ERR_IO,
                    "the disk of %s has %.1f MB left, but %s needs %.1f MB: free some space, or write to another disk",
                    path, (double)room / 1e6, what, (double)bytes / 1e6);
}
