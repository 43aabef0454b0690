/* Owns the copying of shards to a host's own disk. Invariant: a file is complete under its name, and the manifest comes
 * last, so that a folder with a manifest can be read, also by another run. Only the first rank of a host writes. */
#include "session/stage.h"

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/error.h"
#include "io/shard/shard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Ranks meet this often while one of them copies: what waits longer without a word counts as hung. */
static const double meeting_seconds = 5;
static const size_t piece_bytes = (size_t)16 << 20;
static const char manifest_name[] = "manifest.json";

typedef struct {
    const char *from, *to;
    char **files; /* the manifest last */
    int n_files, at;
    int source, target; /* of the file that is being copied; -1: none */
    int64_t bytes, done;
    double start;
    logger *log;
} copy;

static int join(char out[SHARD_PATH_BYTES], const char *folder, const char *name, const char *suffix)
{
    CHECK(snprintf(out, SHARD_PATH_BYTES, "%s/%s%s", folder, name, suffix) < SHARD_PATH_BYTES, ERROR_FILE,
          "%s/%s: the path is too long", folder, name);
    return 0;
}

/* ---- what there is to copy ---- */

static bool is_shard(const char *name)
{
    const size_t length = strlen(name);
    return length > 3 && strcmp(name + length - 3, ".h5") == 0;
}

static int add_file(copy *c, const char *name)
{
    char path[SHARD_PATH_BYTES], target[SHARD_PATH_BYTES];
    struct stat source, there;
    TRY(join(path, c->from, name, ""));
    TRY(join(target, c->to, name, ""));
    CHECK(stat(path, &source) == 0, ERROR_FILE, "%s: %s", path, strerror(errno));
    const bool is_manifest = strcmp(name, manifest_name) == 0;
    if (!is_manifest && stat(target, &there) == 0 && there.st_size == source.st_size)
        return 0; /* an earlier run's */
    char **files = realloc(c->files, ((size_t)c->n_files + 1) * sizeof *files);
    CHECK(files, ERROR_MEMORY, "no memory for a list of files");
    c->files = files;
    files[c->n_files] = strdup(name);
    CHECK(files[c->n_files], ERROR_MEMORY, "no memory for a list of files");
    c->n_files++;
    c->bytes += source.st_size;
    return 0;
}

static int list_files(copy *c)
{
    DIR *folder = opendir(c->from);
    CHECK(folder, ERROR_FILE, "%s: %s", c->from, strerror(errno));
    int status = 0;
    for (struct dirent *entry; status == 0 && (entry = readdir(folder)) != NULL;)
        if (is_shard(entry->d_name))
            status = add_file(c, entry->d_name);
    closedir(folder);
    return status < 0 ? status : add_file(c, manifest_name);
}

static int check_room(const copy *c)
{
    struct statvfs disk;
    CHECK(statvfs(c->to, &disk) == 0, ERROR_FILE, "%s: %s", c->to, strerror(errno));
    const double room = (double)disk.f_bavail * (double)disk.f_frsize;
    CHECK((double)c->bytes <= room, ERROR_FILE, "%s: %.1f GiB are free, and %.1f GiB are to be copied", c->to,
          room / 0x1p30, (double)c->bytes / 0x1p30);
    return 0;
}

static int start_copy(copy *c)
{
    TRY(make_folders(c->to));
    TRY(list_files(c));
    TRY(check_room(c));
    c->start = clock_seconds();
    return 0;
}

/* ---- copying ---- */

static int open_next(copy *c)
{
    char path[SHARD_PATH_BYTES];
    TRY(join(path, c->from, c->files[c->at], ""));
    c->source = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(c->source >= 0, ERROR_FILE, "%s: %s", path, strerror(errno));
    TRY(join(path, c->to, c->files[c->at], ".partial"));
    c->target = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    CHECK(c->target >= 0, ERROR_FILE, "%s: %s", path, strerror(errno));
    return 0;
}

static void close_files(copy *c)
{
    if (c->source >= 0)
        close(c->source);
    if (c->target >= 0)
        close(c->target);
    c->source = c->target = -1;
}

static int finish_file(copy *c)
{
    char partial[SHARD_PATH_BYTES], path[SHARD_PATH_BYTES];
    const int synced = fsync(c->target);
    close_files(c);
    TRY(join(partial, c->to, c->files[c->at], ".partial"));
    TRY(join(path, c->to, c->files[c->at], ""));
    CHECK(synced == 0 && rename(partial, path) == 0, ERROR_FILE, "%s: %s", path, strerror(errno));
    c->at++;
    return 0;
}

/* One piece of the current file. */
static int copy_piece(copy *c)
{
    if (c->source < 0)
        TRY(open_next(c));
    const ssize_t got = sendfile(c->target, c->source, NULL, piece_bytes);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    CHECK(got >= 0, ERROR_FILE, "%s/%s: cannot copy: %s", c->to, c->files[c->at], strerror(errno));
    c->done += got;
    return got == 0 ? finish_file(c) : 0;
}

static void say_progress(const copy *c)
{
    const double seconds = clock_seconds() - c->start, rate = seconds > 0 ? (double)c->done / seconds : 0;
    log_live(c->log, "copying the data to %s: %.1f of %.1f GiB, %.0f MB/s, %.0f s left", c->to,
             (double)c->done / 0x1p30, (double)c->bytes / 0x1p30, rate / 1e6,
             rate > 0 ? (double)(c->bytes - c->done) / rate : 0);
}

/* Copies until the ranks meet again. */
static int copy_for_a_while(copy *c)
{
    const double until = clock_seconds() + meeting_seconds;
    while (c->at < c->n_files && clock_seconds() < until)
        TRY(copy_piece(c));
    say_progress(c);
    return 0;
}

/* A partial file is of no use. */
static void close_copy(copy *c)
{
    char path[SHARD_PATH_BYTES];
    const error_copy kept = error_save();
    if (c->source >= 0 && c->at < c->n_files && join(path, c->to, c->files[c->at], ".partial") == 0)
        unlink(path);
    error_restore(&kept);
    close_files(c);
    for (int i = 0; i < c->n_files; i++)
        free(c->files[i]);
    free(c->files);
}

/* ---- with the ranks ---- */

/* One rank of each host copies; the others wait in meetings. A failure is a warning: the data are read where they are.
 */
static int copy_together(copy *c, comm *ranks, bool copies, logger *log)
{
    int status = copies ? start_copy(c) : 0;
    for (double busy = 1; busy > 0;) {
        if (status == 0 && copies && c->at < c->n_files)
            status = copy_for_a_while(c);
        if (status < 0 && copies) {
            log_warning(log, "data.stage: %s; the data are read from %s", error_message(), c->from);
            copies = false;
        }
        busy = copies && c->at < c->n_files;
        TRY(comm_all_reduce(ranks, &busy, 1, COMM_F64));
    }
    return 0;
}

/* Is the data set of that id complete there? */
static bool is_there(const char *folder, const char *id)
{
    shard_manifest manifest;
    const error_copy kept = error_save();
    const bool read = shard_manifest_read(&manifest, folder) == 0, same = read && strcmp(manifest.id, id) == 0;
    if (read)
        shard_manifest_close(&manifest);
    error_restore(&kept);
    return same;
}

static int stage_folder(const settings *config, char id[SHARD_ID_BYTES], char folder[SETTING_TEXT_BYTES])
{
    shard_manifest manifest;
    TRY(shard_manifest_read(&manifest, config->data.path));
    snprintf(id, SHARD_ID_BYTES, "%s", manifest.id);
    shard_manifest_close(&manifest);
    CHECK(snprintf(folder, SETTING_TEXT_BYTES, "%s/%s", config->data.stage, id) < SETTING_TEXT_BYTES, ERROR_SETTINGS,
          "data.stage: the path is too long");
    return 0;
}

int stage_data(const settings *config, comm *ranks, logger *log, char path[SETTING_TEXT_BYTES])
{
    char id[SHARD_ID_BYTES], folder[SETTING_TEXT_BYTES];
    snprintf(path, SETTING_TEXT_BYTES, "%s", config->data.path);
    if (!config->data.stage[0])
        return 0;
    TRY(comm_agree(ranks, stage_folder(config, id, folder)));
    copy c = {.from = config->data.path, .to = folder, .source = -1, .target = -1, .log = log};
    const bool copies = comm_describe(ranks)->local_rank == 0 && !is_there(folder, id);
    int status = copy_together(&c, ranks, copies, log);
    close_copy(&c);
    TRY(status);
    if (is_there(folder, id))
        snprintf(path, SETTING_TEXT_BYTES, "%s", folder);
    return 0;
}
