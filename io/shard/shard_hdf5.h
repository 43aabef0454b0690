/* What reading and writing shards share of HDF5. HDF5 is called by one thread at a time, silently. */
#ifndef TESKD_IO_SHARD_SHARD_HDF5_H
#define TESKD_IO_SHARD_SHARD_HDF5_H

#include <hdf5.h>

#define SHARD_FORMAT "teskd-shard"

/* Around all calls of HDF5: any thread may come, one goes on. */
void shard_hdf5_begin(void);
void shard_hdf5_end(void);

/* How shards are opened: without locks, which many network file systems lack. Negative on failure. */
hid_t shard_hdf5_access(void);

#endif
