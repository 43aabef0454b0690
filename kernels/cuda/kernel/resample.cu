/* Bilinear upsampling, its gradient, and patches. A block walks one line of a feature map; every output element is
 * gathered by one thread, so that no sum needs atomics. */
#include "bilinear.cuh"

/* ---- bilinear, align_corners ---- */

/* One block per line of the large feature map. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS) upsample_kernel(const T *x, T *y, int height, int width, int channels)
{
    const int groups = channels / V, line = (int)blockIdx.x;
    const bilinear_source v = source_of(line % (2 * height), height);
    const T *image = x + (int64_t)(line / (2 * height)) * height * width * channels;
    const T *upper = image + (int64_t)v.first * width * channels, *lower = image + (int64_t)v.second * width * channels;
    for (int i = (int)threadIdx.x; i < 2 * width * groups; i += THREADS) {
        const bilinear_source h = source_of(i / groups, width);
        const int column = i % groups * V;
        float a[V], b[V], c[V], d[V];
        load(upper + h.first * channels + column, a);
        load(upper + h.second * channels + column, b);
        load(lower + h.first * channels + column, c);
        load(lower + h.second * channels + column, d);
#pragma unroll
        for (int k = 0; k < V; k++)
            a[k] = (1 - v.weight) * ((1 - h.weight) * a[k] + h.weight * b[k]) +
                   v.weight * ((1 - h.weight) * c[k] + h.weight * d[k]);
        store(y + ((int64_t)line * 2 * width * channels + (int64_t)i * V), a);
    }
}

int cuda_upsample2x(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    return with_vectors(x->dtype, x->dim[3], [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        return launch(upsample_kernel<T, V>, dim3((unsigned)(x->dim[0] * x->dim[1] * 2)), dim3(THREADS), 0,
                      self->stream, (const T *)args->in[0], (T *)args->out[0], x->dim[1], x->dim[2], x->dim[3]);
    });
}

/* One block per line of the small feature map, whose size is `height` x `width`. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS, 4)
    upsample_grad_kernel(const T *dy, T *dx, int height, int width, int channels)
{
    const int groups = channels / V, line = (int)blockIdx.x, y = line % height;
    const T *image = dy + (int64_t)(line / height) * 4 * height * width * channels;
    const bilinear_readers v = readers_of(y, height);
    for (int i = (int)threadIdx.x; i < width * groups; i += THREADS) {
        const int x = i / groups, column = i % groups * V;
        const bilinear_readers h = readers_of(x, width);
        float sum[V] = {};
        for (int ly = v.first; ly <= v.last; ly++) {
            const T *from = image + ((int64_t)ly * 2 * width + h.first) * channels + column;
            const float of_line = weight_for(ly, y, height);
            for (int lx = h.first; lx <= h.last; lx++, from += channels) {
                const float weight = of_line * weight_for(lx, x, width);
                float value[V];
                load(from, value);
#pragma unroll
                for (int k = 0; k < V; k++)
                    sum[k] = fmaf(weight, value[k], sum[k]);
            }
        }
        store(dx + ((int64_t)line * width * channels + (int64_t)i * V), sum);
    }
}

int cuda_upsample2x_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *dx = &k->request.out[0];
    return with_vectors(dx->dtype, dx->dim[3], [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        return launch(upsample_grad_kernel<T, V>, dim3((unsigned)(dx->dim[0] * dx->dim[1])), dim3(THREADS), 0,
                      self->stream, (const T *)args->in[0], (T *)args->out[0], dx->dim[1], dx->dim[2], dx->dim[3]);
    });
}

/* ---- patches ---- */

/* One block per line of the feature map. Patch (y / size, x / size) holds (y, x) as element (y % size, x % size). */
template <typename T, int V, bool TO_PATCHES>
__global__ void __launch_bounds__(THREADS) patch_kernel(const T *from, T *to, int width, int channels, int size)
{
    const int groups = channels / V, line = (int)blockIdx.x;
    const int64_t map = (int64_t)line * width * channels;
    /* lines of all images can be counted through: `size` divides the height */
    const int64_t patches = (int64_t)(line / size) * size * width * channels + (int64_t)(line % size) * size * channels;
    for (int i = (int)threadIdx.x; i < width * groups; i += THREADS) {
        const int x = i / groups, column = i % groups * V;
        const int64_t in_map = map + (int64_t)x * channels + column;
        const int64_t in_patch = patches + ((int64_t)(x / size) * size * size + x % size) * channels + column;
        copy<T, V>(from + (TO_PATCHES ? in_map : in_patch), to + (TO_PATCHES ? in_patch : in_map));
    }
}

template <bool TO_PATCHES>
static int move_patches(const cuda_backend *self, const kernel *k, const kernel_args *args, const tensor_desc *map)
{
    return with_copies(map->dtype, map->dim[3], [&](auto t, auto width) {
        using T = typename decltype(t)::type;
        constexpr int V = decltype(width)::value;
        return launch(patch_kernel<T, V, TO_PATCHES>, dim3((unsigned)(map->dim[0] * map->dim[1])), dim3(THREADS), 0,
                      self->stream, (const T *)args->in[0], (T *)args->out[0], map->dim[2], map->dim[3],
                      k->request.node.attr.kernel);
    });
}

int cuda_patchify(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return move_patches<true>(self, k, args, &k->request.in[0]);
}

int cuda_unpatchify(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    return move_patches<false>(self, k, args, &k->request.out[0]);
}
