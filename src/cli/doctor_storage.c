#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cli/doctor.h"
#include "offload/store.h"

enum { EXTENT = 4 << 20 };
#define TMPFS 0x01021994

// Writes an extent and reads it back, as a run would.
static pb_status try_transfers(pb_store *store, unsigned char *memory) {
    pb_ticket ticket;
    for (int i = 0; i < EXTENT; i++) memory[i] = (unsigned char)(i * 31 + i / 4096);
    PB_RETURN_IF(pb_store_write(store, 0, 1, 1, memory, EXTENT, &ticket));
    PB_RETURN_IF(pb_store_wait(store, ticket));
    PB_RETURN_IF(pb_store_read(store, 0, 1, memory, EXTENT, &ticket));
    return pb_store_wait(store, ticket);
}

static void report_engine(pb_doctor *d, const pb_store_options *options, const pb_store_info *info) {
    pb_doctor_line("transfers", "%s, %s", info->engine, info->direct ? "direct" : "through the page cache");
    if (strcmp(info->engine, "io_uring") == 0)
        pb_doctor_line("io_uring", "file %sregistered, memory %sregistered", info->registered_file ? "" : "not ",
                       info->registered_memory ? "" : "not ");
    if (!info->direct)
        pb_doctor_find(d,
                       "%s: the file system refuses direct I/O (O_DIRECT), so the NVMe tier goes through the page "
                       "cache: use ext4 or xfs on an NVMe disk.",
                       options->directory);
    if (strcmp(info->engine, "io_uring") == 0) {
        if (!info->registered_memory)
            pb_doctor_find(d, "io_uring could not register memory: raise the limit of locked memory (ulimit -l, or "
                              "memlock in /etc/security/limits.conf).");
        return;
    }
    pb_store_options again = *options;
    pb_store *store = NULL;
    again.engine = PB_STORE_URING;
    if (pb_store_open(&again, &store) == PB_OK) {
        pb_store_close(store, false);
        return;
    }
    pb_doctor_line("io_uring", "refused: %s", pb_error_message());
    pb_doctor_find(d, "io_uring is refused, so the NVMe tier uses threads, which costs processor time: see "
                      "kernel.io_uring_disabled (sysctl; 0 allows it), or the container's seccomp profile.");
    pb_error_clear();
}

static void try_store(pb_doctor *d, const char *directory) {
    const uint32_t capacity = EXTENT;
    pb_store *store = NULL;
    unsigned char *memory = aligned_alloc(PB_STORE_BLOCK, EXTENT);
    if (!memory) {
        pb_doctor_find(d, "There is no memory for a trial of the storage.");
        return;
    }
    const pb_store_options options = {
        .directory = directory, .capacities = &capacity, .extent_count = 1, .memory = memory, .memory_bytes = EXTENT};
    pb_status status = pb_store_open(&options, &store);
    if (status == PB_OK) {
        status = try_transfers(store, memory);
        if (status == PB_OK) report_engine(d, &options, pb_store_get_info(store));
        const pb_status closed = pb_store_close(store, false);
        if (status == PB_OK) status = closed;
    }
    if (status != PB_OK) {
        pb_doctor_line("trial", "failed");
        pb_doctor_find(d, "The NVMe tier does not work in %s: %s.", directory, pb_error_message());
        pb_error_clear();
    }
    free(memory);
}

// A virtual machine's disk: what it says of itself says nothing about the host's.
static bool is_virtual(const struct stat *s) {
    char path[64], name[512];
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(s->st_dev), minor(s->st_dev));
    const ssize_t length = readlink(path, name, sizeof name - 1);
    if (length < 0) return true;
    name[length] = 0;
    static const char *const signs[] = {"/virtual/", "/virtio", "/block/vd", "/block/xvd"};
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (strstr(name, signs[i])) return true;
    return false;
}

// Whether the disk below a directory turns; -1 where that is not known.
static int is_rotational(const struct stat *s) {
    if (is_virtual(s)) return -1;
    static const char *const places[] = {"queue", "../queue"};  // of a disk, of a partition
    for (int i = 0; i < 2; i++) {
        char path[128];
        int turns = -1;
        snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s/rotational", major(s->st_dev), minor(s->st_dev),
                 places[i]);
        FILE *file = fopen(path, "re");
        if (!file) continue;
        if (fscanf(file, "%d", &turns) != 1) turns = -1;
        fclose(file);
        if (turns >= 0) return turns;
    }
    return -1;
}

void pb_doctor_storage(pb_doctor *d, const char *directory) {
    struct stat s;
    struct statvfs space;
    struct statfs kind;
    pb_doctor_line("directory", "%s", directory);
    if (stat(directory, &s) != 0 || !S_ISDIR(s.st_mode)) {
        pb_doctor_find(d, "%s is no directory: make it, or name another with --nvme.", directory);
        return;
    }
    const int turns = is_rotational(&s);
    if (statfs(directory, &kind) == 0 && kind.f_type == TMPFS) {
        pb_doctor_line("disk", "none: this is memory (tmpfs)");
        pb_doctor_find(d, "%s lies in memory, so an NVMe tier there saves nothing: name a directory on an NVMe disk.",
                       directory);
    } else {
        pb_doctor_line("disk", turns < 0 ? "of unknown kind" : turns ? "rotational" : "solid state");
        if (turns > 0)
            pb_doctor_find(d, "%s lies on a disk that turns, which is some twenty times slower than NVMe.", directory);
    }
    if (statvfs(directory, &space) == 0) {
        const double free = (double)space.f_bavail * (double)space.f_frsize;
        pb_doctor_line("free space", "%.1f GiB", free / 0x1p30);
        // SD 1.4: master weights, moments and checkpoint.
        if (free < 16 * 0x1p30)
            pb_doctor_find(d, "%s has %.1f GiB free; the states of SD 1.4 and a checkpoint take 16 GiB.", directory,
                           free / 0x1p30);
    }
    try_store(d, directory);
    struct rlimit limit;
    if (d->usable_gpu && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < (rlim_t)4 << 30)
        pb_doctor_find(d,
                       "At most %.3f GiB may be locked in memory. Where the host slab cannot be, copies to the GPU "
                       "are slower and do not overlap with its work: set memlock to unlimited in "
                       "/etc/security/limits.conf and log in again.",
                       (double)limit.rlim_cur / 0x1p30);
}
