// test: links=io,base
// What is written when the disk fills up, on a file system of 256 KiB that only this process sees: an error that names
// the file and the remedy, the old file as it was, and nothing half written.
#include "check.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include "io/model_dir.h"
#include "scratch.h"

enum { DISK_BYTES = 256 * 1024 };

static char data[DISK_BYTES];
static pb_arena *arena;

static bool mount_small_disk(const char *path) {
    if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS)) return false;
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    return mount("tmpfs", path, "tmpfs", 0, "size=256k") == 0;
}

static size_t entries(const char *path) {
    const char **names;
    size_t count = 0;
    CHECK_OK(pb_fs_list(arena, path, &names, &count));
    return count;
}

static bool says_what_to_do(pb_status status, const char *file) {
    const bool right =
        status == PB_ERR_IO && strstr(pb_error_message(), file) && strstr(pb_error_message(), "free some space");
    if (!right) fprintf(stderr, "status %d: %s\n", (int)status, pb_error_message());
    return right;
}

static void test_file(const char *disk) {
    const char *path = scratch_path("disk/file");
    CHECK_OK(pb_fs_write_file(path, "old", 3));
    CHECK(says_what_to_do(pb_fs_write_file(path, data, sizeof data), "disk/file"));
    char *text = NULL;
    CHECK_OK(pb_fs_read_file(arena, path, 10, &text, NULL));
    CHECK(text && strcmp(text, "old") == 0 && entries(disk) == 1);
    CHECK_OK(pb_fs_write_file(scratch_path("large"), data, sizeof data));
    CHECK(says_what_to_do(pb_fs_copy_file(scratch_path("large"), scratch_path("disk/copy")), "disk/copy"));
    CHECK(entries(disk) == 1);
    CHECK_OK(pb_fs_remove(path));
}

static void test_tensors(const char *disk) {
    const char *path = scratch_path("disk/a.safetensors");
    // Refused before the first byte where the space is not there to begin with.
    const pb_safetensors_array whole = {"a", PB_U8, 1, {sizeof data}, data};
    CHECK(says_what_to_do(pb_safetensors_save(path, &whole, 1), "a.safetensors"));
    CHECK(strstr(pb_error_message(), "needs") && entries(disk) == 0);
    // It goes to somebody else meanwhile.
    pb_safetensors_writer *writer = NULL;
    CHECK_OK(pb_safetensors_writer_create(&writer));
    CHECK_OK(pb_safetensors_writer_declare(writer, "a", PB_U8, 1, (int64_t[]){150000}));
    CHECK_OK(pb_safetensors_writer_open(writer, path));
    CHECK_OK(pb_safetensors_writer_write(writer, data, 50000));
    CHECK_OK(pb_fs_write_file(scratch_path("disk/other"), data, 150000));
    CHECK(says_what_to_do(pb_safetensors_writer_write(writer, data, 100000), "a.safetensors"));
    pb_safetensors_writer_destroy(writer);
    CHECK(entries(disk) == 1);
    CHECK_OK(pb_fs_remove(scratch_path("disk/other")));
}

static void test_pipeline(const char *disk) {
    CHECK_OK(pb_fs_make_directories(scratch_path("model/unet")));
    CHECK_OK(pb_fs_make_directories(scratch_path("model/vae")));
    CHECK_OK(pb_fs_write_file(scratch_path("model/unet/config.json"), "{}", 2));
    CHECK_OK(pb_fs_write_file(scratch_path("model/vae/diffusion_pytorch_model.safetensors"), data, sizeof data));
    pb_model_dir *model = NULL;
    pb_model_writer *writer = NULL;
    const bool replaced[PB_PART_COUNT] = {[PB_PART_UNET] = true};
    CHECK_OK(pb_model_dir_open(scratch_path("model"), NULL, &model));
    CHECK(says_what_to_do(pb_model_writer_begin(model, scratch_path("disk/out"), replaced, &writer),
                          "diffusion_pytorch_model"));
    CHECK(writer == NULL && entries(scratch_path("disk/out")) == 0);
    CHECK(entries(disk) == 1);
    pb_model_dir_close(model);
}

int main(void) {
    arena = pb_arena_create();
    const char *disk = pb_arena_string(arena, scratch_path("disk"));  // it outlives the buffer
    CHECK_OK(pb_fs_make_directories(disk));
    if (!mount_small_disk(disk)) {
        scratch_remove();
        pb_arena_destroy(arena);
        return SKIP("no right to mount a small file system");
    }
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 7);
    test_file(disk);
    test_tensors(disk);
    test_pipeline(disk);
    umount(disk);
    scratch_remove();
    pb_arena_destroy(arena);
    return CHECK_DONE();
}
