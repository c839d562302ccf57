// Group norm (Wu & He 2018) with SiLU and layer norm, over NHWC.
#include "types.cuh"

// Both kernels of a group norm: block (channels of whole groups, lanes of pixels), grid (parts of the pixels,
// parts of the channels, pictures).
//
// `partial` [pictures, groups, parts, 2]: sums of what a group's values and their squares are above the first value of
// the group, so that a mean far from 0 costs no precision. Shared memory: 2 floats a thread.
template <typename T>
__device__ void group_sums(const T *x, float *partial, int pixels, int channels, int groups, int each) {
    extern __shared__ __align__(16) float scratch[];
    const int size = channels / groups, channel = blockIdx.y * blockDim.x + threadIdx.x;
    const int first = blockIdx.x * each, last = min(first + each, pixels);
    x += (size_t)blockIdx.z * pixels * channels;
    float sum = 0, squares = 0;
    if (channel < channels) {
        const float origin = wide(x[channel / size * size]);
        for (int pixel = first + threadIdx.y; pixel < last; pixel += blockDim.y) {
            const float above = wide(x[(size_t)pixel * channels + channel]) - origin;
            sum += above;
            squares += above * above;
        }
    }
    const int threads = blockDim.x * blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
    scratch[thread] = sum;
    scratch[threads + thread] = squares;
    __syncthreads();
    const int here = blockDim.x / size, group = blockIdx.y * here + thread;
    if (thread < here && group < groups) {
        sum = squares = 0;
        for (int lane = 0; lane < (int)blockDim.y; lane++) {
            for (int i = 0; i < size; i++) {
                const int other = lane * blockDim.x + thread * size + i;
                sum += scratch[other];
                squares += scratch[threads + other];
            }
        }
        partial += (((size_t)blockIdx.z * groups + group) * gridDim.x + blockIdx.x) * 2;
        partial[0] = sum;
        partial[1] = squares;
    }
}

// Normalises, weighs and shifts, with SiLU after it if `silu`. Shared memory: 2 floats a group of the block.
template <typename T>
__device__ void group_norm(const T *x, const float *partial, const T *weight, const T *bias, T *y, int pixels,
                           int channels, int groups, int each, int parts, float eps, int silu) {
    extern __shared__ __align__(16) float scratch[];
    const int size = channels / groups, channel = blockIdx.y * blockDim.x + threadIdx.x;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    const int here = blockDim.x / size, group = blockIdx.y * here + thread;
    x += (size_t)blockIdx.z * pixels * channels;
    y += (size_t)blockIdx.z * pixels * channels;
    if (thread < here && group < groups) {
        partial += ((size_t)blockIdx.z * groups + group) * parts * 2;
        float sum = 0, squares = 0;
        for (int part = 0; part < parts; part++) {
            sum += partial[2 * part];
            squares += partial[2 * part + 1];
        }
        const float count = (float)pixels * size, above = sum / count;
        const float variance = fmaxf(squares / count - above * above, 0.0f);
        scratch[2 * thread] = wide(x[group * size]) + above;
        scratch[2 * thread + 1] = 1.0f / sqrtf(variance + eps);
    }
    __syncthreads();
    if (channel >= channels) return;
    const float mean = scratch[2 * (threadIdx.x / size)];
    const float scale = scratch[2 * (threadIdx.x / size) + 1] * wide(weight[channel]), shift = wide(bias[channel]);
    const int first = blockIdx.x * each, last = min(first + each, pixels);
    for (int pixel = first + threadIdx.y; pixel < last; pixel += blockDim.y) {
        const size_t at = (size_t)pixel * channels + channel;
        float value = (wide(x[at]) - mean) * scale + shift;
        if (silu) value = value / (1.0f + expf(-value));
        narrow(value, &y[at]);
    }
}

// The sum of a value of each thread; `scratch` holds a float a thread, and their number is a power of 2.
__device__ inline float block_sum(float value, float *scratch) {
    scratch[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
        __syncthreads();
    }
    const float sum = scratch[0];
    __syncthreads();
    return sum;
}

// A block a row. Shared memory: a float a thread and the row.
template <typename T>
__device__ void layer_norm(const T *x, const T *weight, const T *bias, T *y, int channels, float eps) {
    extern __shared__ __align__(16) float scratch[];
    float *row = scratch + blockDim.x;
    x += (size_t)blockIdx.x * channels;
    y += (size_t)blockIdx.x * channels;
    float sum = 0;
    for (int i = threadIdx.x; i < channels; i += blockDim.x) {
        row[i] = wide(x[i]);
        sum += row[i];
    }
    const float mean = block_sum(sum, scratch) / channels;
    sum = 0;
    for (int i = threadIdx.x; i < channels; i += blockDim.x) {
        const float centred = row[i] - mean;
        sum += centred * centred;
    }
    const float scale = 1.0f / sqrtf(block_sum(sum, scratch) / channels + eps);
    for (int i = threadIdx.x; i < channels; i += blockDim.x) {
        narrow((row[i] - mean) * scale * wide(weight[i]) + wide(bias[i]), &y[i]);
    }
}

#define ENTRY(SUFFIX, T)                                                                                               \
    extern "C" __global__ void group_sums_##SUFFIX(const T *x, float *partial, int pixels, int channels, int groups,   \
                                                   int each) {                                                         \
        group_sums(x, partial, pixels, channels, groups, each);                                                        \
    }                                                                                                                  \
    extern "C" __global__ void group_norm_##SUFFIX(const T *x, const float *partial, const T *weight, const T *bias,   \
                                                   T *y, int pixels, int channels, int groups, int each, int parts,    \
                                                   float eps, int silu) {                                              \
        group_norm(x, partial, weight, bias, y, pixels, channels, groups, each, parts, eps, silu);                     \
    }                                                                                                                  \
    extern "C" __global__ void layer_norm_##SUFFIX(const T *x, const T *weight, const T *bias, T *y, int channels,     \
                                                   float eps) {                                                        \
        layer_norm(x, weight, bias, y, channels, eps);                                                                 \
    }
FOR_EACH_TYPE(ENTRY)
#undef ENTRY
