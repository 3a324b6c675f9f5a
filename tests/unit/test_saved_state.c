// test: links=train,io,base timeout=300
// Reading a checkpoint in the format `swap`: tensors in pieces from both files, and what must be refused: every byte of
// the map changed, bytes of the swap file changed, files cut off, missing, or links.
#include "train/saved_state.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "base/json.h"
#include "io/safetensors.h"
#include "scratch.h"
#include "train/checkpoint.h"

enum { BLOCK = 4096, SWAP_BYTES = 4 * BLOCK };

static unsigned char swap_bytes[SWAP_BYTES];
static uint16_t memory_values[100];

// Tensor "a" (F32, 1024): the first block of extent 0, then the second half of extent 1. "b" (BF16, 300): 100 values in
// memory, the rest at the end of extent 0. "c" (U8, 10) in memory.
static bool write_checkpoint(const char *folder) {
    pb_checkpoint_writer *writer = NULL;
    pb_text map = {0};
    const char *path;
    char hex[2][PB_HASH_TEXT];
    static const uint64_t offsets[2] = {BLOCK, 3 * BLOCK}, bytes[2] = {2 * BLOCK - 2048, BLOCK};
    for (size_t i = 0; i < sizeof swap_bytes; i++) swap_bytes[i] = (unsigned char)(i * 7 + i / 251);
    for (int i = 0; i < 100; i++) memory_values[i] = (uint16_t)(3 * i);
    if (pb_checkpoint_begin(folder, 5, 1 << 16, &writer) != PB_OK) return false;
    bool good =
        (path = pb_checkpoint_add(writer, "trainer.json")) && pb_fs_write_file(path, "{\"step\": 5}", 11) == PB_OK;
    const pb_safetensors_array arrays[] = {{"b", PB_BF16, 1, {100}, memory_values}, {"c", PB_U8, 1, {10}, swap_bytes}};
    good = good && (path = pb_checkpoint_add(writer, PB_SAVED_MEMORY)) && pb_safetensors_save(path, arrays, 2) == PB_OK;
    const char *map_path = pb_checkpoint_add(writer, PB_SAVED_MAP);
    good = good && map_path && (path = pb_checkpoint_add_extents(writer, PB_SAVED_SWAP, PB_SAVED_MAP)) &&
           pb_fs_write_file(path, swap_bytes, sizeof swap_bytes) == PB_OK;
    const int fd = path ? open(path, O_RDONLY) : -1;
    for (int i = 0; i < 2; i++) good = good && pb_hash_range(fd, offsets[i], bytes[i], path, hex[i]) == PB_OK;
    if (fd >= 0) close(fd);
    pb_text_append(&map,
                   "{\"format\": \"pagebooth-state\", \"version\": 1, \"swap_bytes\": %d, \"extents\": ["
                   "{\"offset\": 4096, \"bytes\": 6144, \"xxh3_128\": \"%s\"}, "
                   "{\"offset\": 12288, \"bytes\": 4096, \"xxh3_128\": \"%s\"}], \"tensors\": ["
                   "{\"name\": \"b\", \"dtype\": \"BF16\", \"shape\": [3, 100], \"pieces\": "
                   "[{\"bytes\": 200, \"at\": 0}, {\"bytes\": 400, \"extent\": 0, \"at\": 5744}]}, "
                   "{\"name\": \"a\", \"dtype\": \"F32\", \"shape\": [1536], \"pieces\": "
                   "[{\"bytes\": 4096, \"extent\": 0, \"at\": 0}, {\"bytes\": 2048, \"extent\": 1, \"at\": 2048}]}, "
                   "{\"name\": \"c\", \"dtype\": \"U8\", \"shape\": [10], \"pieces\": [{\"bytes\": 10, \"at\": 0}]}]}",
                   SWAP_BYTES, hex[0], hex[1]);
    good = good && pb_fs_write_file(map_path, map.data, map.bytes) == PB_OK && pb_checkpoint_commit(writer) == PB_OK;
    if (!good) fprintf(stderr, "%s\n", pb_error_message());
    pb_text_deinit(&map);
    pb_checkpoint_end(writer);
    return good;
}

static void test_reading(const char *path) {
    pb_saved_state *state = NULL;
    unsigned char found[6144];
    CHECK(pb_saved_state_is_there(path) && !pb_saved_state_is_there("/"));
    CHECK_OK(pb_saved_state_open(path, &state));
    if (!state) return;
    CHECK(state->count == 3 && state->extent_count == 2 && state->swap_bytes == SWAP_BYTES);
    CHECK(!strcmp(state->tensors[0].name, "a") && !strcmp(state->tensors[2].name, "c"));
    CHECK_OK(pb_saved_state_verify(state));
    const pb_saved_tensor *a = pb_saved_state_find(state, "a"), *b = pb_saved_state_find(state, "b");
    CHECK(a && b && !pb_saved_state_find(state, "d") && a->bytes == 6144 && b->rank == 2 && b->dtype == PB_BF16);
    CHECK_OK(pb_saved_state_read(state, a, 0, 6144, found));
    CHECK(!memcmp(found, swap_bytes + BLOCK, 4096) && !memcmp(found + 4096, swap_bytes + 3 * BLOCK + 2048, 2048));
    CHECK_OK(pb_saved_state_read(state, a, 4000, 200, found));  // over the seam
    CHECK(!memcmp(found, swap_bytes + BLOCK + 4000, 96) && !memcmp(found + 96, swap_bytes + 3 * BLOCK + 2048, 104));
    CHECK_OK(pb_saved_state_read(state, b, 100, 500, found));
    CHECK(!memcmp(found, memory_values + 50, 100) && !memcmp(found + 100, swap_bytes + BLOCK + 5744, 400));
    CHECK_OK(pb_saved_state_read(state, a, 6144, 0, found));
    CHECK(pb_saved_state_read(state, a, 6100, 100, found) == PB_ERR_INTERNAL);
    pb_saved_state_close(state);
}

// What verifies and what is opened say "no" to every flipped bit, and crash at none.
static void test_map(const char *path) {
    char file[1100], text[4096];
    snprintf(file, sizeof file, "%s/" PB_SAVED_MAP, path);
    const int fd = open(file, O_RDWR);
    const ssize_t bytes = pread(fd, text, sizeof text, 0);
    int missed = 0, opened = 0;
    CHECK(bytes > 500);
    for (ssize_t i = 0; i < bytes; i++)
        for (int bit = 0; bit < 8; bit++) {
            const char flipped = (char)(text[i] ^ (1 << bit));
            pb_saved_state *state = NULL;
            if (pwrite(fd, &flipped, 1, i) != 1 || pb_checkpoint_verify(path) == PB_OK) missed++;
            if (pb_saved_state_open(path, &state) == PB_OK) {
                unsigned char found[6144];
                opened++;
                pb_saved_state_verify(state);
                for (size_t k = 0; k < state->count; k++)
                    if (state->tensors[k].bytes <= sizeof found)
                        pb_saved_state_read(state, &state->tensors[k], 0, state->tensors[k].bytes, found);
            }
            pb_saved_state_close(state);
            if (pwrite(fd, &text[i], 1, i) != 1) missed++;
        }
    CHECK_THAT(missed == 0, "%d flipped bits of the map went unnoticed", missed);
    CHECK(opened > 0);
    close(fd);
    CHECK_OK(pb_checkpoint_verify(path));
}

static void test_swap_bytes(const char *path) {
    char file[1100];
    snprintf(file, sizeof file, "%s/" PB_SAVED_SWAP, path);
    const int fd = open(file, O_RDWR);
    int missed = 0, wrong = 0;
    for (int i = 0; i < SWAP_BYTES; i += 13) {
        const unsigned char flipped = swap_bytes[i] ^ 16;
        const bool meant = (i >= BLOCK && i < BLOCK + 6144) || i >= 3 * BLOCK;
        if (pwrite(fd, &flipped, 1, i) != 1) missed++;
        if ((pb_checkpoint_verify(path) == PB_ERR_FORMAT) != meant) missed++;
        if (meant && (!strstr(pb_error_message(), file) || !strstr(pb_error_message(), "extent") ||
                      !strstr(pb_error_message(), "another checkpoint")))
            wrong++;
        if (pwrite(fd, &swap_bytes[i], 1, i) != 1) missed++;
    }
    CHECK_THAT(missed == 0 && wrong == 0, "%d flipped bytes went unnoticed, %d without a good message", missed, wrong);
    CHECK(!ftruncate(fd, SWAP_BYTES - 1) && pb_checkpoint_verify(path) == PB_ERR_FORMAT);
    CHECK(strstr(pb_error_message(), "bytes"));
    CHECK(!ftruncate(fd, SWAP_BYTES) && pwrite(fd, swap_bytes, SWAP_BYTES, 0) == SWAP_BYTES);
    CHECK_OK(pb_checkpoint_verify(path));
    close(fd);
    // A link, a FIFO, nothing.
    char moved[1100];
    pb_saved_state *state = NULL;
    snprintf(moved, sizeof moved, "%s", scratch_path("moved"));
    CHECK(!rename(file, moved) && !symlink(moved, file));
    CHECK(pb_saved_state_open(path, &state) == PB_ERR_IO && strstr(pb_error_message(), "symbolic link"));
    CHECK(pb_checkpoint_verify(path) != PB_OK);
    CHECK(!unlink(file) && !mkfifo(file, 0600));
    CHECK(pb_saved_state_open(path, &state) == PB_ERR_IO && strstr(pb_error_message(), "regular"));
    CHECK(!unlink(file) && pb_saved_state_open(path, &state) == PB_ERR_IO && !rename(moved, file));
    CHECK_OK(pb_checkpoint_verify(path));
}

// Maps that say what cannot be.
static void test_refusals(const char *path) {
#define HEAD "{\"format\": \"pagebooth-state\", \"version\": 1, \"swap_bytes\": 16384, \"extents\": "
#define HASH "\"xxh3_128\": \"0123456789abcdef0123456789abcdef\""
#define EXTENT "[{\"offset\": 0, \"bytes\": 4096, " HASH "}]"
#define TENSOR(shape, pieces) "[{\"name\": \"b\", \"dtype\": \"BF16\", \"shape\": " shape ", \"pieces\": " pieces "}]}"
    static const char *const maps[] = {
        "{}",
        "[]",
        "{\"format\": \"pagebooth-state\", \"version\": 2, \"tensors\": []}",
        "{\"format\": \"pagebooth-state\", \"version\": 1}",
        "{\"format\": \"pagebooth-state\", \"version\": 1, \"swap_bytes\": -1, \"tensors\": []}",
        "{\"format\": \"pagebooth-state\", \"version\": 1, \"swap_bytes\": 4096, \"tensors\": []}",
        "{\"format\": \"pagebooth-state\", \"version\": 1, \"extents\": " EXTENT ", \"tensors\": []}",
        HEAD "[{\"offset\": 12288, \"bytes\": 8192, " HASH "}], \"tensors\": []}",
        HEAD "[{\"offset\": 9223372036854775807, \"bytes\": 9223372036854775807, " HASH "}], \"tensors\": []}",
        HEAD "[{\"offset\": 0, \"bytes\": 4096, \"xxh3_128\": \"12\"}], \"tensors\": []}",
        HEAD "[{\"offset\": 0, \"bytes\": 0, " HASH "}], \"tensors\": []}",
        HEAD EXTENT ", \"tensors\": " TENSOR("[100]", "[{\"bytes\": 200, \"extent\": 1, \"at\": 0}]"),
        HEAD EXTENT ", \"tensors\": " TENSOR("[100]", "[{\"bytes\": 200, \"extent\": -1, \"at\": 0}]"),
        HEAD EXTENT ", \"tensors\": " TENSOR("[100]", "[{\"bytes\": 200, \"extent\": 0, \"at\": 4000}]"),
        HEAD EXTENT ", \"tensors\": " TENSOR("[100]", "[{\"bytes\": 200, \"extent\": 0, \"at\": 9223372036854775807}]"),
        HEAD EXTENT ", \"tensors\": " TENSOR("[100]", "[{\"bytes\": 100, \"extent\": 0, \"at\": 0}]"),
        HEAD EXTENT ", \"tensors\": " TENSOR("[100]", "[{\"bytes\": 200, \"at\": 1}]"),
        HEAD EXTENT ", \"tensors\": " TENSOR("[100]", "[]"),
        HEAD EXTENT ", \"tensors\": " TENSOR("[-100]", "[]"),
        HEAD EXTENT ", \"tensors\": " TENSOR("[4294967296, 4294967296]", "[]"),
        HEAD EXTENT ", \"tensors\": " TENSOR("[1,1,1,1,1,1,1,1,100]", "[{\"bytes\": 200, \"at\": 0}]"),
        HEAD EXTENT ", \"tensors\": [{\"name\": \"z\", \"dtype\": \"F32\", \"shape\": [1], \"pieces\": "
                    "[{\"bytes\": 4, \"at\": 0}]}]}",
        HEAD EXTENT ", \"tensors\": [{\"name\": \"z\", \"dtype\": \"F99\", \"shape\": [0], \"pieces\": []}]}",
        HEAD EXTENT ", \"tensors\": [{\"name\": \"z\", \"dtype\": \"F32\", \"shape\": [0], \"pieces\": []},"
                    "{\"name\": \"z\", \"dtype\": \"F32\", \"shape\": [0], \"pieces\": []}]}",
    };
    char file[1100];
    snprintf(file, sizeof file, "%s/" PB_SAVED_MAP, path);
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        pb_saved_state *state = NULL;
        CHECK_OK(pb_fs_write_file(file, maps[i], strlen(maps[i])));
        const pb_status status = pb_saved_state_open(path, &state);
        CHECK_THAT(status == PB_ERR_FORMAT && strstr(pb_error_message(), path), "map %zu: %d, %s", i, (int)status,
                   pb_error_message());
        pb_saved_state_close(state);
    }
}

int main(void) {
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 0);  // a disk's fsync is most of the time
    char path[1024];
    CHECK(!mkdir(scratch_path("out"), 0700) && write_checkpoint(scratch_path("out")));
    snprintf(path, sizeof path, "%s", scratch_path("out/checkpoint-5"));
    test_reading(path);
    test_map(path);
    test_swap_bytes(path);
    test_refusals(path);
    scratch_remove();
    return CHECK_DONE();
}
