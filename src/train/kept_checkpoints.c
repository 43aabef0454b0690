/* Owns the names of kept checkpoints and which of them stay. Holds no state: the folder says what there is. One thread
 * at a time for each folder. */
#include "train/kept_checkpoints.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char before[] = "step_", after[] = ".h5";
static const double hour_seconds = 3600;

void kept_path(char path[KEPT_PATH_BYTES], const char *folder, int64_t steps_done)
{
    snprintf(path, KEPT_PATH_BYTES, "%s/%s%09lld%s", folder, before, (long long)steps_done, after);
}

bool kept_is_name(const char *name)
{
    if (strncmp(name, before, strlen(before)) != 0 || strlen(name) >= KEPT_NAME_BYTES)
        return false;
    size_t digits = strspn(name + strlen(before), "0123456789");
    return digits > 0 && strcmp(name + strlen(before) + digits, after) == 0;
}

bool kept_link(const char *path, const char *checkpoint)
{
    unlink(path);
    return link(checkpoint, path) == 0;
}

static int add(kept_list *list, DIR *folder, const char *name)
{
    struct stat info;
    if (!kept_is_name(name) || fstatat(dirfd(folder), name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode))
        return 0;
    kept_file *files = realloc(list->files, ((size_t)list->count + 1) * sizeof *files);
    CHECK(files, ERROR_MEMORY, "no memory for the list of checkpoints");
    list->files = files;
    kept_file *file = &files[list->count++];
    file->written = info.st_mtim;
    memcpy(file->name, name, strlen(name) + 1); /* kept_is_name has looked at its length */
    return 0;
}

static int newest_first(const void *a, const void *b)
{
    const kept_file *x = a, *y = b;
    if (x->written.tv_sec != y->written.tv_sec)
        return x->written.tv_sec < y->written.tv_sec ? 1 : -1;
    if (x->written.tv_nsec != y->written.tv_nsec)
        return x->written.tv_nsec < y->written.tv_nsec ? 1 : -1;
    return strcmp(y->name, x->name);
}

int kept_list_read(kept_list *list, const char *folder)
{
    *list = (kept_list){0};
    DIR *entries = opendir(folder);
    int status = entries || errno == ENOENT ? 0 : error_set(ERROR_FILE, "%s: cannot list: %s", folder, strerror(errno));
    for (struct dirent *entry; entries && status == 0 && (entry = readdir(entries));)
        status = add(list, entries, entry->d_name);
    if (entries)
        closedir(entries);
    if (status < 0)
        kept_list_free(list);
    else if (list->count > 0)
        qsort(list->files, (size_t)list->count, sizeof *list->files, newest_first);
    return status;
}

void kept_list_free(kept_list *list)
{
    free(list->files);
    *list = (kept_list){0};
}

static int drop(const char *folder, const char *name)
{
    char path[KEPT_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK(unlink(path) == 0 || errno == ENOENT, ERROR_FILE, "%s: cannot be removed: %s", path, strerror(errno));
    return 0;
}

int kept_thin(const char *folder, const kept_rule *rule)
{
    kept_list list;
    const double now = (double)time(NULL);
    int status = kept_list_read(&list, folder);
    for (int i = 0; i < list.count && status == 0; i++) {
        bool is_young = now - (double)list.files[i].written.tv_sec < rule->hours * hour_seconds;
        if (i >= rule->count && !is_young)
            status = drop(folder, list.files[i].name);
    }
    kept_list_free(&list);
    return status;
}
