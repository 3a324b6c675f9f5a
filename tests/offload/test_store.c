// test: links=offload,base
// The byte store: round trips through both engines, fallbacks, commits, and what is planted in its place.
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "offload/record.h"
#include "scratch.h"
#include "support_store.h"

enum { EXTENTS = 12, TRANSFERS = 200, SLAB = 1 << 20, BLOCK = PB_STORE_BLOCK };

static const uint32_t capacities[EXTENTS] = {4096, 8192,  16384, 98304, 1 << 20, 12288,
                                             4096, 40960, 61440, 4096,  131072,  24576};

static pb_store_options options_for(const char *name, const char *run_id) {
    return (pb_store_options){.directory = scratch_path(name),
                              .run_id = run_id,
                              .capacities = capacities,
                              .extent_count = EXTENTS,
                              .request_bytes = 32768,
                              .depth = 4,
                              .operations = 6};
}

static pb_status put(pb_store *store, size_t extent, uint64_t seed, uint64_t *data, size_t bytes) {
    pb_ticket ticket = 0;
    store_fill(data, bytes, seed);
    PB_RETURN_IF(pb_store_write(store, extent, extent, seed, data, bytes, &ticket));
    return pb_store_wait(store, ticket);
}

static pb_status get(pb_store *store, size_t extent, uint64_t *data, size_t bytes) {
    pb_ticket ticket = 0;
    PB_RETURN_IF(pb_store_read(store, extent, extent, data, bytes, &ticket));
    return pb_store_wait(store, ticket);
}

// Writes followed by reads of the same extents without a wait in between, of random sizes and in random order.
static void exercise(pb_store *store, unsigned char *slab) {
    uint64_t random = 3;
    for (int round = 0; round < TRANSFERS / 4; round++) {
        pb_ticket tickets[8] = {0};
        size_t extent[4], bytes[4];
        unsigned char *from[4], *to[4], *at = slab;
        for (int i = 0; i < 4; i++) {
            do extent[i] = store_random(&random) % EXTENTS;
            while (extent[i] == 4);
            bytes[i] = (1 + store_random(&random) % (capacities[extent[i]] / BLOCK)) * BLOCK;
            from[i] = at;
            to[i] = at + bytes[i];
            at += 2 * bytes[i];
            store_fill(from[i], bytes[i], store_random(&random));
            memset(to[i], 0, bytes[i]);
            CHECK_OK(pb_store_write(store, extent[i], 7, (uint64_t)round, from[i], bytes[i], &tickets[2 * i]));
            CHECK_OK(pb_store_read(store, extent[i], 7, to[i], bytes[i], &tickets[2 * i + 1]));
        }
        pb_store_submit(store);
        if (round % 2)
            for (int i = 0; i < 8; i++)
                while (!pb_store_poll(store, tickets[i])) continue;
        for (int i = 7; i >= 0; i--) CHECK_OK(pb_store_wait(store, tickets[i]));
        for (int i = 0; i < 4; i++) CHECK(!memcmp(from[i], to[i], bytes[i]));
    }
    CHECK_OK(pb_store_drain(store));
}

static void test_round_trips(unsigned char *slab) {
    for (int i = 0; i < 12; i++) {
        pb_store_options options = options_for("trips", i % 2 ? "run" : NULL);
        pb_store *store = NULL;
        options.engine = (pb_store_engine)(i / 4);
        options.buffered = i & 2;
        options.memory = options.engine == PB_STORE_URING ? slab : NULL;
        options.memory_bytes = SLAB / 2;  // some transfers lie outside, or half outside
        const pb_status status = pb_store_open(&options, &store);
        if (status == PB_ERR_UNSUPPORTED && options.engine == PB_STORE_URING) continue;
        CHECK_OK(status);
        if (!store) continue;
        const pb_store_info *info = pb_store_get_info(store);
        CHECK(options.engine != PB_STORE_THREADS || !strcmp(info->engine, "threads"));
        CHECK(options.engine != PB_STORE_URING || !strcmp(info->engine, "io_uring"));
        CHECK(!options.buffered || !info->direct);
        CHECK(!info->resumed);
        exercise(store, slab);
        CHECK(info->bytes_read == info->bytes_written && info->bytes_read > 0);
        CHECK_OK(pb_store_close(store, false));
        const char **names = NULL;
        size_t count = 1;
        pb_arena *arena = pb_arena_create();
        CHECK_OK(pb_fs_list(arena, scratch_path("trips"), &names, &count));
        CHECK(count == 0);
        pb_arena_destroy(arena);
    }
}

// Fails the calls of one kind, or with O_DIRECT.
typedef struct refusal {
    pb_store_op op;
    bool direct_only;
    int error;
} refusal;

static bool refuse(void *context, pb_store_call *call, long *result) {
    const refusal *r = context;
    if (call->op != r->op) return false;
    const int flags = call->op == PB_STORE_OPEN ? call->flags : call->fd >= 0 ? fcntl(call->fd, F_GETFL) : 0;
    if (r->direct_only && !(flags & O_DIRECT)) return false;
    *result = -r->error;
    return true;
}

static void test_fallbacks(unsigned char *slab) {
    static const refusal refusals[] = {{PB_STORE_RING_SETUP, false, ENOSYS},   {PB_STORE_RING_SETUP, false, EPERM},
                                       {PB_STORE_RING_SETUP, false, ENOMEM},   {PB_STORE_RING_FILE, false, EINVAL},
                                       {PB_STORE_RING_BUFFERS, false, ENOMEM}, {PB_STORE_OPEN, true, EINVAL},
                                       {PB_STORE_WRITE, true, EINVAL},         {PB_STORE_ALLOCATE, false, EOPNOTSUPP}};
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        refusal r = refusals[i];
        const pb_store_hook hook = {&r, refuse, NULL};
        pb_store_options options = options_for("fallbacks", i % 2 ? "run" : NULL);
        pb_store *store = NULL;
        options.hook = &hook;
        options.memory = slab;
        options.memory_bytes = SLAB;
        CHECK_OK(pb_store_open(&options, &store));
        if (!store) continue;
        const pb_store_info *info = pb_store_get_info(store);
        CHECK(r.op != PB_STORE_RING_SETUP || !strcmp(info->engine, "threads"));
        CHECK(r.op != PB_STORE_RING_FILE || !info->registered_file);
        CHECK(r.op != PB_STORE_RING_BUFFERS || !info->registered_memory);
        CHECK(!r.direct_only || !info->direct);
        exercise(store, slab);
        CHECK_OK(pb_store_close(store, false));
    }
}

// Without privileges and without locked memory: registration is refused by the system itself.
static void test_no_locked_memory(unsigned char *slab) {
    const char *directory = scratch_path("unlocked");
    CHECK(!mkdir(directory, 0700) && !chmod(scratch_directory, 0711));
    if (!geteuid()) CHECK(!chown(directory, 65534, 65534));
    const pid_t child = fork();
    if (child == 0) {
        pb_store_options options = options_for("unlocked", "run");
        pb_store *store = NULL;
        options.memory = slab;
        options.memory_bytes = SLAB;
        CHECK(!setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){0, 0}));
        if (!geteuid()) CHECK(!setgid(65534) && !setuid(65534));
        CHECK_OK(pb_store_open(&options, &store));
        if (store) {
            CHECK(!pb_store_get_info(store)->registered_memory);
            exercise(store, slab);
            CHECK_OK(pb_store_close(store, false));
        }
        _exit(check_failures != 0);
    }
    int result = 1;
    CHECK(waitpid(child, &result, 0) == child && result == 0);
}

static void test_wrong_use(uint64_t *data) {
    pb_store_options options = options_for("use", NULL);
    pb_store *store = NULL;
    pb_ticket ticket = 0;
    CHECK_OK(pb_store_open(&options, &store));
    if (!store) return;
    CHECK(pb_store_write(store, EXTENTS, 0, 0, data, BLOCK, &ticket) == PB_ERR_USAGE);
    CHECK(pb_store_write(store, 0, 0, 0, data, 2 * BLOCK, &ticket) == PB_ERR_USAGE);
    CHECK(pb_store_write(store, 1, 0, 0, data, 100, &ticket) == PB_ERR_USAGE);
    CHECK(pb_store_read(store, 1, 0, data + 1, BLOCK, &ticket) == PB_ERR_USAGE);
    CHECK(get(store, 1, data, BLOCK) == PB_ERR_IO && strstr(pb_error_message(), "never written"));
    CHECK_OK(put(store, 1, 5, data, BLOCK));
    CHECK(get(store, 1, data, 2 * BLOCK) == PB_ERR_IO && strstr(pb_error_message(), "were asked for"));
    CHECK_OK(pb_store_read(store, 1, 99, data, BLOCK, &ticket));
    CHECK(pb_store_wait(store, ticket) == PB_ERR_IO && strstr(pb_error_message(), "owner 99"));
    CHECK_OK(pb_store_wait(store, ticket));  // told once
    CHECK(pb_store_get_tag(store, 1).step == 5 && pb_store_get_tag(store, 0).bytes == 0);
    CHECK(pb_store_commit(store, 1, NULL, 0) == PB_ERR_UNSUPPORTED);
    // Failures that nobody waited for are told by close; more than there are operations, by the next transfer.
    CHECK_OK(pb_store_read(store, 2, 2, data, BLOCK, &ticket));
    CHECK(pb_store_close(store, false) == PB_ERR_IO);
    CHECK_OK(pb_store_open(&options, &store));
    int told = 0;
    for (int i = 0; i < 7; i++) told += pb_store_read(store, 2, 2, data, BLOCK, &ticket) != PB_OK;
    CHECK(told == 1);
    CHECK(pb_store_close(store, false) == PB_ERR_IO);
    options.run_id = "../up";
    CHECK(pb_store_open(&options, &store) == PB_ERR_USAGE);
}

static void test_commits(uint64_t *data) {
    pb_store_options options = options_for("commits", "run-1");
    pb_store *store = NULL;
    CHECK_OK(pb_store_open(&options, &store));
    if (!store) return;
    CHECK_OK(put(store, 0, 10, data, 4096));
    CHECK_OK(put(store, 3, 11, data, 98304));
    CHECK_OK(pb_store_commit(store, 1, "first", 5));
    CHECK_OK(put(store, 3, 12, data, 8192));
    CHECK_OK(pb_store_commit(store, 2, "second", 6));
    CHECK_OK(put(store, 0, 13, data, 4096));  // not committed
    CHECK_OK(put(store, 5, 14, data, 4096));
    CHECK_OK(pb_store_close(store, true));
    CHECK_OK(pb_store_open(&options, &store));
    const pb_store_info *info = pb_store_get_info(store);
    CHECK(info->resumed && info->generation == 2 && info->step == 2 && info->blob_bytes == 6);
    CHECK(!memcmp(info->blob, "second", 6));
    CHECK(get(store, 0, data, 4096) == PB_OK && store_holds(data, 4096, 10));
    CHECK(get(store, 3, data, 8192) == PB_OK && store_holds(data, 8192, 12));
    CHECK(get(store, 5, data, 4096) == PB_ERR_IO);
    CHECK(pb_store_get_tag(store, 3).generation == 2 && pb_store_get_tag(store, 0).generation == 1);
    CHECK_OK(pb_store_close(store, true));
    // Another layout is another file; the old one is replaced, and that is said.
    options.extent_count = EXTENTS - 1;
    CHECK_OK(pb_store_open(&options, &store));
    CHECK(!pb_store_get_info(store)->resumed && strstr(pb_store_get_info(store)->note, "was not used"));
    CHECK_OK(pb_store_close(store, false));
    CHECK(pb_fs_kind_of(scratch_path("commits/pagebooth-run-1.swap")) == PB_FS_NONE);
}

// Fails the n-th fsync from now on.
static bool fail_sync(void *context, pb_store_call *call, long *result) {
    int *left = context;
    if (call->op != PB_STORE_SYNC || --*left) return false;
    *result = -EIO;
    return true;
}

static void test_failed_sync(uint64_t *data) {
    for (int which = 1; which <= 2; which++) {
        int left = 0;
        const pb_store_hook hook = {&left, fail_sync, NULL};
        pb_store_options options = options_for("sync", "run");
        pb_store *store = NULL;
        pb_ticket ticket;
        options.hook = &hook;
        CHECK_OK(pb_store_open(&options, &store));
        if (!store) return;
        CHECK_OK(put(store, 0, 1, data, 4096));
        CHECK_OK(pb_store_commit(store, 1, NULL, 0));
        CHECK_OK(put(store, 0, 2, data, 4096));
        left = which;
        CHECK(pb_store_commit(store, 2, NULL, 0) == PB_ERR_IO);
        CHECK(pb_store_commit(store, 2, NULL, 0) == PB_ERR_IO);  // not even though this fsync would succeed
        CHECK(pb_store_write(store, 0, 0, 3, data, 4096, &ticket) == PB_ERR_IO);
        CHECK(pb_store_read(store, 0, 0, data, 4096, &ticket) == PB_ERR_IO);
        CHECK_OK(pb_store_close(store, true));
        options.hook = NULL;
        CHECK_OK(pb_store_open(&options, &store));
        CHECK(pb_store_get_info(store)->generation == (uint64_t)which);  // the second came after the record was written
        CHECK(get(store, 0, data, 4096) == PB_OK && store_holds(data, 4096, (uint64_t)which));
        CHECK_OK(pb_store_close(store, false));
    }
}

static void refuse_planted(const char *what, const char *word) {
    const pb_store_options options = options_for("planted", "run");
    pb_store *store = NULL;
    const pb_status status = pb_store_open(&options, &store);
    CHECK_THAT(status == PB_ERR_IO && strstr(pb_error_message(), word), "%s: %s", what, pb_error_message());
    if (status == PB_OK) pb_store_close(store, false);
    pb_fs_remove(scratch_path("planted/pagebooth-run.swap"));
}

static void test_planted(void) {
    const char *name = scratch_path("planted/pagebooth-run.swap"), *victim = scratch_path("victim");
    const mode_t mask = umask(0);
    pb_store_options options = options_for("planted", "run");
    pb_store *store = NULL;
    struct stat info;
    CHECK_OK(pb_store_open(&options, &store));
    CHECK(!stat(name, &info) && (info.st_mode & 07777) == 0600);
    CHECK(!stat(scratch_path("planted"), &info) && (info.st_mode & 07777) == 0700);
    pb_store *second = NULL;
    CHECK(pb_store_open(&options, &second) == PB_ERR_IO && strstr(pb_error_message(), "in use by another process"));
    const pid_t child = fork();
    if (child == 0) _exit(pb_store_open(&options, &second) == PB_ERR_IO ? 0 : 1);
    int result = 1;
    CHECK(waitpid(child, &result, 0) == child && result == 0);
    CHECK_OK(pb_store_close(store, false));
    umask(mask);
    CHECK_OK(pb_fs_write_file(victim, "precious", 8));
    CHECK(!chmod(victim, 0600));
    CHECK(!symlink(victim, name));
    refuse_planted("a symbolic link", "symbolic link");
    CHECK(!link(victim, name));
    refuse_planted("a hard link", "hard link");
    CHECK(!mkfifo(name, 0600));
    refuse_planted("a FIFO", "regular file");
    CHECK(!mkdir(name, 0700));
    refuse_planted("a directory", "directory");
    CHECK_OK(pb_fs_write_file(name, "x", 1));
    CHECK(!chmod(name, 0644));
    refuse_planted("a file for all", "other users");
    if (!geteuid()) {
        CHECK_OK(pb_fs_write_file(name, "x", 1));
        CHECK(!chmod(name, 0600) && !chown(name, 65534, 65534));
        refuse_planted("another user's", "another user");
    }
    char *data = NULL;
    pb_arena *arena = pb_arena_create();
    CHECK(pb_fs_read_file(arena, victim, 100, &data, NULL) == PB_OK && !strcmp(data, "precious"));
    pb_arena_destroy(arena);
    CHECK_OK(pb_fs_write_file(name, "stale", 5));  // this user's own: replaced
    CHECK(!chmod(name, 0600));
    CHECK_OK(pb_store_open(&options, &store));
    CHECK_OK(pb_store_close(store, false));
}

// A file is read on another machine than it was written on: the hash is that of the library, whatever the vectors.
static void test_hash(void *data) {
    static const uint64_t wanted[2][2] = {{0x92E56A43D1CB2ADB, 0x85C73770532FD61C},
                                          {0xD438AFED59CE20EB, 0xDBE49E9670DC016D}};
    static const size_t sizes[2] = {4096, 1 << 20};
    for (uint64_t i = 0; i < 2; i++) {
        uint64_t hash[2];
        store_fill(data, sizes[i], i + 1);
        pb_hash_bytes(data, sizes[i], hash);
        CHECK(hash[0] == wanted[i][0] && hash[1] == wanted[i][1]);
    }
}

int main(void) {
    unsigned char *slab = store_memory(2 * SLAB);
    test_hash(slab);
    test_round_trips(slab);
    test_fallbacks(slab);
    test_no_locked_memory(slab);
    test_wrong_use((uint64_t *)slab);
    test_commits((uint64_t *)slab);
    test_failed_sync((uint64_t *)slab);
    test_planted();
    free(slab);
    scratch_remove();
    return CHECK_DONE();
}
