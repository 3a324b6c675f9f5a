// bench: links=offload,base
// The store beside fio (io_uring, O_DIRECT, registered file and buffers) in the same file, at the same block size and
// with the same number of requests at once, by turns in one run; without fio, the store alone. The store hashes what it
// moves, fio does not: the time of that is in the store's speed and given beside it. The store has twice as many
// buffers as requests, so that those that are being hashed do not keep the disk waiting. Usage: bench_store DIRECTORY
// [MIB [ROUNDS [LEAST DEPTH [MOST DEPTH]]]]
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "offload/store.h"

enum { MIB = 1 << 20, MOST_EXTENTS = 4096, MOST_BUFFERS = 256, MOST_ROUNDS = 64 };

typedef struct setting {
    size_t extents, bytes;
    unsigned depth, buffers;
    unsigned char *memory;
    char file[64];  // as fio finds it
} setting;

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void stop_on(pb_status status) {
    if (status == PB_OK) return;
    fprintf(stderr, "%s\n", pb_error_message());
    exit(1);
}

// MiB/s for all extents, each buffer at work again as soon as it is free.
static double run_store(pb_store *store, int write, const setting *s) {
    pb_ticket tickets[MOST_BUFFERS];
    bool busy[MOST_BUFFERS] = {false};
    const double start = seconds_now();
    for (size_t begun = 0, done = 0; done < s->extents;) {
        for (unsigned b = 0; b < s->buffers; b++) {
            if (busy[b]) {
                if (!pb_store_poll(store, tickets[b])) continue;
                stop_on(pb_store_wait(store, tickets[b]));
                busy[b] = false;
                done++;
            }
            if (begun == s->extents) continue;
            unsigned char *data = s->memory + b * s->bytes;
            stop_on(write ? pb_store_write(store, begun, begun, 0, data, s->bytes, &tickets[b])
                          : pb_store_read(store, begun, begun, data, s->bytes, &tickets[b]));
            pb_store_submit(store);
            busy[b] = true;
            begun++;
        }
        if (done < s->extents) pb_store_wait_any(store, -1);
    }
    return (double)(s->extents * s->bytes) / MIB / (seconds_now() - start);
}

// MiB/s, or 0 without fio.
static double run_fio(int write, const setting *s) {
    char command[1024], line[4096];
    // Large pages, which the store asks for as well.
    snprintf(command, sizeof command,
             "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 fio --name=store --filename='%s' --rw=%s --bs=%zu --iodepth=%u "
             "--size=%zu --ioengine=io_uring --direct=1 --fallocate=none --allow_file_create=0 --registerfiles=1 "
             "--fixedbufs=1 --minimal --terse-version=3 2>/dev/null",
             s->file, write ? "write" : "read", s->bytes, s->depth, s->extents * s->bytes);
    FILE *pipe = popen(command, "r");
    double speed = 0;
    if (pipe && fgets(line, sizeof line, pipe)) {
        int field = 1;  // KiB/s: field 7 for reads, 48 for writes
        for (char *save = NULL, *word = strtok_r(line, ";", &save); word; word = strtok_r(NULL, ";", &save), field++)
            if (field == (write ? 48 : 7)) speed = atof(word) / 1024;
    }
    if (pipe) pclose(pipe);
    return speed;
}

// The path of the store's file, which has no name: the one open file of this process that is a deleted one.
static void find_file(setting *s) {
    DIR *directory = opendir("/proc/self/fd");
    const struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        char link[300], target[4096];
        snprintf(link, sizeof link, "/proc/self/fd/%s", entry->d_name);
        const ssize_t length = readlink(link, target, sizeof target - 1);
        if (length <= 0) continue;
        target[length] = '\0';
        if (strstr(target, "(deleted)"))
            snprintf(s->file, sizeof s->file, "/proc/%ld/fd/%.20s", (long)getpid(), entry->d_name);
    }
    if (directory) closedir(directory);
}

static double median(const double *values, int count) {
    double sorted[MOST_ROUNDS];
    for (int i = 0; i < count; i++) {
        int at = i;
        for (; at > 0 && sorted[at - 1] > values[i]; at--) sorted[at] = sorted[at - 1];
        sorted[at] = values[i];
    }
    return count % 2 ? sorted[count / 2] : (sorted[count / 2] + sorted[count / 2 - 1]) / 2;
}

static void report(const setting *s, int write, int rounds, double speed[2][MOST_ROUNDS], double hash_share) {
    double ratio[MOST_ROUNDS];
    for (int i = 0; i < rounds; i++) ratio[i] = speed[1][i] > 0 ? speed[0][i] / speed[1][i] : 0;
    printf("%-5s %zu MiB x %2u: store %6.0f MiB/s (hashing %2.0f%% of the time)", write ? "write" : "read",
           s->bytes / MIB, s->depth, median(speed[0], rounds), 100 * hash_share);
    if (ratio[0] > 0) {
        printf(", fio %6.0f MiB/s, ratio %.2f", median(speed[1], rounds), median(ratio, rounds));
    }
    printf("\n");
    fflush(stdout);
}

static void compare(const char *directory, size_t mib, int rounds, size_t bytes, unsigned depth) {
    setting s = {.extents = mib * MIB / bytes, .bytes = bytes, .depth = depth, .buffers = 2 * depth};
    uint32_t *capacities = calloc(s.extents, sizeof *capacities);
    const size_t memory_bytes = s.buffers * bytes;
    s.memory = aligned_alloc(2 * MIB, memory_bytes);
    if (!capacities || !s.memory) exit(1);
    for (size_t i = 0; i < s.extents; i++) capacities[i] = (uint32_t)bytes;
    for (size_t i = 0; i < memory_bytes; i++) s.memory[i] = (unsigned char)(i * 2654435761u >> 13);
    const pb_store_options options = {.directory = directory,
                                      .capacities = capacities,
                                      .extent_count = s.extents,
                                      .request_bytes = (uint32_t)bytes,
                                      .depth = depth,
                                      .operations = s.buffers,
                                      .memory = s.memory,
                                      .memory_bytes = memory_bytes};
    double speed[2][2][MOST_ROUNDS], hash[2] = {0, 0}, seconds[2] = {0, 0};
    pb_store *store = NULL;
    stop_on(pb_store_open(&options, &store));
    find_file(&s);
    run_store(store, 1, &s);  // the first writes turn allocated blocks into written ones
    for (int round = 0; round < rounds; round++)
        for (int write = 1; write >= 0; write--) {
            // Who begins takes turns. What fio wrote is not what the store expects to read.
            for (int turn = 0; turn < 2; turn++) {
                if (turn != round % 2) {
                    speed[write][1][round] = run_fio(write, &s);
                    continue;
                }
                const double before = pb_store_get_info(store)->hash_seconds;
                speed[write][0][round] = run_store(store, write, &s);
                hash[write] += pb_store_get_info(store)->hash_seconds - before;
                seconds[write] += (double)mib / speed[write][0][round];
            }
            if (write && round % 2 == 0) run_store(store, write, &s);
        }
    if (!pb_store_get_info(store)->direct) printf("without O_DIRECT: ");
    if (!pb_store_get_info(store)->registered_memory) printf("without registered memory: ");
    for (int write = 0; write < 2; write++) report(&s, write, rounds, speed[write], hash[write] / seconds[write]);
    stop_on(pb_store_close(store, false));
    free(s.memory);
    free(capacities);
}

int main(int argc, char **argv) {
    const char *directory = argc > 1 ? argv[1] : ".";
    const size_t mib = argc > 2 ? (size_t)atol(argv[2]) : 1024;
    const int rounds = argc > 3 ? atoi(argv[3]) : 5;
    const unsigned least = argc > 4 ? (unsigned)atoi(argv[4]) : 4, most = argc > 5 ? (unsigned)atoi(argv[5]) : 32;
    if (mib < 4 || mib > MOST_EXTENTS || rounds < 1 || rounds > MOST_ROUNDS || !least || most > MOST_BUFFERS / 2)
        return 2;
    for (size_t bytes = MIB; bytes <= 4 * MIB; bytes *= 2)
        for (unsigned depth = least; depth <= most; depth *= 2) compare(directory, mib, rounds, bytes, depth);
    return 0;
}
