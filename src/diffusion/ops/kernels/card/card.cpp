// A whole card, played by the host: the driver's library, cuBLAS, cuBLASLt, cuRAND and cuDNN as far as flow calls them. A
// program built with `cuda` runs on it unchanged, slowly: `.ci/played-card`.
//
// Our kernels run as in the tests; candle's are done by what they mean (`candle.hpp`). Memory is the host's, starts out as NaN,
// and is overwritten when it is given back. While a graph is recorded, whatever CUDA forbids then is refused. Copies out of
// page-locked memory are made as late as a card may make them (`stream.hpp`).
#include "../host.hpp"

#include "../attention.cu"
#include "../norm.cu"
#include "../pointwise.cu"

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <tuple>

using Work = std::function<void()>;
using Address = unsigned long long;

struct Graph {
    std::vector<Work> work;
    std::set<Address> arrays;
};

// What is being recorded, if anything is.
static Graph *recording = nullptr;
static std::map<Address, size_t> arrays;
static long launches, recorded, repeated, fused, fetched;

static struct Told {
    ~Told() {
        fprintf(stderr, "played card: %ld launches, %ld of them linears with all after them, %ld graphs recorded, %ld repeated, ",
                launches, fused, recorded, repeated);
        fprintf(stderr, "%ld copies out of page-locked memory\n", fetched);
    }
} told;

static int refuse(const char *what) {
    fprintf(stderr, "played card: %s\n", what);
    return 900;
}

#include "stream.hpp"

// A launch's arguments, by number.
struct Arguments {
    void **at;
    template <typename T> T get(int i) const { return *static_cast<T *>(at[i]); }
};

#include "candle.hpp"
#include "libraries.hpp"

template <typename... A, size_t... I>
static Work bind(void (*function)(A...), Arguments arguments, std::index_sequence<I...>) {
    const std::tuple<A...> all{arguments.get<A>(I)...};
    return [=] { kernel = [=] { std::apply(function, all); }; };
}

// Our own kernels: what is to be run for each thread. Nothing for a name that is not ours.
static Work own(const std::string &name, Arguments arguments) {
#define K(NAME)                                                                                                        \
    if (name == #NAME) return bind(NAME, arguments);
#define TYPES(NAME) K(NAME##_f32) K(NAME##_f16) K(NAME##_bf16)
#define HALVES(NAME) K(NAME##_f16) K(NAME##_bf16)
    const auto bind = [](auto function, Arguments arguments) {
        const auto all = [&]<typename... A>(void (*f)(A...)) { return ::bind(f, arguments, std::index_sequence_for<A...>{}); };
        return all(function);
    };
    TYPES(group_sums) TYPES(group_norm) TYPES(layer_norm)
    TYPES(finish) TYPES(geglu) TYPES(enlarge) TYPES(gather)
    HALVES(attention_48) HALVES(attention_64) HALVES(attention_80) HALVES(attention_160)
#undef K
    return {};
}

extern "C" {
int cuInit(unsigned) { return 0; }
int cuDeviceGet(int *device, int number) { return *device = number, number == 0 ? 0 : 101; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    // Compute capability 8.0; everything else it has.
    return *value = attribute == 75 ? 8 : attribute == 76 ? 0 : 1, 0;
}
int cuDeviceTotalMem_v2(size_t *total, int) { return *total = (size_t)4 << 30, 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { return *free = (size_t)3 << 30, *total = (size_t)4 << 30, 0; }
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = &arrays, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxDestroy_v2(void *) { return 0; }
int cuCtxSetCurrent(void *) { return 0; }
int cuCtxGetCurrent(void **context) { return *context = &arrays, 0; }
int cuCtxSynchronize() { return recording ? refuse("waiting while recording") : settle(); }
int cuGetErrorName(int, const char **name) { return *name = "played", 0; }
int cuGetErrorString(int, const char **text) { return *text = "played", 0; }

int cuStreamCreate(void **stream, unsigned) { return *stream = &launches, 0; }
int cuStreamDestroy_v2(void *) { return 0; }
int cuStreamSynchronize(void *) { return recording ? refuse("waiting while recording") : settle(); }
int cuStreamWaitEvent(void *, void *, unsigned) { return recording ? refuse("an event while recording") : 0; }
int cuStreamIsCapturing(void *, int *status) { return *status = recording ? 1 : 0, 0; }
int cuEventCreate(void **event, unsigned) { return *event = new Event, 0; }
int cuEventDestroy_v2(void *event) { return delete static_cast<Event *>(event), 0; }
int cuEventRecord(void *event, void *) {
    if (recording) return refuse("an event while recording");
    return static_cast<Event *>(event)->after = queued, 0;
}
int cuEventSynchronize(void *event) {
    // A card on which waiting for an event does nothing: whoever relies on it gets something else.
    if (getenv("PLAYED_NO_EVENTS")) return 0;
    return recording ? refuse("waiting while recording") : settle(static_cast<Event *>(event)->after);
}

int cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
    if (getenv("PLAYED_NO_PAGE_LOCKED")) return 2;
    *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    memset(*memory, 0xff, bytes);
    return locked[static_cast<char *>(*memory)] = bytes, 0;
}
int cuMemFreeHost(void *memory) {
    const auto found = locked.find(static_cast<char *>(memory));
    if (found == locked.end()) return refuse("page-locked memory given back that is nobody's");
    for (const Waiting &one : waiting) {
        if (page_locked(one.from) == found->first) return refuse("page-locked memory given back before it was read");
    }
    memset(memory, 0xff, found->second);
    free(memory);
    return locked.erase(found), 0;
}

int cuMemAllocAsync(Address *array, size_t bytes, void *) {
    char *memory = static_cast<char *>(aligned_alloc(256, (bytes + 511) / 256 * 256));
    if (!memory || !bytes) return 2;
    memset(memory, 0xff, bytes);
    *array = reinterpret_cast<Address>(memory);
    arrays[*array] = bytes;
    if (recording) recording->arrays.insert(*array);
    return 0;
}
int cuMemAlloc_v2(Address *array, size_t bytes) { return cuMemAllocAsync(array, bytes, nullptr); }
int cuMemFreeAsync(Address array, void *) {
    const auto found = arrays.find(array);
    if (found == arrays.end()) return refuse("memory given back that is nobody's");
    if (recording) {
        if (!recording->arrays.count(array)) return refuse("memory from outside given back while recording");
        // The graph keeps it for when it is repeated.
        arrays.erase(found);
        return 0;
    }
    const size_t bytes = found->second;
    arrays.erase(found);
    submit([=] {
        memset(reinterpret_cast<void *>(array), 0xff, bytes);
        free(reinterpret_cast<void *>(array));
    });
    return 0;
}
int cuMemFree_v2(Address array) { return cuMemFreeAsync(array, nullptr); }
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *) {
    if (recording) return refuse("sending while recording");
    void *const place = reinterpret_cast<void *>(to);
    if (page_locked(from)) {
        fetched++;
        wait({[=] { memcpy(place, from, bytes); }, from});
    } else {
        // It has been read when this returns.
        const char *const first = static_cast<const char *>(from);
        const auto read = std::make_shared<std::vector<char>>(first, first + bytes);
        submit([=] { memcpy(place, read->data(), bytes); });
    }
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *) {
    if (recording) return refuse("fetching while recording");
    settle();
    return memcpy(to, reinterpret_cast<void *>(from), bytes), 0;
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *) {
    submit([=] { memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes); });
    return 0;
}
int cuMemcpyPeerAsync(Address to, void *, Address from, void *, size_t bytes, void *) {
    return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr);
}
int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void *) {
    submit([=] { memset(reinterpret_cast<void *>(to), value, bytes); });
    return 0;
}

int cuModuleLoadData(void **module, const void *) { return *module = &told, recording ? refuse("loading while recording") : 0; }
int cuModuleLoad(void **module, const char *) { return cuModuleLoadData(module, nullptr); }
int cuModuleUnload(void *) { return 0; }
int cuModuleGetFunction(void **function, void *, const char *name) { return *function = strdup(name), 0; }
int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned x, unsigned y, unsigned z,
                   unsigned shared, void *, void **arguments, void **) {
    launches++;
    const std::string name = static_cast<const char *>(function);
    const Index grid{grid_x, grid_y, grid_z}, threads{x, y, z};
    if (const Work choose = own(name, {arguments})) {
        submit([=] {
            choose();
            run(grid, threads, shared, 0);
        });
    } else {
        submit(candle::kernel(name, {arguments}, grid_x));
    }
    return 0;
}

int cuStreamBeginCapture_v2(void *, int) {
    if (recording) return refuse("recording twice");
    return recorded++, recording = new Graph, 0;
}
int cuStreamEndCapture(void *, void **graph) {
    if (!recording) return refuse("nothing was being recorded");
    for (const Address array : recording->arrays) {
        if (arrays.count(array)) refuse("memory of a graph outlives its recording");
    }
    return *graph = recording, recording = nullptr, 0;
}
int cuGraphInstantiateWithFlags(void **runnable, void *graph, unsigned long long) { return *runnable = graph, 0; }
int cuGraphLaunch(void *runnable, void *) {
    repeated++;
    submit([=] {
        for (const Work &work : static_cast<Graph *>(runnable)->work) work();
    });
    return 0;
}
int cuGraphUpload(void *, void *) { return 0; }
int cuGraphExecDestroy(void *) { return 0; }
int cuGraphDestroy(void *graph) {
    settle();
    for (const Address array : static_cast<Graph *>(graph)->arrays) free(reinterpret_cast<void *>(array));
    delete static_cast<Graph *>(graph);
    return 0;
}
}
