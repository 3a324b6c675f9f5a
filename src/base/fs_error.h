// Shared by the files of base/fs.
#ifndef PB_BASE_FS_ERROR_H
#define PB_BASE_FS_ERROR_H

#include "base/error.h"

// PB_ERR_IO for what errno says: "cannot ACTION PATH: REASON", with the remedy where the disk is full.
pb_status pb_fs_error(const char *action, const char *path);

#endif
