// test: links=train,base timeout=300
// The checkpoint protocol: what is committed can be read back, whatever is damaged is noticed, what is half written is
// never taken for a checkpoint, and the newest are the ones that stay.
#include "train/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "scratch.h"

static bool write_checkpoint(const char *folder, int64_t step, int64_t run) {
    pb_checkpoint_writer *writer = NULL;
    if (pb_checkpoint_begin(folder, step, 4096, &writer) != PB_OK) return false;
    char json[64];
    const int bytes = snprintf(json, sizeof json, "{\"run\": %lld, \"step\": %lld}", (long long)run, (long long)step);
    const char *state = pb_checkpoint_add(writer, "trainer.json");
    bool good = state && pb_fs_write_file(state, json, (size_t)bytes) == PB_OK;
    const char *weights = pb_checkpoint_add(writer, "unet/weights.bin");
    good = good && weights && pb_fs_write_file(weights, "0123456789abcdef", 16) == PB_OK;
    good = good && pb_checkpoint_commit(writer) == PB_OK;
    pb_checkpoint_end(writer);
    return good;
}

// Steps of the checkpoints in `folder`, the newest first, as a text.
static const char *listed(const char *folder) {
    static char text[128];
    pb_arena *arena = pb_arena_create();
    pb_checkpoint_entry *entries;
    size_t count = 0, used = 0;
    text[0] = 0;
    if (!arena || pb_checkpoint_list(arena, folder, &entries, &count) != PB_OK) snprintf(text, sizeof text, "error");
    for (size_t i = 0; i < count; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, i ? " %lld" : "%lld", (long long)entries[i].step);
    pb_arena_destroy(arena);
    return text;
}

static void check_damage(const char *folder) {
    char path[1100], manifest[4096];
    snprintf(path, sizeof path, "%s/checkpoint-3/manifest.json", folder);
    const int fd = open(path, O_RDWR);
    const ssize_t bytes = pread(fd, manifest, sizeof manifest, 0);
    CHECK(bytes > 100);
    snprintf(path, sizeof path, "%s/checkpoint-3", folder);
    int missed = 0;
    for (ssize_t i = 0; i < bytes; i++)
        for (int bit = 0; bit < 8; bit++) {
            const char flipped = (char)(manifest[i] ^ (1 << bit));
            if (pwrite(fd, &flipped, 1, i) != 1 || pb_checkpoint_verify(path) == PB_OK) missed++;
            if (pwrite(fd, &manifest[i], 1, i) != 1) missed++;
        }
    CHECK_THAT(missed == 0, "%d flipped bits of the manifest went unnoticed", missed);
    close(fd);
    CHECK_OK(pb_checkpoint_verify(path));

    char weights[1200];
    snprintf(weights, sizeof weights, "%s/unet/weights.bin", path);
    CHECK(truncate(weights, 15) == 0);
    CHECK(pb_checkpoint_verify(path) == PB_ERR_FORMAT);
    CHECK(pb_checkpoint_look(path) == PB_ERR_FORMAT);
    CHECK(strstr(pb_error_message(), "weights.bin") != NULL);
    CHECK_OK(pb_fs_write_file(weights, "0123456789abcdeF", 16));
    CHECK(pb_checkpoint_verify(path) == PB_ERR_FORMAT);
    CHECK(pb_checkpoint_look(path) == PB_ERR_FORMAT);  // small files are hashed even so
    CHECK_OK(pb_fs_write_file(weights, "0123456789abcdef", 16));
    CHECK_OK(pb_checkpoint_verify(path));
    CHECK_OK(pb_checkpoint_look(path));
    CHECK_OK(pb_fs_remove(weights));
    CHECK(pb_checkpoint_verify(path) != PB_OK);
}

static void check_abandoned(const char *folder) {
    pb_checkpoint_writer *writer = NULL;
    CHECK_OK(pb_checkpoint_begin(folder, 9, 4096, &writer));
    const char *path = pb_checkpoint_add(writer, "trainer.json");
    CHECK(path != NULL);
    CHECK_OK(pb_fs_write_file(path, "{}", 2));
    CHECK(strcmp(listed(folder), "7 5") == 0);  // as a kill would leave it
    pb_checkpoint_end(writer);
    CHECK(pb_fs_kind_of(path) == PB_FS_NONE);
    CHECK(pb_checkpoint_begin(folder, 9, UINT64_MAX / 4, &writer) == PB_ERR_IO);
    CHECK(strcmp(listed(folder), "7 5") == 0);
}

int main(void) {
    const char *folder = scratch_path("out");
    CHECK(strcmp(listed(folder), "") == 0);
    CHECK_OK(pb_fs_make_directories(folder));
    for (int64_t step = 1; step <= 7; step += 2)
        CHECK_THAT(write_checkpoint(folder, step, 1), "%s", pb_error_message());
    CHECK(strcmp(listed(folder), "7 5 3 1") == 0);
    check_damage(folder);

    CHECK_OK(pb_fs_make_directories(scratch_path("out/.partial-checkpoint-8")));
    CHECK_OK(pb_fs_make_directories(scratch_path("out/checkpoint-x")));
    CHECK_OK(pb_checkpoint_prune(folder, 2));
    CHECK(strcmp(listed(folder), "7 5") == 0);
    CHECK(pb_fs_kind_of(scratch_path("out/.partial-checkpoint-8")) == PB_FS_NONE);
    CHECK(pb_fs_kind_of(scratch_path("out/checkpoint-x")) == PB_FS_DIRECTORY);
    CHECK_OK(pb_checkpoint_prune(folder, 0));
    CHECK(strcmp(listed(folder), "7 5") == 0);
    check_abandoned(folder);

    // A run that began later has the newer checkpoints, whatever their numbers; a name in use is taken over.
    CHECK(write_checkpoint(folder, 2, 2));
    CHECK(write_checkpoint(folder, 5, 2));
    CHECK(strcmp(listed(folder), "5 2 7") == 0);
    CHECK_OK(pb_checkpoint_verify(scratch_path("out/checkpoint-5")));
    CHECK_OK(pb_checkpoint_prune(folder, 2));
    CHECK(strcmp(listed(folder), "5 2") == 0);
    scratch_remove();
    return CHECK_DONE();
}
