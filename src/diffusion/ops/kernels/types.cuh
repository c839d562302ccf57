// Number types of the kernels. Sums and functions are computed in f32 whatever a tensor holds.
//
// nvcc compiles these files for the device; the tests compile them as plain C++ against `host.hpp`, which plays
// the device, and hold them to candle's operations on the CPU.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

__device__ inline float wide(float x) { return x; }
__device__ inline float wide(__half x) { return __half2float(x); }
__device__ inline float wide(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ inline void narrow(float x, float *y) { *y = x; }
__device__ inline void narrow(float x, __half *y) { *y = __float2half_rn(x); }
__device__ inline void narrow(float x, __nv_bfloat16 *y) { *y = __float2bfloat16_rn(x); }

// Defines one entry for each number type: ENTRY(suffix of its name, type).
#define FOR_EACH_TYPE(ENTRY) ENTRY(f32, float) ENTRY(f16, __half) ENTRY(bf16, __nv_bfloat16)
