/* Owns `teskd data check`, `show` and `unpack`: shards that are there. */
#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/data_commands.h"
#include "io/pack/unpack.h"
#include "session/threads.h"

#include <inttypes.h>
#include <limits.h>

static const double mib = 1024.0 * 1024.0;

static int choose_threads(const options *o, comm *ranks, int *threads)
{
    *threads = o->threads > 0 && o->threads < 4096 ? (int)o->threads : 1;
    return o->threads > 0 ? 0 : threads_choose(&o->config, ranks, threads);
}

/* Each split in turn, if there is one. */
static int visit_all(const char *folder, const visit_options *wanted, visit_report *report)
{
    shard_manifest manifest;
    TRY(shard_manifest_read(&manifest, folder));
    int status = 0;
    for (int split = 0; status == 0 && split < 2; split++) {
        shard_set *set;
        if (manifest.shards[split] == 0)
            continue;
        status = shard_set_open(&set, folder, split);
        if (status == 0)
            status = visit_split(set, split, wanted, report);
        shard_set_close(&set);
    }
    shard_manifest_close(&manifest);
    return status;
}

static int check(const options *o, logger *log, int threads)
{
    visit_report report = {0};
    const visit_options wanted = {
        .threads = threads, .visit = o->deep ? decode_whole_image : NULL, .doing = "checking", .log = log};
    TRY(visit_all(o->arguments[1], &wanted, &report));
    CHECK(report.failed == 0, ERROR_DATA, "%s: %" PRId64 " of %" PRId64 " images are bad", o->arguments[1],
          report.failed, report.images);
    log_info(log, "%s: all %" PRId64 " images, %.1f MiB, are as they were packed%s", o->arguments[1], report.images,
             (double)report.bytes / mib, o->deep ? ", and can be decoded" : "");
    return 0;
}

static int unpack(const options *o, logger *log, int threads)
{
    char folder[PATH_MAX];
    visit_report report = {0};
    CHECK(o->out, ERROR_USAGE, "teskd data unpack needs --out DIR");
    CHECK(snprintf(folder, sizeof folder, "%s", o->out) < PATH_MAX, ERROR_USAGE, "--out: the path is too long");
    const visit_options wanted = {
        .threads = threads, .visit = unpack_image, .context = folder, .doing = "unpacking", .stops = true, .log = log};
    TRY(visit_all(o->arguments[1], &wanted, &report));
    log_info(log, "%s: %" PRId64 " images, %.1f MiB", o->out, report.images, (double)report.bytes / mib);
    return 0;
}

static void show_split(const shard_set *set, int split, logger *log)
{
    int64_t png = 0, grey = 0, cmyk = 0, progressive = 0, recoded = 0, pixels = 0;
    const int64_t images = shard_set_images(set);
    int32_t least = INT32_MAX, most = 0;
    for (int64_t i = 0; i < images; i++) {
        const shard_image *image = shard_set_image(set, i);
        const int32_t shorter = image->height < image->width ? image->height : image->width;
        const int32_t longer = image->height > image->width ? image->height : image->width;
        least = shorter < least ? shorter : least;
        most = longer > most ? longer : most;
        pixels += (int64_t)image->height * image->width;
        png += (image->flags & SHARD_PNG) != 0;
        grey += (image->flags & SHARD_GREY) != 0;
        cmyk += (image->flags & SHARD_CMYK) != 0;
        progressive += (image->flags & SHARD_PROGRESSIVE) != 0;
        recoded += (image->flags & SHARD_RECODED) != 0;
    }
    log_info(log, "  %s: %" PRId64 " images, sides of %d to %d pixels, %.0f pixels on average", split ? "val" : "train",
             images, least, most, (double)pixels / (double)images);
    log_info(log,
             "    %" PRId64 " PNG, %" PRId64 " grey, %" PRId64 " CMYK, %" PRId64 " progressive, %" PRId64
             " made smaller when they were packed",
             png, grey, cmyk, progressive, recoded);
}

static int show_splits(const char *folder, const shard_manifest *m, logger *log)
{
    for (int split = 0; split < 2; split++) {
        shard_set *set;
        if (m->shards[split] == 0)
            continue;
        TRY(shard_set_open(&set, folder, split));
        show_split(set, split, log);
        shard_set_close(&set);
    }
    return 0;
}

static int show(const options *o, logger *log, int threads)
{
    enum { NAMED = 5 };
    shard_manifest m;
    const char *folder = o->arguments[1];
    (void)threads;
    TRY(shard_manifest_read(&m, folder));
    log_info(log, "%s: data set %s", folder, m.id);
    for (int split = 0; split < 2; split++)
        log_info(log, "  %s: %" PRId64 " images in %d shards, %.1f MiB", split ? "val" : "train", m.images[split],
                 m.shards[split], (double)m.bytes[split] / mib);
    int status = show_splits(folder, &m, log);
    log_info(log, "  %d classes:", m.classes);
    for (int32_t label = 0; label < m.classes && label < NAMED; label++)
        log_info(log, "    %d %s %s", label, m.class_ids[label], m.class_names[label]);
    if (m.classes > NAMED)
        log_info(log, "    and %d more", m.classes - NAMED);
    shard_manifest_close(&m);
    return status;
}

/* One rank does it: it is the disk that it takes, not the cores. */
static int on_first(const options *o, logger *log, comm *ranks, int (*work)(const options *, logger *, int))
{
    int threads;
    TRY(choose_threads(o, ranks, &threads));
    return comm_agree(ranks, comm_describe(ranks)->rank == 0 ? work(o, log, threads) : 0);
}

static int run_check(const options *o, logger *log, comm *ranks)
{
    return on_first(o, log, ranks, check);
}

static int run_show(const options *o, logger *log, comm *ranks)
{
    return on_first(o, log, ranks, show);
}

static int run_unpack(const options *o, logger *log, comm *ranks)
{
    return on_first(o, log, ranks, unpack);
}

const data_command data_check = {.name = "check",
                                 .usage = "DIR",
                                 .summary = "look at every byte of a packed data set",
                                 .options = OPTION_CHECK | OPTION_ARGUMENTS,
                                 .arguments = 1,
                                 .run = run_check};

const data_command data_show = {.name = "show",
                                .usage = "DIR",
                                .summary = "say what a packed data set holds",
                                .options = OPTION_ARGUMENTS,
                                .arguments = 1,
                                .run = run_show};

const data_command data_unpack = {.name = "unpack",
                                  .usage = "DIR",
                                  .summary = "write a packed data set as class folders",
                                  .options = OPTION_UNPACK | OPTION_OUT | OPTION_ARGUMENTS,
                                  .arguments = 1,
                                  .run = run_unpack};
