/* Owns `teskd data show`: what a packed data set holds, in words, and as a sheet of images. */
#include "base/error.h"
#include "cli/data_commands.h"
#include "io/pack/sheet.h"
#include "io/shard/shard_file.h"

#include <inttypes.h>
#include <stdlib.h>

enum { NAMED = 5 };

static const double mib = 1024.0 * 1024.0;

static int by_value(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Least, middle and greatest of the shorter and the longer sides. */
static int show_sides(const shard_set *set, logger *log)
{
    const int64_t n = shard_set_images(set);
    int32_t *sides = malloc(2 * (size_t)n * sizeof *sides);
    CHECK(sides, ERROR_MEMORY, "no memory for the sizes of %" PRId64 " images", n);
    int32_t *longer = sides + n;
    for (int64_t i = 0; i < n; i++) {
        const shard_image *image = shard_set_image(set, i);
        const bool is_tall = image->height > image->width;
        sides[i] = is_tall ? image->width : image->height;
        longer[i] = is_tall ? image->height : image->width;
    }
    qsort(sides, (size_t)n, sizeof *sides, by_value);
    qsort(longer, (size_t)n, sizeof *longer, by_value);
    log_info(log, "    shorter side: %d to %d pixels, half of them below %d; longer side: %d to %d, below %d", sides[0],
             sides[n - 1], sides[n / 2], longer[0], longer[n - 1], longer[n / 2]);
    free(sides);
    return 0;
}

static void show_flags(const shard_set *set, logger *log)
{
    static const struct {
        uint32_t flag;
        const char *what;
    } flags[] = {{SHARD_PNG, "PNG"},
                 {SHARD_GREY, "grey"},
                 {SHARD_CMYK, "CMYK"},
                 {SHARD_PROGRESSIVE, "progressive or interlaced"},
                 {SHARD_MISNAMED, "of another format than their names say"},
                 {SHARD_RECODED, "made smaller when they were packed"}};
    for (size_t f = 0; f < sizeof flags / sizeof flags[0]; f++) {
        int64_t count = 0;
        for (int64_t i = 0; i < shard_set_images(set); i++)
            count += (shard_set_image(set, i)->flags & flags[f].flag) != 0;
        if (count > 0)
            log_info(log, "    %" PRId64 " %s", count, flags[f].what);
    }
}

static int show_class_sizes(const shard_set *set, logger *log)
{
    const shard_manifest *m = shard_set_manifest(set);
    int64_t *counts = calloc((size_t)m->classes, sizeof *counts), least = INT64_MAX, most = 0, empty = 0;
    CHECK(counts, ERROR_MEMORY, "no memory for %d classes", m->classes);
    for (int64_t i = 0; i < shard_set_images(set); i++)
        counts[shard_set_image(set, i)->label]++;
    for (int32_t label = 0; label < m->classes; label++) {
        least = counts[label] < least ? counts[label] : least;
        most = counts[label] > most ? counts[label] : most;
        empty += counts[label] == 0;
    }
    log_info(log, "    %" PRId64 " to %" PRId64 " images in a class", least, most);
    if (empty > 0)
        log_info(log, "    %" PRId64 " classes without images", empty);
    free(counts);
    return 0;
}

static int show_split(const char *folder, int split, const shard_manifest *m, logger *log)
{
    shard_set *set;
    log_info(log, "  %s: %" PRId64 " images in %d shards, %.1f MiB", split ? "val" : "train", m->images[split],
             m->shards[split], (double)m->bytes[split] / mib);
    if (m->shards[split] == 0)
        return 0;
    TRY(shard_set_open(&set, folder, split));
    int status = show_class_sizes(set, log);
    if (status == 0)
        status = show_sides(set, log);
    show_flags(set, log);
    shard_set_close(&set);
    return status;
}

static void show_classes(const shard_manifest *m, logger *log)
{
    log_info(log, "  %d classes:", m->classes);
    for (int32_t label = 0; label < m->classes && label < NAMED; label++)
        log_info(log, "    %d %s %s", label, m->class_ids[label], m->class_names[label]);
    if (m->classes > NAMED)
        log_info(log, "    and %d more", m->classes - NAMED);
}

static int show_left_out_of(const shard_file *file, logger *log)
{
    char name[SHARD_NAME_BYTES];
    for (int64_t i = 0; i < file->left_out.count; i++) {
        TRY(shard_file_text(file, &file->left_out, i, name, sizeof name));
        log_info(log, "  left out, since it could not be read: %s", name);
    }
    return 0;
}

/* All of them: teskd data pack names the first few. */
static int show_left_out(const char *folder, const manifest *m, logger *log)
{
    int status = 0;
    for (int split = 0; split < SHARD_SPLITS; split++)
        for (int32_t i = 0; status == 0 && i < m->set.shards[split]; i++) {
            shard_file file;
            TRY(shard_file_open(&file, m, folder, split, i));
            status = show_left_out_of(&file, log);
            shard_file_close(&file);
        }
    return status;
}

static int show_all(const char *folder, const manifest *m, logger *log)
{
    log_info(log, "%s: data set %s", folder, m->set.id);
    for (int split = 0; split < SHARD_SPLITS; split++)
        TRY(show_split(folder, split, &m->set, log));
    show_classes(&m->set, log);
    return show_left_out(folder, m, log);
}

static int write_grid(const options *o, const char *folder, logger *log)
{
    shard_set *set;
    const long long side = o->image_size < 0 ? SHEET_SIDE : o->image_size;
    CHECK(side >= 8 && side <= SHEET_SIDE_MOST, ERROR_USAGE, "--image-size %lld: expected 8 to %d", side,
          SHEET_SIDE_MOST);
    TRY(shard_set_open(&set, folder, 0));
    int status = sheet_write(o->grid, set, (int32_t)side, o->seed < 0 ? 0 : (uint64_t)o->seed);
    shard_set_close(&set);
    if (status == 0)
        log_info(log, "%s: images as the network sees them in its first epoch", o->grid);
    return status;
}

static int show(const options *o, logger *log)
{
    manifest m;
    const char *folder = o->arguments[1];
    CHECK(o->grid || o->image_size < 0, ERROR_USAGE, "--image-size goes with --grid");
    CHECK(!o->grid || !shard_holds(folder, o->grid), ERROR_USAGE, "--grid %s: that is a file of the data set", o->grid);
    TRY(manifest_read(&m, folder));
    int status = show_all(folder, &m, log);
    manifest_close(&m);
    return status == 0 && o->grid ? write_grid(o, folder, log) : status;
}

static int run(const options *o, logger *log, comm *ranks)
{
    return comm_agree(ranks, comm_describe(ranks)->rank == 0 ? show(o, log) : 0);
}

const data_command data_show = {.name = "show",
                                .usage = "DIR",
                                .summary = "say what a packed data set holds, and show some of it",
                                .options = OPTION_SHOW | OPTION_SEED | OPTION_ARGUMENTS,
                                .arguments = 1,
                                .run = run};
