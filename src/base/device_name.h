// What `--device` and the configuration's `device` may say.
#ifndef PB_BASE_DEVICE_NAME_H
#define PB_BASE_DEVICE_NAME_H

#include "base/error.h"

typedef enum pb_device_kind { PB_DEVICE_AUTO, PB_DEVICE_CPU, PB_DEVICE_CUDA } pb_device_kind;

// "auto", "cpu", "cuda" (GPU 0) or "cuda:N"; NULL is "auto". PB_ERR_USAGE, with `name` ("--device") in the message.
pb_status pb_device_name_parse(const char *name, const char *text, pb_device_kind *kind, int *ordinal);

#endif
