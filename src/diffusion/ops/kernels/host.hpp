// A device played by the host, one thread after the other: what the kernels need of CUDA, for the tests alone.
//
// The threads of a block are fibres of one thread. Each runs until it waits at a barrier, and they take turns in an
// order the caller chooses: a kernel whose result depends on that order lacks a barrier. Shared memory starts out as
// NaN, and what lies past its end must stay as it was; arrays end where their memory ends, so that to read on is to
// fall. Threads that wait for one that is gone are told.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define __device__
#define __global__
#define __shared__
#define __align__(bytes) __attribute__((aligned(bytes)))

using std::max;
using std::min;

struct Index {
    unsigned x, y, z;
    unsigned volume() const { return x * y * z; }
};
static Index threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

struct __half {
    uint16_t bits;
};
struct __nv_bfloat16 {
    uint16_t bits;
};

inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline float __bfloat162float(__nv_bfloat16 x) { return of_bits((uint32_t)x.bits << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    const uint32_t bits = bits_of(x);
    if (std::isnan(x)) return {0x7fff};
    return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline float __half2float(__half x) {
    const float sign = x.bits & 0x8000 ? -1.0f : 1.0f;
    const int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
    if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp((float)mantissa, -24);
    return sign * std::ldexp((float)(mantissa + 1024), exponent - 25);
}
inline __half __float2half_rn(float x) {
    const uint16_t sign = bits_of(x) >> 16 & 0x8000;
    if (std::isnan(x)) return {0x7fff};
    const float size = std::fabs(x);
    if (size >= 65520.0f) return {(uint16_t)(sign | 0x7c00)};
    // The unit of the last place: of the smallest normal number, or of this one. nearbyint rounds halves to even.
    const int exponent = size == 0 ? -14 : max(std::ilogb(size), -14);
    const int units = (int)std::nearbyint(std::ldexp(size, 10 - exponent));
    return {(uint16_t)(sign + ((exponent + 14) << 10) + units)};
}

// ---- Threads.

constexpr size_t SHARED = 48 << 10, BEYOND = 4 << 10, STACK = 64 << 10;
alignas(16) float scratch[(SHARED + BEYOND) / 4];

[[noreturn]] inline void fail(const std::string &why) {
    fprintf(stderr, "%s\n", why.c_str());
    exit(3);
}

struct Barrier {
    int members = 0, arrived = 0;
    long round = 0;
};

struct Fibre {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK);
    Index index{};
    bool done = false;
};

static std::vector<Fibre> fibres;
static std::vector<Barrier> warps;
static Barrier block;
static ucontext_t scheduler;
static size_t current;
static bool moved;
static std::function<void()> kernel;

inline void wait(Barrier &barrier) {
    const long round = barrier.round;
    if (++barrier.arrived == barrier.members) {
        barrier.arrived = 0;
        barrier.round++;
        moved = true;
    }
    while (barrier.round == round) swapcontext(&fibres[current].context, &scheduler);
}
inline void __syncthreads() { wait(block); }

// What the lanes of each warp show each other.
struct Shown {
    float c[4];
    unsigned a[4], b[2];
};
static std::vector<Shown> shown;
inline Barrier &warp() { return warps[current / 32]; }

inline float __shfl_xor_sync(unsigned, float x, int distance) {
    shown[current].c[0] = x;
    wait(warp());
    const float other = shown[current ^ distance].c[0];
    wait(warp());
    return other;
}

template <typename T> inline float half_of(unsigned pair, int which) {
    const T x = {(uint16_t)(pair >> 16 * which)};
    if constexpr (std::is_same<T, __half>::value) return __half2float(x);
    else return __bfloat162float(x);
}

// mma.m16n8k16, written from the tables of the PTX ISA and not from the kernel: element (r, c) of a is in lane
// 4 (r mod 8) + (c mod 8) / 2, register r / 8 + 2 (c / 8), half c mod 2; element (r, c) of b in lane 4 c + (r mod 8) / 2,
// register r / 8, half r mod 2; element (r, c) of c in lane 4 (r mod 8) + c / 2, register 2 (r / 8) + c mod 2.
template <typename T> inline void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    const size_t first = current / 32 * 32, lane = current % 32;
    Shown &mine = shown[current];
    memcpy(mine.a, a, sizeof a);
    mine.b[0] = b0;
    mine.b[1] = b1;
    wait(warp());
    for (int part = 0; part < 4; part++) {
        const int row = lane / 4 + 8 * (part / 2), column = lane % 4 * 2 + part % 2;
        float sum = 0;
        for (int k = 0; k < 16; k++) {
            const Shown &of_a = shown[first + 4 * (row % 8) + k % 8 / 2];
            const Shown &of_b = shown[first + 4 * column + k % 8 / 2];
            sum += half_of<T>(of_a.a[row / 8 + 2 * (k / 8)], k % 2) * half_of<T>(of_b.b[k / 8], k % 2);
        }
        c[part] += sum;
    }
    wait(warp());
}

inline void enter() {
    kernel();
    // A thread that has returned is waited for no longer.
    fibres[current].done = true;
    moved = true;
    for (Barrier *barrier : {&block, &warp()}) {
        if (--barrier->members > 0 && barrier->arrived == barrier->members) {
            barrier->arrived = 0;
            barrier->round++;
        }
    }
    swapcontext(&fibres[current].context, &scheduler);
}

// Runs `kernel` for every thread of every block; the threads of a block take turns in an order that `seed` tells:
// 0 as they are counted, 1 backwards, others mixed.
inline void run(Index grid, Index threads, size_t shared, unsigned seed) {
    gridDim = grid;
    blockDim = threads;
    const size_t count = threads.volume();
    if (shared > SHARED) fail("too much shared memory");
    if (count == 0 || count > 1024 || grid.y > 65535 || grid.z > 65535) fail("no such launch");
    if (fibres.size() < count) fibres.resize(count);
    shown.resize(count);
    std::vector<size_t> order(count);
    for (size_t i = 0; i < count; i++) order[i] = seed == 1 ? count - 1 - i : i;
    for (size_t i = count - 1; i > 0 && seed > 1; i--) {
        seed = seed * 1664525u + 1013904223u;
        std::swap(order[i], order[(seed >> 8) % (i + 1)]);
    }
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                memset(scratch, 0xff, sizeof scratch);
                block = {(int)count, 0, 0};
                warps.assign((count + 31) / 32, Barrier{});
                for (size_t i = 0; i < count; i++) {
                    Fibre &fibre = fibres[i];
                    warps[i / 32].members++;
                    fibre.done = false;
                    fibre.index = {(unsigned)i % threads.x, (unsigned)i / threads.x % threads.y,
                                   (unsigned)i / (threads.x * threads.y)};
                    getcontext(&fibre.context);
                    fibre.context.uc_stack.ss_sp = fibre.stack.data();
                    fibre.context.uc_stack.ss_size = STACK;
                    fibre.context.uc_link = nullptr;
                    makecontext(&fibre.context, enter, 0);
                }
                for (size_t left = count; left > 0;) {
                    moved = false;
                    left = 0;
                    for (size_t i : order) {
                        if (fibres[i].done) continue;
                        current = i;
                        threadIdx = fibres[i].index;
                        swapcontext(&scheduler, &fibres[i].context);
                        left += !fibres[i].done;
                    }
                    if (left > 0 && !moved) fail("threads wait for others that never come");
                }
                const char *past = reinterpret_cast<const char *>(scratch) + shared;
                for (size_t i = 0; i < sizeof scratch - shared; i++) {
                    if (past[i] != (char)0xff) fail("written past the end of shared memory");
                }
            }
}
