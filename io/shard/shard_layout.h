/* What HDF5 tells of a shard's file: its attributes, and where its datasets lie. */
#ifndef TESKD_IO_SHARD_SHARD_LAYOUT_H
#define TESKD_IO_SHARD_SHARD_LAYOUT_H

#include "io/shard/shard.h"

/* DATASET(id, name, HDF5's type in the file, bytes of an element) */
#define SHARD_DATASETS(DATASET)                                                                                        \
    DATASET(BYTES, "bytes", H5T_STD_U8LE, 1)                                                                           \
    DATASET(OFFSET, "offset", H5T_STD_U64LE, 8)                                                                        \
    DATASET(SIZE, "size", H5T_STD_U32LE, 4)                                                                            \
    DATASET(CHECKSUM, "checksum", H5T_STD_U64LE, 8)                                                                    \
    DATASET(LABEL, "label", H5T_STD_I32LE, 4)                                                                          \
    DATASET(WIDTH, "width", H5T_STD_I32LE, 4)                                                                          \
    DATASET(HEIGHT, "height", H5T_STD_I32LE, 4)                                                                        \
    DATASET(POSITION, "position", H5T_STD_U64LE, 8)                                                                    \
    DATASET(FLAGS, "flags", H5T_STD_U32LE, 4)                                                                          \
    DATASET(NAMES, "names", H5T_STD_U8LE, 1)                                                                           \
    DATASET(NAME_OFFSET, "name_offset", H5T_STD_U64LE, 8)                                                              \
    DATASET(CLASS_IDS, "class_ids", H5T_STD_U8LE, 1)                                                                   \
    DATASET(CLASS_ID_OFFSET, "class_id_offset", H5T_STD_U64LE, 8)                                                      \
    DATASET(CLASS_NAMES, "class_names", H5T_STD_U8LE, 1)                                                               \
    DATASET(CLASS_NAME_OFFSET, "class_name_offset", H5T_STD_U64LE, 8)                                                  \
    DATASET(LEFT_OUT, "left_out", H5T_STD_U8LE, 1)                                                                     \
    DATASET(LEFT_OUT_OFFSET, "left_out_offset", H5T_STD_U64LE, 8)

#define SHARD_DATASET_ENUM(id, name, type, bytes) SHARD_##id,
typedef enum { SHARD_DATASETS(SHARD_DATASET_ENUM) SHARD_DATASET_COUNT } shard_dataset;
#undef SHARD_DATASET_ENUM

/* A dataset in the file; count 0 where there is none. */
typedef struct {
    uint64_t offset;
    int64_t count; /* of elements */
} shard_place;

typedef struct {
    char plan[SHARD_ID_BYTES];
    int64_t split, shard, shards, images;
    uint64_t index_checksum;
    shard_place places[SHARD_DATASET_COUNT];
} shard_layout;

/* Every dataset lies within the `file_bytes` of the file, in one piece, and the counts go with each other. */
int shard_layout_read(shard_layout *layout, const char *path, uint64_t file_bytes);

const char *shard_dataset_name(shard_dataset dataset);
size_t shard_dataset_bytes(shard_dataset dataset); /* of an element */

#endif
