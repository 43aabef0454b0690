/* A sheet of training images as the network sees them, with their classes under them, as a PNG file. One thread. */
#ifndef TESKD_IO_PACK_SHEET_H
#define TESKD_IO_PACK_SHEET_H

#include "io/shard/shard.h"

enum { SHEET_COLUMNS = 8, SHEET_ROWS = 4, SHEET_SIDE = 224, SHEET_SIDE_MOST = 512 };

/* Up to SHEET_COLUMNS x SHEET_ROWS images, taken evenly from the set in the order of its sources. The k-th is cropped
 * and flipped as at position k of epoch 0 of a training with that seed. The file appears when it is whole. */
int sheet_write(const char *path, const shard_set *set, int32_t side, uint64_t seed);

#endif
