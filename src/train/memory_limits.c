#include "train/memory_limits.h"

#include <stdio.h>

#include "base/fs.h"
#include "exec/select.h"
#include "io/machine_profile.h"
#include "kernels/cuda_report.h"

// Of the free space, what `auto` leaves to others.
static const double nvme_share = 0.9;

static pb_status find_nvme_room(const char *directory, uint64_t *bytes) {
    const pb_status status = pb_fs_free_bytes(directory, bytes);
    if (status != PB_OK) return pb_error_context(status, "memory.nvme");
    *bytes = (uint64_t)((double)*bytes * nvme_share);
    return PB_OK;
}

static pb_state_home home_of(pb_placement placement) {
    switch (placement) {
    case PB_PLACEMENT_DEVICE: return PB_STATE_ON_DEVICE;
    case PB_PLACEMENT_HOST: return PB_STATE_ON_HOST;
    case PB_PLACEMENT_NVME: return PB_STATE_ON_NVME;
    default: return PB_STATE_ANYWHERE;
    }
}

// On a GPU its speeds are the card's, as far as it is known, and its memory is what is free now; the host's figures are
// this machine's.
static pb_status find_this(pb_arena *arena, const pb_config *config, const pb_backend *backend, pb_machine *machine) {
    PB_RETURN_IF(pb_machine_find(arena, config->memory.profile, machine));
    if (backend == pb_backend_cpu()) return PB_OK;
    const bool profiled = config->memory.profile != NULL;
    const pb_machine host = *machine;
    pb_cuda_gpu gpu;
    PB_RETURN_IF(pb_cuda_card(backend->ordinal, &gpu));
    if (!profiled) {
        PB_RETURN_IF(pb_machine_find(arena, gpu.machine[0] ? gpu.machine : "generic", machine));
        machine->dram = host.dram;
        machine->host_adamw = host.host_adamw;
        machine->nvme_read = host.nvme_read;
        machine->nvme_write = host.nvme_write;
        machine->nvme_both = host.nvme_both;
        machine->nvme_processors = host.nvme_processors;
        machine->host_bytes = host.host_bytes;
        machine->nvme_bytes = host.nvme_bytes;
    }
    snprintf(machine->name, sizeof machine->name, "%.50s (cuda:%d)", gpu.name, backend->ordinal);
    machine->device_bytes = gpu.free > PB_GPU_MARGIN ? gpu.free - PB_GPU_MARGIN : 0;
    return PB_OK;
}

pb_status pb_memory_limits_find(pb_arena *arena, const pb_config *config, const char *machine, pb_memory_limits *l) {
    *l = (pb_memory_limits){.nvme = config->memory.nvme, .link_share = config->memory.link_share};
    const bool elsewhere = machine != NULL;
    if (elsewhere) {
        PB_RETURN_IF(pb_machine_find(arena, machine, &l->machine));
        l->backend = pb_backend_for_machine(&l->machine);
    } else {
        PB_RETURN_IF(pb_backend_select(config->device, &l->backend));
        PB_RETURN_IF(find_this(arena, config, l->backend, &l->machine));
    }
    if (!l->machine.shared_cores && l->link_share > 0) {
        l->machine.upload *= l->link_share;
        l->machine.download *= l->link_share;
        l->machine.copy_both *= l->link_share;
    }
    const bool device_auto = config->memory.device == PB_SIZE_AUTO, host_auto = config->memory.host == PB_SIZE_AUTO;
    uint64_t *budget = l->request.budget;
    budget[PB_TIER_DEVICE] = device_auto ? l->machine.device_bytes : (uint64_t)config->memory.device;
    budget[PB_TIER_HOST] = host_auto ? l->machine.host_bytes : (uint64_t)config->memory.host;
    if (l->machine.shared_cores && host_auto) {
        // Both are the same RAM, and what the device takes of it the host does not have.
        const uint64_t all = l->machine.host_bytes;
        budget[PB_TIER_HOST] = budget[PB_TIER_DEVICE] < all ? all - budget[PB_TIER_DEVICE] : 0;
        l->shared = device_auto;
    }
    if (config->memory.nvme_size != PB_SIZE_AUTO)
        budget[PB_TIER_NVME] = config->memory.nvme || elsewhere ? (uint64_t)config->memory.nvme_size : 0;
    else if (elsewhere)
        budget[PB_TIER_NVME] = l->machine.nvme_bytes;
    else if (config->memory.nvme)
        PB_RETURN_IF(find_nvme_room(config->memory.nvme, &budget[PB_TIER_NVME]));
    l->request.machine = &l->machine;
    l->request.state = home_of(config->memory.placement);
    if (!budget[PB_TIER_HOST] && !device_auto && host_auto && l->request.state > PB_STATE_ON_DEVICE)
        return pb_error(PB_ERR_BUDGET,
                        "memory.device is all of this machine's memory (%.3f GiB) or more, and memory.placement wants "
                        "the state in memory.host, for which nothing is left: set a smaller memory.device",
                        (double)l->machine.host_bytes / 0x1p30);
    return PB_OK;
}
