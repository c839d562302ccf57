// Runs one kernel on the host: a launch comes in on stdin, the arrays go out on stdout, changed or not.
//
// In, little-endian: u32 length and the kernel's name; u32 grid[3], threads[3], bytes of shared memory, order; u32 count
// of arguments, each a byte: 0 for a null array, 1 for an array (u64 length, bytes), 2 for an int, 3 for a float.
#include "host.hpp"

#include "attention.cu"
#include "norm.cu"
#include "pointwise.cu"

static void read_all(void *to, size_t bytes) {
    if (fread(to, 1, bytes, stdin) != bytes) fail("the launch ends early");
}
static uint32_t word() {
    uint32_t value;
    read_all(&value, 4);
    return value;
}

// Memory that ends with a page nobody may touch.
static char *array(size_t bytes) {
    const size_t page = sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    void *at = mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) fail("no memory");
    mprotect(static_cast<char *>(at) + whole, page, PROT_NONE);
    return static_cast<char *>(at) + (whole - bytes);
}

struct Argument {
    uint8_t kind;
    char *array;
    size_t bytes;
    uint32_t word;
};
static std::vector<Argument> arguments;
static size_t used;

static const Argument &next(bool array) {
    if (used == arguments.size()) fail("too few arguments");
    const Argument &argument = arguments[used++];
    if ((argument.kind < 2) != array) fail("argument " + std::to_string(used) + " is of another kind");
    return argument;
}
template <typename A> struct Take;
template <typename T> struct Take<T *> {
    static T *take() { return reinterpret_cast<T *>(next(true).array); }
};
template <> struct Take<int> {
    static int take() {
        const Argument &argument = next(false);
        if (argument.kind != 2) fail("a float where an int belongs");
        return (int)argument.word;
    }
};
template <> struct Take<float> {
    static float take() {
        const Argument &argument = next(false);
        if (argument.kind != 3) fail("an int where a float belongs");
        return of_bits(argument.word);
    }
};

// The arguments in the order of the kernel's: in braces, they are taken from left to right.
template <typename... A> static std::function<void()> bind(void (*kernel)(A...)) {
    std::tuple<A...> all{Take<A>::take()...};
    if (used != arguments.size()) fail("too many arguments");
    return [=] { std::apply(kernel, all); };
}

#define TYPES(NAME) K(NAME##_f32) K(NAME##_f16) K(NAME##_bf16)
#define HALVES(NAME) K(NAME##_f16) K(NAME##_bf16)

int main() {
    std::string name(word(), ' ');
    read_all(&name[0], name.size());
    Index grid, threads;
    read_all(&grid, sizeof grid);
    read_all(&threads, sizeof threads);
    const uint32_t shared = word(), order = word();
    for (uint32_t count = word(); count > 0; count--) {
        Argument argument{};
        read_all(&argument.kind, 1);
        if (argument.kind == 1) {
            uint64_t bytes;
            read_all(&bytes, 8);
            argument.bytes = bytes;
            argument.array = array(bytes);
            read_all(argument.array, bytes);
        } else if (argument.kind > 1) {
            argument.word = word();
        }
        arguments.push_back(argument);
    }
#define K(NAME) if (name == #NAME) kernel = bind(NAME);
    TYPES(group_sums) TYPES(group_norm) TYPES(layer_norm)
    TYPES(finish) TYPES(geglu) TYPES(enlarge) TYPES(gather)
    HALVES(attention_48) HALVES(attention_64) HALVES(attention_80) HALVES(attention_160)
#undef K
    if (!kernel) fail("no kernel " + name);
    run(grid, threads, shared, order);
    for (const Argument &argument : arguments) {
        if (argument.kind == 1) fwrite(argument.array, 1, argument.bytes, stdout);
    }
    return 0;
}
