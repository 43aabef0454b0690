/* A small synthetic labelled image set, for trying the program without a download.
 *
 * Ten classes of shapes and textures whose place, size, rotation and colours are random, independently of the class, so
 * that mean colours say nothing about it.
 */
#ifndef TESKD_IO_DATA_SYNTH_H
#define TESKD_IO_DATA_SYNTH_H

#include <stdint.h>

enum { SYNTH_CLASSES = 10, SYNTH_SIDE = 32, SYNTH_IMAGE_BYTES = 3 * SYNTH_SIDE * SYNTH_SIDE };

const char *synth_class_name(int32_t label);

/* Draws image `index` of a split (0 train, 1 test) as 3072 bytes of planar RGB; its class is index % SYNTH_CLASSES. */
void synth_draw(uint64_t seed, uint32_t split, uint32_t index, uint8_t *planar);

/* Writes data_batch_1..5.bin, test_batch.bin and batches.meta.txt, the layout of the CIFAR-10 binary version, into
 * `folder` (made when missing), each file in one step. The training images, at least 5, are spread evenly over the
 * five files. ERROR_SETTINGS for too few images, ERROR_FILE with the path for what the file system refuses. */
int synth_write(const char *folder, int32_t train_images, int32_t test_images, uint64_t seed);

/* The same images as folder/train/CLASS/NUMBER.jpg and folder/val/..., scaled to sides of 40 to 96 pixels; some are
 * grey, some PNG. At least one image per class and split. */
int synth_write_folders(const char *folder, int32_t train_images, int32_t test_images, uint64_t seed);

#endif
