/* Crop, flip and normalise. Owns no state; any thread may call it. A channel has only 256 values, so normalising is a
 * table look-up, and padded pixels are the table's entry of byte 0. */
#include "io/data/augment.h"

#include "base/error.h"
#include "base/rng.h"

#include <string.h>

enum { CHANNELS = IMAGE_CHANNELS, BYTES = 256 };

augment_choice augment_choose(augment_key key, int32_t position)
{
    const uint64_t stream = rng_stream(RNG_AUGMENTATION, (uint64_t)key.epoch);
    const uint32_t counter[4] = {(uint32_t)position, 0, (uint32_t)stream, (uint32_t)(stream >> 32)};
    uint32_t random[4];
    rng_philox(key.seed, counter, random);
    const uint64_t places = 2 * AUGMENT_PADDING + 1;
    return (augment_choice){
        .top = (int32_t)(random[0] * places >> 32),
        .left = (int32_t)(random[1] * places >> 32),
        .flip = random[2] >> 31,
    };
}

/* Both widths of the table; the float one is rounded once from the double one. */
typedef struct {
    double wide[BYTES][CHANNELS];
    float narrow[BYTES][CHANNELS];
} normal_table;

static void normal_table_fill(normal_table *table, const image_set *set)
{
    for (int v = 0; v < BYTES; v++) {
        for (int c = 0; c < CHANNELS; c++) {
            table->wide[v][c] = (v / 255.0 - (double)set->mean[c]) / (double)set->std[c];
            table->narrow[v][c] = (float)table->wide[v][c];
        }
    }
}

/* One row of bytes, taken forwards or backwards. */
static void normalise_row(const normal_table *table, dtype real, const uint8_t *row, int32_t width, bool flip,
                          void *out)
{
    for (int32_t x = 0; x < width; x++) {
        const uint8_t *from = row + (size_t)(flip ? width - 1 - x : x) * CHANNELS;
        for (int c = 0; c < CHANNELS; c++) {
            if (real == DTYPE_F64)
                ((double *)out)[x * CHANNELS + c] = table->wide[from[c]][c];
            else
                ((float *)out)[x * CHANNELS + c] = table->narrow[from[c]][c];
        }
    }
}

/* Row `y` of the crop, as bytes: zeros where it lies in the padding. */
static void crop_row(const image_set *set, const uint8_t *image, augment_choice choice, int32_t y, uint8_t *row)
{
    const int32_t width = set->width, source_y = y + choice.top - AUGMENT_PADDING,
                  shift = choice.left - AUGMENT_PADDING;
    memset(row, 0, (size_t)width * CHANNELS);
    const int32_t from = shift > 0 ? shift : 0, to = width + (shift < 0 ? shift : 0);
    if (source_y < 0 || source_y >= set->height || to <= from)
        return;
    memcpy(row + (size_t)(from - shift) * CHANNELS,
           image + ((size_t)source_y * (size_t)width + (size_t)from) * CHANNELS, (size_t)(to - from) * CHANNELS);
}

static void make_image(const image_set *set, const normal_table *table, const augment_choice *choice,
                       const uint8_t *image, dtype real, uint8_t *scratch, char *out)
{
    const size_t row_values = (size_t)set->width * CHANNELS;
    for (int32_t y = 0; y < set->height; y++) {
        const uint8_t *row = image + (size_t)y * row_values;
        if (choice) {
            crop_row(set, image, *choice, y, scratch);
            row = scratch;
        }
        normalise_row(table, real, row, set->width, choice && choice->flip, out);
        out += row_values * dtype_bytes(real);
    }
}

void augment_normalise(const image_set *set, const uint8_t *pixels, int32_t height, int32_t width, bool flip,
                       dtype real, void *out)
{
    normal_table table;
    const size_t row_values = (size_t)width * CHANNELS;
    normal_table_fill(&table, set);
    for (int32_t y = 0; y < height; y++)
        normalise_row(&table, real, pixels + (size_t)y * row_values, width, flip,
                      (char *)out + (size_t)y * row_values * dtype_bytes(real));
}

static int check_image(const image_set *set, int32_t index)
{
    CHECK(index >= 0 && index < set->images, ERROR_DATA, "image %d is outside a data set of %d", index, set->images);
    CHECK(set->labels[index] >= 0 && set->labels[index] < set->classes, ERROR_DATA,
          "image %d has label %d, labels are 0 to %d", index, set->labels[index], set->classes - 1);
    return 0;
}

int augment_batch(const image_set *set, const augment_key *key, const int32_t *order, int32_t position, int32_t count,
                  dtype real, void *pixels, int32_t *labels)
{
    normal_table table;
    normal_table_fill(&table, set);
    const size_t one_image_bytes = image_bytes(set);
    uint8_t scratch[AUGMENT_MAX_WIDTH * CHANNELS];
    CHECK(set->width <= AUGMENT_MAX_WIDTH, ERROR_DATA, "images of width %d are wider than %d", set->width,
          AUGMENT_MAX_WIDTH);
    for (int32_t k = 0; k < count; k++) {
        const int32_t index = order[k];
        TRY(check_image(set, index));
        augment_choice choice = {0};
        if (key)
            choice = augment_choose(*key, position + k);
        make_image(set, &table, key ? &choice : NULL, set->pixels + (size_t)index * one_image_bytes, real, scratch,
                   (char *)pixels + (size_t)k * one_image_bytes * dtype_bytes(real));
        labels[k] = set->labels[index];
    }
    return 0;
}

int augment_choices(const image_set *set, const augment_key *key, const int32_t *order, int32_t position, int32_t count,
                    int32_t *choices, int32_t *labels)
{
    for (int32_t k = 0; k < count; k++) {
        augment_choice choice = {AUGMENT_PADDING, AUGMENT_PADDING, false};
        TRY(check_image(set, order[k]));
        if (key)
            choice = augment_choose(*key, position + k);
        memcpy(choices + (size_t)k * AUGMENT_CHOICE, (int32_t[]){order[k], choice.top, choice.left, choice.flip},
               AUGMENT_CHOICE * sizeof *choices);
        labels[k] = set->labels[order[k]];
    }
    return 0;
}

void augment_table(const image_set *set, dtype real, void *table)
{
    normal_table both;
    normal_table_fill(&both, set);
    if (real == DTYPE_F64)
        memcpy(table, both.wide, sizeof both.wide);
    else
        memcpy(table, both.narrow, sizeof both.narrow);
}
