/* Readers of images that a source stores compressed, as files or in shards: what the sources have in common. */
#ifndef TESKD_IO_DATA_COMPRESSED_H
#define TESKD_IO_DATA_COMPRESSED_H

#include "io/data/source.h"
#include "io/file/byte_buffer.h"

/* What a source adds: the bytes of one image. Any thread, each with a buffer of its own. ERROR_FILE or ERROR_DATA,
 * naming the file. */
typedef int (*compressed_fetch)(const image_set *set, int32_t index, byte_buffer *buffer);

/* The functions of image_set_ops. `own` of such a set begins with a compressed_fetch. */
int compressed_reader_open(image_reader **reader, const image_set *set);
int compressed_load(image_reader *reader, int32_t index, int32_t *height, int32_t *width);
int compressed_render(image_reader *reader, const image_view *view, uint8_t *pixels);
size_t compressed_stored_bytes(const image_reader *reader);
void compressed_reader_close(image_reader *reader);

#endif
