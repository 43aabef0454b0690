/* An input that begins with a brace is read as a manifest, every other one as a shard: with a manifest that is right
 * for what it says of itself, so that all that follows is reached. */
#include "fuzz.h"
#include "input_file.h"
#include "io/shard/shard_file.h"
#include "shard_layout.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/dev/shm/teskd-folder-XXXXXX";
static const char *const names[] = {"train-00000.h5", SHARD_MANIFEST_NAME};

static void remove_folder(void)
{
    char path[SHARD_PATH_BYTES];
    for (int i = 0; i < 2; i++)
        if (shard_path_join(path, folder, names[i]) == 0)
            unlink(path);
    rmdir(folder);
}

/* A folder in which the input has a shard's name, and a manifest's. */
static void make_folder(const char *input)
{
    char path[SHARD_PATH_BYTES];
    static int made;
    if (made++)
        return;
    if (!mkdtemp(folder))
        abort();
    atexit(remove_folder);
    for (int i = 0; i < 2; i++)
        if (shard_path_join(path, folder, names[i]) < 0 || symlink(input, path) != 0)
            abort();
}

static void read_images(const shard_file *file)
{
    char name[SHARD_NAME_BYTES];
    for (int64_t i = 0; i < file->record.images; i++) {
        void *bytes = malloc(file->images[i].size);
        if (bytes)
            shard_file_read(file, i, bytes);
        free(bytes);
        shard_file_text(file, &file->names, i, name, sizeof name);
    }
    for (int64_t i = 0; i < file->left_out.count; i++)
        shard_file_text(file, &file->left_out, i, name, sizeof name);
}

static void read_shard(const char *input, size_t count)
{
    shard_layout layout;
    shard_record record;
    shard_file file;
    manifest m = {.set = {.classes = 2}};
    if (shard_layout_read(&layout, input, count) < 0 || layout.split != 0 || layout.shard != 0)
        return;
    m.set.shards[0] = (int32_t)layout.shards;
    memcpy(m.plan, layout.plan, sizeof m.plan);
    if (shard_file_open_unlisted(&file, &m, folder, 0, 0) < 0)
        return;
    read_images(&file);
    record = file.record;
    shard_file_close(&file);
    m.records[0] = &record;
    if (shard_file_open(&file, &m, folder, 0, 0) < 0)
        abort(); /* what it says of itself is right */
    shard_file_close(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    const char *input = input_file(bytes, count);
    manifest m;
    make_folder(input);
    if (count > 0 && bytes[0] == '{') {
        manifest_read(&m, folder);
        manifest_close(&m);
        return 0;
    }
    read_shard(input, count);
    return 0;
}
