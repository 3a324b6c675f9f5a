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

#endif
