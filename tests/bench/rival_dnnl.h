// oneDNN's times on the shapes of bench_contractions.c; zeros where it was not found when this was built.
#ifndef PB_TESTS_RIVAL_DNNL_H
#define PB_TESTS_RIVAL_DNNL_H

#include "base/dtype.h"

extern const char rival_dnnl_version[];  // or ""

typedef struct rival_run {
    int repeats;
    void (*before)(void);  // each repetition
    double (*now)(void);   // seconds
} rival_run;

// The best time of forward, input gradient and weight gradient.
// x and y are NHWC. A convolution runs in the layout of weights that oneDNN prefers, and the time to bring ours there
// (or the gradient back) counts: weights change with every step.
void rival_dnnl_conv(pb_dtype dtype, int size, int in, int out, int stride, const rival_run *run, double seconds[3]);
void rival_dnnl_linear(pb_dtype dtype, int rows, int in, int out, const rival_run *run, double seconds[3]);

#endif
