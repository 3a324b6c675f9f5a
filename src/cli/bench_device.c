#include "cli/bench_device.h"

#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 3, MOST_LAUNCHES = 64, PART = 16 << 20 };

struct pb_bench_device {
    const pb_device_calls *calls;
    pb_device *device;
    void *memory[2];
    unsigned char part[1 << 16];  // on its way to the device
};

pb_status pb_bench_device_open(const pb_backend *backend, pb_bench_device **result) {
    pb_bench_device *d = calloc(1, sizeof *d);
    if (!d) return pb_error(PB_ERR_MEMORY, "no memory for a benchmark");
    d->calls = backend->device;
    const pb_status status = d->calls->open(backend->ordinal, &d->device);
    if (status != PB_OK) {
        free(d);
        return status;
    }
    *result = d;
    return PB_OK;
}

void pb_bench_device_close(pb_bench_device *d) {
    if (!d) return;
    for (int slot = 0; slot < 2; slot++) d->calls->device_release(d->device, d->memory[slot]);
    d->calls->close(d->device);
    free(d);
}

static pb_status fill_memory(pb_bench_device *d, unsigned char *memory, uint64_t bytes, int fill) {
    memset(d->part, fill, sizeof d->part);
    for (uint64_t at = 0; at < bytes; at += sizeof d->part) {
        const uint64_t left = bytes - at;
        PB_RETURN_IF(d->calls->write(d->device, memory + at, d->part, left < sizeof d->part ? left : sizeof d->part));
    }
    return PB_OK;
}

pb_status pb_bench_device_memory(pb_bench_device *d, int slot, uint64_t bytes, int fill, unsigned char **memory) {
    d->calls->device_release(d->device, d->memory[slot]);
    d->memory[slot] = NULL;
    PB_RETURN_IF(d->calls->device_allocate(d->device, bytes, &d->memory[slot]));
    *memory = d->memory[slot];
    return fill_memory(d, *memory, bytes, fill);
}

pb_status pb_bench_device_clear(pb_bench_device *d, void *memory, uint64_t bytes) {
    return fill_memory(d, memory, bytes, 0);
}

// All launches once, one by one: from the beginning of the first to the end of the last.
static pb_status run_all(pb_bench_device *d, pb_opcode op, const pb_kernel_args *args, uint32_t count,
                         double *seconds) {
    double times[2][2] = {{0}};
    for (uint32_t i = 0; i < count; i++) {
        double *t = i == 0 ? times[0] : i + 1 == count ? times[1] : NULL;
        if (t) PB_RETURN_IF(d->calls->time(d->device, PB_LANE_COMPUTE, &t[0], &t[1]));
        PB_RETURN_IF(d->calls->run(d->device, PB_LANE_COMPUTE, op, &args[i]));
    }
    PB_RETURN_IF(d->calls->synchronize(d->device));
    *seconds = times[count > 1][1] - times[0][0];
    return PB_OK;
}

static pb_status replay_all(pb_bench_device *d, pb_captured *captured, double *seconds) {
    double begin = 0, end = 0;
    PB_RETURN_IF(d->calls->time(d->device, PB_LANE_COMPUTE, &begin, &end));
    PB_RETURN_IF(d->calls->replay(d->device, captured));
    PB_RETURN_IF(d->calls->synchronize(d->device));
    *seconds = end - begin;
    return PB_OK;
}

pb_status pb_bench_device_time(pb_bench_device *d, pb_opcode op, const pb_kernel_args *args, uint32_t count, int rounds,
                               double *seconds) {
    pb_opcode ops[MOST_LAUNCHES];
    const pb_kernel_args *list[MOST_LAUNCHES];
    pb_captured *captured = NULL;
    pb_status status = PB_OK;
    double once = 0, least = 1e9;
    if (count > MOST_LAUNCHES) count = MOST_LAUNCHES;
    for (uint32_t i = 0; i < count; i++) {
        ops[i] = op;
        list[i] = &args[i];
        if (d->calls->prepare) PB_TRY(d->calls->prepare(d->device, PB_LANE_COMPUTE, op, &args[i]));
    }
    PB_TRY(run_all(d, op, args, count, &once));
    if (d->calls->capture) {
        status = d->calls->capture(d->device, count, ops, list, &captured);
        if (status == PB_ERR_UNSUPPORTED) status = PB_OK;
        if (status != PB_OK) goto fail;
    }
    for (int round = 0; round < rounds; round++) {
        PB_TRY(captured ? replay_all(d, captured, &once) : run_all(d, op, args, count, &once));
        if (once < least) least = once;
    }
    *seconds = least / count;
fail:
    if (captured) d->calls->captured_release(d->device, captured);
    return status;
}

// --- Links ---

// One way or both at once, in parts as long as a plan's: seconds from the first beginning to the last end.
static pb_status copy_all(pb_bench_device *d, unsigned char *host, unsigned char *device, uint64_t bytes, bool up,
                          bool down, double *seconds) {
    const uint64_t parts = (bytes + PART - 1) / PART;
    double(*times)[2] = calloc(2 * parts, sizeof *times);
    pb_status status = PB_OK;
    if (!times) return pb_error(PB_ERR_MEMORY, "no memory for a benchmark");
    for (uint64_t p = 0; p < parts; p++)
        for (int way = 0; way < 2; way++) {
            const uint64_t at = p * PART, size = bytes - at < PART ? bytes - at : PART;
            const pb_lane lane = way ? PB_LANE_DOWNLOAD : PB_LANE_UPLOAD;
            unsigned char *h = host + at + (way ? bytes : 0), *v = device + at + (way ? bytes : 0);
            if (!(way ? down : up)) continue;
            PB_TRY(d->calls->time(d->device, lane, &times[2 * p + (uint64_t)way][0], &times[2 * p + (uint64_t)way][1]));
            PB_TRY(d->calls->copy(d->device, lane, way ? h : v, way ? v : h, size));
        }
    PB_TRY(d->calls->synchronize(d->device));
    double first = 1e300, last = 0;
    for (uint64_t i = 0; i < 2 * parts; i++) {
        if (times[i][1] <= 0) continue;
        if (times[i][0] < first) first = times[i][0];
        if (times[i][1] > last) last = times[i][1];
    }
    *seconds = last - first;
fail:
    free(times);
    return status;
}

static pb_status measure_overhead(pb_bench_device *d, unsigned char *device, double *overhead) {
    pb_kernel_args args[MOST_LAUNCHES];
    for (int i = 0; i < MOST_LAUNCHES; i++)
        args[i] = (pb_kernel_args){.in = {{device, PB_F32, PB_SHAPE1(64)}, {device, PB_F32, PB_SHAPE1(64)}},
                                   .out = {{device + 4096, PB_F32, PB_SHAPE1(64)}}};
    return pb_bench_device_time(d, PB_OP_ADD, args, MOST_LAUNCHES, ROUNDS, overhead);
}

pb_status pb_bench_device_links(pb_bench_device *d, uint64_t bytes, pb_machine *machine) {
    pb_status status = PB_OK;
    unsigned char *device;
    void *host = NULL;
    double seconds = 0, least[3] = {1e9, 1e9, 1e9};
    PB_TRY(pb_bench_device_memory(d, 0, 2 * bytes, 0, &device));
    PB_TRY(d->calls->host_allocate(d->device, 2 * bytes, &host));
    memset(host, 1, 2 * bytes);
    for (int round = 0; round < ROUNDS; round++)
        for (int way = 0; way < 3; way++) {
            PB_TRY(copy_all(d, host, device, bytes, way != 1, way != 0, &seconds));
            if (seconds < least[way]) least[way] = seconds;
        }
    machine->upload = (double)bytes / least[0];
    machine->download = (double)bytes / least[1];
    machine->copy_both = 2 * (double)bytes / least[2];
    PB_TRY(measure_overhead(d, device, &machine->overhead));
fail:
    if (host) d->calls->host_release(d->device, host);
    return status;
}
