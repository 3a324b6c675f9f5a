// A directory for a test's files: scratch_path("a/b") is a path in it; scratch_remove() at the end of main. Links base.
#ifndef PB_TESTS_SCRATCH_H
#define PB_TESTS_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>

#include "base/fs.h"

static char scratch_directory[512];

// The path of `name` in the scratch directory, in one of 16 buffers that take turns.
static inline const char *scratch_path(const char *name) {
    static char paths[16][1024];
    static unsigned next;
    if (!scratch_directory[0]) {
        const char *parent = getenv("TMPDIR");
        snprintf(scratch_directory, sizeof scratch_directory, "%s/pagebooth-test-XXXXXX", parent ? parent : "/tmp");
        if (!mkdtemp(scratch_directory)) {
            perror(scratch_directory);
            exit(1);
        }
    }
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", scratch_directory, name);
    return path;
}

static inline void scratch_remove(void) {
    if (scratch_directory[0]) pb_fs_remove(scratch_directory);
    scratch_directory[0] = '\0';
}

#endif
