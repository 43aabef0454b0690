/* ImageNet as it is downloaded, as an input: a tar of a tar per class, and a flat tar of validation images, read where
 * they lie in them, so that nothing is unpacked. Owns the open archives. One thread until it is open.
 *
 * An archive of class folders is fine as well. Entries know where their bytes lie; the order of reading is free. */
#include "io/pack/input.h"
#include "io/pack/tar_index.h"
#include "io/pack/val_labels.h"

#include "base/error.h"
#include "io/file/class_folders.h"
#include "io/file/file_kind.h"
#include "io/shard/shard_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const char *const names[PACK_SPLITS][3] = {{"ILSVRC2012_img_train.tar", "train.tar"},
                                                  {"ILSVRC2012_img_val.tar", "val.tar"}};

typedef struct {
    char paths[PACK_SPLITS][PATH_MAX];
    int descriptors[PACK_SPLITS];
} archives;

/* What is known while an archive is listed. */
typedef struct {
    pack_input *input;
    int split;
    const tar_range *range;   /* of the archive that is listed */
    const char *class;        /* that all of it is of; NULL: as the folders say */
    const val_labels *labels; /* of images in no folder; NULL: none */
    bool only_classes;        /* the first of two passes */
} listing;

static const char *find_archive(const char *path, int split)
{
    for (int i = 0; i < 3 && names[split][i]; i++)
        if (pack_exists(path, names[split][i]))
            return names[split][i];
    return NULL;
}

bool input_holds_imagenet(const char *path)
{
    return find_archive(path, 0) != NULL;
}

static bool ends_with(const char *text, const char *ending)
{
    const size_t length = strlen(text), of_ending = strlen(ending);
    return length >= of_ending && strcasecmp(text + length - of_ending, ending) == 0;
}

static const char *last_part(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

/* The folder that a member is in, which is its class; empty where it is in none. */
static void folder_of(const char *name, char folder[PACK_NAME_BYTES])
{
    const char *last = last_part(name), *end = last > name ? last - 1 : name, *begin = end;
    while (begin > name && begin[-1] != '/')
        begin--;
    snprintf(folder, PACK_NAME_BYTES, "%.*s", (int)(end - begin), begin);
}

/* Classes are found in the order of the archive, and sorted when all are known. */
static int note_class(pack_input *input, const char *id)
{
    for (int32_t i = input->classes; i > 0; i--) /* the last one, most often */
        if (strcmp(input->class_ids[i - 1], id) == 0)
            return 0;
    return pack_input_add_class(input, id);
}

/* The class's id of a member, or an error. */
static int class_of(const listing *l, const char *name, char id[PACK_NAME_BYTES])
{
    if (l->class)
        snprintf(id, PACK_NAME_BYTES, "%s", l->class);
    else
        folder_of(name, id);
    const int32_t label = l->labels ? val_labels_find(l->labels, name) : -1;
    if (label >= 0)
        snprintf(id, PACK_NAME_BYTES, "%s", l->input->class_ids[label]);
    CHECK(label >= 0 || !l->labels || l->class || id[0], ERROR_DATA, "%s: no line says the class of %s", l->range->path,
          name);
    CHECK(id[0], ERROR_DATA, "%s: %s lies in no folder that says its class", l->range->path, name);
    return 0;
}

static int add_image(const listing *l, const tar_member *member)
{
    char id[PACK_NAME_BYTES], name[2 * PACK_NAME_BYTES];
    TRY(class_of(l, member->name, id));
    if (l->only_classes)
        return note_class(l->input, id);
    const int32_t label = pack_input_find_class(l->input, id);
    CHECK(label >= 0, ERROR_DATA, "%s: %s: there is no class \"%s\" among the training images", l->range->path,
          member->name, id);
    CHECK(member->size <= INT32_MAX, ERROR_DATA, "%s: %s: its bytes are too many for an image", l->range->path,
          member->name);
    snprintf(name, sizeof name, "%s/%s", id, last_part(member->name));
    const pack_entry entry = {.place = member->offset, .size = (uint32_t)member->size, .label = label};
    return pack_input_add(l->input, l->split, name, &entry);
}

static int take_member(void *context, const tar_member *member);

/* An archive in the archive: of one class, by its name. In the first pass that is all there is to know. */
static int take_archive(const listing *l, const tar_member *member)
{
    char class[PACK_NAME_BYTES];
    const char *name = last_part(member->name);
    snprintf(class, sizeof class, "%.*s", (int)(strlen(name) - strlen(".tar")), name);
    if (l->only_classes)
        return note_class(l->input, class);
    const tar_range inner = {.path = l->range->path,
                             .descriptor = l->range->descriptor,
                             .begin = member->offset,
                             .end = member->offset + member->size};
    listing inside = *l;
    inside.range = &inner;
    inside.class = class;
    int status = tar_index(&inner, take_member, &inside);
    return status < 0 ? error_suffix(status, " (in %s)", member->name) : 0;
}

static int take_member(void *context, const tar_member *member)
{
    listing *l = context;
    if (!l->class && ends_with(member->name, ".tar") && member->size > 0)
        return take_archive(l, member);
    if (class_folders_is_image(member->name))
        return add_image(l, member);
    l->input->others += !l->only_classes;
    return 0;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The classes first, since labels are their places in the order of their ids. */
static int list_training(pack_input *input, const tar_range *range)
{
    listing l = {.input = input, .range = range, .only_classes = true};
    TRY(tar_index(range, take_member, &l));
    CHECK(input->classes > 0, ERROR_DATA, "%s: holds neither an archive nor a folder for each class", range->path);
    qsort(input->class_ids, (size_t)input->classes, sizeof *input->class_ids, by_bytes);
    l.only_classes = false;
    return tar_index(range, take_member, &l);
}

/* Counts the images that lie in no folder. */
static int count_flat(void *context, const tar_member *member)
{
    *(int64_t *)context += class_folders_is_image(member->name) && !strchr(member->name, '/');
    return 0;
}

static int list_validation(pack_input *input, const tar_range *range, const pack_options *options)
{
    listing l = {.input = input, .range = range, .split = 1};
    val_labels labels = {.labels = NULL};
    int64_t flat = 0;
    TRY(tar_index(range, count_flat, &flat));
    if (flat > 0 || options->val_labels) {
        TRY(val_labels_read(&labels, input, options));
        l.labels = &labels;
    }
    int status = tar_index(range, take_member, &l);
    val_labels_free(&labels);
    return status;
}

static int open_archive(pack_input *input, int split, const pack_options *options)
{
    archives *a = input->own;
    struct stat info;
    const char *name = find_archive(options->from, split);
    if (!name)
        return 0;
    char *path = a->paths[split];
    TRY(pack_join(path, options->from, name));
    const int kind = file_kind_of(path);
    TRY(kind);
    CHECK(kind != FILE_COMPRESSED && kind != FILE_ZIP, ERROR_DATA,
          "%s: is compressed, so that images cannot be read out of their order; uncompress it first", path);
    a->descriptors[split] = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(a->descriptors[split] >= 0 && fstat(a->descriptors[split], &info) == 0, ERROR_FILE, "%s: cannot open: %s",
          path, strerror(errno));
    pack_input_stamp(input, &info);
    const tar_range range = {.path = path, .descriptor = a->descriptors[split], .end = (uint64_t)info.st_size};
    return split == 0 ? list_training(input, &range) : list_validation(input, &range, options);
}

static int read_image(const pack_input *input, int split, const pack_entry *entry, byte_buffer *buffer)
{
    const archives *a = input->own;
    TRY(byte_buffer_reserve(buffer, (size_t)entry->size + 1));
    buffer->size = entry->size;
    int status = shard_pread(a->descriptors[split], a->paths[split], entry->place, buffer->bytes, entry->size);
    /* It was longer when it was listed: that is no bad image. */
    return status == ERROR_DATA ? ERROR_FILE : status;
}

static void close_archives(pack_input *input)
{
    archives *a = input->own;
    for (int split = 0; a && split < PACK_SPLITS; split++)
        if (a->descriptors[split] >= 0)
            close(a->descriptors[split]);
    free(a);
}

int input_open_imagenet(pack_input *input, const pack_options *options)
{
    archives *a = calloc(1, sizeof *a);
    CHECK(a, ERROR_MEMORY, "%s: no memory to list it", options->from);
    a->descriptors[0] = a->descriptors[1] = -1;
    input->own = a;
    input->close = close_archives;
    input->read = read_image;
    snprintf(input->title, sizeof input->title, "archives in %.200s", options->from);
    CHECK(options->from && find_archive(options->from, 0), ERROR_USAGE,
          "--kind imagenet needs --from DIR with %s in it", names[0][0]);
    for (int split = 0; split < PACK_SPLITS; split++)
        TRY(open_archive(input, split, options));
    return 0;
}
