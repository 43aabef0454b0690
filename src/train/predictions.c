/* Owns the file of predictions. Invariant: rows reach rank 0 batch by batch and, within a batch, rank by rank: the
 * order of the test set. The file has its name only when it is whole. One thread. */
#include "train/predictions.h"
#include "base/atomic_file.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t images, top1, top5;
} class_counts;

enum { CLASS_NUMBERS = sizeof(class_counts) / sizeof(int64_t) };

struct predictions {
    comm *ranks;
    const image_set *set; /* the session's */
    int rank, size;
    int32_t classes, share; /* share: most images of a rank in a batch */
    const char *path;       /* NULL: no file */
    bool logits;
    atomic_file *file; /* rank 0 */
    class_counts *by_class;
    prediction *rows, *all_rows;     /* [share], [size][share]; index -1 where a rank has fewer */
    double *row_logits, *all_logits; /* the same, times classes */
};

static int open_file(predictions *p)
{
    if (!p->path || p->rank != 0)
        return 0;
    TRY(atomic_file_create(&p->file, p->path));
    FILE *out = atomic_file_stream(p->file);
    fprintf(out, "index,label,predicted,correct,probability");
    for (int32_t k = 0; p->logits && k < p->classes; k++)
        fprintf(out, ",logit_%d", k);
    fprintf(out, "\n");
    return 0;
}

static int allocate(predictions *p)
{
    size_t share = (size_t)p->share, size = (size_t)p->size, classes = (size_t)p->classes;
    p->by_class = calloc(classes, sizeof *p->by_class);
    p->rows = calloc(share, sizeof *p->rows);
    p->all_rows = calloc(share * size, sizeof *p->all_rows);
    bool got = p->by_class && p->rows && p->all_rows;
    if (p->logits) {
        p->row_logits = calloc(share * classes, sizeof(double));
        p->all_logits = calloc(share * size * classes, sizeof(double));
        got = got && p->row_logits && p->all_logits;
    }
    CHECK(got, ERROR_MEMORY, "no memory for the predictions on %zu images", share * size);
    return 0;
}

int predictions_open(predictions **out, const session *e, const char *path, bool logits)
{
    int64_t batch = batch_plan_step_images(&e->test_plan, 0);
    predictions *p = calloc(1, sizeof *p);
    *out = p;
    int status = p ? 0 : error_set(ERROR_MEMORY, "no memory for the predictions");
    if (status == 0) {
        *p = (predictions){.ranks = e->ranks,
                           .set = &e->test_set,
                           .rank = e->info->rank,
                           .size = e->info->size,
                           .classes = e->step.model.classes,
                           .share = (int32_t)((batch + e->info->size - 1) / e->info->size),
                           .path = path,
                           .logits = path && logits};
        status = allocate(p);
    }
    if (status == 0)
        status = open_file(p);
    status = comm_agree(e->ranks, status);
    if (status < 0)
        predictions_close(out);
    return status;
}

bool predictions_want_logits(const predictions *p)
{
    return p->logits;
}

static void count_by_class(predictions *p, const prediction *row)
{
    class_counts *counts = &p->by_class[row->label];
    counts->images++;
    counts->top1 += row->ahead < 1;
    counts->top5 += row->ahead < 5;
}

static void write_row(const predictions *p, const prediction *row, const double *logits)
{
    FILE *out = atomic_file_stream(p->file);
    fprintf(out, "%d,%d,%d,%d,%.9g", row->index, row->label, row->predicted, row->ahead < 1, row->probability);
    for (int32_t k = 0; p->logits && k < p->classes; k++)
        fprintf(out, ",%.9g", logits[k]);
    fprintf(out, "\n");
}

static int write_batch(const predictions *p)
{
    for (int64_t i = 0; i < (int64_t)p->size * p->share; i++)
        if (p->all_rows[i].index >= 0)
            write_row(p, &p->all_rows[i], p->logits ? p->all_logits + i * p->classes : NULL);
    return atomic_file_check(p->file);
}

int predictions_add(predictions *p, const prediction *rows, const double *logits, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        count_by_class(p, &rows[i]);
    if (!p->path)
        return 0;
    size_t share = (size_t)p->share, row_bytes = (size_t)p->classes * sizeof(double);
    for (int32_t i = 0; i < p->share; i++)
        p->rows[i] = i < count ? rows[i] : (prediction){.index = -1};
    TRY(comm_all_gather(p->ranks, p->rows, share * sizeof *p->rows, p->all_rows));
    if (p->logits) {
        memcpy(p->row_logits, logits, (size_t)count * row_bytes);
        TRY(comm_all_gather(p->ranks, p->row_logits, share * row_bytes, p->all_logits));
    }
    return p->file ? write_batch(p) : 0;
}

int predictions_commit(predictions *p)
{
    return comm_agree(p->ranks, p->file ? atomic_file_commit(&p->file) : 0);
}

int predictions_by_class(predictions *p, logger *log)
{
    TRY(comm_all_reduce(p->ranks, p->by_class, (size_t)p->classes * CLASS_NUMBERS, COMM_I64));
    log_info(log, "  %8s %9s %9s %9s", "class", "images", "top-1", "top-5");
    for (int32_t k = 0; k < p->classes; k++) {
        const class_counts *counts = &p->by_class[k];
        const char *name = image_set_class_name(p->set, k);
        double percent = counts->images ? 100.0 / (double)counts->images : 0;
        if (counts->images > 0)
            log_info(log, "  %8d %9lld %8.2f%% %8.2f%%%s%s", k, (long long)counts->images,
                     percent * (double)counts->top1, percent * (double)counts->top5, name ? "  " : "",
                     name ? name : "");
    }
    return 0;
}

void predictions_close(predictions **p)
{
    predictions *old = *p;
    *p = NULL;
    if (!old)
        return;
    atomic_file_abandon(&old->file);
    free(old->by_class);
    free(old->rows);
    free(old->all_rows);
    free(old->row_logits);
    free(old->all_logits);
    free(old);
}
