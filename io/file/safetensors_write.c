/* Owns the writing of safetensors files. Invariant: the header is written first and complete, so that the values of one
 * tensor at a time are all that is held. One thread per writer. */
#include "base/atomic_file.h"
#include "base/error.h"
#include "io/file/safetensors.h"

#include <json-c/json.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are written as they lie in memory");

enum { HEADER_ALIGNMENT = 8 };

struct safetensors_writer {
    char *path;
    atomic_file *file;
    int32_t count, next;
    uint64_t *bytes; /* of each tensor */
};

static int add(json_object *object, const char *key, json_object *member)
{
    CHECK(member && json_object_object_add(object, key, member) == 0, ERROR_MEMORY, "no memory for a file's header");
    return 0;
}

static int add_number(json_object *array, uint64_t number)
{
    CHECK(json_object_array_add(array, json_object_new_uint64(number)) == 0, ERROR_MEMORY,
          "no memory for a file's header");
    return 0;
}

static uint64_t tensor_size(const safetensors_info *tensor)
{
    uint64_t bytes = safetensors_type_bytes(tensor->type);
    for (int32_t i = 0; i < tensor->rank; i++)
        bytes *= (uint64_t)tensor->shape[i];
    return bytes;
}

static int describe(json_object *header, const safetensors_info *tensor, uint64_t begin)
{
    json_object *entry = json_object_new_object(), *shape = json_object_new_array(), *place = json_object_new_array();
    TRY(add(header, tensor->name, entry));
    TRY(add(entry, "dtype", json_object_new_string(safetensors_type_name(tensor->type))));
    TRY(add(entry, "shape", shape));
    TRY(add(entry, "data_offsets", place));
    for (int32_t i = 0; i < tensor->rank; i++)
        TRY(add_number(shape, (uint64_t)tensor->shape[i]));
    TRY(add_number(place, begin));
    return add_number(place, begin + tensor_size(tensor));
}

static int fill_header(safetensors_writer *w, json_object *header, const safetensors_info *tensors, int32_t n_texts,
                       const safetensors_text *texts)
{
    json_object *metadata = json_object_new_object();
    TRY(add(header, "__metadata__", metadata));
    for (int32_t i = 0; i < n_texts; i++)
        TRY(add(metadata, texts[i].key, json_object_new_string(texts[i].value)));
    uint64_t begin = 0;
    for (int32_t i = 0; i < w->count; i++) {
        w->bytes[i] = tensor_size(&tensors[i]);
        TRY(describe(header, &tensors[i], begin));
        begin += w->bytes[i];
    }
    return 0;
}

static int write_header(safetensors_writer *w, json_object *header)
{
    static const char spaces[HEADER_ALIGNMENT + 1] = "        ";
    size_t length;
    const char *text =
        json_object_to_json_string_length(header, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
    CHECK(text, ERROR_MEMORY, "%s: no memory for the header", w->path);
    size_t padding = (HEADER_ALIGNMENT - length % HEADER_ALIGNMENT) % HEADER_ALIGNMENT;
    uint64_t whole = length + padding;
    TRY(atomic_file_write(w->file, &whole, sizeof whole));
    TRY(atomic_file_write(w->file, text, length));
    return atomic_file_write(w->file, spaces, padding);
}

static int begin_file(safetensors_writer *w, const safetensors_info *tensors, int32_t n_texts,
                      const safetensors_text *texts)
{
    TRY(atomic_file_create(&w->file, w->path));
    json_object *header = json_object_new_object();
    int status = header ? fill_header(w, header, tensors, n_texts, texts)
                        : error_set(ERROR_MEMORY, "%s: no memory for the header", w->path);
    if (status == 0)
        status = write_header(w, header);
    json_object_put(header);
    return status;
}

int safetensors_create(safetensors_writer **out, const char *path, int32_t count, const safetensors_info *tensors,
                       int32_t n_texts, const safetensors_text *texts)
{
    safetensors_writer *w = calloc(1, sizeof *w);
    *out = w;
    CHECK(w, ERROR_MEMORY, "%s: no memory to write it", path);
    w->count = count;
    w->path = strdup(path);
    w->bytes = calloc((size_t)count + 1, sizeof *w->bytes);
    int status = w->path && w->bytes ? begin_file(w, tensors, n_texts, texts)
                                     : error_set(ERROR_MEMORY, "%s: no memory to write it", path);
    if (status < 0)
        safetensors_abandon(out);
    return status;
}

int safetensors_append(safetensors_writer *w, const void *values)
{
    CHECK(w->next < w->count, ERROR_INTERNAL, "%s: more than the %d tensors announced", w->path, w->count);
    return atomic_file_write(w->file, values, w->bytes[w->next++]);
}

int safetensors_commit(safetensors_writer **writer)
{
    safetensors_writer *w = *writer;
    int status = 0;
    if (w->next < w->count)
        status = error_set(ERROR_INTERNAL, "%s: only %d of the %d tensors announced", w->path, w->next, w->count);
    if (status == 0)
        status = atomic_file_commit(&w->file);
    safetensors_abandon(writer);
    return status;
}

void safetensors_abandon(safetensors_writer **writer)
{
    safetensors_writer *w = *writer;
    if (!w)
        return;
    atomic_file_abandon(&w->file);
    free(w->path);
    free(w->bytes);
    free(w);
    *writer = NULL;
}
