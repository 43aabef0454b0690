/* Owns the reader of one thread and the memory for one image. Images of a set in memory are cropped out of its bytes;
 * of others a view is rendered. Invariant: what an image becomes depends on the options and its place in the epoch
 * alone. */
#include "io/data/image_maker.h"

#include "base/error.h"
#include "base/rng.h"
#include "io/data/augment.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct image_maker {
    const loader_options *options;
    bad_images *bad;
    image_reader *reader; /* of a set that does not hold its images */
    uint8_t *bytes;       /* an image that is still to be normalised */
    _Atomic int32_t at;
};

size_t loader_image_bytes(const loader_options *o, int32_t height, int32_t width)
{
    const size_t values = (size_t)height * (size_t)width * IMAGE_CHANNELS;
    switch (o->content) {
    case LOADER_REAL:
        return values * dtype_bytes(o->real);
    case LOADER_BYTES:
        return values;
    default:
        return 0;
    }
}

/* Where image `k` of the slot goes. */
static void *place_in(const loader_options *o, const loader_slot *slot, int32_t k)
{
    const size_t bytes = loader_image_bytes(o, slot->batch.height, slot->batch.width);
    return slot->pixels ? (char *)slot->pixels + (size_t)k * bytes : NULL;
}

static int open_reader(image_maker *m)
{
    const image_set *set = m->options->set;
    if (set->pixels)
        return 0;
    m->bytes = malloc((size_t)m->options->height * (size_t)m->options->width * IMAGE_CHANNELS);
    CHECK(m->bytes, ERROR_MEMORY, "no memory for an image of %d x %d", m->options->height, m->options->width);
    return set->ops->reader_open(&m->reader, set);
}

int image_maker_open(image_maker **made, const loader_options *options, bad_images *bad)
{
    image_maker *m = calloc(1, sizeof *m);
    *made = m;
    CHECK(m, ERROR_MEMORY, "no memory for a thread that makes images");
    m->options = options;
    m->bad = bad;
    m->at = -1;
    int status = open_reader(m);
    if (status < 0)
        image_maker_close(made);
    return status;
}

void image_maker_close(image_maker **maker)
{
    image_maker *m = *maker;
    if (!m)
        return;
    if (m->reader)
        m->options->set->ops->reader_close(m->reader);
    free(m->bytes);
    free(m);
    *maker = NULL;
}

int32_t image_maker_at(const image_maker *maker)
{
    return maker->at;
}

/* ---- sets that hold their images ---- */

/* Copies the chosen images into the slot, where they are numbered by their places. */
static void copy_images(const image_set *set, loader_slot *slot, int32_t first, int32_t count)
{
    const size_t bytes = image_bytes(set);
    for (int32_t k = first; k < first + count; k++) {
        int32_t *image = slot->choices + (size_t)k * AUGMENT_CHOICE;
        memcpy((char *)slot->pixels + (size_t)k * bytes, set->pixels + (size_t)*image * bytes, bytes);
        *image = k;
    }
}

static int fill_from_memory(image_maker *m, loader_slot *slot, const augment_key *key, int32_t first, int32_t count)
{
    const loader_options *o = m->options;
    const int32_t position = slot->batch.share.position + first;
    const int32_t *order = slot->index + first;
    int32_t *labels = slot->labels + first;
    if (o->content == LOADER_REAL)
        return augment_batch(o->set, key, order, position, count, o->real, place_in(o, slot, first), labels);
    TRY(augment_choices(o->set, key, order, position, count, slot->choices + (size_t)first * AUGMENT_CHOICE, labels));
    if (o->content == LOADER_BYTES)
        copy_images(o->set, slot, first, count);
    return 0;
}

/* ---- sets that are read ---- */

/* Where an image is for: a position of an epoch, at a size. */
typedef struct {
    const augment_key *key; /* NULL: the centre, not turned */
    int32_t position, height, width;
} image_place;

static image_view view_of(const loader_options *o, const image_place *place, int32_t height, int32_t width)
{
    if (!place->key)
        return crop_center(height, width, o->resize, place->height);
    const uint64_t stream = rng_stream(RNG_CROP, (uint64_t)place->key->epoch);
    return (image_view){
        .region = crop_random(&o->crop, height, width, place->key->seed, stream, (uint32_t)place->position),
        .height = place->height,
        .width = place->width,
        .window = {.height = place->height, .width = place->width},
    };
}

static int read_image(image_maker *m, const image_place *place, int32_t index, uint8_t *pixels)
{
    const image_set_ops *ops = m->options->set->ops;
    int32_t height, width;
    m->at = index;
    int status = ops->load(m->reader, index, &height, &width);
    if (status == 0) {
        const image_view view = view_of(m->options, place, height, width);
        status = ops->render(m->reader, &view, pixels);
    }
    m->at = -1;
    return status;
}

/* The image, or the first one after it that can be read in its place. */
static int read_good_image(image_maker *m, const image_place *place, int32_t *index, uint8_t *pixels)
{
    int status = read_image(m, place, *index, pixels);
    while (status < 0) {
        TRY(bad_images_add(m->bad, *index, status)); /* a set whose images are all bad ends here */
        *index = bad_images_substitute(m->options->set, *index);
        status = read_image(m, place, *index, pixels);
    }
    return 0;
}

/* Image `k` of the slot. */
static int fill_one(image_maker *m, loader_slot *slot, const augment_key *key, int32_t k)
{
    const loader_options *o = m->options;
    const image_place place = {.key = key,
                               .position = slot->batch.share.position + k,
                               .height = slot->batch.height,
                               .width = slot->batch.width};
    const bool flip = key && augment_choose(*key, place.position).flip;
    void *at = place_in(o, slot, k);
    TRY(read_good_image(m, &place, &slot->index[k], o->content == LOADER_REAL ? m->bytes : at));
    slot->labels[k] = o->set->labels[slot->index[k]];
    if (o->content == LOADER_REAL)
        augment_normalise(o->set, m->bytes, place.height, place.width, flip, o->real, at);
    else
        memcpy(slot->choices + (size_t)k * AUGMENT_CHOICE, (int32_t[]){k, AUGMENT_PADDING, AUGMENT_PADDING, flip},
               AUGMENT_CHOICE * sizeof *slot->choices);
    return 0;
}

int image_maker_fill(image_maker *m, loader_slot *slot, int32_t first, int32_t count)
{
    const loader_options *o = m->options;
    const augment_key key = {o->seed, (int32_t)slot->batch.epoch}, *wanted = o->augment ? &key : NULL;
    if (o->set->pixels)
        return fill_from_memory(m, slot, wanted, first, count);
    for (int32_t k = first; k < first + count; k++)
        TRY(fill_one(m, slot, wanted, k));
    return 0;
}
