#include "exec/memory.h"

#include <stdlib.h>
#include <string.h>

#include "exec/memory_parts.h"
#include "kernels/cpu/cpu_device.h"

static pb_status open_device(pb_memory *m, const pb_backend *backend, int ordinal) {
    m->calls = backend->device ? backend->device : &pb_cpu_device_calls;
    m->on_cpu = m->calls == &pb_cpu_device_calls;
    if (backend->device) return m->calls->open(ordinal, &m->device);
    return pb_cpu_device_open(backend->kernels, &m->device);
}

static pb_status open_store(pb_memory *m, const uint64_t *extent_bytes, const pb_memory_options *options) {
    pb_status status = PB_OK;
    uint32_t *capacities = NULL;
    if (!options->nvme)
        return pb_error(PB_ERR_USAGE, "the program uses an NVMe store, and no directory is given for one");
    capacities = calloc(m->extent_count, sizeof *capacities);
    m->content = calloc(m->extent_count, sizeof *m->content);
    if (!capacities || !m->content) PB_FAIL(PB_ERR_MEMORY, "no memory for a store");
    for (uint32_t i = 0; i < m->extent_count; i++) {
        if (!extent_bytes[i] || extent_bytes[i] > PB_STORE_EXTENT_MAX || extent_bytes[i] % PB_EXTENT_ALIGNMENT)
            PB_FAIL(PB_ERR_INTERNAL, "extent %u of %llu bytes", i, (unsigned long long)extent_bytes[i]);
        capacities[i] = (uint32_t)extent_bytes[i];
        if (capacities[i] > m->staging_bytes) m->staging_bytes = capacities[i];
        m->bytes[PB_TIER_NVME] += capacities[i];
    }
    m->staging = aligned_alloc(PB_STORE_BLOCK, m->staging_bytes);
    if (!m->staging) PB_FAIL(PB_ERR_MEMORY, "no memory for a store");
    PB_TRY(pb_store_open(&(pb_store_options){.directory = options->nvme,
                                             .capacities = capacities,
                                             .extent_count = m->extent_count,
                                             .operations = PB_IO_OPERATIONS,
                                             .depth = PB_IO_DEPTH,
                                             .engine = (pb_store_engine)options->engine,
                                             .memory = m->slab[PB_TIER_HOST],
                                             .memory_bytes = m->slab[PB_TIER_HOST] ? m->bytes[PB_TIER_HOST] : 0,
                                             .hook = options->hook},
                         &m->store));
    PB_TRY(pb_io_create(m->calls, m->device, m->store, m->slab[PB_TIER_HOST], &m->io));
fail:
    free(capacities);
    return status;
}

pb_status pb_memory_create(const pb_backend *backend, const uint64_t tier_bytes[PB_TIER_COUNT],
                           const uint64_t *extent_bytes, uint32_t extent_count, const pb_memory_options *options,
                           pb_memory **result) {
    static const pb_memory_options none;
    pb_status status = PB_OK;
    if (!options) options = &none;
    pb_memory *m = calloc(1, sizeof *m);
    if (!m) return pb_error(PB_ERR_MEMORY, "no memory for a run's memory");
    m->staged = PB_NONE;
    m->extent_count = extent_count;
    m->bytes[PB_TIER_DEVICE] = tier_bytes[PB_TIER_DEVICE];
    // Whole pages, so that all of it can be registered for I/O.
    m->bytes[PB_TIER_HOST] = pb_aligned(tier_bytes[PB_TIER_HOST], PB_EXTENT_ALIGNMENT);
    PB_TRY(open_device(m, backend, backend->ordinal));
    if (options->link_share > 0 && m->calls->throttle) m->calls->throttle(m->device, options->link_share);
    void *slab;
    PB_TRY(m->calls->device_allocate(m->device, m->bytes[PB_TIER_DEVICE], &slab));
    m->slab[PB_TIER_DEVICE] = slab;
    if (m->bytes[PB_TIER_HOST]) {
        PB_TRY(m->calls->host_allocate(m->device, m->bytes[PB_TIER_HOST], &slab));
        m->slab[PB_TIER_HOST] = slab;
    }
    if (extent_count) PB_TRY(open_store(m, extent_bytes, options));
    *result = m;
    m = NULL;
fail:
    pb_memory_destroy(m);
    return status;
}

pb_status pb_memory_create_for(const pb_backend *backend, const pb_program *const *programs, uint32_t count,
                               const pb_memory_options *options, pb_memory **memory) {
    uint64_t tiers[PB_TIER_COUNT] = {0};
    uint32_t extents = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (programs[i]->extent_count > extents) extents = programs[i]->extent_count;
        for (int t = 0; t < PB_TIER_COUNT; t++)
            if (programs[i]->tier_bytes[t] > tiers[t]) tiers[t] = programs[i]->tier_bytes[t];
    }
    uint64_t *bytes = calloc((size_t)extents + 1, sizeof *bytes);
    if (!bytes) return pb_error(PB_ERR_MEMORY, "no memory for a run's memory");
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t x = 0; x < programs[i]->extent_count; x++)
            if (programs[i]->extent_bytes[x] > bytes[x]) bytes[x] = programs[i]->extent_bytes[x];
    const pb_status status = pb_memory_create(backend, tiers, bytes, extents, options, memory);
    free(bytes);
    return status;
}

void pb_memory_destroy(pb_memory *m) {
    if (!m) return;
    pb_io_destroy(m->io);
    // Scratch: of failures in it nobody needs to know any more.
    pb_store_close(m->store, false);
    if (m->device) {
        m->calls->host_release(m->device, m->slab[PB_TIER_HOST]);
        m->calls->device_release(m->device, m->slab[PB_TIER_DEVICE]);
        m->calls->close(m->device);
    }
    free(m->staging);
    free(m->content);
    free(m);
}

uint64_t pb_memory_bytes(const pb_memory *memory, pb_tier tier) {
    return memory->bytes[tier];
}

uint64_t pb_memory_process_bytes(const pb_memory *memory) {
    return memory->bytes[PB_TIER_HOST] + (memory->on_cpu ? memory->bytes[PB_TIER_DEVICE] : 0) + memory->staging_bytes;
}

const char *pb_memory_note(const pb_memory *memory) {
    return memory->calls->note ? memory->calls->note(memory->device) : "";
}
