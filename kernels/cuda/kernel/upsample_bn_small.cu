/* The sums and the gradient of a normalised upsampled feature map as sums over the small one, z. With U the upsample,
 * the sum over U z is that over z weighted with Uᵀ1, and the sum of squares is zᵀ UᵀU z. The gradient needs Uᵀg
 * (upsample_bn.cu), UᵀU z and Uᵀ1 only. UᵀU has three diagonals along each axis. */
#include "bilinear.cuh"
#include "bn_statistics.cuh"
#include "upsample_strips.cuh"

/* Along one axis: what a position counts for in the large one (Uᵀ1), and its row of UᵀU. */
struct product_row {
    float share, before, self, after;
};

__device__ static inline product_row product_at(int i, int size)
{
    const bilinear_readers readers = readers_of(i, size);
    const int steps = 2 * size - 1;
    const float inverse = 1.0f / (float)steps;
    product_row p = {};
    for (int reader = readers.first; reader <= readers.last; reader++) {
        const int distance = reader * (size - 1) - i * steps;
        const bool before = distance < 0;
        const float weight = 1 - (float)(before ? -distance : distance) * inverse, other = weight * (1 - weight);
        p.share += weight;
        p.self = fmaf(weight, weight, p.self);
        p.before += before ? other : 0;
        p.after += before ? 0 : other;
    }
    return p;
}

/* A column of the small feature map on its way down: UᵀU along the columns, for three rows. */
template <typename T, int V> struct product_column {
    const T *place; /* in row 0 of the image */
    int64_t row_elements;
    int to_left, to_right, height;
    product_row across;
    pack<T, V> left, self, right; /* of the row that comes next */
    float above[V] = {}, here[V] = {}, below[V] = {};

    __device__ product_column(const T *z, const small_map &m, int image, int x, int column)
    {
        row_elements = (int64_t)m.width * m.channels;
        place = z + image * m.height * row_elements + (int64_t)x * m.channels + column;
        to_left = x > 0 ? -m.channels : 0;
        to_right = x + 1 < m.width ? m.channels : 0;
        height = m.height;
        across = product_at(x, m.width);
    }

    /* Starts to load a row; outside the feature map all is 0. */
    __device__ void read(int row)
    {
        left = self = right = {};
        if (row >= 0 && row < height) {
            const T *from = place + row * row_elements;
            left = load_raw<V>(from + to_left);
            self = load_raw<V>(from);
            right = load_raw<V>(from + to_right);
        }
    }

    /* The row that was read becomes that below. */
    __device__ void advance()
    {
#pragma unroll
        for (int v = 0; v < V; v++) {
            above[v] = here[v];
            here[v] = below[v];
            below[v] = fmaf(across.before, to_float(left.element[v]),
                            fmaf(across.self, to_float(self.element[v]), across.after * to_float(right.element[v])));
        }
    }

    /* Stands before `row`, of which all is there but the row below. */
    __device__ void begin(int row)
    {
        read(row - 1);
        advance();
        read(row);
        advance();
        read(row + 1);
    }

    __device__ float value(int v, const product_row &down) const
    {
        return fmaf(down.before, above[v], fmaf(down.self, here[v], down.after * below[v]));
    }
};

/* What the rows of a strip count for; between barriers. */
__device__ static inline void fill_products(const strip &place, const small_map &m, product_row *of_row)
{
    __syncthreads();
    for (int i = tile_thread(); i < place.end - place.first; i += THREADS)
        of_row[i] = product_at(place.first + i, m.height);
    __syncthreads();
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS, 2)
    sums_kernel(const T *z, small_map m, int segments, int items, double *partial)
{
    __shared__ product_row of_row[STRIP];
    __shared__ double sums[2][THREADS * V];
    clear_sums<V>(sums);
    const int column = tile_column<V>();
    for (int item = (int)blockIdx.y; item < items; item += (int)gridDim.y) {
        const strip place = strip_at(m, segments, item);
        const int x = place.segment * (int)blockDim.y + (int)threadIdx.y;
        fill_products(place, m, of_row);
        if (column >= m.channels || x >= m.width)
            continue;
        product_column<T, V> small(z, m, place.image, x, column);
        float run[2][V] = {};
        small.begin(place.first);
        for (int row = place.first; row < place.end; row++) {
            const product_row down = of_row[row - place.first];
            const pack<T, V> own = load_raw<V>(small.place + row * small.row_elements);
            const float share = down.share * small.across.share;
            small.advance();
            if (row + 1 < place.end)
                small.read(row + 2);
#pragma unroll
            for (int v = 0; v < V; v++) {
                const float value = to_float(own.element[v]);
                run[0][v] = fmaf(share, value, run[0][v]);
                run[1][v] = fmaf(small.value(v, down), value, run[1][v]);
            }
        }
        add_strip(run, sums);
    }
    finish_sums<V>(sums, m, partial);
}

int cuda_upsample_bn_sums_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    const small_map m = small_map_of(k);
    return with_vectors(k->request.in[0].dtype, m.channels, [&](auto, auto width) {
        const tile_shape tile = tile_of(m.channels, decltype(width)::value);
        k->offset[0] = cuda_workspace_take(workspace, strip_sums_workspace(tile, m.channels));
        return 0;
    });
}

int cuda_upsample_bn_sums(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const small_map m = small_map_of(k);
    return with_vectors(k->request.in[0].dtype, m.channels, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        const tile_shape tile = tile_of(m.channels, V);
        const strip_grid g = strips_over(m, tile, divide_up(m.width, tile.rows));
        double *partial = (double *)cuda_workspace_at(args, k->offset[0]);
        TRY(launch(sums_kernel<T, V>, grid_of(g, most_sum_blocks(tile)), tile_block(tile), 0, self->stream,
                   (const T *)args->in[0], m, g.segments, g.items, partial));
        return combine(self, m, g, partial, as_it_is(), (double *)args->out[0]);
    });
}

/* dz = from_g Uᵀg + from_x UᵀU z + constant Uᵀ1: bn_grad's formula under Uᵀ. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS, 2)
    small_grad_kernel(const T *z, const T *dg, T *dz, bn_statistics s, const double *gsums, small_map m, int segments,
                      int items)
{
    __shared__ float table[3 * LANES * V];
    __shared__ product_row of_row[STRIP];
    over_channels<V>(s, m.channels, [&](const bn_moments &moments, int c, int i) {
        put_gradient<V>(s, moments, gsums, m.channels, c, table + i);
    });
    const int column = tile_column<V>();
    for (int item = (int)blockIdx.y; item < items; item += (int)gridDim.y) {
        const strip place = strip_at(m, segments, item);
        const int x = place.segment * (int)blockDim.y + (int)threadIdx.y;
        fill_products(place, m, of_row);
        if (column >= m.channels || x >= m.width)
            continue;
        product_column<T, V> small(z, m, place.image, x, column);
        small.begin(place.first);
        for (int row = place.first; row < place.end; row++) {
            const product_row down = of_row[row - place.first];
            const int64_t at = small.place - z + row * small.row_elements;
            const float share = down.share * small.across.share;
            const pack<T, V> of_g = load_raw<V>(dg + at);
            float g[V], from_g[V], from_x[V], constant[V];
            small.advance();
            if (row + 1 < place.end)
                small.read(row + 2);
            to_floats(of_g, g);
            take_table(table, 0, from_g);
            take_table(table, 1, from_x);
            take_table(table, 2, constant);
#pragma unroll
            for (int v = 0; v < V; v++)
                g[v] = fmaf(from_g[v], g[v], fmaf(from_x[v], small.value(v, down), constant[v] * share));
            store(dz + at, g);
        }
    }
}

int cuda_upsample_bn_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const small_map m = small_map_of(k);
    return with_vectors(k->request.in[0].dtype, m.channels, [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        const tile_shape tile = tile_of(m.channels, V);
        const strip_grid g = strips_over(m, tile, divide_up(m.width, tile.rows));
        return launch(small_grad_kernel<T, V>, grid_of(g, MOST_GRID_ROWS), tile_block(tile), 0, self->stream,
                      (const T *)args->in[0], (const T *)args->in[4], (T *)args->out[0], batch_statistics(k, args),
                      (const double *)args->in[3], m, g.segments, g.items);
    });
}
