// Small kernels with a fault each, which the watched shim has to find, and some without one, where it must find none.
#ifndef PB_TESTS_SHIM_PLANTED_H
#define PB_TESTS_SHIM_PLANTED_H

typedef struct planted_fault {
    const char *what;
    const char *text;  // part of what the shim says; NULL: nothing
    void (*run)(void);
} planted_fault;

const planted_fault *planted_faults(int *count);

// NULL, or which of the matrix instructions does not do what PTX says (fragments.cc).
const char *fragments_fault(void);

#endif
