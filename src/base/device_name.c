#include "base/device_name.h"

#include <stdlib.h>
#include <string.h>

pb_status pb_device_name_parse(const char *name, const char *text, pb_device_kind *kind, int *ordinal) {
    *ordinal = 0;
    *kind = PB_DEVICE_AUTO;
    if (!text || strcmp(text, "auto") == 0) return PB_OK;
    *kind = PB_DEVICE_CPU;
    if (strcmp(text, "cpu") == 0) return PB_OK;
    *kind = PB_DEVICE_CUDA;
    if (strcmp(text, "cuda") == 0) return PB_OK;
    const char *const digits = text + strlen("cuda:");
    if (strncmp(text, "cuda:", strlen("cuda:")) == 0 && *digits && strspn(digits, "0123456789") == strlen(digits) &&
        strlen(digits) <= 3) {
        *ordinal = atoi(digits);
        return PB_OK;
    }
    return pb_error(PB_ERR_USAGE, "%s is auto, cpu, cuda or cuda:N (GPU N, from 0), not `%s`", name, text);
}
