/* Owns the reading of safetensors files, which come from anywhere. Invariant: nothing of the header is used before it
 * has been checked against the file's size. One thread per file. */
#include "io/file/safetensors.h"
#include "base/error.h"
#include "io/file/file_kind.h"

#include <json-c/json.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The format allows headers of 100 MB, of which the JSON's tree would take gigabytes. Those of the networks here have
 * less than a tenth of what is read. */
enum { LENGTH_BYTES = 8, HEADER_MAX = 1 << 20 };

struct safetensors_file {
    char *path;
    int descriptor;
    uint64_t size, data; /* of the file; offset of the first tensor's bytes */
    int32_t count;
    safetensors_info *tensors;
};

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
#define TYPE_ROW(name, bytes) {#name, bytes},
    SAFETENSORS_TYPES(TYPE_ROW)
#undef TYPE_ROW
};

const char *safetensors_type_name(safetensors_type type)
{
    return types[type].name;
}

size_t safetensors_type_bytes(safetensors_type type)
{
    return types[type].bytes;
}

static int read_at(const safetensors_file *f, uint64_t offset, void *bytes, size_t count)
{
    for (char *to = bytes; count > 0;) {
        ssize_t got = pread(f->descriptor, to, count, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        CHECK(got >= 0, ERROR_FILE, "%s: cannot read at offset %llu: %s", f->path, (unsigned long long)offset,
              strerror(errno));
        CHECK(got > 0, ERROR_FILE, "%s: ends at offset %llu, %zu bytes too early", f->path, (unsigned long long)offset,
              count);
        to += got;
        offset += (uint64_t)got;
        count -= (size_t)got;
    }
    return 0;
}

static int find_type(const safetensors_file *f, const char *tensor, json_object *entry, safetensors_type *type)
{
    json_object *text = json_object_object_get(entry, "dtype");
    CHECK(json_object_is_type(text, json_type_string), ERROR_FILE, "%s: header, tensor \"%s\": \"dtype\" is no text",
          f->path, tensor);
    for (int i = 0; i < SAFETENSORS_TYPE_COUNT; i++)
        if (strcmp(types[i].name, json_object_get_string(text)) == 0) {
            *type = (safetensors_type)i;
            return 0;
        }
    return error_set(ERROR_FILE, "%s: header, tensor \"%s\": unknown dtype \"%.32s\"", f->path, tensor,
                     json_object_get_string(text));
}

/* An array of up to `most` whole numbers of at least 0. */
static int get_numbers(const safetensors_file *f, const char *tensor, json_object *entry, const char *key, int32_t most,
                       int64_t *numbers, int32_t *count)
{
    json_object *array = json_object_object_get(entry, key);
    CHECK(json_object_is_type(array, json_type_array), ERROR_FILE, "%s: header, tensor \"%s\": \"%s\" is no array",
          f->path, tensor, key);
    size_t length = json_object_array_length(array);
    CHECK(length <= (size_t)most, ERROR_FILE, "%s: header, tensor \"%s\": \"%s\" has %zu numbers, at most %d are known",
          f->path, tensor, key, length, most);
    *count = (int32_t)length;
    for (size_t i = 0; i < length; i++) {
        json_object *number = json_object_array_get_idx(array, i);
        numbers[i] = json_object_get_int64(number);
        CHECK(json_object_is_type(number, json_type_int) && numbers[i] >= 0 && numbers[i] < INT64_MAX, ERROR_FILE,
              "%s: header, tensor \"%s\": \"%s\" holds something else than whole numbers of at least 0", f->path,
              tensor, key);
    }
    return 0;
}

/* Bytes that the shape asks for, UINT64_MAX where that is too large a number. */
static uint64_t shape_bytes(const safetensors_info *tensor)
{
    uint64_t bytes = types[tensor->type].bytes;
    for (int32_t i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(bytes, (uint64_t)tensor->shape[i], &bytes))
            return UINT64_MAX;
    return bytes;
}

static int take_tensor(safetensors_file *f, const char *name, json_object *entry)
{
    safetensors_info *tensor = &f->tensors[f->count];
    int64_t place[2] = {0};
    int32_t numbers = 0;
    CHECK(json_object_is_type(entry, json_type_object), ERROR_FILE, "%s: header, tensor \"%s\": no object", f->path,
          name);
    TRY(find_type(f, name, entry, &tensor->type));
    TRY(get_numbers(f, name, entry, "shape", SAFETENSORS_MAX_RANK, tensor->shape, &tensor->rank));
    TRY(get_numbers(f, name, entry, "data_offsets", 2, place, &numbers));
    CHECK(numbers == 2 && place[0] <= place[1], ERROR_FILE,
          "%s: header, tensor \"%s\": \"data_offsets\" is no beginning and end", f->path, name);
    uint64_t room = f->size - f->data;
    CHECK((uint64_t)place[1] <= room, ERROR_FILE,
          "%s: tensor \"%s\" goes to offset %llu, but the file ends at %llu: it is cut off", f->path, name,
          (unsigned long long)place[1] + f->data, (unsigned long long)f->size);
    tensor->offset = f->data + (uint64_t)place[0];
    tensor->bytes = (uint64_t)(place[1] - place[0]);
    CHECK(shape_bytes(tensor) == tensor->bytes, ERROR_FILE,
          "%s: tensor \"%s\" at offset %llu has %llu bytes, which do not fit its shape and its type %s", f->path, name,
          (unsigned long long)tensor->offset, (unsigned long long)tensor->bytes, types[tensor->type].name);
    tensor->name = strdup(name);
    CHECK(tensor->name, ERROR_MEMORY, "%s: no memory for the list of tensors", f->path);
    f->count++;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const safetensors_info *left = a, *right = b;
    if (left->offset != right->offset)
        return left->offset < right->offset ? -1 : 1;
    return (left->bytes > right->bytes) - (left->bytes < right->bytes);
}

/* Tensors lie one after the other, from the header's end to the file's. */
static int check_places(safetensors_file *f)
{
    uint64_t end = f->data;
    qsort(f->tensors, (size_t)f->count, sizeof *f->tensors, by_place);
    for (int32_t i = 0; i < f->count; i++) {
        const safetensors_info *tensor = &f->tensors[i];
        CHECK(tensor->offset >= end, ERROR_FILE, "%s: tensors \"%s\" and \"%s\" overlap at offset %llu", f->path,
              f->tensors[i > 0 ? i - 1 : 0].name, tensor->name, (unsigned long long)tensor->offset);
        CHECK(tensor->offset == end, ERROR_FILE, "%s: the bytes from offset %llu to %llu belong to no tensor", f->path,
              (unsigned long long)end, (unsigned long long)tensor->offset);
        end += tensor->bytes;
    }
    CHECK(end == f->size, ERROR_FILE, "%s: the bytes from offset %llu to the end at %llu belong to no tensor", f->path,
          (unsigned long long)end, (unsigned long long)f->size);
    return 0;
}

static int take_header(safetensors_file *f, json_object *header)
{
    CHECK(json_object_is_type(header, json_type_object), ERROR_FILE, "%s: offset %d: the header is no JSON object",
          f->path, LENGTH_BYTES);
    f->tensors = calloc((size_t)json_object_object_length(header) + 1, sizeof *f->tensors);
    CHECK(f->tensors, ERROR_MEMORY, "%s: no memory for the list of tensors", f->path);
    struct json_object_iterator at = json_object_iter_begin(header), end = json_object_iter_end(header);
    for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
        const char *name = json_object_iter_peek_name(&at);
        json_object *entry = json_object_iter_peek_value(&at);
        if (strcmp(name, "__metadata__") != 0)
            TRY(take_tensor(f, name, entry));
        else
            CHECK(json_object_is_type(entry, json_type_object), ERROR_FILE, "%s: header: \"__metadata__\" is no object",
                  f->path);
    }
    return check_places(f);
}

static bool only_spaces(const char *text, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strchr(" \t\r\n", text[i]) || text[i] == '\0')
            return false;
    return true;
}

static int parse_header(safetensors_file *f, const char *text, size_t length)
{
    json_tokener *parser = json_tokener_new();
    CHECK(parser, ERROR_MEMORY, "%s: no memory to read the header", f->path);
    json_tokener_set_flags(parser, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    json_object *header = json_tokener_parse_ex(parser, text, (int)length);
    enum json_tokener_error error = json_tokener_get_error(parser);
    size_t end = json_tokener_get_parse_end(parser);
    json_tokener_free(parser);
    int status;
    if (error == json_tokener_continue)
        status = error_set(ERROR_FILE, "%s: the header ends at offset %zu in the middle of its JSON", f->path,
                           length + LENGTH_BYTES);
    else if (error != json_tokener_success)
        status = error_set(ERROR_FILE, "%s: offset %zu: the header is no JSON: %s", f->path, end + LENGTH_BYTES,
                           json_tokener_error_desc(error));
    else if (!only_spaces(text + end, length - end))
        status =
            error_set(ERROR_FILE, "%s: offset %zu: something follows the header's JSON", f->path, end + LENGTH_BYTES);
    else
        status = take_header(f, header);
    json_object_put(header);
    return status;
}

static int read_header(safetensors_file *f)
{
    uint64_t length;
    CHECK(f->size >= LENGTH_BYTES, ERROR_FILE, "%s: %llu bytes, too few for the length of a header", f->path,
          (unsigned long long)f->size);
    TRY(read_at(f, 0, &length, sizeof length));
    CHECK(length <= HEADER_MAX, ERROR_FILE,
          "%s: offset 0: a header of %llu bytes, at most %d are read; is it a safetensors file of one network?",
          f->path, (unsigned long long)length, HEADER_MAX);
    CHECK(length <= f->size - LENGTH_BYTES, ERROR_FILE,
          "%s: offset 0: a header of %llu bytes, but the file ends at %llu: it is cut off", f->path,
          (unsigned long long)length, (unsigned long long)f->size);
    f->data = LENGTH_BYTES + length;
    char *text = malloc((size_t)length + 1);
    CHECK(text, ERROR_MEMORY, "%s: no memory for a header of %llu bytes", f->path, (unsigned long long)length);
    int status = read_at(f, LENGTH_BYTES, text, (size_t)length);
    text[length] = '\0';
    if (status == 0)
        status = parse_header(f, text, (size_t)length);
    free(text);
    return status;
}

static int open_file(safetensors_file *f, const char *path)
{
    struct stat info;
    f->path = strdup(path);
    CHECK(f->path, ERROR_MEMORY, "%s: no memory to read it", path);
    TRY(file_kind_check(path, EXPECT_SAFETENSORS));
    f->descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(f->descriptor >= 0 && fstat(f->descriptor, &info) == 0, ERROR_FILE, "%s: cannot open: %s", path,
          strerror(errno));
    CHECK(S_ISREG(info.st_mode), ERROR_FILE, "%s: not a regular file", path);
    f->size = (uint64_t)info.st_size;
    return read_header(f);
}

int safetensors_open(safetensors_file **out, const char *path)
{
    *out = calloc(1, sizeof **out);
    CHECK(*out, ERROR_MEMORY, "%s: no memory to read it", path);
    (*out)->descriptor = -1;
    int status = open_file(*out, path);
    if (status < 0)
        safetensors_close(out);
    return status;
}

int32_t safetensors_count(const safetensors_file *file)
{
    return file->count;
}

const safetensors_info *safetensors_at(const safetensors_file *file, int32_t index)
{
    return &file->tensors[index];
}

static double from_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return (double)value;
}

static double from_f16(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double size = exponent == 31  ? (fraction ? NAN : INFINITY)
                  : exponent == 0 ? ldexp(fraction, -24)
                                  : ldexp(fraction + 1024, exponent - 25);
    return bits >> 15 ? -size : size;
}

static double element(safetensors_type type, const char *bytes)
{
    float single;
    uint16_t half;
    if (type == SAFETENSORS_F32) {
        memcpy(&single, bytes, sizeof single);
        return (double)single;
    }
    memcpy(&half, bytes, sizeof half);
    return type == SAFETENSORS_F16 ? from_f16(half) : from_bf16(half);
}

int safetensors_read(const safetensors_file *file, const safetensors_info *tensor, double *values)
{
    size_t width = types[tensor->type].bytes, count = (size_t)tensor->bytes / width;
    bool real = tensor->type == SAFETENSORS_F16 || tensor->type == SAFETENSORS_BF16 ||
                tensor->type == SAFETENSORS_F32 || tensor->type == SAFETENSORS_F64;
    CHECK(real, ERROR_DATA, "%s: tensor \"%s\" is of type %s, expected F16, BF16, F32 or F64", file->path, tensor->name,
          types[tensor->type].name);
    /* Narrower elements are read into the end of the room, so that going forward overwrites none unread. */
    char *narrow = (char *)values + count * (sizeof *values - width);
    TRY(read_at(file, tensor->offset, narrow, (size_t)tensor->bytes));
    for (size_t i = 0; i < count && tensor->type != SAFETENSORS_F64; i++)
        values[i] = element(tensor->type, narrow + i * width);
    return 0;
}

void safetensors_close(safetensors_file **file)
{
    safetensors_file *f = *file;
    if (!f)
        return;
    if (f->descriptor >= 0)
        close(f->descriptor);
    for (int32_t i = 0; i < f->count; i++)
        free(f->tensors[i].name);
    free(f->tensors);
    free(f->path);
    free(f);
    *file = NULL;
}
