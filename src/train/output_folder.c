/* Owns the rules of output.dir. Invariant: from opening to closing rank 0 holds the folder's lock, so that nobody else
 * writes a run's files in it. Main thread only. */
#include "train/output_folder.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/settings.h"
#include "train/folder_lock.h"
#include "train/kept_checkpoints.h"
#include "train/stop_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = KEPT_PATH_BYTES, CHECKPOINT_BYTES = 4096 };

/* In the order in which a checkpoint to go on from is looked for; between PREVIOUS and BEST come the kept ones. */
enum { LAST, PREVIOUS, BEST, METRICS, FILES };
static const char *const file_names[FILES] = {
    [LAST] = "last.h5", [PREVIOUS] = "previous.h5", [BEST] = "best.h5", [METRICS] = "metrics.jsonl"};

struct output_folder {
    output_options options;
    folder_lock *lock; /* rank 0 */
    bool holds[FILES], made;
    kept_list kept;
    char (*candidates)[PATH_BYTES]; /* of --resume auto, the newest first */
    int n_candidates, chosen;
    char checkpoint[CHECKPOINT_BYTES];
};

static const char *file_path(const output_folder *f, int file, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s", f->options.folder, file_names[file]);
    return path;
}

static const char *kept_file_path(const output_folder *f, int index, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s", f->options.folder, f->kept.files[index].name);
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

/* Whether `path` names one of the run's own files. */
static bool is_own(const output_folder *f, const char *path)
{
    char own[PATH_BYTES];
    for (int file = 0; file < FILES; file++)
        if (f->holds[file] && is_same_file(file_path(f, file, own), path))
            return true;
    for (int i = 0; i < f->kept.count; i++)
        if (is_same_file(kept_file_path(f, i, own), path))
            return true;
    return false;
}

/* The name of a file by which the folder holds a run, or NULL. */
static const char *found_file(const output_folder *f)
{
    for (int file = 0; file < FILES; file++)
        if (f->holds[file])
            return file_names[file];
    return f->kept.count > 0 ? f->kept.files[0].name : NULL;
}

/* A second name of a file that is there already is no other checkpoint. */
static void add_candidate(output_folder *f, const char *path)
{
    for (int i = 0; i < f->n_candidates; i++)
        if (is_same_file(f->candidates[i], path))
            return;
    snprintf(f->candidates[f->n_candidates++], PATH_BYTES, "%s", path);
}

static int list_candidates(output_folder *f)
{
    char path[PATH_BYTES];
    f->candidates = calloc((size_t)f->kept.count + FILES, sizeof *f->candidates);
    CHECK(f->candidates, ERROR_MEMORY, "no memory for the list of checkpoints");
    for (int file = LAST; file <= PREVIOUS; file++)
        if (f->holds[file])
            add_candidate(f, file_path(f, file, path));
    for (int i = 0; i < f->kept.count; i++)
        add_candidate(f, kept_file_path(f, i, path));
    return 0;
}

static int choose_newest(output_folder *f)
{
    char path[PATH_BYTES];
    const char *folder = f->options.folder;
    TRY(list_candidates(f));
    CHECK(
        f->n_candidates > 0 || !f->holds[BEST], ERROR_USAGE,
        "output.dir: %s has neither last.h5 nor previous.h5, but %s: --resume %s goes on from it, --overwrite removes "
        "it and starts afresh",
        folder, file_names[BEST], file_path(f, BEST, path));
    if (f->n_candidates == 0) {
        log_info(f->options.log, "no checkpoint in %s yet: starting afresh", folder);
        return 0;
    }
    snprintf(f->checkpoint, sizeof f->checkpoint, "%s", f->candidates[0]);
    if (!f->holds[LAST])
        log_info(f->options.log, "%s has no last.h5: going on from %s", folder, strrchr(f->checkpoint, '/') + 1);
    return 0;
}

static int choose_checkpoint(output_folder *f)
{
    const output_options *o = &f->options;
    if (o->resume && strcmp(o->resume, "auto") == 0)
        return choose_newest(f);
    const bool own = o->resume && is_own(f, o->resume);
    const char *found = found_file(f);
    CHECK(!own || !o->overwrite, ERROR_USAGE, "--overwrite would remove %s, which --resume is to go on from",
          o->resume);
    CHECK(!found || own || o->overwrite, ERROR_USAGE,
          "output.dir: %s holds a run already (%s): --resume auto goes on with it, --overwrite removes it first; or "
          "choose another output.dir",
          o->folder, found);
    if (o->resume) {
        CHECK(strlen(o->resume) < sizeof f->checkpoint, ERROR_USAGE, "--resume: longer than %d bytes",
              CHECKPOINT_BYTES - 1);
        snprintf(f->checkpoint, sizeof f->checkpoint, "%s", o->resume);
    }
    return 0;
}

/* What was being written to `entry`'s file when a run was killed; `entry` is any name in the folder. */
static int sweep_entry(const output_folder *f, const char *entry)
{
    char name[KEPT_NAME_BYTES], path[PATH_BYTES];
    const char *mark = strstr(entry, ".tmp.");
    if (!mark || mark - entry >= KEPT_NAME_BYTES)
        return 0;
    snprintf(name, sizeof name, "%.*s", (int)(mark - entry), entry);
    snprintf(path, sizeof path, "%s/%s", f->options.folder, name);
    return output_folder_writes(name) ? atomic_file_sweep(path, 0) : 0;
}

static void sweep(const output_folder *f)
{
    int removed = 0;
    DIR *entries = opendir(f->options.folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        removed += sweep_entry(f, entry->d_name);
    if (entries)
        closedir(entries);
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
    TRY(kept_list_read(&f->kept, f->options.folder));
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

int output_folder_fall_back(output_folder *f)
{
    int found = f->chosen + 1 < f->n_candidates; /* rank 0's */
    TRY(comm_broadcast(f->options.ranks, &found, sizeof found, 0));
    if (!found)
        return 0;
    if (f->candidates)
        snprintf(f->checkpoint, sizeof f->checkpoint, "%s", f->candidates[++f->chosen]);
    TRY(comm_broadcast(f->options.ranks, f->checkpoint, sizeof f->checkpoint, 0));
    return 1;
}

/* A name that is free: an earlier damaged file stays as well. */
static int set_aside(const output_folder *f, const char *path)
{
    char to[PATH_BYTES + 32];
    struct stat info;
    snprintf(to, sizeof to, "%s.damaged", path);
    for (int number = 2; lstat(to, &info) == 0; number++)
        snprintf(to, sizeof to, "%s.damaged.%d", path, number);
    CHECK(rename(path, to) == 0, ERROR_FILE, "%s: cannot rename to %s: %s", path, to, strerror(errno));
    log_info(f->options.log, "the damaged %s stays as %s", path, to);
    return 0;
}

int output_folder_set_aside(output_folder *f)
{
    int status = 0;
    for (int i = 0; i < f->chosen && status == 0; i++)
        status = set_aside(f, f->candidates[i]);
    return comm_agree(f->options.ranks, status);
}

static int remove_file(const output_folder *f, const char *path)
{
    CHECK(unlink(path) == 0 || errno == ENOENT, ERROR_FILE, "%s: cannot remove: %s", path, strerror(errno));
    log_info(f->options.log, "removed %s", path);
    return 0;
}

static int remove_run(const output_folder *f)
{
    char path[PATH_BYTES];
    for (int file = 0; file < FILES; file++)
        if (f->holds[file])
            TRY(remove_file(f, file_path(f, file, path)));
    for (int i = 0; i < f->kept.count; i++)
        TRY(remove_file(f, kept_file_path(f, i, path)));
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
    return file < FILES || kept_is_name(name);
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
    kept_list_free(&old->kept);
    free(old->candidates);
    free(old);
}
