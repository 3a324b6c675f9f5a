#include "support_gpu.h"

#include <stdio.h>

bool gpu_open(gpu *g, uint64_t bytes) {
    *g = (gpu){.backend = pb_backend_cuda(), .bytes = bytes};
    void *slab = NULL;
    const bool open = g->backend && g->backend->device->open(0, &g->device) == PB_OK &&
                      g->backend->device->device_allocate(g->device, bytes, &slab) == PB_OK;
    g->slab = slab;
    if (!open) {
        printf("skipped: %s\n", pb_error_message());
        gpu_close(g);
    }
    return open;
}

void gpu_close(gpu *g) {
    if (!g->device) return;
    g->backend->device->device_release(g->device, g->slab);
    g->backend->device->close(g->device);
    g->device = NULL;
}
