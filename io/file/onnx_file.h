/* ONNX files: a network as nodes, weights, inputs and outputs, for other programs to run.
 *
 * Written through protobuf-c after the official schema (onnx.proto of Debian's libonnx-dev); opset 13, IR version 8,
 * float32. Calls are chained without checks: the first failure is kept and comes back from onnx_commit, every later
 * call does nothing. All texts are UTF-8 and are copied. One thread per file.
 */
#ifndef TESKD_IO_FILE_ONNX_FILE_H
#define TESKD_IO_FILE_ONNX_FILE_H

#include <stdint.h>

typedef struct onnx_file onnx_file;

/* A dimension that is chosen only when the network runs: the number of images. */
enum { ONNX_BATCH = -1, ONNX_NUMBERS_MAX = 4 };

typedef enum { ONNX_INTEGER, ONNX_INTEGERS, ONNX_FLOAT, ONNX_TEXT } onnx_kind;

/* A constant of a node. */
typedef struct {
    const char *name;
    onnx_kind kind;
    int64_t integers[ONNX_NUMBERS_MAX]; /* the first one alone for ONNX_INTEGER */
    int32_t count;                      /* of ONNX_INTEGERS */
    float number;
    const char *text;
} onnx_attribute;

/* Begins a file; it is built in memory and takes the place of `path` only in onnx_commit. ERROR_MEMORY. */
int onnx_create(onnx_file **out, const char *path, const char *graph_name, const char *version);

void onnx_metadata(onnx_file *file, const char *key, const char *value);

/* float32 tensors that the network takes and gives. */
void onnx_input(onnx_file *file, const char *name, int32_t rank, const int64_t *shape);
void onnx_output(onnx_file *file, const char *name, int32_t rank, const int64_t *shape);

/* Constants: weights, and the vectors of integers or floats that some nodes take as inputs. */
void onnx_floats(onnx_file *file, const char *name, int32_t rank, const int64_t *shape, const float *values);
void onnx_integers(onnx_file *file, const char *name, int64_t count, const int64_t *values);

/* A node with one output; names are unique in a graph, and the node bears that of its output. */
void onnx_node(onnx_file *file, const char *op, int32_t n_in, const char *const *in, const char *out,
               int32_t n_attributes, const onnx_attribute *attributes);

/* Writes the file durably under its name. Returns the first failure of any call, ERROR_FILE naming the path when it
 * cannot be written or would pass the 2 GiB that the format allows. Frees `*file`, which becomes NULL. */
int onnx_commit(onnx_file **file);

/* Gives up. `*file` becomes NULL; it may be NULL already. */
void onnx_close(onnx_file **file);

#endif
