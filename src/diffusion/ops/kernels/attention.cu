// Attention without a matrix of scores in memory (FlashAttention-2, Dao 2023) on tensor cores: products of halves
// summed in f32, softmax in f32 as the keys pass by.
#include "types.cuh"

// A tile of a product: c [16, 8] += a [16, 16] b [16, 8]. Of a warp's lane with row = lane / 4 and pair = lane % 4 · 2,
// a holds (row, pair), (row + 8, pair), (row, pair + 8), (row + 8, pair + 8), b (pair, row), (pair + 8, row), each with
// its neighbour along the inner dimension, c (row, pair), (row, pair + 1), (row + 8, pair), (row + 8, pair + 1): PTX
// ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".
#ifdef __CUDACC__
template <typename T> __device__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1);
template <>
__device__ inline void multiply<__half>(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void multiply<__nv_bfloat16>(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

// Two neighbours in one register, the first in the lower half.
template <typename T> __device__ inline unsigned both(const T *at) { return *reinterpret_cast<const unsigned *>(at); }

template <typename T> __device__ inline unsigned both(float first, float second) {
    __align__(4) T pair[2];
    narrow(first, &pair[0]);
    narrow(second, &pair[1]);
    return both(pair);
}

// The largest and the sum of a value of each of the four lanes that hold a row.
__device__ inline float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ inline float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// q, y [pictures, n, heads · width], k, v [pictures, m, heads · width], width a multiple of 8, at most WIDTH. `mask`,
// or null, is added to the scores times `scale`; its strides go with picture, head, query and key.
//
// Block of 128: each of the 4 warps has 16 queries. Grid (parts of 64 queries, heads, pictures). Keys and values pass
// through shared memory, KEYS at a time: keys [KEYS][WIDTH + 8], values turned [WIDTH][KEYS + 8]; the 8 keep the
// lanes of a warp on different banks.
template <typename T, int WIDTH, int KEYS>
__device__ void attention(const T *q, const T *k, const T *v, const float *mask, T *y, int n, int m, int width,
                          float scale, int by_picture, int by_head, int by_query, int by_key) {
    extern __shared__ __align__(16) float scratch[];
    T *keys = reinterpret_cast<T *>(scratch), *values = keys + KEYS * (WIDTH + 8);
    const int lane = threadIdx.x % 32, row = lane / 4, pair = lane % 4 * 2;
    const int top = blockIdx.x * 64 + threadIdx.x / 32 * 16 + row;
    const int head = blockIdx.y, picture = blockIdx.z, wide_row = gridDim.y * width;
    q += (size_t)picture * n * wide_row + head * width;
    k += (size_t)picture * m * wide_row + head * width;
    v += (size_t)picture * m * wide_row + head * width;
    y += (size_t)picture * n * wide_row + head * width;
    if (mask) mask += (long long)picture * by_picture + (long long)head * by_head;

    unsigned query[WIDTH / 16][4];
    for (int i = 0; i < WIDTH / 16; i++) {
        for (int part = 0; part < 4; part++) {
            const int at = top + part % 2 * 8, channel = i * 16 + pair + part / 2 * 8;
            query[i][part] = at < n && channel < width ? both(q + (size_t)at * wide_row + channel) : 0;
        }
    }
    float sums[WIDTH / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};

    for (int first = 0; first < m; first += KEYS) {
        __syncthreads();
        for (int i = threadIdx.x; i < KEYS * (WIDTH / 8); i += blockDim.x) {
            const int key = i / (WIDTH / 8), channel = i % (WIDTH / 8) * 8;
            uint4 some = {0, 0, 0, 0}, more = {0, 0, 0, 0};
            if (first + key < m && channel < width) {
                const size_t at = (size_t)(first + key) * wide_row + channel;
                some = *reinterpret_cast<const uint4 *>(k + at);
                more = *reinterpret_cast<const uint4 *>(v + at);
            }
            *reinterpret_cast<uint4 *>(keys + key * (WIDTH + 8) + channel) = some;
            const T *turned = reinterpret_cast<const T *>(&more);
            for (int j = 0; j < 8; j++) values[(channel + j) * (KEYS + 8) + key] = turned[j];
        }
        __syncthreads();

        float scores[KEYS / 8][4];
        for (int tile = 0; tile < KEYS / 8; tile++) {
            float sum[4] = {0, 0, 0, 0};
            const T *at = keys + (tile * 8 + row) * (WIDTH + 8) + pair;
            for (int i = 0; i < WIDTH / 16; i++) {
                multiply<T>(sum, query[i], both(at + i * 16), both(at + i * 16 + 8));
            }
            for (int part = 0; part < 4; part++) {
                const int key = first + tile * 8 + pair + part % 2, at = top + part / 2 * 8;
                float score = sum[part] * scale;
                if (mask && key < m && at < n) {
                    score += mask[(long long)at * by_query + (long long)key * by_key];
                }
                // In powers of 2 from here on.
                scores[tile][part] = key < m ? score * 1.44269504f : -INFINITY;
            }
        }

        for (int half = 0; half < 2; half++) {
            float most = largest[half];
            for (int tile = 0; tile < KEYS / 8; tile++) {
                most = fmaxf(most, fmaxf(scores[tile][2 * half], scores[tile][2 * half + 1]));
            }
            most = row_max(most);
            // Where no key has been seen yet, there is nothing to subtract and nothing to rescale.
            const float base = most == -INFINITY ? 0.0f : most, shrink = exp2f(largest[half] - base);
            float sum = 0;
            for (int tile = 0; tile < KEYS / 8; tile++) {
                for (int part = 2 * half; part < 2 * half + 2; part++) {
                    scores[tile][part] = exp2f(scores[tile][part] - base);
                    sum += scores[tile][part];
                }
            }
            total[half] = total[half] * shrink + row_sum(sum);
            largest[half] = most;
            for (int tile = 0; tile < WIDTH / 8; tile++) {
                sums[tile][2 * half] *= shrink;
                sums[tile][2 * half + 1] *= shrink;
            }
        }

        // Two tiles of scores lie as one tile of a left factor.
        for (int i = 0; i < KEYS / 16; i++) {
            const float(&left)[4] = scores[2 * i], (&right)[4] = scores[2 * i + 1];
            const unsigned weights[4] = {both<T>(left[0], left[1]), both<T>(left[2], left[3]),
                                         both<T>(right[0], right[1]), both<T>(right[2], right[3])};
            for (int tile = 0; tile < WIDTH / 8; tile++) {
                const T *at = values + (tile * 8 + row) * (KEYS + 8) + i * 16 + pair;
                multiply<T>(sums[tile], weights, both(at), both(at + 8));
            }
        }
    }

    for (int half = 0; half < 2; half++) {
        const int at = top + half * 8;
        const float scaling = 1.0f / total[half];
        for (int tile = 0; tile < WIDTH / 8; tile++) {
            const int channel = tile * 8 + pair;
            if (at < n && channel < width) {
                T *to = y + (size_t)at * wide_row + channel;
                narrow(sums[tile][2 * half] * scaling, &to[0]);
                narrow(sums[tile][2 * half + 1] * scaling, &to[1]);
            }
        }
    }
}

#define ENTRY(SUFFIX, T, WIDTH, KEYS)                                                                                  \
    extern "C" __global__ void attention_##WIDTH##_##SUFFIX(const T *q, const T *k, const T *v, const float *mask,     \
                                                            T *y, int n, int m, int width, float scale,                \
                                                            int by_picture, int by_head, int by_query, int by_key) {   \
        attention<T, WIDTH, KEYS>(q, k, v, mask, y, n, m, width, scale, by_picture, by_head, by_query, by_key);        \
    }
#define ENTRIES(SUFFIX, T)                                                                                             \
    ENTRY(SUFFIX, T, 48, 64) ENTRY(SUFFIX, T, 64, 64) ENTRY(SUFFIX, T, 80, 64) ENTRY(SUFFIX, T, 160, 32)
ENTRIES(f16, __half)
ENTRIES(bf16, __nv_bfloat16)
#undef ENTRIES
#undef ENTRY
