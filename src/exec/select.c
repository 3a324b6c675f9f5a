#include "exec/select.h"

#include "base/device_name.h"

pb_status pb_backend_select(const char *device, const pb_backend **backend) {
    pb_device_kind kind;
    int ordinal;
    PB_RETURN_IF(pb_device_name_parse("device", device, &kind, &ordinal));
    *backend = pb_backend_cpu();
    if (kind == PB_DEVICE_CPU) return PB_OK;
    const pb_status status = pb_backend_cuda_at(ordinal, backend);
    if (status == PB_OK || kind == PB_DEVICE_CUDA) return status;
    *backend = pb_backend_cpu();
    pb_error_clear();
    return PB_OK;
}

const pb_backend *pb_backend_for_machine(const pb_machine *machine) {
    const pb_backend *backend = NULL;
    if (!machine->shared_cores) {
        backend = pb_backend_cuda_for(machine->name);
        // A card that nobody described: sizes as on a common one are nearer to its own than the CPU's are.
        if (!backend && !pb_machine_builtin(machine->name)) backend = pb_backend_cuda_for("rtx3090");
    }
    return backend ? backend : pb_backend_cpu();
}
