// bench: links=offload,base
// The store beside fio (io_uring, O_DIRECT) at the same block size and depth, by turns in one run; without fio, the
// store alone. Hashing is part of the store's time. Usage: bench_store DIRECTORY [MIB [ROUNDS]]
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "offload/store.h"

enum { MIB = 1 << 20, MOST_EXTENTS = 4096 };

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

// MiB/s for all extents, `depth` of one request each under way, in memory of `depth` extents.
static double run_store(pb_store *store, int write, size_t extents, size_t bytes, unsigned depth,
                        unsigned char *memory) {
    pb_ticket tickets[MOST_EXTENTS];
    const double start = seconds_now();
    for (size_t i = 0; i < extents + depth; i++) {
        if (i >= depth) stop_on(pb_store_wait(store, tickets[i - depth]));
        if (i >= extents) continue;
        unsigned char *data = memory + i % depth * bytes;
        stop_on(write ? pb_store_write(store, i, i, 0, data, bytes, &tickets[i])
                      : pb_store_read(store, i, i, data, bytes, &tickets[i]));
        pb_store_submit(store);
    }
    return (double)(extents * bytes) / MIB / (seconds_now() - start);
}

// MiB/s, or 0 without fio.
static double run_fio(const char *directory, int write, size_t mib, size_t bytes, unsigned depth) {
    char command[1024], line[4096];
    snprintf(command, sizeof command,
             "fio --name=store --filename='%s/fio.tmp' --rw=%s --bs=%zu --iodepth=%u --size=%zum --ioengine=io_uring "
             "--direct=1 --fallocate=posix --overwrite=0 --registerfiles=1 --fixedbufs=1 --minimal --terse-version=3 "
             "2>/dev/null",
             directory, write ? "write" : "read", bytes, depth, mib);
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

static double median(double *values, int count) {
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && values[j] < values[j - 1]; j--) {
            const double swapped = values[j];
            values[j] = values[j - 1];
            values[j - 1] = swapped;
        }
    return values[count / 2];
}

static void compare(const char *directory, size_t mib, int rounds, size_t bytes, unsigned depth) {
    const size_t extents = mib * MIB / bytes;
    uint32_t *capacities = calloc(extents, sizeof *capacities);
    unsigned char *memory = aligned_alloc(PB_STORE_BLOCK, depth * bytes);
    double speed[2][2][64];
    if (!capacities || !memory) exit(1);
    for (size_t i = 0; i < extents; i++) capacities[i] = (uint32_t)bytes;
    for (size_t i = 0; i < depth * bytes; i++) memory[i] = (unsigned char)(i * 2654435761u >> 13);
    const pb_store_options options = {.directory = directory,
                                      .capacities = capacities,
                                      .extent_count = extents,
                                      .request_bytes = (uint32_t)bytes,
                                      .depth = depth,
                                      .operations = 2 * depth,
                                      .memory = memory,
                                      .memory_bytes = depth * bytes};
    pb_store *store = NULL;
    stop_on(pb_store_open(&options, &store));
    run_store(store, 1, extents, bytes, depth, memory);  // the first writes of both turn allocated blocks into written
    run_fio(directory, 1, mib, bytes, depth);
    for (int round = 0; round < rounds; round++)
        for (int write = 0; write < 2; write++) {
            speed[write][0][round] = run_store(store, write, extents, bytes, depth, memory);
            speed[write][1][round] = run_fio(directory, write, mib, bytes, depth);
        }
    for (int write = 0; write < 2; write++) {
        const double ours = median(speed[write][0], rounds), theirs = median(speed[write][1], rounds);
        printf("%-5s %zu MiB x %2u: store %6.0f MiB/s", write ? "write" : "read", bytes / MIB, depth, ours);
        if (theirs > 0) printf(", fio %6.0f MiB/s, ratio %.2f", theirs, ours / theirs);
        printf("%s\n", pb_store_get_info(store)->direct ? "" : " (no O_DIRECT)");
    }
    fflush(stdout);
    stop_on(pb_store_close(store, false));
    free(capacities);
    free(memory);
}

int main(int argc, char **argv) {
    const char *directory = argc > 1 ? argv[1] : ".";
    const size_t mib = argc > 2 ? (size_t)atol(argv[2]) : 1024;
    const int rounds = argc > 3 ? atoi(argv[3]) : 5;
    char path[1024];
    if (mib < 4 || mib > MOST_EXTENTS || rounds < 1 || rounds > 64) return 2;
    for (size_t bytes = MIB; bytes <= 4 * MIB; bytes *= 2)
        for (unsigned depth = 4; depth <= 32; depth *= 2) compare(directory, mib, rounds, bytes, depth);
    snprintf(path, sizeof path, "%s/fio.tmp", directory);
    unlink(path);
    return 0;
}
