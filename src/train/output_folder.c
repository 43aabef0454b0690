/* Owns the rules of output.dir. Invariant: from opening to closing rank 0 holds the folder's lock, so that nobody else
 * writes a run's files in it. Main thread only. */
#include "train/output_folder.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/settings.h"
#include "train/folder_lock.h"
#include "train/stop_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = SETTING_TEXT_BYTES + 32, CHECKPOINT_BYTES = 4096 };

/* In the order in which a checkpoint to go on from is looked for. */
enum { LAST, PREVIOUS, BEST, METRICS, FILES };
static const char *const file_names[FILES] = {
    [LAST] = "last.h5", [PREVIOUS] = "previous.h5", [BEST] = "best.h5", [METRICS] = "metrics.jsonl"};

struct output_folder {
    output_options options;
    folder_lock *lock; /* rank 0 */
    bool holds[FILES], made;
    char checkpoint[CHECKPOINT_BYTES];
};

static const char *file_path(const output_folder *f, int file, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s", f->options.folder, file_names[file]);
    return path;
}

/* Metrics without a line are of no run. */
static int look_at(output_folder *f, int file)
{
    char path[PATH_BYTES];
    struct stat info;
    if (lstat(file_path(f, file, path), &info) != 0) {
        CHECK(errno == ENOENT, ERROR_FILE, "output.dir: %s: %s", path, strerror(errno));
        return 0;
    }
    CHECK(S_ISREG(info.st_mode), ERROR_FILE,
          "output.dir: %s is %s; a run's files have to be regular files: move it away, or choose another output.dir",
          path,
          S_ISLNK(info.st_mode)   ? "a link"
          : S_ISDIR(info.st_mode) ? "a folder"
                                  : "no regular file");
    f->holds[file] = file != METRICS || info.st_size > 0;
    return 0;
}

/* Which of the run's own files `path` names, or FILES. */
static int own_file(const output_folder *f, const char *path)
{
    char own[PATH_BYTES];
    int file = LAST;
    while (file < FILES && !(f->holds[file] && is_same_file(file_path(f, file, own), path)))
        file++;
    return file;
}

static int choose_newest(output_folder *f)
{
    char path[PATH_BYTES];
    const char *folder = f->options.folder;
    CHECK(
        f->holds[LAST] || f->holds[PREVIOUS] || !f->holds[BEST], ERROR_USAGE,
        "output.dir: %s has neither last.h5 nor previous.h5, but %s: --resume %s goes on from it, --overwrite removes "
        "it and starts afresh",
        folder, file_names[BEST], file_path(f, BEST, path));
    if (f->holds[LAST] || f->holds[PREVIOUS])
        snprintf(f->checkpoint, sizeof f->checkpoint, "%s", file_path(f, f->holds[LAST] ? LAST : PREVIOUS, path));
    if (!f->holds[LAST] && f->holds[PREVIOUS])
        log_info(f->options.log, "%s has no last.h5: going on from previous.h5", folder);
    if (!f->checkpoint[0])
        log_info(f->options.log, "no checkpoint in %s yet: starting afresh", folder);
    return 0;
}

static int choose_checkpoint(output_folder *f)
{
    const output_options *o = &f->options;
    if (o->resume && strcmp(o->resume, "auto") == 0)
        return choose_newest(f);
    int own = o->resume ? own_file(f, o->resume) : FILES, found = LAST;
    while (found < FILES && !f->holds[found])
        found++;
    CHECK(own == FILES || !o->overwrite, ERROR_USAGE, "--overwrite would remove %s, which --resume is to go on from",
          o->resume);
    CHECK(found == FILES || own < FILES || o->overwrite, ERROR_USAGE,
          "output.dir: %s holds a run already (%s): --resume auto goes on with it, --overwrite removes it first; or "
          "choose another output.dir",
          o->folder, file_names[found]);
    if (o->resume) {
        CHECK(strlen(o->resume) < sizeof f->checkpoint, ERROR_USAGE, "--resume: longer than %d bytes",
              CHECKPOINT_BYTES - 1);
        snprintf(f->checkpoint, sizeof f->checkpoint, "%s", o->resume);
    }
    return 0;
}

static void sweep(const output_folder *f)
{
    char path[PATH_BYTES];
    int removed = 0;
    for (int file = 0; file < FILES; file++)
        removed += atomic_file_sweep(file_path(f, file, path), 0);
    if (removed > 0)
        log_info(f->options.log, "%s: %d temporary file%s of killed runs removed", f->options.folder, removed,
                 removed == 1 ? "" : "s");
}

static int open_folder(output_folder *f)
{
    struct stat info;
    f->made = stat(f->options.folder, &info) != 0;
    int status = make_folders(f->options.folder);
    if (status < 0)
        return error_prefix(status, "output.dir");
    status = folder_lock_take(&f->lock, f->options.folder, f->options.log);
    if (status < 0)
        return error_prefix(status, "output.dir");
    TRY(stop_file_remove(f->options.folder));
    for (int file = 0; file < FILES; file++)
        TRY(look_at(f, file));
    TRY(choose_checkpoint(f));
    sweep(f);
    return 0;
}

int output_folder_open(output_folder **out, const output_options *options)
{
    output_folder *f = calloc(1, sizeof *f);
    bool first = comm_describe(options->ranks)->rank == 0;
    *out = f;
    if (f)
        f->options = *options;
    int status = f ? 0 : error_set(ERROR_MEMORY, "no memory for output.dir");
    if (status == 0 && first)
        status = open_folder(f);
    status = comm_agree(options->ranks, status);
    if (status == 0)
        status = comm_broadcast(options->ranks, f->checkpoint, sizeof f->checkpoint, 0);
    if (status < 0)
        output_folder_close(out);
    return status;
}

const char *output_folder_checkpoint(const output_folder *f)
{
    return f->checkpoint;
}

static int remove_run(const output_folder *f)
{
    for (int file = 0; file < FILES; file++) {
        char path[PATH_BYTES];
        if (!f->holds[file])
            continue;
        CHECK(unlink(file_path(f, file, path)) == 0 || errno == ENOENT, ERROR_FILE, "%s: cannot remove: %s", path,
              strerror(errno));
        log_info(f->options.log, "removed %s", path);
    }
    return 0;
}

int output_folder_clear(output_folder *f)
{
    bool removes = f->options.overwrite && comm_describe(f->options.ranks)->rank == 0;
    return comm_agree(f->options.ranks, removes ? remove_run(f) : 0);
}

bool output_folder_writes(const char *name)
{
    int file = 0;
    while (file < FILES && strcmp(file_names[file], name) != 0)
        file++;
    return file < FILES;
}

void output_folder_close(output_folder **f)
{
    output_folder *old = *f;
    *f = NULL;
    if (!old)
        return;
    folder_lock_release(&old->lock);
    if (old->made)
        rmdir(old->options.folder); /* where the run left nothing in it */
    free(old);
}
