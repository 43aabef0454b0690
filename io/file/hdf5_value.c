/* Owns the comparison of what a file holds with what is expected of it. Any thread whose turn at HDF5 it is. */
#include "hdf5_value.h"

#include <string.h>

enum { PATH_BYTES = 512 };

static bool fits(hid_t type, hid_t space, const hdf5_expected *expected)
{
    if (type < 0 || space < 0)
        return false;
    H5T_class_t class = H5Tget_class(type);
    bool right =
        expected->class == H5T_NO_CLASS ? class == H5T_INTEGER || class == H5T_FLOAT : class == expected->class;
    return right && (expected->bytes == 0 || H5Tget_size(type) == expected->bytes) &&
           H5Sget_simple_extent_npoints(space) == expected->count;
}

static bool fits_and_close(hid_t type, hid_t space, const hdf5_expected *expected)
{
    bool right = fits(type, space, expected);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return right;
}

bool hdf5_attribute_fits(hid_t attribute, const hdf5_expected *expected)
{
    return fits_and_close(H5Aget_type(attribute), H5Aget_space(attribute), expected);
}

herr_t hdf5_read_attribute(hid_t attribute, const hdf5_expected *expected, hid_t memory_type, void *values)
{
    return hdf5_attribute_fits(attribute, expected) ? H5Aread(attribute, memory_type, values) : -1;
}

hdf5_place hdf5_find(hid_t parent, const char *path)
{
    char part[PATH_BYTES];
    size_t length = 0;
    do {
        H5L_info_t link;
        length += strcspn(path + length + 1, "/") + 1; /* the path up to the next name's end */
        if (length >= sizeof part)
            return HDF5_MISSING;
        memcpy(part, path, length);
        part[length] = '\0';
        if (H5Lget_info(parent, part, &link, H5P_DEFAULT) < 0)
            return HDF5_MISSING;
        if (link.type != H5L_TYPE_HARD)
            return HDF5_LINKED_ELSEWHERE;
    } while (path[length] != '\0');
    return HDF5_HERE;
}

bool hdf5_is_stored_elsewhere(hid_t dataset)
{
    hid_t creation = H5Dget_create_plist(dataset);
    bool elsewhere = creation < 0 || H5Pget_external_count(creation) != 0 || H5Pget_layout(creation) == H5D_VIRTUAL;
    if (creation >= 0)
        H5Pclose(creation);
    return elsewhere;
}

bool hdf5_dataset_fits(hid_t dataset, const hdf5_expected *expected)
{
    return fits_and_close(H5Dget_type(dataset), H5Dget_space(dataset), expected) && !hdf5_is_stored_elsewhere(dataset);
}

herr_t hdf5_read_dataset(hid_t dataset, const hdf5_expected *expected, hid_t memory_type, void *values)
{
    return hdf5_dataset_fits(dataset, expected) ? H5Dread(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values)
                                                : -1;
}

void hdf5_follow_no_links(void)
{
    if (H5Lis_registered(H5L_TYPE_EXTERNAL) > 0)
        H5Lunregister(H5L_TYPE_EXTERNAL);
}
