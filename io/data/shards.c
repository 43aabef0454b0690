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
} shards_data;

static int fetch(const image_set *set, int32_t index, byte_buffer *buffer)
{
    const shards_data *data = set->own;
    TRY(byte_buffer_resize(buffer, shard_set_image(data->shards, index)->size));
    return shard_set_read(data->shards, index, buffer->bytes);
}

static void describe_image(const image_set *set, int32_t index, char *text, size_t bytes)
{
    const shards_data *data = set->own;
    char name[SHARD_NAME_BYTES] = "";
    const char *path = shard_set_path(data->shards, shard_set_image(data->shards, index)->shard);
    const error_copy before = error_save();
    if (shard_set_name(data->shards, index, name) < 0)
        snprintf(name, sizeof name, "image %d of the split", index);
    error_restore(&before);
    snprintf(text, bytes, "%s: %s", path, name);
}

static void close_set(image_set *set)
{
    shards_data *data = set->own;
    if (data)
        shard_set_close(&data->shards);
    free(data);
}

static const image_set_ops ops = {.reader_open = compressed_reader_open,
                                  .load = compressed_load,
                                  .render = compressed_render,
                                  .reader_close = compressed_reader_close,
                                  .describe = describe_image,
                                  .set_close = close_set};

static int copy_classes(image_set *set, const shard_manifest *manifest)
{
    set->class_names = calloc((size_t)manifest->classes, sizeof *set->class_names);
    CHECK(set->class_names, ERROR_MEMORY, "no memory for the names of %d classes", manifest->classes);
    set->classes = manifest->classes;
    for (int32_t label = 0; label < set->classes; label++) {
        set->class_names[label] = strdup(manifest->class_ids[label]);
        CHECK(set->class_names[label], ERROR_MEMORY, "no memory for the name of class %d", label);
    }
    return 0;
}

static int copy_labels(image_set *set, const shard_set *shards)
{
    set->labels = malloc((size_t)set->images * sizeof *set->labels);
    CHECK(set->labels, ERROR_MEMORY, "no memory for the labels of %d images", set->images);
    for (int32_t i = 0; i < set->images; i++)
        set->labels[i] = shard_set_image(shards, i)->label;
    return 0;
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
    return copy_labels(set, data->shards);
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
