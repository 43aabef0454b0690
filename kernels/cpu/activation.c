/* ReLU, and the excitation that scales the channels of a feature map before its shortcut is added. Elements of a ReLU
 * and images of an excitation belong to one thread each. The workspace of an excitation holds gates and sums. */
#include "cpu.h"

#include <math.h>
#include <string.h>

int relu_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const float *x = args->in[0];
    float *y = args->out[0];
    int64_t count = tensor_count(&k->request.out[0]), blocks = (count + 15) / 16; /* parts begin on whole vectors */
    bool stream = x != y && cpu_streams(self, &k->request.out[0], y);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (count > PARALLEL_ELEMENTS)
    for (int t = 0; t < threads; t++) {
        int64_t begin = part_begin(blocks, t, threads) * 16, end = part_begin(blocks, t + 1, threads) * 16;
        self->loops->relu(x + begin, y + begin, (end < count ? end : count) - begin, stream);
    }
    return 0;
}

int relu_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const float *y = args->in[0], *dy = args->in[1];
    float *dx = args->out[0];
    int64_t count = tensor_count(&k->request.out[0]), blocks = (count + 15) / 16;
    bool stream = dx != dy && cpu_streams(self, &k->request.out[0], dx);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (count > PARALLEL_ELEMENTS)
    for (int t = 0; t < threads; t++) {
        int64_t begin = part_begin(blocks, t, threads) * 16, end = part_begin(blocks, t + 1, threads) * 16;
        self->loops->relu_grad(y + begin, dy + begin, dx + begin, (end < count ? end : count) - begin, stream);
    }
    return 0;
}

enum { GATES, SHIFT, SUMS };

/* Of one thread: float64 sums [C], then 2 rows of float32 scratch. */
static size_t excite_part_bytes(int64_t channels)
{
    size_t bytes = (size_t)channels * (sizeof(double) + 2 * sizeof(float));
    return (bytes + 63) / 64 * 64;
}

int excite_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    int64_t channels = k->request.in[0].dim[3];
    size_t row = (size_t)channels * sizeof(float);
    k->offset[GATES] = workspace_take(workspace, row * (size_t)self->threads);
    if (k->request.node.op == OP_EXCITE)
        k->offset[SHIFT] = workspace_take(workspace, row);
    else
        k->offset[SUMS] = workspace_take(workspace, excite_part_bytes(channels) * (size_t)self->threads);
    return 0;
}

static double sigmoid(float z)
{
    return 1 / (1 + exp(-(double)z));
}

static void gates(const float *z, float *gate, int64_t channels)
{
    for (int64_t c = 0; c < channels; c++)
        gate[c] = (float)sigmoid(z[c]);
}

/* With the gates as scale and no shift this is the loop of a batch normalisation with a residual. */
int excite_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *map = &k->request.in[0];
    int64_t images = map->dim[0], pixels = (int64_t)map->dim[1] * map->dim[2], channels = map->dim[3];
    const float *r = args->in[0], *z = args->in[1], *shortcut = args->in[2];
    float *y = args->out[0], *all_gates = workspace_at(args, k->offset[GATES]);
    float *no_shift = workspace_at(args, k->offset[SHIFT]);
    bool stream = cpu_streams(self, map, y);
    int threads = self->threads;
    memset(no_shift, 0, (size_t)channels * sizeof *no_shift);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        float *gate = all_gates + t * channels;
        const bn_tables tables = {.scale = gate, .shift = no_shift};
        for (int64_t n = part_begin(images, t, threads); n < part_begin(images, t + 1, threads); n++) {
            int64_t at = n * pixels * channels;
            gates(z + n * channels, gate, channels);
            self->loops->bn_normalize(r + at, shortcut + at, y + at, pixels, channels, &tables, true, stream);
        }
    }
    return 0;
}

int excite_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *map = &k->request.in[0];
    int64_t images = map->dim[0], pixels = (int64_t)map->dim[1] * map->dim[2], channels = map->dim[3];
    const float *r = args->in[0], *z = args->in[1], *y = args->in[2], *dy = args->in[3];
    float *dr = args->out[0], *dz = args->out[1], *dshortcut = args->out[2];
    float *all_gates = workspace_at(args, k->offset[GATES]);
    char *parts = workspace_at(args, k->offset[SUMS]);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        float *gate = all_gates + t * channels;
        double *sums = (double *)(void *)(parts + excite_part_bytes(channels) * (size_t)t);
        for (int64_t n = part_begin(images, t, threads); n < part_begin(images, t + 1, threads); n++) {
            int64_t at = n * pixels * channels;
            gates(z + n * channels, gate, channels);
            memset(sums, 0, (size_t)channels * sizeof *sums);
            self->loops->excite_grad(r + at, y + at, dy + at, gate, dr ? dr + at : NULL,
                                     dshortcut ? dshortcut + at : NULL, pixels, channels, sums,
                                     (float *)(sums + channels));
            for (int64_t c = 0; dz && c < channels; c++) {
                double s = sigmoid(z[n * channels + c]);
                dz[n * channels + c] = (float)(s * (1 - s) * sums[c]);
            }
        }
    }
    return 0;
}
