/* What reading and writing shards share of HDF5. Any thread, between hdf5_begin and hdf5_end. */
#ifndef TESKD_IO_SHARD_SHARD_HDF5_H
#define TESKD_IO_SHARD_SHARD_HDF5_H

#include <hdf5.h>

#define SHARD_FORMAT "teskd-shard"

/* How shards are opened: without locks, which many network file systems lack. Negative on failure. */
hid_t shard_hdf5_access(void);

#endif
