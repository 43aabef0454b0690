/* Lists a tar archive, the archives in it, and reads what they hold; the same bytes are taken for a meta.mat, too. */
#include "fuzz.h"
#include "input_file.h"
#include "io/shard/shard_file.h"
#include "meta_mat.h"
#include "tar_index.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const tar_range *range;
    int depth;
} listing;

static void read_member(const tar_range *range, const tar_member *member)
{
    void *bytes = malloc(member->size + 1);
    if (bytes && shard_pread(range->descriptor, range->path, member->offset, bytes, member->size) < 0)
        abort(); /* a member lies within its archive */
    free(bytes);
}

static int take(void *context, const tar_member *member)
{
    const listing *l = context;
    const tar_range inner = {.path = l->range->path,
                             .descriptor = l->range->descriptor,
                             .begin = member->offset,
                             .end = member->offset + member->size};
    listing inside = {.range = &inner, .depth = l->depth + 1};
    if (member->offset < l->range->begin || inner.end > l->range->end)
        abort();
    read_member(l->range, member);
    return l->depth == 0 && strstr(member->name, ".tar") ? tar_index(&inner, take, &inside) : 0;
}

static void read_tar(const char *path, size_t count)
{
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    const tar_range range = {.path = path, .descriptor = descriptor, .end = count};
    listing l = {.range = &range};
    uint8_t *member;
    size_t size;
    if (descriptor < 0)
        abort();
    tar_index(&range, take, &l);
    close(descriptor);
    if (tar_extract(path, "meta.mat", &member, &size) == 0)
        free(member);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    meta_class *classes;
    int32_t found;
    if (meta_mat_read(bytes, count, &classes, &found) == 0)
        free(classes);
    read_tar(input_file(bytes, count), count);
    return 0;
}
