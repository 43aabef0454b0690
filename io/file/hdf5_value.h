/* The one way in which values come out of an HDF5 file: only from that file, and only where class, size and number of
 * elements are what the reader has room for. Owns nothing; main thread only (HDF5). */
#ifndef TESKD_IO_FILE_HDF5_VALUE_H
#define TESKD_IO_FILE_HDF5_VALUE_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Groups within groups are read down to this depth: a damaged file may have circles. */
enum { HDF5_GROUPS_DEEP = 8 };

/* What the file must hold. */
typedef struct {
    H5T_class_t class; /* H5T_NO_CLASS: integers or floats, which HDF5 converts */
    size_t bytes;      /* of one element in the file; 0: any */
    int64_t count;     /* of elements */
} hdf5_expected;

bool hdf5_attribute_fits(hid_t attribute, const hdf5_expected *expected);

/* Does it hold that, in this file? */
bool hdf5_dataset_fits(hid_t dataset, const hdf5_expected *expected);

/* Negative where the file holds something else, or HDF5 cannot read it. */
herr_t hdf5_read_attribute(hid_t attribute, const hdf5_expected *expected, hid_t memory_type, void *values);
herr_t hdf5_read_dataset(hid_t dataset, const hdf5_expected *expected, hid_t memory_type, void *values);

/* What a path of names leads to, from a group or a file: through hard links alone, or not. */
typedef enum { HDF5_MISSING, HDF5_HERE, HDF5_LINKED_ELSEWHERE } hdf5_place;
hdf5_place hdf5_find(hid_t parent, const char *path);

/* Are the values of a dataset in another file? hdf5_read_dataset reads none of these. */
bool hdf5_is_stored_elsewhere(hid_t dataset);

/* From now on HDF5 follows no link to another file, wherever it meets one. */
void hdf5_follow_no_links(void);

#endif
