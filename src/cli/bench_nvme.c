#include "cli/bench_nvme.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/parallel.h"
#include "offload/store.h"

enum { EXTENT = 32 << 20 };

// Of all threads of this process, in the kernel too.
static double processor_seconds(void) {
    struct rusage used;
    if (getrusage(RUSAGE_SELF, &used) != 0) return 0;
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

typedef enum direction { WRITE, READ, BOTH } direction;

// Seconds to move all extents, as many at once as there is memory for; BOTH reads the first half and writes the other.
static pb_status move_all(pb_store *store, direction what, size_t extents, unsigned char *memory, size_t places,
                          pb_ticket *tickets, double *seconds) {
    const double begin = pb_seconds_now();
    for (size_t i = 0; i < extents + places; i++) {
        if (i >= places) PB_RETURN_IF(pb_store_wait(store, tickets[i - places]));
        if (i >= extents) continue;
        // The halves take turns, so that both go on all the time.
        const size_t extent = what == BOTH ? i / 2 + (i % 2) * (extents / 2) : i;
        unsigned char *data = memory + i % places * EXTENT;
        if (what == WRITE || (what == BOTH && i % 2)) {
            PB_RETURN_IF(pb_store_write(store, extent, extent, 0, data, EXTENT, &tickets[i]));
        } else {
            PB_RETURN_IF(pb_store_read(store, extent, extent, data, EXTENT, &tickets[i]));
        }
        pb_store_submit(store);
    }
    *seconds = pb_seconds_now() - begin;
    return PB_OK;
}

pb_status pb_bench_nvme(const char *directory, size_t bytes, pb_bench_drive *drive) {
    enum { PLACES = 4 };
    pb_status status = PB_OK;
    const size_t extents = bytes / EXTENT / 2 * 2;
    pb_store *store = NULL;
    struct statvfs room;
    double seconds[3];
    uint32_t *capacities = calloc(extents, sizeof *capacities);
    pb_ticket *tickets = calloc(extents, sizeof *tickets);
    unsigned char *memory = aligned_alloc(PB_STORE_BLOCK, (size_t)PLACES * EXTENT);
    if (!capacities || !tickets || !memory) PB_FAIL(PB_ERR_MEMORY, "no memory to measure a drive with");
    for (size_t i = 0; i < (size_t)PLACES * EXTENT; i++) memory[i] = (unsigned char)(i * 2654435761u >> 13);
    for (size_t i = 0; i < extents; i++) capacities[i] = EXTENT;
    const pb_store_options options = {.directory = directory,
                                      .capacities = capacities,
                                      .extent_count = extents,
                                      .memory = memory,
                                      .memory_bytes = (size_t)PLACES * EXTENT};
    PB_TRY(pb_store_open(&options, &store));
    // The first pass makes the file's blocks what they will be in a run: written before.
    PB_TRY(move_all(store, WRITE, extents, memory, PLACES, tickets, &seconds[WRITE]));
    double worked = 0;  // while both went on, last
    for (int what = WRITE; what <= BOTH; what++) {
        worked = processor_seconds();
        PB_TRY(move_all(store, (direction)what, extents, memory, PLACES, tickets, &seconds[what]));
        worked = processor_seconds() - worked;
    }
    const double moved = (double)extents * EXTENT;
    drive->direct = pb_store_get_info(store)->direct;
    drive->write = moved / seconds[WRITE];
    drive->read = moved / seconds[READ];
    drive->both = moved / seconds[BOTH];
    drive->processors = worked > 0 ? moved / worked * pb_threads() : 0;
    if (statvfs(directory, &room) == 0) {
        // What is free with the measurement's own file gone, less a tenth.
        const uint64_t available = (uint64_t)room.f_bavail * room.f_frsize + (uint64_t)moved;
        drive->bytes = available - available / 10;
    }
fail:
    if (store) {
        const pb_status closed = pb_store_close(store, false);
        if (status == PB_OK) status = closed;
    }
    free(capacities);
    free(tickets);
    free(memory);
    return status;
}
