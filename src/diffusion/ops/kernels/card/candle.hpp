// candle's own kernels, by what they mean and in f64: those that a sampling with flow needs. Their arguments are those of
// candle-kernels 0.11.
#pragma once

namespace candle {

template <typename T> double load(T x) {
    if constexpr (std::is_arithmetic<T>::value) return x;
    else return wide(x);
}
template <typename T> void store(double x, T *to) {
    if constexpr (std::is_arithmetic<T>::value) *to = (T)x;
    else narrow((float)x, to);
}

// Where value number `i` of a tensor is, of which `info` tells sizes and strides; null for a contiguous one.
struct Layout {
    size_t count;
    const size_t *sizes, *strides;

    Layout(size_t count, const size_t *info, int which = 1)
        : count(count), sizes(info), strides(info ? info + which * count : nullptr) {}
    size_t at(size_t i) const {
        if (!sizes) return i;
        size_t place = 0;
        for (size_t d = count; d-- > 0; i /= sizes[d]) place += i % sizes[d] * strides[d];
        return place;
    }
};

static std::function<double(double)> unary(const std::string &name) {
    if (name == "ucopy") return [](double x) { return x; };
    if (name == "uneg") return [](double x) { return -x; };
    if (name == "uexp") return [](double x) { return exp(x); };
    if (name == "usqr") return [](double x) { return x * x; };
    if (name == "usqrt") return [](double x) { return sqrt(x); };
    if (name == "uabs") return [](double x) { return fabs(x); };
    if (name == "urelu") return [](double x) { return x > 0 ? x : 0; };
    if (name == "usilu") return [](double x) { return x / (1 + exp(-x)); };
    if (name == "ugelu_erf") return [](double x) { return x * 0.5 * (1 + erf(x * M_SQRT1_2)); };
    return {};
}

static std::function<double(double, double)> binary(const std::string &name) {
    if (name == "badd") return [](double x, double y) { return x + y; };
    if (name == "bsub") return [](double x, double y) { return x - y; };
    if (name == "bmul") return [](double x, double y) { return x * y; };
    if (name == "bdiv") return [](double x, double y) { return x / y; };
    if (name == "bmaximum") return [](double x, double y) { return fmax(x, y); };
    if (name == "bminimum") return [](double x, double y) { return fmin(x, y); };
    return {};
}

template <typename T> Work typed(const std::string &name, Arguments a, size_t blocks) {
    if (const auto f = unary(name)) {
        const size_t n = a.get<size_t>(0);
        const Layout of_x(a.get<size_t>(1), a.get<const size_t *>(2));
        const T *x = a.get<const T *>(3);
        T *y = a.get<T *>(4);
        return [=] {
            for (size_t i = 0; i < n; i++) store(f(load(x ? x[of_x.at(i)] : y[i])), y + i);
        };
    }
    if (const auto f = binary(name)) {
        const size_t n = a.get<size_t>(0);
        const Layout of_x(a.get<size_t>(1), a.get<const size_t *>(2), 1), of_y(a.get<size_t>(1), a.get<const size_t *>(2), 2);
        const T *x = a.get<const T *>(3), *y = a.get<const T *>(4);
        T *z = a.get<T *>(5);
        return [=] {
            for (size_t i = 0; i < n; i++) store(f(load(x[of_x.at(i)]), load(y[of_y.at(i)])), z + i);
        };
    }
    if (name == "affine") {
        const size_t n = a.get<size_t>(0);
        const Layout of_x(a.get<size_t>(1), a.get<const size_t *>(2));
        const T *x = a.get<const T *>(3);
        T *y = a.get<T *>(4);
        const double times = load(a.get<T>(5)), plus = load(a.get<T>(6));
        return [=] {
            for (size_t i = 0; i < n; i++) store(load(x ? x[of_x.at(i)] : y[i]) * times + plus, y + i);
        };
    }
    if (name == "const_set") {
        const size_t n = a.get<size_t>(0);
        const Layout of_y(a.get<size_t>(1), a.get<const size_t *>(2));
        const T value = a.get<T>(3);
        T *y = a.get<T *>(4);
        return [=] {
            for (size_t i = 0; i < n; i++) y[of_y.at(i)] = value;
        };
    }
    if (name == "copy2d") {
        const T *x = a.get<const T *>(0);
        T *y = a.get<T *>(1);
        const size_t rows = a.get<uint32_t>(2), width = a.get<uint32_t>(3), from = a.get<uint32_t>(4), to = a.get<uint32_t>(5);
        return [=] {
            for (size_t row = 0; row < rows; row++) memcpy(y + row * to, x + row * from, width * sizeof(T));
        };
    }
    // Index select.
    if (name == "is_u32") {
        const size_t n = a.get<size_t>(0), from = a.get<size_t>(7), count = a.get<size_t>(8), right = a.get<size_t>(9);
        const uint32_t *ids = a.get<const uint32_t *>(3);
        const T *x = a.get<const T *>(4);
        T *y = a.get<T *>(5);
        return [=] {
            for (size_t i = 0; i < n; i++) {
                const size_t left = i / (count * right), id = ids[i / right % count];
                if (id >= from) fail("an index is too large");
                y[i] = x[(left * from + id) * right + i % right];
            }
        };
    }
    if (name == "fast_sum" || name == "fast_sum_small" || name == "fast_max") {
        const bool small = name == "fast_sum_small", most = name == "fast_max";
        const size_t each = a.get<size_t>(1), rows = small ? a.get<size_t>(0) : blocks;
        const Layout of_x(a.get<size_t>(2), a.get<const size_t *>(3));
        const T *x = a.get<const T *>(4);
        T *y = a.get<T *>(5);
        return [=] {
            for (size_t row = 0; row < rows; row++) {
                double all = most ? -INFINITY : 0;
                for (size_t i = row * each; i < (row + 1) * each; i++) {
                    const double value = load(x[of_x.at(i)]);
                    all = most ? fmax(all, value) : all + value;
                }
                store(all, y + row);
            }
        };
    }
    if (name == "softmax") {
        const T *x = a.get<const T *>(0);
        T *y = a.get<T *>(1);
        const size_t width = a.get<int>(2);
        return [=] {
            for (size_t row = 0; row < blocks; row++) {
                const T *from = x + row * width;
                double most = -INFINITY, sum = 0;
                for (size_t i = 0; i < width; i++) most = fmax(most, load(from[i]));
                for (size_t i = 0; i < width; i++) sum += exp(load(from[i]) - most);
                for (size_t i = 0; i < width; i++) store(exp(load(from[i]) - most) / sum, y + row * width + i);
            }
        };
    }
    fail("the played card has no kernel " + name);
}

template <typename S, typename T> Work cast(Arguments a) {
    const size_t n = a.get<size_t>(0);
    const Layout of_x(a.get<size_t>(1), a.get<const size_t *>(2));
    const S *x = a.get<const S *>(3);
    T *y = a.get<T *>(4);
    return [=] {
        for (size_t i = 0; i < n; i++) store(load(x[of_x.at(i)]), y + i);
    };
}

// Calls `f` with a value of the type that a kernel's name ends with.
template <typename F> Work by_type(const std::string &type, F f) {
    if (type == "f32") return f(float());
    if (type == "f16") return f(__half());
    if (type == "bf16") return f(__nv_bfloat16());
    if (type == "u8") return f(uint8_t());
    if (type == "u32") return f(uint32_t());
    if (type == "i64") return f(int64_t());
    fail("the played card has no " + type);
}

static Work kernel(const std::string &name, Arguments arguments, size_t blocks) {
    const size_t end = name.rfind('_');
    const std::string type = name.substr(end + 1), rest = name.substr(0, end);
    if (rest.rfind("cast_", 0) == 0) {
        return by_type(rest.substr(5), [&](auto from) {
            return by_type(type, [&](auto to) { return cast<decltype(from), decltype(to)>(arguments); });
        });
    }
    return by_type(type, [&](auto of) { return typed<decltype(of)>(rest, arguments, blocks); });
}

} // namespace candle
