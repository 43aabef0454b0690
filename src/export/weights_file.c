/* Owns the way from the names and numbers in another program's file to the network's. Invariant: `wrapper` is no longer
 * than any name that it is taken off. One thread. */
#include "export/weights_file.h"
#include "base/error.h"
#include "export/tensor_names.h"

#include <math.h>
#include <string.h>

/* Is the tensor outside of all wrappers? */
static bool is_bare(const char *name)
{
    return strcmp(name, TENSOR_NAMES_UPDATES) == 0;
}

const char *weights_file_name(const weights_file *f, int32_t index)
{
    const char *name = safetensors_at(f->file, index)->name;
    return is_bare(name) ? name : name + f->wrapper;
}

const char *weights_file_wrapped(const weights_file *f)
{
    for (int32_t i = 0; f->wrapper > 0 && i < safetensors_count(f->file); i++)
        if (!is_bare(safetensors_at(f->file, i)->name))
            return safetensors_at(f->file, i)->name;
    return NULL;
}

const safetensors_info *weights_file_find(const weights_file *f, const char *name)
{
    for (int32_t i = 0; i < safetensors_count(f->file); i++)
        if (strcmp(weights_file_name(f, i), name) == 0)
            return safetensors_at(f->file, i);
    return NULL;
}

static int count_known(const weights_file *f, const store *network)
{
    int known = 0;
    for (int32_t i = 0; i < safetensors_count(f->file); i++)
        known += store_find(network, weights_file_name(f, i)) != NULL;
    return known;
}

/* Bytes that `name` begins with like `other`, at most `length`. */
static size_t common(const char *name, const char *other, size_t length)
{
    size_t same = 0;
    while (same < length && name[same] != '\0' && name[same] == other[same])
        same++;
    return same;
}

/* The beginning that all names share, and its length. */
static const char *shared_beginning(const weights_file *f, size_t *length)
{
    const char *first = NULL;
    *length = 0;
    for (int32_t i = 0; i < safetensors_count(f->file); i++) {
        const char *name = safetensors_at(f->file, i)->name;
        if (is_bare(name))
            continue;
        *length = first ? common(first, name, *length) : strlen(name);
        first = first ? first : name;
    }
    return first;
}

static void find_wrapper(weights_file *f, const store *network)
{
    size_t length, best = 0;
    const char *shared = shared_beginning(f, &length);
    int most = count_known(f, network);
    for (size_t end = 1; end <= length; end++) {
        if (shared[end - 1] != '.')
            continue;
        f->wrapper = end;
        int known = count_known(f, network);
        best = known > most ? end : best;
        most = known > most ? known : most;
    }
    f->wrapper = best;
}

int weights_file_open(weights_file *f, const char *path, const store *network)
{
    *f = (weights_file){.path = path};
    TRY(safetensors_open(&f->file, path));
    find_wrapper(f, network);
    return 0;
}

void weights_file_close(weights_file *f)
{
    safetensors_close(&f->file);
}

static int64_t count_elements(const safetensors_info *tensor)
{
    return (int64_t)(tensor->bytes / safetensors_type_bytes(tensor->type));
}

int weights_file_read(const weights_file *f, const safetensors_info *tensor, double *values)
{
    const int64_t count = count_elements(tensor);
    TRY(safetensors_read(f->file, tensor, values));
    for (int64_t i = 0; i < count; i++)
        CHECK(isfinite((float)values[i]), ERROR_DATA,
              "%s: tensor \"%s\": element %lld of %lld is %g, which is not finite%s", f->path, tensor->name,
              (long long)i, (long long)count, values[i], isfinite(values[i]) ? " in float32" : "");
    return 0;
}
