// From what a person says to a backend.
#ifndef PB_EXEC_SELECT_H
#define PB_EXEC_SELECT_H

#include "base/machine.h"
#include "kernels/backend.h"

// `device` as in base/device_name.h. auto: GPU 0 where one can be used, else the CPU. Errors: PB_ERR_USAGE (no such
// name), PB_ERR_UNSUPPORTED with the remedy (a build without CUDA, no driver, no such GPU).
pb_status pb_backend_select(const char *device, const pb_backend **backend);

// For plans: the backend that would run on `machine`, built in or measured. A GPU: the CUDA backend, with the scratch
// sizes of the described card that it is or is most like, no GPU needed; every other machine: the CPU's.
const pb_backend *pb_backend_for_machine(const pb_machine *machine);

#endif
