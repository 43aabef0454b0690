/* The drivers that sources.def names. */
#ifndef TESKD_IO_DATA_DRIVERS_H
#define TESKD_IO_DATA_DRIVERS_H

#include "io/data/source.h"

extern const source_driver cifar_driver;     /* CIFAR's official binary files */
extern const source_driver shards_driver;    /* the shards of io/shard/shard.h */
extern const source_driver folders_driver;   /* a folder of compressed images per class */
extern const source_driver synthetic_driver; /* random bytes, for measurements without files */

#endif
