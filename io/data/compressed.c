/* Owns the memory of a reader of compressed images: a decoder, and the bytes of the image that was loaded last. One
 * thread per reader. */
#include "io/data/compressed.h"

#include "base/error.h"
#include "io/image/decode.h"

#include <stdlib.h>

struct image_reader {
    const image_set *set;
    image_decoder *decoder;
    byte_buffer buffer;
    int32_t index; /* of the image that was loaded */
};

int compressed_reader_open(image_reader **reader, const image_set *set)
{
    image_reader *r = calloc(1, sizeof *r);
    *reader = r;
    CHECK(r, ERROR_MEMORY, "no memory for a reader of images");
    r->set = set;
    int status = image_decoder_open(&r->decoder);
    if (status < 0) {
        compressed_reader_close(r);
        *reader = NULL;
    }
    return status;
}

void compressed_reader_close(image_reader *r)
{
    image_decoder_close(&r->decoder);
    free(r->buffer.bytes);
    free(r);
}

/* A decoder knows bytes, not where they are from. */
static int name_image(const image_reader *r, int status)
{
    char text[768];
    if (status != ERROR_DATA)
        return status;
    r->set->ops->describe(r->set, r->index, text, sizeof text);
    return error_prefix(status, "%s", text);
}

int compressed_load(image_reader *r, int32_t index, int32_t *height, int32_t *width)
{
    const compressed_fetch *fetch = r->set->own;
    image_info info;
    r->index = index;
    TRY((*fetch)(r->set, index, &r->buffer));
    TRY(name_image(r, image_probe(r->decoder, r->buffer.bytes, r->buffer.size, &info)));
    *height = info.height;
    *width = info.width;
    return 0;
}

size_t compressed_stored_bytes(const image_reader *r)
{
    return r->buffer.size;
}

int compressed_render(image_reader *r, const image_view *view, uint8_t *pixels)
{
    return name_image(r, image_decode(r->decoder, r->buffer.bytes, r->buffer.size, view, pixels));
}
