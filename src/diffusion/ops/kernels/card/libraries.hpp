// cuBLAS, cuBLASLt, cuRAND and cuDNN, as far as flow calls them. With PLAYED_NO_CUDNN set, cuDNN takes no convolution; with
// PLAYED_NO_CUBLASLT, cuBLASLt no product.
#pragma once

// By cuBLAS's numbers for types.
static float element(const void *array, int type, size_t i) {
    if (type == 0) return static_cast<const float *>(array)[i];
    if (type == 2) return wide(static_cast<const __half *>(array)[i]);
    if (type == 14) return wide(static_cast<const __nv_bfloat16 *>(array)[i]);
    fail("a type that is not played");
}
static void put(float x, void *array, int type, size_t i) {
    if (type == 0) static_cast<float *>(array)[i] = x;
    else if (type == 2) narrow(x, static_cast<__half *>(array) + i);
    else narrow(x, static_cast<__nv_bfloat16 *>(array) + i);
}

// What cuDNN is told of a tensor, a filter or a convolution: the numbers in the order in which they come.
struct Description {
    int told[8] = {};
};
static Description &of(void *description) { return *static_cast<Description *>(description); }

// What cuBLASLt is told of a matrix, columns first, and of a product.
struct Matrix {
    int type;
    uint64_t rows, columns;
    int64_t step;
};
struct Product {
    int sums, factors, turn_a = 0, epilogue = 1;
    const void *bias = nullptr;
};
// By attribute.
struct Wishes {
    uint64_t told[9] = {};
};
// An algorithm and what is said of it.
struct Found {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int rest[4];
};
static const uint64_t CHOSEN = 0x666c6f77;

// Whether it is d [outputs, rows] = op(a) [outputs, inputs] b [inputs, rows] + c, with a bias or without, in f32 sums.
static void fits(const Product &product, void *of_a, void *of_b, void *of_c, void *of_d) {
    const Matrix a = *static_cast<Matrix *>(of_a), b = *static_cast<Matrix *>(of_b), c = *static_cast<Matrix *>(of_c),
                 d = *static_cast<Matrix *>(of_d);
    const bool one = b.type == a.type && c.type == a.type && d.type == a.type;
    const bool packed = a.step == (int64_t)a.rows && b.step == (int64_t)b.rows && c.step == (int64_t)c.rows &&
                        d.step == (int64_t)d.rows;
    const bool sizes = a.rows == b.rows && d.rows == a.columns && d.columns == b.columns && c.rows == d.rows &&
                       c.columns == d.columns;
    const bool ends = product.epilogue == (product.bias ? 4 : 1);
    if (!one || !packed || !sizes || !ends || product.turn_a != 1 || product.sums != 68 || product.factors != 0) {
        fail("cuBLASLt was told something that does not go together");
    }
}

extern "C" {
int cublasCreate_v2(void **handle) { return *handle = &told, 0; }
int cublasDestroy_v2(void *) { return 0; }
int cublasSetStream_v2(void *, void *) { return 0; }
int cublasDgemmStridedBatched() { fail("a product in f64"); }
// Columns first: c [m, n] = op(a) [m, k] op(b) [k, n].
int cublasGemmStridedBatchedEx(void *, int turn_a, int turn_b, int m, int n, int k, const void *alpha, const void *a,
                               int type_a, int row_a, long long step_a, const void *b, int type_b, int row_b,
                               long long step_b, const void *beta, void *c, int type_c, int row_c, long long step_c,
                               int batch, int, int) {
    launches++;
    if (*static_cast<const float *>(alpha) != 1 || *static_cast<const float *>(beta) != 0) fail("factors that are not played");
    submit([=] {
        std::vector<float> left((size_t)m * k), right((size_t)n * k);
        for (int z = 0; z < batch; z++) {
            for (size_t i = 0; i < (size_t)m; i++)
                for (size_t j = 0; j < (size_t)k; j++)
                    left[i * k + j] = element(a, type_a, z * step_a + (turn_a ? j + i * row_a : i + j * row_a));
            for (size_t i = 0; i < (size_t)n; i++)
                for (size_t j = 0; j < (size_t)k; j++)
                    right[i * k + j] = element(b, type_b, z * step_b + (turn_b ? i + j * row_b : j + i * row_b));
            for (size_t j = 0; j < (size_t)n; j++)
                for (size_t i = 0; i < (size_t)m; i++) {
                    float sum = 0;
                    for (int q = 0; q < k; q++) sum += left[i * k + q] * right[j * k + q];
                    put(sum, c, type_c, z * step_c + i + j * row_c);
                }
        }
    });
    return 0;
}

int cublasLtCreate(void **handle) { return *handle = &told, 0; }
int cublasLtDestroy(void *) { return 0; }
int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t step) {
    return *layout = new Matrix{type, rows, columns, step}, 0;
}
int cublasLtMatrixLayoutDestroy(void *layout) { return delete static_cast<Matrix *>(layout), 0; }
int cublasLtMatmulDescCreate(void **product, int sums, int factors) { return *product = new Product{sums, factors}, 0; }
int cublasLtMatmulDescDestroy(void *product) { return delete static_cast<Product *>(product), 0; }
int cublasLtMatmulDescSetAttribute(void *product, int attribute, const void *value, size_t size) {
    Product &set = *static_cast<Product *>(product);
    if (attribute == 3 && size == 4) memcpy(&set.turn_a, value, size);
    else if (attribute == 7 && size == 4) memcpy(&set.epilogue, value, size);
    else if (attribute == 8 && size == 8) memcpy(&set.bias, value, size);
    else return 7;
    return 0;
}
int cublasLtMatmulPreferenceCreate(void **wishes) { return *wishes = new Wishes, 0; }
int cublasLtMatmulPreferenceDestroy(void *wishes) { return delete static_cast<Wishes *>(wishes), 0; }
int cublasLtMatmulPreferenceSetAttribute(void *wishes, int attribute, const void *value, size_t size) {
    if (attribute < 0 || attribute > 8 || size != (attribute == 1 ? 8 : 4)) return 7;
    return memcpy(&static_cast<Wishes *>(wishes)->told[attribute], value, size), 0;
}
int cublasLtMatmulAlgoGetHeuristic(void *, void *product, void *of_a, void *of_b, void *of_c, void *of_d, void *wishes, int,
                                   Found *found, int *count) {
    const uint64_t *told = static_cast<Wishes *>(wishes)->told;
    fits(*static_cast<Product *>(product), of_a, of_b, of_c, of_d);
    // Sums of parts in f32 alone.
    if (told[1] < 1000 || told[3] != 2) fail("cuBLASLt was told no wishes");
    if (getenv("PLAYED_NO_CUBLASLT")) return *count = 0, 15;
    *found = {{CHOSEN, told[5], told[6], told[7], told[8]}, 1000, 0, 1.0f, {}};
    return *count = 1, 0;
}
int cublasLtMatmul(void *, void *product, const float *alpha, const void *a, void *of_a, const void *b, void *of_b,
                   const float *beta, const void *c, void *of_c, void *d, void *of_d, const uint64_t *algorithm,
                   void *workspace, size_t bytes, void *stream) {
    launches++, fused++;
    const Product told = *static_cast<Product *>(product);
    fits(told, of_a, of_b, of_c, of_d);
    const float share = *beta;
    if (*alpha != 1 || (share != 0 && share != 1) || bytes < 1000 || !stream) fail("factors that are not played");
    const void *const places[4] = {a, b, c, d};
    for (int i = 0; i < 4; i++) {
        const uint64_t aligned = algorithm[i + 1];
        if (algorithm[0] != CHOSEN || !aligned || reinterpret_cast<uint64_t>(places[i]) % aligned) {
            fail("cuBLASLt was told of other arrays than it is given");
        }
    }
    memset(workspace, 0xff, bytes);
    const Matrix left = *static_cast<Matrix *>(of_a), right = *static_cast<Matrix *>(of_b);
    const int type = left.type;
    const size_t inputs = left.rows, outputs = left.columns, rows = right.columns;
    submit([=] {
        std::vector<float> weight(inputs * outputs), x(inputs * rows);
        for (size_t i = 0; i < weight.size(); i++) weight[i] = element(a, type, i);
        for (size_t i = 0; i < x.size(); i++) x[i] = element(b, type, i);
        for (size_t row = 0; row < rows; row++) {
            for (size_t o = 0; o < outputs; o++) {
                float sum = 0;
                for (size_t i = 0; i < inputs; i++) sum += weight[o * inputs + i] * x[row * inputs + i];
                const size_t at = row * outputs + o;
                if (share != 0) sum += element(c, type, at);
                if (told.bias) sum += element(told.bias, type, o);
                put(sum, d, type, at);
            }
        }
    });
    return 0;
}

int curandCreateGenerator(void **generator, int) { return *generator = &told, 0; }
int curandDestroyGenerator(void *) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }
int curandSetStream(void *, void *) { return 0; }

int cudnnCreate(void **handle) { return *handle = &told, 0; }
int cudnnDestroy(void *) { return 0; }
int cudnnSetStream(void *, void *) { return 0; }
#define DESCRIPTION(KIND)                                                                                              \
    int cudnnCreate##KIND##Descriptor(void **description) { return *description = new Description, 0; }                \
    int cudnnDestroy##KIND##Descriptor(void *description) { return delete static_cast<Description *>(description), 0; }
DESCRIPTION(Tensor) DESCRIPTION(Filter) DESCRIPTION(Convolution) DESCRIPTION(Activation)
#undef DESCRIPTION
int cudnnSetTensor4dDescriptor(void *d, int format, int type, int n, int c, int h, int w) {
    return of(d) = {{format, type, n, c, h, w}}, 0;
}
int cudnnSetFilter4dDescriptor(void *d, int type, int format, int k, int c, int h, int w) {
    return of(d) = {{format, type, k, c, h, w}}, 0;
}
int cudnnSetConvolution2dDescriptor(void *d, int above, int left, int down, int right, int, int, int mode, int type) {
    return of(d) = {{above, left, down, right, mode, type}}, 0;
}
int cudnnSetConvolutionMathType(void *, int) { return 0; }
int cudnnSetActivationDescriptor(void *, int mode, int, double) { return mode == 5 ? 0 : 3000; }
int cudnnGetConvolutionForwardWorkspaceSize(void *, void *, void *, void *, void *, int algorithm, size_t *bytes) {
    return *bytes = 1000, algorithm == 1 && !getenv("PLAYED_NO_CUDNN") ? 0 : 3000;
}
int cudnnGetConvolutionForwardAlgorithm_v7() { fail("candle's own convolution"); }
int cudnnConvolutionForward() { fail("candle's own convolution"); }
int cudnnSetTensor4dDescriptorEx() { fail("candle's own convolution"); }
int cudnnConvolutionBiasActivationForward(void *, const void *alpha, void *of_x, const void *x, void *of_filters,
                                          const void *filters, void *of_convolution, int algorithm, void *workspace,
                                          size_t bytes, const void *times, void *of_z, const void *z, void *of_bias,
                                          const void *bias, void *, void *of_y, void *y) {
    launches++;
    const Description in = of(of_x), out = of(of_y), filter = of(of_filters), conv = of(of_convolution);
    const auto [pad, pad_left, stride, stride_right, mode, sums, none, no] = conv.told;
    const auto [format, type, n, channels, height, width, a, b] = in.told;
    const int outputs = filter.told[2], size = filter.told[4], rows = out.told[4], columns = out.told[5];
    const bool nhwc = format == 1 && filter.told[0] == 1 && out.told[0] == 1;
    const bool one = filter.told[1] == type && out.told[1] == type && of(of_bias).told[1] == type;
    const bool fits = filter.told[3] == channels && out.told[3] == outputs && of(of_bias).told[3] == outputs &&
                      out.told[2] == n && rows == (height + 2 * pad - size) / stride + 1 &&
                      columns == (width + 2 * pad - size) / stride + 1;
    const bool square = pad == pad_left && stride == stride_right && filter.told[5] == size;
    if (!nhwc || !one || !fits || !square || mode != 1 || sums != 0 || algorithm != 1 ||
        memcmp(&of(of_z), &out, sizeof out) != 0 || *static_cast<const float *>(alpha) != 1) {
        fail("cuDNN was told something that does not go together");
    }
    memset(workspace, 0xff, bytes);
    const int number = type == 0 ? 0 : type == 2 ? 2 : 14, padding = pad, step = stride, deep = channels, wide = width;
    const int pictures = n, high = height;
    const float share = *static_cast<const float *>(times);
    submit([=] {
        for (int pixel = 0; pixel < pictures * rows * columns; pixel++) {
            const int picture = pixel / (rows * columns), row = pixel / columns % rows, column = pixel % columns;
            for (int o = 0; o < outputs; o++) {
                float sum = 0;
                for (int tap = 0; tap < size * size; tap++) {
                    const int above = row * step + tap / size - padding, left = column * step + tap % size - padding;
                    if (above < 0 || above >= high || left < 0 || left >= wide) continue;
                    const size_t from = (((size_t)picture * high + above) * wide + left) * deep;
                    const size_t with = ((size_t)o * size * size + tap) * deep;
                    for (int c = 0; c < deep; c++) sum += element(x, number, from + c) * element(filters, number, with + c);
                }
                const size_t at = (size_t)pixel * outputs + o;
                sum += element(bias, number, o);
                if (share != 0) sum += share * element(z, number, at);
                put(sum, y, number, at);
            }
        }
    });
    return 0;
}
}
