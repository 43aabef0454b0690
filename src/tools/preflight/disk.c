/* Owns the checks of files and disks. Invariant: a file that is written has no name any more before the first byte is
 * in it, so nothing is left, however the process ends. No state; each check runs in a thread of its own. */
#include "base/clock.h"
#include "base/error.h"
#include "base/rng.h"
#include "io/data/file_system.h"
#include "io/shard/shard.h"
#include "model/network.h"
#include "tools/preflight/check.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { PIECE_BYTES = 4 << 20 };
static const double disk_seconds = 2, written_bytes = 64 * 0x1p20, read_bytes = 256 * 0x1p20,
                    least_read_bytes = 16 * 0x1p20;

/* Content that no file system makes smaller. */
static void *random_piece(void)
{
    uint64_t *piece = malloc(PIECE_BYTES);
    for (size_t i = 0; piece && i < PIECE_BYTES / sizeof *piece; i++)
        piece[i] = (uint64_t)(0x1p53 * rng_uniform(1, rng_stream(RNG_SYNTHETIC, 0), i)) * 2049;
    return piece;
}

/* ---- writing ---- */

static int write_whole(int fd, const char *piece, const char *folder)
{
    for (size_t done = 0; done < PIECE_BYTES;) {
        const ssize_t wrote = write(fd, piece + done, PIECE_BYTES - done);
        CHECK(wrote > 0 || (wrote < 0 && errno == EINTR), ERROR_FILE, "%s: cannot write a file of %d MiB: %s", folder,
              (int)(written_bytes / 0x1p20), strerror(errno));
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return 0;
}

/* MB/s of a file that is made durable. */
static int time_writing(int fd, const char *folder, double *rate)
{
    void *piece = random_piece();
    CHECK(piece, ERROR_MEMORY, "no memory for a piece of a file");
    const double begin = clock_seconds();
    double bytes = 0;
    int status = 0;
    while (status == 0 && bytes < written_bytes && clock_seconds() - begin < disk_seconds) {
        status = write_whole(fd, piece, folder);
        bytes += PIECE_BYTES;
    }
    free(piece);
    TRY(status);
    CHECK(fsync(fd) == 0, ERROR_FILE, "%s: cannot write a file to the disk: %s", folder, strerror(errno));
    *rate = bytes / (clock_seconds() - begin) / 1e6;
    return 0;
}

static int measure_writing(const char *folder, double *rate)
{
    char path[PATH_MAX];
    CHECK(snprintf(path, sizeof path, "%s/.teskd-preflight-XXXXXX", folder) < (int)sizeof path, ERROR_FILE,
          "%s: the path is too long", folder);
    const int fd = mkostemp(path, O_CLOEXEC);
    CHECK(fd >= 0, ERROR_FILE, "%s: cannot make a file: %s", folder, strerror(errno));
    unlink(path);
    const int status = time_writing(fd, folder, rate);
    close(fd);
    return status;
}

/* The folder, or what is there of it: a run makes the rest. */
static void existing_part(const char *folder, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s", folder);
    while (path[0] && access(path, F_OK) != 0) {
        char *slash = strrchr(path, '/');
        if (slash)
            *slash = '\0';
        else
            path[0] = '\0';
        if (slash == path)
            break;
    }
    if (!path[0])
        snprintf(path, PATH_MAX, "%s", folder[0] == '/' ? "/" : ".");
}

/* Rate and room of the disk for `folder`, on which `needed` bytes are to be written for `purpose`; 0: nobody knows. */
static int check_folder(const char *folder, double needed, const char *purpose, finding *mine)
{
    char path[PATH_MAX];
    struct statvfs disk;
    existing_part(folder, path);
    TRY(measure_writing(path, &mine->value));
    CHECK(statvfs(path, &disk) == 0, ERROR_FILE, "%s: %s", path, strerror(errno));
    const double room = (double)disk.f_bavail * (double)disk.f_frsize;
    mine->verdict = room < needed ? VERDICT_FAULT : VERDICT_FINE;
    const int used = snprintf(mine->text, sizeof mine->text, "%.4g MB/s written to %.300s (%s); %.1f GiB free",
                              mine->value, folder, file_system_name(path), room / 0x1p30);
    if (needed > 0)
        snprintf(mine->text + used, sizeof mine->text - (size_t)used, ", %s takes %.3g GiB", purpose, needed / 0x1p30);
    if (room < needed)
        snprintf(mine->problem, sizeof mine->problem, "too little room");
    return 0;
}

/* Weights and momentum and, where it is kept, their EMA. */
static int checkpoint_bytes(const session *e, double *bytes)
{
    graph g;
    model m;
    const step_shape shape = {.training = true, .batch = 1, .global_batch = 1, .loss_batch = 1};
    graph_init(&g, DTYPE_F32);
    model_build(&m, &g, &e->step.model, &shape);
    *bytes = 0;
    for (uint32_t i = 0; i < g.n_values && !graph_status(&g); i++)
        if (g.values[i].desc.kind == KIND_PARAMETER)
            *bytes += (e->config.train.ema_decay > 0 ? 3 : 2) * (double)tensor_bytes(&g.values[i].desc);
    const int status = graph_status(&g);
    model_free(&m);
    graph_free(&g);
    return status;
}

int check_output(const preflight *p, finding *mine)
{
    enum { FILES = 4 }; /* last, previous and best checkpoint, and the one that is being written */
    double bytes = 0;
    if (p->info->rank != 0)
        return 0;
    if (p->has_device) /* and so a network */
        TRY(checkpoint_bytes(&p->e, &bytes));
    return check_folder(p->config.output.dir, FILES * bytes, "a run", mine);
}

int check_stage(const preflight *p, finding *mine)
{
    const data_source *source;
    shard_manifest manifest;
    TRY(source_find(&source, p->config.data.kind));
    if (!preflight_leads(p) || !p->config.data.stage[0] || !source->driver->in_shards)
        return 0;
    TRY(shard_manifest_read(&manifest, p->config.data.path));
    const double bytes = (double)manifest.bytes[0] + (double)manifest.bytes[1];
    shard_manifest_close(&manifest);
    return check_folder(p->config.data.stage, bytes, "the data set", mine);
}

/* ---- reading ---- */

/* What has been read, of a time that begins with the first file. */
typedef struct {
    char *piece;
    double bytes, begin;
    int files;
} reading;

static bool has_enough(const reading *r)
{
    return r->bytes >= read_bytes || clock_seconds() - r->begin >= disk_seconds;
}

/* From the disk: what the host's memory holds of the file is let go first. */
static int read_file(reading *r, const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0, ERROR_FILE, "%s: %s", path, strerror(errno));
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ssize_t got = 0;
    do {
        got = read(fd, r->piece, PIECE_BYTES);
        r->bytes += got > 0 ? (double)got : 0;
    } while (got > 0 && !has_enough(r));
    const int error = errno;
    close(fd);
    r->files++;
    CHECK(got >= 0, ERROR_FILE, "%s: %s", path, strerror(error));
    return 0;
}

static int read_folder(reading *r, char *folder)
{
    char *const roots[] = {folder, NULL};
    FTS *walk = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, NULL);
    CHECK(walk, ERROR_FILE, "%s: %s", folder, strerror(errno));
    int status = 0;
    for (FTSENT *entry; status == 0 && !has_enough(r) && (entry = fts_read(walk)) != NULL;)
        if (entry->fts_info == FTS_F)
            status = read_file(r, entry->fts_path);
    fts_close(walk);
    return status;
}

/* All hosts at once, as in training: a file system that they share has to serve them all. */
int check_data_read(const preflight *p, finding *mine)
{
    const data_source *source;
    char folder[SETTING_TEXT_BYTES];
    TRY(source_find(&source, p->config.data.kind));
    if (!preflight_leads(p) || !source->wants)
        return 0;
    reading r = {.piece = malloc(PIECE_BYTES), .begin = clock_seconds()};
    CHECK(r.piece, ERROR_MEMORY, "no memory for a piece of a file");
    snprintf(folder, sizeof folder, "%s", p->config.data.path);
    const int status = read_folder(&r, folder);
    const double seconds = clock_seconds() - r.begin;
    free(r.piece);
    TRY(status);
    CHECK(r.files > 0, ERROR_FILE, "data.path: no file to read in \"%s\"", folder);
    mine->verdict = VERDICT_FINE;
    if (r.bytes >= least_read_bytes || seconds >= disk_seconds)
        mine->value = r.bytes / seconds / 1e6;
    snprintf(mine->text, sizeof mine->text, "%.4g MB/s read (%.3g MB in %d file%s of %s)%s", r.bytes / seconds / 1e6,
             r.bytes / 1e6, r.files, r.files == 1 ? "" : "s", file_system_name(folder),
             r.bytes < least_read_bytes ? ", too little to compare" : "");
    return 0;
}

/* ---- what the data are ---- */

static int add_split(const preflight *p, const data_source *source, data_split split, char *text, size_t bytes)
{
    static const char *const names[] = {[SPLIT_TRAIN] = "training set", [SPLIT_TEST] = "test set"};
    char identity[IMAGE_SET_IDENTITY_BYTES];
    image_set set;
    const int64_t limit = split == SPLIT_TRAIN ? p->config.data.train_images : p->config.data.test_images;
    TRY(source_open(
        &set, source,
        &(source_request){.path = p->config.data.path, .split = split, .limit = (int32_t)limit, .seed = 0}));
    image_set_identity(&set, identity);
    image_set_close(&set);
    const size_t used = strlen(text);
    snprintf(text + used, bytes - used, "%s%s: %s", used ? "; " : "", names[split], identity);
    return 0;
}

int check_data(const preflight *p, finding *mine)
{
    const data_source *source;
    TRY(source_find(&source, p->config.data.kind));
    if (!preflight_leads(p) || !source->wants)
        return 0;
    CHECK(p->config.data.path[0], ERROR_SETTINGS, "data.path: empty; it must be the folder that holds %s",
          source->wants);
    for (int split = 0; split < SPLITS; split++)
        TRY(add_split(p, source, (data_split)split, mine->text, sizeof mine->text));
    mine->verdict = VERDICT_FINE;
    return 0;
}
