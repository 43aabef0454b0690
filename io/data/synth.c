/* Writes the synthetic set in the CIFAR-10 binary layout. Owns the file it writes; files appear whole or not at all. */
#include "io/data/synth.h"

#include "base/atomic_file.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRAIN_FILES = 5 };

/* What one file holds: images `first` to `first + count - 1` of a split; count 0: the class names. */
typedef struct {
    uint64_t seed;
    uint32_t split, first, count;
} content;

static int write_images(atomic_file *file, const content *c)
{
    uint8_t record[1 + SYNTH_IMAGE_BYTES];
    for (uint32_t i = 0; i < c->count; i++) {
        record[0] = (uint8_t)((c->first + i) % SYNTH_CLASSES);
        synth_draw(c->seed, c->split, c->first + i, record + 1);
        TRY(atomic_file_write(file, record, sizeof record));
    }
    return 0;
}

static int write_names(atomic_file *file)
{
    for (int32_t i = 0; i < SYNTH_CLASSES; i++)
        fprintf(atomic_file_stream(file), "%s\n", synth_class_name(i));
    return 0;
}

static int write_whole(const char *path, const content *c)
{
    atomic_file *file;
    TRY(atomic_file_create(&file, path));
    int status = c->count > 0 ? write_images(file, c) : write_names(file);
    if (status == 0)
        status = atomic_file_commit(&file);
    atomic_file_abandon(&file);
    return status;
}

static int write_file(const char *folder, const char *name, content c)
{
    char *path = NULL;
    CHECK(asprintf(&path, "%s/%s", folder, name) >= 0, ERROR_MEMORY, "no memory for a path");
    int status = write_whole(path, &c);
    free(path);
    return status;
}

int synth_write(const char *folder, int32_t train_images, int32_t test_images, uint64_t seed)
{
    CHECK(train_images >= TRAIN_FILES && test_images >= 1, ERROR_SETTINGS,
          "%d training and %d test images: expected at least %d (one per file) and 1", train_images, test_images,
          TRAIN_FILES);
    TRY(make_folders(folder));
    uint32_t first = 0, all = (uint32_t)train_images;
    for (uint32_t i = 0; i < TRAIN_FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%u.bin", i + 1);
        content c = {.seed = seed, .split = 0, .first = first, .count = all / TRAIN_FILES + (i < all % TRAIN_FILES)};
        TRY(write_file(folder, name, c));
        first += c.count;
    }
    TRY(write_file(folder, "test_batch.bin", (content){.seed = seed, .split = 1, .count = (uint32_t)test_images}));
    return write_file(folder, "batches.meta.txt", (content){.seed = seed});
}
