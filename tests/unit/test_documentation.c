// test: links=io,base
// What is written down is what the program does: docs/configuration.md is made from the table of keys (run this program
// with --write after a change of the table), and every configuration in configs/ is read, checked, printed and read
// again.
#include "check.h"

#include "base/fs.h"
#include "io/run_config.h"

#define DOCUMENT PB_SOURCE "/docs/configuration.md"

static void make_document(pb_text *text) {
    pb_text_append(
        text, "%s",
        "# The configuration of a run\n\n"
        "`pagebooth train CONFIG.yaml [--set key=value]...` reads these keys. Most are those of diffusers'\n"
        "`train_dreambooth.py`, with its names and defaults; a key of a group is written `group.key` on the\n"
        "command line and indented under the group in the file. (This page is made from the program's own\n"
        "table, `src/io/config.def`; a test keeps the two the same.)\n\n");
    pb_config_document(text);
}

static void test_document(void) {
    pb_text expected = {0};
    pb_arena *arena = pb_arena_create();
    char *found = NULL;
    make_document(&expected);
    CHECK(!expected.failed && expected.bytes > 1000);
    CHECK_OK(pb_fs_read_file(arena, DOCUMENT, 1 << 20, &found, NULL));
    CHECK_THAT(found && !strcmp(found, expected.data), "docs/configuration.md is old; run test_documentation --write");
    pb_text_deinit(&expected);
    pb_arena_destroy(arena);
}

// The README shows configs/my_subject.yaml in full.
static void test_readme(void) {
    pb_arena *arena = pb_arena_create();
    char *readme = NULL, *example = NULL;
    CHECK_OK(pb_fs_read_file(arena, PB_SOURCE "/README.md", 1 << 20, &readme, NULL));
    CHECK_OK(pb_fs_read_file(arena, PB_SOURCE "/configs/my_subject.yaml", 1 << 20, &example, NULL));
    CHECK_THAT(readme && example && strstr(readme, example), "README.md has another configs/my_subject.yaml");
    pb_arena_destroy(arena);
}

static void check_configuration(const char *path) {
    pb_arena *arena = pb_arena_create();
    pb_config config, again;
    pb_text first = {0}, second = {0};
    CHECK_OK(pb_config_load(arena, path, NULL, 0, &config));
    CHECK_THAT(config.note_count == 0, "%s: %s", path, config.note_count ? config.notes[0] : "");
    pb_config_print(&config, &first);
    CHECK_OK(pb_config_init(arena, &again));
    CHECK_OK(pb_config_read(&again, first.data, first.bytes, "printed"));
    CHECK_OK(pb_config_check(&again));
    pb_config_print(&again, &second);
    CHECK_THAT(first.data && second.data && !strcmp(first.data, second.data), "%s: prints differently", path);
    pb_text_deinit(&first);
    pb_text_deinit(&second);
    pb_arena_destroy(arena);
}

static void test_configurations(void) {
    pb_arena *arena = pb_arena_create();
    const char **names = NULL;
    size_t count = 0, found = 0;
    CHECK_OK(pb_fs_list(arena, PB_SOURCE "/configs", &names, &count));
    for (size_t i = 0; i < count; i++) {
        if (!strstr(names[i], ".yaml")) continue;
        found++;
        check_configuration(pb_fs_join(arena, PB_SOURCE "/configs", names[i]));
    }
    CHECK(found >= 5);
    pb_arena_destroy(arena);
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "--write")) {
        pb_text text = {0};
        make_document(&text);
        const pb_status status = pb_fs_write_file(DOCUMENT, text.data, text.bytes);
        if (status != PB_OK) fprintf(stderr, "%s\n", pb_error_message());
        pb_text_deinit(&text);
        return status != PB_OK;
    }
    test_document();
    test_readme();
    test_configurations();
    return CHECK_DONE();
}
