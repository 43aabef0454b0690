/* Owns a split that is open. Invariant: it does not change once it is open, so that any thread may read. */
#include "io/shard/shard.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/shard/shard_file.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct shard_set {
    manifest manifest;
    int split;
    int32_t shards;
    shard_file *files;   /* [shards], without lists of images */
    int64_t *first;      /* [shards + 1], a shard's first image in the split */
    shard_image *images; /* [first[shards]] */
    int64_t *ordered;    /* [first[shards]], images by position */
};

/* All that are missing in one message, since they may be many. */
static int check_presence(const shard_set *s, const char *folder)
{
    enum { NAMED = 5 };
    char path[SHARD_PATH_BYTES], name[SHARD_FILE_BYTES], names[NAMED * (SHARD_FILE_BYTES + 2)] = "";
    int32_t missing = 0;
    for (int32_t i = 0; i < s->shards; i++) {
        TRY(shard_path_join(path, folder, shard_file_name(s->split, i, name)));
        if (access(path, F_OK) == 0 || errno != ENOENT)
            continue;
        if (missing++ < NAMED)
            snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", missing > 1 ? ", " : "", name);
    }
    CHECK(missing == 0, ERROR_FILE, "%s: %" PRId32 " of %" PRId32 " shards of split '%s' are missing: %s%s", folder,
          missing, s->shards, shard_split_name(s->split), names, missing > NAMED ? ", ..." : "");
    return 0;
}

static int open_shard(shard_set *s, const char *folder, int32_t shard)
{
    shard_file *file = &s->files[shard];
    TRY(shard_file_open(file, &s->manifest, folder, s->split, shard));
    memcpy(s->images + s->first[shard], file->images, (size_t)file->record.images * sizeof *file->images);
    free(file->images);
    file->images = s->images + s->first[shard];
    return 0;
}

static int allocate(shard_set *s, const char *folder)
{
    s->files = calloc((size_t)s->shards, sizeof *s->files);
    s->first = calloc((size_t)s->shards + 1, sizeof *s->first);
    s->images = malloc((size_t)s->manifest.set.images[s->split] * sizeof *s->images);
    CHECK(s->files && s->first && s->images, ERROR_MEMORY, "%s: no memory for a list of %" PRId64 " images", folder,
          s->manifest.set.images[s->split]);
    for (int32_t i = 0; i < s->shards; i++)
        s->first[i + 1] = s->first[i] + s->manifest.records[s->split][i].images;
    return 0;
}

static int by_position(const void *a, const void *b, void *images)
{
    const uint64_t x = ((const shard_image *)images)[*(const int64_t *)a].position,
                   y = ((const shard_image *)images)[*(const int64_t *)b].position;
    return (x > y) - (x < y);
}

static int order_images(shard_set *s, const char *folder)
{
    const int64_t images = s->first[s->shards];
    s->ordered = malloc((size_t)images * sizeof *s->ordered);
    CHECK(s->ordered, ERROR_MEMORY, "%s: no memory for the order of %" PRId64 " images", folder, images);
    for (int64_t i = 0; i < images; i++)
        s->ordered[i] = i;
    qsort_r(s->ordered, (size_t)images, sizeof *s->ordered, by_position, s->images);
    for (int64_t i = 1; i < images; i++)
        CHECK(s->images[s->ordered[i - 1]].position != s->images[s->ordered[i]].position, ERROR_DATA,
              "%s: images %" PRId64 " and %" PRId64 " of split '%s' have the same position, %" PRIu64, folder,
              s->ordered[i - 1], s->ordered[i], shard_split_name(s->split), s->images[s->ordered[i]].position);
    return 0;
}

static int open_split(shard_set *s, const char *folder)
{
    TRY(manifest_read(&s->manifest, folder));
    s->shards = s->manifest.set.shards[s->split];
    CHECK(s->shards > 0, ERROR_DATA, "%s: the data set has no images in split '%s'", folder,
          shard_split_name(s->split));
    TRY(check_presence(s, folder));
    TRY(allocate(s, folder));
    for (int32_t i = 0; i < s->shards; i++)
        TRY(open_shard(s, folder, i));
    return order_images(s, folder);
}

int shard_set_open(shard_set **set, const char *folder, int split)
{
    *set = calloc(1, sizeof **set);
    CHECK(*set, ERROR_MEMORY, "%s: no memory to read it", folder);
    (*set)->split = split;
    int status = open_split(*set, folder);
    if (status < 0)
        shard_set_close(set);
    return status;
}

void shard_set_close(shard_set **set)
{
    shard_set *s = *set;
    *set = NULL;
    if (!s)
        return;
    for (int32_t i = 0; s->files && i < s->shards; i++) {
        s->files[i].images = NULL; /* the set's own */
        shard_file_close(&s->files[i]);
    }
    free(s->files);
    free(s->first);
    free(s->images);
    free(s->ordered);
    manifest_close(&s->manifest);
    free(s);
}

int64_t shard_set_images(const shard_set *set)
{
    return set->first[set->shards];
}

const shard_image *shard_set_image(const shard_set *set, int64_t index)
{
    return &set->images[index];
}

int64_t shard_set_ordered(const shard_set *set, int64_t place)
{
    return set->ordered[place];
}

const shard_manifest *shard_set_manifest(const shard_set *set)
{
    return &set->manifest.set;
}

int shard_set_read(const shard_set *set, int64_t index, void *bytes)
{
    const int32_t shard = set->images[index].shard;
    return shard_file_read(&set->files[shard], index - set->first[shard], bytes);
}

int shard_set_name(const shard_set *set, int64_t index, char name[SHARD_NAME_BYTES])
{
    const shard_file *file = &set->files[set->images[index].shard];
    return shard_file_text(file, &file->names, index - set->first[set->images[index].shard], name, SHARD_NAME_BYTES);
}

const char *shard_set_path(const shard_set *set, int32_t shard)
{
    return set->files[shard].path;
}

static bool is_shard_name(const char *name)
{
    int split = strncmp(name, "train-", 6) == 0 ? 0 : 1;
    const char *digits = name + (split == 0 ? 6 : 4);
    if (split == 1 && strncmp(name, "val-", 4) != 0)
        return false;
    const size_t count = strspn(digits, "0123456789");
    return count == 5 && strcmp(digits + count, ".h5") == 0;
}

bool shard_holds(const char *folder, const char *path)
{
    char real[PATH_MAX], own[SHARD_PATH_BYTES];
    if (!realpath(path, real))
        return false;
    const char *slash = strrchr(real, '/'), *name = slash ? slash + 1 : real;
    if (strcmp(name, SHARD_MANIFEST_NAME) != 0 && !is_shard_name(name))
        return false;
    return shard_path_join(own, folder, name) == 0 && is_same_file(own, real);
}
