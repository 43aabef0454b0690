/* The reading half of tensor files. Owns the list of tensors, made at opening: it holds only float tensors of at most
 * four dimensions, so that later calls need not doubt it. Any thread, one at a time for each file. */
#include "hdf5_value.h"
#include "tensor_file_private.h"

#include "base/error.h"
#include "io/file/file_kind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { TENSOR_NAME = 512 };

static int open_h5(tensor_file *f)
{
    char name[H5_NAME];
    uint8_t *bytes;
    size_t count;
    int status = 0;
    TRY(file_kind_check(f->path, EXPECT_CHECKPOINT));
    TRY(seal_read(f->path, &bytes, &count));
    hid_t properties = h5_access();
    bool taken = properties >= 0 && H5Pset_file_image(properties, bytes, count) >= 0; /* a copy */
    free(bytes);
    if (taken)
        f->h5 = H5Fopen(h5_name(f, name), H5F_ACC_RDONLY, properties);
    if (f->h5 < 0)
        status = h5_error(f->path, "read it as a %s file (HDF5)", TENSOR_FILE_FORMAT);
    if (properties >= 0)
        H5Pclose(properties);
    return status;
}

static int add_tensor(tensor_file *f, const tensor_info *info)
{
    if (f->count == f->capacity) {
        int32_t capacity = f->capacity ? 2 * f->capacity : 64;
        tensor_info *grown = realloc(f->tensors, (size_t)capacity * sizeof *grown);
        CHECK(grown, ERROR_MEMORY, "%s: no memory for the list of tensors", f->path);
        f->tensors = grown;
        f->capacity = capacity;
    }
    f->tensors[f->count] = *info;
    f->tensors[f->count].name = strdup(info->name);
    CHECK(f->tensors[f->count].name, ERROR_MEMORY, "%s: no memory for the list of tensors", f->path);
    f->count++;
    return 0;
}

/* Fills type and shape from an open dataset. */
static int describe(const tensor_file *f, hid_t dataset, tensor_info *info)
{
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    hsize_t dims[H5S_MAX_RANK];
    int rank = space < 0 ? -1 : H5Sget_simple_extent_dims(space, dims, NULL);
    int status = type < 0 || rank < 0 ? h5_error(f->path, "read the shape of '%s'", info->name) : 0;
    bool single = H5Tequal(type, H5T_IEEE_F32LE) > 0, twice = H5Tequal(type, H5T_IEEE_F64LE) > 0;
    if (type >= 0)
        H5Tclose(type);
    if (space >= 0)
        H5Sclose(space);
    TRY(status);
    CHECK(!hdf5_is_stored_elsewhere(dataset), ERROR_FILE,
          "%s: the values of '%s' are in another file, which is not read", f->path, info->name);
    CHECK((single || twice) && rank <= TENSOR_FILE_MAX_RANK, ERROR_FILE,
          "%s: '%s' is not a float32 or float64 tensor of at most %d dimensions", f->path, info->name,
          TENSOR_FILE_MAX_RANK);
    info->type = twice ? DTYPE_F64 : DTYPE_F32;
    info->rank = rank;
    for (int i = 0; i < rank; i++)
        info->shape[i] = (int64_t)dims[i];
    return 0;
}

static int compare_infos(const void *a, const void *b)
{
    return strcmp(((const tensor_info *)a)->name, ((const tensor_info *)b)->name);
}

/* A group that is being listed; `path` ends in a slash, unless it is the root. */
typedef struct {
    tensor_file *file;
    char path[TENSOR_NAME];
    int depth;
} listing;

static int list_group(listing *l, hid_t group);

static int list_object(const listing *l, hid_t group, const char *name)
{
    tensor_file *f = l->file;
    listing inner = {.file = f, .depth = l->depth + 1};
    int length = snprintf(inner.path, sizeof inner.path, "%s%s", l->path, name);
    CHECK(length < TENSOR_NAME - 1, ERROR_FILE, "%s: the name '%s' is too long", f->path, inner.path);
    tensor_info info = {.name = inner.path};
    hid_t object = H5Oopen(group, name, H5P_DEFAULT);
    int status = object < 0 ? h5_error(f->path, "open '%s'", inner.path) : 0;
    if (status == 0 && H5Iget_type(object) == H5I_DATASET) {
        status = describe(f, object, &info);
        if (status == 0)
            status = add_tensor(f, &info);
    } else if (status == 0 && H5Iget_type(object) == H5I_GROUP) {
        memcpy(inner.path + length, "/", sizeof "/");
        status = list_group(&inner, object);
    }
    if (object >= 0)
        H5Oclose(object);
    return status;
}

/* H5Literate's callback: our status rides in `status`, since HDF5 only needs to know that it should stop. */
static herr_t list_link(hid_t group, const char *name, const H5L_info_t *link, void *context)
{
    const listing *l = context;
    int status = 0;
    if (link->type != H5L_TYPE_HARD) /* it may lead to another file, a device or a pipe */
        status = error_set(ERROR_FILE, "%s: '%s%s' is a link to somewhere else, which is not followed", l->file->path,
                           l->path, name);
    if (status == 0)
        status = list_object(l, group, name);
    l->file->status = status;
    return status;
}

/* Groups keep their links in their headers, as the writer has it: HDF5 1.10 frees wild pointers when it lists a damaged
 * index of links. */
static int list_group(listing *l, hid_t group)
{
    tensor_file *f = l->file;
    H5G_info_t info;
    if (H5Gget_info(group, &info) < 0)
        return h5_error(f->path, "list the tensors of '%s'", l->path);
    CHECK(info.storage_type == H5G_STORAGE_TYPE_COMPACT, ERROR_FILE,
          "%s: the links of group '/%s' are not in its header, as this program keeps them", f->path, l->path);
    CHECK(l->depth < HDF5_GROUPS_DEEP, ERROR_FILE, "%s: the groups in '%s' are too deep", f->path, l->path);
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, list_link, l) < 0)
        return f->status < 0 ? f->status : h5_error(f->path, "list the tensors of '%s'", l->path);
    return 0;
}

static int list_tensors(tensor_file *f)
{
    listing root = {.file = f};
    return list_group(&root, f->h5);
}

/* A foreign HDF5 file and a newer format get words of their own. */
static int check_format(tensor_file *f)
{
    char *format = NULL;
    int64_t version = 0;
    htri_t has = H5Aexists(f->h5, "format");
    if (has < 0)
        return h5_error(f->path, "read attribute 'format'");
    CHECK(has, ERROR_FILE, "%s: an HDF5 file, but not a %s: it has no attribute 'format'", f->path, TENSOR_FILE_FORMAT);
    TRY(tensor_file_get_text(f, "format", &format));
    bool ours = strcmp(format, TENSOR_FILE_FORMAT) == 0;
    if (!ours)
        error_set(ERROR_FILE, "%s: its format is '%.64s', expected '%s'", f->path, format, TENSOR_FILE_FORMAT);
    free(format);
    if (!ours)
        return ERROR_FILE;
    TRY(tensor_file_get_int(f, "version", INT64_MIN, INT64_MAX, &version));
    CHECK(version == TENSOR_FILE_VERSION, ERROR_FILE, "%s: format version %lld, this program reads version %d", f->path,
          (long long)version, TENSOR_FILE_VERSION);
    return 0;
}

int tensor_file_open(tensor_file **file, const char *path)
{
    *file = NULL;
    tensor_file *f = calloc(1, sizeof *f);
    CHECK(f, ERROR_MEMORY, "no memory for a tensor file");
    f->h5 = H5I_INVALID_HID;
    f->path = strdup(path);
    int status = f->path ? 0 : error_set(ERROR_MEMORY, "no memory for a tensor file");
    hdf5_begin();
    if (status == 0)
        status = open_h5(f);
    if (status == 0)
        status = check_format(f);
    if (status == 0)
        status = list_tensors(f);
    hdf5_end();
    if (status < 0)
        tensor_file_close(&f);
    else if (f->count > 0)
        qsort(f->tensors, (size_t)f->count, sizeof *f->tensors, compare_infos);
    *file = f;
    return status;
}

int32_t tensor_file_count(const tensor_file *file)
{
    return file->count;
}

const tensor_info *tensor_file_info(const tensor_file *file, int32_t index)
{
    return index >= 0 && index < file->count ? &file->tensors[index] : NULL;
}

static int compare_name(const void *name, const void *info)
{
    return strcmp(name, ((const tensor_info *)info)->name);
}

const tensor_info *tensor_file_find(const tensor_file *file, const char *name)
{
    if (file->count == 0)
        return NULL;
    return bsearch(name, file->tensors, (size_t)file->count, sizeof *file->tensors, compare_name);
}

/* Reads the stored values and holds them against their checksum. */
static int read_verified(tensor_file *f, const tensor_info *info, void *data)
{
    const hdf5_expected number = {.class = H5T_INTEGER, .bytes = sizeof(uint64_t), .count = 1};
    const hdf5_expected values = {.class = H5T_FLOAT,
                                  .bytes = dtype_bytes(info->type),
                                  .count = (int64_t)tensor_elements(info->rank, info->shape)};
    uint64_t stored = 0;
    hid_t dataset = H5Dopen2(f->h5, info->name, H5P_DEFAULT), attribute = H5I_INVALID_HID;
    int status = 0;
    if (dataset >= 0)
        attribute = H5Aopen(dataset, TENSOR_FILE_CHECKSUM, H5P_DEFAULT);
    if (attribute < 0 || hdf5_read_attribute(attribute, &number, H5T_NATIVE_UINT64, &stored) < 0 ||
        hdf5_read_dataset(dataset, &values, h5_memory_type(info->type), data) < 0)
        status = h5_error(f->path, "read tensor '%s'", info->name);
    if (attribute >= 0)
        H5Aclose(attribute);
    if (dataset >= 0)
        H5Dclose(dataset);
    TRY(status);
    uint64_t found = XXH3_64bits(data, tensor_elements(info->rank, info->shape) * dtype_bytes(info->type));
    CHECK(found == stored, ERROR_DAMAGED, "%s: tensor '%s' is damaged: its checksum is %016llx, expected %016llx",
          f->path, info->name, (unsigned long long)found, (unsigned long long)stored);
    return 0;
}

static void convert(const void *from, dtype from_type, void *to, size_t elements)
{
    for (size_t i = 0; i < elements; i++) {
        if (from_type == DTYPE_F64)
            ((float *)to)[i] = (float)((const double *)from)[i];
        else
            ((double *)to)[i] = ((const float *)from)[i];
    }
}

int tensor_file_read(tensor_file *file, const char *name, dtype type, int32_t rank, const int64_t *shape, void *data)
{
    const tensor_info *info = tensor_file_find(file, name);
    CHECK(info, ERROR_FILE, "%s: has no tensor '%s'", file->path, name);
    char found[SHAPE_TEXT], expected[SHAPE_TEXT];
    bool same = rank == info->rank && (rank == 0 || memcmp(shape, info->shape, (size_t)rank * sizeof *shape) == 0);
    CHECK(same, ERROR_SHAPE, "%s: tensor '%s' has shape %s, expected %s", file->path, name,
          shape_text(info->rank, info->shape, found), shape_text(rank, shape, expected));
    size_t elements = tensor_elements(rank, shape);
    void *stored = type == info->type ? data : malloc(elements * dtype_bytes(info->type));
    CHECK(stored, ERROR_MEMORY, "%s: no memory to read tensor '%s'", file->path, name);
    hdf5_begin();
    int status = read_verified(file, info, stored);
    hdf5_end();
    if (status == 0 && stored != data)
        convert(stored, info->type, data, elements);
    if (stored != data)
        free(stored);
    return status;
}

/* Opens a scalar attribute of the given class and size (0: any). */
static int open_attribute(tensor_file *f, const char *key, H5T_class_t class, size_t bytes, hid_t *attribute,
                          size_t *size)
{
    htri_t has = H5Aexists(f->h5, key);
    if (has < 0)
        return h5_error(f->path, "look for attribute '%s'", key);
    CHECK(has, ERROR_FILE, "%s: has no attribute '%s'", f->path, key);
    hid_t opened = H5Aopen(f->h5, key, H5P_DEFAULT), type = opened < 0 ? opened : H5Aget_type(opened);
    int status = type < 0 ? h5_error(f->path, "open attribute '%s'", key) : 0;
    if (status == 0) {
        const hdf5_expected single = {.class = class, .bytes = bytes, .count = 1};
        *size = H5Tget_size(type);
        if (!hdf5_attribute_fits(opened, &single) || H5Tis_variable_str(type) > 0)
            status = error_set(ERROR_FILE, "%s: attribute '%s' is not a single %s", f->path, key,
                               class == H5T_INTEGER ? "int64"
                               : class == H5T_FLOAT ? "float64"
                                                    : "text of fixed length");
    }
    if (type >= 0)
        H5Tclose(type);
    if (status < 0 && opened >= 0)
        H5Aclose(opened);
    *attribute = opened;
    return status;
}

static int get_number(tensor_file *file, const char *key, H5T_class_t class, hid_t memory_type, void *value)
{
    hdf5_begin();
    hid_t attribute = H5I_INVALID_HID;
    size_t size = 0;
    int status = open_attribute(file, key, class, 8, &attribute, &size);
    if (status == 0) {
        if (H5Aread(attribute, memory_type, value) < 0)
            status = h5_error(file->path, "read attribute '%s'", key);
        H5Aclose(attribute);
    }
    hdf5_end();
    return status;
}

int tensor_file_get_int(tensor_file *file, const char *key, int64_t least, int64_t most, int64_t *value)
{
    TRY(get_number(file, key, H5T_INTEGER, H5T_NATIVE_INT64, value));
    CHECK(*value >= least && *value <= most, ERROR_DAMAGED,
          "%s: the file is damaged: %s is %lld, expected %lld to %lld", file->path, key, (long long)*value,
          (long long)least, (long long)most);
    return 0;
}

int tensor_file_get_double(tensor_file *file, const char *key, double least, double most, double *value)
{
    TRY(get_number(file, key, H5T_FLOAT, H5T_NATIVE_DOUBLE, value));
    CHECK(*value >= least && *value <= most, ERROR_DAMAGED, "%s: the file is damaged: %s is %g, expected %g to %g",
          file->path, key, *value, least, most);
    return 0;
}

static int read_text(tensor_file *f, const char *key, hid_t attribute, size_t size, char **value)
{
    char *text = calloc(size + 1, 1);
    CHECK(text, ERROR_MEMORY, "%s: no memory for attribute '%s'", f->path, key);
    int status = 0;
    hid_t type = H5Aget_type(attribute);
    if (type < 0 || H5Aread(attribute, type, text) < 0)
        status = h5_error(f->path, "read attribute '%s'", key);
    if (type >= 0)
        H5Tclose(type);
    if (status < 0)
        free(text);
    else
        *value = text;
    return status;
}

bool tensor_file_has(const tensor_file *file, const char *key)
{
    hdf5_begin();
    bool has = H5Aexists(file->h5, key) > 0;
    hdf5_end();
    return has;
}

int tensor_file_get_text(tensor_file *file, const char *key, char **value)
{
    *value = NULL;
    hdf5_begin();
    hid_t attribute = H5I_INVALID_HID;
    size_t size = 0;
    int status = open_attribute(file, key, H5T_STRING, 0, &attribute, &size);
    if (status == 0) {
        status = read_text(file, key, attribute, size, value);
        H5Aclose(attribute);
    }
    hdf5_end();
    return status;
}
