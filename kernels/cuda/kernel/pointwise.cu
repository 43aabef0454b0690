/* Ops that treat every element or every row alike: sums, ReLU, concatenation and slices, folded weights, conversion.
 * Output and first input may be the same memory where ops.def says so: a thread reads all before it writes. */
#include "vector.cuh"

enum { MAX_TERMS = 8 };

template <typename T> struct terms {
    const T *in[MAX_TERMS];
    int count;
};

template <typename T, int V> __global__ void __launch_bounds__(THREADS) add_kernel(terms<T> term, T *y, int64_t vectors)
{
    for (int64_t i = flat_index(); i < vectors; i += flat_stride()) {
        float sum[V];
        pack<T, V> terms_here[MAX_TERMS] = {};
#pragma unroll
        for (int k = 0; k < MAX_TERMS; k++)
            if (k < term.count)
                terms_here[k] = load_raw<V>(term.in[k] + i * V);
        to_floats(terms_here[0], sum);
#pragma unroll
        for (int k = 1; k < MAX_TERMS; k++)
            if (k < term.count)
#pragma unroll
                for (int v = 0; v < V; v++)
                    sum[v] += to_float(terms_here[k].element[v]);
        store(y + i * V, sum);
    }
}

int cuda_add(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    int64_t count = tensor_count(&k->request.out[0]);
    return with_vectors(k->request.out[0].dtype, count, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        terms<T> term = {};
        for (int i = 0; i < MAX_TERMS; i++)
            if (args->in[i])
                term.in[term.count++] = (const T *)args->in[i];
        return launch(add_kernel<T, V>, flat_grid(self, count / V), dim3(THREADS), 0, self->stream, term,
                      (T *)args->out[0], count / V);
    });
}

template <typename T, int V> __global__ void __launch_bounds__(THREADS) relu_kernel(const T *x, T *y, int64_t vectors)
{
    for (int64_t i = flat_index(); i < vectors; i += flat_stride()) {
        float value[V];
        load(x + i * V, value);
#pragma unroll
        for (int v = 0; v < V; v++)
            value[v] = rectify(value[v]);
        store(y + i * V, value);
    }
}

int cuda_relu(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    int64_t count = tensor_count(&k->request.in[0]);
    return with_vectors(k->request.in[0].dtype, count, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        return launch(relu_kernel<T, V>, flat_grid(self, count / V), dim3(THREADS), 0, self->stream,
                      (const T *)args->in[0], (T *)args->out[0], count / V);
    });
}

/* Rows of y and dy lie their strides apart, those of dx one after the other. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    relu_grad_kernel(const T *y, int y_stride, const T *dy, int dy_stride, T *dx, int64_t rows, int columns)
{
    const int column = tile_column<V>();
    if (column >= columns)
        return;
    for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows;
         row += (int64_t)gridDim.y * blockDim.y) {
        const pack<T, V> passed = load_raw<V>(dy + row * dy_stride + column);
        float value[V], g[V];
        load(y + row * y_stride + column, value);
        to_floats(passed, g);
#pragma unroll
        for (int v = 0; v < V; v++)
            g[v] = value[v] > 0 ? g[v] : 0;
        store(dx + row * columns + column, g);
    }
}

int cuda_relu_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *y = &k->request.in[0];
    int y_stride = (int)tensor_row_stride(y), dy_stride = (int)tensor_row_stride(&k->request.in[1]),
        columns = y->dim[3];
    int64_t fits = y_stride | dy_stride | columns, rows = tensor_rows(y); /* divisible by 4 or 8 if all are */
    return with_vectors(y->dtype, fits, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        tile_shape tile = tile_of(columns, V);
        return launch(relu_grad_kernel<T, V>, tile_grid(self, tile, rows), tile_block(tile), 0, self->stream,
                      (const T *)args->in[0], y_stride, (const T *)args->in[1], dy_stride, (T *)args->out[0], rows,
                      columns);
    });
}

/* ---- columns of a matrix ---- */

/* Copies `columns` elements of each row; both pointers stand at the first. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    copy_columns_kernel(const T *from, int from_stride, T *to, int to_stride, int64_t rows, int columns)
{
    const int column = tile_column<V>();
    if (column >= columns)
        return;
    for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows;
         row += (int64_t)gridDim.y * blockDim.y)
        copy<T, V>(from + row * from_stride + column, to + row * to_stride + column);
}

/* A matrix of which `columns` columns from `first` on are read or written. */
typedef struct {
    const void *data;
    int stride, first;
} columns_of;

static int copy_columns(const cuda_backend *self, uint8_t type, columns_of from, columns_of to, int64_t rows,
                        int columns)
{
    int64_t fits = from.stride | from.first | to.stride | to.first | columns; /* divisible by 4 or 8 if all are */
    return with_copies(type, fits, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        tile_shape tile = tile_of(columns, V);
        return launch(copy_columns_kernel<T, V>, tile_grid(self, tile, rows), tile_block(tile), 0, self->stream,
                      (const T *)from.data + from.first, from.stride, (T *)(uintptr_t)to.data + to.first, to.stride,
                      rows, columns);
    });
}

int cuda_concat(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *y = &k->request.out[0];
    int a = k->request.in[0].dim[3], b = k->request.in[1].dim[3];
    TRY(copy_columns(self, y->dtype, columns_of{args->in[0], a, 0}, columns_of{args->out[0], a + b, 0}, tensor_rows(y),
                     a));
    return copy_columns(self, y->dtype, columns_of{args->in[1], b, 0}, columns_of{args->out[0], a + b, a},
                        tensor_rows(y), b);
}

int cuda_channel_slice(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *y = &k->request.out[0];
    columns_of from = {args->in[0], k->request.in[0].dim[3], k->request.node.attr.channel_offset};
    return copy_columns(self, y->dtype, from, columns_of{args->out[0], y->dim[3], 0}, tensor_rows(y), y->dim[3]);
}

/* ---- weights ---- */

/* Each row [p, q] of `part` columns each becomes [p + q, p]; `part` counts vectors. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS) fold_kernel(const T *in, T *out, int64_t rows, int64_t part)
{
    for (int64_t i = flat_index(); i < rows * part; i += flat_stride()) {
        const int64_t at = (i / part * 2 * part + i % part) * V;
        float p[V], sum[V];
        load(in + at, p);
        load(in + at + part * V, sum);
#pragma unroll
        for (int v = 0; v < V; v++)
            sum[v] += p[v];
        store(out + at, sum);
        store(out + at + part * V, p);
    }
}

static int fold(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *w = &k->request.in[0];
    int64_t rows = w->dim[0], part = tensor_count(w) / rows / 2;
    return with_vectors(w->dtype, part, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        return launch(fold_kernel<T, V>, flat_grid(self, rows * (part / V)), dim3(THREADS), 0, self->stream,
                      (const T *)args->in[0], (T *)args->out[0], rows, part / V);
    });
}

int cuda_fold_fuse_weight(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return fold(self, k, args);
}

/* By luck the fold is its own transpose. */
int cuda_fold_fuse_weight_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return fold(self, k, args);
}

/* ---- what libraries leave to do ---- */

template <typename From, typename To, int V>
__global__ void __launch_bounds__(THREADS) convert_kernel(const From *from, To *to, int64_t vectors)
{
    for (int64_t i = flat_index(); i < vectors; i += flat_stride()) {
        float value[V];
        load(from + i * V, value);
        store(to + i * V, value);
    }
}

int cuda_convert(const cuda_backend *self, const float *from, uint8_t type, int64_t count, void *to)
{
    return with_vectors(type, count, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        return launch(convert_kernel<float, T, V>, flat_grid(self, count / V), dim3(THREADS), 0, self->stream, from,
                      (T *)to, count / V);
    });
}

int cuda_convert_to_float(const cuda_backend *self, const void *from, uint8_t type, int64_t count, float *to)
{
    return with_vectors(type, count, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        return launch(convert_kernel<T, float, V>, flat_grid(self, count / V), dim3(THREADS), 0, self->stream,
                      (const T *)from, to, count / V);
    });
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS) add_bias_kernel(T *y, const float *bias, int64_t rows, int columns)
{
    const int column = tile_column<V>();
    if (column >= columns)
        return;
    float added[V], value[V];
    load(bias + column, added);
    for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows;
         row += (int64_t)gridDim.y * blockDim.y) {
        load(y + row * columns + column, value);
#pragma unroll
        for (int v = 0; v < V; v++)
            value[v] += added[v];
        store(y + row * columns + column, value);
    }
}

int cuda_add_bias(const cuda_backend *self, void *y, uint8_t type, int64_t rows, int64_t columns, const float *bias)
{
    return with_vectors(type, columns, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        tile_shape tile = tile_of(columns, V);
        return launch(add_bias_kernel<T, V>, tile_grid(self, tile, rows), tile_block(tile), 0, self->stream, (T *)y,
                      bias, rows, (int)columns);
    });
}
