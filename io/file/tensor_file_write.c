/* The writing half of tensor files. HDF5 builds the file in memory and the commit writes that image: HDF5 1.10 cannot
 * close a file whose disk is full (it crashes at the program's end), and the disk gets one sequential write. Owns the
 * temporary file until the commit; the first failure is remembered, so that a caller that missed it cannot commit half
 * a checkpoint. Any thread, one at a time for each file. */
#include "tensor_file_private.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* So many links of a group stand in its header, which is all that the reader takes. */
enum { LINKS = 65535 };

/* No time stamps, here and below: the same tensors make the same bytes. */
static int create_h5(tensor_file *f)
{
    char name[H5_NAME];
    hdf5_begin();
    int status = 0;
    hid_t access = h5_access(), creation = H5Pcreate(H5P_FILE_CREATE);
    if (access >= 0 && creation >= 0 && H5Pset_userblock(creation, SEAL_BYTES) >= 0 &&
        H5Pset_obj_track_times(creation, false) >= 0 && H5Pset_link_phase_change(creation, LINKS, LINKS) >= 0)
        f->h5 = H5Fcreate(h5_name(f, name), H5F_ACC_TRUNC, creation, access);
    if (f->h5 < 0)
        status = h5_error(f->path, "begin the file");
    if (creation >= 0)
        H5Pclose(creation);
    if (access >= 0)
        H5Pclose(access);
    hdf5_end();
    return status;
}

int tensor_file_create(tensor_file **file, const char *path)
{
    *file = NULL;
    tensor_file *f = calloc(1, sizeof *f);
    CHECK(f, ERROR_MEMORY, "no memory for a tensor file");
    f->h5 = H5I_INVALID_HID;
    f->path = strdup(path);
    /* Made before there is anything to write, so that a folder that refuses it is found out early. */
    int status = f->path ? atomic_file_create(&f->file, path) : error_set(ERROR_MEMORY, "no memory for a tensor file");
    if (status == 0)
        status = create_h5(f);
    if (status == 0)
        status = tensor_file_set_text(f, "format", TENSOR_FILE_FORMAT);
    if (status == 0)
        status = tensor_file_set_int(f, "version", TENSOR_FILE_VERSION);
    if (status < 0)
        tensor_file_close(&f);
    *file = f;
    return status;
}

/* Puts one scalar attribute on an object of the file. */
static int put_attribute(tensor_file *f, hid_t object, const char *key, hid_t file_type, hid_t memory_type,
                         const void *value)
{
    int status = 0;
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = space < 0 ? space : H5Acreate2(object, key, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, memory_type, value) < 0)
        status = h5_error(f->path, "write attribute '%s'", key);
    if (attribute >= 0)
        H5Aclose(attribute);
    if (space >= 0)
        H5Sclose(space);
    return status;
}

static int set_attribute(tensor_file *file, const char *key, hid_t file_type, hid_t memory_type, const void *value)
{
    hdf5_begin();
    int status = put_attribute(file, file->h5, key, file_type, memory_type, value);
    hdf5_end();
    file->failed |= status < 0;
    return status;
}

int tensor_file_set_int(tensor_file *file, const char *key, int64_t value)
{
    return set_attribute(file, key, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

int tensor_file_set_double(tensor_file *file, const char *key, double value)
{
    return set_attribute(file, key, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

int tensor_file_set_text(tensor_file *file, const char *key, const char *value)
{
    hdf5_begin();
    hid_t type = H5Tcopy(H5T_C_S1);
    int status = 0;
    if (type < 0 || H5Tset_size(type, strlen(value) + 1) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)
        status = h5_error(file->path, "make a type for attribute '%s'", key);
    if (status == 0)
        status = set_attribute(file, key, type, type, value);
    else
        file->failed = true;
    if (type >= 0)
        H5Tclose(type);
    hdf5_end();
    return status;
}

/* The dataset and its checksum. */
static int put_tensor(tensor_file *f, const tensor_info *info, const void *data, hid_t creation)
{
    hsize_t dims[TENSOR_FILE_MAX_RANK];
    for (int32_t i = 0; i < info->rank; i++)
        dims[i] = (hsize_t)info->shape[i];
    int status = 0;
    hid_t space = H5Screate_simple(info->rank, dims, NULL), dataset = H5I_INVALID_HID;
    if (space >= 0)
        dataset = H5Dcreate2(f->h5, info->name, h5_file_type(info->type), space, H5P_DEFAULT, creation, H5P_DEFAULT);
    if (dataset < 0 || H5Dwrite(dataset, h5_memory_type(info->type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        status = h5_error(f->path, "write tensor '%s'", info->name);
    if (status == 0) {
        uint64_t checksum = XXH3_64bits(data, tensor_elements(info->rank, info->shape) * dtype_bytes(info->type));
        status = put_attribute(f, dataset, TENSOR_FILE_CHECKSUM, H5T_STD_U64LE, H5T_NATIVE_UINT64, &checksum);
    }
    if (dataset >= 0)
        H5Dclose(dataset);
    if (space >= 0)
        H5Sclose(space);
    return status;
}

static int put_group(tensor_file *f, const char *name)
{
    htri_t exists = H5Lexists(f->h5, name, H5P_DEFAULT);
    if (exists > 0)
        return 0;
    int status = 0;
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE), group = H5I_INVALID_HID;
    if (exists == 0 && creation >= 0 && H5Pset_obj_track_times(creation, false) >= 0 &&
        H5Pset_link_phase_change(creation, LINKS, LINKS) >= 0)
        group = H5Gcreate2(f->h5, name, H5P_DEFAULT, creation, H5P_DEFAULT);
    if (group < 0)
        status = h5_error(f->path, "make group '%s'", name);
    else
        H5Gclose(group);
    if (creation >= 0)
        H5Pclose(creation);
    return status;
}

/* The groups above a tensor: HDF5 makes them by itself only with time stamps. */
static int put_groups(tensor_file *f, const char *tensor)
{
    char *name = strdup(tensor);
    CHECK(name, ERROR_MEMORY, "%s: no memory for '%s'", f->path, tensor);
    int status = 0;
    for (char *slash = strchr(name, '/'); slash && status == 0; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        status = put_group(f, name);
        *slash = '/';
    }
    free(name);
    return status;
}

static int put_tensor_with_groups(tensor_file *f, const tensor_info *info, const void *data)
{
    int status = 0;
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    if (creation < 0 || H5Pset_obj_track_times(creation, false) < 0)
        status = h5_error(f->path, "prepare tensor '%s'", info->name);
    if (status == 0)
        status = put_groups(f, info->name);
    if (status == 0)
        status = put_tensor(f, info, data, creation);
    if (creation >= 0)
        H5Pclose(creation);
    return status;
}

static int check_tensor(const tensor_file *file, const char *name, int32_t rank, const int64_t *shape)
{
    char text[SHAPE_TEXT];
    CHECK(*name && *name != '/', ERROR_SHAPE, "%s: '%s' is not a tensor name", file->path, name);
    CHECK(rank >= 0 && rank <= TENSOR_FILE_MAX_RANK, ERROR_SHAPE,
          "%s: tensor '%s' has %d dimensions, at most %d are kept", file->path, name, rank, TENSOR_FILE_MAX_RANK);
    for (int32_t i = 0; i < rank; i++)
        CHECK(shape[i] > 0, ERROR_SHAPE, "%s: tensor '%s' has the empty shape %s", file->path, name,
              shape_text(rank, shape, text));
    return 0;
}

int tensor_file_write(tensor_file *file, const char *name, dtype type, int32_t rank, const int64_t *shape,
                      const void *data)
{
    int status = check_tensor(file, name, rank, shape);
    if (status == 0) {
        tensor_info info = {.name = (char *)(uintptr_t)name, .type = type, .rank = rank};
        for (int32_t i = 0; i < rank; i++)
            info.shape[i] = shape[i];
        hdf5_begin();
        status = put_tensor_with_groups(file, &info, data);
        hdf5_end();
    }
    file->failed |= status < 0;
    return status;
}

/* Where HDF5 has built the file in memory, without the first block. */
static int find_image(const tensor_file *f, const char **bytes, size_t *count)
{
    void *handle = NULL; /* of a file in memory: the address of the pointer to its bytes */
    ssize_t size = -1;
    if (H5Fflush(f->h5, H5F_SCOPE_GLOBAL) >= 0 && H5Fget_vfd_handle(f->h5, H5P_DEFAULT, &handle) >= 0)
        size = H5Fget_file_image(f->h5, NULL, 0);
    if (size <= 0)
        return h5_error(f->path, "finish the file");
    *bytes = *(char *const *)handle + SEAL_BYTES;
    *count = (size_t)size;
    return 0;
}

/* The disk may be slow: meanwhile others are let into HDF5. */
static int write_image(const tensor_file *f)
{
    const char *rest = NULL;
    size_t count = 0;
    uint8_t block[SEAL_BYTES];
    hdf5_begin();
    int status = find_image(f, &rest, &count);
    hdf5_end();
    TRY(status);
    TRY(seal_make(f->path, rest, count, block));
    TRY(atomic_file_write(f->file, block, sizeof block));
    return atomic_file_write(f->file, rest, count);
}

int tensor_file_commit(tensor_file **file, const char *kept)
{
    tensor_file *f = *file;
    int status = f->failed ? error_set(ERROR_FILE, "%s: not replaced, since an earlier write of it failed", f->path)
                           : write_image(f);
    if (status == 0)
        status = kept ? atomic_file_commit_keeping(&f->file, kept) : atomic_file_commit(&f->file);
    tensor_file_close(file);
    return status;
}
