// The activation functions and their derivatives in double, shared by unary, geglu and group_norm.
#ifndef PB_KERNELS_REF_REFERENCE_ACTIVATIONS_H
#define PB_KERNELS_REF_REFERENCE_ACTIVATIONS_H

#include "base/op.h"

double ref_activation(pb_unary_kind kind, double x);
double ref_activation_slope(pb_unary_kind kind, double x);

#endif
