// Runs a fuzz target without libFuzzer: first every file of the corpus, then mutations of them, the same ones for the
// same seed. `make test` gives each target a few seconds of it; long campaigns are libFuzzer's (`make fuzz`).
//
//     fuzz_NAME [--seconds S] [--executions N] [--seed K] [--keep FILE] CORPUS_FILE_OR_DIRECTORY...
//
// Fails on a crash, on an input that takes more than a second of processor time and, where no sanitizer is in the way,
// on more than 512 MiB of memory. The input at fault is written to FILE (default: fuzz-failure.bin).
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

enum { INPUTS_MAX = 4096, INPUT_BYTES_MAX = 1 << 20, HANG_SECONDS = 30, RSS_MAX_KIB = 512 << 10 };

typedef struct input {
    uint8_t *data;
    size_t size;
} input;

static struct {
    input inputs[INPUTS_MAX];
    int count;
} corpus;
// What is being run, for the handlers of signals.
static const char *keep_path = "fuzz-failure.bin";
static const uint8_t *volatile current_data;
static volatile size_t current_size;

static _Noreturn void die(const char *what, const char *which) {
    fprintf(stderr, "fuzz: %s: %s\n", what, which);
    exit(2);
}

// --- What failed ---

static void keep_current(void) {
    int file = open(keep_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) return;
    for (size_t written = 0; written < current_size;) {
        ssize_t n = write(file, current_data + written, current_size - written);
        if (n <= 0) break;
        written += (size_t)n;
    }
    close(file);
}

static void on_signal(int number) {
    keep_current();
    signal(number, SIG_DFL);
    raise(number);
}

static void catch_failures(void) {
    // A sanitizer has handlers of its own for these, which print what happened; it calls back before it ends.
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(keep_current);
    } else {
        static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
        for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) signal(fatal[i], on_signal);
    }
    signal(SIGABRT, on_signal);
    signal(SIGALRM, on_signal);
}

// --- Corpus ---

static void add_file(const char *path) {
    struct stat info;
    if (corpus.count == INPUTS_MAX) die("more files than this driver takes", path);
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &info)) die("cannot read", path);
    if (info.st_size > INPUT_BYTES_MAX) die("larger than 1 MiB", path);
    input *added = &corpus.inputs[corpus.count++];
    added->size = (size_t)info.st_size;
    added->data = malloc(added->size + 1);
    if (!added->data || fread(added->data, 1, added->size, file) != added->size) die("cannot read", path);
    fclose(file);
}

static int visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static void add_path(const char *path) {
    struct stat info;
    if (stat(path, &info)) die("cannot read", path);
    if (!S_ISDIR(info.st_mode)) {
        add_file(path);
        return;
    }
    struct dirent **entries;
    int count = scandir(path, &entries, visible, alphasort);
    for (int i = 0; i < count; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        add_file(name);
        free(entries[i]);
    }
    if (count >= 0) free(entries);
}

// --- Mutations ---

static uint64_t random_state;

static uint64_t random_bits(void) {  // splitmix64
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t random_below(size_t limit) {  // 0 for 0
    return limit ? random_bits() % limit : 0;
}

// Short lengths are the interesting ones.
static size_t random_length(size_t limit) {
    return random_bits() % 4 ? random_below(limit < 16 ? limit : 16) + 1 : random_below(limit) + 1;
}

// Replaces `removed` bytes at `place` by `bytes` bytes of `with` (which must not point into the buffer).
static void replace(uint8_t *data, size_t *size, size_t place, size_t removed, const uint8_t *with, size_t bytes) {
    if (removed > *size - place) removed = *size - place;
    if (*size - removed + bytes > INPUT_BYTES_MAX) return;
    memmove(data + place + bytes, data + place + removed, *size - place - removed);
    memcpy(data + place, with, bytes);
    *size = *size - removed + bytes;
}

static void set_number(uint8_t *data, size_t size) {
    static const uint64_t numbers[] = {0,         1,          0x7f,       0x80,       0xff,       0x7fff,
                                       0x8000,    0xffff,     0x7fffffff, 0x80000000, 0xffffffff, 0x100000000,
                                       INT64_MAX, UINT64_MAX, 16384,      65536};
    size_t bytes = (size_t)1 << random_below(4), place = random_below(size);
    uint64_t number = numbers[random_below(sizeof numbers / sizeof *numbers)];
    bool big_endian = random_bits() & 1;
    for (size_t i = 0; i < bytes && place + i < size; i++)
        data[place + i] = (uint8_t)(number >> 8 * (big_endian ? bytes - 1 - i : i));
}

static void insert_text(uint8_t *data, size_t *size) {
    // clang-format off
    static const char *const texts[] = {
        "-1", "0", "18446744073709551615", "9223372036854775808", "4294967296", "1e999", "-0.0", "1e-400",
        "null", "true", "\"", "\\u0000", "\\ud800", "{", "}", "[", "]", ",", ":",
        "\n", "\r\n", "  ", "&a", "*a", "!!int", "|", ">", "- ", "# ", "%", "'",
        "\xef\xbb\xbf", "\xff", "\xc0\x80", "\xf4\x90\x80\x80", "\xe2\x80\xa8", "</w>", "<|endoftext|>",
    };
    // clang-format on
    const char *text = texts[random_below(sizeof texts / sizeof *texts)];
    size_t place = random_below(*size + 1), removed = random_bits() & 1 ? strlen(text) : 0;
    size_t times = random_bits() % 32 ? 1 : 1 + random_below(2000);  // "[" many times over, say
    for (size_t i = 0; i < times; i++) replace(data, size, place, i ? 0 : removed, (const uint8_t *)text, strlen(text));
}

// Another number in place of one that is written in digits, the text around it as it was.
static void change_number(uint8_t *data, size_t *size) {
    size_t begin = random_below(*size + 1), end;
    while (begin < *size && !isdigit(data[begin])) begin++;
    for (end = begin; end < *size && isdigit(data[end]);) end++;
    if (begin == *size) return;
    char text[32];
    uint64_t bits = random_bits();
    int bytes = snprintf(text, sizeof text, bits & 1 ? "%lld" : "%llu", (long long)(bits >> random_below(64)));
    if (random_bits() % 4 == 0) bytes = snprintf(text, sizeof text, "%d", (int)random_below(40) - 20);
    replace(data, size, begin, end - begin, (const uint8_t *)text, (size_t)bytes);
}

// A piece of an input of the corpus, so that whole keys, chunks and markers move between files.
static void borrow(uint8_t *data, size_t *size) {
    const input *other = &corpus.inputs[random_below((size_t)corpus.count)];
    if (!other->size) return;
    size_t from = random_below(other->size), bytes = random_length(other->size - from);
    if (bytes > other->size - from) bytes = other->size - from;
    size_t removed = random_bits() & 1 ? bytes : random_length(*size + 1) - 1;
    replace(data, size, random_below(*size + 1), removed, other->data + from, bytes);
}

static void duplicate(uint8_t *data, size_t *size) {
    static uint8_t piece[INPUT_BYTES_MAX];
    size_t from = random_below(*size), bytes = random_length(*size - from);
    if (!*size || bytes > *size - from) return;
    memcpy(piece, data + from, bytes);
    replace(data, size, random_below(*size + 1), random_bits() & 1 ? bytes : 0, piece, bytes);
}

static void mutate(uint8_t *data, size_t *size) {
    size_t place = random_below(*size);
    switch (random_below(10)) {
    case 0:
        if (*size) data[place] ^= (uint8_t)(1u << random_below(8));
        break;
    case 1:
        if (*size) data[place] = (uint8_t)random_bits();
        break;
    case 2:
        if (*size) data[place] = (uint8_t)(data[place] + random_below(9) - 4);
        break;
    case 3:
        if (*size) set_number(data, *size);
        break;
    case 4: insert_text(data, size); break;
    case 5: borrow(data, size); break;
    case 6: duplicate(data, size); break;
    case 7: replace(data, size, place, random_length(*size), (const uint8_t *)"", 0); break;
    case 8: change_number(data, size); break;
    case 9:
        if (random_below(4) == 0) *size = random_below(*size + 1);
        break;
    }
}

// --- Running ---

static double processor_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double wall_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double slowest;

// The target gets a copy of exactly `size` bytes, so that a sanitizer sees the first byte read past it.
static void run(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) die("no memory", "for an input");
    memcpy(copy, data, size);
    current_data = copy;
    current_size = size;
    alarm(HANG_SECONDS);
    double begin = processor_seconds();
    LLVMFuzzerTestOneInput(copy, size);
    double seconds = processor_seconds() - begin;
    alarm(0);
    if (seconds > slowest) slowest = seconds;
    if (seconds > 1) {
        keep_current();
        fprintf(stderr, "fuzz: an input of %zu bytes took %.2f s; it is in %s\n", size, seconds, keep_path);
        exit(1);
    }
    current_size = 0;
    free(copy);
}

int main(int argc, char **argv) {
    static uint8_t buffer[INPUT_BYTES_MAX + 4096];
    double limit = 1e9;
    uint64_t executions = UINT64_MAX, done = 0;
    for (int i = 1; i < argc; i++) {
        bool has_value = !strncmp(argv[i], "--", 2) && i + 1 < argc;
        if (has_value && !strcmp(argv[i], "--seconds"))
            limit = strtod(argv[++i], NULL);
        else if (has_value && !strcmp(argv[i], "--executions"))
            executions = strtoull(argv[++i], NULL, 10);
        else if (has_value && !strcmp(argv[i], "--seed"))
            random_state = strtoull(argv[++i], NULL, 10);
        else if (has_value && !strcmp(argv[i], "--keep"))
            keep_path = argv[++i];
        else
            add_path(argv[i]);
    }
    if (!corpus.count) die("the corpus is empty", argc > 1 ? argv[argc - 1] : "(none given)");
    catch_failures();
    double begin = wall_seconds();
    for (int i = 0; i < corpus.count; i++) run(corpus.inputs[i].data, corpus.inputs[i].size);
    for (; done < executions && wall_seconds() - begin < limit; done++) {
        const input *seed = &corpus.inputs[random_below((size_t)corpus.count)];
        size_t size = seed->size;
        memcpy(buffer, seed->data, size);
        // Mostly one or two: of a text with many, little is left that a parser would follow.
        do mutate(buffer, &size);
        while (random_bits() & 1);
        run(buffer, size);
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%d inputs of the corpus and %llu mutations in %.1f s, slowest %.3f s, %ld MiB\n", corpus.count,
           (unsigned long long)done, wall_seconds() - begin, slowest, usage.ru_maxrss >> 10);
    if (!__sanitizer_set_death_callback && usage.ru_maxrss > RSS_MAX_KIB) die("took more than 512 MiB", "of memory");
    for (int i = 0; i < corpus.count; i++) free(corpus.inputs[i].data);
    return 0;
}
