/* Shards as a data set. Owns the open split; everything else is io/shard/shard.h's. Any thread, once open. */
#include "io/data/drivers.h"

#include "base/error.h"
#include "io/data/compressed.h"
#include "io/shard/shard.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    compressed_fetch fetch; /* comes first, see io/data/compressed.h */
    shard_set *shards;
    int32_t *stored; /* [images], where an image of the set is in its split */
} shards_data;

static int fetch(const image_set *set, int32_t index, byte_buffer *buffer)
{
    const shards_data *data = set->own;
    const int32_t stored = data->stored[index];
    const uint32_t size = shard_set_image(data->shards, stored)->size;
    TRY(byte_buffer_reserve(buffer, size));
    buffer->size = size;
    return shard_set_read(data->shards, stored, buffer->bytes);
}

static void describe_image(const image_set *set, int32_t index, char *text, size_t bytes)
{
    const shards_data *data = set->own;
    char name[SHARD_NAME_BYTES] = "";
    const int32_t stored = data->stored[index];
    const char *path = shard_set_path(data->shards, shard_set_image(data->shards, stored)->shard);
    const error_copy before = error_save();
    if (shard_set_name(data->shards, stored, name) < 0)
        snprintf(name, sizeof name, "image %d of the split", stored);
    error_restore(&before);
    snprintf(text, bytes, "%s: %s", path, name);
}

static void close_set(image_set *set)
{
    shards_data *data = set->own;
    if (data) {
        shard_set_close(&data->shards);
        free(data->stored);
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

static int copy_classes(image_set *set, const shard_manifest *manifest)
{
    TRY(image_set_allocate_names(set, manifest->classes));
    for (int32_t label = 0; label < set->classes; label++)
        TRY(image_set_name_class(set, label, manifest->class_ids[label]));
    return 0;
}

/* The images of the set by where they are stored: a walk over the split, with the set's own numbers. */
static int order_storage(image_set *set, const shards_data *data)
{
    const size_t all = (size_t)shard_set_images(data->shards);
    int32_t *number = malloc(all * sizeof *number); /* of a stored image in the set; -1: not in it */
    set->storage = malloc((size_t)set->images * sizeof *set->storage);
    if (!number || !set->storage) {
        free(number);
        return error_set(ERROR_MEMORY, "no memory for the order of %d images", set->images);
    }
    memset(number, -1, all * sizeof *number);
    for (int32_t i = 0; i < set->images; i++)
        number[data->stored[i]] = i;
    int32_t *next = set->storage;
    for (size_t i = 0; i < all; i++)
        if (number[i] >= 0)
            *next++ = number[i];
    free(number);
    return 0;
}

/* The set goes by the order of the sources, where the classes follow one another: a limit takes images of all of them.
 */
static int take_images(image_set *set, shards_data *data, int64_t all)
{
    set->labels = malloc((size_t)set->images * sizeof *set->labels);
    data->stored = malloc((size_t)set->images * sizeof *data->stored);
    CHECK(set->labels && data->stored, ERROR_MEMORY, "no memory for the labels of %d images", set->images);
    for (int32_t i = 0; i < set->images; i++) {
        data->stored[i] = (int32_t)shard_set_ordered(data->shards, source_spread(i, set->images, all));
        set->labels[i] = shard_set_image(data->shards, data->stored[i])->label;
    }
    return order_storage(set, data);
}

/* The data set's id stands for the bytes of all images: 32 hexadecimal digits, of which 16 are enough here. */
static uint64_t content_of(const shard_manifest *manifest)
{
    char digits[17];
    snprintf(digits, sizeof digits, "%.16s", manifest->id);
    return strtoull(digits, NULL, 16);
}

static int fill(image_set *set, shards_data *data, const char *path, const source_request *request)
{
    TRY(shard_set_open(&data->shards, path, request->split == SPLIT_TRAIN ? 0 : 1));
    const int64_t images = shard_set_images(data->shards);
    CHECK(images <= INT32_MAX, ERROR_DATA, "%s: %lld images, at most %d can be used", path, (long long)images,
          INT32_MAX);
    set->images = request->limit > 0 && request->limit < images ? request->limit : (int32_t)images;
    set->height = set->width = SIZE_VARIES;
    set->content = content_of(shard_set_manifest(data->shards));
    TRY(copy_classes(set, shard_set_manifest(data->shards)));
    return take_images(set, data, images);
}

static int open_shards(image_set *set, const data_source *source, const source_request *request)
{
    (void)source;
    shards_data *data = calloc(1, sizeof *data);
    CHECK(data, ERROR_MEMORY, "no memory for a data set");
    data->fetch = fetch;
    set->ops = &ops;
    set->own = data;
    int status = fill(set, data, request->path, request);
    if (status < 0)
        image_set_close(set);
    return status;
}

static int describe(source_facts *facts, const char *path)
{
    shard_manifest manifest;
    TRY(shard_manifest_read(&manifest, path));
    facts->classes = manifest.classes;
    facts->images[SPLIT_TRAIN] = manifest.images[0];
    facts->images[SPLIT_TEST] = manifest.images[1];
    shard_manifest_close(&manifest);
    return 0;
}

static bool holds(const data_source *source, const char *folder, const char *path)
{
    (void)source;
    return shard_holds(folder, path);
}

const source_driver shards_driver = {.open = open_shards, .describe = describe, .in_shards = true, .holds = holds};
