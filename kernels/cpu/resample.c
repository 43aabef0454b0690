/* The bilinear upsample (align_corners = true, twice the size) and its gradient, both separable and as gathers.
 * Positions are ratios of integers, so that no rounding moves a source: output i of 2n lies at
 * i*(n - 1)/(2n - 1). The workspace holds the positions, then a row of pixels for each thread. */
#include "cpu.h"

enum { ROWS, COLUMNS, BUFFER };

void upsample_taps(upsample_tap *tap, int32_t n)
{
    int32_t span = 2 * n - 1;
    for (int32_t i = 0; i < 2 * n; i++) {
        int32_t at = i * (n - 1);
        tap[i].index = at / span;
        tap[i].next = tap[i].index + 1 < n ? tap[i].index + 1 : tap[i].index;
        tap[i].weight = (float)((double)(at % span) / span);
    }
}

/* The outputs less than one input pixel away. */
void upsample_readers(upsample_sources *source, int32_t n)
{
    int32_t span = 2 * n - 1;
    for (int32_t j = 0, first = 0; j < n; j++) {
        while (first * (n - 1) <= (j - 1) * span)
            first++;
        source[j].first = first;
        int32_t i = first;
        for (; i < 2 * n && i * (n - 1) < (j + 1) * span; i++) {
            int32_t distance = i * (n - 1) - j * span;
            source[j].weight[i - first] = (float)(1.0 - (double)(distance < 0 ? -distance : distance) / span);
        }
        source[j].end = i;
    }
}

/* Row buffers are as wide as the small image in the forward and as the large one in the backward: take the larger. */
static int64_t buffer_floats(const kernel *k)
{
    const tensor_desc *in = &k->request.in[0], *out = &k->request.out[0];
    int64_t width = in->dim[2] > out->dim[2] ? in->dim[2] : out->dim[2];
    return (width * in->dim[3] + 15) / 16 * 16;
}

int upsample2x_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const tensor_desc *in = &k->request.in[0], *out = &k->request.out[0];
    size_t bytes = sizeof(upsample_sources) > sizeof(upsample_tap) ? sizeof(upsample_sources) : sizeof(upsample_tap);
    size_t height = (size_t)(in->dim[1] > out->dim[1] ? in->dim[1] : out->dim[1]);
    size_t width = (size_t)(in->dim[2] > out->dim[2] ? in->dim[2] : out->dim[2]);
    k->offset[ROWS] = workspace_take(workspace, height * bytes);
    k->offset[COLUMNS] = workspace_take(workspace, width * bytes);
    k->offset[BUFFER] = workspace_take(workspace, (size_t)self->threads * (size_t)buffer_floats(k) * sizeof(float));
    return 0;
}

int upsample2x_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *in = &k->request.in[0], *out = &k->request.out[0];
    int64_t h = in->dim[1], w = in->dim[2], c = in->dim[3], lines = (int64_t)out->dim[0] * out->dim[1];
    upsample_tap *row = workspace_at(args, k->offset[ROWS]), *column = workspace_at(args, k->offset[COLUMNS]);
    float *buffer = workspace_at(args, k->offset[BUFFER]), *y = args->out[0];
    const float *x = args->in[0];
    bool stream = cpu_streams(self, out, y);
    int threads = self->threads;
    upsample_taps(row, in->dim[1]);
    upsample_taps(column, in->dim[2]);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++)
        for (int64_t line = part_begin(lines, t, threads); line < part_begin(lines, t + 1, threads); line++) {
            const upsample_tap *tap = &row[line % (2 * h)];
            const float *image = x + line / (2 * h) * h * w * c;
            self->loops->upsample_row(image + tap->index * w * c, image + tap->next * w * c, tap->weight, column, w,
                                      2 * w, c, y + line * 2 * w * c, buffer + t * buffer_floats(k), stream);
        }
    return 0;
}

int upsample2x_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *in = &k->request.in[0], *out = &k->request.out[0];
    int64_t h = out->dim[1], w = out->dim[2], c = out->dim[3], lines = (int64_t)out->dim[0] * h;
    upsample_sources *row = workspace_at(args, k->offset[ROWS]), *column = workspace_at(args, k->offset[COLUMNS]);
    float *buffer = workspace_at(args, k->offset[BUFFER]), *dx = args->out[0];
    const float *dy = args->in[0];
    int64_t image = (int64_t)in->dim[1] * in->dim[2] * c;
    int threads = self->threads;
    upsample_readers(row, out->dim[1]);
    upsample_readers(column, out->dim[2]);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++)
        for (int64_t line = part_begin(lines, t, threads); line < part_begin(lines, t + 1, threads); line++)
            self->loops->upsample_grad_row(dy + line / h * image, &row[line % h], column, w, 2 * w, c,
                                           dx + line * w * c, buffer + t * buffer_floats(k));
    return 0;
}
