/* Owns the listing of class folders while it is made. Invariant: what stands in `images` is whole, so that a listing
 * can be closed after any failure. One thread per listing. */
#include "io/file/class_folders.h"

#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

const char *const class_folders_splits[CLASS_FOLDERS_SPLITS][5] = {{"train", "training"},
                                                                   {"val", "validation", "valid", "test"}};

enum { DEEPEST = 32 }; /* links may lead in circles */

typedef struct {
    class_folders *listing;
    const char *root;
    size_t image_room, text_room;
    char path[PATH_MAX]; /* of the folder or file at hand */
    size_t root_bytes;   /* of `path`: where the names relative to the root begin */
} scan;

static int no_memory(const scan *s)
{
    return error_set(ERROR_MEMORY, "%s: no memory for the list of its files", s->root);
}

/* Appends "/NAME" to the path; returns its length before, for path_leave. */
static int path_enter(scan *s, const char *name, size_t *before)
{
    *before = strlen(s->path);
    int added = snprintf(s->path + *before, sizeof s->path - *before, "/%s", name);
    CHECK(added > 0 && (size_t)added < sizeof s->path - *before, ERROR_FILE, "%s: a path in it is too long", s->root);
    return 0;
}

static void path_leave(scan *s, size_t before)
{
    s->path[before] = '\0';
}

bool class_folders_is_image(const char *name)
{
    static const char *const endings[] = {".jpg", ".jpeg", ".png"};
    const size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        const size_t ending = strlen(endings[i]);
        if (length >= ending && strcasecmp(name + length - ending, endings[i]) == 0)
            return true;
    }
    return false;
}

typedef enum { KIND_FILE, KIND_FOLDER, KIND_OTHER } entry_kind;

/* What the path at hand is. A link that leads nowhere counts as a file: whoever reads it finds out. */
static entry_kind kind_of(const scan *s, const struct dirent *entry)
{
    struct stat info;
    if (entry->d_type == DT_REG)
        return KIND_FILE;
    if (entry->d_type == DT_DIR)
        return KIND_FOLDER;
    if (stat(s->path, &info) != 0)
        return KIND_FILE;
    return S_ISREG(info.st_mode) ? KIND_FILE : S_ISDIR(info.st_mode) ? KIND_FOLDER : KIND_OTHER;
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int grow_images(scan *s)
{
    class_folders *l = s->listing;
    if ((size_t)l->images < s->image_room)
        return 0;
    const size_t room = s->image_room ? 2 * s->image_room : 1024;
    int32_t *labels = realloc(l->labels, room * sizeof *labels);
    if (labels)
        l->labels = labels;
    size_t *paths = realloc(l->paths, room * sizeof *paths);
    if (paths)
        l->paths = paths;
    if (!labels || !paths)
        return no_memory(s);
    s->image_room = room;
    return 0;
}

static int grow_text(scan *s, size_t more)
{
    class_folders *l = s->listing;
    if (l->text_bytes + more <= s->text_room)
        return 0;
    const size_t room = 2 * s->text_room + more;
    char *text = realloc(l->text, room);
    if (!text)
        return no_memory(s);
    l->text = text;
    s->text_room = room;
    return 0;
}

/* The path at hand is an image of the class. */
static int add_image(scan *s, int32_t label)
{
    class_folders *l = s->listing;
    const char *relative = s->path + s->root_bytes;
    const size_t bytes = strlen(relative) + 1;
    TRY(grow_images(s));
    TRY(grow_text(s, bytes));
    memcpy(l->text + l->text_bytes, relative, bytes);
    l->paths[l->images] = l->text_bytes;
    l->labels[l->images++] = label;
    l->text_bytes += bytes;
    return 0;
}

static int scan_folder(scan *s, int32_t label, int depth);

static int take_entry(scan *s, const struct dirent *entry, int32_t label, int depth)
{
    size_t before;
    int status = 0;
    TRY(path_enter(s, entry->d_name, &before));
    const entry_kind kind = kind_of(s, entry);
    if (kind == KIND_FOLDER)
        status = scan_folder(s, label, depth + 1);
    else if (kind == KIND_FILE && class_folders_is_image(entry->d_name))
        status = add_image(s, label);
    else
        s->listing->others++;
    path_leave(s, before);
    return status;
}

static int open_folder(const char *path, DIR **folder)
{
    *folder = opendir(path);
    CHECK(*folder, ERROR_FILE, "%s: cannot list the folder: %s", path, strerror(errno));
    return 0;
}

/* The next entry, or NULL at the end, with `*status` 0, or after a failure. */
static const struct dirent *next_entry(DIR *folder, const char *path, int *status)
{
    const struct dirent *entry;
    do {
        errno = 0;
        entry = readdir(folder);
    } while (entry && is_dots(entry->d_name));
    if (!entry && errno != 0)
        *status = error_set(ERROR_FILE, "%s: cannot list the folder: %s", path, strerror(errno));
    return entry;
}

static int scan_folder(scan *s, int32_t label, int depth)
{
    DIR *folder;
    int status = 0;
    CHECK(depth < DEEPEST, ERROR_DATA, "%s: more than %d folders in folders; does a link lead in a circle?", s->path,
          DEEPEST);
    TRY(open_folder(s->path, &folder));
    for (const struct dirent *entry; status == 0 && (entry = next_entry(folder, s->path, &status));)
        status = take_entry(s, entry, label, depth);
    closedir(folder);
    return status;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_class(class_folders *l, const char *name, const scan *s)
{
    char **ids = realloc(l->class_ids, ((size_t)l->classes + 1) * sizeof *ids);
    if (!ids)
        return no_memory(s);
    l->class_ids = ids;
    ids[l->classes] = strdup(name);
    if (!ids[l->classes])
        return no_memory(s);
    l->classes++;
    return 0;
}

static int take_class(scan *s, const struct dirent *entry)
{
    size_t before;
    int status = 0;
    TRY(path_enter(s, entry->d_name, &before));
    if (kind_of(s, entry) == KIND_FOLDER)
        status = add_class(s->listing, entry->d_name, s);
    else
        s->listing->others++;
    path_leave(s, before);
    return status;
}

static int list_classes(scan *s)
{
    DIR *folder;
    int status = 0;
    TRY(open_folder(s->path, &folder));
    for (const struct dirent *entry; status == 0 && (entry = next_entry(folder, s->path, &status));)
        status = take_class(s, entry);
    closedir(folder);
    TRY(status);
    CHECK(s->listing->classes > 0, ERROR_DATA, "%s: holds no folders; expected a folder for each class", s->root);
    qsort(s->listing->class_ids, (size_t)s->listing->classes, sizeof *s->listing->class_ids, by_bytes);
    return 0;
}

static size_t folder_bytes(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) : 0;
}

/* By folder, then by name: a folder's own files come before those of the folders in it. */
static int by_folder(const void *a, const void *b, void *text)
{
    const char *left = (const char *)text + *(const size_t *)a, *right = (const char *)text + *(const size_t *)b;
    const size_t of_left = folder_bytes(left), of_right = folder_bytes(right);
    const int order = memcmp(left, right, of_left < of_right ? of_left : of_right);
    if (order != 0)
        return order;
    if (of_left != of_right)
        return of_left < of_right ? -1 : 1;
    return strcmp(left + of_left, right + of_right);
}

static int scan_class(scan *s, int32_t label)
{
    class_folders *l = s->listing;
    const int64_t first = l->images;
    size_t before;
    TRY(path_enter(s, l->class_ids[label], &before));
    TRY(scan_folder(s, label, 0));
    CHECK(l->images > first, ERROR_DATA, "%s: the class has no image (.jpg, .jpeg or .png)", s->path);
    path_leave(s, before);
    qsort_r(l->paths + first, (size_t)(l->images - first), sizeof *l->paths, by_folder, l->text);
    return 0;
}

static int begin(scan *s, class_folders *listing, const char *root)
{
    memset(listing, 0, sizeof *listing);
    *s = (scan){.listing = listing, .root = root};
    size_t length = strlen(root);
    while (length > 1 && root[length - 1] == '/')
        length--;
    CHECK(length > 0 && length < sizeof s->path - 1, ERROR_FILE, "\"%.64s\": not the name of a folder", root);
    memcpy(s->path, root, length);
    s->root_bytes = length + 1; /* the slash */
    return list_classes(s);
}

int class_folders_list(class_folders *listing, const char *root)
{
    scan s;
    int status = begin(&s, listing, root);
    if (status < 0)
        class_folders_close(listing);
    return status;
}

int class_folders_scan(class_folders *listing, const char *root)
{
    scan s;
    int status = begin(&s, listing, root);
    for (int32_t label = 0; status == 0 && label < listing->classes; label++)
        status = scan_class(&s, label);
    if (status < 0)
        class_folders_close(listing);
    return status;
}

void class_folders_close(class_folders *listing)
{
    for (int32_t i = 0; i < listing->classes; i++)
        free(listing->class_ids[i]);
    free(listing->class_ids);
    free(listing->labels);
    free(listing->paths);
    free(listing->text);
    memset(listing, 0, sizeof *listing);
}
