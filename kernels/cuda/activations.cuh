// Activations and their slopes in fp32: SiLU x s(x), quick GELU x s(1.702 x), GELU x Phi(x), with s the logistic
// function and Phi the Gaussian distribution. erfc rather than 1 + erf: no cancellation where x is negative.
#ifndef PB_KERNELS_CUDA_ACTIVATIONS_CUH
#define PB_KERNELS_CUDA_ACTIVATIONS_CUH

#include "kernels/cuda/compat.h"

__device__ __forceinline__ float logistic(float x) {
    return 1.0f / (1.0f + expf(-x));
}

__device__ __forceinline__ float gauss_distribution(float x) {
    return 0.5f * erfcf(-0.70710678f * x);
}

__device__ __forceinline__ float gauss_density(float x) {
    return 0.39894228f * expf(-0.5f * x * x);
}

template <int KIND> __device__ __forceinline__ float activation(float x) {
    if constexpr (KIND == PB_UNARY_GELU)
        return x * gauss_distribution(x);
    else
        return x * logistic(KIND == PB_UNARY_QUICK_GELU ? 1.702f * x : x);
}

template <int KIND> __device__ __forceinline__ float activation_slope(float x) {
    if constexpr (KIND == PB_UNARY_GELU) return gauss_distribution(x) + x * gauss_density(x);
    const float z = KIND == PB_UNARY_QUICK_GELU ? 1.702f * x : x, s = logistic(z);
    return s * (1.0f + z * (1.0f - s));
}

#endif
