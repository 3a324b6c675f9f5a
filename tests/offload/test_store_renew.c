// test: links=offload,base
// Scratch that is kept: cloned, copied, handed over and renewed; what is read from which file, what is forgotten, what
// is in the way, and every call of it failing.
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scratch.h"
#include "support_store.h"

enum { EXTENTS = 4, MOST = 262144 };

static const uint32_t capacities[EXTENTS] = {MOST, 4096, 98304, 65536};

static pb_store *open_scratch(pb_store_engine engine, const pb_store_hook *hook) {
    const pb_store_options options = {.directory = scratch_path("swap"),
                                      .capacities = capacities,
                                      .extent_count = EXTENTS,
                                      .engine = engine,
                                      .hook = hook};
    pb_store *store = NULL;
    const pb_status status = pb_store_open(&options, &store);
    if (status == PB_ERR_UNSUPPORTED && engine == PB_STORE_URING) return NULL;
    CHECK_OK(status);
    if (!store) exit(1);
    return store;
}

static pb_status put(pb_store *store, size_t extent, uint64_t seed, void *data) {
    pb_ticket ticket = 0;
    store_fill(data, capacities[extent], seed);
    PB_RETURN_IF(pb_store_write(store, extent, extent, seed, data, capacities[extent], &ticket));
    return pb_store_wait(store, ticket);
}

static bool holds(pb_store *store, size_t extent, uint64_t seed, void *data) {
    pb_ticket ticket = 0;
    return pb_store_read(store, extent, extent, data, capacities[extent], &ticket) == PB_OK &&
           pb_store_wait(store, ticket) == PB_OK && store_holds(data, capacities[extent], seed);
}

// Whether the file at `path` has the bytes of `seed` where the store says that the extent lies.
static bool file_holds(const char *path, pb_store_place place, uint64_t seed, void *data) {
    const int fd = open(path, O_RDONLY);
    const bool good = fd >= 0 && pread(fd, data, place.bytes, (off_t)place.offset) == (ssize_t)place.bytes &&
                      store_holds(data, place.bytes, seed);
    if (fd >= 0) close(fd);
    return good;
}

static void file_is_private(const char *path, uint64_t bytes) {
    struct stat info;
    CHECK(!lstat(path, &info) && S_ISREG(info.st_mode) && (info.st_mode & 07777) == 0600 && info.st_nlink == 1 &&
          (uint64_t)info.st_size == bytes);
}

static uint64_t allocated(const char *path) {
    struct stat info;
    return stat(path, &info) ? 0 : (uint64_t)info.st_blocks * 512;
}

static const char *kept(const char *name) {
    static char path[1024];
    snprintf(path, sizeof path, "%s", scratch_path(name));
    return path;
}

// Extents 0 and 2 are of the first state, 2 and 3 of the second; 0 is carried along from file to file.
static void test_hand_over(pb_store_engine engine, void *data) {
    pb_store *store = open_scratch(engine, NULL);
    pb_ticket ticket;
    char first[1024], second[1024];
    if (!store) return;
    CHECK(!mkdir(scratch_path("kept"), 0700));
    snprintf(first, sizeof first, "%s", scratch_path("kept/first"));
    snprintf(second, sizeof second, "%s", scratch_path("kept/second"));
    CHECK_OK(put(store, 0, 10, data));
    CHECK_OK(put(store, 1, 11, data));
    CHECK_OK(put(store, 2, 12, data));
    pb_store_forget(store, 1);
    CHECK(pb_store_get_place(store, 1).bytes == 0 && pb_store_get_tag(store, 1).bytes == 0);
    const pb_store_place at[EXTENTS] = {pb_store_get_place(store, 0), {0}, pb_store_get_place(store, 2), {0}};
    const uint64_t bytes = pb_store_get_info(store)->file_bytes;
    CHECK(pb_store_renew(store) == PB_ERR_USAGE);
    CHECK_OK(pb_store_hand_over(store, first));
    file_is_private(first, bytes);
    CHECK(allocated(first) <= bytes - 4096 - 65536);  // what nobody wants was given back
    CHECK(file_holds(first, at[0], 10, data) && file_holds(first, at[2], 12, data));
    // Until it is renewed it can be read and no more.
    CHECK(holds(store, 0, 10, data) && holds(store, 2, 12, data));
    CHECK(pb_store_write(store, 0, 0, 4, data, 4096, &ticket) == PB_ERR_USAGE);
    CHECK(pb_store_hand_over(store, second) == PB_ERR_USAGE && pb_store_copy(store, second) == PB_ERR_USAGE);
    CHECK_OK(pb_store_renew(store));
    CHECK(pb_store_renew(store) == PB_ERR_USAGE);
    CHECK(holds(store, 0, 10, data) && holds(store, 2, 12, data));
    CHECK(pb_store_read(store, 1, 1, data, 4096, &ticket) == PB_OK && pb_store_wait(store, ticket) == PB_ERR_IO &&
          strstr(pb_error_message(), "never written"));
    // What is written goes to the new file; the first one stays as it is, and is read even without a name.
    CHECK_OK(put(store, 2, 22, data));
    CHECK_OK(put(store, 3, 23, data));
    CHECK(holds(store, 0, 10, data) && holds(store, 2, 22, data) && holds(store, 3, 23, data));
    CHECK(file_holds(first, at[0], 10, data) && file_holds(first, at[2], 12, data));
    CHECK(!unlink(first));
    CHECK(holds(store, 0, 10, data));
    // The next one has all of it, also what was never written to it.
    CHECK_OK(pb_store_hand_over(store, second));
    file_is_private(second, bytes);
    CHECK(file_holds(second, at[0], 10, data) && file_holds(second, at[2], 22, data) &&
          file_holds(second, pb_store_get_place(store, 3), 23, data));
    CHECK_OK(pb_store_renew(store));
    CHECK(holds(store, 0, 10, data) && holds(store, 2, 22, data) && holds(store, 3, 23, data));
    // Damage in a file that was handed over is an error that names it by the name that it has by now.
    CHECK(!rename(second, first));
    const int fd = open(first, O_RDWR);
    CHECK(pwrite(fd, "x", 1, (off_t)at[0].offset + 5000) == 1 && !fsync(fd));
    close(fd);
    CHECK(!holds(store, 0, 10, data) && strstr(pb_error_message(), "kept/first") &&
          strstr(pb_error_message(), "extent 0"));
    CHECK(pb_store_hand_over(store, second) == PB_ERR_IO);  // it cannot be taken along
    CHECK_OK(put(store, 0, 30, data));
    CHECK_OK(pb_store_hand_over(store, second));
    CHECK(file_holds(second, at[0], 30, data) && file_holds(second, at[2], 22, data));
    CHECK_OK(pb_store_close(store, false));
    file_is_private(second, bytes);  // a file that was handed over is not the store's to remove
    CHECK_OK(pb_fs_remove(scratch_path("kept")));
}

// A new store begins with what an earlier one left.
static void test_adopt(pb_store_engine engine, void *data) {
    pb_store *store = open_scratch(engine, NULL);
    pb_store_place places[EXTENTS];
    char first[1024], second[1024];
    if (!store) return;
    snprintf(first, sizeof first, "%s", scratch_path("first"));
    snprintf(second, sizeof second, "%s", scratch_path("second"));
    for (size_t i = 0; i < 3; i++) CHECK_OK(put(store, i, 10 + i, data));
    CHECK_OK(pb_store_hand_over(store, first));
    for (size_t i = 0; i < EXTENTS; i++) places[i] = pb_store_get_place(store, i);
    CHECK_OK(pb_store_close(store, false));

    store = open_scratch(engine, NULL);
    CHECK(pb_store_adopt(store, scratch_path("none"), places) == PB_ERR_IO);
    CHECK(!symlink(first, second) && pb_store_adopt(store, second, places) == PB_ERR_IO && !unlink(second));
    CHECK(!mkfifo(second, 0600) && pb_store_adopt(store, second, places) == PB_ERR_IO && !unlink(second));
    places[2].offset += 4096;
    CHECK(pb_store_adopt(store, first, places) == PB_ERR_UNSUPPORTED);
    places[2].offset -= 4096;
    CHECK(pb_store_get_tag(store, 0).bytes == 0);  // none of that changed anything
    CHECK_OK(pb_store_adopt(store, first, places));
    CHECK(pb_store_adopt(store, first, places) == PB_ERR_USAGE);
    for (size_t i = 0; i < 3; i++) CHECK(holds(store, i, 10 + i, data));
    CHECK(pb_store_get_tag(store, 3).bytes == 0);
    CHECK_OK(put(store, 1, 21, data));
    CHECK(holds(store, 0, 10, data) && holds(store, 1, 21, data) && file_holds(first, places[1], 11, data));
    CHECK_OK(pb_store_hand_over(store, second));
    CHECK(file_holds(second, places[0], 10, data) && file_holds(second, places[1], 21, data));
    CHECK_OK(pb_store_close(store, false));

    // Damage shows when it is read, and names the file.
    store = open_scratch(engine, NULL);
    places[2].hash[1] ^= 1;
    CHECK_OK(pb_store_adopt(store, first, places));
    CHECK(holds(store, 0, 10, data) && !holds(store, 2, 12, data) && strstr(pb_error_message(), first));
    CHECK_OK(pb_store_close(store, false));
    store = open_scratch(engine, NULL);
    CHECK_OK(put(store, 0, 10, data));
    CHECK(pb_store_adopt(store, first, places) == PB_ERR_USAGE);
    CHECK_OK(pb_store_close(store, false));
    CHECK(!unlink(first) && !unlink(second));
}

// --- Clones and copies ---

// Does what a file system with shared blocks does.
static bool clone_for_real(void *context, pb_store_call *call, long *result) {
    (void)context;
    static char bytes[1 << 16] __attribute__((aligned(4096)));
    if (call->op != PB_STORE_CLONE) return false;
    ssize_t n = 0;
    for (off_t at = 0; (n = pread(call->from, bytes, sizeof bytes, at)) > 0; at += n)
        if (pwrite(call->fd, bytes, (size_t)n, at) != n) abort();
    *result = 0;
    return true;
}

typedef pb_status copier(pb_store *store, const char *path);

static void test_copies(copier *copy, void *data) {
    const pb_store_hook hook = {NULL, clone_for_real, NULL};
    pb_store *store = open_scratch(PB_STORE_AUTO, &hook);
    const char *path = kept("copy");
    CHECK_OK(put(store, 0, 10, data));
    CHECK_OK(put(store, 1, 11, data));
    CHECK_OK(put(store, 3, 13, data));
    pb_store_forget(store, 1);
    CHECK_OK(copy(store, path));
    file_is_private(path, pb_store_get_info(store)->file_bytes);
    CHECK(allocated(path) <= pb_store_get_info(store)->file_bytes - 4096 - 98304);
    // The store goes on in its own file, and the copy stays as it is.
    const pb_store_place at = pb_store_get_place(store, 0);
    CHECK_OK(put(store, 0, 20, data));
    CHECK(file_holds(path, at, 10, data) && file_holds(path, pb_store_get_place(store, 3), 13, data));
    CHECK(copy(store, path) == PB_ERR_IO && strstr(pb_error_message(), "File exists"));
    CHECK(!unlink(path));
    // After a hand-over it has what still lies in the file that was handed over.
    CHECK_OK(pb_store_hand_over(store, kept("handed")));
    CHECK_OK(pb_store_renew(store));
    CHECK_OK(copy(store, kept("copy")));
    CHECK(file_holds(kept("copy"), at, 20, data));
    CHECK(!unlink(kept("copy")) && !unlink(kept("handed")));
    CHECK_OK(pb_store_close(store, false));
}

static void test_refusals(copier *copy, void *data) {
    pb_store *store = open_scratch(PB_STORE_AUTO, NULL);
    char path[1024], victim[1024];
    CHECK(!mkdir(scratch_path("refusals"), 0700));
    snprintf(path, sizeof path, "%s", scratch_path("refusals/file"));
    snprintf(victim, sizeof victim, "%s", scratch_path("refusals/victim"));
    CHECK_OK(put(store, 0, 10, data));
    CHECK(copy(store, scratch_path("nowhere/file")) == PB_ERR_IO);
    CHECK(copy(store, scratch_path("refusals/..")) == PB_ERR_USAGE);
    CHECK_OK(pb_fs_write_file(victim, "precious", 8));
    CHECK(!symlink(victim, path) && copy(store, path) == PB_ERR_IO && !unlink(path));
    CHECK(!symlink(scratch_path("refusals/dangling"), path) && copy(store, path) == PB_ERR_IO);
    CHECK(pb_fs_kind_of(scratch_path("refusals/dangling")) == PB_FS_NONE && !unlink(path));
    CHECK(!link(victim, path) && copy(store, path) == PB_ERR_IO && !unlink(path));
    CHECK(!mkfifo(path, 0600) && copy(store, path) == PB_ERR_IO && !unlink(path));
    pb_arena *arena = pb_arena_create();
    char *found = NULL;
    CHECK(pb_fs_read_file(arena, victim, 100, &found, NULL) == PB_OK && !strcmp(found, "precious"));
    pb_arena_destroy(arena);
    CHECK_OK(put(store, 1, 11, data));  // none of that harmed the store
    CHECK(holds(store, 0, 10, data) && holds(store, 1, 11, data));
    CHECK_OK(pb_store_close(store, false));
    CHECK_OK(pb_fs_remove(scratch_path("refusals")));
}

// --- What is on the disk when ---

typedef struct record {
    int count;
    pb_store_op ops[512];
    int fds[512];
} record;

static long note(void *context, const pb_store_call *call, long result) {
    record *r = context;
    if (r->count < 512) {
        r->ops[r->count] = call->op;
        r->fds[r->count++] = call->fd;
    }
    return result;
}

static int last_of(const record *r, pb_store_op op) {
    for (int i = r->count - 1; i >= 0; i--)
        if (r->ops[i] == op) return i;
    return -1;
}

static bool clone_and_note(void *context, pb_store_call *call, long *result) {
    (void)context;
    return clone_for_real(NULL, call, result);
}

// Whether there is an fsync between two calls.
static bool synced_between(const record *r, int from, int to) {
    for (int i = from + 1; i < to; i++)
        if (r->ops[i] == PB_STORE_SYNC) return true;
    return false;
}

// Data are fsynced before the file has its name, and the directory after it: at no instant can a power cut leave the
// name without the bytes, and when the call returns all of it is there.
static void test_order(copier *keep, pb_store_op makes, bool syncs_made, void *data) {
    record r = {0};
    const pb_store_hook hook = {&r, clone_and_note, note};
    pb_store *store = open_scratch(PB_STORE_THREADS, &hook);
    for (size_t i = 0; i < 3; i++) CHECK_OK(put(store, i, 10 + i, data));
    const int written = last_of(&r, PB_STORE_WRITE);
    CHECK_OK(keep(store, kept("ordered")));
    const int made = last_of(&r, makes), end = r.count;
    CHECK(written >= 0 && made > written && synced_between(&r, written, made));
    int syncs = 0;
    for (int i = made + 1; i < end; i++) syncs += r.ops[i] == PB_STORE_SYNC;
    CHECK(syncs == (syncs_made ? 2 : 1));  // the new file, where it is one, and its directory
    CHECK_OK(pb_store_close(store, false));
    CHECK(!unlink(kept("ordered")));
}

// --- Faults at each call from a hand-over to the next, over a file system that clones, or gives no names ---

typedef struct layered {
    store_injector injector;
    bool started, clones, nameless;
} layered;

static bool layered_before(void *context, pb_store_call *call, long *result) {
    layered *l = context;
    if (l->started && l->injector.hook.before(&l->injector, call, result)) return true;
    if (l->nameless && call->op == PB_STORE_LINK) {
        *result = -ENOENT;
        return true;
    }
    return l->clones && clone_for_real(NULL, call, result);
}

static long layered_after(void *context, const pb_store_call *call, long result) {
    layered *l = context;
    return l->started ? l->injector.hook.after(&l->injector, call, result) : result;
}

// Keeps state 1, goes on to state 2, keeps that. The first error.
static pb_status keep_twice(pb_store *store, void *data) {
    static copier *const ways[] = {pb_store_clone, pb_store_hand_over, pb_store_copy};
    for (uint64_t state = 1; state <= 2; state++) {
        pb_status status = PB_ERR_UNSUPPORTED;
        int way = 0;
        for (; way < 3 && status == PB_ERR_UNSUPPORTED; way++)
            status = ways[way](store, kept(state == 1 ? "kept-1" : "kept-2"));
        PB_RETURN_IF(status);
        if (way == 2) PB_RETURN_IF(pb_store_renew(store));
        for (size_t i = 0; i < 3 && state == 1; i++) {
            if (!holds(store, i, 10 + i, data)) return PB_ERR_IO;
            if (i) PB_RETURN_IF(put(store, i, 20 + i, data));
        }
    }
    return PB_OK;
}

static bool is_state(const char *name, uint64_t state, const pb_store_place at[3], void *data) {
    for (size_t i = 0; i < 3; i++)
        if (!file_holds(kept(name), at[i], (i && state == 2 ? 20 : 10) + i, data)) return false;
    return true;
}

static void test_faults(pb_store_engine engine, bool clones, bool nameless, void *data) {
    unsigned cases = 0, errors = 0;
    void *flipped = store_memory(STORE_FLIPPED_BYTES);
    for (int fault = 0; fault < FAULT_KINDS; fault++)
        for (long at = 1;; at++) {
            layered l = {.clones = clones, .nameless = nameless};
            const pb_store_hook hook = {&l, layered_before, layered_after};
            pb_store *store = open_scratch(engine, &hook);
            if (!store) {
                free(flipped);
                return;
            }
            for (size_t i = 0; i < 3; i++) CHECK_OK(put(store, i, 10 + i, data));
            pb_store_place places[3];
            for (size_t i = 0; i < 3; i++) places[i] = pb_store_get_place(store, i);
            store_injector_init(&l.injector, at, (store_fault)fault, false, flipped);
            l.started = true;
            const pb_status status = keep_twice(store, data);
            l.started = false;
            const bool struck = l.injector.struck;
            const bool first = pb_fs_kind_of(kept("kept-1")) == PB_FS_FILE;
            const bool second = pb_fs_kind_of(kept("kept-2")) == PB_FS_FILE;
            if (status == PB_OK) {
                // A flip that nothing has read since may lie in a file that the caller has not verified yet.
                if (fault != FAULT_FLIP)
                    CHECK_THAT(first && second && is_state("kept-1", 1, places, data) &&
                                   is_state("kept-2", 2, places, data),
                               "%s at %ld: no error, and other bytes", store_fault_name((store_fault)fault), at);
            } else {
                errors++;
                CHECK_THAT(pb_error_message()[0], "%s at %ld: no message", store_fault_name((store_fault)fault), at);
                if (second && fault != FAULT_FLIP)
                    CHECK_THAT(is_state("kept-1", 1, places, data), "%s at %ld: the first file changed",
                               store_fault_name((store_fault)fault), at);
            }
            pb_store_close(store, false);
            unlink(kept("kept-1"));
            unlink(kept("kept-2"));
            cases++;
            if (!struck) break;
        }
    free(flipped);
    printf("%u faults%s%s, %u errors\n", cases, clones ? ", shared blocks" : "", nameless ? ", no names" : "", errors);
    CHECK(errors > 10);
}

int main(void) {
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 0);  // a disk's fsync is most of the time
    void *data = store_memory(MOST);
    store_delay_ms = 1;
    test_hand_over(PB_STORE_THREADS, data);
    test_hand_over(PB_STORE_URING, data);
    test_adopt(PB_STORE_THREADS, data);
    test_adopt(PB_STORE_URING, data);
    test_copies(pb_store_copy, data);
    test_copies(pb_store_clone, data);
    test_order(pb_store_hand_over, PB_STORE_LINK, false, data);
    test_order(pb_store_clone, PB_STORE_CLONE, true, data);
    test_order(pb_store_copy, PB_STORE_COPY, true, data);
    test_refusals(pb_store_copy, data);
    test_refusals(pb_store_hand_over, data);
    test_faults(PB_STORE_THREADS, false, false, data);
    test_faults(PB_STORE_URING, false, false, data);
    test_faults(PB_STORE_THREADS, true, false, data);
    test_faults(PB_STORE_THREADS, false, true, data);
    free(data);
    scratch_remove();
    return CHECK_DONE();
}
