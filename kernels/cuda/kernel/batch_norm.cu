/* Batch normalisation, its gradient, and column sums.
 *
 * Mean and variance always come from the two float64 sums and attr.count, never from the local rows. A block computes
 * the tables of its channels once, in double, and its threads walk the rows. Forward and backward compute y with the
 * same expression (affine), so that a ReLU's mask has the same sign in both. */
#include "bn_statistics.cuh"
#include "reduce.cuh"

/* ---- sums ---- */

template <typename T, int V, bool SQUARES> struct sums_of {
    enum { KINDS = SQUARES ? 2 : 1, ROWS = 4 };
    struct state {
    };
    using loaded = packed_words<T, V>;
    const T *x;

    __device__ void begin(state &, int) const
    {
    }

    __device__ loaded read(int64_t, int64_t at) const
    {
        return load_words<V>(x + at);
    }

    __device__ void add(const state &, int64_t, int64_t, const loaded &elements, float (&run)[KINDS][V]) const
    {
        float value[V];
        to_floats(elements, value);
#pragma unroll
        for (int v = 0; v < V; v++) {
            run[0][v] += value[v];
            if (SQUARES)
                run[KINDS - 1][v] = fmaf(value[v], value[v], run[KINDS - 1][v]);
        }
    }
};

int cuda_bn_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    const tensor_desc *x = &k->request.in[0];
    unsigned op = k->request.node.op;
    if (op == OP_BN_SUMS || op == OP_BN_GRAD_SUMS)
        k->offset[0] = cuda_workspace_take(workspace, cuda_channel_sums_bytes(tensor_rows(x), x->dim[3]));
    return 0;
}

size_t cuda_channel_sums_bytes(int64_t rows, int64_t columns)
{
    return column_sums_workspace(rows, columns, 2);
}

int cuda_channel_sums(const cuda_backend *self, const void *x, uint8_t type, int64_t rows, int64_t columns,
                      double *sums, void *workspace)
{
    return with_vectors(type, columns, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        sums_of<T, V, true> source = {(const T *)x};
        return column_sums<V>(self, source, rows, (int)columns, as_it_is(), sums, workspace);
    });
}

int cuda_bn_sums(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    return cuda_channel_sums(self, args->in[0], x->dtype, tensor_rows(x), x->dim[3], (double *)args->out[0],
                             cuda_workspace_at(args, k->offset[0]));
}

static __global__ void widen_sums_kernel(const float *sum, const float *square_sum, int columns, double *sums)
{
    const int c = (int)flat_index();
    if (c >= columns)
        return;
    sums[c] = (double)sum[c];
    sums[columns + c] = (double)square_sum[c];
}

int cuda_widen_sums(const cuda_backend *self, const float *sum, const float *square_sum, int64_t columns, double *sums)
{
    return launch(widen_sums_kernel, dim3((unsigned)divide_up(columns, THREADS)), dim3(THREADS), 0, self->stream, sum,
                  square_sum, (int)columns, sums);
}

size_t cuda_column_sums_bytes(int64_t rows, int64_t columns)
{
    return column_sums_workspace(rows, columns, 1);
}

int cuda_column_sums(const cuda_backend *self, const void *x, uint8_t type, int64_t rows, int64_t columns, float *sums,
                     void *workspace)
{
    return with_vectors(type, columns, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        sums_of<T, V, false> source = {(const T *)x};
        return column_sums<V>(self, source, rows, (int)columns, as_it_is(), sums, workspace);
    });
}

/* ---- forward ---- */

/* A grid of this many blocks a processor is resident at once, so that each makes its tables once. */
enum { RESIDENT_BLOCKS = 3 };

/* The rows that a thread has, from the last to the first: whoever wrote or read the feature map before ended there, and
 * finds it in the cache. Calls load_row(j, row) for ROWS rows, then finish_row(j, row) for each. */
template <int ROWS, typename Load, typename Finish>
__device__ static inline void walk_back(int64_t rows, Load load_row, Finish finish_row)
{
    const int64_t step = (int64_t)gridDim.y * blockDim.y;
    for (int64_t row = rows - 1 - ((int64_t)blockIdx.y * blockDim.y + threadIdx.y); row >= 0; row -= ROWS * step) {
#pragma unroll
        for (int j = 0; j < ROWS; j++)
            load_row(j, row >= j * step ? row - j * step : row);
#pragma unroll
        for (int j = 0; j < ROWS; j++)
            if (row >= j * step)
                finish_row(j, row - j * step);
    }
}

template <typename T, int V, bool RESIDUAL>
__global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    bn_normalize_kernel(const T *x, const T *residual, T *y, row_layout of_y, bn_statistics s, int64_t rows,
                        int channels, bool relu)
{
    constexpr int ROWS = RESIDUAL ? 2 : 4;
    __shared__ float table[2 * LANES * V];
    fill_affine<V>(s, channels, table);
    __syncthreads();
    const int column = tile_column<V>();
    if (column >= channels)
        return;
    const float least = relu ? 0 : -INFINITY;
    float scale[V], shift[V];
    take_table(table, 0, scale);
    take_table(table, 1, shift);
    packed_words<T, V> of_x[ROWS], of_residual[ROWS] = {};
    walk_back<ROWS>(
        rows,
        [&](int j, int64_t row) {
            of_x[j] = load_words<V>(x + row * channels + column);
            if (RESIDUAL)
                of_residual[j] = load_words<V>(residual + row * channels + column);
        },
        [&](int j, int64_t row) {
            float value[V], added[V];
            to_floats(of_x[j], value);
            to_floats(of_residual[j], added);
#pragma unroll
            for (int v = 0; v < V; v++)
                value[v] = not_below(affine(value[v], scale[v], shift[v]) + added[v], least);
            store(y + row_begin(of_y, row) + column, value);
        });
}

static int normalize(const cuda_backend *self, const kernel *k, const kernel_args *args, const bn_statistics &s,
                     const void *residual)
{
    const tensor_desc *x = &k->request.in[0];
    return with_vectors(x->dtype, x->dim[3], [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        tile_shape tile = tile_of(x->dim[3], V);
        return launch(residual ? bn_normalize_kernel<T, V, true> : bn_normalize_kernel<T, V, false>,
                      tile_grid(self, tile, tensor_rows(x), RESIDENT_BLOCKS), tile_block(tile), 0, self->stream,
                      (const T *)args->in[0], (const T *)residual, (T *)args->out[0], layout_of(k->request.out[0]), s,
                      tensor_rows(x), x->dim[3], k->request.node.attr.relu);
    });
}

int cuda_bn_normalize(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return normalize(self, k, args, batch_statistics(k, args), args->in[4]);
}

int cuda_bn_inference(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return normalize(self, k, args, running_statistics(k, args), args->in[5]);
}

static __global__ void bn_running_kernel(const double *sums, float *mean, float *variance, const float *shift,
                                         int channels, double count, double momentum)
{
    const int c = (int)flat_index();
    if (c < channels)
        update_running(sums, mean, variance, shift, channels, c, count, momentum);
}

int cuda_bn_running(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const op_attr *attr = &k->request.node.attr;
    int channels = k->request.in[1].dim[3];
    return launch(bn_running_kernel, dim3((unsigned)divide_up(channels, THREADS)), dim3(THREADS), 0, self->stream,
                  (const double *)args->in[0], (float *)kernel_in_out(args, 1), (float *)kernel_in_out(args, 2),
                  (const float *)args->in[3], channels, attr->count, attr->momentum);
}

/* ---- backward ---- */

enum { MAX_GRADIENTS = 5, FIRST_GRADIENT = 5 /* input */ };

/* Where the ReLU's mask comes from. */
enum mask_source { NO_MASK, MASK_OF_X, MASK_OF_Y };

template <typename T> struct gradient_arguments {
    const T *x, *y, *dy[MAX_GRADIENTS];
    row_layout of_dy[MAX_GRADIENTS];
    T *g;
    bn_statistics statistics;
    int gradients;
};

/* Adds g and g * (x - mean); multiplied by 1/std at the end, the second is the sum of g * xhat. DENSE gradients, none
 * of them in patches; with 0 as many as there are, wherever they lie. */
template <typename T, int V, mask_source MASK, int DENSE> struct gradient_sums {
    enum {
        KINDS = 2,
        ROWS = DENSE == 1 ? 2 : 1,
        FIRST = DENSE ? DENSE : 3 /* gradients that are loaded at once */
    };
    struct state {
        float scale[V], shift[V], mean[V];
    };
    struct loaded {
        packed_words<T, V> x, y, dy[FIRST];
    };
    gradient_arguments<T> a;

    __device__ void begin(state &s, int channels) const
    {
        __shared__ float table[3 * LANES * V];
        fill_affine_and_mean<V>(a.statistics, channels, table);
        __syncthreads();
        take_table(table, 0, s.scale);
        take_table(table, 1, s.shift);
        take_table(table, 2, s.mean);
    }

    __device__ loaded read(int64_t row, int64_t at) const
    {
        int64_t from[FIRST];
#pragma unroll
        for (int i = 0; i < FIRST; i++)
            from[i] = begin_of(i, row);
        loaded l = {};
        l.x = load_words<V>(a.x + at);
        if (MASK == MASK_OF_Y)
            l.y = load_words<V>(a.y + at);
#pragma unroll
        for (int i = 0; i < FIRST; i++)
            if (DENSE || i < a.gradients)
                l.dy[i] = load_words<V>(a.dy[i] + from[i]);
        return l;
    }

    __device__ int64_t begin_of(int i, int64_t row) const
    {
        return (DENSE ? row * a.of_dy[i].stride : row_begin(a.of_dy[i], row)) + tile_column<V>();
    }

    __device__ void add_gradients(int64_t row, const loaded &l, float (&sum)[V]) const
    {
        to_floats(l.dy[0], sum);
#pragma unroll
        for (int i = 1; i < (DENSE ? DENSE : MAX_GRADIENTS); i++)
            if (DENSE || i < a.gradients) {
                const packed_words<T, V> more = i < FIRST ? l.dy[i % FIRST] : load_words<V>(a.dy[i] + begin_of(i, row));
#pragma unroll
                for (int v = 0; v < V; v++)
                    sum[v] += more.at(v);
            }
    }

    __device__ void add(const state &s, int64_t row, int64_t at, const loaded &l, float (&run)[2][V]) const
    {
        float value[V], sum[V];
        to_floats(l.x, value);
        add_gradients(row, l, sum);
#pragma unroll
        for (int v = 0; v < V; v++) {
            const float y = MASK == MASK_OF_Y ? l.y.at(v) : affine(value[v], s.scale[v], s.shift[v]);
            sum[v] = MASK == NO_MASK || y > 0 ? sum[v] : 0;
            run[0][v] += sum[v];
            run[1][v] = fmaf(sum[v], value[v] - s.mean[v], run[1][v]);
        }
        if (a.g)
            store(a.g + at, sum);
    }
};

template <int V, mask_source MASK, int DENSE, typename T>
static int launch_gradient_sums(const cuda_backend *self, const kernel *k, const kernel_args *args,
                                const gradient_arguments<T> &a)
{
    const tensor_desc *x = &k->request.in[0];
    const gradient_sums<T, V, MASK, DENSE> source = {a};
    return column_sums<V>(self, source, tensor_rows(x), x->dim[3], totals_of(a.statistics, x->dim[3], args),
                          (double *)args->out[0], cuda_workspace_at(args, k->offset[0]));
}

/* Calls function(width_is<N>()) with what DENSE shall be: a kernel of its own for the layers that there are most of. */
template <int V, typename T, typename F> static int with_gradients(const gradient_arguments<T> &a, F function)
{
    constexpr int ONE = V == 1 ? 0 : 1, TWO = V == 1 ? 0 : 2;
    const bool dense = a.of_dy[0].log_patch == 0 && a.of_dy[1].log_patch == 0;
    return dense && a.gradients == 1   ? function(width_is<ONE>())
           : dense && a.gradients == 2 ? function(width_is<TWO>())
                                       : function(width_is<0>());
}

template <typename T> static gradient_arguments<T> gradients_of(const kernel *k, const kernel_args *args)
{
    gradient_arguments<T> a = {};
    a.x = (const T *)args->in[0];
    a.y = (const T *)args->in[4];
    for (int i = FIRST_GRADIENT; i < NODE_MAX_IN; i++)
        if (args->in[i]) {
            a.of_dy[a.gradients] = layout_of(k->request.in[i]);
            a.dy[a.gradients++] = (const T *)args->in[i];
        }
    a.g = (T *)args->out[1];
    a.statistics = batch_statistics(k, args);
    return a;
}

int cuda_bn_grad_sums(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    return with_vectors(x->dtype, x->dim[3], [&](auto t, auto width) {
        constexpr int V = decltype(width)::value;
        const auto a = gradients_of<typename decltype(t)::type>(k, args);
        return with_gradients<V>(a, [&](auto dense) {
            constexpr int DENSE = decltype(dense)::value;
            if (!k->request.node.attr.relu)
                return launch_gradient_sums<V, NO_MASK, DENSE>(self, k, args, a);
            return a.y ? launch_gradient_sums<V, MASK_OF_Y, DENSE>(self, k, args, a)
                       : launch_gradient_sums<V, MASK_OF_X, DENSE>(self, k, args, a);
        });
    });
}

template <typename T, int V, bool RELU>
__global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    bn_grad_kernel(const T *x, const T *dy, row_layout of_dy, T *dx, bn_statistics s, const double *gsums, int64_t rows,
                   int channels)
{
    __shared__ float table[5 * LANES * V];
    over_channels<V>(s, channels, [&](const bn_moments &m, int c, int i) {
        put_affine<V>(s, m, c, i, table);
        put_gradient<V>(s, m, gsums, channels, c, table + 2 * LANES * V + i);
    });
    __syncthreads();
    const int column = tile_column<V>();
    if (column >= channels)
        return;
    float scale[V], shift[V], from_g[V], from_x[V], constant[V];
    take_table(table, 0, scale);
    take_table(table, 1, shift);
    take_table(table, 2, from_g);
    take_table(table, 3, from_x);
    take_table(table, 4, constant);
    packed_words<T, V> of_x[2], of_g[2];
    walk_back<2>(
        rows,
        [&](int j, int64_t row) {
            of_x[j] = load_words<V>(x + row * channels + column);
            of_g[j] = load_words<V>(dy + row_begin(of_dy, row) + column);
        },
        [&](int j, int64_t row) {
            float value[V], g[V];
            to_floats(of_x[j], value);
            to_floats(of_g[j], g);
#pragma unroll
            for (int v = 0; v < V; v++) {
                if (RELU && !(affine(value[v], scale[v], shift[v]) > 0))
                    g[v] = 0;
                g[v] = fmaf(from_g[v], g[v], fmaf(from_x[v], value[v], constant[v]));
            }
            store(dx + row * channels + column, g);
        });
}

int cuda_bn_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    return with_vectors(x->dtype, x->dim[3], [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        tile_shape tile = tile_of(x->dim[3], V);
        return launch(k->request.node.attr.relu ? bn_grad_kernel<T, V, true> : bn_grad_kernel<T, V, false>,
                      tile_grid(self, tile, tensor_rows(x), RESIDENT_BLOCKS), tile_block(tile), 0, self->stream,
                      (const T *)args->in[0], (const T *)args->in[5], layout_of(k->request.in[5]), (T *)args->out[0],
                      batch_statistics(k, args), (const double *)args->in[4], tensor_rows(x), x->dim[3]);
    });
}

static __global__ void bn_param_grad_kernel(const double *gsums, float *dgamma, float *dbeta, int channels)
{
    const int c = (int)flat_index();
    if (c < channels && dgamma)
        dgamma[c] = (float)gsums[channels + c];
    if (c < channels && dbeta)
        dbeta[c] = (float)gsums[c];
}

int cuda_bn_param_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    int channels = k->request.in[0].dim[3];
    return launch(bn_param_grad_kernel, dim3((unsigned)divide_up(channels, THREADS)), dim3(THREADS), 0, self->stream,
                  (const double *)args->in[0], (float *)args->out[0], (float *)args->out[1], channels);
}
