/* Class folders as an input: FOLDER/train and FOLDER/val, or one of the other names of a validation split. Validation
 * images may lie in one folder, where a file says their classes. Owns the paths of the splits' folders. One thread
 * until it is open. */
#include "io/pack/input.h"
#include "io/pack/val_labels.h"

#include "base/error.h"
#include "io/file/class_folders.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char roots[PACK_SPLITS][PATH_MAX];
    bool is_flat; /* the validation images lie in no class folders */
} folders;

/* The name of the split's folder, or NULL. */
static const char *find_split(const char *path, int split)
{
    for (int i = 0; class_folders_splits[split][i]; i++)
        if (pack_exists(path, class_folders_splits[split][i]))
            return class_folders_splits[split][i];
    return NULL;
}

bool input_holds_folders(const char *path)
{
    return find_split(path, 0) != NULL;
}

static int read_image(const pack_input *input, int split, const pack_entry *entry, byte_buffer *buffer)
{
    const folders *f = input->own;
    char path[PATH_MAX];
    const char *name = pack_entry_name(input, entry);
    TRY(pack_join(path, f->roots[split], split == 1 && f->is_flat ? strchr(name, '/') + 1 : name));
    return byte_buffer_read_file(buffer, path);
}

/* `file` is the path below the root, `name` as it would be in class folders. One that is not there stays in the list:
 * reading it says why. */
static int add_image(pack_input *input, int split, const char *root, const char *file, const char *name, int32_t label)
{
    char path[PATH_MAX];
    struct stat info = {0};
    TRY(pack_join(path, root, file));
    (void)stat(path, &info);
    pack_input_stamp(input, &info);
    CHECK(info.st_size <= INT32_MAX, ERROR_DATA, "%s: %lld bytes are too many for an image", path,
          (long long)info.st_size);
    const pack_entry entry = {.size = (uint32_t)info.st_size, .label = label};
    return pack_input_add(input, split, name, &entry);
}

static int take_classes(pack_input *input, const class_folders *listing)
{
    for (int32_t i = 0; i < listing->classes; i++)
        TRY(pack_input_add_class(input, listing->class_ids[i]));
    return 0;
}

/* Labels are those of the training classes. */
static int take_images(pack_input *input, int split, const char *root, const class_folders *listing)
{
    for (int64_t i = 0; i < listing->images; i++) {
        const char *id = listing->class_ids[listing->labels[i]];
        const int32_t label = pack_input_find_class(input, id);
        CHECK(label >= 0, ERROR_DATA, "%s/%s: there is no such class among the training images", root, id);
        const char *name = class_folders_path(listing, i);
        TRY(add_image(input, split, root, name, name, label));
    }
    input->others += listing->others;
    return 0;
}

static int open_split(pack_input *input, int split, const char *root)
{
    class_folders listing;
    TRY(class_folders_scan(&listing, root));
    int status = input->classes == 0 ? take_classes(input, &listing) : 0;
    if (status == 0)
        status = take_images(input, split, root, &listing);
    class_folders_close(&listing);
    return status;
}

static int take_flat(pack_input *input, const val_labels *labels, const char *root, const char *file)
{
    char name[2 * PACK_NAME_BYTES];
    if (!class_folders_is_image(file)) {
        input->others += file[0] != '.';
        return 0;
    }
    const int32_t label = val_labels_find(labels, file);
    CHECK(label >= 0, ERROR_DATA, "%s/%s: no line says its class", root, file);
    snprintf(name, sizeof name, "%s/%s", input->class_ids[label], file);
    return add_image(input, 1, root, file, name, label);
}

static int list_flat(pack_input *input, const val_labels *labels, const char *root)
{
    int status = 0;
    DIR *folder = opendir(root);
    CHECK(folder, ERROR_FILE, "%s: cannot list the folder: %s", root, strerror(errno));
    for (const struct dirent *entry; status == 0 && (entry = readdir(folder));)
        status = take_flat(input, labels, root, entry->d_name);
    closedir(folder);
    pack_input_sort(input, 1);
    return status;
}

static int open_flat(pack_input *input, const char *root, const pack_options *options)
{
    val_labels labels;
    ((folders *)input->own)->is_flat = true;
    TRY(val_labels_read(&labels, input, options));
    int status = list_flat(input, &labels, root);
    val_labels_free(&labels);
    return status;
}

static void close_folders(pack_input *input)
{
    free(input->own);
}

int input_open_folders(pack_input *input, const pack_options *options)
{
    folders *f = calloc(1, sizeof *f);
    CHECK(f, ERROR_MEMORY, "%s: no memory to list it", options->from);
    input->own = f;
    input->close = close_folders;
    input->read = read_image;
    snprintf(input->title, sizeof input->title, "class folders in %.200s", options->from);
    CHECK(find_split(options->from, 0), ERROR_DATA, "%s: no folder train in it", options->from);
    for (int split = 0; split < PACK_SPLITS; split++) {
        const char *name = find_split(options->from, split);
        if (!name)
            continue;
        TRY(pack_join(f->roots[split], options->from, name));
        TRY(split == 1 && options->val_labels ? open_flat(input, f->roots[split], options)
                                              : open_split(input, split, f->roots[split]));
    }
    return 0;
}
