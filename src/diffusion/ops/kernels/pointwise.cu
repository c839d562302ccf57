// What follows a product, and what only moves pixels. Every kernel: block (channels, lanes of rows), so that a
// thread keeps its channel and neighbours read neighbours.
#include "types.cuh"

// y[row][channel] = x + bias[channel] + shift[row / each][channel] + beside[row][channel]; each of the three may be
// null. Grid (parts of the rows, parts of the channels).
template <typename T>
__device__ void finish(const T *x, const T *bias, const T *shift, const T *beside, T *y, int rows, int channels,
                       int each) {
    const int channel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    const float constant = bias ? wide(bias[channel]) : 0.0f;
    for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += gridDim.x * blockDim.y) {
        const size_t at = (size_t)row * channels + channel;
        float value = wide(x[at]) + constant;
        if (shift) value += wide(shift[(size_t)(row / each) * channels + channel]);
        if (beside) value += wide(beside[at]);
        narrow(value, &y[at]);
    }
}

// GEGLU (Shazeer 2020): x [rows, 2 half] and its bias (or null) → y [rows, half], the first half times the exact GELU
// of the second. Grid as above.
template <typename T>
__device__ void geglu(const T *x, const T *bias, T *y, int rows, int half) {
    const int channel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= half) return;
    const float low = bias ? wide(bias[channel]) : 0.0f, high = bias ? wide(bias[half + channel]) : 0.0f;
    for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += gridDim.x * blockDim.y) {
        const T *from = x + (size_t)row * 2 * half;
        const float value = wide(from[channel]) + low, gate = wide(from[half + channel]) + high;
        narrow(value * 0.5f * gate * (1.0f + erff(gate * 0.70710678f)), &y[(size_t)row * half + channel]);
    }
}

// Nearest-neighbour resize of x [pictures, from_height, from_width, channels] to y [pictures, height, width,
// channels], torch's `nearest`. A row is a pixel of y. Grid as above.
template <typename T>
__device__ void enlarge(const T *x, T *y, int rows, int channels, int from_height, int from_width, int height,
                        int width) {
    const int channel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += gridDim.x * blockDim.y) {
        const int picture = row / (height * width), line = row / width % height, column = row % width;
        const int above = (int)((long long)line * from_height / height);
        const int left = (int)((long long)column * from_width / width);
        const size_t from = ((size_t)picture * from_height + above) * from_width + left;
        y[(size_t)row * channels + channel] = x[from * channels + channel];
    }
}

// The values under a k × k kernel, for pixels `first`.. of a convolution's result [pictures, out_height, out_width]:
// y [rows, k, k, channels], zero outside of x [pictures, height, width, channels]. A row is a tap of a pixel:
// pixel · k · k + tap. Grid as above.
template <typename T>
__device__ void gather(const T *x, T *y, int rows, int channels, int height, int width, int out_height,
                       int out_width, int kernel, int stride, int before, int first) {
    const int channel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    const int taps = kernel * kernel;
    for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += gridDim.x * blockDim.y) {
        const int pixel = first + row / taps, tap = row % taps;
        const int picture = pixel / (out_height * out_width), line = pixel / out_width % out_height;
        const int above = line * stride + tap / kernel - before;
        const int left = pixel % out_width * stride + tap % kernel - before;
        const size_t from = ((size_t)picture * height + above) * width + left;
        const size_t to = (size_t)row * channels + channel;
        if (above >= 0 && above < height && left >= 0 && left < width) {
            y[to] = x[from * channels + channel];
        } else {
            narrow(0.0f, &y[to]);
        }
    }
}

#define ENTRY(SUFFIX, T)                                                                                               \
    extern "C" __global__ void finish_##SUFFIX(const T *x, const T *bias, const T *shift, const T *beside, T *y,       \
                                               int rows, int channels, int each) {                                     \
        finish(x, bias, shift, beside, y, rows, channels, each);                                                       \
    }                                                                                                                  \
    extern "C" __global__ void geglu_##SUFFIX(const T *x, const T *bias, T *y, int rows, int half) {                   \
        geglu(x, bias, y, rows, half);                                                                                 \
    }                                                                                                                  \
    extern "C" __global__ void enlarge_##SUFFIX(const T *x, T *y, int rows, int channels, int from_height,             \
                                                int from_width, int height, int width) {                               \
        enlarge(x, y, rows, channels, from_height, from_width, height, width);                                         \
    }                                                                                                                  \
    extern "C" __global__ void gather_##SUFFIX(const T *x, T *y, int rows, int channels, int height, int width,        \
                                               int out_height, int out_width, int kernel, int stride, int before,      \
                                               int first) {                                                            \
        gather(x, y, rows, channels, height, width, out_height, out_width, kernel, stride, before, first);             \
    }
FOR_EACH_TYPE(ENTRY)
#undef ENTRY
