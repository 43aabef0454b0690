/* Writes the made-up set in the CIFAR-10 binary layout. Owns the file it writes; files appear whole or not at all. */
#include "io/synth.h"

#include "base/error.h"
#include "io/atomic_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRAIN_FILES = 5 };

/* What one file holds: pictures `first` to `first + count - 1` of a part; count 0: the class names. */
typedef struct {
    uint64_t seed;
    uint32_t part, first, count;
} content;

static bool write_pictures(FILE *file, const content *c)
{
    uint8_t record[1 + SYNTH_PICTURE_BYTES];
    for (uint32_t i = 0; i < c->count; i++) {
        record[0] = (uint8_t)((c->first + i) % SYNTH_CLASSES);
        synth_draw(c->seed, c->part, c->first + i, record + 1);
        if (fwrite(record, 1, sizeof record, file) != sizeof record)
            return false;
    }
    return true;
}

static bool write_names(FILE *file)
{
    for (int32_t i = 0; i < SYNTH_CLASSES; i++)
        if (fprintf(file, "%s\n", synth_class_name(i)) < 0)
            return false;
    return true;
}

static int write_temp(const char *temp, const content *c)
{
    FILE *file = fopen(temp, "wb");
    CHECK(file, ERROR_FILE, "%s: cannot create: %s", temp, strerror(errno));
    bool written = c->count > 0 ? write_pictures(file, c) : write_names(file);
    int reason = errno;
    if (fclose(file) != 0 && written) {
        written = false;
        reason = errno;
    }
    if (written)
        return 0;
    unlink(temp);
    return error_set(ERROR_FILE, "%s: cannot write: %s", temp, strerror(reason));
}

static int write_file(const char *folder, const char *name, content c)
{
    char *path = NULL;
    CHECK(asprintf(&path, "%s/%s", folder, name) >= 0, ERROR_MEMORY, "no memory for a path");
    char *temp = atomic_file_temp(path);
    int status = temp ? write_temp(temp, &c) : ERROR_MEMORY;
    if (status == 0)
        status = atomic_file_replace(temp, path);
    free(temp);
    free(path);
    return status;
}

int synth_write(const char *folder, int32_t train_images, int32_t test_images, uint64_t seed)
{
    CHECK(train_images >= TRAIN_FILES && test_images >= 1, ERROR_SETTINGS,
          "%d training and %d test pictures: expected at least %d (one a file) and 1", train_images, test_images,
          TRAIN_FILES);
    TRY(make_folders(folder));
    uint32_t first = 0, all = (uint32_t)train_images;
    for (uint32_t i = 0; i < TRAIN_FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%u.bin", i + 1);
        content c = {.seed = seed, .part = 0, .first = first, .count = all / TRAIN_FILES + (i < all % TRAIN_FILES)};
        TRY(write_file(folder, name, c));
        first += c.count;
    }
    TRY(write_file(folder, "test_batch.bin", (content){.seed = seed, .part = 1, .count = (uint32_t)test_images}));
    return write_file(folder, "batches.meta.txt", (content){.seed = seed});
}
