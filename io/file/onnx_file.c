/* Owns an ONNX model while it is put together. Invariant: everything that the messages point to is a block of this
 * file's list, so that one walk frees it all. One thread per file. */
#include "io/file/onnx_file.h"
#include "base/atomic_file.h"
#include "base/error.h"

#include <onnx/onnx.pb-c.h>

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IR_VERSION = 8, OPSET = 13 };

typedef struct block {
    struct block *next;
    max_align_t bytes[];
} block;

struct onnx_file {
    char *path;
    block *blocks;
    Onnx__ModelProto model;
    Onnx__GraphProto graph;
    int status;
};

/* Zeroed memory that lives as long as the file; NULL after a failure. */
static void *take(onnx_file *f, size_t bytes)
{
    if (f->status < 0)
        return NULL;
    block *b = calloc(1, sizeof *b + bytes);
    if (!b) {
        f->status = error_set(ERROR_MEMORY, "%s: no memory for the network", f->path);
        return NULL;
    }
    b->next = f->blocks;
    f->blocks = b;
    return b->bytes;
}

static void *copy(onnx_file *f, const void *from, size_t bytes)
{
    void *to = take(f, bytes);
    if (to && bytes > 0)
        memcpy(to, from, bytes);
    return to;
}

static char *copy_text(onnx_file *f, const char *text)
{
    return copy(f, text, strlen(text) + 1);
}

/* Room for one more pointer behind `count` of them: a larger array whenever the count is a power of two. */
static void *grow(onnx_file *f, void *array, size_t count)
{
    if (count > 0 && (count & (count - 1)) != 0)
        return array;
    void **larger = take(f, (count > 0 ? 2 * count : 1) * sizeof *larger);
    if (larger && count > 0)
        memcpy(larger, array, count * sizeof *larger);
    return larger ? larger : array;
}

static void add_opset(onnx_file *f)
{
    Onnx__OperatorSetIdProto *opset = take(f, sizeof *opset);
    f->model.opset_import = grow(f, NULL, 0);
    if (f->status < 0)
        return;
    onnx__operator_set_id_proto__init(opset);
    opset->domain = copy_text(f, "");
    opset->has_version = true;
    opset->version = OPSET;
    f->model.opset_import[f->model.n_opset_import++] = opset;
}

int onnx_create(onnx_file **out, const char *path, const char *graph_name, const char *version)
{
    onnx_file *f = calloc(1, sizeof *f);
    *out = f;
    CHECK(f, ERROR_MEMORY, "%s: no memory for the network", path);
    onnx__model_proto__init(&f->model);
    onnx__graph_proto__init(&f->graph);
    f->path = copy_text(f, path);
    f->model.has_ir_version = true;
    f->model.ir_version = IR_VERSION;
    f->model.producer_name = copy_text(f, "teskd");
    f->model.producer_version = copy_text(f, version);
    f->model.graph = &f->graph;
    f->graph.name = copy_text(f, graph_name);
    add_opset(f);
    int status = f->status;
    if (status < 0)
        onnx_close(out);
    return status;
}

void onnx_metadata(onnx_file *f, const char *key, const char *value)
{
    Onnx__StringStringEntryProto *entry = take(f, sizeof *entry);
    f->model.metadata_props = grow(f, f->model.metadata_props, f->model.n_metadata_props);
    if (f->status < 0)
        return;
    onnx__string_string_entry_proto__init(entry);
    entry->key = copy_text(f, key);
    entry->value = copy_text(f, value);
    f->model.metadata_props[f->model.n_metadata_props++] = entry;
}

static Onnx__TensorShapeProto *make_shape(onnx_file *f, int32_t rank, const int64_t *shape)
{
    Onnx__TensorShapeProto *proto = take(f, sizeof *proto);
    Onnx__TensorShapeProto__Dimension *dims = take(f, (size_t)rank * sizeof *dims);
    Onnx__TensorShapeProto__Dimension **list = take(f, (size_t)rank * sizeof *list);
    if (f->status < 0)
        return NULL;
    onnx__tensor_shape_proto__init(proto);
    proto->n_dim = (size_t)rank;
    proto->dim = list;
    for (int32_t i = 0; i < rank; i++) {
        onnx__tensor_shape_proto__dimension__init(&dims[i]);
        list[i] = &dims[i];
        if (shape[i] == ONNX_BATCH) {
            dims[i].value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            dims[i].dim_param = copy_text(f, "batch");
        } else {
            dims[i].value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            dims[i].dim_value = shape[i];
        }
    }
    return proto;
}

static Onnx__ValueInfoProto *make_value(onnx_file *f, const char *name, int32_t rank, const int64_t *shape)
{
    Onnx__ValueInfoProto *value = take(f, sizeof *value);
    Onnx__TypeProto *type = take(f, sizeof *type);
    Onnx__TypeProto__Tensor *tensor = take(f, sizeof *tensor);
    if (f->status < 0)
        return NULL;
    onnx__value_info_proto__init(value);
    onnx__type_proto__init(type);
    onnx__type_proto__tensor__init(tensor);
    value->name = copy_text(f, name);
    value->type = type;
    type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = tensor;
    tensor->has_elem_type = true;
    tensor->elem_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    tensor->shape = make_shape(f, rank, shape);
    return value;
}

void onnx_input(onnx_file *f, const char *name, int32_t rank, const int64_t *shape)
{
    Onnx__ValueInfoProto *value = make_value(f, name, rank, shape);
    f->graph.input = grow(f, f->graph.input, f->graph.n_input);
    if (f->status == 0)
        f->graph.input[f->graph.n_input++] = value;
}

void onnx_output(onnx_file *f, const char *name, int32_t rank, const int64_t *shape)
{
    Onnx__ValueInfoProto *value = make_value(f, name, rank, shape);
    f->graph.output = grow(f, f->graph.output, f->graph.n_output);
    if (f->status == 0)
        f->graph.output[f->graph.n_output++] = value;
}

/* Adds a constant of elements that take `width` bytes; the format wants little-endian bytes. */
static void add_constant(onnx_file *f, const char *name, int32_t type, size_t width, int32_t rank, const int64_t *shape,
                         const void *values)
{
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are written as they lie in memory");
    Onnx__TensorProto *tensor = take(f, sizeof *tensor);
    f->graph.initializer = grow(f, f->graph.initializer, f->graph.n_initializer);
    for (int32_t i = 0; i < rank; i++)
        width *= (size_t)shape[i];
    void *bytes = copy(f, values, width);
    if (f->status < 0)
        return;
    onnx__tensor_proto__init(tensor);
    tensor->name = copy_text(f, name);
    tensor->has_data_type = true;
    tensor->data_type = type;
    tensor->n_dims = (size_t)rank;
    tensor->dims = copy(f, shape, (size_t)rank * sizeof *shape);
    tensor->has_raw_data = true;
    tensor->raw_data = (ProtobufCBinaryData){width, bytes};
    f->graph.initializer[f->graph.n_initializer++] = tensor;
}

void onnx_floats(onnx_file *f, const char *name, int32_t rank, const int64_t *shape, const float *values)
{
    add_constant(f, name, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, sizeof *values, rank, shape, values);
}

void onnx_integers(onnx_file *f, const char *name, int64_t count, const int64_t *values)
{
    add_constant(f, name, ONNX__TENSOR_PROTO__DATA_TYPE__INT64, sizeof *values, 1, &count, values);
}

static void fill_attribute(onnx_file *f, Onnx__AttributeProto *proto, const onnx_attribute *from)
{
    onnx__attribute_proto__init(proto);
    proto->name = copy_text(f, from->name);
    proto->has_type = true;
    switch (from->kind) {
    case ONNX_INTEGER:
        proto->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT;
        proto->has_i = true;
        proto->i = from->integers[0];
        break;
    case ONNX_INTEGERS:
        proto->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS;
        proto->n_ints = (size_t)from->count;
        proto->ints = copy(f, from->integers, (size_t)from->count * sizeof *from->integers);
        break;
    case ONNX_FLOAT:
        proto->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT;
        proto->has_f = true;
        proto->f = from->number;
        break;
    case ONNX_TEXT:
        proto->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING;
        proto->has_s = true;
        proto->s = (ProtobufCBinaryData){strlen(from->text), (uint8_t *)copy_text(f, from->text)};
        break;
    }
}

void onnx_node(onnx_file *f, const char *op, int32_t n_in, const char *const *in, const char *out, int32_t n_attributes,
               const onnx_attribute *attributes)
{
    Onnx__NodeProto *node = take(f, sizeof *node);
    Onnx__AttributeProto *protos = take(f, (size_t)n_attributes * sizeof *protos);
    Onnx__AttributeProto **list = take(f, (size_t)n_attributes * sizeof *list);
    char **inputs = take(f, (size_t)n_in * sizeof *inputs), **output = take(f, sizeof *output);
    f->graph.node = grow(f, f->graph.node, f->graph.n_node);
    if (f->status < 0)
        return;
    onnx__node_proto__init(node);
    node->op_type = copy_text(f, op);
    node->name = *output = copy_text(f, out);
    node->n_output = 1;
    node->output = output;
    node->n_input = (size_t)n_in;
    node->input = inputs;
    for (int32_t i = 0; i < n_in; i++)
        inputs[i] = copy_text(f, in[i]);
    node->n_attribute = (size_t)n_attributes;
    node->attribute = list;
    for (int32_t i = 0; i < n_attributes; i++) {
        list[i] = &protos[i];
        fill_attribute(f, list[i], &attributes[i]);
    }
    f->graph.node[f->graph.n_node++] = node;
}

/* protobuf-c packs into this. The base comes first: the callback gets a pointer to it. */
typedef struct {
    ProtobufCBuffer base;
    atomic_file *file;
    int status;
} packed_file;

static void append_packed(ProtobufCBuffer *buffer, size_t count, const uint8_t *bytes)
{
    packed_file *packed = (packed_file *)buffer;
    if (packed->status == 0)
        packed->status = atomic_file_write(packed->file, bytes, count);
}

static int write_whole(const onnx_file *f)
{
    packed_file packed = {.base = {append_packed}};
    TRY(atomic_file_create(&packed.file, f->path));
    protobuf_c_message_pack_to_buffer(&f->model.base, &packed.base);
    if (packed.status == 0)
        packed.status = atomic_file_commit(&packed.file);
    atomic_file_abandon(&packed.file);
    return packed.status;
}

static int write_file(const onnx_file *f)
{
    TRY(f->status);
    size_t bytes = protobuf_c_message_get_packed_size(&f->model.base);
    CHECK(bytes <= INT_MAX, ERROR_FILE, "%s: %zu bytes, but an ONNX file cannot hold more than %d", f->path, bytes,
          INT_MAX);
    return write_whole(f);
}

int onnx_commit(onnx_file **file)
{
    int status = write_file(*file);
    onnx_close(file);
    return status;
}

void onnx_close(onnx_file **file)
{
    if (!*file)
        return;
    for (block *b = (*file)->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(*file);
    *file = NULL;
}
