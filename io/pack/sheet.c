/* Owns the pixels of a sheet while it is drawn. One thread. */
#include "io/pack/sheet.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/rng.h"
#include "io/data/augment.h"
#include "io/image/crop.h"
#include "io/image/decode.h"
#include "io/image/encode.h"
#include "io/pack/glyphs.h"

#include <stdlib.h>
#include <string.h>

enum { GAP = 4, LABEL_HEIGHT = GLYPH_HEIGHT + 2 * GAP, LETTER = GLYPH_WIDTH + 1, INK = 255, PAPER = 24 };

typedef struct {
    const shard_set *set;
    int32_t side, columns, rows, height, width; /* side: of an image; height and width: of the sheet */
    uint64_t seed;
    image_decoder *decoder;
    uint8_t *pixels, *view, *bytes; /* of the sheet, of an image's view, of its file */
} sheet;

static uint8_t *pixel_at(const sheet *s, int32_t y, int32_t x)
{
    return s->pixels + ((size_t)y * (size_t)s->width + (size_t)x) * IMAGE_CHANNELS;
}

static void draw_letter(const sheet *s, char letter, int32_t top, int32_t left)
{
    const uint8_t *rows = glyph_rows(letter);
    for (int32_t y = 0; y < GLYPH_HEIGHT; y++)
        for (int32_t x = 0; x < GLYPH_WIDTH; x++)
            if (rows[y] >> (GLYPH_WIDTH - 1 - x) & 1)
                memset(pixel_at(s, top + y, left + x), INK, IMAGE_CHANNELS);
}

/* As many letters as there is room for. */
static void draw_label(const sheet *s, const char *label, int32_t top, int32_t left)
{
    for (int32_t i = 0; label[i] && (i + 1) * LETTER <= s->side; i++)
        draw_letter(s, label[i], top, left + i * LETTER);
}

static void place_view(const sheet *s, int32_t top, int32_t left, bool flip)
{
    for (int32_t y = 0; y < s->side; y++)
        for (int32_t x = 0; x < s->side; x++) {
            const int32_t from = flip ? s->side - 1 - x : x;
            memcpy(pixel_at(s, top + y, left + x),
                   s->view + ((size_t)y * (size_t)s->side + (size_t)from) * IMAGE_CHANNELS, IMAGE_CHANNELS);
        }
}

static int read_bytes(sheet *s, int64_t index)
{
    uint8_t *grown = realloc(s->bytes, shard_set_image(s->set, index)->size);
    CHECK(grown, ERROR_MEMORY, "no memory for an image");
    s->bytes = grown;
    return shard_set_read(s->set, index, s->bytes);
}

/* The view that a training's first epoch has of an image at that position. */
static image_view view_of(const sheet *s, const shard_image *image, int32_t position)
{
    static const crop_range usual = {.scale = {0.08, 1}, .ratio = {3.0 / 4, 4.0 / 3}};
    return (image_view){.region = crop_random(&usual, image->height, image->width, s->seed, rng_stream(RNG_CROP, 0),
                                              (uint32_t)position),
                        .height = s->side,
                        .width = s->side,
                        .window = {.height = s->side, .width = s->side}};
}

static int draw_image(sheet *s, int64_t index, int32_t position)
{
    const shard_image *image = shard_set_image(s->set, index);
    const image_view view = view_of(s, image, position);
    const int32_t left = GAP + position % s->columns * (s->side + GAP),
                  top = GAP + position / s->columns * (s->side + LABEL_HEIGHT);
    TRY(read_bytes(s, index));
    int status = image_decode(s->decoder, s->bytes, image->size, &view, s->view);
    if (status < 0)
        return error_prefix(status, "%s: image %lld", shard_set_path(s->set, image->shard), (long long)index);
    place_view(s, top, left, augment_choose((augment_key){.seed = s->seed}, position).flip);
    draw_label(s, shard_set_manifest(s->set)->class_names[image->label], top + s->side + GAP, left);
    return 0;
}

static int draw(sheet *s)
{
    const int64_t images = shard_set_images(s->set);
    const int32_t shown = s->columns * s->rows < images ? s->columns * s->rows : (int32_t)images;
    s->pixels = malloc((size_t)s->height * (size_t)s->width * IMAGE_CHANNELS);
    s->view = malloc((size_t)s->side * (size_t)s->side * IMAGE_CHANNELS);
    CHECK(s->pixels && s->view, ERROR_MEMORY, "no memory for a sheet of %d x %d pixels", s->width, s->height);
    memset(s->pixels, PAPER, (size_t)s->height * (size_t)s->width * IMAGE_CHANNELS);
    TRY(image_decoder_open(&s->decoder));
    for (int32_t i = 0; i < shown; i++)
        TRY(draw_image(s, shard_set_ordered(s->set, i * images / shown), i));
    return 0;
}

static int write_file(const char *path, const void *bytes, size_t size)
{
    atomic_file *file;
    TRY(atomic_file_create(&file, path));
    int status = atomic_file_write(file, bytes, size);
    if (status == 0)
        status = atomic_file_commit(&file);
    atomic_file_abandon(&file);
    return status;
}

static int draw_and_write(sheet *s, const char *path)
{
    uint8_t *png;
    size_t size;
    TRY(draw(s));
    TRY(image_encode_png(s->pixels, s->height, s->width, &png, &size));
    int status = write_file(path, png, size);
    free(png);
    return status;
}

int sheet_write(const char *path, const shard_set *set, int32_t side, uint64_t seed)
{
    sheet s = {.set = set, .side = side, .columns = SHEET_COLUMNS, .rows = SHEET_ROWS, .seed = seed};
    s.width = GAP + s.columns * (side + GAP);
    s.height = GAP + s.rows * (side + LABEL_HEIGHT);
    int status = draw_and_write(&s, path);
    image_decoder_close(&s.decoder);
    free(s.pixels);
    free(s.view);
    free(s.bytes);
    return status;
}
