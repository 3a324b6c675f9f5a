// test: links=offload,base timeout=300
// A file of two commits is changed while nobody uses it: every byte of both records, bits of the data, cut off at every
// block, extents exchanged or old. What is then read is a commit, whole, or refused. usage: test_store_tampering
// [BITS]: how many bits of the data.
#include "check.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "scratch.h"
#include "support_store.h"

enum { BYTES = 8192, RECORD_BYTES = 216, MOST = 1 << 18 };  // of an extent; of a record without a blob

static const uint32_t capacities[2] = {BYTES, BYTES};
static unsigned char image[MOST], changed[MOST];
static size_t image_bytes, slots;  // slots: where they begin
static int seen[4];                // refused, no commit, commit 1, commit 2

static pb_store_options options(void) {
    return (pb_store_options){.directory = scratch_path("tampered"),
                              .run_id = "run",
                              .capacities = capacities,
                              .extent_count = 2,
                              .depth = 2,
                              .engine = PB_STORE_THREADS};
}

static const char *file_path(void) {
    return scratch_path("tampered/pagebooth-run.swap");
}

static pb_status move(pb_store *store, bool write, size_t extent, uint64_t *data) {
    pb_ticket ticket = 0;
    PB_RETURN_IF(write ? pb_store_write(store, extent, extent, 0, data, BYTES, &ticket)
                       : pb_store_read(store, extent, extent, data, BYTES, &ticket));
    return pb_store_wait(store, ticket);
}

static uint64_t seed_of(uint64_t commit, size_t extent) {
    return 10 * commit + extent;
}

// Commit 1 lies in the first slots, commit 2 in the second; the record of commit 1 comes second.
static void make_commits(uint64_t *data) {
    const pb_store_options o = options();
    pb_store *store = NULL;
    int fd = -1;
    uint64_t bytes = 0;
    CHECK_OK(pb_store_open(&o, &store));
    for (uint64_t commit = 1; store && commit <= 2; commit++) {
        for (size_t i = 0; i < 2; i++) {
            store_fill(data, BYTES, seed_of(commit, i));
            CHECK_OK(move(store, true, i, data));
        }
        CHECK_OK(pb_store_commit(store, commit, NULL, 0));
    }
    CHECK_OK(pb_store_close(store, true));
    CHECK_OK(pb_fs_open_read(file_path(), &fd, &bytes));
    if (bytes > sizeof image) exit(1);
    CHECK_OK(pb_fs_pread(fd, image, bytes, 0, "the swap file"));
    close(fd);
    image_bytes = bytes;
    slots = bytes - 4 * BYTES;
}

// Puts `kept` bytes of `changed` in the file's place and reads it. The state found, 0 for none; -1 where a read was
// refused. What is read must be that state.
static int reopen(size_t kept, uint64_t *data) {
    const pb_store_options o = options();
    pb_store *store = NULL;
    const int fd = open(file_path(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK_OK(pb_fs_pwrite(fd, changed, kept, 0, "the swap file"));
    close(fd);
    CHECK_OK(pb_store_open(&o, &store));
    if (!store) exit(1);
    int found = (int)pb_store_get_info(store)->generation;
    CHECK(found || pb_store_get_info(store)->note[0]);
    for (size_t i = 0; i < 2 && found > 0; i++) {
        const pb_status status = move(store, false, i, data);
        CHECK(status == PB_ERR_IO || store_holds(data, BYTES, seed_of((uint64_t)found, i)));
        if (status != PB_OK) found = -1;
    }
    CHECK_OK(pb_store_close(store, true));
    seen[found + 1]++;
    return found;
}

static unsigned char *slot_of(size_t extent, size_t commit) {
    return changed + slots + extent * 2 * BYTES + (commit - 1) * BYTES;
}

int main(int argc, char **argv) {
    const long bits = argc > 1 ? atol(argv[1]) : 128;
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 0);  // a disk's fsync is most of the time
    uint64_t random = 11, *data = store_memory(BYTES);
    make_commits(data);
    const size_t record = slots / 2;
    for (size_t i = 0; i < 2 * RECORD_BYTES; i++) {
        const bool newest = i < RECORD_BYTES;
        memcpy(changed, image, image_bytes);
        changed[newest ? i : record + i - RECORD_BYTES] ^= (unsigned char)(1u << store_random(&random) % 8);
        const int found = reopen(image_bytes, data);
        CHECK_THAT(found == (newest ? 1 : 2), "byte %zu of the records: %d", i, found);
    }
    for (long i = 0; i < bits; i++) {
        memcpy(changed, image, image_bytes);
        const size_t at = store_random(&random) % (4 * BYTES), slot = at / BYTES;
        changed[slots + at] ^= (unsigned char)(1u << store_random(&random) % 8);
        const int found = reopen(image_bytes, data);
        CHECK_THAT(found == (slot % 2 ? -1 : 2), "byte %zu of the data: %d", at, found);
    }
    for (size_t kept = 0; kept < image_bytes; kept += 4096) {
        memcpy(changed, image, image_bytes);
        CHECK_THAT(reopen(kept, data) == 0, "cut to %zu bytes", kept);
        CHECK_THAT(reopen(kept + 1 + store_random(&random) % 4095, data) == 0, "cut behind %zu bytes", kept);
    }
    // The bytes of another extent, of both, of the commit before, and a whole block of another.
    memcpy(changed, image, image_bytes);
    memcpy(slot_of(0, 2), slot_of(1, 2), BYTES);
    CHECK(reopen(image_bytes, data) == -1 && strstr(pb_error_message(), "the bytes of extent 1"));
    memcpy(slot_of(1, 2), image + (slot_of(0, 2) - changed), BYTES);
    CHECK(reopen(image_bytes, data) == -1 && strstr(pb_error_message(), "the bytes of extent"));
    memcpy(changed, image, image_bytes);
    memcpy(slot_of(1, 2), slot_of(1, 1), BYTES);
    CHECK(reopen(image_bytes, data) == -1);
    memcpy(changed, image, image_bytes);
    memcpy(slot_of(0, 2) + 4096, slot_of(1, 2) + 4096, 4096);
    CHECK(reopen(image_bytes, data) == -1);
    // A record of before in the newest one's place: the commit before.
    memcpy(changed, image, image_bytes);
    memcpy(changed, changed + record, record);
    CHECK(reopen(image_bytes, data) == 1);
    printf("%d states read, %d refused, %d files replaced\n", seen[2] + seen[3], seen[0], seen[1]);
    CHECK(seen[2] > RECORD_BYTES && seen[3] > RECORD_BYTES && seen[0] > bits / 4 && seen[1] > 40);
    free(data);
    scratch_remove();
    return CHECK_DONE();
}
