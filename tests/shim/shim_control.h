// What tests choose about the shim: the order of threads and blocks, and a barrier to leave out.
#ifndef PB_TESTS_SHIM_SHIM_CONTROL_H
#define PB_TESTS_SHIM_SHIM_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

typedef enum shim_order { SHIM_FORWARD, SHIM_REVERSED, SHIM_RANDOM, SHIM_ORDERS } shim_order;

void shim_set_order(shim_order order, uint64_t seed);

// The barriers that kernels have reached so far, as "file:line", numbered as they came. `skip` >= 0: the barrier of
// that number lets every thread pass; -1: none.
int shim_barriers(void);
const char *shim_barrier_place(int barrier);
bool shim_barrier_reached(int barrier);  // since the last call of shim_forget_barriers
void shim_forget_barriers(void);
void shim_skip_barrier(int barrier);

// Threads that ran so far, over all launches.
uint64_t shim_threads_run(void);

#endif
