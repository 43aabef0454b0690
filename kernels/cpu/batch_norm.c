/* Batch normalisation around the loops: tables by channel, the split over threads, sums in float64.
 *
 * Statistics come from the (perhaps global) sums and attr.count, never from the local rows. The workspace
 * holds the tables of one launch, then the partial sums of each thread. */
#include "batch_norm.h"
#include "base/error.h"

#include <math.h>
#include <string.h>

enum { TABLES = 6 };

/* Of one thread: float64 sums [2, C], then 3 rows of float32 scratch. */
static size_t partial_bytes(int64_t channels)
{
    size_t bytes = (size_t)channels * (2 * sizeof(double) + 3 * sizeof(float));
    return (bytes + 63) / 64 * 64;
}

size_t column_sums_bytes(const cpu_backend *self, int64_t channels)
{
    return partial_bytes(channels) * (size_t)self->threads;
}

double *bn_partial_sums(void *workspace, int thread, int64_t channels)
{
    return (double *)(void *)((char *)workspace + partial_bytes(channels) * (size_t)thread);
}

void bn_combine(void *workspace, int threads, int64_t channels, int64_t count, double *sums)
{
    memcpy(sums, bn_partial_sums(workspace, 0, channels), (size_t)count * sizeof *sums);
    for (int t = 1; t < threads; t++) {
        const double *part = bn_partial_sums(workspace, t, channels);
        for (int64_t c = 0; c < count; c++)
            sums[c] += part[c];
    }
}

void column_sums(const cpu_backend *self, const float *x, int64_t rows, int64_t channels, bool squares, double *sums,
                 void *workspace)
{
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        int64_t begin = part_begin(rows, t, threads), end = part_begin(rows, t + 1, threads);
        double *part = bn_partial_sums(workspace, t, channels);
        memset(part, 0, 2 * (size_t)channels * sizeof *part);
        self->loops->channel_sums(x + begin * channels, end - begin, channels, squares, part,
                                  (float *)(part + 2 * channels));
    }
    bn_combine(workspace, threads, channels, squares ? 2 * channels : channels, sums);
}

int bn_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    int64_t channels = k->request.in[0].dim[3];
    k->offset[BN_SLOT_TABLES] = workspace_take(workspace, TABLES * (size_t)channels * sizeof(float));
    k->offset[BN_SLOT_SUMS] = workspace_take(workspace, column_sums_bytes(self, channels));
    return 0;
}

int bn_sums_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    column_sums(self, args->in[0], tensor_rows(x), x->dim[3], true, args->out[0],
                workspace_at(args, k->offset[BN_SLOT_SUMS]));
    return 0;
}

bn_table_memory bn_tables_at(const kernel *k, const kernel_args *args)
{
    int64_t channels = k->request.in[0].dim[3];
    float *base = workspace_at(args, k->offset[BN_SLOT_TABLES]);
    return (bn_table_memory){
        base, base + channels, base + 2 * channels, base + 3 * channels, base + 4 * channels, base + 5 * channels};
}

bn_tables bn_tables_for_loops(const bn_table_memory *m)
{
    return (bn_tables){m->scale, m->shift, m->mean, m->from_g, m->from_x, m->constant};
}

/* Rounding can leave the variance of a constant channel just below zero. */
static double inverse_std(double variance, double eps)
{
    return 1.0 / sqrt((variance < 0 ? 0 : variance) + eps);
}

double bn_batch_inverse_std(const double *sums, int64_t channels, int64_t c, const op_attr *attr)
{
    double mean = sums[c] / attr->count;
    return inverse_std(sums[channels + c] / attr->count - mean * mean, attr->eps);
}

void bn_batch_tables(const kernel *k, const kernel_args *args, const bn_table_memory *m)
{
    const double *sums = args->in[1];
    const float *gamma = args->in[2], *beta = args->in[3];
    const op_attr *attr = &k->request.node.attr;
    int64_t channels = k->request.in[0].dim[3];
    for (int64_t c = 0; c < channels; c++) {
        double mean = sums[c] / attr->count;
        double scale = (double)gamma[c] * bn_batch_inverse_std(sums, channels, c, attr);
        m->scale[c] = (float)scale;
        m->shift[c] = (float)((double)beta[c] - mean * scale);
        m->mean[c] = (float)mean;
    }
}

static void normalize(const cpu_backend *self, const kernel *k, const kernel_args *args, const float *residual,
                      const bn_tables *tables)
{
    const tensor_desc *x = &k->request.in[0];
    int64_t rows = tensor_rows(x), channels = x->dim[3];
    const float *in = args->in[0];
    float *out = args->out[0];
    bool stream = in != out && residual != out && cpu_streams(self, &k->request.out[0], out);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        int64_t begin = part_begin(rows, t, threads), end = part_begin(rows, t + 1, threads), at = begin * channels;
        self->loops->bn_normalize(in + at, residual ? residual + at : NULL, out + at, end - begin, channels, tables,
                                  k->request.node.attr.relu, stream);
    }
}

int bn_normalize_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    bn_table_memory m = bn_tables_at(k, args);
    bn_tables tables = bn_tables_for_loops(&m);
    bn_batch_tables(k, args, &m);
    normalize(self, k, args, args->in[4], &tables);
    return 0;
}

void bn_inference_tables(const kernel *k, const kernel_args *args, const bn_table_memory *m)
{
    const float *mean = args->in[1], *variance = args->in[2], *gamma = args->in[3], *beta = args->in[4];
    for (int64_t c = 0; c < k->request.in[0].dim[3]; c++) {
        double scale = (double)gamma[c] * inverse_std((double)variance[c], k->request.node.attr.eps);
        m->scale[c] = (float)scale;
        m->shift[c] = (float)((double)beta[c] - (double)mean[c] * scale);
    }
}

int bn_inference_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    bn_table_memory m = bn_tables_at(k, args);
    bn_tables tables = bn_tables_for_loops(&m);
    bn_inference_tables(k, args, &m);
    normalize(self, k, args, args->in[5], &tables);
    return 0;
}

int bn_running_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const double *sums = args->in[0];
    const float *shift = args->in[3];
    float *mean = kernel_in_out(args, 1), *variance = kernel_in_out(args, 2);
    const op_attr *attr = &k->request.node.attr;
    int64_t channels = k->request.in[1].dim[3];
    for (int64_t c = 0; c < channels; c++) {
        if (!isfinite(sums[c]) || !isfinite(sums[channels + c]))
            continue;
        double batch_mean = sums[c] / attr->count;
        double biased = sums[channels + c] / attr->count - batch_mean * batch_mean;
        double unbiased = (biased < 0 ? 0 : biased) * attr->count / fmax(attr->count - 1, 1);
        double of_layer = batch_mean + (shift ? (double)shift[c] : 0);
        mean[c] = (float)((double)mean[c] + attr->momentum * (of_layer - (double)mean[c]));
        variance[c] = (float)((double)variance[c] + attr->momentum * (unbiased - (double)variance[c]));
    }
    return 0;
}

int bn_grad_sums_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const kernel_request *request = &k->request;
    int64_t rows = tensor_rows(&request->in[0]), channels = request->in[0].dim[3];
    bn_table_memory m = bn_tables_at(k, args);
    bn_tables tables = bn_tables_for_loops(&m);
    bn_gradient gradient = {.x = args->in[0], .y = args->in[4], .relu = request->node.attr.relu, .g = args->out[1]};
    for (int i = 5; i < NODE_MAX_IN; i++)
        if (args->in[i])
            gradient.dy[gradient.dys++] = args->in[i];
    bn_batch_tables(k, args, &m);

    bool stream = gradient.g && cpu_streams(self, &request->out[1], gradient.g);
    void *workspace = workspace_at(args, k->offset[BN_SLOT_SUMS]);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        int64_t begin = part_begin(rows, t, threads), end = part_begin(rows, t + 1, threads);
        double *part = bn_partial_sums(workspace, t, channels);
        memset(part, 0, 2 * (size_t)channels * sizeof *part);
        self->loops->bn_grad_sums(&gradient, begin, end - begin, channels, &tables, part,
                                  (float *)(part + 2 * channels), stream);
    }
    double *sums = args->out[0];
    bn_combine(workspace, threads, channels, 2 * channels, sums);
    for (int64_t c = 0; c < channels; c++)
        sums[channels + c] *= bn_batch_inverse_std(args->in[1], channels, c, &request->node.attr);
    return 0;
}

int bn_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const op_attr *attr = &k->request.node.attr;
    const double *sums = args->in[1], *gsums = args->in[4];
    const float *x = args->in[0], *dy = args->in[5];
    float *dx = args->out[0];
    int64_t rows = tensor_rows(&k->request.in[0]), channels = k->request.in[0].dim[3];
    bn_table_memory m = bn_tables_at(k, args);
    bn_tables tables = bn_tables_for_loops(&m);
    bn_batch_tables(k, args, &m);
    for (int64_t c = 0; c < channels; c++) {
        double std = bn_batch_inverse_std(sums, channels, c, attr);
        double from_g = (double)((const float *)args->in[2])[c] * std;
        m.from_g[c] = (float)from_g;
        m.from_x[c] = (float)(-from_g * std * gsums[channels + c] / attr->count);
        m.constant[c] = (float)(-from_g * gsums[c] / attr->count);
    }
    bool stream = dx != dy && cpu_streams(self, &k->request.out[0], dx);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        int64_t begin = part_begin(rows, t, threads), end = part_begin(rows, t + 1, threads), at = begin * channels;
        self->loops->bn_grad(x + at, dy + at, dx + at, end - begin, channels, &tables, attr->relu, stream);
    }
    return 0;
}

int bn_param_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const double *gsums = args->in[0];
    float *dgamma = args->out[0], *dbeta = args->out[1];
    int64_t channels = k->request.in[0].dim[3];
    for (int64_t c = 0; c < channels; c++) {
        if (dgamma)
            dgamma[c] = (float)gsums[channels + c];
        if (dbeta)
            dbeta[c] = (float)gsums[c];
    }
    return 0;
}

int zero_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    memset(args->out[0], 0, tensor_bytes(&k->request.out[0]));
    return 0;
}
