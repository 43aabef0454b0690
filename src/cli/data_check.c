/* Owns `teskd data check` and `unpack`: going through all images of a packed data set. */
#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/data_commands.h"
#include "io/pack/unpack.h"
#include "io/shard/shard_file.h"
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
    shard_manifest m;
    TRY(shard_manifest_read(&m, folder));
    int status = 0;
    for (int split = 0; status == 0 && split < 2; split++) {
        shard_set *set;
        if (m.shards[split] == 0)
            continue;
        status = shard_set_open(&set, folder, split);
        if (status == 0)
            status = visit_split(set, split, wanted, report);
        shard_set_close(&set);
    }
    shard_manifest_close(&m);
    return status;
}

/* Every shard by itself, so that all that are missing or damaged are named, and not only the first. */
static int check_shards(const char *folder, const manifest *m, logger *log)
{
    int bad = 0;
    for (int split = 0; split < SHARD_SPLITS; split++)
        for (int32_t i = 0; i < m->set.shards[split]; i++) {
            shard_file file;
            if (shard_file_open(&file, m, folder, split, i) < 0) {
                log_error(log, "%s", error_message());
                bad++;
            }
            shard_file_close(&file);
        }
    CHECK(bad == 0, ERROR_DATA, "%s: %d of %d shards are missing or bad; the images of the others were not looked at",
          folder, bad, m->set.shards[0] + m->set.shards[1]);
    return 0;
}

static int check_files(const char *folder, logger *log)
{
    manifest m;
    TRY(manifest_read(&m, folder));
    int status = check_shards(folder, &m, log);
    manifest_close(&m);
    return status;
}

static int check(const options *o, logger *log, int threads)
{
    visit_report report = {0};
    TRY(check_files(o->arguments[1], log));
    const visit_options wanted = {
        .threads = threads, .visit = o->deep ? visit_decode : NULL, .doing = "checking", .log = log};
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

const data_command data_unpack = {.name = "unpack",
                                  .usage = "DIR",
                                  .summary = "write a packed data set as class folders",
                                  .options = OPTION_UNPACK | OPTION_OUT | OPTION_ARGUMENTS,
                                  .arguments = 1,
                                  .run = run_unpack};
