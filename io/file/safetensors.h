/* safetensors files: named tensors behind a JSON header, as PyTorch users exchange weights.
 *
 * A file is the header's length (8 bytes, little-endian), the header, then the tensors' bytes, row-major and
 * little-endian, without gaps. The header is a JSON object: for each tensor its type, shape and place, and
 * "__metadata__" with texts.
 *
 * Errors are ERROR_FILE and name the path, and where a file is malformed the offset in it, unless said otherwise. A
 * handle belongs to one thread at a time.
 */
#ifndef TESKD_IO_FILE_SAFETENSORS_H
#define TESKD_IO_FILE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

enum { SAFETENSORS_MAX_RANK = 8 };

/* X(name in files, bytes of an element) */
#define SAFETENSORS_TYPES(X)                                                                                           \
    X(BOOL, 1)                                                                                                         \
    X(U8, 1)                                                                                                           \
    X(I8, 1)                                                                                                           \
    X(F8_E5M2, 1)                                                                                                      \
    X(F8_E4M3, 1)                                                                                                      \
    X(I16, 2)                                                                                                          \
    X(U16, 2)                                                                                                          \
    X(F16, 2)                                                                                                          \
    X(BF16, 2)                                                                                                         \
    X(I32, 4)                                                                                                          \
    X(U32, 4)                                                                                                          \
    X(F32, 4)                                                                                                          \
    X(I64, 8)                                                                                                          \
    X(U64, 8)                                                                                                          \
    X(F64, 8)

typedef enum {
#define SAFETENSORS_ID(name, bytes) SAFETENSORS_##name,
    SAFETENSORS_TYPES(SAFETENSORS_ID)
#undef SAFETENSORS_ID
        SAFETENSORS_TYPE_COUNT
} safetensors_type;

const char *safetensors_type_name(safetensors_type type);
size_t safetensors_type_bytes(safetensors_type type);

typedef struct {
    char *name;
    safetensors_type type;
    int32_t rank;
    int64_t shape[SAFETENSORS_MAX_RANK];
    uint64_t offset, bytes; /* place in a file being read; unused by writing */
} safetensors_info;

/* Both in UTF-8. */
typedef struct {
    const char *key, *value;
} safetensors_text;

/* Writing: the list of all tensors first, then their values in the same order. Whatever is at `path` stays until the
 * commit. The names must outlive the call only. */
typedef struct safetensors_writer safetensors_writer;
int safetensors_create(safetensors_writer **out, const char *path, int32_t count, const safetensors_info *tensors,
                       int32_t n_texts, const safetensors_text *texts);

/* The values of the next tensor, as many bytes as its type and shape ask for. */
int safetensors_append(safetensors_writer *w, const void *values);

/* Makes the file durable under its name; refused when a tensor is lacking. Frees `*w`, which becomes NULL. */
int safetensors_commit(safetensors_writer **w);

/* Gives up and removes the unfinished file. `*w` becomes NULL; it may be NULL already. */
void safetensors_abandon(safetensors_writer **w);

/* Reading. The whole header is checked: every tensor lies within the file, none overlaps another, no byte is left
 * over. */
typedef struct safetensors_file safetensors_file;
int safetensors_open(safetensors_file **out, const char *path);

/* The tensors in the order of their place in the file; infos belong to the file. */
int32_t safetensors_count(const safetensors_file *file);
const safetensors_info *safetensors_at(const safetensors_file *file, int32_t index);

/* Reads a tensor of type F16, BF16, F32 or F64 (else ERROR_DATA) as float64. */
int safetensors_read(const safetensors_file *file, const safetensors_info *tensor, double *values);

/* `*file` becomes NULL; it may be NULL already. */
void safetensors_close(safetensors_file **file);

#endif
