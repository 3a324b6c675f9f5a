// The clock that everything is timed by.
#ifndef PB_BASE_CLOCK_H
#define PB_BASE_CLOCK_H

#include <time.h>

// Seconds of the monotonic clock, which no change of the date moves.
static inline double pb_seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
