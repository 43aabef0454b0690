/* Owns what a plan looks like. One thread. */
#include "tools/plan/private.h"

#include <math.h>

static const double gpu_memory = 80e9, usable_share = 0.9; /* the rest: workspaces, NCCL, the driver */

static void print_step(const planned *p, logger *log)
{
    const plan_options *o = p->options;
    log_info(log, "%s, %d images per GPU; %lld GPUs per node at %g GB/s, %lld adapter%s of %g Gb/s; sums by %s",
             p->step.network, p->request.gpu_batch, (long long)o->gpus, o->inside_gbytes, (long long)o->adapters,
             o->adapters == 1 ? "" : "s", o->net_gbits, sum_pattern_names[p->cluster.pattern]);
    log_info(log, "  a step of one GPU: %.2f ms, %s", 1e3 * p->step.timeline.seconds,
             o->step_ms > 0 ? "as given"
                            : "at best of an H100, which no run has shown yet; --step-ms takes a measured one");
}

static void print_memory(const planned *p, logger *log)
{
    const plan_step *s = &p->step;
    if (s->image_bytes <= 0)
        return;
    log_info(log, "  memory of a GPU: %.1f GB; %.0f GB hold a micro-batch of %.0f images",
             1e-9 * (s->fixed_bytes + s->image_bytes * s->micro_batch), 1e-9 * gpu_memory,
             fmax(0, floor((usable_share * gpu_memory - s->fixed_bytes) / s->image_bytes)));
}

static double at_ms(const planned *p, const plan_sum *sum)
{
    const plan_time *t = &p->rows[p->n_rows - 1].time;
    return 1e3 * sum->at * (t->alone + t->straggling);
}

static void print_sums(const planned *p, logger *log)
{
    const plan_timeline *t = &p->step.timeline;
    double statistics = 0;
    int n_statistics = 0, n_buckets = 0;
    log_info(log, "  gradients: %.1f MB travel%s", 1e-6 * p->step.gradient_bytes,
             p->request.halved ? ", in 16 bits" : "");
    log_info(log, "  %-8s %10s %14s %14s", "bucket", "MB", "complete at ms", "all-reduce ms");
    for (int i = 0; i < t->n_sums; i++) {
        const plan_sum *sum = &t->sums[i];
        if (sum->kind == SUM_BUCKET) {
            log_info(log, "  %-8d %10.2f %14.2f %14.3f", ++n_buckets, 1e-6 * sum->bytes, at_ms(p, sum),
                     1e3 * plan_all_reduce(&p->cluster, sum->bytes));
            continue;
        }
        n_statistics++;
        statistics += plan_all_reduce(&p->cluster, sum->bytes);
    }
    if (n_statistics)
        log_info(log, "  %d sum%s of statistics, which the next launch waits for: %.3f ms", n_statistics,
                 n_statistics == 1 ? "" : "s", 1e3 * statistics);
}

static void print_rows(const planned *p, logger *log)
{
    log_info(log, "  %6s %6s %8s %11s %9s %9s %9s %7s %9s %9s %6s", "nodes", "GPUs", "batch", "images/s", "step ms",
             "straggle", "exposed", "effic.", "epoch s", "read MB/s", "cores");
    for (int i = 0; i < p->n_rows; i++) {
        const plan_row *r = &p->rows[i];
        log_info(log, "  %6lld %6lld %8lld %11.0f %9.2f %9.2f %9.2f %6.1f%% %9.1f %9.0f %6.0f", (long long)r->nodes,
                 (long long)r->gpus, (long long)r->batch, r->images_per_second, 1e3 * r->time.step,
                 1e3 * r->time.straggling, 1e3 * r->time.exposed, 100 * r->efficiency, r->epoch_seconds,
                 1e-6 * r->storage, r->cores);
    }
}

void plan_print_tables(const planned *p, logger *log)
{
    print_step(p, log);
    print_memory(p, log);
    print_sums(p, log);
    print_rows(p, log);
    if (p->step.decoded)
        log_info(log, "  read, cores: of a node, at %g kB per image and %g images/s per core", p->options->image_kbytes,
                 p->options->images_per_core);
    else
        log_info(log, "  the images, %.0f bytes each, stay in memory: nothing is read or decoded in an epoch",
                 p->step.image_pixel_bytes);
}

/* ---- JSON: docs/formats.md ---- */

static void json_sums(const planned *p, FILE *out)
{
    const plan_timeline *t = &p->step.timeline;
    const char *comma = "";
    fputs("\"buckets\": [", out);
    for (int i = 0; i < t->n_sums; i++) {
        const plan_sum *sum = &t->sums[i];
        if (sum->kind != SUM_BUCKET)
            continue;
        fprintf(out, "%s{\"bytes\": %.0f, \"complete_ms\": %.4f, \"all_reduce_ms\": %.4f}", comma, sum->bytes,
                at_ms(p, sum), 1e3 * plan_all_reduce(&p->cluster, sum->bytes));
        comma = ", ";
    }
    fputs("], ", out);
}

static void json_rows(const planned *p, FILE *out)
{
    fputs("\"nodes\": [", out);
    for (int i = 0; i < p->n_rows; i++) {
        const plan_row *r = &p->rows[i];
        fprintf(out,
                "%s{\"nodes\": %lld, \"gpus\": %lld, \"batch\": %lld, \"images_per_second\": %.2f, \"step_ms\": %.4f, "
                "\"straggling_ms\": %.4f, \"exposed_ms\": %.4f, \"efficiency\": %.5f, \"epoch_seconds\": %.3f, "
                "\"read_mbs\": %.2f, \"cores\": %.0f}",
                i ? ", " : "", (long long)r->nodes, (long long)r->gpus, (long long)r->batch, r->images_per_second,
                1e3 * r->time.step, 1e3 * r->time.straggling, 1e3 * r->time.exposed, r->efficiency, r->epoch_seconds,
                1e-6 * r->storage, r->cores);
    }
    fputs("]}\n", out);
}

void plan_print_json(const planned *p, FILE *out)
{
    fprintf(
        out,
        "{\"gpu_batch\": %d, \"step_ms\": %.4f, \"step_given\": %s, \"gradient_bytes\": %.0f, \"pattern\": \"%s\", ",
        p->request.gpu_batch, 1e3 * p->step.timeline.seconds, p->options->step_ms > 0 ? "true" : "false",
        p->step.gradient_bytes, sum_pattern_names[p->cluster.pattern]);
    json_sums(p, out);
    json_rows(p, out);
}
