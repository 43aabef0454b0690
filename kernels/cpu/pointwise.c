/* Ops that move or combine elements: add, concat, slices, patches, pooling, fuse weights.
 * Each element belongs to one thread; nothing is kept between launches. */
#include "cpu.h"

#include <string.h>

int add_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const float *term[NODE_MAX_IN];
    int terms = 0;
    for (int i = 0; i < NODE_MAX_IN; i++)
        if (args->in[i])
            term[terms++] = args->in[i];
    float *y = args->out[0];
    int64_t count = tensor_count(&k->request.out[0]), blocks = (count + 15) / 16; /* parts begin on whole vectors */
    bool stream = count % 16 == 0 && term[0] != y && cpu_streams(self, &k->request.out[0], y);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (count > PARALLEL_ELEMENTS)
    for (int t = 0; t < threads; t++) {
        int64_t begin = part_begin(blocks, t, threads) * 16, end = part_begin(blocks, t + 1, threads) * 16;
        self->loops->add(term, terms, y, begin, end < count ? end : count, stream);
    }
    return 0;
}

/* Copies `columns` of every row between matrices of different widths. */
static void copy_columns(const cpu_backend *self, float *to, int64_t to_width, const float *from, int64_t from_width,
                         int64_t rows, int64_t columns)
{
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * columns > PARALLEL_ELEMENTS)
    for (int64_t r = 0; r < rows; r++)
        memcpy(to + r * to_width, from + r * from_width, (size_t)columns * sizeof *to);
}

int concat_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    int64_t rows = tensor_rows(&k->request.out[0]), a = k->request.in[0].dim[3], b = k->request.in[1].dim[3];
    float *y = args->out[0];
    copy_columns(self, y, a + b, args->in[0], a, rows, a);
    copy_columns(self, y + a, a + b, args->in[1], b, rows, b);
    return 0;
}

int channel_slice_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0], *y = &k->request.out[0];
    const float *from = (const float *)args->in[0] + k->request.node.attr.channel_offset;
    copy_columns(self, args->out[0], y->dim[3], from, x->dim[3], tensor_rows(y), y->dim[3]);
    return 0;
}

/* Image row r of `image` (n,h,w,c) is cut into runs of k pixels; run p belongs to row kh of a patch. */
static int64_t patch_run(const tensor_desc *image, int64_t k, int64_t r, int64_t p)
{
    int64_t h = image->dim[1], w = image->dim[2], c = image->dim[3];
    int64_t n = r / h, patch_row = r % h / k, kh = r % h % k;
    return (((n * (h / k) + patch_row) * (w / k) + p) * k + kh) * k * c;
}

int patchify_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *image = &k->request.in[0];
    int64_t size = k->request.node.attr.kernel, run = size * image->dim[3];
    int64_t rows = (int64_t)image->dim[0] * image->dim[1], runs = image->dim[2] / size;
    const float *x = args->in[0];
    float *y = args->out[0];
    bool stream = run % 16 == 0 && cpu_streams(self, &k->request.out[0], y);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t p = 0; p < runs; p++)
            self->loops->copy(y + patch_run(image, size, r, p), x + (r * runs + p) * run, run, stream);
    return 0;
}

int unpatchify_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *image = &k->request.out[0];
    int64_t size = k->request.node.attr.kernel, run = size * image->dim[3];
    int64_t rows = (int64_t)image->dim[0] * image->dim[1], runs = image->dim[2] / size;
    const float *dy = args->in[0];
    float *dx = args->out[0];
    bool stream = cpu_streams(self, image, dx);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t p = 0; p < runs; p++)
            self->loops->copy(dx + (r * runs + p) * run, dy + patch_run(image, size, r, p), run, stream);
    return 0;
}

/* [A, B] -> [A + B, A], the fold and its own gradient. */
static void fold(const cpu_backend *self, const tensor_desc *t, const float *from, float *to)
{
    int64_t rows = t->dim[0], half = tensor_count(t) / rows / 2;
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * half > PARALLEL_ELEMENTS)
    for (int64_t r = 0; r < rows; r++) {
        const float *a = from + r * 2 * half, *b = a + half;
        float *sum = to + r * 2 * half;
#pragma omp simd
        for (int64_t i = 0; i < half; i++)
            sum[i] = a[i] + b[i];
        memcpy(sum + half, a, (size_t)half * sizeof *sum);
    }
}

int fold_fuse_weight_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    fold(self, &k->request.in[0], args->in[0], args->out[0]);
    return 0;
}

int fold_fuse_weight_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    fold(self, &k->request.in[0], args->in[0], args->out[0]);
    return 0;
}

int pool_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    k->offset[0] = workspace_take(workspace, column_sums_bytes(self, k->request.in[0].dim[3]));
    return 0;
}

int global_average_pool_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *image = &k->request.in[0];
    int64_t images = image->dim[0], pixels = (int64_t)image->dim[1] * image->dim[2], channels = image->dim[3];
    const float *x = args->in[0];
    float *y = args->out[0];
    char *workspace = workspace_at(args, k->offset[0]);
    int threads = self->threads;
    size_t part_bytes = column_sums_bytes(self, channels) / (size_t)threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        double *sums = (double *)(void *)(workspace + part_bytes * (size_t)t);
        for (int64_t n = part_begin(images, t, threads); n < part_begin(images, t + 1, threads); n++) {
            memset(sums, 0, (size_t)channels * sizeof *sums);
            self->loops->channel_sums(x + n * pixels * channels, pixels, channels, false, sums,
                                      (float *)(sums + channels));
            for (int64_t c = 0; c < channels; c++)
                y[n * channels + c] = (float)(sums[c] / (double)pixels);
        }
    }
    return 0;
}

int global_average_pool_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *image = &k->request.out[0];
    int64_t images = image->dim[0], pixels = (int64_t)image->dim[1] * image->dim[2], channels = image->dim[3];
    const float *dy = args->in[0];
    float *dx = args->out[0];
    float share = 1.0F / (float)pixels;
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < images; n++) {
        float *first = dx + n * pixels * channels;
        for (int64_t c = 0; c < channels; c++)
            first[c] = dy[n * channels + c] * share;
        for (int64_t p = 1; p < pixels; p++)
            memcpy(first + p * channels, first, (size_t)channels * sizeof *first);
    }
    return 0;
}
