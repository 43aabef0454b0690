/* Class folders as an input: FOLDER/train and FOLDER/val, or one of the other names of a validation split. Owns the
 * paths of the splits' folders. One thread until it is open. */
#include "io/pack/input.h"

#include "base/error.h"
#include "io/file/class_folders.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[PACK_SPLITS][4] = {{"train", "training"}, {"val", "validation", "valid", "test"}};

typedef struct {
    char roots[PACK_SPLITS][PATH_MAX];
} folders;

/* The name of the split's folder, or NULL. */
static const char *find_split(const char *path, int split)
{
    for (int i = 0; i < 4 && names[split][i]; i++)
        if (pack_exists(path, names[split][i]))
            return names[split][i];
    return NULL;
}

bool input_holds_folders(const char *path)
{
    return find_split(path, 0) != NULL;
}

static int read_image(const pack_input *input, int split, const pack_entry *entry, pack_buffer *buffer)
{
    const folders *f = input->own;
    char path[PATH_MAX];
    TRY(pack_join(path, f->roots[split], pack_entry_name(input, entry)));
    return pack_read_file(path, buffer);
}

/* A file that is not there stays in the list: reading it says why. */
static int add_image(pack_input *input, int split, const char *root, const char *name, int32_t label)
{
    char path[PATH_MAX];
    struct stat info = {0};
    TRY(pack_join(path, root, name));
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
        TRY(add_image(input, split, root, class_folders_path(listing, i), label));
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
        TRY(open_split(input, split, f->roots[split]));
    }
    return 0;
}
