// test: links=offload,base
// The last commit as a file of its own: cloned, copied, handed over; what is in the way; and every call of it failing.
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

static pb_store *open_at(const char *name, const pb_store_hook *hook) {
    const pb_store_options options = {.directory = scratch_path(name),
                                      .run_id = "run",
                                      .capacities = capacities,
                                      .extent_count = EXTENTS,
                                      .hook = hook};
    pb_store *store = NULL;
    CHECK_OK(pb_store_open(&options, &store));
    if (!store) exit(1);
    return store;
}

// Extent 3 stays empty; extent 1 is of the first commit alone.
static void write_state(pb_store *store, uint64_t state, void *data) {
    for (size_t i = 0; i < 3; i++) {
        pb_ticket ticket = 0;
        if (i == 1 && state > 1) continue;
        store_fill(data, capacities[i], 10 * state + i);
        CHECK_OK(pb_store_write(store, i, i, state, data, capacities[i], &ticket));
        CHECK_OK(pb_store_wait(store, ticket));
    }
}

static bool holds_state(pb_store *store, uint64_t state, void *data) {
    for (size_t i = 0; i < 3; i++) {
        pb_ticket ticket = 0;
        CHECK_OK(pb_store_read(store, i, i, data, capacities[i], &ticket));
        const pb_status status = pb_store_wait(store, ticket);
        CHECK_OK(status);
        if (status != PB_OK || !store_holds(data, capacities[i], 10 * (i == 1 ? 1 : state) + i)) return false;
    }
    return true;
}

static bool is_commit(const char *name, uint64_t state, void *data) {
    pb_store *store = open_at(name, NULL);
    const pb_store_info *info = pb_store_get_info(store);
    const bool good = info->resumed && info->generation == state && info->blob_bytes == 5 &&
                      !memcmp(info->blob, "state", 5) && holds_state(store, state, data);
    CHECK_OK(pb_store_close(store, true));
    return good;
}

// Two commits, and writes of a third that is none yet.
static pb_store *open_with_commits(const pb_store_hook *hook, void *data) {
    pb_store *store = open_at("run", hook);
    for (uint64_t state = 1; state <= 2; state++) {
        write_state(store, state, data);
        CHECK_OK(pb_store_commit(store, state, "state", 5));
    }
    write_state(store, 3, data);
    return store;
}

static const char *new_directory(const char *name) {
    CHECK(!mkdir(scratch_path(name), 0700));
    static char paths[8][1024];  // they live longer than those of scratch_path
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/pagebooth-run.swap", scratch_path(name));
    return path;
}

static uint64_t allocated(const char *path) {
    struct stat info;
    return stat(path, &info) ? 0 : (uint64_t)info.st_blocks * 512;
}

static void test_copy(void *data) {
    pb_store *store = open_with_commits(NULL, data);
    const char *copy = new_directory("copy");
    struct stat info;
    const uint64_t bytes = pb_store_get_info(store)->file_bytes;
    CHECK_OK(pb_store_copy(store, copy));
    CHECK(!stat(copy, &info) && (info.st_mode & 07777) == 0600 && (uint64_t)info.st_size == bytes);
    CHECK(allocated(copy) < bytes - MOST / 2);  // the free slots are holes
    CHECK(is_commit("copy", 2, data));
    CHECK(allocated(copy) >= bytes);
    // The store goes on, and the copy stays as it is.
    CHECK(holds_state(store, 3, data));
    CHECK_OK(pb_store_commit(store, 3, "state", 5));
    CHECK(pb_store_copy(store, copy) == PB_ERR_IO && strstr(pb_error_message(), "File exists"));
    CHECK(is_commit("copy", 2, data));
    CHECK_OK(pb_store_close(store, true));
    CHECK(is_commit("run", 3, data));
    // And the run can go on from the copy.
    store = open_at("copy", NULL);
    write_state(store, 3, data);
    CHECK_OK(pb_store_commit(store, 3, "state", 5));
    CHECK_OK(pb_store_close(store, true));
    CHECK(is_commit("copy", 3, data));
}

// Does what a file system with shared blocks does.
static bool clone_for_real(void *context, pb_store_call *call, long *result) {
    (void)context;
    static char bytes[1 << 16];
    if (call->op != PB_STORE_CLONE) return false;
    ssize_t n = 0;
    char *aligned = aligned_alloc(4096, sizeof bytes);
    for (off_t at = 0; aligned && (n = pread(call->from, aligned, sizeof bytes, at)) > 0; at += n)
        if (pwrite(call->fd, aligned, (size_t)n, at) != n) abort();
    free(aligned);
    *result = 0;
    return true;
}

static void test_clone(void *data) {
    CHECK_OK(pb_fs_remove(scratch_path("run")));  // another test's, whose generations would be gone on with
    pb_store *store = open_with_commits(NULL, data);
    const char *path = new_directory("clone");
    const pb_status status = pb_store_clone(store, path);
    if (status == PB_ERR_UNSUPPORTED) {
        printf("this file system shares no blocks: only the refusal was seen, and a clone that the test makes\n");
        CHECK(pb_fs_kind_of(path) == PB_FS_NONE);
    } else {
        CHECK_OK(status);
        CHECK(is_commit("clone", 2, data));
    }
    CHECK_OK(pb_store_close(store, false));
    const pb_store_hook hook = {NULL, clone_for_real, NULL};
    store = open_with_commits(&hook, data);
    path = new_directory("made");
    CHECK_OK(pb_store_clone(store, path));
    CHECK(is_commit("made", 2, data));
    CHECK(holds_state(store, 3, data));
    CHECK_OK(pb_store_close(store, false));
    CHECK(is_commit("made", 2, data));
}

static void test_hand_over(void *data) {
    pb_store *old = open_with_commits(NULL, data);
    pb_ticket ticket;
    const char *path = new_directory("handed");
    CHECK_OK(pb_store_hand_over(old, path));
    CHECK(!strcmp(pb_store_get_info(old)->path, path));
    CHECK(pb_fs_kind_of(scratch_path("run/pagebooth-run.swap")) == PB_FS_NONE);
    CHECK(pb_store_commit(old, 3, "state", 5) == PB_ERR_USAGE);
    CHECK(pb_store_write(old, 0, 0, 4, data, 4096, &ticket) == PB_ERR_USAGE);
    CHECK(pb_store_hand_over(old, scratch_path("handed/again")) == PB_ERR_USAGE);
    // A new one beside it takes what is read from the old.
    pb_store *new = open_at("run", NULL);
    CHECK(!pb_store_get_info(new)->resumed);
    CHECK(holds_state(old, 3, data));
    write_state(new, 1, data);
    CHECK_OK(pb_store_commit(new, 1, "state", 5));
    CHECK_OK(pb_store_close(old, false));
    CHECK_OK(pb_store_close(new, false));
    CHECK(is_commit("handed", 2, data));
}

typedef pb_status copier(pb_store *store, const char *path);

static void test_refusals(void *data) {
    static copier *const copiers[] = {pb_store_clone, pb_store_copy, pb_store_hand_over};
    const char *path = new_directory("refusals");
    char victim[1024];
    snprintf(victim, sizeof victim, "%s", scratch_path("refusals/victim"));
    for (size_t i = 0; i < sizeof copiers / sizeof *copiers; i++) {
        pb_store *store = open_at("run", NULL);
        CHECK(copiers[i](store, path) == PB_ERR_USAGE && strstr(pb_error_message(), "no commit yet"));
        CHECK_OK(pb_store_close(store, false));
        CHECK(pb_fs_kind_of(path) == PB_FS_NONE);

        store = open_with_commits(NULL, data);
        CHECK(copiers[i](store, scratch_path("nowhere/file")) == PB_ERR_IO);
        CHECK(copiers[i](store, scratch_path("refusals/..")) == PB_ERR_USAGE);
        CHECK_OK(pb_fs_write_file(victim, "precious", 8));
        CHECK(!symlink(victim, path));
        CHECK(copiers[i](store, path) == PB_ERR_IO);
        CHECK(!unlink(path) && !symlink(scratch_path("refusals/dangling"), path));
        CHECK(copiers[i](store, path) == PB_ERR_IO);
        CHECK(pb_fs_kind_of(scratch_path("refusals/dangling")) == PB_FS_NONE);
        CHECK(!unlink(path) && !link(victim, path));
        CHECK(copiers[i](store, path) == PB_ERR_IO);
        CHECK(!unlink(path) && !mkfifo(path, 0600));
        CHECK(copiers[i](store, path) == PB_ERR_IO);
        CHECK(!unlink(path));
        char *found = NULL;
        pb_arena *arena = pb_arena_create();
        CHECK(pb_fs_read_file(arena, victim, 100, &found, NULL) == PB_OK && !strcmp(found, "precious"));
        pb_arena_destroy(arena);
        CHECK_OK(pb_store_commit(store, 3, "state", 5));  // none of that harmed the store
        CHECK_OK(pb_store_close(store, false));
    }
}

// --- Faults: an injector that begins to count when `started`, over a hook that clones or refuses to copy ---

typedef struct layered {
    store_injector injector;
    bool started, clones, refuses;
    long flip_at;  // the copy after which a bit of the new file is flipped; 0: none
} layered;

static bool layered_before(void *context, pb_store_call *call, long *result) {
    layered *l = context;
    if (l->started && l->injector.hook.before(&l->injector, call, result)) return true;
    if (l->refuses && call->op == PB_STORE_COPY) {
        *result = -EXDEV;
        return true;
    }
    return l->clones && clone_for_real(NULL, call, result);
}

static long layered_after(void *context, const pb_store_call *call, long result) {
    layered *l = context;
    if (l->started && call->op == PB_STORE_COPY && result > 0 && l->flip_at && --l->flip_at == 0) {
        char byte = 0;
        const off_t at = (off_t)call->offset + result / 2;
        if (pread(call->fd, &byte, 1, at) != 1) abort();
        byte ^= 4;
        if (pwrite(call->fd, &byte, 1, at) != 1) abort();
    }
    return l->started ? l->injector.hook.after(&l->injector, call, result) : result;
}

// The copy of a store of two commits under one fault: the commit or nothing.
static pb_status copy_under(layered *l, copier *copy, void *data, const char *what) {
    const pb_store_hook hook = {l, layered_before, layered_after};
    char path[1024];
    snprintf(path, sizeof path, "%s", scratch_path("faults/pagebooth-run.swap"));
    pb_store *store = open_with_commits(&hook, data);
    l->started = true;
    const pb_status status = copy(store, path);
    char message[600];
    snprintf(message, sizeof message, "%s", status == PB_OK ? "no error" : pb_error_message());
    l->started = false;
    const bool there = pb_fs_kind_of(path) == PB_FS_FILE;
    if (copy != pb_store_hand_over) {
        CHECK_THAT(there == (status == PB_OK), "%s: %s, but the file is%s there", what, message, there ? "" : " not");
        CHECK_OK(pb_store_commit(store, 3, "state", 5));  // the store itself is as good as before
    } else {
        CHECK_THAT(there || pb_fs_kind_of(scratch_path("run/pagebooth-run.swap")) == PB_FS_FILE, "%s: it is gone",
                   what);
    }
    CHECK_OK(pb_store_close(store, false));
    if (there) CHECK_THAT(is_commit("faults", 2, data), "%s: another state", what);
    pb_fs_remove(path);
    return status;
}

static void test_faults(void *data) {
    static copier *const copiers[] = {pb_store_copy, pb_store_copy, pb_store_clone, pb_store_hand_over};
    static const store_fault faults[] = {FAULT_EIO,       FAULT_ENOSPC,     FAULT_EAGAIN, FAULT_EINTR,
                                         FAULT_ECANCELED, FAULT_SHORT_4096, FAULT_ZERO,   FAULT_FLIP};
    long cases = 0, refused = 0;
    CHECK(!mkdir(scratch_path("faults"), 0700));
    void *flipped = store_memory(STORE_FLIPPED_BYTES);
    for (int kind = 0; kind < 4; kind++)
        for (size_t f = 0; f < sizeof faults / sizeof *faults; f++)
            for (long at = 1;; at++) {
                layered l = {.clones = kind == 2, .refuses = kind == 1};
                char what[100];
                store_injector_init(&l.injector, at, faults[f], false, flipped);
                snprintf(what, sizeof what, "copier %d, %s at call %ld", kind, store_fault_name(faults[f]), at);
                const pb_status status = copy_under(&l, copiers[kind], data, what);
                CHECK_THAT(status == PB_OK || status == PB_ERR_IO, "%s: status %d", what, (int)status);
                if (l.injector.calls < at) break;
                cases += l.injector.struck;
                refused += status != PB_OK;
                const bool passing = faults[f] == FAULT_SHORT_4096;
                if (passing) CHECK_OK(status);
            }
    for (long at = 1; at <= 4; at++) {  // three extents and the record
        layered l = {.flip_at = at};
        store_injector_init(&l.injector, 0, FAULT_EIO, false, NULL);
        CHECK_THAT(copy_under(&l, pb_store_copy, data, "a bit flips") == PB_ERR_IO, "flip in part %ld", at);
        CHECK(strstr(pb_error_message(), "does not read back"));
        CHECK(l.flip_at == 0);
    }
    printf("%ld faults, %ld refused\n", cases, refused);
    CHECK(cases > 300 && refused > 100);
    free(flipped);
}

int main(void) {
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 0);  // a disk's fsync is most of the time
    void *data = store_memory(MOST);
    test_copy(data);
    test_clone(data);
    test_hand_over(data);
    test_refusals(data);
    test_faults(data);
    free(data);
    scratch_remove();
    return CHECK_DONE();
}
