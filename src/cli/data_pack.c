/* Owns `teskd data pack`: options into a plan, a share of the shards for each rank, progress, and what is said of it.
 */
#include "base/clock.h"
#include "base/error.h"
#include "cli/data_commands.h"
#include "io/pack/pack.h"
#include "session/agreement.h"
#include "session/threads.h"

#include <inttypes.h>
#include <string.h>

static const double mib = 1024.0 * 1024.0, gib = 1024.0 * 1024.0 * 1024.0;
static const double note_seconds = 60; /* between lines of a log that is no terminal */

/* What is open while it is packed. */
typedef struct {
    logger *log;
    comm *ranks;
    pack_plan *plan;
    pack_folder *folder; /* on rank 0 */
    pack_job *job;
    double start, noted;
    bool is_done; /* before it began */
} packing;

static int fill_options(const options *o, pack_options *p)
{
    *p = (pack_options){.from = o->from,
                        .kind = o->kind,
                        .out = o->out,
                        .lists = {o->train_list, o->val_list},
                        .root = o->root,
                        .val_labels = o->val_labels,
                        .class_names = o->class_names,
                        .shard_bytes = o->shard_mib < 0 ? UINT64_C(1) << 30 : (uint64_t)o->shard_mib << 20,
                        .seed = o->seed < 0 ? 0 : (uint64_t)o->seed,
                        .max_side = o->max_side < 0 ? 0 : (int32_t)o->max_side,
                        .quality = o->quality < 0 ? 90 : (int32_t)o->quality,
                        .fail_on_bad = o->on_bad && strcmp(o->on_bad, "fail") == 0,
                        .overwrite = o->overwrite};
    CHECK(o->out, ERROR_USAGE, "teskd data pack needs --out DIR");
    CHECK(o->shard_mib <= 1 << 20, ERROR_USAGE, "--shard-mib %lld: at most %d", o->shard_mib, 1 << 20);
    CHECK(o->max_side < 0 || (o->max_side >= 8 && o->max_side <= 65500), ERROR_USAGE,
          "--max-side %lld: expected 8 to 65500", o->max_side);
    CHECK(o->quality < 0 || o->max_side > 0, ERROR_USAGE, "--quality goes with --max-side");
    CHECK(o->quality <= 100, ERROR_USAGE, "--quality %lld: expected 1 to 100", o->quality);
    CHECK(!o->on_bad || p->fail_on_bad || strcmp(o->on_bad, "skip") == 0, ERROR_USAGE,
          "--on-bad %s: expected skip or fail", o->on_bad);
    return 0;
}

static void tell_plan(const packing *p)
{
    const pack_description d = pack_plan_describe(p->plan);
    log_info(p->log, "%s: %" PRId64 " training and %" PRId64 " validation images of %" PRId32 " classes, %.1f MiB",
             d.title, d.images[0], d.images[1], d.classes, (double)(d.bytes[0] + d.bytes[1]) / mib);
    if (d.others > 0)
        log_info(p->log, "%" PRId64 " other files are left out: no .jpg, .jpeg or .png", d.others);
    if (d.images[1] == 0)
        log_warning(p->log, "there are no validation images");
    log_info(p->log, "%" PRId32 " training and %" PRId32 " validation shards", d.shards[0], d.shards[1]);
}

static int make_plan(packing *p, const options *o)
{
    pack_options wanted;
    int status = fill_options(o, &wanted);
    if (status == 0)
        status = pack_plan_make(&p->plan, &wanted);
    TRY(comm_agree(p->ranks, status));
    return agree_on_text(p->ranks, "list of images", pack_plan_describe(p->plan).id);
}

static int open_folder(packing *p)
{
    int status = 0;
    if (comm_describe(p->ranks)->rank == 0)
        status = pack_folder_open(&p->folder, p->plan, &p->is_done);
    TRY(comm_agree(p->ranks, status));
    return comm_broadcast(p->ranks, &p->is_done, sizeof p->is_done, 0);
}

/* Over all ranks. */
enum { IMAGES, BYTES, KEPT, OVER, SUMS };

static void tell_progress(packing *p, const double sums[SUMS])
{
    const pack_description d = pack_plan_describe(p->plan);
    const double all = (double)(d.images[0] + d.images[1]), seconds = clock_seconds() - p->start;
    const double rate = sums[IMAGES] / (seconds > 0 ? seconds : 1), left = rate > 0 ? (all - sums[IMAGES]) / rate : 0;
    char text[256];
    snprintf(text, sizeof text, "%.0f of %.0f images, %.0f images/s, %.1f MiB/s, %.0f min %02.0f s to go", sums[IMAGES],
             all, rate, sums[BYTES] / mib / (seconds > 0 ? seconds : 1), (double)((int)left / 60),
             (double)((int)left % 60));
    log_live(p->log, "%s", text);
    if (clock_seconds() - p->noted < note_seconds)
        return;
    p->noted = clock_seconds();
    log_info(p->log, "%s", text);
}

/* Ranks look at each other's progress a few times a second, so that all end when one fails. */
static int wait_for_ranks(packing *p, double sums[SUMS])
{
    const int size = comm_describe(p->ranks)->size;
    long pause_us = 2000;
    p->start = p->noted = clock_seconds();
    do {
        clock_sleep_us(pause_us);
        pause_us = pause_us < 200000 ? 2 * pause_us : pause_us;
        const pack_progress now = pack_job_progress(p->job);
        sums[IMAGES] = (double)now.images;
        sums[BYTES] = (double)now.bytes;
        sums[KEPT] = (double)now.kept;
        /* A rank that failed counts as all of them. */
        sums[OVER] = now.has_failed ? (double)size : now.is_over;
        TRY(comm_all_reduce(p->ranks, sums, SUMS, COMM_F64));
        tell_progress(p, sums);
    } while (sums[OVER] < size);
    return 0;
}

static int write_shards(packing *p, const options *o)
{
    const comm_info *info = comm_describe(p->ranks);
    double sums[SUMS];
    int threads = (int)o->threads;
    if (o->threads <= 0)
        TRY(threads_choose(&o->config, p->ranks, &threads));
    int status = pack_job_start(&p->job, p->plan, info->rank, info->size, threads < 4096 ? threads : 4096);
    TRY(comm_agree(p->ranks, status));
    TRY(wait_for_ranks(p, sums));
    TRY(comm_agree(p->ranks, pack_job_end(&p->job, true)));
    if (sums[KEPT] > 0)
        log_info(p->log, "%.0f shards were there from an earlier start", sums[KEPT]);
    return 0;
}

static void tell_odd(const packing *p, const pack_report *r)
{
    const struct {
        int64_t count;
        const char *what;
    } rows[] = {{r->png, "PNG"},
                {r->grey, "grey"},
                {r->cmyk, "CMYK"},
                {r->progressive, "progressive or interlaced"},
                {r->misnamed, "of another format than their names say"},
                {r->recoded, "made smaller"}};
    char text[512] = "";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].count > 0)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%" PRId64 " %s", text[0] ? ", " : "",
                     rows[i].count, rows[i].what);
    if (text[0])
        log_info(p->log, "of these: %s", text);
}

static void tell_left_out(const packing *p, const pack_report *r)
{
    if (r->left_out > 0)
        log_warning(p->log, "%" PRId64 " files are no images that can be read and were left out:", r->left_out);
    for (int32_t i = 0; i < r->named; i++)
        log_warning(p->log, "  %s", r->names[i]);
    if (r->left_out > r->named)
        log_warning(p->log, "  and %" PRId64 " more; teskd data show lists them", r->left_out - r->named);
}

static int finish(packing *p, const char *out)
{
    pack_report report;
    int status = 0;
    if (comm_describe(p->ranks)->rank == 0)
        status = pack_finish(p->plan, &report);
    TRY(comm_agree(p->ranks, status));
    if (comm_describe(p->ranks)->rank != 0)
        return 0;
    const double seconds = clock_seconds() - p->start;
    log_info(p->log, "%s: %" PRId64 " training and %" PRId64 " validation images, %.2f GiB, in %.1f s; id %s", out,
             report.images[0], report.images[1], (double)(report.bytes[0] + report.bytes[1]) / gib, seconds, report.id);
    tell_odd(p, &report);
    tell_left_out(p, &report);
    return 0;
}

static int pack(packing *p, const options *o)
{
    TRY(make_plan(p, o));
    tell_plan(p);
    TRY(open_folder(p));
    if (p->is_done) {
        log_info(p->log, "%s: holds this data set already; teskd data check looks at every byte of it", o->out);
        return 0;
    }
    TRY(write_shards(p, o));
    return finish(p, o->out);
}

static int run(const options *o, logger *log, comm *ranks)
{
    packing p = {.log = log, .ranks = ranks};
    int status = pack(&p, o);
    error_copy kept = error_save();
    pack_job_end(&p.job, true);
    pack_folder_close(&p.folder);
    pack_plan_free(&p.plan);
    if (status < 0)
        error_restore(&kept);
    return status;
}

const data_command data_pack = {
    .name = "pack",
    .usage = "--from DIR --out DIR",
    .summary = "put images into few files (shards), from class folders, lists or CIFAR",
    .options = OPTION_PACK | OPTION_SEED | OPTION_OUT | OPTION_ARGUMENTS,
    .arguments = 0,
    .run = run,
};
