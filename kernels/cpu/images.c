/* From bytes to the network's input, and what changes the width of elements. Rows of an image belong to one thread. */
#include "base/error.h"
#include "cpu.h"

#include <string.h>

enum { IMAGE_CHANNELS = 3 };

/* Row `i` of the chosen crop of one image. */
static void make_row(const kernel *k, const kernel_args *args, const int32_t choice[4], int32_t i, float *y)
{
    const tensor_desc *set = &k->request.in[0];
    const float *table = args->in[2];
    int32_t pad = k->request.node.attr.pad, width = set->dim[2], channels = k->request.out[0].dim[3];
    int32_t row = i + choice[1] - pad;
    const uint8_t *bytes =
        (const uint8_t *)args->in[0] + ((int64_t)choice[0] * set->dim[1] + row) * width * IMAGE_CHANNELS;
    for (int32_t j = 0; j < width; j++, y += channels) {
        int32_t column = (choice[3] ? width - 1 - j : j) + choice[2] - pad;
        bool inside = row >= 0 && row < set->dim[1] && column >= 0 && column < width;
        for (int32_t c = 0; c < channels; c++)
            y[c] = c < IMAGE_CHANNELS ? table[(inside ? bytes[column * IMAGE_CHANNELS + c] : 0) * IMAGE_CHANNELS + c]
                                      : 0.0F;
    }
}

int images_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *y = &k->request.out[0];
    const int32_t *choices = args->in[1];
    for (int32_t n = 0; n < y->dim[0]; n++)
        CHECK(choices[4 * n] >= 0 && choices[4 * n] < k->request.in[0].dim[0], ERROR_DATA,
              "image %d of the batch is number %d of %d", n, choices[4 * n], k->request.in[0].dim[0]);
    int64_t rows = (int64_t)y->dim[0] * y->dim[1], elements = (int64_t)y->dim[2] * y->dim[3];
#pragma omp parallel for num_threads(self->threads) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        make_row(k, args, choices + 4 * (row / y->dim[1]), (int32_t)(row % y->dim[1]),
                 (float *)args->out[0] + row * elements);
    return 0;
}

int pad_channels_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const float *x = args->in[0];
    float *y = args->out[0];
    int32_t from = k->request.in[0].dim[3], to = k->request.out[0].dim[3];
#pragma omp parallel for num_threads(self->threads) schedule(static)
    for (int64_t row = 0; row < tensor_rows(&k->request.in[0]); row++) {
        memcpy(y + row * to, x + row * from, (size_t)from * sizeof *y);
        memset(y + row * to + from, 0, (size_t)(to - from) * sizeof *y);
    }
    return 0;
}

/* All reals have one type here. */
int convert_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    memcpy(args->out[0], args->in[0], tensor_bytes(&k->request.in[0]));
    return 0;
}
