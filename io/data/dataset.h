/* A labelled picture set held in memory as bytes. */
#ifndef TESKD_IO_DATA_DATASET_H
#define TESKD_IO_DATA_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DATASET_CHANNELS = 3 };

typedef enum { DATASET_TRAIN, DATASET_TEST } dataset_split;

typedef struct {
    int32_t images, height, width, channels, classes;
    uint8_t *pixels;                                     /* [images][height][width][channels], RGB */
    int32_t *labels;                                     /* [images], each in [0, classes) */
    float mean[DATASET_CHANNELS], std[DATASET_CHANNELS]; /* of pixels scaled to 0..1 */
} dataset;

static inline size_t dataset_picture_bytes(const dataset *set)
{
    return (size_t)set->height * (size_t)set->width * (size_t)set->channels;
}

/* Reads CIFAR in its official binary layout. `kind` is 10 or 100 (fine labels). The files are looked for in `folder`
 * and then in its subfolder "cifar-10-batches-bin" or "cifar-100-binary". Any number of records is accepted;
 * `limit` > 0 keeps the first `limit` of them. ERROR_FILE or ERROR_DATA names the file and the record; nothing is held
 * then. */
int dataset_open_cifar(dataset *set, int kind, const char *folder, dataset_split split, int32_t limit);

/* Is `path` one of the files, of either split, that it reads in `folder`? */
bool dataset_cifar_holds(int kind, const char *folder, const char *path);

/* Made-up random pixels and labels, for benchmarks: a function of the arguments alone. */
int dataset_open_synthetic(dataset *set, int32_t images, int32_t height, int32_t width, int32_t classes, uint64_t seed);

/* What the set is, in words: how many images, their size, the classes, and a checksum of all labels and pixels. The
 * same text means the same set. */
enum { DATASET_IDENTITY_BYTES = 128 };
void dataset_identity(const dataset *set, char text[DATASET_IDENTITY_BYTES]);

/* Frees what an open call allocated and clears `set`; a zeroed set is fine. */
void dataset_close(dataset *set);

/* For the open functions: sets the sizes and allocates pixels and labels. */
int dataset_allocate(dataset *set, int32_t images, int32_t height, int32_t width, int32_t classes);

#endif
