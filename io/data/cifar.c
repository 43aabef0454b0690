/* CIFAR's official binary files: records of one label byte (CIFAR-10) or two (CIFAR-100: coarse, fine) and 3072
 * bytes of planar RGB. Owns nothing but the open file; every size is checked before a byte is used. One thread a set.
 */
#include "io/data/dataset.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/file/file_kind.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIDE = 32, PLANE = SIDE * SIDE, MAX_FILES = 5 };

typedef struct {
    const char *name, *subfolder;
    int classes, label_bytes;            /* the last label byte is the one used */
    const char *files[2][MAX_FILES + 1]; /* [split], ending in NULL */
} cifar_layout;

static const cifar_layout cifar10 = {
    "CIFAR-10",
    "cifar-10-batches-bin",
    10,
    1,
    {{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
     {"test_batch.bin"}},
};
static const cifar_layout cifar100 = {"CIFAR-100", "cifar-100-binary", 100, 2, {{"train.bin"}, {"test.bin"}}};

static size_t record_bytes(const cifar_layout *layout)
{
    return (size_t)layout->label_bytes + DATASET_CHANNELS * PLANE;
}

static int join_path(char *out, const char *folder, const char *subfolder, const char *file)
{
    int length = snprintf(out, PATH_MAX, "%s%s%s/%s", folder, *subfolder ? "/" : "", subfolder, file);
    CHECK(length > 0 && length < PATH_MAX, ERROR_FILE, "the path of %s in %.100s... is too long", file, folder);
    return 0;
}

/* Says in which of the two places the files are: "" or the official subfolder. */
static int find_subfolder(const cifar_layout *layout, const char *folder, const char *const *files, const char **found)
{
    const char *candidates[2] = {"", layout->subfolder};
    char path[PATH_MAX];
    for (int i = 0; i < 2; i++) {
        TRY(join_path(path, folder, candidates[i], files[0]));
        if (access(path, F_OK) == 0) {
            *found = candidates[i];
            return 0;
        }
    }
    return error_set(ERROR_FILE, "no %s data in %s: looked for %s/%s and %s/%s/%s", layout->name, folder, folder,
                     files[0], folder, layout->subfolder, files[0]);
}

/* Records in one file, or a negative code. */
static int64_t count_records(const cifar_layout *layout, const char *path)
{
    struct stat info;
    CHECK(stat(path, &info) == 0, ERROR_FILE, "%s: %s (the binary version of %s has it)", path, strerror(errno),
          layout->name);
    CHECK(S_ISREG(info.st_mode), ERROR_FILE, "%s: not a regular file", path);
    size_t record = record_bytes(layout), bytes = (size_t)info.st_size;
    CHECK(bytes > 0, ERROR_DATA, "%s: holds no records (0 bytes); expected a multiple of %zu bytes", path, record);
    if (bytes % record != 0)
        TRY(file_kind_check(path, EXPECT_RECORDS));
    CHECK(bytes % record == 0, ERROR_DATA,
          "%s: %zu bytes is not a multiple of the %s record of %zu bytes; it breaks off in record %zu at offset %zu",
          path, bytes, layout->name, record, bytes / record, bytes - bytes % record);
    return (int64_t)(bytes / record);
}

static void planar_to_nhwc(const uint8_t *planar, uint8_t *pixels)
{
    for (int i = 0; i < PLANE; i++)
        for (int c = 0; c < DATASET_CHANNELS; c++)
            pixels[i * DATASET_CHANNELS + c] = planar[c * PLANE + i];
}

/* Appends records to the set until it is full or the file ends; `*filled` is the running count. */
static int read_file(const cifar_layout *layout, const char *path, int64_t records, dataset *set, int32_t *filled)
{
    FILE *file = fopen(path, "rb");
    CHECK(file, ERROR_FILE, "%s: cannot open: %s", path, strerror(errno));
    uint8_t record[2 + DATASET_CHANNELS * PLANE];
    size_t bytes = record_bytes(layout);
    int status = 0;
    for (int64_t k = 0; k < records && *filled < set->images; k++, (*filled)++) {
        if (fread(record, 1, bytes, file) != bytes) {
            status = error_set(ERROR_FILE, "%s: reading record %lld failed: %s", path, (long long)k,
                               ferror(file) ? strerror(errno) : "the file became shorter while it was read");
            break;
        }
        int label = record[layout->label_bytes - 1];
        if (label >= layout->classes) {
            status = error_set(ERROR_DATA, "%s: record %lld (offset %lld) has label %d; %s labels are 0 to %d", path,
                               (long long)k, (long long)k * (long long)bytes, label, layout->name, layout->classes - 1);
            break;
        }
        set->labels[*filled] = label;
        planar_to_nhwc(record + layout->label_bytes, set->pixels + (size_t)*filled * dataset_picture_bytes(set));
    }
    fclose(file);
    return status;
}

int dataset_open_cifar(dataset *set, int kind, const char *folder, dataset_split split, int32_t limit)
{
    memset(set, 0, sizeof *set);
    CHECK(kind == 10 || kind == 100, ERROR_SETTINGS, "there is no CIFAR-%d, only CIFAR-10 and CIFAR-100", kind);
    CHECK(limit >= 0, ERROR_SETTINGS, "the limit of %d pictures is negative", limit);
    const cifar_layout *layout = kind == 10 ? &cifar10 : &cifar100;
    const char *const *files = layout->files[split == DATASET_TEST];
    const char *subfolder = "";
    TRY(find_subfolder(layout, folder, files, &subfolder));

    char path[PATH_MAX];
    int64_t records[MAX_FILES] = {0}, total = 0;
    for (int i = 0; files[i]; i++) {
        TRY(join_path(path, folder, subfolder, files[i]));
        records[i] = count_records(layout, path);
        if (records[i] < 0)
            return (int)records[i];
        total += records[i];
    }
    if (limit > 0 && limit < total)
        total = limit;
    CHECK(total <= INT32_MAX, ERROR_DATA, "%s: %lld pictures are too many", folder, (long long)total);

    TRY(dataset_allocate(set, (int32_t)total, SIDE, SIDE, layout->classes));
    const float mean[] = {0.4914F, 0.4822F, 0.4465F}, std[] = {0.2023F, 0.1994F, 0.2010F};
    memcpy(set->mean, mean, sizeof mean);
    memcpy(set->std, std, sizeof std);
    int32_t filled = 0;
    int status = 0;
    for (int i = 0; files[i] && filled < set->images && status == 0; i++) {
        status = join_path(path, folder, subfolder, files[i]);
        if (status == 0)
            status = read_file(layout, path, records[i], set, &filled);
    }
    if (status < 0)
        dataset_close(set);
    return status;
}

bool dataset_cifar_holds(int kind, const char *folder, const char *path)
{
    const cifar_layout *layout = kind == 10 ? &cifar10 : &cifar100;
    const char *subfolders[2] = {"", layout->subfolder};
    char own[PATH_MAX];
    for (int i = 0; i < 2 * 2; i++)
        for (const char *const *file = layout->files[i / 2]; *file; file++)
            if (join_path(own, folder, subfolders[i % 2], *file) == 0 && is_same_file(own, path))
                return true;
    return false;
}
