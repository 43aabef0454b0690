/* Owns the folder that is packed into: its lock, and which plan its shards are of. Invariant: a note in the folder,
 * written before the first shard, says of which plan and of which originals the shards are; where it says another
 * thing, they are removed before it is changed. One thread of one rank. */
#include "io/pack/plan.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/shard/shard_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define NOTE_NAME "packing.txt"
enum { NOTE_BYTES = 128 };

struct pack_folder {
    char path[SHARD_PATH_BYTES]; /* of the note */
    int note;                    /* open and locked */
};

static int remove_note(const char *folder)
{
    char path[SHARD_PATH_BYTES];
    TRY(shard_path_join(path, folder, NOTE_NAME));
    CHECK(unlink(path) == 0 || errno == ENOENT, ERROR_FILE, "%s: cannot be removed: %s", path, strerror(errno));
    return 0;
}

static void note_text(const pack_plan *plan, char text[NOTE_BYTES])
{
    memset(text, 0, NOTE_BYTES);
    snprintf(text, NOTE_BYTES, "plan %s\noriginals %016" PRIx64 "\n", plan->id, plan->input.stamp);
}

static int open_note(pack_folder *f, const char *folder)
{
    TRY(shard_path_join(f->path, folder, NOTE_NAME));
    f->note = open(f->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    CHECK(f->note >= 0, ERROR_FILE, "%s: cannot be written: %s", f->path, strerror(errno));
    CHECK(flock(f->note, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK, ERROR_FILE,
          "%s: another teskd data pack is writing to that folder", folder);
    return 0;
}

static bool is_shard_name(const char *name)
{
    char own[SHARD_FILE_BYTES];
    const char *digits = strchr(name, '-');
    if (!digits || strspn(digits + 1, "0123456789") != 5)
        return false;
    for (int split = 0; split < PACK_SPLITS; split++)
        if (strcmp(name, shard_file_name(split, (int32_t)strtol(digits + 1, NULL, 10), own)) == 0)
            return true;
    return false;
}

/* Is it one of the plan's? */
static bool is_planned(const pack_plan *plan, const char *name)
{
    const int split = name[0] == 'v';
    return strtol(strchr(name, '-') + 1, NULL, 10) < plan->shards[split];
}

/* Removes all shards, or those that the plan does not have. */
static int remove_shards(const pack_plan *plan, bool all)
{
    int status = 0;
    DIR *folder = opendir(plan->out);
    CHECK(folder, ERROR_FILE, "%s: cannot list the folder: %s", plan->out, strerror(errno));
    for (const struct dirent *entry; status == 0 && (entry = readdir(folder));)
        if (is_shard_name(entry->d_name) && (all || !is_planned(plan, entry->d_name)) &&
            unlinkat(dirfd(folder), entry->d_name, 0) != 0)
            status = error_set(ERROR_FILE, "%s/%s: cannot be removed: %s", plan->out, entry->d_name, strerror(errno));
    closedir(folder);
    return status;
}

int pack_folder_finish(const pack_plan *plan)
{
    TRY(remove_shards(plan, false));
    return remove_note(plan->out);
}

static int write_note(const pack_folder *f, const char text[NOTE_BYTES])
{
    CHECK(ftruncate(f->note, 0) == 0 && pwrite(f->note, text, strlen(text), 0) == (ssize_t)strlen(text) &&
              (fsync(f->note) == 0 || errno == EINVAL),
          ERROR_FILE, "%s: cannot write: %s", f->path, strerror(errno));
    return 0;
}

/* Shards of another plan go before the note says that they are of this one. */
static int begin(const pack_folder *f, const pack_plan *plan)
{
    char found[NOTE_BYTES] = "", expected[NOTE_BYTES];
    note_text(plan, expected);
    ssize_t got = pread(f->note, found, sizeof found - 1, 0);
    CHECK(got >= 0, ERROR_FILE, "%s: cannot read: %s", f->path, strerror(errno));
    if (strcmp(found, expected) == 0)
        return 0;
    TRY(remove_shards(plan, true));
    return write_note(f, expected);
}

/* What killed processes left. */
static void sweep(const pack_plan *plan)
{
    char name[SHARD_FILE_BYTES], path[SHARD_PATH_BYTES + 16];
    snprintf(path, sizeof path, "%s/%s", plan->out, SHARD_MANIFEST_NAME);
    atomic_file_sweep(path, 0);
    for (int split = 0; split < PACK_SPLITS; split++)
        for (int32_t i = 0; i < plan->shards[split]; i++) {
            snprintf(path, sizeof path, "%s/%s", plan->out, shard_file_name(split, i, name));
            atomic_file_sweep(path, 0);
            snprintf(path, sizeof path, "%s/%s.layout", plan->out, name);
            atomic_file_sweep(path, 0);
        }
}

static int remove_manifest(const pack_plan *plan)
{
    char path[SHARD_PATH_BYTES];
    TRY(shard_path_join(path, plan->out, SHARD_MANIFEST_NAME));
    CHECK(unlink(path) == 0 || errno == ENOENT, ERROR_FILE, "%s: cannot be removed: %s", path, strerror(errno));
    return 0;
}

/* A data set that is there stays, unless it may be replaced. */
static int look_at_manifest(const pack_plan *plan, bool *is_done)
{
    manifest m;
    char path[SHARD_PATH_BYTES];
    TRY(shard_path_join(path, plan->out, SHARD_MANIFEST_NAME));
    *is_done = false;
    if (plan->options.overwrite)
        return remove_manifest(plan);
    if (access(path, F_OK) != 0)
        return 0;
    TRY(manifest_read(&m, plan->out));
    *is_done = strcmp(m.plan, plan->id) == 0;
    manifest_close(&m);
    CHECK(*is_done, ERROR_USAGE, "%s: holds another packed data set; --overwrite replaces it", plan->out);
    return 0;
}

static int open_folder(pack_folder *f, const pack_plan *plan, bool *is_done)
{
    TRY(make_folders(plan->out));
    TRY(look_at_manifest(plan, is_done));
    if (*is_done)
        return remove_note(plan->out);
    TRY(open_note(f, plan->out));
    sweep(plan);
    return begin(f, plan);
}

int pack_folder_open(pack_folder **folder, const pack_plan *plan, bool *is_done)
{
    *folder = calloc(1, sizeof **folder);
    CHECK(*folder, ERROR_MEMORY, "%s: no memory to write to it", plan->out);
    (*folder)->note = -1;
    int status = open_folder(*folder, plan, is_done);
    if (status < 0)
        pack_folder_close(folder);
    return status;
}

void pack_folder_close(pack_folder **folder)
{
    if (*folder && (*folder)->note >= 0)
        close((*folder)->note);
    free(*folder);
    *folder = NULL;
}
