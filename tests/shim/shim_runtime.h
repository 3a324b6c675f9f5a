// Fibers for the shim's scheduler: stacks that are switched between by hand. ucontext would do, but makes a system call
// for the signal mask at every switch, and a block switches tens of thousands of times.
#ifndef PB_TESTS_SHIM_SHIM_RUNTIME_H
#define PB_TESTS_SHIM_SHIM_RUNTIME_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/compat.h"

struct shim_fiber {
    void *stack;  // NULL: that of the caller, the scheduler
    size_t bytes;
    void *context;     // where it stopped: a stack pointer, or a ucontext_t
    void *fake_stack;  // AddressSanitizer's
};

void shim_fiber_create(shim_fiber *fiber, size_t bytes, void (*life)(void *));  // `life` must not return
void shim_fiber_switch(shim_fiber *from, shim_fiber *to);

// The order that the test has chosen; whether the barrier or wait at a place is to be left out; whether a thread of the
// block that has ended did not wait for its copies, which are forgotten.
shim_order shim_order_now(void);
bool shim_is_left_out(const char *file, int line);
bool shim_forget_copies(void);

// Something that a card would not do, or not do as meant. It stops the test, unless shim_expect_faults was called.
void shim_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool shim_is_shared(const void *p, size_t bytes);  // lies within what the block has of shared memory

bool shim_is_own(const void *p);  // on the stack of the thread that runs

// The watched shim (shim_watch.cc) is told what happens besides loads and stores, which it sees by itself. `from`: the
// place in the code.
#ifdef PB_SHIM_WATCHED
void watch_launch(const char *op);
void watch_block(void);
void watch_end_of_block(void);
void watch_block_barrier(void);  // which this thread has passed
void watch_warp_barrier(void);
void watch_copy(void *to, const void *source, int bytes, int group, const void *from);  // asynchronous; NULL: of zeros
void watch_wait(int groups);                             // this thread's copies of groups before that one are complete
void watch_rows(const uint16_t *row, const void *from);  // this thread's row of a matrix
// Between its two halves.
void count_access(uintptr_t at, unsigned bytes, bool shared, const void *from);
void count_end_of_block(void);
const char *watch_place(const void *from);  // "file.cu:line"; until the next call
#else
static inline void watch_launch(const char *) {
}
static inline void watch_block(void) {
}
static inline void watch_end_of_block(void) {
}
static inline void watch_block_barrier(void) {
}
static inline void watch_warp_barrier(void) {
}
static inline void watch_copy(void *, const void *, int, int, const void *) {
}
static inline void watch_wait(int) {
}
static inline void watch_rows(const uint16_t *, const void *) {
}
#endif

#endif
