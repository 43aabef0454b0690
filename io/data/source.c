/* Owns the table of sources, and the memory of sets that hold their images. Constant, and read-only once a set is open:
 * any thread. */
#include "io/data/source.h"

#include "base/error.h"
#include "io/data/drivers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define RGB(r, g, b)                                                                                                   \
    {                                                                                                                  \
        r, g, b                                                                                                        \
    }
#define SOURCE(id, called, n_classes, size, means, deviations, train, test, files, place, by)                          \
    {.name = #id,                                                                                                      \
     .title = called,                                                                                                  \
     .classes = n_classes,                                                                                             \
     .side = size,                                                                                                     \
     .mean = means,                                                                                                    \
     .std = deviations,                                                                                                \
     .images = {train, test},                                                                                          \
     .wants = files,                                                                                                   \
     .placement = place,                                                                                               \
     .driver = by},
static const data_source sources[] = {
#include "io/data/sources.def"
};
enum { SOURCES = sizeof sources / sizeof sources[0] };

const data_source *source_at(int index)
{
    return index >= 0 && index < SOURCES ? &sources[index] : NULL;
}

int source_find(const data_source **source, const char *name)
{
    char names[256] = "";
    for (int i = 0; i < SOURCES; i++) {
        *source = &sources[i];
        if (strcmp(sources[i].name, name) == 0)
            return 0;
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", sources[i].name);
    }
    return error_set(ERROR_SETTINGS, "data.kind: \"%.60s\" is not one of %s", name, names);
}

int source_describe(source_facts *facts, const data_source *source, const char *path)
{
    *facts = (source_facts){.classes = source->classes, .images = {source->images[0], source->images[1]}};
    return source->driver->describe && path[0] ? source->driver->describe(facts, path) : 0;
}

int source_open(image_set *set, const data_source *source, const source_request *request)
{
    memset(set, 0, sizeof *set);
    CHECK(request->limit >= 0, ERROR_SETTINGS, "the limit of %d images is negative", request->limit);
    TRY(source->driver->open(set, source, request));
    for (int c = 0; c < IMAGE_CHANNELS; c++) {
        set->mean[c] = (float)source->mean[c];
        set->std[c] = (float)source->std[c];
    }
    return 0;
}

bool source_holds(const data_source *source, const char *folder, const char *path)
{
    return source->driver->holds && source->driver->holds(source, folder, path);
}

int64_t source_expected_images(const data_source *source, data_split split, int64_t limit)
{
    const int64_t all = source->images[split];
    return limit > 0 && (limit < all || !source->wants) ? limit : all;
}

int image_set_allocate(image_set *set, int32_t images, int32_t height, int32_t width, int32_t classes)
{
    memset(set, 0, sizeof *set);
    CHECK(images > 0 && height > 0 && width > 0 && classes > 0, ERROR_SETTINGS,
          "a data set needs at least one image, row, column and class, not %d x %d x %d with %d classes", images,
          height, width, classes);
    set->images = images;
    set->height = height;
    set->width = width;
    set->classes = classes;
    set->pixels = malloc((size_t)images * image_bytes(set));
    set->labels = malloc((size_t)images * sizeof *set->labels);
    if (set->pixels && set->labels)
        return 0;
    image_set_close(set);
    return error_set(ERROR_MEMORY, "no memory for a data set of %d images of %d x %d", images, height, width);
}

int image_set_allocate_names(image_set *set, int32_t classes)
{
    set->class_names = calloc((size_t)classes, sizeof *set->class_names);
    CHECK(set->class_names, ERROR_MEMORY, "no memory for the names of %d classes", classes);
    set->classes = classes;
    return 0;
}

int image_set_name_class(image_set *set, int32_t label, const char *name)
{
    set->class_names[label] = strdup(name);
    CHECK(set->class_names[label], ERROR_MEMORY, "no memory for the name of class %d", label);
    return 0;
}

const char *image_set_class_name(const image_set *set, int32_t label)
{
    return set->class_names && label >= 0 && label < set->classes ? set->class_names[label] : NULL;
}

int image_set_class_list(const image_set *set, char **text)
{
    size_t bytes = 1;
    *text = NULL;
    if (!set->class_names)
        return 0;
    for (int32_t label = 0; label < set->classes; label++)
        bytes += strlen(set->class_names[label]) + 1;
    char *at = *text = malloc(bytes);
    CHECK(at, ERROR_MEMORY, "no memory for the names of %d classes", set->classes);
    *at = '\0';
    for (int32_t label = 0; label < set->classes; label++)
        at += sprintf(at, "%s%s", label ? "\n" : "", set->class_names[label]);
    return 0;
}

void image_set_describe(const image_set *set, int32_t index, char *text, size_t bytes)
{
    char name[768] = "";
    if (set->ops && set->ops->describe)
        set->ops->describe(set, index, name, sizeof name);
    if (name[0])
        snprintf(text, bytes, "image %d (%s)", index, name);
    else
        snprintf(text, bytes, "image %d", index);
}

void image_set_identity(const image_set *set, char text[IMAGE_SET_IDENTITY_BYTES])
{
    char size[32] = "varying size";
    XXH64_hash_t sum = XXH3_64bits(set->labels, (size_t)set->images * sizeof *set->labels);
    if (set->pixels)
        sum = XXH3_64bits_withSeed(set->pixels, (size_t)set->images * image_bytes(set), sum);
    else
        sum = XXH3_64bits_withSeed(&set->content, sizeof set->content, sum);
    if (set->height != SIZE_VARIES)
        snprintf(size, sizeof size, "%dx%d", set->width, set->height);
    snprintf(text, IMAGE_SET_IDENTITY_BYTES, "%d images of %s, %d classes, checksum %016llx", set->images, size,
             set->classes, (unsigned long long)sum);
}

void image_set_close(image_set *set)
{
    if (set->ops && set->ops->set_close)
        set->ops->set_close(set);
    for (int32_t label = 0; set->class_names && label < set->classes; label++)
        free(set->class_names[label]);
    free(set->class_names);
    free(set->pixels);
    free(set->labels);
    free(set->storage);
    memset(set, 0, sizeof *set);
}
