/* Owns how HDF5 lays shards out. Constant; any thread. */
#include "io/shard/shard_hdf5.h"

#include <stdbool.h>

/* The bytes of all images have a place by themselves: metadata before them, what says where each lies behind them. So
 * their offset does not depend on how many they are (shard_write.c). */
enum { BLOCK = 512, IMAGES_AT = 1 << 14 };

hid_t shard_hdf5_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0)
        return access;
    if (H5Pset_fapl_sec2(access) < 0 || H5Pset_file_locking(access, false, true) < 0 ||
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) < 0 ||
        H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) < 0 || H5Pset_alignment(access, 1, BLOCK) < 0 ||
        H5Pset_meta_block_size(access, IMAGES_AT - BLOCK) < 0 || H5Pset_small_data_block_size(access, 0) < 0) {
        H5Pclose(access);
        return -1;
    }
    return access;
}
