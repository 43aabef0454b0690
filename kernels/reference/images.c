/* From bytes to the network's input, and what changes the width or the type of elements. Nothing is kept between calls.
 */
#include <string.h>

#include "base/error.h"
#include "reference.h"

/* One pixel of the chosen crop: bytes of the image, or zeros outside it. */
static void pixel_at(const tensor_desc *set, const uint8_t *image, int32_t row, int32_t column, uint8_t pixel[3])
{
    bool inside = row >= 0 && row < set->dim[1] && column >= 0 && column < set->dim[2];
    for (int c = 0; c < 3; c++)
        pixel[c] = inside ? image[((int64_t)row * set->dim[2] + column) * 3 + c] : 0;
}

static void make_image(const kernel_request *request, const kernel_args *args, const int32_t choice[4], double *y)
{
    const tensor_desc *set = &request->in[0], *out = &request->out[0];
    const double *table = args->in[2];
    const uint8_t *image = (const uint8_t *)args->in[0] + (int64_t)choice[0] * set->dim[1] * set->dim[2] * 3;
    int32_t pad = request->node.attr.pad, width = set->dim[2], channels = out->dim[3];
    for (int32_t i = 0; i < set->dim[1]; i++)
        for (int32_t j = 0; j < width; j++, y += channels) {
            uint8_t pixel[3];
            pixel_at(set, image, i + choice[1] - pad, (choice[3] ? width - 1 - j : j) + choice[2] - pad, pixel);
            for (int32_t c = 0; c < channels; c++)
                y[c] = c < 3 ? table[pixel[c] * 3 + c] : 0;
        }
}

int reference_images(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const int32_t *choice = args->in[1];
    int64_t elements = tensor_count(&request->out[0]) / request->out[0].dim[0];
    for (int32_t n = 0; n < request->out[0].dim[0]; n++, choice += 4) {
        CHECK(choice[0] >= 0 && choice[0] < request->in[0].dim[0], ERROR_DATA,
              "image %d of the batch is number %d of %d", n, choice[0], request->in[0].dim[0]);
        make_image(request, args, choice, (double *)args->out[0] + n * elements);
    }
    return 0;
}

int reference_pad_channels(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *x = args->in[0];
    double *y = args->out[0];
    int32_t from = request->in[0].dim[3], to = request->out[0].dim[3];
    for (int64_t row = 0; row < tensor_rows(&request->in[0]); row++)
        for (int32_t c = 0; c < to; c++)
            y[row * to + c] = c < from ? x[row * from + c] : 0;
    return 0;
}

/* All reals have one type here. */
int reference_convert(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    memcpy(args->out[0], args->in[0], tensor_bytes(&request->in[0]));
    return 0;
}
