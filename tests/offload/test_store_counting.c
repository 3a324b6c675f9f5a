// test: links=offload,base
// What the store counts beside what the system counts for this process, and the room that a file must leave.
#include "check.h"

#include <stdlib.h>
#include <sys/statvfs.h>

#include "scratch.h"
#include "support_store.h"

enum { EXTENTS = 16, BYTES = 1 << 20, ROUNDS = 4, SKIPPED = 77 };

typedef struct counts {
    uint64_t read, written;
} counts;

static counts of_system(void) {
    counts c = {0, 0};
    char line[128];
    FILE *file = fopen("/proc/self/io", "r");
    while (file && fgets(line, sizeof line, file)) {
        unsigned long long value = 0;
        if (sscanf(line, "read_bytes: %llu", &value) == 1) c.read = value;
        if (sscanf(line, "write_bytes: %llu", &value) == 1) c.written = value;
    }
    if (file) fclose(file);
    return c;
}

static bool is_near(uint64_t ours, uint64_t theirs) {
    const uint64_t distance = ours > theirs ? ours - theirs : theirs - ours;
    return ours > 0 && 100 * distance <= theirs;
}

static pb_status open_store(pb_store_engine engine, uint32_t *capacities, size_t count, uint32_t bytes,
                            const char *run_id, pb_store **store) {
    for (size_t i = 0; i < count; i++) capacities[i] = bytes;
    const pb_store_options options = {.directory = scratch_path("counted"),
                                      .run_id = run_id,
                                      .capacities = capacities,
                                      .extent_count = count,
                                      .engine = engine};
    return pb_store_open(&options, store);
}

// Whether there was anything to compare.
static bool test_counts(pb_store_engine engine, unsigned char *memory) {
    uint32_t capacities[EXTENTS];
    pb_ticket tickets[EXTENTS];
    pb_store *store = NULL;
    const pb_status status = open_store(engine, capacities, EXTENTS, BYTES, NULL, &store);
    if (status == PB_ERR_UNSUPPORTED) return false;
    CHECK_OK(status);
    if (!store) return false;
    const pb_store_info *info = pb_store_get_info(store);
    const counts before = of_system();
    for (int round = 0; round < 2 * ROUNDS; round++) {
        for (size_t i = 0; i < EXTENTS; i++) {
            unsigned char *data = memory + i * BYTES;
            if (round % 2 == 0) store_fill(data, BYTES, i + (uint64_t)round);
            CHECK_OK(round % 2 ? pb_store_read(store, i, i, data, BYTES, &tickets[i])
                               : pb_store_write(store, i, i, 0, data, BYTES, &tickets[i]));
        }
        CHECK_OK(pb_store_drain(store));
    }
    const counts after = of_system(), told = {after.read - before.read, after.written - before.written};
    CHECK(info->bytes_read == (uint64_t)ROUNDS * EXTENTS * BYTES && info->bytes_written == info->bytes_read);
    CHECK(info->hash_seconds > 0);
    const bool compares = info->direct && told.read > 0;
    if (compares) {
        CHECK_THAT(is_near(info->bytes_read, told.read), "%s: read %llu, the system says %llu", info->engine,
                   (unsigned long long)info->bytes_read, (unsigned long long)told.read);
        CHECK_THAT(is_near(info->bytes_written, told.written), "%s: wrote %llu, the system says %llu", info->engine,
                   (unsigned long long)info->bytes_written, (unsigned long long)told.written);
        printf("%s: read %llu and wrote %llu bytes, the system says %llu and %llu\n", info->engine,
               (unsigned long long)info->bytes_read, (unsigned long long)info->bytes_written,
               (unsigned long long)told.read, (unsigned long long)told.written);
    }
    CHECK_OK(pb_store_close(store, false));
    return compares;
}

// A file that would fit and leave half the margin is refused before anything is made.
static void test_low_water(void) {
    struct statvfs disk;
    CHECK(!statvfs(scratch_path("."), &disk));
    const uint64_t size = (uint64_t)disk.f_blocks * disk.f_frsize, free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    const uint64_t margin = size / 20 < 1 << 30 ? size / 20 : 1 << 30;
    if (free_bytes < margin) return;
    const uint32_t extent = 4 << 20;
    const uint64_t slots = (free_bytes - margin / 2) / extent;
    for (int named = 0; named < 2; named++) {
        const size_t count = slots / (named ? 2 : 1);
        if (count == 0 || count > PB_STORE_EXTENTS_MAX) continue;
        uint32_t *capacities = malloc(count * sizeof *capacities);
        pb_store *store = NULL;
        if (!capacities) exit(1);
        const pb_status status = open_store(PB_STORE_AUTO, capacities, count, extent, named ? "run" : NULL, &store);
        CHECK_THAT(status == PB_ERR_IO && strstr(pb_error_message(), "and a margin"), "%s", pb_error_message());
        if (status == PB_OK) pb_store_close(store, false);
        CHECK(pb_fs_kind_of(scratch_path("counted/pagebooth-run.swap")) == PB_FS_NONE);
        free(capacities);
    }
}

int main(void) {
    unsigned char *memory = store_memory(EXTENTS * BYTES);
    const bool threads = test_counts(PB_STORE_THREADS, memory), uring = test_counts(PB_STORE_URING, memory);
    test_low_water();
    free(memory);
    scratch_remove();
    if (CHECK_DONE()) return 1;
    if (!threads && !uring) printf("skipped: this file system's transfers are not counted for the process\n");
    return threads || uring ? 0 : SKIPPED;
}
