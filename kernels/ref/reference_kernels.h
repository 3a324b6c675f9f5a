// The scalar reference, one kernel per op of ops.def, which gives their arguments: plain loops in double over any
// storage dtype. Nothing here is fast; everything here is meant to be read and believed.
#ifndef PB_KERNELS_REF_REFERENCE_KERNELS_H
#define PB_KERNELS_REF_REFERENCE_KERNELS_H

#include "base/op.h"

// The workspace queries exist for the ops that backend_reference.c lists with one.
#define PB_OP(name, NAME, gradient, kind, inplace)  \
    void pb_ref_##name(const pb_kernel_args *args); \
    uint64_t pb_ref_##name##_workspace(const pb_kernel_args *args);
#include "base/ops.def"
#undef PB_OP

// adamw where master or moments are not all fp32 or fp64.
void ref_adamw_states(const pb_kernel_args *args);

static inline bool ref_has(const pb_tensor *t) {
    return t->data != NULL;
}

static inline double ref_get(const pb_tensor *t, int64_t i) {
    return pb_dtype_load(t->dtype, t->data, (size_t)i);
}

static inline void ref_put(const pb_tensor *t, int64_t i, double value) {
    pb_dtype_store(t->dtype, t->data, (size_t)i, value);
}

// What `value` becomes when an op of its own stores it in `dtype` and the next one loads it.
static inline double ref_round(pb_dtype dtype, double value) {
    double stored;
    pb_dtype_store(dtype, &stored, 0, value);
    return pb_dtype_load(dtype, &stored, 0);
}

// Element o of a bias that may be absent. It is kept in fp32 and rounded to y's dtype, as autocast casts it.
static inline double ref_bias(const pb_tensor *y, const pb_tensor *bias, int64_t o) {
    return ref_has(bias) ? ref_round(y->dtype, ref_get(bias, o)) : 0;
}

// value, plus element i of a tensor that may be absent, as a separate addition in y's dtype.
static inline double ref_add(const pb_tensor *y, double value, const pb_tensor *addend, int64_t i) {
    return ref_has(addend) ? ref_round(y->dtype, value) + ref_get(addend, i) : value;
}

#endif
