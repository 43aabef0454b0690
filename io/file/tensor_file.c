/* What reading and writing tensor files share: the handle's end, types. Any thread, one at a time for each file. */
#include "tensor_file_private.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "checksums are of little-endian bytes");

enum { IMAGE_STEP = 1 << 22 }; /* bytes by which a file in memory grows */

hid_t h5_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0)
        return access;
    /* Degree STRONG: closing the file closes all that is still open in it, also after an error. */
    if (H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) < 0 ||
        H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST) < 0 ||
        H5Pset_fapl_core(access, IMAGE_STEP, false) < 0) {
        H5Pclose(access);
        return -1;
    }
    return access;
}

const char *h5_name(const tensor_file *file, char name[H5_NAME])
{
    snprintf(name, H5_NAME, "/dev/null/%p", (const void *)file);
    return name;
}

hid_t h5_file_type(dtype type)
{
    return type == DTYPE_F64 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE;
}

hid_t h5_memory_type(dtype type)
{
    return type == DTYPE_F64 ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT;
}

size_t tensor_elements(int32_t rank, const int64_t *shape)
{
    size_t elements = 1;
    for (int32_t i = 0; i < rank; i++)
        elements *= (size_t)shape[i];
    return elements;
}

const char *shape_text(int32_t rank, const int64_t *shape, char text[SHAPE_TEXT])
{
    size_t used = 0;
    for (int32_t i = 0; i < rank; i++)
        used += (size_t)snprintf(text + used, SHAPE_TEXT - used, "%s%lld", i ? ", " : "[", (long long)shape[i]);
    snprintf(text + used, SHAPE_TEXT - used, rank ? "]" : "[]");
    return text;
}

void tensor_file_close(tensor_file **file)
{
    tensor_file *f = *file;
    if (!f)
        return;
    if (f->h5 >= 0) {
        hdf5_begin();
        H5Fclose(f->h5);
        hdf5_end();
    }
    atomic_file_abandon(&f->file);
    for (int32_t i = 0; i < f->count; i++)
        free(f->tensors[i].name);
    free(f->tensors);
    free(f->path);
    free(f);
    *file = NULL;
}
