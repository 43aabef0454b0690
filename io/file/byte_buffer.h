/* Memory for a file's bytes that grows and is used again for the next one. One thread per buffer. */
#ifndef TESKD_IO_FILE_BYTE_BUFFER_H
#define TESKD_IO_FILE_BYTE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *bytes; /* for the owner to free */
    size_t size, room;
} byte_buffer;

/* Makes room for so many bytes; size and content stay. */
int byte_buffer_reserve(byte_buffer *buffer, size_t bytes);

/* The whole of a regular file of at most 1 GiB, with room for one more byte. ERROR_FILE or ERROR_DATA, naming the path.
 */
int byte_buffer_read_file(byte_buffer *buffer, const char *path);

#endif
