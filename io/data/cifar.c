/* CIFAR's official binary files: records of one label byte (CIFAR-10) or two (CIFAR-100: coarse, fine) and 3072
 * bytes of planar RGB. Owns nothing but the open file; every size is checked before a byte is used. One thread per set.
 */
#include "io/data/drivers.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/text.h"
#include "io/file/file_kind.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIDE = 32, PLANE = SIDE * SIDE, MAX_FILES = 5, NAME_BYTES = 64 };

typedef struct {
    const char *source, *subfolder, *names;   /* names: of the file with the classes' names */
    int label_bytes;                          /* the last label byte is the one used */
    const char *files[SPLITS][MAX_FILES + 1]; /* ending in NULL */
} cifar_layout;

static const cifar_layout layouts[] = {
    {.source = "cifar10",
     .subfolder = "cifar-10-batches-bin",
     .names = "batches.meta.txt",
     .label_bytes = 1,
     .files = {{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
               {"test_batch.bin"}}},
    {.source = "cifar100",
     .subfolder = "cifar-100-binary",
     .names = "fine_label_names.txt",
     .label_bytes = 2,
     .files = {{"train.bin"}, {"test.bin"}}},
};

static const cifar_layout *layout_of(const data_source *source)
{
    return strcmp(source->name, layouts[0].source) == 0 ? &layouts[0] : &layouts[1];
}

/* Files of one split, in a folder. */
typedef struct {
    const data_source *source;
    const cifar_layout *layout;
    const char *folder, *subfolder; /* subfolder: "", or the official one */
    const char *const *files;
    int64_t records[MAX_FILES], total;
} cifar_files;

static size_t record_bytes(const cifar_layout *layout)
{
    return (size_t)layout->label_bytes + IMAGE_CHANNELS * PLANE;
}

static int join_path(char *out, const char *folder, const char *subfolder, const char *file)
{
    int length = snprintf(out, PATH_MAX, "%s%s%s/%s", folder, *subfolder ? "/" : "", subfolder, file);
    CHECK(length > 0 && length < PATH_MAX, ERROR_FILE, "the path of %s in %.100s... is too long", file, folder);
    return 0;
}

/* Says in which of the two places the files are. */
static int find_subfolder(cifar_files *f)
{
    const char *const candidates[2] = {"", f->layout->subfolder};
    char path[PATH_MAX];
    for (int i = 0; i < 2; i++) {
        f->subfolder = candidates[i];
        TRY(join_path(path, f->folder, f->subfolder, f->files[0]));
        if (access(path, F_OK) == 0)
            return 0;
    }
    return error_set(ERROR_FILE, "no %s data in %s: looked for %s/%s and %s/%s/%s", f->source->title, f->folder,
                     f->folder, f->files[0], f->folder, f->layout->subfolder, f->files[0]);
}

/* Records in one file, or a negative code. */
static int64_t count_records(const cifar_files *f, const char *path)
{
    struct stat info;
    const char *title = f->source->title;
    CHECK(stat(path, &info) == 0, ERROR_FILE, "%s: %s (the binary version of %s has it)", path, strerror(errno), title);
    CHECK(S_ISREG(info.st_mode), ERROR_FILE, "%s: not a regular file", path);
    size_t record = record_bytes(f->layout), bytes = (size_t)info.st_size;
    CHECK(bytes > 0, ERROR_DATA, "%s: holds no records (0 bytes); expected a multiple of %zu bytes", path, record);
    if (bytes % record != 0)
        TRY(file_kind_check(path, EXPECT_RECORDS));
    CHECK(bytes % record == 0, ERROR_DATA,
          "%s: %zu bytes is not a multiple of the %s record of %zu bytes; it breaks off in record %zu at offset %zu",
          path, bytes, title, record, bytes / record, bytes - bytes % record);
    return (int64_t)(bytes / record);
}

static int count_all(cifar_files *f)
{
    char path[PATH_MAX];
    for (int i = 0; f->files[i]; i++) {
        TRY(join_path(path, f->folder, f->subfolder, f->files[i]));
        f->records[i] = count_records(f, path);
        if (f->records[i] < 0)
            return (int)f->records[i];
        f->total += f->records[i];
    }
    return 0;
}

static void planar_to_nhwc(const uint8_t *planar, uint8_t *pixels)
{
    for (int i = 0; i < PLANE; i++)
        for (int c = 0; c < IMAGE_CHANNELS; c++)
            pixels[i * IMAGE_CHANNELS + c] = planar[c * PLANE + i];
}

static int take_record(const cifar_files *f, const char *path, int64_t k, const uint8_t *record, image_set *set,
                       int32_t index)
{
    const int label = record[f->layout->label_bytes - 1];
    CHECK(label < set->classes, ERROR_DATA, "%s: record %lld (offset %lld) has label %d; %s labels are 0 to %d", path,
          (long long)k, (long long)k * (long long)record_bytes(f->layout), label, f->source->title, set->classes - 1);
    set->labels[index] = label;
    planar_to_nhwc(record + f->layout->label_bytes, set->pixels + (size_t)index * image_bytes(set));
    return 0;
}

/* Appends records to the set until it is full or the file ends; `*filled` is the running count. */
static int read_file(const cifar_files *f, const char *path, int64_t records, image_set *set, int32_t *filled)
{
    FILE *file = fopen(path, "rb");
    CHECK(file, ERROR_FILE, "%s: cannot open: %s", path, strerror(errno));
    uint8_t record[2 + IMAGE_CHANNELS * PLANE];
    size_t bytes = record_bytes(f->layout);
    int status = 0;
    for (int64_t k = 0; k < records && *filled < set->images && status == 0; k++) {
        if (fread(record, 1, bytes, file) == bytes)
            status = take_record(f, path, k, record, set, (*filled)++);
        else
            status = error_set(ERROR_FILE, "%s: reading record %lld failed: %s", path, (long long)k,
                               ferror(file) ? strerror(errno) : "the file became shorter while it was read");
    }
    fclose(file);
    return status;
}

static int read_all(const cifar_files *f, image_set *set)
{
    char path[PATH_MAX];
    int32_t filled = 0;
    for (int i = 0; f->files[i] && filled < set->images; i++) {
        TRY(join_path(path, f->folder, f->subfolder, f->files[i]));
        TRY(read_file(f, path, f->records[i], set, &filled));
    }
    return 0;
}

static void free_names(char **names, int32_t count)
{
    for (int32_t i = 0; names && i < count; i++)
        free(names[i]);
    free(names);
}

/* One name per line; NULL where these are not as many as classes, since nothing depends on them. */
static char **read_names(FILE *file, int32_t classes)
{
    char line[NAME_BYTES];
    char **names = calloc((size_t)classes, sizeof *names);
    int32_t count = 0;
    while (names && fgets(line, sizeof line, file)) {
        const char *name = text_trim(line);
        if (!*name)
            continue;
        if (count < classes)
            names[count] = strdup(name);
        count++;
    }
    bool right = names && count == classes;
    for (int32_t i = 0; right && i < classes; i++)
        right = names[i] != NULL;
    if (right)
        return names;
    free_names(names, classes);
    return NULL;
}

static int find_names(const cifar_files *f, image_set *set)
{
    char path[PATH_MAX];
    TRY(join_path(path, f->folder, f->subfolder, f->layout->names));
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    set->class_names = read_names(file, set->classes);
    fclose(file);
    return 0;
}

/* Any number of records is accepted. The files are looked for in the folder, then in its official subfolder. */
static int open_cifar(image_set *set, const data_source *source, const source_request *request)
{
    cifar_files f = {.source = source, .layout = layout_of(source), .folder = request->path};
    f.files = f.layout->files[request->split];
    TRY(find_subfolder(&f));
    TRY(count_all(&f));
    const int64_t images = request->limit > 0 && request->limit < f.total ? request->limit : f.total;
    CHECK(images <= INT32_MAX, ERROR_DATA, "%s: %lld images are too many", f.folder, (long long)images);
    TRY(image_set_allocate(set, (int32_t)images, source->side, source->side, source->classes));
    int status = read_all(&f, set);
    if (status == 0)
        status = find_names(&f, set);
    if (status < 0)
        image_set_close(set);
    return status;
}

static bool holds_cifar(const data_source *source, const char *folder, const char *path)
{
    const cifar_layout *layout = layout_of(source);
    const char *subfolders[2] = {"", layout->subfolder};
    char own[PATH_MAX];
    for (int i = 0; i < 2 * SPLITS; i++)
        for (const char *const *file = layout->files[i / 2]; *file; file++)
            if (join_path(own, folder, subfolders[i % 2], *file) == 0 && is_same_file(own, path))
                return true;
    return false;
}

const source_driver cifar_driver = {.open = open_cifar, .holds = holds_cifar};
