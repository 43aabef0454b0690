/* Maximum over windows and its gradient. A thread owns rows of the result, whichever windows they need, so that
 * overlapping windows are added in one order for any number of threads. */
#include "cpu.h"

#include <string.h>

static pool_windows windows_of(const op_attr *attr, const tensor_desc *map, const tensor_desc *pooled)
{
    return (pool_windows){.height = map->dim[1],
                          .width = map->dim[2],
                          .channels = map->dim[3],
                          .out_height = pooled->dim[1],
                          .out_width = pooled->dim[2],
                          .kernel = attr->kernel,
                          .stride = attr->stride,
                          .pad = attr->pad};
}

/* A row of the feature map for each thread, in whole vectors. */
static int64_t scratch_floats(const tensor_desc *map)
{
    return ((int64_t)map->dim[2] * map->dim[3] + 15) / 16 * 16;
}

int max_pool_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    size_t floats = (size_t)scratch_floats(&k->request.in[0]) * (size_t)self->threads;
    k->offset[0] = workspace_take(workspace, floats * sizeof(float));
    return 0;
}

int max_pool_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *map = &k->request.in[0], *pooled = &k->request.out[0];
    const pool_windows w = windows_of(&k->request.node.attr, map, pooled);
    const float *x = args->in[0];
    float *y = args->out[0], *scratch = workspace_at(args, k->offset[0]);
    int64_t lines = (int64_t)pooled->dim[0] * w.out_height, image = w.height * w.width * w.channels;
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++)
        for (int64_t line = part_begin(lines, t, threads); line < part_begin(lines, t + 1, threads); line++)
            self->loops->max_pool_row(&w, x + line / w.out_height * image, line % w.out_height,
                                      y + line * w.out_width * w.channels, scratch + t * scratch_floats(map));
    return 0;
}

/* The rows [begin, end) of one image's gradient, from all the windows that reach into them. */
static void image_rows(const cpu_backend *self, const pool_windows *w, const float *x, const float *dy, float *dx,
                       int64_t begin, int64_t end)
{
    int64_t width = w->width * w->channels, after = begin + w->pad - w->kernel;
    int64_t first = after < 0 ? 0 : after / w->stride + 1, last = (end - 1 + w->pad) / w->stride;
    memset(dx + begin * width, 0, (size_t)((end - begin) * width) * sizeof *dx);
    for (int64_t row = first; row <= last && row < w->out_height; row++)
        self->loops->max_pool_grad_row(w, x, row, dy + row * w->out_width * w->channels, dx, begin, end);
}

int max_pool_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *map = &k->request.in[0], *pooled = &k->request.in[1];
    const pool_windows w = windows_of(&k->request.node.attr, map, pooled);
    const float *x = args->in[0], *dy = args->in[1];
    float *dx = args->out[0];
    int64_t lines = (int64_t)map->dim[0] * w.height, in = w.height * w.width * w.channels;
    int64_t out = w.out_height * w.out_width * w.channels;
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        int64_t end = part_begin(lines, t + 1, threads);
        for (int64_t line = part_begin(lines, t, threads), next; line < end; line = next) {
            int64_t n = line / w.height, begin = line % w.height;
            next = (n + 1) * w.height < end ? (n + 1) * w.height : end;
            image_rows(self, &w, x + n * in, dy + n * out, dx + n * in, begin, begin + next - line);
        }
    }
    return 0;
}
