/* Batch normalisation of an upsampled feature map from the small one, z. Let U be the upsample, whose rows sum to 1.
 * Sums over U z and over its gradients are sums over z, and the large one exists only a row at a time, in cache.
 *
 * Along each axis UᵀU has three diagonals, and Uᵀ1 is what a small position counts for among the large ones.
 * The workspace holds the tables and sums of batch_norm.c, the axes, then the rows of each thread. */
#include "batch_norm.h"

#include <string.h>

enum { SLOT_AXES = BN_SLOTS, SLOT_ROWS };

/* The upsample along an axis of n values. */
typedef struct {
    upsample_tap *tap;         /* [2n] U */
    upsample_sources *reader;  /* [n] Uᵀ */
    upsample_sources *product; /* [n] UᵀU */
    float *share;              /* [n] Uᵀ1 */
} axis;

/* What the threads of a launch read. */
typedef struct {
    const float *z;
    int64_t height, width, channels;
    axis rows, columns;
    char *buffers; /* rows_bytes for each thread */
} small_map;

static size_t axis_bytes(int64_t n)
{
    size_t bytes = (size_t)n * (2 * sizeof(upsample_tap) + 2 * sizeof(upsample_sources) + sizeof(float));
    return (bytes + 63) / 64 * 64;
}

/* Rows of one thread: two of the small feature map and three of the large one. */
static size_t rows_bytes(const tensor_desc *z)
{
    size_t bytes = 8 * (size_t)z->dim[2] * (size_t)z->dim[3] * sizeof(float);
    return (bytes + 63) / 64 * 64;
}

int upsample_bn_prepare(const cpu_backend *self, kernel *k, size_t *workspace)
{
    const tensor_desc *z = &k->request.in[0];
    bn_prepare(self, k, workspace);
    k->offset[SLOT_AXES] = workspace_take(workspace, axis_bytes(z->dim[1]) + axis_bytes(z->dim[2]));
    k->offset[SLOT_ROWS] = workspace_take(workspace, (size_t)self->threads * rows_bytes(z));
    return 0;
}

static void add_product(upsample_sources *row, int32_t column, float value)
{
    row->weight[column - row->first] += value;
}

static void fill_products(const axis *a, int32_t n)
{
    memset(a->product, 0, (size_t)n * sizeof *a->product);
    memset(a->share, 0, (size_t)n * sizeof *a->share);
    for (int32_t j = 0; j < n; j++) {
        a->product[j].first = j > 0 ? j - 1 : 0;
        a->product[j].end = j + 1 < n ? j + 2 : n;
    }
    for (int32_t i = 0; i < 2 * n; i++) {
        int32_t ends[2] = {a->tap[i].index, a->tap[i].next};
        float weight[2] = {1 - a->tap[i].weight, a->tap[i].weight};
        for (int p = 0; p < 2; p++) {
            a->share[ends[p]] += weight[p];
            for (int q = 0; q < 2; q++)
                add_product(&a->product[ends[p]], ends[q], weight[p] * weight[q]);
        }
    }
}

static axis axis_at(char *memory, int32_t n)
{
    axis a = {.tap = (void *)memory};
    a.reader = (void *)(a.tap + 2 * n);
    a.product = a.reader + n;
    a.share = (void *)(a.product + n);
    upsample_taps(a.tap, n);
    upsample_readers(a.reader, n);
    fill_products(&a, n);
    return a;
}

static small_map small_map_at(const kernel *k, const kernel_args *args)
{
    const tensor_desc *z = &k->request.in[0];
    char *axes = workspace_at(args, k->offset[SLOT_AXES]);
    return (small_map){.z = args->in[0],
                       .height = z->dim[1],
                       .width = z->dim[2],
                       .channels = z->dim[3],
                       .rows = axis_at(axes, z->dim[1]),
                       .columns = axis_at(axes + axis_bytes(z->dim[1]), z->dim[2]),
                       .buffers = workspace_at(args, k->offset[SLOT_ROWS])};
}

/* Buffer `index` of a thread, each as long as a row of the small feature map. */
static float *row_buffer(const small_map *m, const kernel *k, int thread, int index)
{
    return (float *)(void *)(m->buffers + rows_bytes(&k->request.in[0]) * (size_t)thread) +
           index * m->width * m->channels;
}

/* Row `line` of all images' upsampled rows. */
static void upsampled_row(const cpu_backend *self, const small_map *m, int64_t line, float *x, float *scratch)
{
    int64_t row = m->width * m->channels;
    const upsample_tap *tap = &m->rows.tap[line % (2 * m->height)];
    const float *image = m->z + line / (2 * m->height) * m->height * row;
    self->loops->upsample_row(image + tap->index * row, image + tap->next * row, tap->weight, m->columns.tap, m->width,
                              2 * m->width, m->channels, x, scratch, false);
}

/* Row `line` of all images' rows of UᵀU z. */
static void product_row(const cpu_backend *self, const small_map *m, int64_t line, float *product, float *scratch)
{
    int64_t row = m->width * m->channels;
    const float *image = m->z + line / m->height * m->height * row;
    self->loops->gather(image, row, &m->rows.product[line % m->height], scratch, row);
    for (int64_t j = 0; j < m->width; j++)
        self->loops->gather(scratch, m->channels, &m->columns.product[j], product + j * m->channels, m->channels);
}

/* What the positions of a small row count for. */
static void row_shares(const small_map *m, int64_t line, float *share)
{
    for (int64_t j = 0; j < m->width; j++)
        share[j] = m->rows.share[line % m->height] * m->columns.share[j];
}

int upsample_bn_sums_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    small_map m = small_map_at(k, args);
    int64_t lines = k->request.in[0].dim[0] * m.height;
    void *workspace = workspace_at(args, k->offset[BN_SLOT_SUMS]);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        double *part = bn_partial_sums(workspace, t, m.channels);
        float *product = row_buffer(&m, k, t, 0), *scratch = row_buffer(&m, k, t, 1), *share = row_buffer(&m, k, t, 2);
        memset(part, 0, 2 * (size_t)m.channels * sizeof *part);
        for (int64_t line = part_begin(lines, t, threads); line < part_begin(lines, t + 1, threads); line++) {
            product_row(self, &m, line, product, scratch);
            row_shares(&m, line, share);
            self->loops->upsample_bn_sums(m.z + line * m.width * m.channels, product, share, m.width, m.channels, part,
                                          (float *)(part + 2 * m.channels));
        }
    }
    bn_combine(workspace, threads, m.channels, 2 * m.channels, args->out[0]);
    return 0;
}

static void normalize_rows(const cpu_backend *self, const kernel *k, const kernel_args *args, const bn_tables *tables)
{
    small_map m = small_map_at(k, args);
    int64_t lines = k->request.out[0].dim[0] * 2 * m.height;
    float *y = args->out[0];
    bool stream = cpu_streams(self, &k->request.out[0], y);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        float *scratch = row_buffer(&m, k, t, 0), *x = row_buffer(&m, k, t, 1);
        for (int64_t line = part_begin(lines, t, threads); line < part_begin(lines, t + 1, threads); line++) {
            upsampled_row(self, &m, line, x, scratch);
            self->loops->bn_normalize(x, NULL, y + line * 2 * m.width * m.channels, 2 * m.width, m.channels, tables,
                                      k->request.node.attr.relu, stream);
        }
    }
}

int upsample_bn_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    bn_table_memory m = bn_tables_at(k, args);
    bn_tables tables = bn_tables_for_loops(&m);
    bn_batch_tables(k, args, &m);
    normalize_rows(self, k, args, &tables);
    return 0;
}

int upsample_bn_inference_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    bn_table_memory m = bn_tables_at(k, args);
    bn_tables tables = bn_tables_for_loops(&m);
    bn_inference_tables(k, args, &m);
    normalize_rows(self, k, args, &tables);
    return 0;
}

/* Adds to the two small rows between which they lie the large rows whose first neighbour is the small row `line`. */
static void add_large_rows(const cpu_backend *self, const kernel *k, const kernel_args *args, const small_map *m,
                           const bn_tables *tables, int64_t line, float *const buffer[4])
{
    int64_t image = line / m->height, i = line % m->height;
    float *scratch = buffer[0], *x = buffer[1], *upper = buffer[2], *lower = buffer[3];
    for (int64_t l = 0; l < 2 * m->height; l++) {
        const upsample_tap *tap = &m->rows.tap[l];
        if (tap->index != i)
            continue;
        int64_t large = image * 2 * m->height + l;
        upsampled_row(self, m, large, x, scratch);
        const upsample_bn_row row = {x, (const float *)args->in[4] + large * 2 * m->width * m->channels,
                                     k->request.node.attr.relu};
        self->loops->upsample_bn_grad_add(&row, tap->weight, 2 * m->width, m->channels, tables, upper, lower);
    }
}

/* Uᵀg for the small rows [begin, end): every large row is masked once and added to the two rows that it comes from. */
static void gather_rows(const cpu_backend *self, const kernel *k, const kernel_args *args, const small_map *m,
                        const bn_tables *tables, int64_t begin, int64_t end, int thread)
{
    int64_t channels = m->channels;
    size_t bytes = 2 * (size_t)(m->width * channels) * sizeof(float);
    float *upper = row_buffer(m, k, thread, 4), *lower = row_buffer(m, k, thread, 6), *dg = args->out[1];
    float *scratch = row_buffer(m, k, thread, 0), *x = row_buffer(m, k, thread, 2);
    for (int64_t line = begin; line < end; line++) {
        if (line == begin || line % m->height == 0) {
            memset(lower, 0, bytes);
            if (line % m->height > 0)
                add_large_rows(self, k, args, m, tables, line - 1, (float *const[]){scratch, x, upper, lower});
        }
        float *finished = lower;
        lower = upper;
        upper = finished;
        memset(lower, 0, bytes);
        add_large_rows(self, k, args, m, tables, line, (float *const[]){scratch, x, upper, lower});
        for (int64_t j = 0; j < m->width; j++)
            self->loops->gather(upper, channels, &m->columns.reader[j], dg + (line * m->width + j) * channels,
                                channels);
    }
}

int upsample_bn_grad_sums_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    small_map m = small_map_at(k, args);
    bn_table_memory memory = bn_tables_at(k, args);
    bn_tables tables = bn_tables_for_loops(&memory);
    bn_batch_tables(k, args, &memory);
    const bn_gradient small = {.x = m.z, .dy = {args->out[1]}, .dys = 1};
    int64_t lines = k->request.in[0].dim[0] * m.height;
    void *workspace = workspace_at(args, k->offset[BN_SLOT_SUMS]);
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        int64_t begin = part_begin(lines, t, threads), end = part_begin(lines, t + 1, threads);
        double *part = bn_partial_sums(workspace, t, m.channels);
        memset(part, 0, 2 * (size_t)m.channels * sizeof *part);
        gather_rows(self, k, args, &m, &tables, begin, end, t);
        self->loops->bn_grad_sums(&small, begin * m.width, (end - begin) * m.width, m.channels, &tables, part,
                                  (float *)(part + 2 * m.channels), false);
    }
    double *sums = args->out[0];
    bn_combine(workspace, threads, m.channels, 2 * m.channels, sums);
    for (int64_t c = 0; c < m.channels; c++)
        sums[m.channels + c] *= bn_batch_inverse_std(args->in[1], m.channels, c, &k->request.node.attr);
    return 0;
}

/* dz = from_g Uᵀg + from_x UᵀU z + constant Uᵀ1: bn_grad's formula under Uᵀ. */
static void fill_grad_tables(const kernel *k, const kernel_args *args, const bn_table_memory *m)
{
    const double *sums = args->in[1], *gsums = args->in[3];
    const float *gamma = args->in[2];
    const op_attr *attr = &k->request.node.attr;
    int64_t channels = k->request.in[0].dim[3];
    for (int64_t c = 0; c < channels; c++) {
        double inverse_std = bn_batch_inverse_std(sums, channels, c, attr);
        double from_g = (double)gamma[c] * inverse_std;
        double from_x = -from_g * inverse_std * gsums[channels + c] / attr->count;
        m->from_g[c] = (float)from_g;
        m->from_x[c] = (float)from_x;
        m->constant[c] = (float)(-from_g * gsums[c] / attr->count - from_x * sums[c] / attr->count);
    }
}

int upsample_bn_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    small_map m = small_map_at(k, args);
    bn_table_memory memory = bn_tables_at(k, args);
    bn_tables tables = bn_tables_for_loops(&memory);
    fill_grad_tables(k, args, &memory);
    const float *dg = args->in[4];
    float *dz = args->out[0];
    int64_t lines = k->request.in[0].dim[0] * m.height;
    int threads = self->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        float *product = row_buffer(&m, k, t, 0), *scratch = row_buffer(&m, k, t, 1), *share = row_buffer(&m, k, t, 2);
        for (int64_t line = part_begin(lines, t, threads); line < part_begin(lines, t + 1, threads); line++) {
            int64_t at = line * m.width * m.channels;
            product_row(self, &m, line, product, scratch);
            row_shares(&m, line, share);
            self->loops->upsample_bn_grad(product, dg + at, dz + at, share, m.width, m.channels, &tables);
        }
    }
    return 0;
}
