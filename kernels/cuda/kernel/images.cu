/* From bytes to the network's input, and what changes the width or the type of elements. */
#include "vector.cuh"

enum { IMAGE_CHANNELS = 3, CHOICE_NUMBERS = 4 };

struct image_shape {
    int images, height, width, pad, channels;
};

/* The normalised channels of one pixel; an image that is not in the set is NaN. */
__device__ static inline void read_pixel(const uint8_t *set, const int32_t *choice, const float *table,
                                         const image_shape &s, int i, int j, float (&value)[IMAGE_CHANNELS])
{
    const int row = i + choice[1] - s.pad, column = (choice[3] ? s.width - 1 - j : j) + choice[2] - s.pad;
    const bool exists = choice[0] >= 0 && choice[0] < s.images;
    const bool inside = exists && row >= 0 && row < s.height && column >= 0 && column < s.width;
    const int64_t at = (((int64_t)choice[0] * s.height + row) * s.width + column) * IMAGE_CHANNELS;
#pragma unroll
    for (int c = 0; c < IMAGE_CHANNELS; c++) {
        const int byte = inside ? set[at + c] : 0;
        value[c] = exists ? table[byte * IMAGE_CHANNELS + c] : NAN;
    }
}

/* One thread per pixel of an image, the images in blockIdx.y; V channels, or as many as there are where V is 1. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    images_kernel(const uint8_t *set, const int32_t *choice, const float *table, T *y, image_shape s, int batch)
{
    const int plane = s.height * s.width, pixel = (int)flat_index(), i = pixel / s.width, j = pixel - i * s.width;
    for (int n = (int)blockIdx.y; n < batch && pixel < plane; n += (int)gridDim.y) {
        const int64_t p = (int64_t)n * plane + pixel;
        float value[IMAGE_CHANNELS];
        read_pixel(set, choice + n * CHOICE_NUMBERS, table, s, i, j, value);
        if constexpr (V > 1) {
            float padded[V] = {value[0], value[1], value[2]};
            store(y + p * V, padded);
        } else {
            for (int c = 0; c < s.channels; c++)
                from_float(c == 0 ? value[0] : c == 1 ? value[1] : c == 2 ? value[2] : 0.0f, y[p * s.channels + c]);
        }
    }
}

template <typename T, int V>
static int launch_images(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *set = &k->request.in[0], *y = &k->request.out[0];
    image_shape s = {set->dim[0], set->dim[1], set->dim[2], k->request.node.attr.pad, y->dim[3]};
    const int batch = y->dim[0];
    const dim3 grid((unsigned)divide_up((int64_t)s.height * s.width, THREADS),
                    (unsigned)(batch < MOST_GRID_ROWS ? batch : MOST_GRID_ROWS));
    return launch(images_kernel<T, V>, grid, dim3(THREADS), 0, self->stream, (const uint8_t *)args->in[0],
                  (const int32_t *)args->in[1], (const float *)args->in[2], (T *)args->out[0], s, batch);
}

int cuda_images(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    constexpr int WIDE = 8; /* what convolutions like */
    return with_type(k->request.out[0].dtype, [&](auto t) {
        using T = typename decltype(t)::type;
        return k->request.out[0].dim[3] == WIDE ? launch_images<T, WIDE>(self, k, args)
                                                : launch_images<T, 1>(self, k, args);
    });
}

template <typename T>
__global__ void __launch_bounds__(THREADS) pad_channels_kernel(const T *x, T *y, int64_t rows, int from, int to)
{
    for (int64_t i = flat_index(); i < rows * to; i += flat_stride()) {
        const int64_t row = i / to;
        const int c = (int)(i - row * to);
        from_float(c < from ? to_float(x[row * from + c]) : 0.0f, y[i]);
    }
}

int cuda_pad_channels(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0], *y = &k->request.out[0];
    return with_type(x->dtype, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(pad_channels_kernel<T>, flat_grid(self, tensor_count(y)), dim3(THREADS), 0, self->stream,
                      (const T *)args->in[0], (T *)args->out[0], tensor_rows(x), (int)x->dim[3], (int)y->dim[3]);
    });
}

int cuda_convert_op(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0], *y = &k->request.out[0];
    if (y->dtype == DTYPE_F32)
        return cuda_convert_to_float(self, args->in[0], x->dtype, tensor_count(x), (float *)args->out[0]);
    if (x->dtype == DTYPE_F32)
        return cuda_convert(self, (const float *)args->in[0], y->dtype, tensor_count(x), args->out[0]);
    return error_set(ERROR_KERNEL, "conversions on the GPU are from float32 or to it");
}
