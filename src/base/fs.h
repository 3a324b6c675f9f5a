// Files and directories, with the failures that happen to them in earnest: special files in place of regular ones,
// short and interrupted reads and writes, a full disk. Messages name the path. Reading follows symbolic links (a hub
// cache is made of them); writing never does.
#ifndef PB_BASE_FS_H
#define PB_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

typedef enum pb_fs_kind { PB_FS_NONE, PB_FS_FILE, PB_FS_DIRECTORY, PB_FS_OTHER } pb_fs_kind;

// What `path` leads to; PB_FS_NONE also where it cannot be looked at.
pb_fs_kind pb_fs_kind_of(const char *path);
// The same, but PB_ERR_IO where something is in the way of looking: a permission, a loop of links.
pb_status pb_fs_look(const char *path, pb_fs_kind *kind);

// `directory`/`name`; just `name` where it is absolute or `directory` is empty. NULL when there is no memory.
char *pb_fs_join(pb_arena *arena, const char *directory, const char *name);
// The last component, within `path`.
const char *pb_fs_base_name(const char *path);
// What `path` lies in: "." for a bare name. NULL when there is no memory.
char *pb_fs_parent(pb_arena *arena, const char *path);
// Whether `name` is one plain component: not empty, "." or "..", without '/'. Names that come out of files must be.
bool pb_fs_name_is_plain(const char *name);

// --- Reading ---

// Opens a regular file (nothing else: a FIFO would block, a device has no size); the caller closes *fd.
pb_status pb_fs_open_read(const char *path, int *fd, uint64_t *bytes);
// The whole file and a NUL behind it. PB_ERR_FORMAT above `limit` bytes. `bytes` may be NULL.
pb_status pb_fs_read_file(pb_arena *arena, const char *path, size_t limit, char **data, size_t *bytes);
// All of `bytes` at `offset`, however many calls it takes. PB_ERR_IO at an early end of the file. `path` is for
// messages.
pb_status pb_fs_pread(int fd, void *data, size_t bytes, uint64_t offset, const char *path);
// Names in a directory in byte order, without "." and "..".
pb_status pb_fs_list(pb_arena *arena, const char *path, const char ***names, size_t *count);

// --- Writing ---

pb_status pb_fs_pwrite(int fd, const void *data, size_t bytes, uint64_t offset, const char *path);
pb_status pb_fs_write(int fd, const void *data, size_t bytes, const char *path);  // at the file's position

// A file that appears under its name when it is complete. The bytes go to `temporary`, in the same directory; `path`
// must be free or a regular file (PB_ERR_IO for a symbolic link, a FIFO or a directory). The replaced file's other hard
// links keep their bytes. Mode 0644 at most, whatever the umask.
typedef struct pb_fs_output {
    char *path, *temporary;  // NULL before open and after commit or discard
    int fd;                  // -1 once synced
} pb_fs_output;
#define PB_FS_OUTPUT_NONE ((pb_fs_output){.fd = -1})

pb_status pb_fs_output_open(pb_fs_output *output, const char *path);
pb_status pb_fs_output_write(pb_fs_output *output, const void *data, size_t bytes);
// fsync and close. After a failure the file is not to be trusted: discard it.
pb_status pb_fs_output_sync(pb_fs_output *output);
// Sync, rename, fsync of the directory. What fails before the rename leaves the old file as it was; the temporary name
// is gone in any case.
pb_status pb_fs_output_commit(pb_fs_output *output);
// Removes the temporary file; does nothing after a commit.
void pb_fs_output_discard(pb_fs_output *output);
// Syncs and leaves the file under its temporary name, which the caller now owns (free()).
pb_status pb_fs_output_detach(pb_fs_output *output, char **temporary);

// All of it at once: open, write, commit.
pb_status pb_fs_write_file(const char *path, const void *data, size_t bytes);
// Copies a regular file to a new name, which must be free, sharing blocks where the file system can; fsynced.
pb_status pb_fs_copy_file(const char *from, const char *to);
// Copies a tree of directories and regular files (symbolic links as what they lead to) to a new name.
pb_status pb_fs_copy_tree(const char *from, const char *to);
// What such a copy would take; the errors that it would meet in reading.
pb_status pb_fs_tree_bytes(const char *path, uint64_t *bytes);

// --- Directories ---

pb_status pb_fs_make_directories(const char *path);  // with its parents; there already is fine
pb_status pb_fs_sync_directory(const char *path);
// rename(2), then fsync of the directory of `to`.
pb_status pb_fs_rename(const char *from, const char *to);
// Removes a file or a whole tree, following no links. What is not there is fine.
pb_status pb_fs_remove(const char *path);
// `path` or, where that does not exist, the nearest folder above it that does. PB_ERR_IO where it cannot be looked at.
pb_status pb_fs_nearest(pb_arena *arena, const char *path, const char **place);
// PB_ERR_IO when `path` is no directory that this process may write in or, where it does not exist, could not be made;
// `what` is for the message: "output_dir". Makes nothing.
pb_status pb_fs_require_writable(const char *path, const char *what);
// Room that the file system of `path`, there or yet to be made, has for this process.
pb_status pb_fs_free_bytes(const char *path, uint64_t *bytes);
// PB_ERR_IO when that is less than `bytes`; `what` is for the message: "a checkpoint".
pb_status pb_fs_require_space(const char *path, uint64_t bytes, const char *what);

#endif
