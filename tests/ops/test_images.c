/* Op images against the loader's own way of making a batch: the same bytes, hence the same numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../io/random_set.h"
#include "base/error.h"
#include "io/data/augment.h"
#include "kernels/backend.h"

enum { IMAGES = 9, HEIGHT = 12, WIDTH = 10, BATCH = 64, CHANNELS = IMAGE_CHANNELS };

/* What a byte of a channel becomes. */
static void fill_table(const image_set *set, double table[256][CHANNELS])
{
    for (int byte = 0; byte < 256; byte++)
        for (int c = 0; c < CHANNELS; c++)
            table[byte][c] = (byte / 255.0 - (double)set->mean[c]) / (double)set->std[c];
}

static void make_choices(const augment_key *key, const int32_t *order, int32_t choice[BATCH][4])
{
    for (int32_t n = 0; n < BATCH; n++) {
        augment_choice c = {AUGMENT_PADDING, AUGMENT_PADDING, false};
        if (key)
            c = augment_choose(*key, n);
        memcpy(choice[n], (int32_t[]){order[n], c.top, c.left, c.flip}, sizeof choice[n]);
    }
}

static void run_images(backend *b, const image_set *set, int32_t choice[BATCH][4], double table[256][CHANNELS],
                       double *y)
{
    kernel_request r = {
        .node = {.op = OP_IMAGES, .n_in = 3, .n_out = 1, .attr = {.pad = AUGMENT_PADDING, .channels = CHANNELS}},
        .label = "test"};
    kernel *k = NULL;
    size_t bytes = 0;
    r.in[0] = (tensor_desc){.dim = {IMAGES, HEIGHT, WIDTH, CHANNELS}, .dtype = DTYPE_U8};
    r.in[1] = (tensor_desc){.dim = {BATCH, 1, 1, 4}, .dtype = DTYPE_I32};
    r.in[2] = (tensor_desc){.dim = {1, 256, 1, CHANNELS}, .dtype = DTYPE_F64};
    r.out[0] = (tensor_desc){.dim = {BATCH, HEIGHT, WIDTH, CHANNELS}, .dtype = DTYPE_F64};
    assert_int_equal(b->ops->prepare(b, &r, &k, &bytes), 0);
    assert_int_equal(b->ops->launch(b, k, &(kernel_args){.in = {set->pixels, choice, table}, .out = {y}}), 0);
    b->ops->release(b, k);
}

static void check(const augment_key *key)
{
    backend *b = NULL;
    image_set set;
    int32_t order[BATCH], labels[BATCH], choice[BATCH][4];
    static double table[256][CHANNELS], expected[BATCH * HEIGHT * WIDTH * CHANNELS],
        got[sizeof expected / sizeof *expected];
    assert_int_equal(backend_reference_open(&b, 1), 0);
    assert_int_equal(random_set(&set, IMAGES, HEIGHT, WIDTH, 10, 5), 0);
    for (int32_t n = 0; n < BATCH; n++)
        order[n] = n * 7 % IMAGES;
    assert_int_equal(augment_batch(&set, key, order, 0, BATCH, DTYPE_F64, expected, labels), 0);
    fill_table(&set, table);
    make_choices(key, order, choice);
    run_images(b, &set, choice, table, got);
    assert_memory_equal(got, expected, sizeof expected);
    image_set_close(&set);
    b->ops->close(b);
}

static void cropped_and_flipped(void **state)
{
    (void)state;
    check(&(augment_key){.seed = 3, .epoch = 2});
}

static void as_they_are(void **state)
{
    (void)state;
    check(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cropped_and_flipped), cmocka_unit_test(as_they_are)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
