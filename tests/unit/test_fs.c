// test: links=base
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scratch.h"

static pb_arena *arena;

static bool holds(const char *path, const char *text) {
    char *data = NULL;
    size_t bytes = 0;
    return pb_fs_read_file(arena, path, 1 << 20, &data, &bytes) == PB_OK && bytes == strlen(text) &&
           memcmp(data, text, bytes + 1) == 0;
}

static size_t entries(const char *path) {
    const char **names;
    size_t count = 0;
    CHECK_OK(pb_fs_list(arena, path, &names, &count));
    return count;
}

static bool message_has(const char *text) {
    return strstr(pb_error_message(), text) != NULL;
}

static void test_paths(void) {
    CHECK(strcmp(pb_fs_join(arena, "a", "b"), "a/b") == 0 && strcmp(pb_fs_join(arena, "a/", "b"), "a/b") == 0);
    CHECK(strcmp(pb_fs_join(arena, "", "b"), "b") == 0 && strcmp(pb_fs_join(arena, "a", "/b"), "/b") == 0);
    static const char *const parents[][2] = {{"a/b", "a"},  {"a", "."},    {"/a", "/"},      {"/", "/"},
                                             {"a/b/", "a"}, {"a//b", "a"}, {"/a/b//", "/a"}, {"", "."}};
    for (size_t i = 0; i < sizeof parents / sizeof *parents; i++)
        CHECK_THAT(strcmp(pb_fs_parent(arena, parents[i][0]), parents[i][1]) == 0, "parent of %s", parents[i][0]);
    CHECK(strcmp(pb_fs_base_name("a/b.c"), "b.c") == 0 && strcmp(pb_fs_base_name("b"), "b") == 0);
    CHECK(pb_fs_name_is_plain("a") && pb_fs_name_is_plain("..."));
    CHECK(!pb_fs_name_is_plain("") && !pb_fs_name_is_plain(".") && !pb_fs_name_is_plain("..") &&
          !pb_fs_name_is_plain("a/b"));
}

static void test_writing(void) {
    const char *path = scratch_path("out");
    CHECK_OK(pb_fs_make_directories(path));
    path = scratch_path("out/file");
    const mode_t old_mask = umask(0);
    CHECK_OK(pb_fs_write_file(path, "one", 3));
    umask(old_mask);
    struct stat info;
    CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0644);
    CHECK(holds(path, "one"));
    CHECK_OK(pb_fs_write_file(path, "two", 3));
    CHECK(holds(path, "two"));
    // A name may be as long as the system takes it, the temporary one beside it no longer.
    char longest[300];
    memset(longest, 'x', sizeof longest);
    snprintf(longest + 255, 2, "%s", "");
    CHECK_OK(pb_fs_write_file(pb_fs_join(arena, scratch_path("out"), longest), "long", 4));
    CHECK_OK(pb_fs_remove(pb_fs_join(arena, scratch_path("out"), longest)));
    // What a stranger has put into a name stays within the message's line.
    pb_error(PB_ERR_IO, "%s", "a\x1b[2J\nb\x7f\xff\xc2\x9b \xc3\xbc");
    CHECK(strcmp(pb_error_message(), "a\\x1b[2J\\nb\\x7f\\xff\\xc2\\x9b \xc3\xbc") == 0);
    pb_error_context(PB_ERR_IO, "%s", "c\rd");
    CHECK(strncmp(pb_error_message(), "c\\x0dd: a\\x1b", 12) == 0);
    // An abandoned output leaves the old file and nothing else.
    pb_fs_output output;
    CHECK_OK(pb_fs_output_open(&output, path));
    CHECK_OK(pb_fs_output_write(&output, "half", 4));
    CHECK(entries(scratch_path("out")) == 2);
    pb_fs_output_discard(&output);
    CHECK(holds(path, "two") && entries(scratch_path("out")) == 1);
    CHECK_OK(pb_fs_output_open(&output, path));
    CHECK_OK(pb_fs_output_write(&output, "three", 5));
    char *temporary = NULL;
    CHECK_OK(pb_fs_output_detach(&output, &temporary));
    CHECK(temporary && holds(temporary, "three") && holds(path, "two"));
    if (temporary) unlink(temporary);
    free(temporary);
    // A hard link to the old file keeps the old bytes.
    CHECK(link(path, scratch_path("out/other")) == 0);
    CHECK_OK(pb_fs_write_file(path, "four", 4));
    CHECK(holds(path, "four") && holds(scratch_path("out/other"), "two"));
    CHECK(pb_fs_write_file(scratch_path("absent/file"), "x", 1) == PB_ERR_IO && message_has("absent"));
}

// What is planted at an output path is neither written through nor replaced.
static void test_planted(void) {
    CHECK_OK(pb_fs_make_directories(scratch_path("planted/directory")));
    CHECK_OK(pb_fs_write_file(scratch_path("planted/victim"), "safe", 4));
    CHECK(symlink(scratch_path("planted/victim"), scratch_path("planted/link")) == 0);
    CHECK(symlink("nowhere", scratch_path("planted/dangling")) == 0);
    CHECK(mkfifo(scratch_path("planted/fifo"), 0600) == 0);
    static const char *const names[] = {"planted/link", "planted/dangling", "planted/fifo", "planted/directory"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        CHECK_THAT(pb_fs_write_file(scratch_path(names[i]), "x", 1) == PB_ERR_IO && message_has(names[i]), "%s",
                   names[i]);
    CHECK(holds(scratch_path("planted/victim"), "safe") && entries(scratch_path("planted")) == 5);
    // Planted between open and commit.
    pb_fs_output output;
    CHECK_OK(pb_fs_output_open(&output, scratch_path("planted/late")));
    CHECK(symlink(scratch_path("planted/victim"), scratch_path("planted/late")) == 0);
    CHECK(pb_fs_output_commit(&output) == PB_ERR_IO);
    CHECK(holds(scratch_path("planted/victim"), "safe") && entries(scratch_path("planted")) == 6);
    CHECK(pb_fs_copy_file(scratch_path("planted/victim"), scratch_path("planted/link")) == PB_ERR_IO);
}

static void test_reading(void) {
    char *data = NULL;
    size_t bytes = 0;
    int fd = -1;
    uint64_t size = 0;
    CHECK(pb_fs_read_file(arena, scratch_path("absent"), 10, &data, &bytes) == PB_ERR_IO && message_has("absent"));
    CHECK(pb_fs_read_file(arena, scratch_path("planted/fifo"), 10, &data, &bytes) == PB_ERR_IO &&
          message_has("special file"));
    CHECK(pb_fs_read_file(arena, scratch_path("planted"), 10, &data, &bytes) == PB_ERR_IO &&
          message_has("a directory"));
    CHECK(pb_fs_read_file(arena, "/dev/zero", 10, &data, &bytes) == PB_ERR_IO);
    CHECK(pb_fs_read_file(arena, scratch_path("planted/victim"), 3, &data, &bytes) == PB_ERR_FORMAT);
    CHECK_OK(pb_fs_read_file(arena, scratch_path("planted/link"), 4, &data, NULL));
    CHECK_OK(pb_fs_write_file(scratch_path("empty"), "", 0));
    CHECK_OK(pb_fs_read_file(arena, scratch_path("empty"), 0, &data, &bytes));
    CHECK(bytes == 0 && data[0] == '\0');
    CHECK_OK(pb_fs_open_read(scratch_path("planted/victim"), &fd, &size));
    char part[8];
    CHECK_OK(pb_fs_pread(fd, part, 2, 2, "victim"));
    CHECK(size == 4 && memcmp(part, "fe", 2) == 0);
    CHECK(pb_fs_pread(fd, part, 3, 2, "victim") == PB_ERR_IO && message_has("victim ends at byte 4"));
    CHECK(pb_fs_pwrite(fd, "x", 1, 0, "victim") == PB_ERR_IO);
    close(fd);
    CHECK(pb_fs_pread(-1, part, 1, 0, "closed") == PB_ERR_IO);
    CHECK(pb_fs_kind_of(scratch_path("planted/fifo")) == PB_FS_OTHER &&
          pb_fs_kind_of(scratch_path("absent")) == PB_FS_NONE);
}

static void test_full_disk(void) {
    const int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(pb_fs_write(fd, "x", 1, "the file") == PB_ERR_IO && message_has("the file") &&
          message_has("free some space"));
    close(fd);
    CHECK_OK(pb_fs_require_space(scratch_path("not/there/yet"), 1, "a test"));
    CHECK(pb_fs_require_space(scratch_path("not/there/yet"), UINT64_MAX, "a test") == PB_ERR_IO &&
          message_has("a test needs"));
    CHECK(pb_fs_require_space("", 1, "a test") == PB_OK || message_has("look at"));
}

static void test_nearest(void) {
    const char *place = NULL;
    uint64_t bytes = 0;
    CHECK_OK(pb_fs_make_directories(scratch_path("near/by")));
    CHECK_OK(pb_fs_nearest(arena, scratch_path("near/by/not/there"), &place));
    CHECK(place && strcmp(place, scratch_path("near/by")) == 0);
    CHECK_OK(pb_fs_nearest(arena, scratch_path("near"), &place));
    CHECK(place && strcmp(place, scratch_path("near")) == 0);
    CHECK_OK(pb_fs_write_file(scratch_path("near/by/file"), "12345", 5));
    CHECK(pb_fs_nearest(arena, scratch_path("near/by/file/below"), &place) == PB_ERR_IO);
    CHECK_OK(pb_fs_tree_bytes(scratch_path("near"), &bytes));
    CHECK(bytes == 5);
    CHECK(symlink("nowhere", scratch_path("near/link")) == 0);
    CHECK(pb_fs_tree_bytes(scratch_path("near"), &bytes) == PB_ERR_IO && message_has("leads nowhere"));
}

static void test_trees(void) {
    CHECK_OK(pb_fs_make_directories(scratch_path("tree/a/b/c")));
    CHECK_OK(pb_fs_make_directories(scratch_path("tree/a/b/c")));
    CHECK_OK(pb_fs_make_directories(scratch_path("tree//a/b/")));
    CHECK_OK(pb_fs_write_file(scratch_path("tree/a/b/z"), "zz", 2));
    CHECK(pb_fs_make_directories(scratch_path("tree/a/b/z/y")) == PB_ERR_IO && message_has("no directory"));
    CHECK(symlink("z", scratch_path("tree/a/b/y")) == 0);
    CHECK(pb_fs_copy_file(scratch_path("tree/a/b/z"), scratch_path("tree/a/b/z")) == PB_ERR_IO);
    CHECK(pb_fs_copy_file(scratch_path("absent"), scratch_path("tree/new")) == PB_ERR_IO);
    CHECK(pb_fs_kind_of(scratch_path("tree/new")) == PB_FS_NONE);
    CHECK_OK(pb_fs_copy_tree(scratch_path("tree"), scratch_path("copy")));
    CHECK(holds(scratch_path("copy/a/b/z"), "zz") && holds(scratch_path("copy/a/b/y"), "zz"));
    CHECK(pb_fs_kind_of(scratch_path("copy/a/b/c")) == PB_FS_DIRECTORY);
    struct stat info;
    CHECK(lstat(scratch_path("copy/a/b/y"), &info) == 0 && S_ISREG(info.st_mode));
    CHECK(symlink(".", scratch_path("tree/a/loop")) == 0);
    CHECK(pb_fs_copy_tree(scratch_path("tree"), scratch_path("endless")) == PB_ERR_IO && message_has("deep"));
    const char **names;
    size_t count = 0;
    CHECK_OK(pb_fs_list(arena, scratch_path("copy/a/b"), &names, &count));
    CHECK(count == 3 && strcmp(names[0], "c") == 0 && strcmp(names[1], "y") == 0 && strcmp(names[2], "z") == 0);
    CHECK(pb_fs_list(arena, scratch_path("absent"), &names, &count) == PB_ERR_IO);
    // Removal goes through no link.
    CHECK(symlink(scratch_path("copy"), scratch_path("tree/out")) == 0);
    CHECK_OK(pb_fs_remove(scratch_path("tree")));
    CHECK(pb_fs_kind_of(scratch_path("tree")) == PB_FS_NONE && holds(scratch_path("copy/a/b/z"), "zz"));
    CHECK_OK(pb_fs_remove(scratch_path("tree")));
    CHECK_OK(pb_fs_remove(scratch_path("copy/a/b/z")));
    CHECK(pb_fs_kind_of(scratch_path("copy/a/b/z")) == PB_FS_NONE);
    CHECK_OK(pb_fs_rename(scratch_path("copy"), scratch_path("moved")));
    CHECK(pb_fs_rename(scratch_path("copy"), scratch_path("moved")) == PB_ERR_IO);
    CHECK(pb_fs_sync_directory(scratch_path("absent")) == PB_ERR_IO);
}

// Blocks of a megabyte and a rest.
static void test_large_copy(void) {
    const size_t bytes = (3u << 20) + 17;
    char *data = malloc(bytes), *back = NULL;
    for (size_t i = 0; i < bytes; i++) data[i] = (char)(i * 2654435761u >> 13);
    CHECK_OK(pb_fs_write_file(scratch_path("large"), data, bytes));
    CHECK_OK(pb_fs_copy_file(scratch_path("large"), scratch_path("large2")));
    size_t got = 0;
    CHECK_OK(pb_fs_read_file(arena, scratch_path("large2"), bytes, &back, &got));
    CHECK(got == bytes && memcmp(data, back, bytes) == 0);
    free(data);
}

int main(void) {
    arena = pb_arena_create();
    test_paths();
    test_writing();
    test_planted();
    test_reading();
    test_full_disk();
    test_nearest();
    test_trees();
    test_large_copy();
    scratch_remove();
    pb_arena_destroy(arena);
    return CHECK_DONE();
}
