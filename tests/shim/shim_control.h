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

// Whether kernels are told that there are matrix units; they are unless a test says otherwise.
void shim_set_matrix_units(bool present);
uint64_t shim_matrix_products(void);  // so far, counted per thread

// A fault of a kernel stops the test unless faults are expected: then they are counted from this call on, and the first
// one's text is kept.
void shim_expect_faults(bool expect);
int shim_faults(void);
const char *shim_first_fault(void);

// Of the watched shim only: what accesses cost, by place in the source (shim_count.cc).
typedef struct shim_accesses {
    const char *place;  // "file.cu:line"
    bool is_shared;
    int bytes;          // of one thread's access
    uint64_t accesses;  // by warps
    uint64_t pieces;    // shared: passes that the banks need; else sectors of 32 bytes that are touched
    uint64_t least;     // what they would be without conflicts, or were all bytes used
} shim_accesses;
void shim_count_accesses(bool count);  // from now on; forgets what was counted
int shim_counted(const shim_accesses **list);

// Threads that ran so far, over all launches.
uint64_t shim_threads_run(void);

#endif
