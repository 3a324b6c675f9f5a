// test: links=io,base
// Machine profiles: what is printed reads back as the same, the files in configs/machines are the built-in machines
// (run with --write after a change), and what is wrong in a file is named with its place and the nearest right thing.
// --read FILE|NAME reads one, for test_bench_profile.sh.
#include "check.h"

#include <stdlib.h>

#include "base/fs.h"
#include "io/machine_profile.h"

#define FOLDER PB_SOURCE "/configs/machines"
static const char heading[] = "# From published figures; docs/machines.md says which. `pagebooth plan --machine "
                              "NAME|FILE` takes the name or a copy\n"
                              "# of this file with what is known better. Bytes, seconds, and bytes per second.\n";

static bool same(const pb_machine *a, const pb_machine *b) {
    bool equal = strcmp(a->name, b->name) == 0 && memcmp(a->op, b->op, sizeof a->op) == 0;
    equal &= a->overhead == b->overhead && a->upload == b->upload && a->download == b->download;
    equal &= a->copy_both == b->copy_both && a->dram == b->dram && a->nvme_read == b->nvme_read;
    equal &= a->nvme_write == b->nvme_write && a->nvme_both == b->nvme_both && a->host_adamw == b->host_adamw;
    equal &= a->nvme_processors == b->nvme_processors;
    equal &= a->shared_cores == b->shared_cores && a->device_bytes == b->device_bytes;
    return equal && a->host_bytes == b->host_bytes && a->nvme_bytes == b->nvme_bytes;
}

static void test_round_trip(pb_arena *arena, const pb_machine *m) {
    pb_text text = {0};
    pb_machine again;
    pb_machine_profile_print(m, heading, &text);
    CHECK_OK(pb_machine_profile_parse(arena, text.data, text.bytes, "printed", &again));
    CHECK_THAT(same(m, &again), "%s reads back differently", m->name);
    pb_text_deinit(&text);
}

// Figures as a benchmark finds them, with all their digits, every op's its own.
static void test_measured(pb_arena *arena) {
    pb_machine m = *pb_machine_builtin("generic");
    uint32_t state = 1;
    for (int op = 0; op < PB_OP_COUNT; op++)
        for (int d = 0; d < PB_SPEED_DTYPES; d++) {
            state = state * 1664525u + 1013904223u;
            m.op[op][d].flops = 1e9 * (1 + (double)state / 3e9);
            m.op[op][d].bandwidth = 1e10 / (1 + (double)state / 7e9);
        }
    m.shared_cores = true;
    m.nvme_bytes = 0;
    m.nvme_read = m.nvme_write = m.nvme_both = 0;
    strcpy(m.name, "a \"name\": # with marks");
    test_round_trip(arena, &m);
    CHECK_OK(pb_machine_this(&m));
    CHECK(m.shared_cores && m.device_bytes > 1 << 20 && m.host_bytes == m.device_bytes);
    test_round_trip(arena, &m);
}

static char *profile_path(pb_arena *arena, const char *name) {
    return pb_arena_format(arena, "%s/%s.yaml", FOLDER, name);
}

static void test_files(pb_arena *arena) {
    const char **names = NULL;
    size_t count = 0, builtin = 0;
    for (const char *name; (name = pb_machine_builtin_name((int)builtin)); builtin++) {
        pb_machine file;
        pb_text text = {0};
        char *found = NULL;
        const pb_machine *m = pb_machine_builtin(name);
        CHECK_OK(pb_machine_profile_read(arena, profile_path(arena, name), &file));
        CHECK_THAT(same(m, &file), "configs/machines/%s.yaml is old; run test_machine_profile --write", name);
        pb_machine_profile_print(m, heading, &text);
        CHECK_OK(pb_fs_read_file(arena, profile_path(arena, name), 1 << 20, &found, NULL));
        CHECK_THAT(found && !strcmp(found, text.data), "configs/machines/%s.yaml is written differently", name);
        pb_text_deinit(&text);
        test_round_trip(arena, m);
    }
    CHECK_OK(pb_fs_list(arena, FOLDER, &names, &count));
    CHECK_THAT(count == builtin, "%zu files for %zu built-in machines", count, builtin);
}

// The generic machine's text with the first `from` replaced by `to` must fail with `message`.
static void rejects(pb_arena *arena, const char *from, const char *to, const char *message) {
    pb_text text = {0};
    pb_machine m;
    pb_machine_profile_print(pb_machine_builtin("generic"), "", &text);
    const char *at = strstr(text.data, from);
    CHECK_THAT(at, "the text has no %s", from);
    if (at) {
        const char *bad = pb_arena_format(arena, "%.*s%s%s", (int)(at - text.data), text.data, to, at + strlen(from));
        CHECK_THAT(pb_machine_profile_parse(arena, bad, strlen(bad), "bad.yaml", &m) == PB_ERR_FORMAT, "%s was taken",
                   to);
        CHECK_THAT(strstr(pb_error_message(), message), "%s: the message is: %s", to, pb_error_message());
        CHECK_THAT(!strncmp(pb_error_message(), "bad.yaml:", 9), "no place in: %s", pb_error_message());
    }
    pb_text_deinit(&text);
}

static void test_errors(pb_arena *arena) {
    rejects(arena, "upload:", "uplaod:", "unknown key `uplaod`: did you mean `upload`?");
    rejects(arena, "upload: 25e9", "upload: fast", "`upload` must be a number from 1000 to 1e+15");
    rejects(arena, "upload: 25e9", "upload: 0", "`upload` must be a number");
    rejects(arena, "upload: 25e9", "upload: -5", "`upload` must be a number");
    rejects(arena, "upload: 25e9", "upload: 1e400", "`upload` must be a number");
    rejects(arena, "upload: 25e9", "upload: [1, 2]", "`upload` must be a number");
    rejects(arena, "upload: 25e9  # host to device, alone; bytes per second\n", "", "`upload` is missing");
    rejects(arena, "download: 25e9", "upload: 25e9", "upload");
    rejects(arena, "overhead: 4e-6", "overhead: 2", "`overhead` must be a number from 0 to 1");
    rejects(arena, "shared_cores: false", "shared_cores: maybe", "`shared_cores` must be true or false");
    rejects(arena, "nvme_bytes: 1000000000000", "nvme_bytes: 1.5", "whole number of bytes");
    rejects(arena, "nvme_bytes: 1000000000000", "nvme_bytes: 2e18", "`nvme_bytes` must be a number");
    rejects(arena, "nvme_read: 5e9", "nvme_read: 0", "must be 1000 or more");
    rejects(arena, "  attention:", "  atention:", "unknown op `atention`: did you mean `attention`?");
    rejects(arena, "fp16:", "f16:", "unknown dtype `f16`: did you mean `fp16`?");
    rejects(arena, "fp16: [", "fp16: [1e9, ", "must be two numbers");
    rejects(arena, "  all:", "  linear:", "`ops` lacks linear_bwd_data");
    rejects(arena, "name: \"generic\"", "name: \"\"", "`name` must be a name");
    rejects(arena, "name: \"generic\"", "name: \"0123456789012345678901234567890123456789012345678901234567890123\"",
            "at most 63 bytes");
}

static void test_find(pb_arena *arena) {
    pb_machine m;
    CHECK_OK(pb_machine_find(arena, "rtx3060", &m));
    CHECK(same(&m, pb_machine_builtin("rtx3060")));
    CHECK_OK(pb_machine_find(arena, profile_path(arena, "h200"), &m));
    CHECK(same(&m, pb_machine_builtin("h200")));
    CHECK_OK(pb_machine_find(arena, NULL, &m));
    CHECK(!strcmp(m.name, "this"));
    CHECK(pb_machine_find(arena, "rtx3o90", &m) == PB_ERR_USAGE);
    CHECK_THAT(strstr(pb_error_message(), "did you mean `rtx3090`?") && strstr(pb_error_message(), "h200"), "%s",
               pb_error_message());
    CHECK(pb_machine_find(arena, "no/such.yaml", &m) == PB_ERR_IO);
}

static int write_files(pb_arena *arena) {
    for (int i = 0; pb_machine_builtin_name(i); i++) {
        const char *name = pb_machine_builtin_name(i);
        if (pb_machine_profile_write(profile_path(arena, name), heading, pb_machine_builtin(name)) != PB_OK) {
            fprintf(stderr, "%s\n", pb_error_message());
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    pb_arena *arena = pb_arena_create();
    if (argc == 2 && !strcmp(argv[1], "--write")) return write_files(arena);
    if (argc == 3 && !strcmp(argv[1], "--read")) {
        pb_machine m;
        CHECK_OK(pb_machine_find(arena, argv[2], &m));
        printf("%s: %.4g GB/s up, linear %.4g GFLOP/s in fp32\n", m.name, 1e-9 * m.upload,
               1e-9 * m.op[PB_OP_LINEAR][PB_SPEED_F32].flops);
        test_round_trip(arena, &m);
        pb_arena_destroy(arena);
        return CHECK_DONE();
    }
    test_files(arena);
    test_measured(arena);
    test_errors(arena);
    test_find(arena);
    pb_arena_destroy(arena);
    return CHECK_DONE();
}
