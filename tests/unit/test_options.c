// test: links=cli,base
// The option parser, its messages, its help, and the nearest names.
#include "check.h"

#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/nearest.h"
#include "cli/options.h"

typedef struct parsed {
    const char *config, *output, *steps;
    bool verbose, done;
    pb_option_list sets, files;
    pb_status status;
} parsed;

// Parses a command line given as one string, words separated by single spaces ("_" stands for an empty word).
static parsed parse(const char *words) {
    static char storage[512];
    static char *argv[64];
    parsed result = {.steps = "50"};
    int argc = 0;
    snprintf(storage, sizeof storage, "%s", words);
    for (char *word = strtok(storage, " "); word; word = strtok(NULL, " "))
        argv[argc++] = strcmp(word, "_") ? word : "";
    const pb_positional positionals[] = {
        {.name = "CONFIG", .help = "The run's configuration.", .text = &result.config},
        {.name = "FILE", .help = "More.", .list = &result.files, .optional = true},
    };
    const pb_option options[] = {
        PB_OPTION_LIST("--set", "-s", "KEY=VALUE", &result.sets, "Overrides a key."),
        PB_OPTION_TEXT("--output", "-o", "DIR", &result.output, "Where to write."),
        PB_OPTION_TEXT("--steps", NULL, "N", &result.steps, "Steps of the sampler (50)."),
        PB_OPTION_FLAG("--verbose", "-v", &result.verbose, "Say more.\nMuch more."),
    };
    const pb_command_line line = {.summary = "Tests the parser.",
                                  .positionals = positionals,
                                  .positional_count = PB_COUNT_OF(positionals),
                                  .options = options,
                                  .option_count = PB_COUNT_OF(options),
                                  .epilogue = "Example: none"};
    pb_error_clear();
    result.status = pb_options_parse(&line, argc, argv, &result.done);
    return result;
}

static void check_refused(const char *words, const char *part) {
    parsed result = parse(words);
    CHECK_THAT(result.status == PB_ERR_USAGE, "accepted: %s", words);
    CHECK_THAT(strstr(pb_error_message(), part), "%s: `%s` is not in `%s`", words, part, pb_error_message());
}

static void test_parsing(void) {
    parsed p = parse("test c.yaml --set a=1 --set=b=2 -s c=3 --output=out --verbose x y -- --z");
    CHECK_OK(p.status);
    CHECK(!strcmp(p.config, "c.yaml") && !strcmp(p.output, "out") && !strcmp(p.steps, "50"));
    CHECK(p.verbose && !p.done);
    CHECK(p.sets.count == 3 && !strcmp(p.sets.item[0], "a=1") && !strcmp(p.sets.item[1], "b=2"));
    CHECK(!strcmp(p.sets.item[2], "c=3"));
    CHECK(p.files.count == 3 && !strcmp(p.files.item[0], "x") && !strcmp(p.files.item[2], "--z"));
    p = parse("test -5 --steps -3 -o - --steps 7");
    CHECK_OK(p.status);
    CHECK(!strcmp(p.config, "-5") && !strcmp(p.steps, "7") && !strcmp(p.output, "-"));
    p = parse("test c --output=");
    CHECK(p.status == PB_OK && !strcmp(p.output, ""));
}

static void test_refusals(void) {
    check_refused("test", "CONFIG is missing");
    check_refused("test c --ouput x", "unknown option --ouput: did you mean --output?");
    check_refused("test c --stpes=3", "did you mean --steps?");
    check_refused("test c --zebra", "pagebooth help test");
    check_refused("test c --output", "--output needs a value: DIR");
    check_refused("test c --verbose=yes", "takes no value");
    check_refused("test c -x", "unknown option -x");
}

// Runs the help with stdout in a file and looks for what a reader needs.
static void test_help(void) {
    char path[] = "/tmp/pagebooth-help-XXXXXX", text[4096] = "";
    int file = mkstemp(path), saved = dup(STDOUT_FILENO);
    CHECK(file >= 0 && saved >= 0);
    fflush(stdout);
    dup2(file, STDOUT_FILENO);
    parsed p = parse("test --help --nonsense");
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    CHECK(p.status == PB_OK && p.done);
    ssize_t bytes = pread(file, text, sizeof text - 1, 0);
    CHECK(bytes > 0);
    CHECK(strstr(text, "Usage: pagebooth test CONFIG [FILE...] [OPTION]...\n\nTests the parser.\n"));
    CHECK(strstr(text, "\n  -s, --set KEY=VALUE       Overrides a key.\n"));
    CHECK(strstr(text, "\n  -v, --verbose             Say more.\n                            Much more.\n"));
    CHECK(strstr(text, "\nExample: none\n"));
    close(file);
    close(saved);
    unlink(path);
}

static void test_values(void) {
    int64_t integer = 0;
    uint64_t seed = 0;
    double number = 0;
    int width = 0, height = 0, index = -1;
    CHECK(pb_parse_int("--n", "-12", -20, 20, &integer) == PB_OK && integer == -12);
    CHECK(pb_parse_uint64("--seed", "18446744073709551615", &seed) == PB_OK && seed == UINT64_MAX);
    CHECK(pb_parse_double("--scale", "1e-4", 0, 1, &number) == PB_OK && number == 1e-4);
    CHECK(pb_parse_extent("--size", "640x512", &width, &height) == PB_OK && width == 640 && height == 512);
    static const struct {
        const char *text;
        int64_t bytes;
    } amounts[] = {{"0", 0},           {"17", 17}, {"512MiB", 512 << 20}, {"1.5g", 3 << 29}, {"20 GiB", 20ll << 30},
                   {"2GB", 2000000000}};
    for (int i = 0; i < PB_COUNT_OF(amounts); i++) {
        CHECK_OK(pb_parse_bytes("--memory", amounts[i].text, &integer));
        CHECK_THAT(integer == amounts[i].bytes, "%s: %lld", amounts[i].text, (long long)integer);
    }
    static const char *const integers[] = {"", " 1", "1 ", "1x", "21", "-21", "99999999999999999999", "1.5", "0x5"};
    for (int i = 0; i < PB_COUNT_OF(integers); i++)
        CHECK_THAT(pb_parse_int("--n", integers[i], -20, 20, &integer) == PB_ERR_USAGE, "accepted: %s", integers[i]);
    static const char *const doubles[] = {"", "nan", "inf", "1e999", "-1", "2", "0.5x", " 0.5"};
    for (int i = 0; i < PB_COUNT_OF(doubles); i++)
        CHECK_THAT(pb_parse_double("--d", doubles[i], 0, 1, &number) == PB_ERR_USAGE, "accepted: %s", doubles[i]);
    static const char *const seeds[] = {"", "-1", "18446744073709551616", "1.0"};
    for (int i = 0; i < PB_COUNT_OF(seeds); i++)
        CHECK_THAT(pb_parse_uint64("--seed", seeds[i], &seed) == PB_ERR_USAGE, "accepted: %s", seeds[i]);
    static const char *const memory[] = {"", "-1", "GiB", "5 XB", "1e30", "nan", "9999999999999G"};
    for (int i = 0; i < PB_COUNT_OF(memory); i++)
        CHECK_THAT(pb_parse_bytes("--memory", memory[i], &integer) == PB_ERR_USAGE, "accepted: %s", memory[i]);
    static const char *const extents[] = {"",    "512",  "512x",  "x512",       "0x5",
                                          "5x0", "-5x5", "5x5x5", "99999999x1", "2000000x1"};
    for (int i = 0; i < PB_COUNT_OF(extents); i++)
        CHECK_THAT(pb_parse_extent("--size", extents[i], &width, &height) == PB_ERR_USAGE, "accepted: %s", extents[i]);
    static const char *const samplers[] = {"ddim", "pndm", "euler", "dpmpp2m"};
    CHECK(pb_parse_choice("--sampler", "euler", samplers, 4, &index) == PB_OK && index == 2);
    CHECK(pb_parse_choice("--sampler", "eular", samplers, 4, &index) == PB_ERR_USAGE);
    CHECK(strstr(pb_error_message(), "did you mean euler?"));
    CHECK(pb_parse_choice("--sampler", "xyzzy", samplers, 4, &index) == PB_ERR_USAGE);
    CHECK(strstr(pb_error_message(), "ddim, pndm, euler, dpmpp2m"));
}

static void test_nearest(void) {
    static const char *const keys[] = {"learning_rate", "lr_scheduler", "max_train_steps", "seed", NULL, "output_dir"};
    static const struct {
        const char *typed, *meant;
    } cases[] = {{"learning-rate", "learning_rate"},
                 {"learnig_rate", "learning_rate"},
                 {"Learning_Rate", "learning_rate"},
                 {"sede", "seed"},
                 {"max_train_step", "max_train_steps"},
                 {"output", "output_dir"},
                 {"lr_schedular", "lr_scheduler"},
                 {"zebra", NULL},
                 {"", NULL},
                 {"x", NULL}};
    for (int i = 0; i < PB_COUNT_OF(cases); i++) {
        const char *nearest = pb_nearest_name(cases[i].typed, keys, PB_COUNT_OF(keys));
        bool same = cases[i].meant ? nearest && !strcmp(nearest, cases[i].meant) : !nearest;
        CHECK_THAT(same, "%s: %s", cases[i].typed, nearest ? nearest : "none");
    }
    CHECK(pb_name_distance("abc", "acb") == 1 && pb_name_distance("", "abc") == 3 && pb_name_distance("a", "a") == 0);
    CHECK(pb_name_distance("kitten", "sitting") == 3);
    char longest[200];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    CHECK(pb_name_distance(longest, "x") == 62);
}

int main(void) {
    test_parsing();
    test_refusals();
    test_help();
    test_values();
    test_nearest();
    return CHECK_DONE();
}
