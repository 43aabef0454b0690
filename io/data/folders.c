/* A folder of compressed images per class as a data set. Owns the listing of a split, which the first rank makes and
 * hands to the others: a scan of a million files by every rank would be too much for a file server. Any thread, once
 * open. */
#include "io/data/drivers.h"

#include "base/error.h"
#include "io/data/compressed.h"
#include "io/file/class_folders.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

typedef struct {
    compressed_fetch fetch; /* comes first, see io/data/compressed.h */
    char root[PATH_MAX];
    size_t *paths; /* [images], in `text` */
    char *text;
} folders_data;

/* ---- an image's bytes ---- */

static int fetch(const image_set *set, int32_t index, byte_buffer *buffer)
{
    const folders_data *data = set->own;
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", data->root, data->text + data->paths[index]);
    return byte_buffer_read_file(buffer, path);
}

static void describe_image(const image_set *set, int32_t index, char *text, size_t bytes)
{
    const folders_data *data = set->own;
    snprintf(text, bytes, "%s/%s", data->root, data->text + data->paths[index]);
}

static void close_set(image_set *set)
{
    folders_data *data = set->own;
    if (data) {
        free(data->paths);
        free(data->text);
    }
    free(data);
}

static const image_set_ops ops = {.reader_open = compressed_reader_open,
                                  .load = compressed_load,
                                  .render = compressed_render,
                                  .stored_bytes = compressed_stored_bytes,
                                  .reader_close = compressed_reader_close,
                                  .describe = describe_image,
                                  .set_close = close_set};

/* ---- the listing ---- */

static bool is_folder(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

static int find_root(char root[PATH_MAX], const char *path, data_split split)
{
    CHECK(is_folder(path), ERROR_FILE, "%s: not a folder", path);
    for (int i = 0; class_folders_splits[split][i]; i++) {
        CHECK(snprintf(root, PATH_MAX, "%s/%s", path, class_folders_splits[split][i]) < PATH_MAX, ERROR_FILE,
              "%s: the path is too long", path);
        if (is_folder(root))
            return 0;
    }
    return error_set(ERROR_FILE, "%s: holds no folder \"%s\" with a folder of images per class in it", path,
                     class_folders_splits[split][0]);
}

/* What a split has, besides its arrays. */
typedef struct {
    int64_t images;
    int32_t classes;
    uint64_t class_bytes, text_bytes;
} listing_sizes;

static listing_sizes sizes_of(const class_folders *listing)
{
    listing_sizes sizes = {.images = listing->images, .classes = listing->classes, .text_bytes = listing->text_bytes};
    for (int32_t label = 0; label < listing->classes; label++)
        sizes.class_bytes += strlen(listing->class_ids[label]) + 1;
    return sizes;
}

static int scan(class_folders *listing, listing_sizes *sizes, const char *root)
{
    TRY(class_folders_scan(listing, root));
    *sizes = sizes_of(listing);
    CHECK(listing->images <= INT32_MAX, ERROR_DATA, "%s: %lld images, at most %d can be used", root,
          (long long)listing->images, INT32_MAX);
    return 0;
}

static char *join_classes(const class_folders *listing, size_t bytes)
{
    char *text = malloc(bytes), *at = text;
    for (int32_t label = 0; text && label < listing->classes; label++)
        at = stpcpy(at, listing->class_ids[label]) + 1;
    return text;
}

static int split_classes(image_set *set, int32_t classes, const char *text)
{
    TRY(image_set_allocate_names(set, classes));
    for (int32_t label = 0; label < classes; label++, text += strlen(text) + 1)
        TRY(image_set_name_class(set, label, text));
    return 0;
}

static int allocate(image_set *set, folders_data *data, const listing_sizes *sizes, char **classes)
{
    set->labels = malloc((size_t)sizes->images * sizeof *set->labels);
    data->paths = malloc((size_t)sizes->images * sizeof *data->paths);
    data->text = malloc(sizes->text_bytes);
    if (!*classes)
        *classes = malloc(sizes->class_bytes);
    CHECK(set->labels && data->paths && data->text && *classes, ERROR_MEMORY, "no memory for the paths of %lld images",
          (long long)sizes->images);
    return 0;
}

static void copy_listing(image_set *set, folders_data *data, const class_folders *listing)
{
    memcpy(set->labels, listing->labels, (size_t)listing->images * sizeof *set->labels);
    memcpy(data->paths, listing->paths, (size_t)listing->images * sizeof *data->paths);
    memcpy(data->text, listing->text, listing->text_bytes);
}

static int hand_out(const source_ranks *ranks, image_set *set, folders_data *data, const listing_sizes *sizes,
                    char *classes)
{
    if (!ranks)
        return 0;
    TRY(ranks->broadcast(ranks->context, set->labels, (size_t)sizes->images * sizeof *set->labels));
    TRY(ranks->broadcast(ranks->context, data->paths, (size_t)sizes->images * sizeof *data->paths));
    TRY(ranks->broadcast(ranks->context, data->text, sizes->text_bytes));
    return ranks->broadcast(ranks->context, classes, sizes->class_bytes);
}

static int agree(const source_ranks *ranks, int status)
{
    return ranks ? ranks->agree(ranks->context, status) : status;
}

/* The first rank's listing becomes everybody's. */
static int share_listing(image_set *set, folders_data *data, class_folders *listing, listing_sizes *sizes,
                         char **classes, const source_ranks *ranks)
{
    const bool first = !ranks || ranks->first;
    TRY(agree(ranks, first ? scan(listing, sizes, data->root) : 0));
    if (ranks)
        TRY(ranks->broadcast(ranks->context, sizes, sizeof *sizes));
    if (first)
        *classes = join_classes(listing, sizes->class_bytes);
    TRY(agree(ranks, allocate(set, data, sizes, classes)));
    if (first)
        copy_listing(set, data, listing);
    return hand_out(ranks, set, data, sizes, *classes);
}

/* The first images would be of the first classes alone. */
static void limit_images(image_set *set, folders_data *data, int32_t limit)
{
    if (limit == 0 || limit >= set->images)
        return;
    for (int32_t i = 0; i < limit; i++) {
        const int64_t from = source_spread(i, limit, set->images);
        set->labels[i] = set->labels[from];
        data->paths[i] = data->paths[from];
    }
    set->images = limit;
}

/* Of the paths in the order of the images: `text` has them as the folders listed them, which is the file system's. */
static uint64_t checksum(const folders_data *data, int64_t images)
{
    uint64_t sum = 0;
    for (int64_t i = 0; i < images; i++) {
        const char *path = data->text + data->paths[i];
        sum = XXH3_64bits_withSeed(path, strlen(path), sum);
    }
    return sum;
}

static int fill(image_set *set, folders_data *data, const source_request *request)
{
    class_folders listing = {0};
    listing_sizes sizes = {0};
    char *classes = NULL;
    TRY(agree(request->ranks, find_root(data->root, request->path, request->split)));
    int status = share_listing(set, data, &listing, &sizes, &classes, request->ranks);
    class_folders_close(&listing);
    if (status == 0) {
        set->images = (int32_t)sizes.images;
        set->content = checksum(data, sizes.images);
        status = split_classes(set, sizes.classes, classes);
    }
    free(classes);
    if (status == 0)
        limit_images(set, data, request->limit);
    return status;
}

static int open_folders(image_set *set, const data_source *source, const source_request *request)
{
    (void)source;
    folders_data *data = calloc(1, sizeof *data);
    CHECK(data, ERROR_MEMORY, "no memory for a data set");
    data->fetch = fetch;
    set->ops = &ops;
    set->own = data;
    set->height = set->width = SIZE_VARIES;
    int status = fill(set, data, request);
    if (status < 0)
        image_set_close(set);
    return status;
}

/* An evaluation does without training images. */
static int find_any(char root[PATH_MAX], const char *path)
{
    if (find_root(root, path, SPLIT_TRAIN) == 0 || find_root(root, path, SPLIT_TEST) == 0)
        return 0;
    return find_root(root, path, SPLIT_TRAIN);
}

static int describe(source_facts *facts, const char *path)
{
    char root[PATH_MAX];
    class_folders listing;
    TRY(find_any(root, path));
    TRY(class_folders_list(&listing, root));
    facts->classes = listing.classes;
    class_folders_close(&listing);
    return 0;
}

static bool holds(const data_source *source, const char *folder, const char *path)
{
    char whole[PATH_MAX], root[PATH_MAX];
    (void)source;
    if (!realpath(path, whole) || !realpath(folder, root))
        return false;
    const size_t length = strlen(root);
    return strncmp(whole, root, length) == 0 && whole[length] == '/';
}

const source_driver folders_driver = {.open = open_folders, .describe = describe, .holds = holds};
